"""What goes to a device: LAVA's layout, and text that every shell takes for what its author wrote."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.console.install import Entry
from dispatcher.job import definition, overlay
from dispatcher.job.testdef import Definition

DIRECTORY = "/tmp/lava-7-abc"


def made(name: str = "first", steps: tuple[str, ...] = ("true",), **more: object) -> Definition:
    values: dict[str, object] = {
        "origin": "inline",
        "install_steps": (),
        "params": {},
        "folder": None,
        "files": {},
        "path": "",
        "metadata_name": name,
        "line": 1,
        "where": "job.yaml:1",
        **more,
    }
    return Definition(name=name, steps=steps, **values)  # type: ignore[arg-type]


def build(*definitions: Definition, **more: object) -> dict[str, Entry]:
    test = definition.Test(("server",), definitions, None, None, 1)
    options: dict[str, object] = {"directory": DIRECTORY, "uuid_for": lambda run: f"uuid-of-{run}", **more}
    return overlay.Overlay(0, test, **options).files()  # type: ignore[arg-type]


def test_every_definition_has_a_directory_of_lavas_name() -> None:
    test = definition.Test(("server",), (made("a"), made("b", install_steps=("x",))), None, None, 1)
    made_of = overlay.Overlay(2, test, directory=DIRECTORY, uuid_for=lambda run: f"uuid-of-{run}", first_index=5)
    files = made_of.files()
    assert sorted(files) == [
        "2/lava-test-runner.conf",
        "2/tests/5_a/run.sh",
        "2/tests/5_a/uuid",
        "2/tests/6_b/install.sh",
        "2/tests/6_b/run.sh",
        "2/tests/6_b/uuid",
    ]
    assert files["2/lava-test-runner.conf"] == Entry(f"{DIRECTORY}/2/tests/5_a\n{DIRECTORY}/2/tests/6_b\n".encode())
    assert files["2/tests/6_b/uuid"] == Entry(b"uuid-of-6_b\n")


def test_the_steps_run_in_the_definitions_directory_and_the_first_failure_ends_them() -> None:
    steps = ("lava-send ready", "for i in 1 2; do\n  echo $i\ndone\n")
    files = build(made(steps=steps, params={"A": "it's"}, install_steps=("one", "two")))
    assert files["0/tests/0_first/run.sh"].content.decode() == (
        "A='it'\\''s'\n"
        "UUID='uuid-of-0_first'\n"
        "set -e\n"
        "set -x\n"
        "export TESTRUN_ID=0_first\n"
        f"cd {DIRECTORY}/0/tests/0_first\n"
        "lava-send ready\n"
        "for i in 1 2; do\n  echo $i\ndone\n\n"
        "set +x\n"
    )
    assert files["0/tests/0_first/install.sh"].content.decode() == (
        f"A='it'\\''s'\ncd {DIRECTORY}/0/tests/0_first\none\ntwo\n"
    )


def numbered(files: dict[str, Entry], path: str) -> list[str]:
    lines = files[path].content.decode().splitlines()
    return lines[lines.index("set -x") + 3 : -1]


def test_a_definition_that_may_reboot_its_device_knows_its_steps() -> None:
    files = build(made(steps=("one", "lava-reboot")), made("b", files={"x.sh": Entry(b"exec lava-reboot")}), made("c"))
    assert numbered(files, "0/tests/0_first/run.sh") == [
        *("export LAVA_STEP=1", "one"),
        *("export LAVA_STEP=2", "lava-reboot"),
    ]
    assert numbered(files, "0/tests/1_b/run.sh") == ["export LAVA_STEP=1", "true"]
    assert numbered(files, "0/tests/2_c/run.sh") == ["true"]


def test_the_rest_behind_a_step_and_what_it_needs() -> None:
    brought = {"x.sh": Entry(b"cat /tmp/lava_multi_node_cache.txt", executable=True)}
    may_reboot = made(
        "b", steps=("one", "lava-reboot", "three"), install_steps=("i",), files=brought, params={"A": "1"}
    )
    test = definition.Test(("server",), (made(), may_reboot, made("c", install_steps=("i",))), None, None, 1)
    made_of = overlay.Overlay(0, test, directory=DIRECTORY, uuid_for=lambda run: f"uuid-of-{run}", cache="/x")
    whole, rest = made_of.files(), made_of.rest("again", "1_b", 2)
    assert sorted(rest) == [
        "0/tests/1_b/uuid",
        "0/tests/1_b/x.sh",
        "0/tests/2_c/install.sh",
        "0/tests/2_c/run.sh",
        "0/tests/2_c/uuid",
        "again/lava-test-runner.conf",
        "again/tests/1_b/run.sh",
        "again/tests/1_b/uuid",
    ]
    assert {path: rest[path] for path in rest if path in whole} == {path: whole[path] for path in rest if path in whole}
    listed = rest["again/lava-test-runner.conf"].content.decode()
    assert listed == f"{DIRECTORY}/again/tests/1_b\n{DIRECTORY}/0/tests/2_c\n"
    begin = rest["again/tests/1_b/run.sh"].content.decode().partition("export LAVA_STEP")[0]
    assert whole["0/tests/1_b/run.sh"].content.decode().startswith(begin)
    assert f"cd {DIRECTORY}/0/tests/1_b\n" in begin
    assert numbered(rest, "again/tests/1_b/run.sh") == ["export LAVA_STEP=3", "three"]
    last = made_of.rest("last", "1_b", 3)
    assert numbered(last, "last/tests/1_b/run.sh") == []


@pytest.mark.parametrize(
    ("step", "written"),
    [
        (
            """lava-test-case x --shell "df | awk '{print $4}'" """,
            """lava-test-case x --shell "df | awk '{print \\$4}'" """,
        ),
        ("x --cmd $1 $10 $a $1a", "x --cmd \\$1 \\$10 $a $1a"),
        ("echo $1", "echo $1"),
    ],
)
def test_a_test_cases_own_arguments_are_left_to_it(step: str, written: str) -> None:
    assert f"\n{written}\n" in build(made(steps=(step,)))["0/tests/0_first/run.sh"].content.decode()


def test_a_definitions_own_words_for_results_are_told_to_its_steps() -> None:
    files = build(made(fixup={"OK": "pass", "it's": "fail", "two words": "fail"}), made("b"))
    assert b"export LAVA_RESULT_WORDS='OK it'\\''s'\n" in files["0/tests/0_first/run.sh"].content
    assert b"LAVA_RESULT_WORDS" not in files["0/tests/1_b/run.sh"].content


def test_only_the_helpers_that_a_test_names_go_to_its_device() -> None:
    brought = {"x.sh": Entry(b"#!/bin/sh\nlava-test-event x\n")}
    definitions = (made(steps=("echo $(lava-os-build)",), files=brought), made("b", install_steps=("lava-add-keys x",)))
    test = definition.Test(("server",), definitions, None, None, 1)
    scripts = ["lava-os-build", "lava-test-event", "lava-add-keys", "lava-target-ip"]
    assert overlay.named([test], scripts) == {"lava-os-build", "lava-test-event", "lava-add-keys"}


def test_a_definitions_files_come_along() -> None:
    brought = {"x.sh": Entry(b"#!/bin/sh\n", executable=True), "data/b.bin": Entry(bytes(range(256)))}
    files = build(made(files=brought))
    assert files["0/tests/0_first/x.sh"] == brought["x.sh"]
    assert files["0/tests/0_first/data/b.bin"] == brought["data/b.bin"]


def test_members_of_one_host_have_a_cache_each() -> None:
    path = overlay.DEFAULT_CACHE.encode()
    brought = {
        "text": Entry(b"cat " + path + b" " + path + b".old\n", executable=True),
        "binary": Entry(b"\0" + path),
    }
    step = f"cat {overlay.DEFAULT_CACHE}"
    files = build(made(steps=(step,), install_steps=(step,), files=brought), cache="/x/cache.txt")
    assert files["0/tests/0_first/text"] == Entry(b"cat /x/cache.txt /x/cache.txt.old\n", executable=True)
    assert files["0/tests/0_first/binary"] == brought["binary"]
    assert b"\ncat /x/cache.txt\n" in files["0/tests/0_first/run.sh"].content
    assert b"\ncat /x/cache.txt\n" in files["0/tests/0_first/install.sh"].content


def test_the_cache_keeps_its_name_where_it_may() -> None:
    files = build(made(steps=(f"cat {overlay.DEFAULT_CACHE}",)))
    assert f"\ncat {overlay.DEFAULT_CACHE}\n".encode() in files["0/tests/0_first/run.sh"].content


def test_what_has_not_been_cloned_cannot_be_sent() -> None:
    with pytest.raises(ValueError, match="first has not been resolved"):
        build(made(origin="git"))


# --- what a shell makes of it --------------------------------------------------------------------------------

SHELL_TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from("'\"\\$`\n\r\t !*?#~;&|<>(){}[]-="),
    max_size=30,
)


def told(script: bytes, names: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The variables that a real shell has after a script."""
    ask = "".join(f"printf '%s\\0' \"${name}\"\n" for name in names)
    path = folder / "script"
    path.write_bytes(script + ask.encode())
    done = subprocess.run(["sh", str(path)], capture_output=True, check=True)
    assert done.stderr == b""
    return dict(zip(names, done.stdout.decode().split("\0")[:-1], strict=True))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sh")


