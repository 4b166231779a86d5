"""Makes the guests that ``multinode demo --qemu`` and the tests run on: kernel, root file system, QEMU's command line.

The kernel is Debian's for clouds (a 16550's driver is built in on x86-64, a PL011's on arm64), the root file system an
initramfs of Debian's static busybox and the ``/init`` below. Both are kept in a cache directory::

    lock            held while the cache is written
    amd64-1/        kernel, busybox, and the packages that they came from; so for arm64
    initrd-HASH     the initramfs; HASH is of its bytes

What stands there under its final name is whole: everything is written elsewhere and renamed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from dispatcher.errors import WorldError
from dispatcher.guest import initramfs
from dispatcher.guest.debian import PROGRAMS, Packages
from dispatcher.guest.kernel import elf_kernel

KERNEL_PREFIX: Final = "linux-image-"
BUSYBOX_PACKAGE: Final = "busybox-static"


@dataclass(frozen=True, slots=True)
class Architecture:
    """A machine that QEMU emulates.

    :param debian: its name in Debian.
    :param megabytes: what is downloaded for it, about.
    :param machine: QEMU's options for it.
    :param serial: its serial port, as its kernel calls it.
    """

    debian: str
    qemu: str
    qemu_package: str
    megabytes: int
    machine: tuple[str, ...]
    serial: str
    words: str = ""

    @property
    def kernel(self) -> str:
        """The meta package of its kernel."""
        return f"linux-image-cloud-{self.debian}"

    @property
    def parts(self) -> str:
        """The directory of the fetched parts. Its number changes when older ones would no longer do."""
        return f"{self.debian}-1"


# Without no_timer_check some boots fail when many guests start at once on a busy host.
AMD64: Final = Architecture(
    *("amd64", "qemu-system-x86_64", "qemu-system-x86", 28), ("-M", "q35"), "ttyS0", " no_timer_check"
)
ARM64: Final = Architecture(
    *("arm64", "qemu-system-aarch64", "qemu-system-arm", 22), ("-M", "virt", "-cpu", "cortex-a57"), "ttyAMA0"
)

PROMPT: Final = "/ # "
"""What busybox's shell prints as root in the guest's first directory."""

INIT: Final = """\
#!/bin/busybox sh
if [ "$1" != moved ]; then
    # To a tmpfs: df does not list the root that an initramfs starts with.
    /bin/busybox mount -t tmpfs tmpfs /mnt
    for entry in /*; do [ "$entry" = /mnt ] || /bin/busybox cp -a "$entry" /mnt; done
    exec /bin/busybox switch_root /mnt /init moved
fi
export PATH=/sbin:/usr/sbin:/bin:/usr/bin HOME=/root TERM=linux
/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir /dev/pts
mount -t devpts devpts /dev/pts
hostname guest
ip link set lo up
cd /
read -r tty </sys/class/tty/console/active
setsid -c sh <"/dev/$tty" >"/dev/$tty" 2>&1
poweroff -f
"""
"""The guest's first program. Its shell is a session of its own, so that the console becomes its controlling
terminal; when the shell ends, the guest goes off, and QEMU with it."""

DIRECTORIES: Final = ("bin", "dev", "etc", "mnt", "proc", "root", "sbin", "sys", "usr", "usr/bin", "usr/sbin", "var")

FILES: Final = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost guest\n::1 localhost\n",
}


@dataclass(frozen=True, slots=True)
class Guest:
    """What QEMU boots: a kernel with its serial port's driver built in, and an initramfs that ends at a prompt."""

    kernel: Path
    initrd: Path
    architecture: Architecture = AMD64


def default_cache() -> Path:
    """Name the cache directory: below ``$XDG_CACHE_HOME``, or ``~/.cache`` where that is not an absolute path
    (XDG Base Directory Specification).

    :raises WorldError: the user has no home directory either.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if base.is_absolute():
        return base / "multinode"
    try:
        return Path("~/.cache/multinode").expanduser()
    except RuntimeError as error:
        raise WorldError("this user has no home directory to keep a guest in", hint="set XDG_CACHE_HOME") from error


def missing(cache: Path | None = None, architecture: Architecture = AMD64) -> list[str]:
    """Say what guests need that this host lacks: one line a program, with the Debian package it comes in.

    The packaging programs count only while the cache holds no parts.
    """
    needed = {architecture.qemu: architecture.qemu_package}
    if not os.path.isdir(_cache(cache) / architecture.parts):
        needed |= PROGRAMS
    return [f"{name} (Debian package {package})" for name, package in needed.items() if not shutil.which(name)]


def prepare(
    cache: Path | None = None, say: Callable[[str], None] = lambda line: None, architecture: Architecture = AMD64
) -> Guest:
    """Make a guest, from the cache as far as it goes, else from Debian's packages.

    Several processes may do this at once: one fetches, the others wait for it. A process that is killed leaves
    a cache that works.

    :param cache: where to keep the parts; :func:`default_cache` unless given.
    :param say: told, one line, before anything is downloaded.
    :raises WorldError: a packaging program is missing or failed, or the cache cannot be written.
    """
    directory = _cache(cache)
    try:
        return _cached(directory, architecture) or _made(directory, say, architecture)
    except OSError as error:
        raise WorldError(
            f"cannot keep a guest here: {error.strerror or error}",
            where=str(error.filename or directory),
            hint="remove it, or set XDG_CACHE_HOME to a directory that can be written",
        ) from error


def qemu_command(guest: Guest, *, memory: int = 96, loglevel: int | None = None, append: str = "") -> str:
    """Write the command line of a guest whose console is the terminal that QEMU is started on.

    :param memory: MiB.
    :param loglevel: kernel messages more urgent than this (1 to 8) are printed on the console, from the first
        line of the boot on; ``None`` keeps the kernel quiet.
    :param append: more words for the kernel's command line.
    """
    noise = "quiet" if loglevel is None else f"loglevel={loglevel}"
    architecture = guest.architecture
    kernel_words = f"console={architecture.serial} {noise} panic=-1{architecture.words} {append}".rstrip()
    machine = [*architecture.machine, "-accel", "tcg,tb-size=32", "-m", str(memory)]
    bare = ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    system = ["-kernel", str(guest.kernel), "-initrd", str(guest.initrd), "-append", kernel_words]
    # signal=off: ^C is the guest's. QEMU keeps the terminal's onlcr, so lines end in \r\r\n.
    console = ["-chardev", "serial,id=c,path=/dev/tty", "-serial", "chardev:c"]
    return shlex.join([architecture.qemu, *machine, *bare, *system, *console])


def write_device_file(
    path: Path, guest: Guest, count: int, device_type: str = "board", *, loglevel: int | None = None
) -> None:
    """Write a device file that names ``count`` guests, all alike.

    :param loglevel: as for :func:`qemu_command`.
    """
    device = {
        "device_type": device_type,
        "count": count,
        "console": {"command": qemu_command(guest, loglevel=loglevel)},
        "prompts": [PROMPT],
        "lava_test_sh_cmd": "/bin/sh",  # busybox's, there is no other
    }
    path.write_text(yaml.safe_dump({"devices": {"guest": device}}, sort_keys=False, width=1000))


def initrd(busybox: bytes) -> bytes:
    """Build the guest's root file system; the same bytes for the same busybox."""
    entries = [initramfs.directory(name) for name in DIRECTORIES]
    entries.append(initramfs.directory("tmp", 0o1777))
    entries.append(initramfs.character_device("dev/console", 5, 1))
    entries.append(initramfs.file("bin/busybox", busybox, 0o755))
    entries.append(initramfs.file("init", INIT.encode(), 0o755))
    entries += [initramfs.file(name, text.encode()) for name, text in FILES.items()]
    return initramfs.archive(entries)


def _cache(cache: Path | None) -> Path:
    return default_cache() if cache is None else cache


def _cached(cache: Path, architecture: Architecture) -> Guest | None:
    parts = cache / architecture.parts
    if not parts.is_dir():
        return None
    guest = Guest(parts / "kernel", _initrd_path(cache, initrd((parts / "busybox").read_bytes())), architecture)
    return guest if guest.initrd.exists() else None


def _initrd_path(cache: Path, data: bytes) -> Path:
    return cache / f"initrd-{hashlib.sha256(data).hexdigest()[:16]}"


def _made(cache: Path, say: Callable[[str], None], architecture: Architecture) -> Guest:
    with _locked(cache):
        parts = cache / architecture.parts
        with _scratch(cache) as scratch:
            if not parts.is_dir():
                what = f"{architecture.kernel} and {BUSYBOX_PACKAGE} from Debian ({architecture.megabytes} MB)"
                say(f"fetching {what} into {cache}")
                _fetched(scratch, architecture).rename(parts)
            data = initrd((parts / "busybox").read_bytes())
            written = scratch / "initrd"
            written.write_bytes(data)
            written.rename(_initrd_path(cache, data))
        return Guest(parts / "kernel", _initrd_path(cache, data), architecture)


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _scratch(cache: Path) -> Iterator[Path]:
    for left_by_a_killed_process in cache.glob("making-*"):
        shutil.rmtree(left_by_a_killed_process, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="making-", dir=cache) as scratch:
        yield Path(scratch)


def _fetched(scratch: Path, architecture: Architecture) -> Path:
    """Fetch the parts into a directory that is ready to be renamed."""
    try:
        return _fetch(scratch / "host-lists", architecture, refresh=False)
    except WorldError:
        return _fetch(scratch / "own-lists", architecture, refresh=True)


def _fetch(scratch: Path, architecture: Architecture, *, refresh: bool) -> Path:
    scratch.mkdir()
    packages = Packages(scratch, architecture.debian)
    if refresh:
        packages.refresh()
    kernel_package = packages.dependency(architecture.kernel, KERNEL_PREFIX)
    image = _only(packages.unpack(kernel_package), kernel_package, "boot/vmlinuz-*").read_bytes()
    # Debian 13 has /bin merged into /usr/bin.
    busybox = _only(packages.unpack(BUSYBOX_PACKAGE), BUSYBOX_PACKAGE, "bin/busybox", "usr/bin/busybox")
    parts = scratch / "parts"
    parts.mkdir()
    (parts / "kernel").write_bytes(elf_kernel(image) or image)
    (parts / "busybox").write_bytes(busybox.read_bytes())
    (parts / "packages").write_text("".join(f"{name}\n" for name in packages.unpacked))
    return parts


def _only(root: Path, package: str, *patterns: str) -> Path:
    found = [path for pattern in patterns for path in root.glob(pattern) if path.is_file()]
    if len(found) != 1:
        raise WorldError(f"the package {package} holds {len(found)} files like {patterns[0]}, not one")
    return found[0]
