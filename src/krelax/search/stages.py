"""The stages of a run, each on all questions that are still open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from krelax.bounds.bounded import Bounded
from krelax.bounds.instance import Instance, OutOfTime, chunk_images, helpers, pieces, workers
from krelax.bounds.methods import METHODS, Method, bound
from krelax.bounds.seen import seen
from krelax.problem.queries import Queries
from krelax.proof.log import Conclusion
from krelax.search.attack import Attack, search
from krelax.search.boxes import Splitting
from krelax.search.effort import Complete, SearchResult
from krelax.search.inputs import Inputs
from krelax.search.margins import Probe
from krelax.search.processes import Search, SideBySide, out_of_memory
from krelax.search.replay import replay
from krelax.search.run import Run, reason_of
from krelax.search.together import Together, Trees, close, groups
from krelax.search.verdict import Counterexample, Outcome, Verdict
from krelax.watch import now, watched

T = TypeVar("T")
# Better bounds of a question, by its number, about one region, of what is known of it.
Refine = Callable[[int, Instance, Queries, Bounded], Bounded]

# Questions are searched again if they have so many seconds then, and so many times more than before.
_WORTHWHILE, _MORE = 1.0, 1.5


def look_at_anchors(run: Run, instance: Instance) -> None:
    """Replay the anchors that are wrong as they are."""
    anchors = run.questions.anchors
    if anchors is None:
        return
    for part in pieces(len(anchors), 256):
        y = instance.network(anchors[part].to(run.queries.rows)).unsqueeze(1)
        queries = run.queries.select(part)
        wrong = part[queries.margin(queries.values(y))[:, 0].cpu() <= 0]
        _confirm(run, wrong, anchors[wrong], "misclassified")


def bound_all(run: Run, instance: Instance, method: Method) -> None:
    """One bounding method on everything still open. If it optimises, closed-form slopes first say which clauses of
    several margins are open, where that is not known."""
    if method.inner is not None and run.batch.several and not run.found:
        bound_all(run, instance, replace(METHODS["crown"], name=method.name))

    def work(index: Tensor) -> tuple[Bounded, Tensor]:
        one, queries, joint = run.batch.asked(instance, index)
        found = bound(one, queries, method, True, run.bounds(index, one.network))
        return replace(found, joint=joint), queries.margin(found.value)

    size = 1 if method.separate else chunk_images(instance.network, method.copies, run.device)
    for index, (found, margins) in _batches(run, instance, method.name, size, work, run.alike(instance)):
        network = run.batch.asked(instance, index)[0].network
        for place, (i, margin) in enumerate(zip(index.tolist(), margins.tolist(), strict=True)):
            run.bounded(i, margin, found.conclusion(place))
            if margin > 0:
                run.settle(i, Outcome(Verdict.HOLDS, method.name))
            elif run.keeps(instance.network):
                run.found[i] = found.select(torch.tensor([place]), network)


def attack_all(run: Run, instance: Instance, attack: Attack) -> None:
    """An attack on everything still open, and a replay of what it found."""

    def work(index: Tensor) -> Tensor:
        queries = run.queries.select(index).to(instance.fast_network.dtype, run.device)
        return search(instance.select(index), queries, attack)[0]

    points = max(attack.restarts, attack.samples)
    size = chunk_images(instance.network, points, run.device, 1)
    for index, x in _batches(run, instance, "attack", size, work, [run.remaining()]):
        _confirm(run, index, x)


def close_together(run: Run, instance: Instance, effort: Together) -> None:
    """A few boxes for each of many questions, where few inputs vary; it says nothing of those that stay open."""

    def work(index: Tensor) -> tuple[Tensor, Trees]:
        return close(instance.select(index), run.queries.select(index), effort)

    asked = groups(instance, run.queries, run.remaining(), effort)
    for index, (margins, trees) in _batches(run, instance, effort.name, effort.questions, work, asked):
        for place, (i, margin) in enumerate(zip(index.tolist(), margins.tolist(), strict=True)):
            if margin > 0:
                run.bounded(i, margin, Conclusion(boxes=trees.tree(place)) if instance.logs else None)
                run.settle(i, Outcome(Verdict.HOLDS, "boxes"))


def cut_boxes(run: Run, instance: Instance, effort: Splitting) -> None:
    """Boxes on every question still open, where the first one is cheap: for as long as other stages have taken, or, if
    they are to go ahead, will take at least, so that neither they nor boxes cost much more than what will do alone.
    They go on in later stages."""
    for i in run.remaining().tolist():
        instance.check()
        boxes = run.boxes.get(i) or _boxes_of(run, instance, i, effort)
        seconds = run.spent(i) - 2 * run.spent(i, effort.name)
        if boxes is None or not (boxes.precedes if effort.ahead else boxes.price <= seconds):
            continue
        began = now()
        try:
            if effort.ahead:
                boxes.precede()
            else:
                boxes.advance(seconds, seconds)
        except Exception as error:
            reason_of(error)  # which raises what other stages would stumble on as well
            continue
        run.charge(effort.name, [i], began)
        if boxes.found.decided:
            _conclude(run, i, boxes.found)
        elif run.keeps(instance.network):
            run.boxes[i] = boxes


def _boxes_of(run: Run, instance: Instance, i: int, effort: Splitting) -> Inputs | None:
    """A search over boxes that has not begun yet, if there can be one."""
    one, queries = instance.select(torch.tensor([i])), run.queries.select(torch.tensor([i]))
    if not Inputs.able(one):
        return None
    one = replace(one, seen=seen(one.network, queries.rows))
    return Inputs(one, queries, effort, Probe(one, queries, Complete().attack, partial(_counterexample, run, i)))


def refine_all(run: Run, instance: Instance, refine: Refine, each: float | None) -> None:
    """Better bounds of every question still open, one after the other, as far as its time suffices."""
    for i in run.remaining().tolist():
        began = now()
        one, queries, found = _timed(run, instance, i, each), run.queries.select(torch.tensor([i])), run.found.get(i)
        try:
            with suppress(OutOfTime), one.watch():
                found = refine(i, one, queries, found or bound(one, queries, METHODS["crown"], True))
                run.found[i] = found
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        run.charge("layers", [i], began)
        if found is not None:
            margin = float(queries.margin(found.value))
            run.bounded(i, margin, found.conclusion())
            if margin > 0:
                run.settle(i, Outcome(Verdict.HOLDS, "layers"))


def search_all(run: Run, instance: Instance, effort: Complete, each: float | None) -> None:
    """A complete search on every question still open, the most promising ones first. Those that are not decided in
    their shares of the time are searched again with larger ones, if others have left some."""

    def work(i: int, search: Search) -> SearchResult:
        instance.check()
        began = now()
        one, queries = _timed(run, instance, i, each), run.queries.select(torch.tensor([i]))
        try:
            result = search(one, queries, run.found.get(i), partial(_counterexample, run, i), run.boxes.get(i))
        except Exception as error:
            result = SearchResult(-torch.inf, reason_of(error))
        run.charge("search", [i], began)
        return result

    asked = run.remaining().tolist()
    while asked:
        share, again = _share(run, instance), list[int]()
        with SideBySide(instance, effort, min(workers(run.device), len(asked))) as searches:
            for i, found in searches.map(work, asked):
                if each is None and found.reason == "timeout" and not found.decided:
                    run.bounded(i, found.margin, found.conclusion)
                    again.append(i)
                else:
                    _conclude(run, i, found)
        if _share(run, instance) < max(_WORTHWHILE, _MORE * share):
            for i in again:
                run.give_up(i, "timeout")
            return
        asked = again


def _share(run: Run, instance: Instance) -> float:
    """Seconds for each open question, if all have the same."""
    if instance.deadline is None:
        return torch.inf
    return (instance.deadline - now()) * workers(run.device) / max(1, int(run.open.sum()))


def _timed(run: Run, instance: Instance, i: int, each: float | None) -> Instance:
    """One question with its own deadline: its share of the time where nothing else is said."""
    one = instance.select(torch.tensor([i]))
    if each is None:
        return one.share(-(-int(run.open.sum()) // workers(run.device)))
    return one.until(each - run.spent(i))


def _conclude(run: Run, i: int, found: SearchResult) -> None:
    run.bounded(i, found.margin, found.conclusion)
    run.worst[i] = found.worst
    if found.counterexample is not None:
        run.settle(i, Outcome(Verdict.VIOLATED, found.reason, counterexample=found.counterexample))
    elif found.margin > 0:
        run.settle(i, Outcome(Verdict.HOLDS, found.reason))
    else:
        run.give_up(i, found.reason)


def _batches(
    run: Run, instance: Instance, name: str, size: int, work: Callable[[Tensor], T], asked: Sequence[Tensor]
) -> Iterator[tuple[Tensor, T]]:
    """What `work`, a stage of this name, makes of the questions `asked`, batch by batch, none of which has questions of
    two of these tensors: indices and result, as they come. Where the work fails on a batch, its questions are worked on
    one by one, and those on which it fails are given up.

    Batches run side by side, each on one core; one that is alone sees to it itself that all cores are used.
    """
    parts = [every[part] for every in asked for part in pieces(len(every), size)]

    def timed(index: Tensor) -> tuple[Tensor, T | str]:
        instance.check()
        began = now()
        try:
            result: T | str = work(index)
        except Exception as error:
            result = reason_of(error)
        run.charge(name, index.tolist(), began)
        return index, result

    def one_by_one(index: Tensor, result: T | str) -> Iterator[tuple[Tensor, T]]:
        if not isinstance(result, str):
            yield index, result
        elif len(index) > 1:
            for single in index.split(1):
                yield from one_by_one(*timed(single))
        else:
            run.give_up(int(index), result)

    with helpers(run.device, len(parts)) as pool:
        if pool is None:
            for part in parts:
                yield from one_by_one(*timed(part))
            return
        try:
            for future in as_completed([pool.submit(timed, part) for part in parts]):
                yield from one_by_one(*future.result())
        except BaseException:
            instance.cancelled.set()
            raise


def _confirm(run: Run, index: Tensor, x: Tensor, reason: str = "attack") -> None:
    """Replay one candidate for each of some questions. Where none can be, because the region holds no number of the
    model's type, a question is given up if our own evaluation calls the candidate unsafe: it does not hold."""
    for i, point in zip(index.tolist(), x, strict=True):
        found = _counterexample(run, i, point[None])
        if found is not None:
            run.settle(i, Outcome(Verdict.VIOLATED, reason, counterexample=found))
        elif (why := run.no_point(i)) and _unsafe(run, i, point):
            run.give_up(i, why)


def _unsafe(run: Run, i: int, point: Tensor) -> bool:
    """Whether the property fails at a point of the region of real numbers, as far as float64 can tell."""
    one = torch.tensor([i])
    inside = run.questions.region.select(one).project(point.cpu().double()[None, None])
    values = run.questions.queries.select(one).values(run.network(inside[0])[None])
    return bool(run.questions.queries.select(one).margin(values) <= 0)


def _counterexample(run: Run, i: int, points: Tensor) -> Counterexample | None:
    """Replay candidates for one question, moved into its region; the original model has the last word."""
    with watched(None):  # a counterexample is not lost because it is late
        for point in points.cpu().double().numpy():
            candidate = run.questions.candidate(run.network, i, point)
            if candidate is not None:
                found = replay(run.network, candidate, partial(run.questions.violated, i))
            else:
                found = None if run.questions.real is None else run.questions.real(i, point)
            if found is not None:
                return found
    return None
