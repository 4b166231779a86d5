"""Getting to a shell: prompts, logins, false prompts, lost characters, leftovers of an earlier run, and giving up."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from console_harness import BadLine, Hits, Noise, PairTransport, changed, lost, now, opened, run, soon

from dispatcher.console import login as login_module
from dispatcher.console.connection import INTERRUPT, INTERRUPT_QUIET
from dispatcher.console.login import Credentials, login
from dispatcher.console.shell import ANY_LINE, RELEASE, start
from dispatcher.errors import ConsoleClosed, ConsoleError, ConsoleTimeout

ROOT = Credentials("login:", "root", "Password:", "secret")
PROMPT = rb"echo rea''dy-(\d+)(-\$\?)?\.\n"

Device = Callable[["Board"], Awaitable[None]]


class Board(PairTransport):
    """A device that a test plays."""

    async def typed(self, line: bytes) -> None:
        heard = await self.hear_line()
        assert heard == line

    async def shell(self, status: int = 0) -> None:
        """Answer one probe as a shell would, echo included."""
        heard = await self.hear_line()
        found = re.fullmatch(rb"(?:\x03\x03\n)?" + PROMPT, heard)
        assert found is not None, heard
        told = b"-%d" % status if found.group(2) else b""
        await self.say(heard[:-1] + b"\r\nready-%s%s.\r\n# " % (found.group(1), told))


def play(
    device: Device,
    *,
    prompts: tuple[str, ...] = ("# $",),
    credentials: Credentials | None = None,
    limit: float = 300,
    silence: float | None = None,
    failed: login_module.Tell | None = None,
) -> float:
    """Log in to a device that plays its part to the end; how long it took."""

    async def test() -> float:
        board = Board()
        began = now()
        playing = asyncio.ensure_future(device(board))
        try:
            async with opened(board) as console:
                deadline = began + limit
                await login(
                    console, prompts=prompts, credentials=credentials, deadline=deadline, silence=silence, failed=failed
                )
                took = now() - began
                await playing
                return took
        finally:
            if playing.done():
                playing.result()
            playing.cancel()
            board.far.close()

    return run(test(), jumping=True)


# --- the usual -------------------------------------------------------------------------------------------------


def test_a_shell_at_once_is_asked_at_once() -> None:
    async def device(board: Board) -> None:
        await board.shell()

    assert play(device, prompts=()) == 0


def test_a_prompt_is_waited_for() -> None:
    async def device(board: Board) -> None:
        for _line in range(100):
            await board.say(b"[    0.5] booting\r\n")
            await asyncio.sleep(1)
        await board.say(b"root@panda:# ")
        await board.shell()

    assert play(device) == pytest.approx(100)


def test_name_and_password_are_typed_at_their_prompts() -> None:
    async def device(board: Board) -> None:
        await board.say(b"Debian GNU/Linux 12 panda ttyS0\r\n\r\npanda login: ")
        await board.typed(b"root\n")
        await board.say(b"root\r\nPassword: ")
        await board.typed(b"secret\n")
        await board.say(b"\r\nLinux panda 6.1\r\n# ")
        await board.shell()

    assert play(device, credentials=ROOT) == 0


def test_a_login_without_a_password_needs_none() -> None:
    async def device(board: Board) -> None:
        await board.say(b"panda login: ")
        await board.typed(b"root\n")
        await board.say(b"root\r\n# ")
        await board.shell()

    assert play(device, credentials=Credentials("login:", "root")) == 0
    assert play(device, credentials=ROOT) == 0


@pytest.mark.parametrize("prompts", [("[#$] $",), ()])
def test_commands_are_typed_one_by_one_at_the_shell(prompts: tuple[str, ...]) -> None:
    async def device(board: Board) -> None:
        await board.say(b"panda login: ")
        await board.typed(b"root\n")
        await board.say(b"root\r\n$ ")
        await board.shell()
        for command in (b"sudo -i\n", b"cd /tmp\n"):
            await board.typed(command)
            await board.say(command + b"\r# ")
            await board.shell()

    play(device, prompts=prompts, credentials=Credentials("login:", "root", commands=("sudo -i", "cd /tmp")))


def test_the_shell_that_a_login_command_leads_to_may_have_a_prompt_of_its_own() -> None:
    async def device(board: Board) -> None:
        await board.say(b"$ ")
        await board.shell()
        await board.typed(b"sudo -i\n")
        await board.say(b"sudo -i\r\n[root@panda ~] ")
        await board.shell()

    took = play(device, prompts=("[$] $",), credentials=Credentials("login:", "guest", commands=("sudo -i",)))
    assert took < 2 * login_module.PROBE_AFTER + login_module.CALM_LIMIT


@pytest.mark.parametrize("prompts", [("[#$] $",), ()])
def test_a_login_command_that_is_silent_for_a_while_is_not_interrupted(prompts: tuple[str, ...]) -> None:
    """Also where Ctrl-C was needed before, for what a killed run had left."""

    async def device(board: Board) -> None:
        while not (await board.hear_line()).startswith(INTERRUPT):
            pass
        await board.typed(RELEASE)
        await board.typed(b"\n")
        await board.say(b"\r\npanda login: ")
        await board.typed(b"guest\n")
        await board.say(b"guest\r\n$ ")
        await board.shell()
        await board.typed(b"mount /data\n")
        await asyncio.sleep(20)
        for number in range(2, 7):
            assert (await board.hear_line()).startswith(b"echo rea''dy-%d" % number)
        await board.say(b"ready-6.")

    play(device, prompts=prompts, credentials=Credentials("login:", "guest", commands=("mount /data",)))


@pytest.mark.parametrize("prompts", [("[#$] $",), ()])
def test_a_login_command_that_asks_for_a_password_is_given_it_and_no_question(prompts: tuple[str, ...]) -> None:
    """The prompt that the old shell shows late is not the new one's: what is typed at it would be the password."""

    async def device(board: Board) -> None:
        await board.say(b"panda login: ")
        await board.typed(b"guest\n")
        await board.say(b"guest\r\n$ ")
        heard = await board.hear_line()
        await board.say(heard[:-1] + b"\r\nready-1.")
        await asyncio.sleep(0.2)
        await board.say(b"\r\n\x1b]0;guest$ \x07\x1b[?2004h")
        await asyncio.sleep(0.2)
        await board.say(b"\x1b[1;32mguest\x1b[0m$ ")
        await board.typed(b"sudo -i\n")
        await board.say(b"sudo -i\r\n")
        await asyncio.sleep(0.5)
        await board.say(b"[sudo] password for guest: ")
        await board.typed(b"secret\n")
        await asyncio.sleep(0.5)
        await board.say(b"\r\n# ")
        await board.shell()

    credentials = Credentials("login:", "guest", "Password:", "secret", commands=("sudo -i",))
    play(device, prompts=prompts, credentials=credentials)


