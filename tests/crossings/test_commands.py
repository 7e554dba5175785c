"""The commands on models of every structure: none ends with a traceback, and what is refused is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.cli.conftest import Ran, krelax
from tests.crossings.runs import REGIONS, loaded
from tests.crossings.sketches import STRUCTURES, representatives

from krelax.bounds.methods import METHODS
from krelax.errors import InputError

Run = Callable[..., Ran]
_ = krelax  # a fixture
NORMS = {"box": "linf", "point": "linf", "l2": "l2", "l1": "l1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("commands")


# the first one and another always
EVERY = [pytest.param(s, marks=[pytest.mark.slow] if i % 20 else []) for i, s in enumerate(STRUCTURES)]


@pytest.mark.parametrize("structure", EVERY)
def test_every_command_answers(structure: str, folder: Path, krelax: Run) -> None:
    number = list(STRUCTURES).index(structure)
    path, network = loaded(structure, representatives()[number % len(representatives())], folder)
    x = np.random.default_rng(number).uniform(0.2, 0.8, (3, *network.input_shape)).astype(np.float32)
    scores = network(torch.from_numpy(x).double()).reshape(3, -1)
    images = path.with_suffix(".npz")
    np.savez(images, images=x, labels=scores.argmax(1).numpy())
    region = REGIONS[number % len(REGIONS)]
    options = ("--eps", 0 if region == "point" else 0.02, "--norm", NORMS[region])
    report, certificates = path.with_suffix(".html"), path.with_suffix(".proofs")
    method = [*METHODS, "auto"][number % (len(METHODS) + 1)]
    results = [
        krelax("compare", path, images, "--index", 0, *options),
        krelax("bounds", path, images, "--index", 1, "--method", list(METHODS)[number % len(METHODS)], *options),
        krelax("certify", path, images, *options, "--method", method, "--report", report, "--timeout", 1),
        krelax("certify", path, images, *options, "--certificates", certificates, "--check", "--timeout", 1),
    ]
    if scores.shape[1] < 2:
        assert all(run.code == 2 and "not a vector of class scores" in run.err for run in results)
        return
    assert [run.code for run in results] == [0, 0, 0, 0], [run.err for run in results]
    assert report.stat().st_size > 1000
    assert sum(_counts(results[3].out).values()) == 3
    assert "not accepted" not in results[3].err
    for proof in certificates.glob("*.zip"):
        assert krelax("check", proof, "--network", path, "--exact").code == 0


@pytest.mark.parametrize("semantics", ["real", "float32"])
def test_why_no_certificate_is_accepted_is_said(
    semantics: str, tmp_path: Path, krelax: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the work, and for every answer; a counterexample is one all the same."""

    def unread(*_: Any) -> Any:
        raise InputError("not supported: operator Something")

    for name in ("read_file", "check"):
        monkeypatch.setattr(f"krelax.run.certificates.{name}", unread)
    path, network = loaded("dense", "relu", tmp_path)
    x = np.full((2, *network.input_shape), 0.5, np.float32)
    best = int(network(torch.from_numpy(x[:1]).double()).argmax())
    np.savez(tmp_path / "x.npz", images=x, labels=np.array([best, 1 - best]))
    options = ("--eps", 1e-6, "--certificates", tmp_path / "proofs", "--check", "--semantics", semantics)
    run = krelax("certify", path, tmp_path / "x.npz", *options)
    assert run.code == 0
    assert run.err.count("not supported: operator Something") == 1
    assert "no certificate about dense-relu.onnx can be accepted" in run.err
    assert "1 certificate not checked: not supported: operator Something" in run.out
    assert _counts(run.out) == {"holds": 0, "violated": 1, "unknown": 1}


def _counts(out: str) -> dict[str, int]:
    """The verdicts of a summary."""
    words: dict[str, Any] = {line.split()[0]: line.split()[1] for line in out.splitlines() if line.startswith("  ")}
    return {name: int(words[name]) for name in ("holds", "violated", "unknown")}
