"""The stored journal: the same log as in memory, after a restart too; one holder; the host's refusals."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journal_strategies import EVENTS, GROUPS
from log_harness import fold

from dispatcher.coordinator.hall import Hall
from dispatcher.coordinator.journal import GroupRecord
from dispatcher.coordinator.journal.database import connect
from dispatcher.coordinator.journal.memory import MemoryJournal
from dispatcher.coordinator.journal.sqlite import SqliteJournal, Sync
from dispatcher.coordinator.live import Notice
from dispatcher.errors import CallRefused, GroupError, JournalError
from dispatcher.group.events import Event, Joined, Left, Member, Sent, Synced, WaitFailed
from dispatcher.group.rendezvous import Rendezvous

MEMBERS = (Member("1", "server"), Member("2", "client"))
GROUP = GroupRecord("g", "run", MEMBERS, 1.5)


def no_news(line: str) -> None:
    raise AssertionError(line)


def opened(path: Path, sync: Sync = Sync.NORMAL) -> SqliteJournal:
    return SqliteJournal(path, sync=sync, tell=no_news)


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), GROUPS),
        st.tuples(st.just("append"), st.integers(0, 3), EVENTS),
        st.tuples(st.just("drop"), st.integers(0, 3)),
        st.tuples(st.just("restart")),
    ),
    max_size=30,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=ACTS)
def test_it_holds_what_a_journal_in_memory_holds(acts: list[tuple[object, ...]], tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.unlink(missing_ok=True)
    (tmp_path / "journal-mark").unlink(missing_ok=True)
    memory, stored = MemoryJournal(), opened(path)
    try:
        for act in acts:
            names = [group.name for group in memory.groups()]
            match act:
                case ["open", GroupRecord() as group] if group.name not in names:
                    memory.open(group)
                    stored.open(group)
                case ["append", int(which), event] if which < len(names):
                    memory.append(names[which], event)  # type: ignore[arg-type]
                    stored.append(names[which], event)  # type: ignore[arg-type]
                case ["drop", int(which)] if which < len(names):
                    memory.drop(names[which])
                    stored.drop(names[which])
                case ["restart"]:
                    stored.close()
                    stored = opened(path)
        assert list(stored.groups()) == list(memory.groups())
        for name in [*(group.name for group in memory.groups()), "nobody's"]:
            assert list(stored.read(name)) == list(memory.read(name))
    finally:
        stored.close()


def state(group: Rendezvous) -> tuple[object, ...]:
    presence = [group.presence(member.id) for member in MEMBERS]
    rounds = [group.sync_round(member.id, "s") for member in MEMBERS]
    return group.complete, presence, rounds, group.failure("5"), group.failure("9")


def test_the_fold_of_both_is_the_same(tmp_path: Path) -> None:
    events: list[Event] = [
        *(
            Joined("1", "1"),
            Joined("2", "2"),
            Sent("3", "1", "x", (("a", "\udcff"), ("a", "2"))),
            Synced("4", "1", "s"),
        ),
        *(Synced("5", "2", "s"), Synced("6", "2", "s"), WaitFailed("9", "2", "timed out"), Left("7", "1", "done")),
    ]
    memory = MemoryJournal()
    memory.open(GROUP)
    with opened(tmp_path / "journal") as stored:
        stored.open(GROUP)
        for event in events:
            memory.append("g", event)
            stored.append("g", event)
    with opened(tmp_path / "journal") as stored:
        [kept] = stored.groups()
        folded = fold(kept.members, stored.read("g"))
        assert state(folded) == state(fold(MEMBERS, memory.read("g")))
        # A request from before the restart is still known: it is done once.
        assert folded.apply(events[2]) is False
        with pytest.raises(GroupError):
            folded.apply(Sent("10", "1", "y"))


def test_what_is_stored_is_for_its_owner_alone(tmp_path: Path) -> None:
    with opened(tmp_path / "journal") as journal:
        journal.open(GROUP)
        assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_one_process_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with opened(path) as journal:
        journal.open(GROUP)
        for _ in range(2):
            with pytest.raises(JournalError, match=rf"journal: the journal is held by process {os.getpid()}\n"):
                opened(path)
        journal.append("g", Joined("1", "1"))
    with opened(path) as journal:
        assert journal.read("g") == [Joined("1", "1")]


def test_no_other_program_writes_into_it(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    script = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('DELETE FROM rows')"
    with opened(path) as journal:
        journal.open(GROUP)
        other = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True)
    assert "database is locked" in other.stderr


@pytest.mark.parametrize(("sync", "value"), [(Sync.NORMAL, 1), (Sync.FULL, 2)])
def test_when_an_event_is_kept_is_told_to_sqlite(sync: Sync, value: int, tmp_path: Path) -> None:
    opened(tmp_path / "journal").close()
    database = connect(tmp_path / "journal", full=sync is Sync.FULL)
    assert database.execute("PRAGMA synchronous").fetchone() == (value,)
    database.close()
    with opened(tmp_path / "journal", sync) as journal:
        journal.open(GROUP)
    with opened(tmp_path / "journal") as journal:
        assert journal.groups() == [GROUP]


@pytest.mark.parametrize("name", ["missing/journal", "file/journal", "directory"])
def test_a_place_that_cannot_hold_it_is_one_clear_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    with pytest.raises(JournalError, match=r"journal cannot be written: \w|is no file, so it cannot hold") as told:
        opened(tmp_path / name)
    assert str(told.value).startswith(f"{tmp_path / name}: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["directory", "file"]


_ON_A_SMALL_DISK = """
import pathlib, subprocess, sys
from dispatcher.coordinator.journal import GroupRecord
from dispatcher.coordinator.journal.sqlite import SqliteJournal
from dispatcher.errors import JournalError
from dispatcher.group.events import Member, Sent

disk = pathlib.Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", disk], check=True)
print("mounted")
journal = SqliteJournal(disk / "journal", tell=print)
journal.open(GroupRecord("g", "run", (Member("1", "server"),), 0.0))
kept = 0
try:
    while kept < 1000:
        journal.append("g", Sent(str(kept), "1", "x", (("a", "b" * 1000),)))
        kept += 1
except JournalError as error:
    print(error)
print(len(journal.read("g")) == kept > 0)
journal.close()
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
try:
    SqliteJournal(disk / "journal", tell=print)
except JournalError as error:
    print(error)
"""


def test_a_full_and_a_read_only_disk_are_clear_errors(tmp_path: Path) -> None:
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", _ON_A_SMALL_DISK, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    if not done.stdout:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    _, full, _, whole, read_only, hint = done.stdout.splitlines()
    assert full == f"{tmp_path}/journal: the journal cannot be used: database or disk is full"
    assert whole == "True"
    assert read_only == f"{tmp_path}/journal: the journal cannot be written: Read-only file system"
    assert "--journal names a file" in hint
    assert done.stderr == ""


def test_a_group_whose_log_contradicts_itself_is_left_alone_and_its_name_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "journal") as stored:
        stored.open(GROUP)
        stored.append("g", Sent("1", "a stranger", "x"))
        told: list[Notice] = []

        async def run() -> None:
            hall = Hall(stored, observe=lambda _group, notice: told.append(notice))
            with pytest.raises(CallRefused, match="its log contradicts itself: take another name"):
                hall.open("g", "another run", MEMBERS)
            with pytest.raises(CallRefused, match="its log contradicts itself: take another name"):
                hall.gather("g", "another run", 2, MEMBERS[0], None)
            hall.close()

        asyncio.run(run())
        assert [notice.kind for notice in told] == ["damaged"]
        assert stored.groups() == [GROUP]
