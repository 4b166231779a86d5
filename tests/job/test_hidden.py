"""``secrets:`` of a job: what may stand there, and that no message shows a value."""

from __future__ import annotations

from pathlib import Path

import pytest
from jobtext import DEFINITION, refused

from dispatcher.job.definition import load_job
from dispatcher.job.hidden import content, hidden_in, hider


def test_secrets_are_read_as_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(DEFINITION + "secrets: {TOKEN: a b=c, NUMBER: 012, NOTHING: }\n")
    job = load_job(path)
    assert content(job.secrets) == b"TOKEN=a b=c\nNUMBER=012\nNOTHING=\n"
    assert job.ignored == ()
    assert "a b=c" not in repr(job)


@pytest.mark.parametrize(
    ("secrets", "what"),
    [
        ('{TOKEN: "swordfish\\nx"}', "'TOKEN' must be one line of printable text"),
        ("{TOKEN: [swordfish]}", "'TOKEN' must be a word or a number, not a list"),
        ("{TO=KEN: swordfish}", "a secret's name is printable text without '='"),
        ("swordfish", "'secrets' must be a mapping of names to values"),
    ],
)
def test_what_is_wrong_is_told_without_a_value(
    secrets: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    error = refused(f"{DEFINITION}secrets: {secrets}\n")
    assert error.where == "job.yaml:12"
    assert error.what.startswith(what)
    assert "swordfish" not in str(error)


def test_values_are_taken_out_of_texts() -> None:
    hide = hider(["pass", "password", "abc", "a.c*"])
    assert hide("password passed, abc is short, a.c* is a text and abbc none") == (
        "[hidden] [hidden]ed, abc is short, [hidden] is a text and abbc none"
    )
    assert hidden_in({"password": ["x pass", 1, None, {"a": "password"}]}, hide) == {
        "[hidden]": ["x [hidden]", 1, None, {"a": "[hidden]"}]
    }


@pytest.mark.parametrize("secret", ["pa\\\\ss", "it's\"so", "a'b\"c\\\\d"])
def test_values_are_taken_out_where_a_message_quotes_them(secret: str) -> None:
    hide = hider([secret])
    assert hide(f"the console said last: {f'x {secret}'!r}").strip("'\"").endswith("x [hidden]")
    assert hide(secret) == "[hidden]"


def test_without_secrets_nothing_is_touched() -> None:
    data = {"a": ("b",)}
    assert hidden_in(data, hider(["x"])) is data
