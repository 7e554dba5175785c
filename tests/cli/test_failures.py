"""What nobody has foreseen is one line, has its own exit code, and does not end a list."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.cli.conftest import Ran
from tests.run.files import images

from krelax.cli import _open_streams
from krelax.cli.shared import bundled
from krelax.cli.supports import supports
from krelax.run import certificates as certificates_module
from krelax.run import verify as verify_module
from krelax.run.journal import read_journal
from krelax.search import run, stages

Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users run it."""
    monkeypatch.delenv("KRELAX_TRACEBACK", raising=False)


def raising(error: BaseException) -> Callable[..., Any]:
    def function(*_: object, **__: object) -> None:
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ValueError("two\nlines"), 70, "internal error (ValueError: two lines); please report it"),
        (MemoryError(), 70, "not enough memory"),
        (RecursionError("too deep"), 70, "RecursionError"),
        (OSError(5, "Input/output error"), 70, "Input/output error"),
        (KeyboardInterrupt(), 130, "interrupted; results in a --jsonl file are kept"),
    ],
)
def test_bugs_are_one_line(
    krelax: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: str
) -> None:
    monkeypatch.setattr(supports, "callback", raising(error))
    ran = krelax("supports")
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("krelax: ")
    assert ran.err.count("\n") == 1
    assert words in ran.err


