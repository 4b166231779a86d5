"""lava-test-case and lava-echo-ipv4: what a definition records, and an address to send."""

from __future__ import annotations

from pathlib import Path

import pytest
from script_harness import Device

USAGE = b"usage: lava-test-case NAME --shell COMMAND ... | --result pass|fail|skip|unknown [--meas"


def recorded(name: str, rest: str) -> bytes:
    return f"<LAVA_SIGNAL_TESTCASE TEST_CASE_ID={name} {rest}>\n".encode()


def run_as_case(name: str, output: str, result: str) -> bytes:
    start, end = f"<LAVA_SIGNAL_STARTTC {name}>\n", f"<LAVA_SIGNAL_ENDTC {name}>\n"
    return (start + output + end).encode() + recorded(name, f"RESULT={result}")


@pytest.mark.parametrize(
    ("command", "output", "result"),
    [
        (["true"], "", "pass"),
        (["false"], "", "fail"),
        (["exit 3"], "", "fail"),
        (["set -e; false; true"], "", "fail"),
        (["echo", "'a", " b'", "|", "cat"], "a  b\n", "pass"),
        (["echo $TEST_CASE_ID; lava-self"], "{name}\n12346\n", "pass"),
        (["lava-send a k=v </dev/null >/dev/null"], "<LAVA_MULTI_NODE> <LAVA_SEND a k=v>\n", "pass"),
        (["set -- *; echo $#"], "2\n", "pass"),
    ],
)
def test_a_command_is_run_and_its_result_recorded(device: Device, command: list[str], output: str, result: str) -> None:
    (device.work / "one").touch()
    (device.work / "two").touch()
    name = "case.1-é/x"
    expected = run_as_case(name, output.format(name=name), result)
    assert device.run("lava-test-case", name, "--shell", *command) == (0, expected)


def test_results_go_to_the_console_and_the_commands_output_where_stdout_goes(device: Device) -> None:
    call = device.test("lava-test-case a --shell echo hello >out; lava-test-case b --result skip >>out; cat out")
    assert call.finish() == 0
    expected = run_as_case("a", "", "pass") + recorded("b", "RESULT=skip") + b"hello\n"
    assert call.output.replace(b"\r\n", b"\n") == expected


def test_the_command_does_not_inherit_the_console(device: Device) -> None:
    command = "sh -c 'test ! -e /proc/$$/fd/7 && test ! -e /proc/$$/fd/8'"
    assert device.run("lava-test-case", "a", "--shell", command) == (0, run_as_case("a", "", "pass"))


def test_the_command_has_the_descriptors_and_the_input_of_the_test(device: Device) -> None:
    (device.work / "list").write_text("three\n")
    (device.work / "other").write_text("four\n")
    call = device.test("lava-test-case a --shell 'read -r x <&3; read -r y; echo $x $y' 3<list <other")
    assert call.finish() == 0
    assert b"\r\nthree four\r\n" in call.output


@pytest.mark.parametrize("result", ["pass", "fail", "skip", "unknown"])
def test_a_result_is_recorded(device: Device, result: str) -> None:
    options = ["--result", result]
    assert device.run("lava-test-case", "a", *options) == (0, recorded("a", f"RESULT={result}"))


def test_units_come_before_the_measurement_whatever_the_order(device: Device) -> None:
    for options in (
        ["--result", "pass", "--measurement", "12.5", "--units", "MB/s"],
        ["--units", "MB/s", "--measurement", "12.5", "--result", "pass"],
    ):
        expected = recorded("speed", "RESULT=pass UNITS=MB/s MEASUREMENT=12.5")
        assert device.run("lava-test-case", "speed", *options) == (0, expected)
    only_measured = device.run("lava-test-case", "a", "--result", "pass", "--measurement", "1", "--units", "")
    assert only_measured == (0, recorded("a", "RESULT=pass MEASUREMENT=1"))
    only_unit = device.run("lava-test-case", "a", "--result", "pass", "--units", "%s")
    assert only_unit == (0, recorded("a", "RESULT=pass UNITS=%s"))


def test_a_measurement_is_a_decimal_number(device: Device) -> None:
    for number in ("0", "-1", "+1.5", ".5", "5.", "1e5", "1.5E-10", "1e+06", "0e0", "007"):
        status, output = device.run("lava-test-case", "a", "--result", "pass", "--measurement", number)
        assert (status, output) == (0, recorded("a", f"RESULT=pass MEASUREMENT={number}"))
    for word in ("", ".", "-", "x", "1x", "1 ", "1.2.3", "1e", "1e-", "e5", "1e5e0", "1e1.5", "--1", "1/2", "1,5", "*"):
        status, output = device.run("lava-test-case", "a", "--result", "pass", "--measurement", word)
        assert (status, output) == (1, f"lava-test-case: the measurement is a number, not: {word}\n".encode()), word


REFUSED = [
    ([], USAGE),
    (["a"], USAGE),
    (["a", "--shell"], USAGE),
    (["a", "--result"], USAGE),
    (["a", "--result", "passed"], USAGE),
    (["a", "--result", "pass", "--units"], USAGE),
    (["a", "--result", "pass", "extra"], USAGE),
    (["a", "--measurement", "1"], USAGE),
    (["a", "--colour", "red", "--result", "pass"], USAGE),
    (["", "--result", "pass"], b"lava-test-case: the test case name is one word, not: \n"),
    (["a b", "--result", "pass"], b"lava-test-case: the test case name "),
    (["a\nb", "--shell", "true"], b"lava-test-case: the test case name "),
    (["a>b", "--shell", "true"], b"lava-test-case: the test case name "),
    (["a", "--result", "pass", "--units", "a b"], b"lava-test-case: the unit "),
    (["a", "--result", "pass", "--units", "a>"], b"lava-test-case: the unit "),
]


