"""YAML with lines: what a value is read as, and that no file does worse than end in one clear error."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import FileError
from dispatcher.job import definition, devices, yamlfile
from dispatcher.job.yamlfile import Keys, Node, Skipped, read
from dispatcher.wording import nearest, quoted

Values = Callable[[str], dict[str, Node]]


@pytest.fixture
def values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Values:
    """Reads a mapping and gives its values by key."""
    monkeypatch.chdir(tmp_path)

    def load(text: str) -> dict[str, Node]:
        Path("x.yaml").write_text(text)
        return {key.word(): value for key, value in read(Path("x.yaml"), Skipped()).items()}

    return load


def complaint(work: Callable[[], object]) -> tuple[str | None, str, str | None]:
    with pytest.raises(FileError) as caught:
        work()
    return caught.value.where, caught.value.what, caught.value.hint


# --- values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["on", "no", "null-ish", "012", "0x1F", "1_000", "12:30", "1e3", "2024-01-01", "=", "-x", ".inf"]
)
def test_a_word_stays_as_it_is_written(values: Values, text: str) -> None:
    assert values(f"a: {text}")["a"].text() == text


def test_keys_and_values_know_their_lines(values: Values) -> None:
    found = values("a: 1\nb:\n  - x\n  - {c: d}\n? e\n: - f\n")
    assert [found[key].line for key in "abe"] == [1, 2, 5]
    assert [value.line for value in found["b"].sequence()] == [3, 4]


@pytest.mark.parametrize("text", ["", "~", "null", "Null"])
def test_nothing_is_the_empty_text(values: Values, text: str) -> None:
    value = values(f"a: {text}")["a"]
    assert value.is_null
    assert value.text() == ""
    assert complaint(value.string) == ("x.yaml:1", "'a' is empty", None)


def test_a_quoted_null_is_a_word(values: Values) -> None:
    assert values("a: 'null'")["a"].string() == "null"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("true", True), ("Yes", True), ("ON", True), ("false", False), ("no", False), ("off", False), ("'true'", True)],
)
def test_truth_has_many_words(values: Values, text: str, expected: bool) -> None:
    assert values(f"a: {text}")["a"].boolean() is expected


@pytest.mark.parametrize("text", ["1", "y", "", "[true]", "truth"])
def test_other_words_are_not_truth(values: Values, text: str) -> None:
    assert complaint(values(f"a: {text}")["a"].boolean)[1].startswith("'a' must be ")


@pytest.mark.parametrize(("text", "expected"), [("0", 0), ("7", 7), ("-3", -3), ("'12'", 12)])
def test_whole_numbers_are_decimal(values: Values, text: str, expected: int) -> None:
    assert values(f"a: {text}")["a"].integer(-3, 12) == expected


@pytest.mark.parametrize("text", ["13", "-4", "010", "0x1", "1_0", "1:0", "1.0", "one", "", "9" * 5000, "٣"])
def test_other_numbers_are_refused(values: Values, text: str) -> None:
    value = values(f"a: {text}")["a"]
    what = complaint(lambda: value.integer(-3, 12))[1]
    assert what.startswith("'a' must be a whole number from -3 to 12, not ")
    assert len(what) < 120


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("yes", True),
        ("off", False),
        ("115200", 115200),
        ("-1", -1),
        ("010", "010"),
        ("1.5", "1.5"),
        ("9999999999", "9999999999"),
        ("'115200'", "115200"),
        ("N", "N"),
        ("/dev/ttyUSB0", "/dev/ttyUSB0"),
    ],
)
def test_a_plugins_option_has_yamls_type(values: Values, text: str, expected: object) -> None:
    found = values(f"a: {text}")["a"].raw()
    assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{seconds: 1}", 1), ("{minutes: 2, seconds: 3}", 123), ("{hours: 1}", 3600), ("{days: 365}", 31536000)],
)
def test_durations_are_seconds(values: Values, text: str, expected: float) -> None:
    assert values(f"a: {text}")["a"].duration() == expected


@pytest.mark.parametrize("text", ["5", "{}", "{seconds: 0}", "{seconds: -1}", "{days: 366}", "{seconds: .inf}", "[1]"])
def test_other_durations_are_refused(values: Values, text: str) -> None:
    assert complaint(values(f"a: {text}")["a"].duration)[0] == "x.yaml:1"


def test_one_word_may_stand_for_a_list(values: Values) -> None:
    found = values("a: x\nb: [y, z]\nc: []\n")
    assert [value.string() for value in found["a"].one_or_more()] == ["x"]
    assert [value.string() for value in found["b"].one_or_more()] == ["y", "z"]
    assert complaint(found["c"].one_or_more) == ("x.yaml:3", "'c' is empty", None)


def test_merged_keys_give_way_to_a_mappings_own(values: Values) -> None:
    found = values("a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc:\n  <<: [*a, *b]\n  x: 5\n")
    merged = {key.word(): value.text() for key, value in found["c"].items()}
    assert merged == {"x": "5", "y": "2", "z": "4"}


# --- keys ----------------------------------------------------------------------------------------------------

KEYS = Keys("place", frozenset(("used", "other")), frozenset(("skipped",)), {"refused": "do this instead"})


def test_only_used_keys_come_back_and_skipped_ones_are_told_once(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("- {used: 1, skipped: 2}\n- {skipped: 3}\n")
    skipped = Skipped()
    first, second = (node.mapping(KEYS) for node in read(path, skipped).sequence())
    assert (list(first), list(second)) == (["used"], [])
    assert skipped.told() == ("'skipped' in place is not used (line 1)",)


def test_of_a_key_that_stands_twice_the_last_holds_and_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("used: 1\nother: 2\nused: 3\n")
    skipped = Skipped()
    found = read(path, skipped).mapping(KEYS)
    assert {key: value.text() for key, value in found.items()} == {"used": "3", "other": "2"}
    assert skipped.told() == ("key 'used' stands twice: the one in line 1 is not used (line 3)",)


def test_a_key_that_stands_twice_is_an_error_where_keys_are_unique(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text("used: 1\nother: 2\nused: 3\n")
    expected = "x.yaml:3", "key 'used' stands twice: in line 1 and in line 3", None
    assert complaint(lambda: read(Path("x.yaml"), Skipped(), unique_keys=True).mapping(KEYS)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("usd: 1", ("x.yaml:1", "unknown key 'usd'; did you mean 'used'?", None)),
        ("used: 1\nréfusé: 1", ("x.yaml:2", "unknown key 'réfusé'; did you mean 'refused'?", None)),
        ("refused: 1", ("x.yaml:1", "'refused' is not supported in place", "do this instead")),
    ],
)
def test_other_keys_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: tuple[str, str, str | None]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(text)
    assert complaint(lambda: read(Path("x.yaml"), Skipped()).mapping(KEYS)) == expected


def test_the_nearest_of_nothing_is_not_named() -> None:
    assert nearest("word", ()) == ""


def test_a_long_word_is_cut_in_a_message() -> None:
    assert quoted("a\n" * 1000) == repr("a\n" * 29 + "a…")


# --- files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a:\n\tb: c", ("x.yaml:2", "not valid YAML: found character '\\t' that cannot start any token", "indent")),
        (b"a: b: c", ("x.yaml:1", "not valid YAML: mapping values are not allowed here", None)),
        (
            b"a: [b,\nc: d",
            ("x.yaml:2", "not valid YAML: expected ',' or ']', but got '<stream end>'", "that starts in line 1"),
        ),
        (b"a: *b", ("x.yaml:1", "not valid YAML: found undefined alias 'b'", None)),
        (b"x: &a b\ny: &a d", ("x.yaml:2", "not valid YAML: found duplicate anchor 'a'; first occurrence", None)),
        (b"a: 'b", ("x.yaml:1", "not valid YAML: found unexpected end of stream", "that starts in line 1")),
        (b"a: 1\n\xe4: 2", ("x.yaml:2", "byte 0xe4 is not UTF-8", "save the file as UTF-8")),
        (b"\xff\xfea\x00", ("x.yaml:1", "byte 0xff is not UTF-8", "save the file as UTF-8")),
        (b"a: 1\nb: \x07", ("x.yaml:2", "not valid YAML: the character '\\x07' may not stand in a file", None)),
        (b'a: "\\UFFFFFFFF"', ("x.yaml:1", "not valid YAML: a number is out of range", None)),
        (b"%YAML " + b"9" * 5000 + b".1\n---\na", ("x.yaml:1", "not valid YAML: a number is out of range", None)),
        (b"a: 1\n---\nb: 2", ("x.yaml:2", "a second document starts here", "remove the ---")),
        (b"", ("x.yaml", "the file is empty", None)),
        (b"# nothing\n", ("x.yaml", "the file is empty", None)),
        (b"[" * 2000, ("x.yaml:1", "values are nested too deeply", None)),
        (b"- " * 2000, ("x.yaml:1", "values are nested too deeply", None)),
        (b"a: &a [*a]", ("x.yaml:1", "an alias stands inside of what it stands for", None)),
        (b"a:\n- &a\n  b: {c: *a}", ("x.yaml:2", "an alias stands inside of what it stands for", None)),
        (b"[" + b"a," * 50000 + b"]", ("x.yaml:1", "more than 50000 values", None)),
        (b"a" * (1024 * 1024 + 1), ("x.yaml", "is larger than 1024 KiB", None)),
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else "",
)
def test_a_bad_file_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, expected: tuple[str, str, str | None]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_bytes(data)
    where, what, hint = complaint(lambda: read(Path("x.yaml"), Skipped()))
    assert (where, what) == expected[:2]
    assert (hint is None) == (expected[2] is None)
    assert (expected[2] or "") in (hint or "")


def test_aliases_cannot_multiply_without_end(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    bomb = ["a0: &a0 x"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 64)]
    path.write_text("\n".join(bomb))
    where, what, _ = complaint(lambda: read(path, Skipped()))
    assert what == f"more than {yamlfile.VALUE_LIMIT} values with every alias written out"
    assert where == f"{path}:16"


def test_a_mark_of_utf8_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfa: b")
    assert [key.word() for key, _ in read(tmp_path / "x.yaml", Skipped()).items()] == ["a"]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("nowhere.yaml", "'nowhere.yaml' cannot be read: No such file or directory"),
        (".", "'.' cannot be read: Is a directory"),
        ("x" * 300, f"{'x' * 199!r}".replace("x'", "x…'") + " cannot be read: File name too long"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert complaint(lambda: definition.load_job(Path(name))) == (None, what, None)


# --- anything at all -----------------------------------------------------------------------------------------

TRANSPORTS = {"serial": {"serial": "", "baudrate": ""}, "command": {"command": ""}}

GOOD = """\
job_name: a job
timeouts: {job: {minutes: 10}, action: {minutes: 5}}
protocols:
  lava-multinode:
    roles:
      server: &server {device_type: board, count: 1, environment: {A: 1}, timeout: {minutes: 1}}
      client: {<<: *server, count: 2, essential: yes}
    timeout: {minutes: 3}