def test_a_login_command_that_asks_for_a_password_that_is_not_known() -> None:
    async def device(board: Board) -> None:
        await board.say(b"$ ")
        await board.shell()
        await board.typed(b"su -\n")
        await board.say(b"su -\r\nPassword: ")

    credentials = Credentials("login:", "guest", commands=("su -",))
    with pytest.raises(ConsoleError, match=r"^board: a login command asks 'Password:', and there is no password\n"):
        play(device, prompts=("[#$] $",), credentials=credentials)


MOTD = b"Last login: Mon Jan  1 on ttyS0\r\nPassword: expires in 3 days\r\n# "


@pytest.mark.parametrize("command", [None, "su -"])
def test_a_message_of_the_day_asks_for_nothing(command: str | None) -> None:
    """A password that is typed at a shell stands in the log, and a name would be run."""

    async def device(board: Board) -> None:
        if command:
            await board.say(b"# ")
            await board.shell()
            await board.typed(command.encode() + b"\n")
        else:
            await board.say(b"panda login: ")
            await board.typed(b"root\n")
            await board.say(b"root\r\nPassword: ")
            await board.typed(b"secret\n")
        await board.say(b"\r\n" + MOTD)
        await board.shell()

    play(device, credentials=Credentials("login:", "root", "Password:", "secret", (command,) if command else ()))


