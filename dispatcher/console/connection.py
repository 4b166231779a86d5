"""One open console: it is read all the time, every byte is recorded, and writes are paced and never interleaved.

The engine is pexpect's: a spawn object reads and records, its searchers find prompts. What is read goes to one
listener at a time, from the event loop's reader callback, so that nothing waits unread while somebody else works.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Sequence

import pexpect
from pexpect.expect import searcher_re
from pexpect.spawnbase import SpawnBase

from dispatcher.console.transcript import Transcript
from dispatcher.console.transport import Transport
from dispatcher.errors import ConsoleClosed, ConsoleTimeout, MultinodeError
from dispatcher.framing import grammar

SEARCH_WINDOW = 4096
"""Bytes at the end of what was read in which a prompt is looked for; a prompt longer than that is not one."""

Listener = Callable[[bytes], None]


class Console:
    """A device's console, from :meth:`open` to :meth:`close`.

    :param name: the device's name, for messages.
    :param transcript: where every byte read goes first.
    :param character_delay: seconds between two bytes written, for a device that loses what comes faster.
    """

    def __init__(
        self, name: str, transport: Transport, transcript: Transcript, *, character_delay: float = 0.0
    ) -> None:
        self.name = name
        self._transport = transport
        self._transcript = transcript
        self._character_delay = character_delay
        self._spawn: SpawnBase[bytes] | None = None
        self._listener: Listener | None = None
        self._unheard = bytearray()
        self._writing = asyncio.Lock()
        self._failure: MultinodeError | None = None
        self._ended = asyncio.Event()

    # --- opening and closing ---------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the console and begin to read it.

        :raises dispatcher.errors.ConsoleError: it cannot be opened.
        """
        spawn = self._transport.open()
        spawn.logfile_read = self._transcript
        os.set_blocking(spawn.child_fd, False)
        self._spawn = spawn
        asyncio.get_running_loop().add_reader(spawn.child_fd, self._readable)

    async def close(self) -> None:
        """Close the console and end what its transport started. Doing it twice does no harm."""
        spawn, self._spawn = self._spawn, None
        if spawn is None:
            return
        self._stop_reading(spawn)
        asyncio.get_running_loop().remove_writer(spawn.child_fd)
        self._end(ConsoleClosed("the console was closed", where=self.name))
        try:
            await self._transport.close()
        finally:
            self._transcript.close()

    async def ended(self) -> MultinodeError:
        """Wait until the console ends by itself, and say why it did."""
        await self._ended.wait()
        return self.failure()

    def _end(self, failure: MultinodeError) -> None:
        if self._failure is None:
            self._failure = failure
            self._ended.set()

    # --- reading ---------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        spawn = self._spawn
        if spawn is None:
            return
        try:
            # The base class's read is one read(2) and the log; those of its children poll the descriptor again.
            data = SpawnBase.read_nonblocking(spawn, grammar.READ_SIZE)
        except BlockingIOError:
            return
        except pexpect.EOF:
            self._stop_reading(spawn)
            self._end(ConsoleClosed(self._transport.ended(), where=self.name))
            return
        except OSError as error:
            self._stop_reading(spawn)
            self._end(ConsoleClosed(f"reading failed: {error.strerror}", where=self.name))
            return
        except MultinodeError as error:
            self._stop_reading(spawn)
            self._end(error)
            return
        if self._listener is not None:
            self._listener(data)
        else:
            self._unheard += data
            del self._unheard[:-SEARCH_WINDOW]

    def _stop_reading(self, spawn: SpawnBase[bytes]) -> None:
        if spawn.child_fd >= 0:
            asyncio.get_running_loop().remove_reader(spawn.child_fd)

    def listen(self, listener: Listener | None) -> None:
        """Give all that is read from now on to a listener; it must not wait. None: to nobody.

        What came while nobody listened is given first, as far as the search window reaches.
        """
        self._listener = listener
        if listener is not None and self._unheard:
            unheard = bytes(self._unheard)
            self._unheard.clear()
            listener(unheard)

    def forget(self) -> None:
        """Let go of what came while nobody listened."""
        self._unheard.clear()

    async def expect(self, patterns: Sequence[re.Pattern[bytes]], deadline: float) -> tuple[int, re.Match[bytes]]:
        """Wait for the first of some patterns; which one it was, and its match. What came before it is let go of.

        :param patterns: matched within the last :data:`SEARCH_WINDOW` bytes.
        :param deadline: on the event loop's clock, seconds.
        :raises ConsoleTimeout: nothing matched before the deadline.
        :raises ConsoleClosed: the console ended first.
        """
        loop = asyncio.get_running_loop()
        found: asyncio.Future[tuple[int, re.Match[bytes]]] = loop.create_future()
        searcher = searcher_re(list(patterns))
        window = bytearray()

        def look(data: bytes) -> None:
            window.extend(data)
            index = searcher.search(bytes(window), len(data))
            if index < 0:
                del window[:-SEARCH_WINDOW]
            elif not found.done():
                self._listener = None
                self._unheard += window[searcher.end :]
                found.set_result((index, searcher.match))

        self.listen(look)
        ending = asyncio.ensure_future(self._ended.wait())
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.wait((found, ending), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise ConsoleTimeout("nothing of what was waited for came", where=self.name) from None
        finally:
            ending.cancel()
            if self._listener is look:
                self._listener = None
                self._unheard += window
        if found.done():
            return found.result()
        raise self.failure()

    def failure(self) -> MultinodeError:
        """Why the console has ended."""
        return self._failure or ConsoleClosed("the console ended", where=self.name)

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

    async def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            spawn = self._spawn
            if spawn is None or self._ended.is_set():
                raise self.failure()
            try:
                written = self._transport.write(spawn, bytes(view))
            except BlockingIOError:
                written = 0
            except OSError as error:
                self._end(ConsoleClosed(f"writing failed: {error.strerror}", where=self.name))
                continue
            if written == 0:
                await self._writable(spawn)
            view = view[written:]

    async def _writable(self, spawn: SpawnBase[bytes]) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_writer(spawn.child_fd, ready.set)
        ending = asyncio.ensure_future(self._ended.wait())
        waiting = asyncio.ensure_future(ready.wait())
        try:
            await asyncio.wait((ending, waiting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()
            waiting.cancel()
            if spawn.child_fd >= 0:
                loop.remove_writer(spawn.child_fd)
