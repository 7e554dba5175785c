"""Where work is counted instead of time, answers do not depend on how fast a machine is, or how busy."""

from __future__ import annotations

import random
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.marks import at_night_after
from tests.search.small import _dense

from krelax import watch
from krelax.activations import ReLU, Tanh
from krelax.cli import main
from krelax.network.graph import Network
from krelax.problem.images import Images
from krelax.run.certify import CertifyOptions, certify
from krelax.watch import OutOfTime, counted, counts_work, now, tick, watched


def test_the_clock_counts_what_is_done() -> None:
    with counted():
        began = now()
        time.sleep(0.01)
        waited = now() - began
        tick(1e9)
        worked = now() - began
        with counted():
            assert now() < worked  # a piece of work of its own
        assert now() >= worked
    assert 0 < waited < 1e-4
    assert worked > 0.1
    assert not counts_work()


def test_work_is_given_up_on_the_clock_that_counts() -> None:
    def work() -> None:
        until = now() + 1
        with watched(lambda: now() > until):
            while True:
                tick(1e6)

    with counted(), pytest.raises(OutOfTime):
        work()


def _certified(network: Network, images: Images, timeout: float) -> list[tuple[object, ...]]:
    records: list[dict[str, object]] = []
    options = CertifyOptions(eps=0.3, clip=None, timeout=timeout, deterministic=True)
    certify(network, images, range(len(images)), options, seen=records.append)
    return sorted((r["index"], r["verdict"], r["reason"], r["margin"], str(r["stages"])) for r in records)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("act", "timeout"), at_night_after(2, [(ReLU(), 0.5), (Tanh(), 0.2), (Tanh(), 0.5), (ReLU(), 3.0), (Tanh(), 3.0)])
)
def test_a_run_does_not_depend_on_time(act: ReLU | Tanh, timeout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    network = _dense(rng, 16, act, (24, 24, 24))
    inputs = torch.from_numpy(rng.normal(size=(3, 16)))
    images = Images(inputs.numpy(), network(inputs).argmax(1).numpy())
    first = _certified(network, images, timeout)
    clock = random.Random(1)
    monkeypatch.setattr(watch.time, "perf_counter", partial(clock.uniform, 0, 1e6))  # type: ignore[attr-defined]
    assert _certified(network, images, timeout) == first


def test_journals_say_whether_a_run_was_deterministic(tmp_path: Path) -> None:
    written = [tmp_path / name for name in ("time.jsonl", "work.jsonl")]
    for path, options in zip(written, ([], ["--deterministic"]), strict=True):
        with pytest.raises(SystemExit) as ended:
            main(["certify", "--range", "0:2", "--jsonl", str(path), *options])
        assert ended.value.code == 0
    assert ["deterministic" in path.read_text().splitlines()[0] for path in written] == [False, True]
