"""Complete verification by splitting inputs: a region is cut into boxes until every one is bounded to hold.

For networks with few inputs this is the simplest search that ends: bounds converge to the network as boxes shrink, so
a property that holds with a positive margin is proven after finitely many cuts (ReluVal, Wang et al. 2018).
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from krelax.bounds.boxed import Bounder, Bounds
from krelax.bounds.instance import Instance, OutOfTime, helpers, memory_budget, workers
from krelax.bounds.seen import seen
from krelax.bounds.tree import Tree
from krelax.problem.queries import Queries
from krelax.problem.region import middle
from krelax.proof.cuts import Cuts
from krelax.proof.log import ProofLog
from krelax.search.cutting import Boxes, cut, score
from krelax.search.divided import SECONDS, Away, Came, alone
from krelax.search.exchange import exchange
from krelax.watch import cancellation, now

Confirm = Callable[[Tensor], bool]

# Fewer boxes are not worth another thread, where a batch could be larger.
_WORTH_A_THREAD = 64
# A round of fewer boxes costs about as much as one of so many: open boxes are cut again, at most so many times.
_FEW = 64
_AT_MOST = 3
# Candidates are replayed one by one: so many at a time, ...
_AT_ONCE = 4
# ... and if no margin becomes smaller than any before, so many times.
_PATIENCE = 64
# Seconds that boxes may take, at first, when the time that is given is over.
_OVERTIME = 0.5
# Seconds between two looks at whether something has come of parts, where there is nothing else to do.
_MOMENT = 0.02
# Margins above zero that float32 may see below, relative to the size of the outputs.
_NEARLY = 1e-6
# Between these float64 has all whole numbers.
_WHOLE = 2.0**52


@dataclass(frozen=True)
class Splitting:
    """Effort of a search over boxes: at most `batch` are bounded at a time, and those that wait take no more than
    `memory` of what may be used. `name` is the reason it gives for a proof. Those that go `ahead` come before layers
    are bounded by passes that are dearer."""

    batch: int = 512
    memory: float = 0.5
    name: str = "boxes"
    ahead: bool = False


@dataclass(frozen=True)
class BoxResult:
    """What a search over boxes came to.

    `margin` is a proven lower bound of the property's margin over the whole region. `holds` says that it is positive,
    `violated` that a candidate was confirmed; if it is neither, `reason` says why the search ended. `boxes` of them
    were bounded. `cuts` prove the margin if it holds and proofs are recorded.
    """

    margin: float
    holds: bool = False
    violated: bool = False
    reason: str = ""
    boxes: int = 0
    cuts: Cuts | None = None


@dataclass(frozen=True)
class _Step:
    """What became of a batch: the boxes that are closed, and the others cut in halves unless that is no longer possible
    (`stuck`); points that may be counterexamples, with their margins; and the point of smallest margin, if there is a
    box left. So many were `bounded`."""

    bounded: int
    subproblems: Boxes
    stuck: bool
    points: Tensor
    margins: Tensor
    least: Tensor


class InputSplitting:
    """Decides one question about one box by cutting it in halves, and can go on where it stopped.

    `instance` has one region, a box, and `queries` one question. `confirm` says whether one of the candidates
    `(n, *input_shape)`, float64, is a counterexample, and the first that is ends the search. Sound: boxes cover the
    region, and each is closed by a proven bound. A positive margin is found in the end; where it is zero, boxes are
    cut until one has no number left between its faces. `least`, `(at most one, *input_shape)`, is the point of smallest
    margin in boxes bounded last. With `begun` the search is about these boxes of the region alone. Where there is
    somebody to ask for them (`krelax.search.exchange`), others work on parts of the tree.
    """

    def __init__(
        self, instance: Instance, queries: Queries, effort: Splitting, confirm: Confirm, begun: Boxes | None = None
    ) -> None:
        self._instance, self._queries, self._effort = instance, queries, effort
        self._bounder = Bounder(instance, queries)
        region, varied = instance.region, self._bounder.varied
        lower, upper = (t.flatten(1)[:, varied] for t in (region.lower, region.upper))
        self._integers = _integers(instance, varied, lower, upper)
        self._whole = upper - lower + self._integers
        roots = begun or Boxes(varied.new_zeros(1), lower.new_full((1,), -torch.inf), lower, upper, varied.new_zeros(1))
        self._cuts = Cuts(varied.tolist(), len(roots)) if instance.logs else None
        if self._cuts is not None:
            roots = replace(roots, number=roots.rows())
        most = int(effort.memory * memory_budget(lower.device)) // (8 * (2 * len(varied) + 1))
        self._tree = Tree(roots, lower.new_zeros(1), most)
        self._replay, self._boxes, self._overtime = _Replay(confirm), 0, _OVERTIME
        shared = exchange() if begun is None else None
        self._away = Away(shared, instance, queries, self._tree, self._cuts) if shared else None
        self.least = self._bounder.points(lower[:0])

    @property
    def closed(self) -> float:
        """The part of the region's volume that boxes closed so far take."""
        boxes = [self._tree.open, *(self._away.boxes() if self._away else ())]
        return 1 - sum(float(((b.upper - b.lower + self._integers) / self._whole).prod(1).sum()) for b in boxes)

    @property
    def passes(self) -> float:
        """How many boxes backward passes would cost for the neurons that the last box leaves undecided."""
        return self._bounder.passes

    def run(self, seconds: float | None = None, rounds: float = torch.inf) -> BoxResult:
        """Search for so long (None: until the question is decided or cannot be), and so many rounds; ends at the
        instance's deadline.

        Boxes that take much longer than that are given up, and given twice the time on the next occasion.
        """
        until = torch.inf if seconds is None else now() + seconds
        self._bounder.until = until + self._overtime
        device = self._instance.region.lower.device
        with torch.no_grad(), helpers(device) as pool:
            return self._run(pool, workers(device), until, rounds)

    def _run(self, pool: ThreadPoolExecutor | None, threads: int, until: float, rounds: float) -> BoxResult:
        """Until no box is open, one is refuted, or boxes cannot be cut for one reason or another."""
        stuck, refuted, begun = False, False, 0

        def parts() -> list[Tensor]:
            nonlocal begun, refuted
            refuted = refuted or self._trade()
            if refuted or stuck or not self._tree.free or now() > until or begun >= rounds:
                return []
            begun += 1
            return self._parts(threads)

        try:
            waits = True
            while waits:
                for _, step in self._tree.grow(parts, self._step, pool, threads if pool else 0):
                    self._boxes += step.bounded
                    self.least = step.least
                    stuck |= step.stuck
                    refuted = refuted or self._replay.confirms(step.points, step.margins)
                    if refuted:
                        break
                if refuted:
                    return self._found(self._effort.name, violated=True)
                waits = bool(self._away) and not len(self._tree) and now() < until
                if waits:
                    self._instance.check()
                    time.sleep(_MOMENT)
        except OutOfTime:
            self._overtime *= 2
            return self._found("timeout")
        if self._is_done:
            return self._found(self._effort.name, holds=True)
        if stuck:
            return self._found("a box cannot be split further")
        return self._found("memory" if not self._tree.free else "timeout")

    @property
    def _is_done(self) -> bool:
        """Whether all boxes are closed, those that others work on included."""
        return not len(self._tree) and not self._away

    def _trade(self) -> bool:
        """Take what has come of parts, and give others. Whether a part has a counterexample."""
        if self._away is None:
            return False
        for came in self._away.take_back():
            self._boxes += came.bounded
            if len(came.points):
                if self._replay.asks(came.points):
                    return True
                self._away.keep()  # who works on parts takes for a counterexample what is none
        self._away.give()
        return False

    def came(self, points: Tensor) -> Came:
        """What came of boxes that the search was about, and points that seem to be counterexamples."""
        return Came(self._boxes, self._tree.closed, alone(self._tree.open), self._cuts, points)

    def _found(self, reason: str, holds: bool = False, violated: bool = False) -> BoxResult:
        cuts = self._cuts if holds else None
        return BoxResult(float(self._tree.bound()), holds, violated, reason, self._boxes, cuts)

    def _parts(self, threads: int) -> list[Tensor]:
        """The boxes of a round: the last ones, which are the smallest, so that few wait; a batch of about the same size
        for every thread that is worth one."""
        size = min(self._effort.batch, self._bounder.at_a_time)
        total = min(len(self._tree), size * threads)
        count = max(1, min(threads, total // min(size, _WORTH_A_THREAD)))
        return list(self._tree.open.rows()[-total:].tensor_split(count))

    def _step(self, boxes: Boxes) -> _Step:
        """Bound boxes; look for counterexamples in those that stay open, and cut them, the worst ones last."""
        with torch.no_grad():  # which every thread has its own of
            found = self._bounder.bound(boxes.lower, boxes.upper)
            boxes.floor = torch.fmax(found.value.amin(1), boxes.floor)
            order = boxes.floor.argsort(descending=True)
            closed, rest = (order[mask[order]] for mask in (boxes.floor > 0, ~(boxes.floor > 0)))
            done, boxes = boxes.select(closed), boxes.select(rest)
            if self._cuts is not None and found.weights is not None:
                self._cuts.close(done.number, found.weights[closed])
            found = found.select(rest)
            points, margins, least = self._candidates(boxes, found)
            halves, stuck = cut(
                boxes, score(boxes, found, self._whole), self._times(len(boxes)), self._cuts, self._integers
            )
            return _Step(len(order), done.join(halves), stuck, points, margins, least)

    def _times(self, boxes: int) -> int:
        """How many times to cut each box of a round: more than once where a round would be too small to pay."""
        room = min(_FEW, self._bounder.at_a_time) // max(1, boxes)
        return max(1, min(_AT_MOST, room.bit_length() - 1))

    def _candidates(self, boxes: Boxes, found: Bounds) -> tuple[Tensor, Tensor, Tensor]:
        """The points of smallest margin among centres and corners: those with one that is not positive, or nearly, and
        their margins; and the first of all."""
        if not len(boxes):
            none = self._bounder.points(boxes.lower)
            return none, boxes.floor, none
        worst = found.value.argmin(1)
        slope = found.slopes[torch.arange(len(worst), device=worst.device), worst]
        corner = torch.where(slope > 0, boxes.lower, boxes.upper)
        centre = middle(boxes.lower, boxes.upper)
        centre = torch.where(self._integers, centre.floor(), centre)
        points = self._bounder.points(torch.cat([centre, corner]))
        y = self._instance.network(points).unsqueeze(0)
        margins = self._queries.margin(self._queries.values(y))[0]
        margins, order = torch.nan_to_num(margins, nan=torch.inf).sort()
        chosen = (margins <= _NEARLY * (1 + y.abs().max()))[:_AT_ONCE].nonzero()[:, 0]
        return points[order[chosen]], margins[chosen], points[order[:1]]


def work_on(part: bytes) -> bytes:
    """What comes of a part of a search's tree in some seconds (`krelax.search.divided.Came`)."""
    question, boxes, left = pickle.loads(part)
    network, region, queries, proofs = pickle.loads(question)
    instance = replace(Instance.of(network, region), cancelled=cancellation(), logs=(ProofLog(),) if proofs else ())
    instance = replace(instance, seen=seen(instance.network, queries.rows)).until(left)
    found = boxes.lower.new_zeros(0, *instance.network.input_shape)

    def confirm(points: Tensor) -> bool:
        """Whether the property fails at a point by more than rounding. Only who sees the model can say so."""
        nonlocal found
        y = instance.network(points)[None]
        wrong = queries.margin(queries.values(y))[0] < -_NEARLY * (1 + y.abs().max())
        found = points[wrong]
        return bool(wrong.any())

    search = InputSplitting(instance, queries, Splitting(), confirm, boxes)
    search.run(SECONDS)
    return pickle.dumps(search.came(found))


class _Replay:
    """Replays candidates in the original model, while there is hope."""

    def __init__(self, confirm: Confirm) -> None:
        self.asks, self._best, self._vain = confirm, torch.inf, 0

    def confirms(self, points: Tensor, margins: Tensor) -> bool:
        """Whether one of the points, of increasing margins, is a counterexample. Not asked once too many were none,
        unless the margin is smaller than any before."""
        if not len(points):
            return False
        smallest = float(margins[0])
        if smallest >= self._best and self._vain >= _PATIENCE:
            return False
        self._best, self._vain = min(self._best, smallest), self._vain + 1
        return self.asks(points)


def _integers(instance: Instance, varied: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Which of the inputs that vary are whole numbers, and cut as such: between whole ends, that floats can tell from
    those beside them. Proofs are about all numbers between the ends."""
    flags = torch.from_numpy(instance.network.elements.whole(instance.region.lower[0].numel())).to(varied.device)
    plain = torch.stack([(t == t.floor()) & (t.abs() < _WHOLE) for t in (lower[0], upper[0])]).all(0)
    return flags[varied] & plain & (not instance.logs)