@pytest.mark.parametrize(("command", "word"), [("su - admin", "su"), ("TOKEN=secret su", "TOKEN"), (" ", "")])
def test_a_login_command_that_fails_is_told(command: str, word: str) -> None:
    told: list[tuple[int, str, int]] = []

    async def device(board: Board) -> None:
        await board.say(b"$ ")
        await board.shell()
        await board.typed(b"cd /\n")
        await board.say(b"cd /\r\n$ ")
        await board.shell()
        await board.typed(command.encode() + b"\n")
        await board.say(command.encode() + b"\r\nPassword: ")
        await board.typed(b"secret\n")
        await board.say(b"\r\nsu: Authentication failure\r\n$ ")
        await board.shell(status=1)

    credentials = Credentials("login:", "guest", "Password:", "secret", commands=("cd /", command))
    play(device, prompts=("[#$] $",), credentials=credentials, failed=lambda *what: told.append(what))
    assert told == [(2, word, 1)]


def test_a_shell_that_knows_no_status_is_asked_without_it() -> None:
    async def device(board: Board) -> None:
        await board.say(b"$ ")
        await board.shell()
        await board.typed(b"fish\n")
        await board.say(b"fish\r\n$ ")
        for _question in range(2):
            await board.hear_line()
            await board.say(b"fish: $? is not the exit status\r\n$ ")
        await board.shell()

    play(device, prompts=("[#$] $",), credentials=Credentials("login:", "guest", commands=("fish",)))


def test_a_login_without_prompts_asks_the_shell_after_a_while() -> None:
    async def device(board: Board) -> None:
        await board.say(b"panda login: ")
        await board.typed(b"root\n")
        await board.say(b"Password: ")
        await board.typed(b"secret\n")
        await board.shell()

    assert play(device, prompts=(), credentials=ROOT) == pytest.approx(login_module.NUDGE_AFTER)


KSH93 = b"guest$ \r\rguest$" + b" " * 493 + b"\x08" * 492


@pytest.mark.parametrize("prompt", [b"guest$ \x1b[6n", b"\x1b]0;x\x07\x1b[1;32mguest\x1b[0m$ ", b"guest$ ", KSH93])
def test_an_anchored_prompt_matches_whatever_a_terminal_is_told_besides(prompt: bytes) -> None:
    async def device(board: Board) -> None:
        await board.say(prompt)
        await board.shell()

    assert play(device, prompts=(r"guest\$ $",)) == 0


# --- the unusual -----------------------------------------------------------------------------------------------


def test_a_shell_that_is_up_already_is_made_to_show_its_prompt() -> None:
    async def device(board: Board) -> None:
        await board.typed(b"\n")
        await board.say(b"\r\n# ")
        await board.shell()

    assert play(device) == pytest.approx(login_module.NUDGE_AFTER)


def test_nothing_is_typed_while_a_device_boots() -> None:
    """A key would stop a boot loader's countdown."""

    async def device(board: Board) -> None:
        hearing = asyncio.ensure_future(board.hear_line())
        for left in range(60, 0, -1):
            await board.say(b"\rHit any key to stop autoboot: %2d " % left)
            await asyncio.sleep(login_module.NUDGE_AFTER - 0.1)
            assert not hearing.done()
        await board.say(b"\r\n# ")
        assert re.fullmatch(PROMPT, await hearing)
        await board.say(b"ready-1.")

    play(device)


