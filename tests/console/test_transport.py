"""What every transport has without doing anything for it."""

from __future__ import annotations

from console_harness import PairTransport, run

from dispatcher.console.transport import Transport


def test_writing_takes_what_can_be_taken_now() -> None:
    async def test() -> None:
        transport = PairTransport()
        spawn = transport.open()
        transport.near.setblocking(False)
        assert transport.write(spawn, b"abc") == 3
        assert await transport.hear() == b"abc"
        assert 0 < transport.write(spawn, bytes(10_000_000)) < 10_000_000
        transport.far.close()
        await transport.close()

    run(test())


def test_an_end_without_a_known_reason_is_told() -> None:
    transport = PairTransport()
    assert Transport.ended(transport) == "the console ended"
    assert transport.device == "board"
    transport.near.close()
    transport.far.close()
