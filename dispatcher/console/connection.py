"""One open console: it is read all the time, every byte is recorded, and writes are paced and never interleaved.

The engine is pexpect's: a spawn object starts and holds what is read, its searchers find prompts. What is read goes
into the transcript and to one listener at a time, from the event loop's reader callback, so that nothing waits unread
while somebody else works. pexpect's own read gives one piece at a time, and a line that gives a few bytes with each
would be slow by that: all that has come is taken at one go, and is one block from there on.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from pexpect.expect import searcher_re
from pexpect.spawnbase import SpawnBase

from dispatcher.console.comeback import Comeback
from dispatcher.console.transcript import Transcript
from dispatcher.console.transport import Transport
from dispatcher.errors import ConsoleClosed, ConsoleError, ConsoleTimeout, MultinodeError
from dispatcher.framing import grammar

SEARCH_WINDOW = 4096
"""Bytes at the end of what was read in which a prompt is looked for; a prompt longer than that is not one."""

INTERRUPT: Final = b"\x03"
"""What the tty takes for ^C: it ends what runs, and empties the line that a prompt or a loop reads."""

INTERRUPT_QUIET = 0.3
INTERRUPT_LIMIT = 2.0
"""Seconds of silence after which ^C is taken to have acted, and after which it is taken so however much is said."""

LAST_WORDS = 1.0
"""Seconds that reading may go on after a write has failed: the end of file says more of why than the write does."""

DRAIN_READS: Final = 256
DRAIN_LIMIT: Final = 64 * 1024
"""Reads, and bytes, after which no more is taken of a console before it is the others' turn; it may never stop to
print."""

_PLENTY: Final = 1024
"""Bytes of a read after which there may be more, though it gave less than asked: a tty gives 4095 at most. After fewer
another read would find nothing, and a UART's console would pay for one with each of its few bytes."""

_WRITE_SIZE: Final = 4096
"""Bytes that are offered to a console at a time; what it does not take is copied again."""

_LAST_TURNS: Final = 64
"""Turns in which is read what a console said before it ended; what goes on after it may never stop."""

_RECENT = 512
_LAST_LINE = 100

_ESCAPES = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*(?:[@-~]|\Z)"  # CSI: colours, the cursor's moves, busybox ash's question where it is
    rb"|\][^\x07\x1b\r\n]*(?:\x07|\x1b\\|\x1b?\Z)"  # OSC: window titles
    rb"|[ -/]*(?:[0-Z\\^-~]|\Z))"
)
"""What a terminal would not show (ECMA-48, 5.3 to 5.6), cut short by the end of the text too."""

_WIPE = re.compile(rb"(?<! )( +)(\x08+)")
"""Blanks up to a line's end and the way back: how ksh93 wipes what may stand behind its first prompt."""

Listener = Callable[[bytes], None]
Observe = Callable[..., None]
"""Told what happens to a console: its kind, then data by name."""

_Result = TypeVar("_Result")