@settings(max_examples=50)
@given(st.lists(SHELL_TEXT, min_size=1, max_size=20))
def test_any_value_arrives_in_the_test_shell(scratch: Path, values: list[str]) -> None:
    variables = {f"V{number}": value for number, value in enumerate(values)}
    assert told(overlay.environment(variables), variables, scratch) == variables
    run = build(made(params=variables))["0/tests/0_first/run.sh"].content
    assert told(run.partition(b"set -e\n")[0], variables, scratch) == variables


def test_the_later_source_of_a_variable_holds() -> None:
    assert (
        overlay.environment({"A": "1", "B": "2"}, {"B": "3"}, {"C": ""}) == b"export A='1'\nexport B='3'\nexport C=''\n"
    )


def test_a_role_that_looks_like_code_is_no_code_in_the_settings(scratch: Path) -> None:
    role = "$(touch/x)`y`'\"\\"
    group = [("1", role), ("2", "client")]
    script = overlay.settings(
        job_id="1",
        role=role,
        group=group,
        console="/dev/ttyS0",
        cache="/x/cache",
        test_shell="/bin/sh",
        nonce="0000",
        seed=(7, 65518),
    )
    expected = {
        "LAVA_JOB_ID": "1",
        "LAVA_ROLE": role,
        "LAVA_GROUP": f"1\t{role}\n2\tclient",
        "LAVA_CONSOLE": "/dev/ttyS0",
        "LAVA_MULTI_NODE_CACHE_DEFAULT": "/x/cache",
        "LAVA_TEST_SHELL": "/bin/sh",
        "LAVA_SEED_A": "7",
        "LAVA_SEED_B": "65518",
    }
    assert told(script, expected, scratch) == expected
