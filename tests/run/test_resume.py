"""A run that is killed loses nothing it had finished, and goes on from there without doing it again."""

from __future__ import annotations

import json
import os
import resource
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
from tests.run.files import external, images, random_dense, save, specification

import krelax.run.certify as certify_module
from krelax.cli import main
from krelax.cli.shared import bundled
from krelax.network.onnx import load_onnx
from krelax.problem.images import load_images
from krelax.run.bench import Instance, Result
from krelax.run.certify import CertifyOptions, Summary, certify

COUNT = 48
# Some hundredths of a second for each image, so that there is time to stop in between.
COMMAND = ["certify", *map(str, (bundled("digits_dense.onnx"), bundled("digits_test.npz"))), "--eps", "0.06"]
COMMAND += ["--method", "alpha", "--range", f"0:{COUNT}"]


def start(journal: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "krelax", *COMMAND, "--jsonl", str(journal), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipe, before = subprocess.PIPE, _heed_interrupts  # no threads run in the tests that start processes
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment, preexec_fn=before)  # noqa: PLW1509


def _heed_interrupts() -> None:
    """Tests that run in the background of a shell inherit that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def stop_midway(journal: Path, sign: signal.Signals) -> tuple[int, tuple[str, str], bytes]:
    """Start a run, stop it once a few results are on disk: its exit code, what it wrote, and what is on disk then."""
    process = start(journal)
    began = time.monotonic()
    while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
        assert process.poll() is None, "finished too soon"
        assert time.monotonic() - began < 600
        time.sleep(0.005)
    process.send_signal(sign)
    written = process.communicate(timeout=60)
    return process.returncode, written, journal.read_bytes()


def whole_lines(content: bytes) -> list[bytes]:
    return content[: content.rfind(b"\n") + 1].splitlines()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many questions each later run in this process really works on."""
    torch.set_num_threads(1)
    counts: list[int] = []
    decide = certify_module.decide  # type: ignore[attr-defined]

    def counting(network: Any, questions: Any, *rest: Any) -> None:
        counts.append(len(questions))
        decide(network, questions, *rest)

    monkeypatch.setattr(certify_module, "decide", counting)
    return counts


def resume(journal: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*COMMAND, "--jsonl", str(journal), "--resume"])
    assert stop.value.code == 0


def check_complete(journal: Path, kept: list[bytes]) -> None:
    """The kept lines are where they were, to the byte, and every image has one record."""
    lines = journal.read_bytes().splitlines()
    assert lines[: len(kept)] == kept
    records = [json.loads(line) for line in lines]
    assert [r["kind"] for r in records] == ["run"] + ["result"] * COUNT
    assert sorted(r["index"] for r in records[1:]) == list(range(COUNT))


def test_killed_and_resumed(tmp_path: Path, asked: list[int]) -> None:
    journal = tmp_path / "results.jsonl"
    code, _, content = stop_midway(journal, signal.SIGKILL)
    assert code == -signal.SIGKILL
    kept = whole_lines(content)
    assert 4 <= len(kept) <= COUNT
    resume(journal)
    assert asked == [COUNT - (len(kept) - 1)]
    check_complete(journal, kept)

    # Once more, with the last record cut in half: that image is certified again, and no other.
    before = journal.read_bytes()
    *kept, last = before.splitlines()
    journal.write_bytes(before[: -len(last) // 2])
    resume(journal)
    assert asked[1:] == [1]
    check_complete(journal, kept)

    # And with nothing left to do.
    finished = journal.read_bytes()
    resume(journal)
    assert asked[2:] == []
    assert journal.read_bytes() == finished


def test_interrupted_from_the_keyboard(tmp_path: Path) -> None:
    code, (out, err), content = stop_midway(tmp_path / "results.jsonl", signal.SIGINT)
    assert code == 130
    # a terminal shows ^C on the line before
    assert (out, err.strip()) == ("", "krelax: interrupted; results in a --jsonl file are kept")
    assert content.endswith(b"\n")


def test_the_disk_is_full(tmp_path: Path) -> None:
    """A result that cannot be written is an error, not a result that is missing later."""
    journal = tmp_path / "results.jsonl"
    command = [sys.executable, "-m", "krelax", *COMMAND, "--range", "0:8", "--jsonl", str(journal)]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))  # noqa: E731
    # what measures the tests would write a file of its own there
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, preexec_fn=limit, env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"krelax: {journal}: cannot be written")
    assert done.stderr.count("\n") == 1


def test_numbers_that_json_has_not_are_not_written(tmp_path: Path) -> None:
    """A region as large as the numbers themselves: bounds overflow, and the results are still plain JSON."""
    torch.set_num_threads(1)
    network = load_onnx(save(random_dense([2, 4, 2]), tmp_path / "m.onnx"))
    data = load_images(images(tmp_path / "i.npz", np.full((2, 2), 0.5, np.float32), [0, 1]), (1, 2), 2)
    for method in ("interval", "zonotope", "auto"):
        path = tmp_path / f"{method}.jsonl"
        options = CertifyOptions(eps=1.7e308, clip=None, method=method)
        summary = certify(network, data, range(2), options, journal=path)
        assert "holds" not in summary.counts
        for line in path.read_text(encoding="utf-8").splitlines():
            json.loads(line, parse_constant=pytest.fail)  # called for NaN and infinities