class Console:
    """A device's console, from :meth:`open` to :meth:`close`.

    :param name: the device's name, for messages.
    :param transcript: where every byte read goes first; closed with the console.
    :param character_delay: seconds between two bytes written, for a device that loses what comes faster.
    :param observe: told when the console is ``lost`` and ``back``. In between, what is typed waits.
    """

    def __init__(
        self,
        name: str,
        transport: Transport,
        transcript: Transcript,
        *,
        character_delay: float = 0.0,
        observe: Observe | None = None,
    ) -> None:
        self.name = name
        self.heard = 0.0
        """When something was read last, or the console was opened; on the event loop's clock."""
        self._transport = transport
        self._transcript = transcript
        self._character_delay = character_delay
        self._spawn: SpawnBase[bytes] | None = None
        self._end_descriptor: int | None = None
        self._opened = self._closed = False
        self._observe = observe
        self._comeback = Comeback()
        self._returning: asyncio.Task[None] | None = None
        self._turn = asyncio.Event()
        """Set, and replaced, whenever the line is opened, lost, or ended."""
        self._listener: Listener | None = None
        self._back: Callable[[], None] | None = None
        self._unheard = bytearray()
        self._recent = b""
        self._writing = asyncio.Lock()
        self._failure: MultinodeError | None = None
        self._ended = asyncio.Event()

    # --- opening and closing ---------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the console and begin to read it.

        :raises dispatcher.errors.ConsoleError: it cannot be opened.
        """
        spawn = self._transport.open()
        self._opened = True
        self._attend(spawn)

    def _attend(self, spawn: SpawnBase[bytes]) -> None:
        """Begin to read what has been opened."""
        loop = asyncio.get_running_loop()
        self.heard = loop.time()
        self._comeback.opened(self.heard)
        try:
            os.set_blocking(spawn.child_fd, False)
            loop.add_reader(spawn.child_fd, self._readable)
            self._end_descriptor = self._transport.end_descriptor()
            if self._end_descriptor is not None:
                loop.add_reader(self._end_descriptor, self._over)
        except OSError as error:
            raise ConsoleError(f"this cannot be a console: {error.strerror}", where=self.name) from None
        self._spawn = spawn
        self._turned()

    def _turned(self) -> None:
        self._turn.set()
        self._turn = asyncio.Event()

    async def close(self) -> None:
        """Close the console and end what its transport started. Doing it twice does no harm."""
        if self._closed:
            return
        self._closed = True
        self._end(ConsoleClosed("the console was closed", where=self.name))
        if self._returning is not None:
            self._returning.cancel()
            await asyncio.gather(self._returning, return_exceptions=True)
        try:
            if self._opened:
                await self._transport.close()
        finally:
            self._transcript.close()

    async def ended(self) -> MultinodeError:
        """Wait until the console ends by itself, and say why it did."""
        await self._ended.wait()
        return self.failure()

    @property
    def has_ended(self) -> bool:
        """Whether it is of no use any more."""
        return self._ended.is_set() or not self._opened

    def failure(self) -> MultinodeError:
        """Why the console has ended."""
        return self._failure or ConsoleClosed("the console ended", where=self.name)

    def fail(self, failure: MultinodeError) -> None:
        """End the console, which is of no use any more, for a reason that whoever waits for it is told."""
        self._end(failure)

    def _end(self, failure: MultinodeError) -> None:
        self._let_go()
        if self._returning is not None and self._returning is not asyncio.current_task():
            self._returning.cancel()
        if self._failure is None:
            self._failure = failure
            self._ended.set()
        self._turned()

    def _let_go(self) -> None:
        """Look no more at what was opened, before its descriptor's number can be another's."""
        spawn, self._spawn = self._spawn, None
        if spawn is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(spawn.child_fd)
        loop.remove_writer(spawn.child_fd)
        if self._end_descriptor is not None:
            loop.remove_reader(self._end_descriptor)

    # --- losing it -------------------------------------------------------------------------------------------

    def _lose(self, reason: str) -> None:
        """The line has gone: for good, or until it can be opened again."""
        now = asyncio.get_running_loop().time()
        patience = self._transport.patience()
        self._comeback.lost(now, patience)
        if patience <= 0 or self._comeback.hopeless(now):
            again = f"; it was lost again and again for {patience:g} s" if patience > 0 else ""
            self._end(ConsoleClosed(reason + again, where=self.name))
            return
        self._let_go()
        self._turned()
        self._returning = asyncio.get_running_loop().create_task(self._return(reason, patience))

    async def _return(self, reason: str, patience: float) -> None:
        loop = asyncio.get_running_loop()
        lost = loop.time()
        try:
            self._tell("lost", f"the console was lost: {reason}", reason=reason)
            await self._open_again(reason, patience)
            gap = round(loop.time() - lost, 1)
            self._tell(
                "back", f"the console is open again after {gap:g} s; what it said meanwhile is not here", gap=gap
            )
            self._give(b"\n")  # nothing that was cut is to be continued by what comes now
        except MultinodeError as error:
            self._end(error)
            return
        if self._back is not None:
            self._back()

    def _tell(self, kind: str, text: str, **data: str | float) -> None:
        self._transcript.remark(text)
        if self._observe is not None:
            self._observe(kind, **data)

    async def _open_again(self, reason: str, patience: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._transport.close()
            await asyncio.sleep(self._comeback.pause(loop.time()))
            try:
                self._attend(await self._transport.reopen())
                return
            except ConsoleError as error:
                if self._comeback.hopeless(loop.time()):
                    why = f"{reason}; it could not be opened again within {patience:g} s: {error.what}"
                    raise ConsoleClosed(why, where=self.name) from None

    async def _unless_ended(self, awaited: asyncio.Future[_Result]) -> None:
        """Wait for something, or for the console's end."""
        ending = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait((awaited, ending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()

    # --- reading ---------------------------------------------------------------------------------------------

    def _readable(self) -> bool:
        """Take what is there by now and pass it on as one block; whether there may be more."""
        spawn = self._spawn
        if spawn is None or self._ended.is_set():
            return False
        data, end = _drain(spawn.child_fd)
        try:
            if data:
                self._transcript.write(data)
                self._give(data)
        except MultinodeError as error:
            self._end(error)
        if end is not None and self._spawn is spawn:
            at_end = end.errno == errno.EIO
            self._lose(self._transport.ended() if at_end else f"reading failed: {end.strerror}")
        return bool(data)

    def _over(self) -> None:
        """What was at the other end has ended, though somebody else may hold the line."""
        for _turn in range(_LAST_TURNS):
            if not self._readable():
                break
        if self._spawn is not None:
            self._lose(self._transport.ended())

    def _give(self, data: bytes) -> None:
        self.heard = asyncio.get_running_loop().time()
        self._recent = (self._recent + data[-_RECENT:])[-_RECENT:]
        if self._listener is not None:
            self._listener(data)
        else:
            self._unheard += data
            del self._unheard[:-SEARCH_WINDOW]

    def listen(self, listener: Listener | None, back: Callable[[], None] | None = None) -> None:
        """Give all that is read from now on to a listener; it must not wait. None: to nobody.

        What came while nobody listened is given first, as far as the search window reaches. A listener that raises a
        :class:`~dispatcher.errors.MultinodeError` ends the console with it.

        :param back: called when the console was lost and is open again: something that was said may be missing.
        """
        self._listener = listener
        self._back = back
        if listener is not None and self._unheard:
            unheard = bytes(self._unheard)
            self._unheard.clear()
            listener(unheard)

    def give_back(self, data: bytes) -> None:
        """Have who listens next hear this first, as if it came now."""
        self._unheard[:0] = data
        del self._unheard[:-SEARCH_WINDOW]

    def forget(self) -> None:
        """Let go of what came while nobody listened."""
        self._unheard.clear()

    @property
    def recent(self) -> bytes:
        """The end of what has come; empty where nothing has."""
        return self._recent

    def last_line(self, but: re.Pattern[bytes] | None = None) -> str:
        """The last line that the device printed that is not blank, for messages; empty if there was none.

        :param but: lines that are not what the device has said.
        """
        lines = [line for line in plain_text(self._recent).splitlines() if line.strip()]
        if but is not None:
            lines = [line for line in lines if not but.fullmatch(line)]
        text = lines[-1].decode("utf-8", "replace") if lines else ""
        return "".join(character if character.isprintable() else "." for character in text)[-_LAST_LINE:].strip()

    async def expect(
        self, patterns: Sequence[re.Pattern[bytes]], deadline: float, *, plain: bool = False, whole: bool = False
    ) -> tuple[int, re.Match[bytes]]:
        """Wait for the first of some patterns; which one it was, and its match. What came before it is let go of.

        :param patterns: matched within the last :data:`SEARCH_WINDOW` bytes.
        :param deadline: on the event loop's clock, seconds.
        :param plain: a pattern may also match what is left when escape sequences are taken out, see :func:`plain_text`.
        :param whole: give up once the console was lost and is back: what is waited for may have come meanwhile.
        :raises ConsoleTimeout: nothing matched before the deadline.
        :raises ConsoleClosed: the console ended first.
        """
        search = _Search(patterns, plain)
        self.listen(search.look, search.give_up if whole else None)
        try:
            async with asyncio.timeout_at(deadline):
                await self._unless_ended(search.found)
        except TimeoutError:
            raise ConsoleTimeout("nothing of what was waited for came", where=self.name) from None
        finally:
            self.listen(None)
            self._unheard += search.window
        if not search.found.done():
            raise self.failure()
        found = search.found.result()
        if found is None:
            raise ConsoleTimeout("what was waited for may have come while the console was lost", where=self.name)
        return found

    # --- writing ---------------------------------------------------------------------------------------------

    async def send(self, data: bytes) -> None:
        """Type something, whole, before anything else is typed.

        :raises ConsoleClosed: the console ended before all of it was written.
        """
        async with self._writing:
            if self._character_delay <= 0:
                await self._write(data)
                return
            for index in range(len(data)):
                await self._write(data[index : index + 1])
                await asyncio.sleep(self._character_delay)

    def seconds_to_type(self, count: int) -> float:
        """How long the pauses between so many bytes take."""
        return count * self._character_delay

    async def interrupt(self) -> None:
        """Type ^C until a line that is half typed is gone, whatever reads it, and nothing else until then.

        Twice: bash with readline that gets ^C while it takes a character in heeds it with the next one only. Were that
        a line feed, it would run the line, without its first byte.
        """
        loop = asyncio.get_running_loop()
        for _ in range(2):
            await self.send(INTERRUPT)
            typed = loop.time()
            acted = typed + INTERRUPT_QUIET
            while (now := loop.time()) < min(acted, typed + INTERRUPT_LIMIT):
                await asyncio.sleep(acted - now)
                acted = max(typed, self.heard) + INTERRUPT_QUIET

    async def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            spawn = await self._opened_spawn()
            try:
                written = self._transport.write(spawn, bytes(view[:_WRITE_SIZE]))
            except BlockingIOError:
                written = 0
            except OSError as error:
                await self._lost_in_writing(spawn, error)
                continue
            if written == 0:
                await self._writable(spawn)
            view = view[written:]

    async def _opened_spawn(self) -> SpawnBase[bytes]:
        """What to write to, once it is there; while the console is lost it is waited for."""
        while self._spawn is None:
            if self._ended.is_set() or not self._opened:
                raise self.failure()
            await self._turn.wait()
        return self._spawn

    async def _lost_in_writing(self, spawn: SpawnBase[bytes], error: OSError) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await self._turn.wait()
        if self._spawn is spawn:
            self._lose(f"writing failed: {error.strerror}")

    async def _writable(self, spawn: SpawnBase[bytes]) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        turning = asyncio.ensure_future(self._turn.wait())
        loop.add_writer(spawn.child_fd, _resolve, ready)
        try:
            await asyncio.wait((ready, turning), return_when=asyncio.FIRST_COMPLETED)
        finally:
            turning.cancel()
            # After it was closed the number may be another console's descriptor already.
            if self._spawn is spawn:
                loop.remove_writer(spawn.child_fd)


class _Search:
    """A listener that looks for patterns. ``window`` holds what it has not let go of: afterwards, what is left."""

    def __init__(self, patterns: Sequence[re.Pattern[bytes]], plain: bool) -> None:
        self.found: asyncio.Future[tuple[int, re.Match[bytes]] | None] = asyncio.get_running_loop().create_future()
        self.window = bytearray()
        self._searcher = searcher_re(list(patterns))
        self._plain = plain

    def give_up(self) -> None:
        if not self.found.done():
            self.found.set_result(None)

    def look(self, data: bytes) -> None:
        self.window += data
        if self.found.done():
            del self.window[:-SEARCH_WINDOW]
            return
        text = bytes(self.window)
        index = self._searcher.search(text, len(data))
        if index < 0 and self._plain and (b"\x1b" in text or b"\x08" in text):
            text = plain_text(text)
            index = self._searcher.search(text, len(text))
        if index < 0:
            del self.window[:-SEARCH_WINDOW]
            return
        self.window[:] = text[self._searcher.end :]
        self.found.set_result((index, self._searcher.match))


def _drain(descriptor: int) -> tuple[bytes, OSError | None]:
    """What a descriptor has to give, within bounds and without waiting, and why it gives no more; EIO: its end."""
    block = bytearray()
    asked = grammar.READ_SIZE
    plenty = min(asked, _PLENTY)
    try:
        for _read in range(DRAIN_READS):
            data = os.read(descriptor, asked)
            if not data:
                return bytes(block), OSError(errno.EIO, "end of file")  # as Linux tells it on a pty
            block += data
            if len(data) < plenty or len(block) >= DRAIN_LIMIT:
                break
    except BlockingIOError:
        pass
    except OSError as error:
        return bytes(block), error
    return bytes(block), None


def plain_text(text: bytes) -> bytes:
    """A text without escape sequences, and without blanks that it goes back over."""
    return _WIPE.sub(lambda wiped: wiped[1][len(wiped[2]) :], _ESCAPES.sub(b"", text))


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