def test_a_traceback_is_shown_to_those_who_ask_for_it(krelax: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRELAX_TRACEBACK", "1")
    monkeypatch.setattr(supports, "callback", raising(ValueError("bug")))
    with pytest.raises(ValueError, match="bug"):
        krelax("supports")


def failing_on(pixel: float, method: str) -> Callable[..., Any]:
    """`bound`, which fails on batches with a region whose first pixel may be large."""
    bound = stages.bound  # type: ignore[attr-defined]

    def function(instance: Any, queries: Any, chosen: Any, *rest: Any) -> Any:
        if chosen.name == method and bool((instance.region.upper.flatten(1)[:, 0] > pixel).any()):
            raise RuntimeError("bug")
        return bound(instance, queries, chosen, *rest)

    return function


@pytest.mark.parametrize("threads", [1, 2])
def test_one_image_fails_and_the_others_are_certified(
    krelax: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    with np.load(bundled("digits_test.npz")) as data:
        pixels, labels = data["images"][:6].astype(np.float32) / 255, data["labels"][:6]
    pixels[3].flat[0] = 0.125
    path = images(tmp_path / "few.npz", pixels, labels)
    monkeypatch.setattr(stages, "bound", failing_on(0.125, "crown"))
    command = ["certify", bundled("digits_conv.onnx"), path, "--eps", 0.0625, "--method", "crown"]
    torch.set_num_threads(threads)
    ran = krelax(*command, "--jsonl", tmp_path / "j.jsonl")
    assert ran.code == 3
    assert ran.err == "krelax: image 3: internal error: RuntimeError: bug; please report this\n"
    assert "6 images" in ran.out
    _, records = read_journal(tmp_path / "j.jsonl")
    assert sorted(r["index"] for r in records) == list(range(6))
    assert [r["index"] for r in records if r["reason"].startswith("internal error")] == [3]
    assert sum(r["verdict"] == "holds" for r in records) >= 4
    resumed = krelax(*command, "--jsonl", tmp_path / "j.jsonl", "--resume")
    assert (resumed.code, resumed.err) == (3, "")


def test_memory_that_one_image_lacks_is_not_lacking_for_others(
    krelax: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = stages.bound  # type: ignore[attr-defined]

    def greedy(instance: Any, *rest: Any) -> Any:
        if len(instance.region) > 1:
            raise torch.OutOfMemoryError("allocate memory")
        return bound(instance, *rest)

    monkeypatch.setattr(stages, "bound", greedy)
    ran = krelax("certify", "--range", "0:3", "--method", "crown", "--jsonl", tmp_path / "j.jsonl")
    assert (ran.code, ran.err) == (0, "")
    _, records = read_journal(tmp_path / "j.jsonl")
    assert sum(r["reason"] == "crown" for r in records) >= 2
    assert not any(r["reason"] == "memory" for r in records)


def test_a_proof_that_cannot_be_made_is_none(krelax: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((run, "question"), (certificates_module, "write")):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, raising(AssertionError("bug")))
            ran = krelax("certify", "--range", "0:1", "--certificates", tmp_path / "proofs")
        assert ran.code == 3
        assert ran.err == "krelax: image 0: internal error: AssertionError: bug; please report this\n"
        assert "unknown       1" in ran.out


def test_one_instance_fails_and_the_next_one_follows(krelax: Run, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["good.onnx,good.vnnlib,5,unsat"] * 3
    (good / "three.csv").write_text("\n".join(["onnx,vnnlib,timeout_s,expected", *lines, ""]), encoding="utf-8")
    verify, called = verify_module.verify, list[int]()

    def second(*given: Any) -> Any:
        called.append(1)
        if len(called) == 2:
            raise IndexError("bug")
        return verify(*given)

    monkeypatch.setattr(verify_module, "verify", second)
    ran = krelax("bench", "three.csv")
    assert ran.code == 3
    assert [line.split()[1] for line in ran.out.splitlines()[:3]] == ["unsat", "error", "unsat"]
    assert "internal error: IndexError: bug" in ran.out


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SystemExit(7), "internal error: SystemExit: 7"),
        (type("Panic", (BaseException,), {})("bug"), "internal error: Panic: bug"),
        (RecursionError("deep"), "internal error: RecursionError: deep"),
        (MemoryError(), "not enough memory"),
        (torch.OutOfMemoryError("allocate memory"), "not enough memory"),
        (OSError("disk"), "internal error: OSError: disk"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("place", ["read_vnnlib", "verify"])
def test_a_list_survives_whatever_happens_to_one_instance(
    krelax: Run, good: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, reason: str, place: str
) -> None:
    """Whether it is read or decided."""
    lines = ["good.onnx,good.vnnlib,600,unsat"] * 2
    (good / "two.csv").write_text("\n".join([*lines, ""]), encoding="utf-8")
    work, called = getattr(verify_module, place), list[int]()

    def first(*given: Any) -> Any:
        called.append(1)
        if len(called) == 1:
            raise error
        return work(*given)

    monkeypatch.setattr(verify_module, place, first)
    ran = krelax("bench", "two.csv", "--jsonl", "two.jsonl")
    assert ran.code == 3
    assert [line.split()[1] for line in ran.out.splitlines()[:2]] == ["error", "unsat"]
    assert reason in ran.out
    _, records = read_journal(good / "two.jsonl")
    assert [record["answer"] for record in records] == ["error", "unsat"]


def test_a_property_on_which_something_fails_is_unknown(
    krelax: Run, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "bound", raising(ZeroDivisionError("bug")))
    ran = krelax("verify", "good.vnnlib", "--network", "good.onnx", "--method", "crown")
    assert (ran.code, ran.out) == (70, "unknown\n")
    assert ran.err.startswith("krelax: unknown (internal error: ZeroDivisionError: bug")
    assert ran.err.count("\n") == 1


def program(*arguments: str, **given: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "krelax", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **given)


def test_nobody_reads_what_is_printed() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with program("supports", "--methods", stdout=writer) as running:
        os.close(writer)
        _, err = running.communicate(timeout=120)
    assert (running.returncode, err) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device on this machine")
def test_what_is_printed_has_no_room() -> None:
    with Path("/dev/full").open("w") as full, program("--version", stdout=full) as running:
        _, err = running.communicate(timeout=120)
    assert running.returncode == 2
    assert err == "krelax: stdout cannot be written to (No space left on device)\n"


def test_a_run_that_is_terminated_keeps_its_results(tmp_path: Path) -> None:
    journal = tmp_path / "j.jsonl"
    arguments = ["certify", "--method", "alpha", "--jsonl", str(journal)]
    with program(*arguments, stdout=subprocess.PIPE) as running:
        until = time.monotonic() + 600
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 3):
            assert time.monotonic() < until
            assert running.poll() is None
            time.sleep(0.01)
        running.send_signal(signal.SIGTERM)
        out, err = running.communicate(timeout=120)
    assert (running.returncode, out, err) == (143, "", "krelax: terminated; results in a --jsonl file are kept\n")
    assert journal.read_bytes().endswith(b"\n")


GREETING = """
import os, sys
from krelax.cli import main, supports
function = supports.supports.callback
supports.supports.callback = lambda **given: (os.write(1, b"Running a solver"), function(**given))[1]
sys.argv = ["krelax", "supports", "--vnnlib-versions"]
main()
"""


def test_what_libraries_print_is_no_result() -> None:
    done = subprocess.run([sys.executable, "-c", GREETING], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1.0\n2.0\n", "")


def test_streams_that_are_closed_lead_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    _open_streams()
    print("lost", file=sys.stderr)
    print("lost", flush=True)
    assert sys.stdin.read() == ""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.close()
