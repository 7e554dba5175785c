"""Messages arrive whole, and nobody waits for a side that has gone or does not answer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from threading import Thread

import pytest

from krelax.search.channel import Channel

Ends = tuple[Channel, Channel]


class Enough(Exception):
    """Waiting is not worthwhile any more."""


def give_up() -> None:
    raise Enough


@pytest.fixture
def ends() -> Iterator[Ends]:
    both = tuple(Channel(end) for end in socket.socketpair())
    yield both[0], both[1]
    for end in both:
        end.close()


@pytest.mark.parametrize("size", [0, 1, 1000, 5_000_000])
def test_messages_arrive_as_they_were_sent(ends: Ends, size: int) -> None:
    message = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    sender = Thread(target=lambda: [ends[0].send(m) for m in (message, b"next")])
    sender.start()
    assert ends[1].receive() == message
    assert ends[1].receive() == b"next"
    sender.join()


def test_nobody_waits_for_ever_for_a_message(ends: Ends) -> None:
    with pytest.raises(Enough):
        ends[0].receive(give_up)


def test_nobody_waits_for_ever_for_the_rest_of_a_message() -> None:
    here, there = socket.socketpair()
    with here, there:
        there.send((10).to_bytes(8, "little") + b"half")
        with pytest.raises(Enough):
            Channel(here).receive(give_up)


def test_nobody_waits_for_ever_for_a_reader(ends: Ends) -> None:
    with pytest.raises(Enough):
        ends[0].send(bytes(50_000_000), give_up)


def test_a_side_that_has_gone_is_noticed(ends: Ends) -> None:
    ends[1].close()
    with pytest.raises(EOFError):
        ends[0].receive()
    with pytest.raises(OSError, match="pipe"):
        ends[0].send(b"anybody?")