def test_a_wider_range_continues_a_narrower_one(tmp_path: Path, asked: list[int]) -> None:
    """The range says how far to go, not what the run is."""
    network = load_onnx(save(random_dense([2, 4, 2]), tmp_path / "m.onnx"))
    data = load_images(images(tmp_path / "i.npz", np.full((5, 2), 0.5, np.float32), [0, 1, 0, 1, 0]), (1, 2), 2)
    seen: list[int] = []
    run: Callable[..., Summary] = lambda indices: certify(  # noqa: E731
        network,
        data,
        indices,
        CertifyOptions(eps=0.01),
        journal=tmp_path / "j.jsonl",
        resume=True,
        seen=lambda r: seen.append(r["index"]),
    )
    first = run(range(1, 3))
    second = run(range(5))
    assert asked == [2, 3]
    assert sorted(seen[:2]) == [1, 2]
    assert sorted(seen[2:]) == [0, 3, 4]
    assert sorted(second.verdicts) == list(range(5))
    assert {i: second.verdicts[i] for i in (1, 2)} == first.verdicts


def test_a_disagreement_before_the_kill_counts_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save(random_dense([2, 4, 2]), tmp_path / "m.onnx")
    Path("s.vnnlib").write_text(specification([0, 0], [0.01, 0.01], "(assert (<= Y_0 -100))"), encoding="utf-8")
    line = "m.onnx,s.vnnlib,5,"
    Path("list.csv").write_text(f"onnx,vnnlib,timeout_s,expected\n{line}sat\n{line}unsat\n", encoding="utf-8")
    for options, rows in (([], 2), (["--resume"], 0)):
        with pytest.raises(SystemExit) as stop:
            main(["bench", "list.csv", "--jsonl", "j.jsonl", *options])
        out = capsys.readouterr().out
        assert stop.value.code == 1
        assert out.count("expected") == rows
        assert "solved 2 of 2: 2 unsat, 0 sat" in out
        assert "1 disagree" in out


def test_an_earlier_run_is_overwritten_if_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever its settings were, but nothing that is not a run; a data set and a list alike."""
    monkeypatch.chdir(tmp_path)
    save(random_dense([2, 4, 2]), tmp_path / "m.onnx")
    images(tmp_path / "i.npz", np.full((1, 2), 0.5, np.float32), [0])
    Path("s.vnnlib").write_text(specification([0, 0], [0.01, 0.01], "(assert (<= Y_0 -100))"), encoding="utf-8")
    Path("list.csv").write_text("m.onnx,s.vnnlib,600\n", encoding="utf-8")

    def code(command: str) -> object:
        with pytest.raises(SystemExit) as stop:
            main(command.split())
        return stop.value.code

    for command in ("certify m.onnx i.npz --eps 0.1", "bench list.csv"):
        Path("j.jsonl").unlink(missing_ok=True)
        assert code(f"{command} --jsonl j.jsonl --timeout 900") == 0
        before = Path("j.jsonl").read_text()
        assert code(f"{command} --jsonl j.jsonl") == 2
        assert code(f"{command} --jsonl j.jsonl --resume") == 2
        assert code(f"{command} --jsonl j.jsonl --resume --overwrite") == 2
        assert code(f"{command} --overwrite") == 2
        assert Path("j.jsonl").read_text() == before
        assert code(f"{command} --jsonl j.jsonl --overwrite") == 0
        header, result = map(json.loads, Path("j.jsonl").read_text().splitlines())
        assert (header["kind"], result["index"]) == ("run", 0)
        assert header["timeout"] != json.loads(before.splitlines()[0])["timeout"] == 900
        for other in ("remember the milk", '{"kind": "result"}\n'):
            Path("j.jsonl").write_text(other)
            assert code(f"{command} --jsonl j.jsonl --overwrite") == 2
            assert Path("j.jsonl").read_text() == other
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "expected", "disagrees"),
    [
        ("sat", "unsat", True),
        ("unsat", "sat", True),
        ("sat", "sat", False),
        ("unsat", "unsat", False),
        ("unknown", "sat", False),
        ("timed-out", "unsat", False),
        ("error", "unsat", False),
        ("sat", "open", False),
    ],
)
def test_only_definite_answers_contradict(answer: str, expected: str, disagrees: bool) -> None:
    instance = Instance(0, Path("a.onnx"), Path("a.vnnlib"), 1.0, expected)
    assert Result(instance, answer, "", 0.0).disagrees is disagrees


def test_another_weights_file_is_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether a data set or a list was asked about it."""
    monkeypatch.chdir(tmp_path)
    images(tmp_path / "i.npz", np.full((2, 2), 0.5, np.float32), [0, 1])
    Path("s.vnnlib").write_text(specification([0, 0], [0.01, 0.01], "(assert (<= Y_0 -100))"), encoding="utf-8")
    Path("list.csv").write_text("onnx,vnnlib,timeout_s\nn.onnx,s.vnnlib,5\n", encoding="utf-8")
    external(Path("n.onnx"), 1.0)
    commands = (["certify", "n.onnx", "i.npz", "--eps", "0.1"], ["bench", "list.csv"])
    for number, command in enumerate(commands):
        with pytest.raises(SystemExit) as stop:
            main([*command, "--jsonl", f"{number}.jsonl"])
        assert stop.value.code == 0
    external(Path("n.onnx"), 2.0)
    for number, (command, word) in enumerate(zip(commands, ("model", "files"), strict=True)):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([*command, "--jsonl", f"{number}.jsonl", "--resume"])
        assert stop.value.code == 2
        assert f"another run ({word} differs)" in capsys.readouterr().err
