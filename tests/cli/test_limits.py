"""Limits of time, by clocks that tests set: what ends the work, and what is said then."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.bounds.problems import margins
from tests.cli.conftest import Ran
from tests.exact import Layer, as_network
from tests.marks import at_night_after

from krelax.bounds import methods, zonotope
from krelax.bounds.instance import Instance, helpers
from krelax.bounds.methods import METHODS, bound
from krelax.problem.queries import Queries
from krelax.problem.region import Box
from krelax.run import bench as bench_module
from krelax.run import verify as verify_module
from krelax.run.verify import Clock
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import Questions
from krelax.search.verdict import Outcome
from krelax.watch import OutOfTime, current, tick, watched

Run = Callable[..., Ran]

LAYERS = [
    Layer([[1, 1], [1, -2], [-1, 1], [2, 1]], [0, 1, 0, -1]),
    Layer([[1, -1, 1, 0], [0, 1, -1, 1], [1, 1, 0, -1]], [0, -1, 1]),
    Layer([[1, -1, 1], [-1, 2, 1]], [0, 0]),
]


def problem() -> tuple[Instance, Queries]:
    """A small network, and margins that are undecided for a while."""
    region = Box(*(torch.full((1, 2), end, dtype=torch.float64) for end in (-1.0, 1.0)))
    rows = torch.tensor([[[1.0, -1.0], [-1.0, 0.5]]], dtype=torch.float64)
    return Instance.of(as_network(LAYERS), region), margins(rows, torch.zeros(1, 2, dtype=torch.float64))


class Steps:
    """A clock that runs out after so many looks at it."""

    def __init__(self, count: int) -> None:
        self.left = count

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def again_and_again(instance: Instance, queries: Queries, method: str) -> None:
    """What is suppressed where bounds of layers may be coarse is met again."""
    while True:
        bound(instance, queries, METHODS[method])


@pytest.mark.parametrize("method", ["interval", "zonotope", "crown", "alpha", "lp", "krelu"])
def test_every_method_is_given_up_wherever_it_is(method: str) -> None:
    """The clock runs out at each of its first looks, and there are several."""
    instance, queries = problem()
    clock = Steps(10**9)
    with watched(clock):
        whole = bound(instance, queries, METHODS[method])
    looks = 10**9 - clock.left
    assert looks >= 3
    for count in range(min(looks, 12)):
        with watched(Steps(count)), pytest.raises(OutOfTime):
            again_and_again(instance, queries, method)
    assert torch.equal(bound(instance, queries, METHODS[method]).value, whole.value)


def test_watches_are_nested_and_put_back() -> None:
    outer, inner = Steps(10), Steps(0)
    with watched(outer):
        with watched(inner), pytest.raises(OutOfTime):
            tick()
        tick()
        with watched(None):
            for _ in range(20):
                tick()
        assert current() is outer
    tick()
    assert current() is None


def test_threads_watch_what_their_thread_watches() -> None:
    torch.set_num_threads(2)
    with watched(Steps(0)), helpers(torch.device("cpu")) as pool:
        assert pool is not None
        with pytest.raises(OutOfTime):
            pool.submit(tick).result()
    torch.set_num_threads(1)


def asked(monkeypatch: pytest.MonkeyPatch, overdue: Callable[[Instance], bool]) -> Outcome:
    """What `decide` says, while nothing but `overdue` ends its work."""
    instance, queries = problem()
    monkeypatch.setattr(Instance, "overdue", overdue)
    outcomes: list[Outcome] = []
    questions = Questions(instance.region, queries, lambda *_: False)
    decide(instance.network, questions, Plan.of("crown"), lambda _, outcome: outcomes.append(outcome))
    return outcomes[0]


def test_what_is_overdue_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, lambda _: True).reason == "timeout"
    assert asked(monkeypatch, lambda _: False).reason != "timeout"


def test_zonotopes_in_portions_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    instance, queries = problem()
    whole = bound(instance, queries, METHODS["zonotope"])
    for size in (1, 7):
        monkeypatch.setattr(zonotope, "_AT_ONCE", size)
        parts = bound(instance, queries, METHODS["zonotope"])
        torch.testing.assert_close(parts.value, whole.value, rtol=1e-12, atol=1e-12)
        for one, other in zip(parts.bounds.lower, whole.bounds.lower, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_zonotopes_that_do_not_fit_memory_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "memory_budget", lambda _: 100)
    instance, queries = problem()
    with pytest.raises(torch.OutOfMemoryError):
        bound(instance, queries, METHODS["zonotope"])


def test_reading_counts_and_a_glance_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(verify_module.time, "perf_counter", lambda: now[0])  # type: ignore[attr-defined]
    assert Clock(None, 0.0).left() is None
    assert Clock(10.0, 97.0).left() == 7.0
    assert Clock(10.0, 50.0).left() == 1.0
    assert Clock(0.5, 50.0).left() == 0.25


def test_reading_a_network_ends_soon_after_the_limit(krelax: Run, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]

    def endless(path: Path, **about: Any) -> Any:
        while True:
            now[0] += 0.25
            tick()

    monkeypatch.setattr(verify_module.time, "perf_counter", lambda: now[0])  # type: ignore[attr-defined]
    monkeypatch.setattr(bench_module, "load_onnx", endless)
    ran = krelax("bench", "good.csv")
    assert (ran.code, ran.out.split()[1]) == (0, "timed-out")
    assert 5 <= now[0] - 100 <= 7


def test_reading_counts_in_a_list(krelax: Run, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, limits = [100.0], list[float]()
    read = verify_module.read_vnnlib  # type: ignore[attr-defined]

    def slowly(query: Path, check: Any) -> Any:
        now[0] += 1.5
        return read(query, check)

    def seen(network: Any, specification: Any, options: Any, keeper: Any) -> Any:
        limits.append(options.timeout)
        raise KeyboardInterrupt

    monkeypatch.setattr(verify_module.time, "perf_counter", lambda: now[0])  # type: ignore[attr-defined]
    monkeypatch.setattr(verify_module, "read_vnnlib", slowly)
    monkeypatch.setattr(verify_module, "verify", seen)
    assert krelax("bench", "good.csv").code == 130
    assert limits == [3.5]


ENDLESS = """
import sys, time
from krelax.cli import patience, verify
patience._GRACE = 0.0
limit = {limit}
with patience.Patience(limit, verify._too_late, 30):
    if limit is not None:
        time.sleep(300)
