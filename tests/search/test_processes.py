"""Helpers: what they find is what would have been found here, and none of them outlives its use."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from threading import Event, Lock, Timer

import numpy as np
import pytest
import torch

from krelax import ball, classification, load_images, load_onnx
from krelax.activations import ReLU
from krelax.bounds.bounded import Bounded
from krelax.bounds.instance import Instance, OutOfTime
from krelax.bounds.methods import METHODS, bound
from krelax.certificate.check import check
from krelax.certificate.format.schema import Certificate
from krelax.network.graph import Network
from krelax.problem.queries import Queries
from krelax.proof.encode import question
from krelax.proof.log import ProofLog
from krelax.search import processes
from krelax.search.effort import Complete, SearchResult
from krelax.search.processes import Helper, Search, SideBySide, module_path, pickled, search_here
from krelax.search.verdict import Counterexample

DATA = Path(str(files("krelax") / "data"))
SHAPE = load_onnx(DATA / "digits_conv.onnx").input_shape
# A search that does the same on a slow machine.
UNHURRIED = Complete(("neurons",), turn=1e6, share=1.0, branching=replace(Complete().branching, clips=None))
Asked = tuple[Instance, Queries, Bounded]


def ask(image: int, eps: float = 0.06, proofs: bool = True) -> Asked:
    """A question about a bundled image, with bounds that leave it open, and perhaps a proof log."""
    network = load_onnx(DATA / "digits_conv.onnx")
    images = load_images(DATA / "digits_test.npz", network.input_shape, 10)
    region = ball(torch.tensor(images.images[image : image + 1]).double(), eps)
    queries = classification(torch.tensor(images.labels[image : image + 1]), 10)
    instance = replace(Instance.of(network, region), logs=(ProofLog(),) if proofs else ())
    found = bound(instance, queries, METHODS["crown"])
    assert not (found.value > 0).all()
    return instance, queries, found


def nobody(points: torch.Tensor) -> Counterexample | None:
    return None


@contextmanager
def started() -> Iterator[Helper]:
    first = pickled(load_onnx(DATA / "digits_conv.onnx"), UNHURRIED)
    assert first is not None
    helper = Helper(UNHURRIED, first)
    helper.begin(Event())
    assert helper.runs
    yield helper
    helper.end()


@pytest.fixture(scope="module")
def helper() -> Iterator[Helper]:
    """One that does all that is asked, as it must."""
    with started() as one:
        yield one


@pytest.fixture
def mortal() -> Iterator[Helper]:
    """One that may end."""
    with started() as one:
        yield one


def test_a_helper_finds_and_notes_what_would_be_found_here(helper: Helper) -> None:
    asked, same = ask(8), ask(8)
    found, expected = helper.search(*asked, nobody), search_here(UNHURRIED, *same, nobody)
    assert (found.margin, found.reason) == (expected.margin, expected.reason) == (expected.margin, "branching")
    assert found.margin > 0
    model = (DATA / "digits_conv.onnx").read_bytes()
    proven = []
    for (instance, queries, _), result in ((asked, found), (same, expected)):
        assert result.conclusion is not None
        proven.append(question(instance.network, instance.region, queries, instance.logs[0], result.conclusion))
    margins = [check(Certificate(hashlib.sha256(model).hexdigest(), "real", "", [q]), model) for q in proven]
    assert margins[0] == margins[1]


def test_what_nobody_has_bounded_yet_is_bounded_where_it_is_searched(helper: Helper) -> None:
    instance, queries, _ = ask(8)
    assert helper.search(instance, queries, None, nobody).margin == helper.search(*ask(8), nobody).margin > 0


def test_candidates_are_replayed_where_the_model_is(helper: Helper) -> None:
    x, y, seen = np.zeros(64, np.float32), np.ones(10, np.float32), list[torch.Tensor]()

    def confirm(points: torch.Tensor) -> Counterexample | None:
        seen.append(points)
        return Counterexample(x, y) if len(seen) > 1 else None

    found = helper.search(*ask(8, eps=0.3), confirm)
    assert found.counterexample is not None
    assert np.array_equal(found.counterexample.y, y)
    assert all(points.shape[1:] == SHAPE for points in seen)


def test_deadlines_and_cancelling_reach_a_helper(mortal: Helper, monkeypatch: pytest.MonkeyPatch) -> None:
    """The helper ends by itself, as it shows by being there for the next question."""
    monkeypatch.setattr(processes, "_GRACE", 120.0)
    instance, queries, bounds = ask(8, eps=0.1)
    found = mortal.search(instance.until(0.2), queries, bounds, nobody)
    assert (found.reason, found.margin > 0) == ("timeout", False)
    assert mortal.runs
    Timer(0.2, instance.cancelled.set).start()
    with pytest.raises(OutOfTime):
        mortal.search(instance, queries, bounds, nobody)


def test_a_helper_that_dies_leaves_its_question_unknown(mortal: Helper) -> None:
    def confirm(points: torch.Tensor) -> Counterexample | None:
        os.kill(mortal.pid, signal.SIGKILL)
        return None

    found = mortal.search(*ask(8, eps=0.1), confirm)
    assert not found.margin > 0
    assert found.counterexample is None
    assert "ended" in found.reason
    assert not mortal.runs


def test_a_helper_that_is_stopped_is_not_waited_for(mortal: Helper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_GRACE", 0.0)
    instance, queries, bounds = ask(8, eps=0.1)
    os.kill(mortal.pid, signal.SIGSTOP)
    found = mortal.search(instance.until(0.1), queries, bounds, nobody)
    assert (found.reason, found.margin, found.counterexample) == ("timeout", -torch.inf, None)
    assert not mortal.runs


def test_helpers_that_never_start_hold_nothing_up() -> None:
    """This process does their work."""
    instance, queries, bounds = ask(8, proofs=False)
    with SideBySide(instance, Complete(), 2) as searches:
        for helper in searches.helpers:
            os.kill(helper.pid, signal.SIGSTOP)
        work = lambda i, search: search(instance, queries, bounds, nobody)  # noqa: E731
        found = dict(searches.map(work, range(2)))
    assert all(f.margin > 0 for f in found.values())
    assert not any(alive(h.pid) for h in searches.helpers)


STRANGERS = ("torch", "numpy", "krelax", "sitecustomize", "usercustomize", "pickle", "socket")


def test_helpers_execute_nothing_that_lies_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in STRANGERS:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'a').write({name!r})")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", ".", *sys.path])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    first = pickled(load_onnx(DATA / "digits_conv.onnx"), Complete())
    assert first is not None
    stranger = Helper(Complete(), first)
    stranger.begin(Event())
    try:
        assert stranger.runs
        assert not (tmp_path / "executed").exists()
    finally:
        stranger.end()


def test_helpers_find_this_very_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["relative", "", "/absolute"])
    assert module_path() == ["/absolute", str(Path(processes.__file__).parents[2])]


class Unknown(Queries):
    """Queries that no other process can read."""

    def __reduce__(self) -> tuple[object, ...]:
        return int, ("no number",)


def test_what_a_helper_does_not_understand_is_searched_here(helper: Helper) -> None:
    instance, queries, bounds = ask(8)
    found = helper.search(instance, Unknown(**vars(queries)), bounds, nobody)
    assert found.margin == helper.search(*ask(8), nobody).margin > 0
    wrong = Bounded(bounds.value[:, :3], bounds.bounds)
    with pytest.raises(RuntimeError, match="size"):
        helper.search(instance, queries, wrong, nobody)
    assert helper.runs


def test_networks_that_cannot_be_sent_need_no_helpers() -> None:
    class Own(ReLU):
        pass

    instance, queries, bounds = ask(8)
    node = next(i for i, n in enumerate(instance.network.nodes) if isinstance(n.op, ReLU))
    nodes = list(instance.network.nodes)
    nodes[node] = replace(nodes[node], op=Own())
    with SideBySide(replace(instance, network=Network(tuple(nodes))), Complete(), 2) as searches:
        assert not searches.helpers
        found = dict(searches.map(lambda i, search: search(instance, queries, bounds, nobody, None), [3]))
    assert found[3].margin > 0


def test_questions_are_shared_out() -> None:
    """This process begins at once; here it waits until every helper has taken something, and then takes no more."""
    instance, queries, bounds = ask(8, proofs=False)
    every, by, lock = Event(), list[object](), Lock()

    def work(i: int, search: Search) -> SearchResult:
        with lock:
            by.append(getattr(search, "__self__", None))
            if len(set(by)) == 3:
                every.set()
        assert every.wait(300)
        return search(instance, queries, bounds, nobody, None)

    with SideBySide(instance, Complete(), 2) as searches:
        found = dict(searches.map(work, range(4)))
        helpers = list(searches.helpers)
    assert set(by) == {None, *helpers}
    assert by.count(None) == 1
    assert found.keys() == set(range(4))
    assert all(f.margin > 0 for f in found.values())
    assert not any(alive(h.pid) for h in helpers)


def test_a_core_waits_until_what_it_found_has_been_seen() -> None:
    """The caller may check certificates meanwhile, for which a core is needed."""
    instance, queries, bounds = ask(8, proofs=False)
    running, most, lock, begun = 0, list[int](), Lock(), Event()

    def count(change: int) -> None:
        nonlocal running
        with lock:
            running += change
            most.append(running)

    def work(i: int, search: Search) -> bool:
        helped = getattr(search, "__self__", None) is not None
        if helped:
            begun.set()
        assert begun.wait(300)  # this process leaves something to the helpers
        count(helped)
        search(instance, queries, bounds, nobody, None)
        return helped

    with SideBySide(instance, Complete(), 2) as searches:
        for _, helped in searches.map(work, range(4)):
            time.sleep(0.1)
            count(-helped)
    assert 1 <= max(most) <= 2


def test_cores_go_on_without_a_helper_that_died() -> None:
    instance, queries, bounds = ask(8, proofs=False)

    def work(i: int, search: Search) -> SearchResult:
        for helper in searches.helpers:
            if i == 1:
                os.kill(helper.pid, signal.SIGKILL)
        return search(instance, queries, bounds, nobody, None)

    with SideBySide(instance, Complete(), 2) as searches:
        found = dict(searches.map(work, range(6)))
    assert found.keys() == set(range(6))
    assert sum(f.margin > 0 for f in found.values()) >= 3


def test_an_interruption_ends_helpers() -> None:
    instance, queries, bounds = ask(8, eps=0.1)

    def work(i: int, search: Search) -> SearchResult:
        if i:
            raise KeyboardInterrupt
        return search(instance, queries, bounds, nobody, None)

    pids: list[int] = []

    def interrupted() -> None:
        with SideBySide(instance, Complete(), 2) as searches:
            pids.extend(h.pid for h in searches.helpers)
            list(searches.map(work, [1, 0, 0, 0]))

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert pids
    assert not any(alive(pid) for pid in pids)


def test_whatever_fails_is_raised() -> None:
    def work(i: int, search: Search) -> SearchResult:
        raise IndexError(i)

    def failing() -> None:
        with SideBySide(ask(8)[0], Complete(), 2) as searches:
            list(searches.map(work, [1, 2]))

    with pytest.raises(IndexError, match="1"):
        failing()


def test_helpers_do_not_outlive_a_parent_that_was_killed() -> None:
    code = (
        "from pathlib import Path; from threading import Event; from krelax import load_onnx\n"
        "from krelax.search.processes import Helper, pickled; from krelax.search.effort import Complete\n"
        f"first = pickled(load_onnx(Path({str(DATA / 'digits_conv.onnx')!r})), Complete())\n"
        "h = Helper(Complete(), first); h.begin(Event())\n"
        "print(h.pid, flush=True); import time; time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    until = time.perf_counter() + 120
    while alive(pid) and time.perf_counter() < until:
        time.sleep(0.1)
    assert not alive(pid)


def alive(pid: int) -> bool:
    """Whether a process runs; those that have ended and wait for their parent do not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
