"""lava-test-runner and lava-test-shell: which definitions run, in what, and what is told about each."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from script_harness import Call, Device

EXIT = b"<LAVA_TEST_RUNNER EXIT>"


class Stage:
    """The directory that the runner is given, with its definitions."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.path = device.root / "0"
        self.path.mkdir()
        device.settings(TEST_SHELL=" ".join(device.shell))

    def define(self, name: str, steps: str, install: str | None = None) -> Path:
        """Add a definition with the UUID ``u-NAME``."""
        directory = self.path / "tests" / name
        directory.mkdir(parents=True)
        (directory / "run.sh").write_text(steps + "\n")
        (directory / "uuid").write_text(f"u-{name}")
        if install is not None:
            (directory / "install.sh").write_text(install + "\n")
        with (self.path / "lava-test-runner.conf").open("a") as listed:
            listed.write(f"{directory}\n")
        return directory

    def start(self, **options: object) -> Call:
        return self.device.start("lava-test-runner", str(self.path), **options)  # type: ignore[arg-type]

    def run(self, **options: object) -> tuple[int, bytes]:
        return self.device.run("lava-test-runner", str(self.path), **options)  # type: ignore[arg-type]

    def results(self) -> dict[str, str]:
        """The result files: their paths without the time stamp, and their text."""
        root = self.path / "results"
        files = (path for path in root.rglob("*") if path.is_file())
        return {re.sub(r"-\d{10,}/", "/", str(path.relative_to(root))): path.read_text() for path in files}


@pytest.fixture
def stage(device: Device) -> Stage:
    return Stage(device)


def run_of(name: str, output: str, *, ended: bool = True) -> bytes:
    end = f"<LAVA_SIGNAL_ENDRUN {name} u-{name}>\n" if ended else ""
    return f"<LAVA_SIGNAL_STARTRUN {name} u-{name}>\n{output}{end}".encode()


def test_each_definition_runs_in_its_directory_with_what_it_needs(stage: Stage) -> None:
    first = stage.define(
        "0_first", 'pwd; echo "$TESTRUN_ID ${LAVA_RESULT_DIR%-*}"; lava-self; lava-test-case a --result pass'
    )
    stage.define("1_$(x)", 'read -r line; echo "$line" $0', install="echo installing")
    call = stage.start()
    call.expect(b"STARTRUN 1_$(x) u-1_$(x)>\r\n")
    call.type(b"typed\n")
    assert call.finish() == 0
    results = stage.path / "results"
    case = "<LAVA_SIGNAL_TESTCASE TEST_CASE_ID=a RESULT=pass>"
    assert call.output.replace(b"\r\n", b"\n").replace(b"typed\ntyped", b"typed") == (
        run_of("0_first", f"{first}\n0_first {results}/0_first\n12346\n{case}\n")
        + b"installing\n"
        + run_of("1_$(x)", f"typed {stage.path}/tests/1_$(x)/run.sh\n")
        + EXIT
        + b"\n"
    )
    assert stage.results() == {
        "0_first/return_code": "0\n",
        "0_first/results/a/result": "pass\n",
        "1_$(x)/install_return_code": "0\n",
        "1_$(x)/return_code": "0\n",
    }


def test_a_definition_inherits_the_console_as_9_and_nothing_else(stage: Stage) -> None:
    stage.define("0_any", "sh -c 'for n in 3 4 5 6 7 8 9; do test ! -e /proc/$$/fd/$n || echo $n; done'")
    assert stage.run() == (0, run_of("0_any", "9\n") + EXIT + b"\n")


def test_a_definition_ends_at_the_first_step_that_fails(stage: Stage) -> None:
    stage.define("0_bad", "echo one\nsh -c 'exit 7'\necho never")
    stage.define("1_refused", "lava-send\necho never")
    stage.define("2_good", "lava-test-case a --shell false")
    status, output = stage.run()
    case = "<LAVA_SIGNAL_STARTTC a>\n<LAVA_SIGNAL_ENDTC a>\n<LAVA_SIGNAL_TESTCASE TEST_CASE_ID=a RESULT=fail>\n"
    assert status == 0
    assert output == (
        run_of("0_bad", "one\n", ended=False)
        + run_of("1_refused", "usage: lava-send ID [KEY=VALUE ...]\n", ended=False)
        + run_of("2_good", case)
        + EXIT
        + b"\n"
    )
    codes = {name: text for name, text in stage.results().items() if name.endswith("return_code")}
    assert codes == {"0_bad/return_code": "7\n", "1_refused/return_code": "1\n", "2_good/return_code": "0\n"}


def test_a_definition_that_cannot_be_installed_is_told_and_passed_over(stage: Stage) -> None:
    stage.define("0_bad", "echo never", install="pwd; exit 3")
    gone = stage.define("1_gone", "echo never")
    stage.define("2_good", "echo good")
    listed = stage.path / "lava-test-runner.conf"
    listed.write_text(listed.read_text().removesuffix("\n"))
    for file in gone.iterdir():
        file.unlink()
    gone.rmdir()
    status, output = stage.run()
    assert status == 0
    failed = b"<LAVA_TEST_RUNNER INSTALL_FAIL>\n"
    assert output.startswith(f"{stage.path}/tests/0_bad\n".encode() + failed)
    assert output.endswith(b"\n" + failed + run_of("2_good", "good\n") + EXIT + b"\n")
    assert output.count(failed) == 2
    assert b"never" not in output
    assert stage.results() == {"0_bad/install_return_code": "3\n", "2_good/return_code": "0\n"}