actions:
- deploy: {role: server, to: tftp}
- boot:
    role: [server, client]
    prompts: ['root@board:', '[$#] $']
    auto_login: {login_prompt: 'login:', username: root, password_prompt: 'word:', password: x}
- test:
    role: [server, client]
    timeout: {minutes: 2}
    lava-multinode: {timeout: {seconds: 9}}
    definitions:
    - from: inline
      name: first
      path: inline/first.yaml
      params: {A: "1", B: '2'}
      skip_install: [deps]
      repository:
        metadata: {name: first}
        install: {deps: [a], steps: [b]}
        run:
          steps:
          - lava-send ready a=b
          - |
            two
            lines
    - {from: git, name: second, repository: 'https://x/y', path: z.yaml, branch: b}
"""

GOOD_DEVICES = """\
devices:
  panda:
    device_type: board
    console: {serial: /dev/null, baudrate: 9600}
    prompts: ['x']
    commands: {power_on: [a, b]}
    character_delay: 5
  local: {device_type: board, count: 8, console: {command: sh}, environment: {A: b}, lava_test_results_dir: /x/%s}
"""


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any") / "x.yaml"


def verdict(load: Callable[[Path], object], path: Path) -> str:
    """What a person is told of a file. Anything but a FileError fails the test."""
    try:
        load(path)
    except FileError as error:
        return str(error)
    return ""


def both(path: Path) -> None:
    """Reads a file as a job and as devices."""
    for load in (definition.load_job, lambda path: devices.load_devices(path, TRANSPORTS)):
        told = verdict(load, path)
        assert len(told.splitlines()) <= 2
        assert told.encode()[:2000] == told.encode()


def test_the_good_files_are_good(scratch: Path) -> None:
    scratch.write_text(GOOD)
    job = definition.load_job(scratch)
    scratch.write_text(GOOD_DEVICES)
    assert len(devices.assign(job, devices.load_devices(scratch, TRANSPORTS))) == 3


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(scratch: Path, data: bytes) -> None:
    scratch.write_bytes(data)
    both(scratch)


PIECES = [
    "\n",
    "  ",
    "- ",
    ": ",
    "? ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "&a ",
    "*a",
    "<<: ",
    "!!int ",
    "!x ",
    "'",
    '"',
    "|\n",
    "#",
]
PIECES += [
    "null",
    "yes",
    "-1",
    "010",
    "1e400",
    '"\\0"',
    '"\\ud800"',
    "\t",
    "\x85",
    "\u2028",
    "é",
    "(",
    "\\",
    "---\n",
    "%",
    "@",
]


@given(st.sampled_from([GOOD, GOOD_DEVICES]), st.randoms(use_true_random=False), st.integers(1, 4))
def test_any_damage_to_a_file_is_read_or_refused(scratch: Path, text: str, rng: random.Random, times: int) -> None:
    for _ in range(times):
        start = rng.randrange(len(text))
        end = start + rng.choice([0, 0, 1, 2, 10])
        text = text[:start] + rng.choice([*PIECES, ""]) + text[end:]
    scratch.write_text(text)
    both(scratch)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a value, with each of its keys."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield value, key
        yield from places(inner)


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["", "[", "x", "."]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from([GOOD, GOOD_DEVICES]), ODD, st.randoms(use_true_random=False))
def test_any_value_in_any_place_is_read_or_refused(scratch: Path, text: str, odd: Any, rng: random.Random) -> None:
    whole = yaml.safe_load(text)
    container, key = rng.choice(list(places(whole)))
    if isinstance(container, dict) and rng.random() < 0.2:
        container[str(odd)] = container.pop(key)
    else:
        container[key] = odd
    scratch.write_text(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True), errors="surrogatepass")
    both(scratch)