def test_a_boot_loader_that_is_silent_for_long_is_not_stopped() -> None:
    async def device(board: Board) -> None:
        await board.say(b"U-Boot SPL 2024.01\r\n")
        await asyncio.sleep(20)
        await board.say(b"Hit any key to stop autoboot:  2 ")
        await asyncio.sleep(2)
        await board.say(b"\r\nStarting kernel ...\r\n")
        await asyncio.sleep(25)
        await board.say(b"root@panda:# ")
        await board.shell()

    assert play(device) == pytest.approx(47)


@pytest.mark.parametrize("talks_for", [1, 1000])
def test_a_kernel_that_has_run_for_long_does_not_boot(talks_for: int) -> None:
    """A board that is up, and whose kernel complains, once or for ever, of a cable."""

    async def device(board: Board) -> None:
        async def talk() -> None:
            for second in range(talks_for):
                await board.say(b"[ 4711.%06d] usb 1-1: cable is bad?\r\n" % second)
                await asyncio.sleep(2)

        talking = asyncio.ensure_future(talk())
        await board.typed(b"\n")
        await board.say(b"\r\n# ")
        await board.shell()
        talking.cancel()

    assert play(device) < 15


def test_what_prints_for_ever_hides_no_prompt() -> None:
    async def device(board: Board) -> None:
        async def talk() -> None:
            while True:
                await board.say(b"+ sleep 1\r\n")
                await asyncio.sleep(1)

        talking = asyncio.ensure_future(talk())
        await board.typed(b"\n")
        await board.say(b"\r\n# ")
        await board.shell()
        talking.cancel()

    assert play(device) == pytest.approx(login_module.TALK_LIMIT, abs=2)


def test_a_boot_loader_that_follows_a_kernel_is_not_stopped() -> None:
    async def device(board: Board) -> None:
        await board.say(b"[ 4711.000000] reboot: Restarting system\r\nHit any key to stop autoboot:  9 ")
        await asyncio.sleep(9)
        await board.say(b"\r\n# ")
        await board.shell()

    assert play(device) == pytest.approx(9)


def test_what_telnet_says_itself_is_no_boot() -> None:
    async def device(board: Board) -> None:
        await board.say(b"Trying ::1...\r\nConnected to localhost.\r\nEscape character is '^]'.\r\n")
        await board.typed(b"\n")
        await board.say(b"# ")
        await board.shell()

    assert play(device) == pytest.approx(3)


def test_a_silent_device_is_nudged_less_and_less_often() -> None:
    times: list[float] = []

    async def device(board: Board) -> None:
        began = now()
        await board.typed(b"\n")
        times.append(now() - began)
        for nudge in range(6):
            if nudge < 2:
                await board.typed(ANY_LINE)
            else:
                await board.typed(2 * INTERRUPT + b"\n")
                await board.typed(RELEASE)
                await board.typed(b"\n")
            times.append(now() - began)
        await board.say(b"# ")
        await board.shell()

    play(device)
    calm = [3, 9, 21, 45, 93, 153, 213]
    assert times == pytest.approx([at + max(0, n - 2) * 2 * INTERRUPT_QUIET for n, at in enumerate(calm)])


def test_a_loop_that_an_earlier_run_has_left_behind_is_ended_once_it_has_answered() -> None:
    async def device(board: Board) -> None:
        await board.typed(b"\n")
        await board.typed(ANY_LINE)
        await board.say(b"\r\nmn0123abcd 52 ?  mn0123abcd 52 ? .\r\n")
        await board.typed(RELEASE)
        await board.typed(b"\n")
        await board.say(b"\r\nmn0123abcd 52 0  mn0123abcd 52 0 .\r\n# ")
        await board.shell()

    assert play(device) == pytest.approx(9)