def test_a_second_run_has_nothing_to_run(stage: Stage) -> None:
    stage.define("0_once", "echo ran")
    assert stage.run()[0] == 0
    assert [path.name[:22] for path in stage.path.glob("*.conf*")] == ["lava-test-runner.conf-"]
    status, output = stage.run()
    assert status == 1
    assert b"lava-test-runner: nothing to run in: " in output
    assert output.endswith(EXIT + b"\n")
    assert output.count(EXIT) == 1
    assert b"ran" not in output


def test_its_end_is_told_where_it_cannot_even_start(device: Device) -> None:
    usage = b"usage: lava-test-runner DIR\n" + EXIT + b"\n"
    assert device.run("lava-test-runner") == (1, usage)
    assert device.run("lava-test-runner", "nonexistent") == (1, usage)


def test_bin_sh_runs_a_definition_where_no_shell_is_set(stage: Stage) -> None:
    stage.device.settings()
    stage.define("0_any", "readlink /proc/$$/exe", install="readlink /proc/$$/exe")
    status, output = stage.run()
    shell = f"{os.path.realpath('/bin/sh')}\n"
    assert (status, output) == (0, shell.encode() + run_of("0_any", shell) + EXIT + b"\n")


@pytest.mark.parametrize(
    ("end", "status"),
    [(b"\x03", 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)],
)
def test_its_end_is_told_once_when_it_is_killed(stage: Stage, end: bytes | signal.Signals, status: int) -> None:
    stage.define("0_blocked", "stty -echo raw isig; echo now; read -r line")
    stage.define("1_next", "echo never")
    call = stage.start()
    call.expect(b"now\n")
    call.settle()
    if isinstance(end, bytes):
        call.type(end)
    else:
        os.killpg(call.process.pid, end)
    assert call.finish() == status
    assert call.output.count(EXIT) == 1
    assert call.output.endswith(EXIT + b"\r\n")
    assert b"1_next" not in call.output
    assert b"ENDRUN" not in call.output
    assert call.tty() == call.initial


def test_the_runner_alone_killed_ends_after_the_definition(stage: Stage) -> None:
    stage.define("0_blocked", "echo now; read -r line; echo rest")
    stage.define("1_next", "echo never")
    call = stage.start()
    call.expect(b"now\r\n")
    call.process.terminate()
    call.type(b"\n")
    assert call.finish() == 143
    assert call.output.count(EXIT) == 1
    assert call.output.endswith(b"rest\r\n" + EXIT + b"\r\n")


def test_the_tty_is_put_back_after_each_definition(stage: Stage) -> None:
    stage.define("0_raw", "stty raw -echo", install="stty -echo")
    stage.define("1_bad", "stty -g; stty raw -echo; false")
    stage.define("2_install", "echo never", install="stty raw -echo; false")
    stage.define("3_last", "stty -g; stty -icrnl")
    call = stage.device.test('stty -g; lava-test-runner "$STAGE"; stty -g', env={"STAGE": str(stage.path)})
    assert call.finish() == 0
    set_as = re.findall(rb"(?m)^[0-9a-f:]{40,}\r$", call.output)
    assert len(set_as) == 4
    assert len(set(set_as)) == 1


def test_the_runners_console_serves_where_no_other_can_be_opened(stage: Stage) -> None:
    nested = " ".join(stage.device.shell)
    stage.define(
        "0_nested",
        f"""exec </dev/null
        x=$(lava-wait one); echo "[$x]"
        lava-test-case a --shell "lava-send two" | cat
        {nested} -c 'lava-sync three | cat; lava-test-case b --result pass >out'
        """,
    )
    call = stage.start(terminal=False)
    call.answer(b"WAIT one", b"<LAVA_WAIT_COMPLETE 1:k=v>")
    call.expect(b"[]\r\n<LAVA_SIGNAL_STARTTC a>\r\n<LAVA_MULTI_NODE> <LAVA_SEND two>\r\n<LAVA_SIGNAL_ENDTC a>\r\n")
    call.answer(b"SYNC three", b"<LAVA_SYNC_COMPLETE>")
    call.expect(b"<LAVA_SIGNAL_TESTCASE TEST_CASE_ID=b RESULT=pass>\r\n")
    assert call.finish() == 0
    assert call.output.endswith(b"<LAVA_SIGNAL_ENDRUN 0_nested u-0_nested>\r\n" + EXIT + b"\r\n")


def test_the_test_shell_ends_with_the_status_of_its_command(device: Device) -> None:
    results = device.root / "results dir"
    results.mkdir()
    command = ["sh", "-c", 'echo "$LAVA_RESULT_DIR" "$1"; exit 9', "x", "a  b *"]
    status, output = device.run("lava-test-shell", "--output_dir", str(results), *command)
    assert (status, output) == (9, f"{results} a  b *\n".encode())
    assert (results / "return_code").read_text() == "9\n"
    assert device.run("lava-test-shell", "--output_dir", str(results)) == (
        1,
        b"usage: lava-test-shell --output_dir DIR COMMAND ...\n",
    )
