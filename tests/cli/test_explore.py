"""`krelax explore` writes its page, serves it until it is interrupted, and refuses what makes no sense."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from tests.cli.conftest import Ran

from krelax.explore import textbook

Run = Callable[..., Ran]


@pytest.fixture
def one_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small network without groups only, which saves a while."""
    monkeypatch.setattr(textbook, "choices", lambda: iter([((), ())]))


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program uses."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.mark.usefixtures("one_choice")
def test_a_page_is_written(krelax: Run, good: Path) -> None:
    ran = krelax("explore", "good.onnx", "good.npz", "--eps", 0.1, "--index", 2, "--export", "page.html")
    assert ran.code == 0
    assert ran.out.startswith("page.html: ")
    assert "2-ReLU" in ran.err
    text = (good / "page.html").read_text(encoding="utf-8")
    assert "good.onnx" in text
    assert '"index": 2' in text


def test_the_page_is_served_until_it_is_interrupted() -> None:
    def heed_interrupts() -> None:
        """Tests that run in the background of a shell inherit that Ctrl-C is ignored."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    command, pipe = [sys.executable, "-m", "krelax", "explore", "--no-browser"], subprocess.PIPE
    started = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed_interrupts)  # noqa: PLW1509
    with started as running:
        assert running.stdout is not None
        words = running.stdout.readline().split()
        assert words[:2] == ["krelax", "explore:"]
        with urlopen(words[2]) as answer:
            assert b"digits_dense.onnx" in answer.read()
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.onnx", "good.npz", "--eps", 0.1], ["none.onnx"]),
        (["good.onnx"], ["images"]),
        (["good.onnx", "good.npz"], ["--eps"]),
        (["good.onnx", "good.npz", "--eps", -1], ["--eps", ">= 0"]),
        (["good.onnx", "good.npz", "--eps", 0.1, "--index", 9], ["--index 9", "3 images"]),
        (["--index", -1], ["--index"]),
        (["--port", 99999], ["--port"]),
    ],
)
@pytest.mark.usefixtures("good")
def test_bad_input_is_one_line(krelax: Run, arguments: list[Any], words: list[str]) -> None:
    refused(krelax("explore", "--no-browser", *arguments), words)


@pytest.mark.usefixtures("good")
def test_a_taken_port_and_a_missing_folder(krelax: Run, taken: int) -> None:
    asked = ["explore", "good.onnx", "good.npz", "--eps", 0.1]
    refused(krelax(*asked, "--no-browser", "--port", taken), ["--port", str(taken), "in use"])
    refused(krelax(*asked, "--export", "nowhere/page.html"), ["nowhere", "cannot be written"])


def refused(ran: Ran, words: list[str]) -> None:
    """Exit code 2 and one line on stderr with some words."""
    assert (ran.code, ran.out) == (2, "")
    (line,) = ran.err.splitlines()
    assert line.startswith("krelax: ")
    for word in words:
        assert word in line