def test_what_looks_like_a_prompt_in_a_boot_log_stops_no_login() -> None:
    """What is typed too early is taken for a name; the login starts again."""

    async def device(board: Board) -> None:
        await board.say(b"## Loading kernel # \r\n")
        await board.typed(b"echo rea''dy-1.\n")
        await board.say(b"\r\npanda login: ")
        await board.typed(b"root\n")
        # The terminal has kept the question and login(1) takes it for the name, the name for the password.
        await board.say(b"echo rea''dy-1.\r\nPassword: ")
        await board.typed(b"secret\n")
        await board.say(b"\r\nLogin incorrect\r\npanda login: ")
        await board.typed(b"root\n")
        await board.say(b"root\r\nPassword: ")
        await board.typed(b"secret\n")
        await board.say(b"\r\n# ")
        await board.shell()

    play(device, prompts=("# ",), credentials=ROOT)


def test_what_looks_like_a_prompt_while_a_device_goes_on_booting_is_asked_gently() -> None:
    typed: list[bytes] = []

    async def device(board: Board) -> None:
        async def keep() -> None:
            while True:
                typed.append(await board.hear_line())

        keeping = asyncio.ensure_future(keep())
        for _line in range(200):
            await board.say(b"version # 5\r\n")
            await asyncio.sleep(login_module.PROBE_AFTER / 2)
        keeping.cancel()
        await board.say(b"# ")
        await board.typed(2 * INTERRUPT + b"\n")
        await board.typed(RELEASE)
        await board.shell()

    assert play(device, prompts=("# ",)) < 125
    assert 5 < len(typed) < 15
    assert all(re.fullmatch(PROMPT, line) for line in typed)


def test_last_login_is_no_login_prompt() -> None:
    async def device(board: Board) -> None:
        await board.say(b"panda login: ")
        await board.typed(b"root\n")
        await board.say(b"root\r\nLast login: ")
        await asyncio.sleep(login_module.SETTLE / 2)
        await board.say(b"Mon Jan  1 on ttyS0\r\n")
        await asyncio.sleep(2)
        await board.say(b"# ")
        await board.shell()

    play(device, credentials=ROOT)


def test_a_false_prompt_without_a_login_is_asked_until_the_real_one_is_there() -> None:
    async def device(board: Board) -> None:
        await board.say(b"version # 5\r\n")
        await board.typed(b"echo rea''dy-1.\n")
        await board.say(b"# ")
        await board.shell()

    play(device, prompts=("# ",))


def test_a_late_answer_is_not_taken_for_the_answer_to_the_last_question() -> None:
    async def device(board: Board) -> None:
        await board.typed(b"echo rea''dy-1.\n")
        await board.typed(b"echo rea''dy-2.\n")
        await board.say(b"ready-1.\r\n")
        await asyncio.sleep(0.5)
        await board.say(b"ready-2.\r\n")

    assert play(device, prompts=()) == pytest.approx(1.5)


def test_a_shell_that_does_not_answer_is_interrupted_and_freed_of_an_earlier_run() -> None:
    async def device(board: Board) -> None:
        await board.typed(b"echo rea''dy-1.\n")
        await board.typed(b"echo rea''dy-2.\n")
        await board.typed(2 * INTERRUPT + b"\n")
        await board.typed(RELEASE)
        await board.shell()

    play(device, prompts=())


# --- giving up -------------------------------------------------------------------------------------------------


async def silence(_board: Board) -> None:
    await asyncio.sleep(10_000)


async def rubbish(board: Board) -> None:
    while True:
        await board.say(b"\x00\xfe rubbish" * 100)
        await asyncio.sleep(0.2)


@pytest.mark.parametrize("device", [silence, rubbish])
@pytest.mark.parametrize("prompts", [(), ("# ",)])
@pytest.mark.parametrize("credentials", [None, ROOT])
def test_the_deadline_is_kept(device: Device, prompts: tuple[str, ...], credentials: Credentials | None) -> None:
    async def test() -> None:
        board = Board()
        playing = asyncio.ensure_future(device(board))
        async with opened(board) as console:
            began = now()
            with pytest.raises(ConsoleTimeout):
                await login(console, prompts=prompts, credentials=credentials, deadline=began + 77.7)
            assert now() - began == pytest.approx(77.7)
        playing.cancel()
        board.far.close()

    run(test(), jumping=True)