def test_what_is_refused_prints_no_marker(device: Device) -> None:
    for words, message in REFUSED:
        status, output = device.run("lava-test-case", *words)
        assert status == 1, words
        assert output.startswith(message), words
        assert b"<LAVA" not in output, words


def test_the_result_directory_holds_what_was_recorded(device: Device) -> None:
    results = device.root / "results dir"
    env = {"LAVA_RESULT_DIR": str(results)}
    options = ["--result", "pass", "--measurement", "1.5", "--units", "s"]
    assert device.run("lava-test-case", "a/b", *options, env=env)[0] == 0
    assert device.run("lava-test-case", "$(x)*", "--shell", "false", env=env)[0] == 0
    written = {str(path.relative_to(results)): path.read_text() for path in results.rglob("*") if path.is_file()}
    assert written == {
        "results/a/b/result": "pass\n",
        "results/a/b/measurement": "1.5\n",
        "results/a/b/units": "s\n",
        "results/$(x)*/result": "fail\n",
    }


def test_no_name_leads_out_of_the_result_directory(device: Device) -> None:
    results = device.root / "out" / "results"
    env = {"LAVA_RESULT_DIR": str(results)}
    for name in ("..", "../x", "a/../../x", "x/.."):
        assert device.run("lava-test-case", name, "--result", "pass", env=env) == (
            0,
            recorded(name, "RESULT=pass"),
        )
    assert device.run("lava-test-case", "/etc/x..y", "--result", "pass", env=env)[0] == 0
    found = [str(path.relative_to(device.root)) for path in (device.root / "out").rglob("*") if path.is_file()]
    assert found == ["out/results/results/etc/x..y/result"]


IP = """2: eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc fq state UP group default qlen 1000
    link/ether 52:54:00:12:34:56 brd ff:ff:ff:ff:ff:ff
    inet6 fe80::5054:ff:fe12:3456/64 scope link
    inet 10.0.2.15/24 brd 10.0.2.255 scope global eth0
    inet 10.0.2.16/24 scope global secondary eth0
"""
OLD_IFCONFIG = """eth0      Link encap:Ethernet  HWaddr 52:54:00:12:34:56
          inet addr:10.0.2.15  Bcast:10.0.2.255  Mask:255.255.255.0
          inet6 addr: fe80::5054:ff:fe12:3456/64 Scope:Link
"""
NEW_IFCONFIG = """eth0: flags=4163<UP,BROADCAST,RUNNING,MULTICAST>  mtu 1500
        inet6 fe80::5054:ff:fe12:3456  prefixlen 64  scopeid 0x20<link>
        inet 10.0.2.15  netmask 255.255.255.0  broadcast 10.0.2.255
"""


class TestEchoIpv4:
    """lava-echo-ipv4, with tools that print what real ones did."""

    @pytest.fixture
    def tools(self, device: Device) -> Path:
        """All the tools of the device. The script looks for more in /sbin, which here is the host's."""
        if "busybox" in device.shell[0]:
            pytest.skip("busybox has tools of its own, found before any in PATH")
        script = (device.bin / "lava-echo-ipv4").read_text()
        assert ":/sbin:/usr/sbin" in script
        device.add("lava-echo-ipv4", script.replace(":/sbin:/usr/sbin", ""))
        tools = device.root / "tools"
        tools.mkdir()
        for tool in ("sed", "printf"):
            (tools / tool).symlink_to(f"/usr/bin/{tool}")
        return tools

    @pytest.mark.parametrize(
        ("call", "text"), [("ip addr show", IP), ("ifconfig", OLD_IFCONFIG), ("ifconfig", NEW_IFCONFIG)]
    )
    def test_the_first_address_is_printed(self, device: Device, tools: Path, call: str, text: str) -> None:
        tool, *arguments = call.split()
        (tools / "said").write_text(text)
        fake = tools / tool
        fake.write_text(f'#!/bin/sh\n[ "$*" = "{" ".join([*arguments, "eth0"])}" ] && /bin/cat {tools}/said\n')
        fake.chmod(0o755)
        assert device.run("lava-echo-ipv4", "eth0", env={"PATH": str(tools)}) == (0, b"10.0.2.15\n")
        assert device.run("lava-echo-ipv4", "eth1", env={"PATH": str(tools)}) == (0, b"")

    def test_a_device_without_either_tool_is_told(self, device: Device, tools: Path) -> None:
        message = b"lava-echo-ipv4: neither ip nor ifconfig is installed\n"
        assert device.run("lava-echo-ipv4", "eth0", env={"PATH": str(tools)}) == (1, message)

    def test_the_loopback_interface_of_this_machine(self, device: Device) -> None:
        assert device.run("lava-echo-ipv4", "lo") == (0, b"127.0.0.1\n")

    def test_without_an_interface_it_tells_its_usage(self, device: Device) -> None:
        assert device.run("lava-echo-ipv4") == (1, b"usage: lava-echo-ipv4 INTERFACE\n")
        assert device.run("lava-echo-ipv4", "") == (1, b"usage: lava-echo-ipv4 INTERFACE\n")