print("unsat")
"""


@pytest.mark.parametrize(
    ("limit", "code", "out"), [(0.05, 30, "timed-out\n"), (None, 0, "unsat\n")], ids=["passed", "none"]
)
def test_what_cannot_be_interrupted_is_ended(limit: float | None, code: int, out: str) -> None:
    """Even while the main thread is in one long call."""
    command = [sys.executable, "-c", ENDLESS.format(limit=limit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (code, out)
    assert done.stderr.count("\n") == (1 if limit else 0)


LOADING = """
import sys, time
import krelax.network.onnx
from krelax.cli import main, patience
patience._GRACE = 0.0
krelax.network.onnx.load_onnx = lambda file, **about: time.sleep(300)
main(["verify", "good.vnnlib", "--network", "good.onnx", "--timeout", "0.1", *sys.argv[1:]])
"""


@pytest.mark.parametrize("more", at_night_after(1, [["--certificate", "proof.zip"], []]))
def test_a_network_that_is_read_for_too_long(good: Path, more: list[str]) -> None:
    """A proof is waited for, but not before there can be any."""
    command = [sys.executable, "-c", LOADING, *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=good)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (30, "timed-out\n", 1)
    assert not (good / "proof.zip").exists()


def test_an_answer_in_time_is_not_taken_back() -> None:
    code = ENDLESS.format(limit=0.3).replace("time.sleep(300)", "pass") + "time.sleep(1)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "unsat\n", "")