def test_a_console_that_never_prompts_says_what_was_waited_for_and_what_came() -> None:
    async def device(board: Board) -> None:
        await board.say(b"Kernel panic - not syncing\r\n---[ end ]---\r\n")
        await silence(board)

    with pytest.raises(ConsoleTimeout) as raised:
        play(device, prompts=("# $", "$ $"), credentials=ROOT)
    assert str(raised.value) == (
        "board: no prompt came; waited for 'login:', 'Password:', '# $', '$ $'\n"
        "  the console said last: '---[ end ]---'; see prompts and auto_login in the device file"
    )


@pytest.mark.parametrize("call", [b"RUNNER EXIT", b"WAIT " + 100 * b"x"])
def test_a_test_that_a_killed_run_has_left_is_told(call: bytes) -> None:
    async def device(board: Board) -> None:
        await board.say(b"<MN2 900ca8afda33 1/1 %s 5048.4221>\r\n" % call)
        while True:
            await board.hear_line()

    with pytest.raises(ConsoleTimeout) as raised:
        play(device, limit=100)
    assert raised.value.hint is not None
    assert raised.value.hint.startswith("a test of an earlier run is still there")


def test_a_console_that_says_nothing_for_too_long() -> None:
    async def device(board: Board) -> None:
        while True:  # a terminal's echo
            await board.say((await board.hear_line()).replace(b"\x03", b"^C").replace(b"\n", b"\r\n"))

    with pytest.raises(ConsoleTimeout) as raised:
        play(device, silence=100)
    hint = "timeouts: connection says so; is the device on, and this its console, at the right speed?"
    assert str(raised.value) == f"board: nothing came in 100 s\n  {hint}"


def test_a_console_that_has_said_something_may_take_its_time() -> None:
    async def device(board: Board) -> None:
        await board.say(b".")
        await asyncio.sleep(25)
        await board.say(b"\r\n# ")
        await board.shell()

    assert play(device, silence=10) >= 25


def test_a_silent_console_is_told_as_such() -> None:
    with pytest.raises(ConsoleTimeout) as raised:
        play(silence, prompts=())
    assert str(raised.value) == (
        "board: no shell answered\n"
        "  the console has said nothing; is the device on, and this its console, at the right speed?"
    )


def test_a_refused_login_is_told_before_the_deadline() -> None:
    async def device(board: Board) -> None:
        while True:
            await board.say(b"\r\npanda login: ")
            await board.typed(b"root\n")
            await board.say(b"root\r\nPassword: ")
            await board.typed(b"secret\n")
            await asyncio.sleep(2)
            await board.say(b"\r\n\r\nLogin incorrect")

    with pytest.raises(ConsoleError, match=r"^board: the device does not let 'root' in\n.*auto_login") as raised:
        play(device, credentials=ROOT, limit=1e6)
    assert not isinstance(raised.value, ConsoleTimeout)


def test_a_console_that_ends_is_not_a_timeout() -> None:
    async def device(board: Board) -> None:
        await board.say(b"panda login: ")
        board.far.close()

    with pytest.raises(ConsoleClosed, match=r"the far end was closed\n  the console said last: 'panda login:'"):
        play(device, credentials=ROOT)


def test_the_echo_of_our_question_is_not_what_a_program_said_last() -> None:
    async def device(board: Board) -> None:
        await board.say(b"ssh: no route to host\r\n")
        await board.typed(b"echo rea''dy-1.\n")
        await board.say(b"echo rea''dy-1.\r\n")
        board.far.close()

    with pytest.raises(ConsoleClosed, match=r"the console said last: 'ssh: no route to host'"):
        play(device, prompts=())


