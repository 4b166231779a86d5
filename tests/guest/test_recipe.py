"""Guests: what is cached, what is missing, the command line; and the slow part: real guests booted."""

from __future__ import annotations

import fcntl
import hashlib
import multiprocessing
import re
import shlex
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest
import yaml

from dispatcher.errors import WorldError
from dispatcher.guest import recipe
from dispatcher.guest.recipe import Guest, default_cache, missing, prepare, qemu_command, write_device_file

from .conftest import BUSYBOX, IMAGE, KERNEL_PACKAGE, Archive

GUEST = Guest(Path("/some where/kernel"), Path("/it's/initrd"))


# --- the cache -------------------------------------------------------------------------------------------


def prepare_silently(cache: Path) -> None:
    prepare(cache)


def everything_below(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def test_a_guest_from_nothing(debian: Archive, tmp_path: Path) -> None:
    cache = tmp_path / "not yet" / "cache"
    said: list[str] = []
    guest = prepare(cache, said.append)
    assert guest.kernel.read_bytes() == IMAGE
    assert guest.initrd.read_bytes() == recipe.initrd(BUSYBOX)
    assert (cache / "amd64-1/packages").read_text().splitlines() == [
        f"{KERNEL_PACKAGE}_9.9.9-1_amd64.deb",
        "busybox-static_1%3a1.35.0-4_amd64.deb",
    ]
    parts = {"amd64-1", "amd64-1/kernel", "amd64-1/busybox", "amd64-1/packages"}
    assert everything_below(cache) == parts | {"lock", guest.initrd.name}
    assert len(said) == 1
    assert str(cache) in said[0]


def test_a_cached_guest_needs_no_program(debian: Archive, tmp_path: Path, no_programs: Callable[..., None]) -> None:
    first = prepare(tmp_path / "cache")
    no_programs()
    said: list[str] = []
    assert prepare(tmp_path / "cache", said.append) == first
    assert said == []


def test_a_changed_recipe_makes_another_initrd_of_the_same_parts(
    debian: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(tmp_path)
    debian.forget()
    monkeypatch.setattr(recipe, "INIT", recipe.INIT + "# changed\n")
    second = prepare(tmp_path)
    assert second.kernel == first.kernel
    assert second.initrd != first.initrd
    assert b"# changed" in second.initrd.read_bytes()


def test_usr_merged_busybox(debian: Archive, tmp_path: Path) -> None:
    debian.forget()
    debian.add("linux-image-cloud-amd64", "9", {}, depends=KERNEL_PACKAGE)
    debian.add(KERNEL_PACKAGE, "9", {"boot/vmlinuz-9": IMAGE})
    debian.add("busybox-static", "2", {"usr/bin/busybox": b"in its other place"})
    assert (prepare(tmp_path).kernel.parent / "busybox").read_bytes() == b"in its other place"


def test_a_package_without_a_kernel(debian: Archive, tmp_path: Path) -> None:
    debian.forget()
    debian.add("linux-image-cloud-amd64", "9", {}, depends=KERNEL_PACKAGE)
    debian.add(KERNEL_PACKAGE, "9", {"boot/config": b""})
    with pytest.raises(WorldError, match=rf"the package {KERNEL_PACKAGE} holds 0 files like boot/vmlinuz-\*"):
        prepare(tmp_path)


def test_a_failed_fetch_leaves_nothing_and_can_be_repeated(debian: Archive, tmp_path: Path) -> None:
    deb = debian.directory / "busybox-static.deb"
    data = deb.read_bytes()
    deb.unlink()
    with pytest.raises(WorldError, match="`apt-get -q download busybox-static` failed"):
        prepare(tmp_path / "cache")
    assert everything_below(tmp_path / "cache") == {"lock"}
    deb.write_bytes(data)
    assert prepare(tmp_path / "cache").kernel.read_bytes() == IMAGE


def test_what_a_killed_process_left_is_removed(debian: Archive, tmp_path: Path) -> None:
    (tmp_path / "cache/making-abc/own-lists").mkdir(parents=True)
    (tmp_path / "cache/making-abc/own-lists/half.deb").write_bytes(b"half")
    prepare(tmp_path / "cache")
    assert not (tmp_path / "cache/making-abc").exists()


def test_processes_that_prepare_at_once(debian: Archive, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=prepare_silently, args=(tmp_path / "cache",)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    guest = prepare(tmp_path / "cache")
    assert guest.kernel.read_bytes() == IMAGE
    assert not list((tmp_path / "cache").glob("making-*"))


def test_nothing_is_fetched_while_another_fetches(debian: Archive, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    said: list[str] = []
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=prepare, args=(cache, said.append))
        waiting.start()
        # The other process's work: had the waiting one gone on, it would have said that it fetches.
        parts = cache / "parts"
        parts.mkdir()
        (parts / "kernel").write_bytes(b"the other's")
        (parts / "busybox").write_bytes(b"the other's")
        parts.rename(cache / "amd64-1")
    waiting.join()
    assert said == []
    assert prepare(cache).kernel.read_bytes() == b"the other's"


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorldError) as caught:
        prepare(tmp_path / "file" / "cache")
    assert str(caught.value) == (
        f"{tmp_path}/file/cache: cannot keep a guest here: Not a directory\n"
        "  remove it, or set XDG_CACHE_HOME to a directory that can be written"
    )


@pytest.mark.parametrize(
    ("xdg", "cache"),
    [("/x/y", "/x/y/multinode"), ("", "/h/.cache/multinode"), ("relative", "/h/.cache/multinode")],
)
def test_where_the_cache_is(xdg: str, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    monkeypatch.setenv("HOME", "/h")
    assert default_cache() == Path(cache)


# --- what is missing -------------------------------------------------------------------------------------


def test_everything_is_missing(no_programs: Callable[..., None], tmp_path: Path) -> None:
    no_programs()
    assert missing(tmp_path) == [
        "qemu-system-x86_64 (Debian package qemu-system-x86)",
        "apt-get (Debian package apt)",
        "apt-cache (Debian package apt)",
        "dpkg-deb (Debian package dpkg)",
    ]


def test_the_packaging_programs_are_not_missed_once_the_parts_are_here(
    no_programs: Callable[..., None], tmp_path: Path
) -> None:
    no_programs()
    (tmp_path / "amd64-1").mkdir()
    assert missing(tmp_path) == ["qemu-system-x86_64 (Debian package qemu-system-x86)"]
    assert missing(tmp_path, recipe.ARM64)[0] == "qemu-system-aarch64 (Debian package qemu-system-arm)"
    (tmp_path / "arm64-1").mkdir()
    assert len(missing(tmp_path, recipe.ARM64)) == 1


# --- the command line ------------------------------------------------------------------------------------


def test_the_command_line() -> None:
    words = shlex.split(qemu_command(GUEST))
    assert words == [
        *("qemu-system-x86_64", "-M", "q35", "-accel", "tcg,tb-size=32", "-m", "96"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-kernel", "/some where/kernel", "-initrd", "/it's/initrd"),
        *("-append", "console=ttyS0 quiet panic=-1 no_timer_check"),
        *("-chardev", "serial,id=c,path=/dev/tty", "-serial", "chardev:c"),
    ]
    assert pexpect.split_command_line(qemu_command(GUEST)) == words  # type: ignore[no-untyped-call]


def test_the_command_line_of_another_architecture() -> None:
    words = shlex.split(qemu_command(Guest(Path("/kernel"), Path("/initrd"), recipe.ARM64)))
    assert words[:5] == ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a57"]
    assert words[words.index("-append") + 1] == "console=ttyAMA0 quiet panic=-1"


def test_the_command_line_of_a_noisy_guest() -> None:
    words = shlex.split(qemu_command(GUEST, memory=128, loglevel=7, append="nokaslr x=y"))
    assert words[words.index("-m") + 1] == "128"
    append = words[words.index("-append") + 1]
    assert append == "console=ttyS0 loglevel=7 panic=-1 no_timer_check nokaslr x=y"


def test_the_device_file(tmp_path: Path) -> None:
    write_device_file(tmp_path / "devices.yaml", GUEST, 3, "panda", loglevel=8)
    assert yaml.safe_load((tmp_path / "devices.yaml").read_text()) == {
        "devices": {
            "guest": {
                "device_type": "panda",
                "count": 3,
                "console": {"command": qemu_command(GUEST, loglevel=8)},
                "prompts": ["/ # "],
                "lava_test_sh_cmd": "/bin/sh",
            }
        }
    }


# --- real guests -----------------------------------------------------------------------------------------

KERNEL_LINES = r"(?:\[ *\d+\.\d{6}\] [^\n]*\n)*"
"""What a noisy guest's kernel may print between any two bytes of a program."""

BOOT_LIMIT = 240
"""Seconds until a guest that has not come to its prompt counts as hung."""

needs_qemu = pytest.mark.skipif(bool(missing()), reason=f"not on this host: {', '.join(missing())}")


@pytest.fixture(scope="module")
def real() -> Guest:
    return prepare()


@pytest.fixture
def boot(real: Guest) -> Iterator[Callable[..., pexpect.spawn[str]]]:
    children: list[pexpect.spawn[str]] = []

    def start(**options: object) -> pexpect.spawn[str]:
        command = qemu_command(real, **options)  # type: ignore[arg-type]
        child = pexpect.spawn(command, timeout=BOOT_LIMIT, encoding="utf-8", echo=False)
        child.delaybeforesend = None
        children.append(child)
        return child

    yield start
    for child in children:
        child.close(force=True)


def ask(guest: pexpect.spawn[str], command: str) -> str:
    """Run a command at the prompt; its output, lines ended by ``\\n``."""
    guest.sendline(f"{command}; echo E''ND")
    guest.expect(r"END\r+\n")
    output = str(guest.before)
    guest.expect_exact(recipe.PROMPT)
    return output.replace("\r", "")


def quiet_prompt(guest: pexpect.spawn[str]) -> pexpect.spawn[str]:
    guest.expect_exact(recipe.PROMPT)
    guest.sendline("stty -echo cols 500; echo qui''et")
    guest.expect(r"quiet\r+\n")
    guest.expect_exact(recipe.PROMPT)
    return guest


@pytest.mark.slow
@needs_qemu
def test_a_real_guest(boot: Callable[..., pexpect.spawn[str]], real: Guest) -> None:
    assert real.kernel.read_bytes().startswith(b"\x7fELF")
    guest = quiet_prompt(boot())
    assert ask(guest, "tty; id -un; hostname; pwd") == "/dev/ttyS0\nroot\nguest\n/\n"
    assert ask(guest, "echo through >/dev/tty") == "through\n"
    assert ask(guest, "echo x >/tmp/x && cat /tmp/x; stat -c %a /tmp") == "x\n1777\n"
    assert "inet 127.0.0.1/8" in ask(guest, "ip -4 addr show lo")
    assert "inet addr:127.0.0.1" in ask(guest, "ifconfig lo")
    assert ask(guest, "su nobody -c 'id -un; : >/tmp/mine && echo writes'") == "nobody\nwrites\n"

    # A shell that ^C reaches before its program has the terminal may show two prompts.
    guest.sendline("sh -c 'echo asl\"\"eep; exec sleep 1000'")
    guest.expect(r"asleep\r+\n")
    guest.sendintr()
    guest.expect_exact(recipe.PROMPT)

    # Busybox's shell cuts a typed line at 1022 characters.
    text = "".join(f"{number:05}{'x' * 894}\n" for number in range(22))
    guest.send(f"cat >/tmp/typed <<'EOF'\n{text}EOF\n")
    guest.expect_exact(recipe.PROMPT)
    assert ask(guest, "sha256sum </tmp/typed") == f"{hashlib.sha256(text.encode()).hexdigest()}  -\n"

    guest.sendline("exit")
    guest.expect(pexpect.EOF)
    guest.close()
    assert (guest.exitstatus, guest.signalstatus) == (0, None)


@pytest.mark.slow
@needs_qemu
def test_a_noisy_guest_prints_from_its_kernel(boot: Callable[..., pexpect.spawn[str]]) -> None:
    guest = boot(loglevel=8)
    guest.expect(r"\[ +0\.\d{6}\] Linux version ")
    guest.expect(KERNEL_LINES.join(map(re.escape, recipe.PROMPT)))
    guest.sendline("echo f''rom the kernel >/dev/kmsg")
    guest.expect(r"\[ +\d+\.\d{6}\] from the kernel\r")


@pytest.mark.slow
@needs_qemu
def test_a_panic_ends_qemu(boot: Callable[..., pexpect.spawn[str]]) -> None:
    guest = boot()
    guest.expect_exact(recipe.PROMPT)
    guest.sendline("echo c >/proc/sysrq-trigger")
    guest.expect("Kernel panic - not syncing")
    guest.expect(pexpect.EOF)


@pytest.mark.slow
@needs_qemu
def test_a_hangup_ends_qemu(boot: Callable[..., pexpect.spawn[str]]) -> None:
    guest = boot()
    guest.expect_exact(recipe.PROMPT)
    guest.ptyproc.fileobj.close()  # type: ignore[attr-defined]
    assert guest.wait() == 0


@pytest.mark.slow
@needs_qemu
def test_eight_guests_at_once(boot: Callable[..., pexpect.spawn[str]]) -> None:
    guests = [boot() for _ in range(8)]
    for number, guest in enumerate(guests):
        quiet_prompt(guest)
        assert ask(guest, f"echo number {number}") == f"number {number}\n"
        guest.sendline("poweroff -f")
    for guest in guests:
        guest.expect(pexpect.EOF)
        guest.close()
        assert guest.exitstatus == 0