# --- real parts ------------------------------------------------------------------------------------------------


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real parts answer at once; asked too often, they answer all the same."""
    monkeypatch.setattr(login_module, "PROBE_AFTER", 0.05)
    monkeypatch.setattr(login_module, "NUDGE_AFTER", 0.05)
    monkeypatch.setattr(login_module, "BOOT_SILENCE", 0.05)
    monkeypatch.setattr(login_module, "SETTLE", 0.05)
    # What is asked too often may reach a login, again and again.
    monkeypatch.setattr(login_module, "REFUSALS", 1000)


GETTY = r"""
printf 'booting # 1\r\n'
while :; do
    printf '\npanda login: '
    read -r name
    printf 'Password: '
    stty -echo
    read -r password
    stty echo
    printf '\n'
    [ "$name/$password" = root/secret ] && break
    printf 'Login incorrect\n'
done
echo 'Last login: Mon Jan  1 00:00:00 on ttyS0'
PS1='root@panda:# ' exec SHELL
"""


@pytest.mark.usefixtures("eager")
def test_a_getty_and_a_shell(interactive_shell: str, tmp_path: Path) -> None:
    # The one stands in the boot log too, the other is what busybox's line editor makes hard to find.
    prompt = "root@panda:# $" if "busybox" in interactive_shell else "# "
    script = tmp_path / "getty"
    script.write_text(GETTY.replace("SHELL", re.sub("PS1='.*' ", "", interactive_shell)))

    async def test() -> None:
        async with opened(f"sh {script}") as console:
            await login(console, prompts=(prompt,), credentials=ROOT, deadline=soon())
            shell = await start(console, "/bin/sh", deadline=soon())
            assert (await shell.run("R=in", deadline=soon())).value == "in"

    run(test())


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("eaten", [5, 7, 8, 15, 16])
def test_a_line_that_eats_the_first_characters(eaten: int) -> None:
    """Whatever is left, half a quotation too, a shell is found."""

    async def test() -> None:
        hits = Hits((b"echo", lambda line: line[eaten:]))
        async with opened(BadLine("sh", typed=hits)) as console:
            await login(console, prompts=(), credentials=None, deadline=soon())
            shell = await start(console, "/bin/sh", deadline=soon())
            assert (await shell.run("R=in", deadline=soon())).value == "in"

    run(test())


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("damage", [lost, changed(b"''", b"'"), changed(b"''", b"'\"'")])
def test_an_odd_quote_does_not_keep_a_shell_from_answering(damage: Noise) -> None:

    async def test() -> None:
        async with opened(BadLine("sh", typed=Hits((b"echo", damage)))) as console:
            await login(console, prompts=(), credentials=None, deadline=soon())

    run(test())


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("in_a_test", [False, True])
@pytest.mark.parametrize("prompts", [(), ("guest[$] ",)])
def test_what_a_killed_run_left_behind(in_a_test: bool, prompts: tuple[str, ...], tmp_path: Path) -> None:
    """A board's console goes on where the last run was killed: in the loop, or in the middle of a test."""
    (tmp_path / "said").write_text("running\n")
    running = f"tail -f {tmp_path}/said" if in_a_test else ""

    async def test() -> None:
        async with opened("env PS1='guest$ ' dash -i") as console:
            shell = await start(console, "/bin/sh", deadline=soon())
            if running:
                heard = asyncio.Event()
                test = asyncio.ensure_future(
                    shell.run_test(running, lambda data: heard.set() if b"running" in data else None)
                )
                await heard.wait()
                test.cancel()
                await asyncio.gather(test, return_exceptions=True)
            console.forget()
            await login(console, prompts=prompts, credentials=None, deadline=soon())
            shell = await start(console, "/bin/sh", deadline=soon())
            assert (await shell.run("R=in", deadline=soon())).value == "in"

    run(test())
