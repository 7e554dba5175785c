"""Does an output rise, or fall, with an input? For every two inputs around an item that differ in nothing else.

That is so where the slope has one sign everywhere. Signs of weights may say so (`krelax.network.direction`). If not,
what is searched for a proof is a network of the slope (`krelax.network.slope`). So the distance of both inputs, at
which zero would be compared to zero, is no part of the question. Where a search sees another sign, values of the model
along the input are looked at: a counterexample is a pair of inputs, of which the model answers in the wrong order, and
the function of real numbers does so, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from krelax.bounds.instance import Instance
from krelax.bounds.methods import METHODS, bound
from krelax.errors import InputError
from krelax.network.direction import Moves, directions
from krelax.network.graph import Network
from krelax.network.slope import slope
from krelax.problem.queries import Queries
from krelax.problem.region import Box
from krelax.run.certify import check_device, finite
from krelax.search.around import Around, outward
from krelax.search.excluded import intervals
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import Questions
from krelax.search.verdict import Outcome, Verdict
from krelax.watch import now

# The reason of what holds because of signs of weights.
SIGNS = "signs of weights"
# So many values of the input are looked at, with equal distances; and so often the distance to a candidate is halved.
_GRID, _HALVINGS = 32, 10
# What searches call a counterexample that is the item itself.
_WORDS = {"misclassified": "at the item itself"}


@dataclass(frozen=True)
class MonotoneOptions:
    """What is asked of every item, and with what effort: does the `output` rise with the `feature`, both by their
    places in flattened tensors, or fall if it is not `rising`? With a `slack`, it may go the other way by no more than
    that times the change of the feature."""

    feature: int
    output: int = 0
    rising: bool = True
    slack: Fraction = Fraction(0)
    method: str = "auto"
    timeout: float | None = 60.0
    device: str = "cpu"
    deterministic: bool = False

    def __post_init__(self) -> None:
        if self.slack < 0:
            raise InputError(f"the slack must be at least 0, got {float(self.slack):g}")

    @property
    def sign(self) -> int:
        return 1 if self.rising else -1


@dataclass(frozen=True, eq=False)
class Pair:
    """Two inputs of an item's region, `(2, *shape)` in the model's type, the one with the smaller feature first, and
    what the model answered, `(2,)`."""

    x: NDArray[Any]
    y: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Answer:
    """What is known of an item. `slope` is how much the output gains at least, for each unit of the feature, in the
    direction that was asked about: proven, None if nothing is. A `pair` is there if the verdict is VIOLATED."""

    verdict: Verdict
    reason: str
    slope: float | None
    seconds: float
    pair: Pair | None = None


def monotone(network: Network, around: Around, options: MonotoneOptions) -> list[Answer]:
    """Is one output of a network monotone in one input, around each item?

    Args:
        network: The network.
        around: The items, and how far around them.
        options: What is asked, and with what effort.

    Returns:
        An answer for each item.

    Raises:
        InputError: There is no such input or output, or an option does not fit.
        UnsupportedError: The slope of an operator is not known.

    Sound: yes. HOLDS is proven of all pairs of real numbers in the region. VIOLATED has a pair that was replayed in the
    model; and of real numbers, the same is proven of it.
    Complete: for slopes that are above, or somewhere below, what is asked, as searches are; and where signs of weights
        say that the output does not go the other way.
    """
    check_device(options.device)
    for kind, place, count in (
        ("output", options.output, prod(network.output_shape)), ("input", options.feature, prod(network.input_shape)),
    ):  # fmt: skip
        if not 0 <= place < count:
            raise InputError(f"there is no {kind} {place}; they are numbered from 0 to {count - 1}")
    found, began = dict[int, Answer](), now()
    region = around.region()
    for i in range(len(around.images)):
        if _by_signs(network, region.lower[i], region.upper[i], options):
            found[i] = Answer(Verdict.HOLDS, SIGNS, 0.0, now() - began)
            began = now()
    left = [i for i in range(len(around.images)) if i not in found]
    if left:
        _by_slopes(network, around, left, options, found)
    return [found[i] for i in range(len(around.images))]


def _by_signs(network: Network, lower: Tensor, upper: Tensor, options: MonotoneOptions) -> bool:
    """Whether signs of weights say that the output does not go the other way."""
    rise, still = (torch.zeros(prod(network.input_shape), dtype=torch.bool) for _ in range(2))
    rise[options.feature] = True
    bounds = intervals(network, *(side.double().flatten().numpy() for side in (lower, upper)))
    low, high = ([torch.from_numpy(pair[side]) for pair in bounds] for side in (0, 1))
    moves = directions(network, Moves(rise, still), low, high)
    return not bool((moves.may_fall if options.rising else moves.may_rise).flatten()[options.output])


def _by_slopes(
    network: Network, around: Around, left: Sequence[int], options: MonotoneOptions, found: dict[int, Answer]
) -> None:
    """Search for proofs about slopes, and for pairs, of some items."""
    steep, search = slope(network, options.feature), _Pairs(network, around, options)
    rows = torch.zeros(1, 1, prod(network.output_shape), dtype=torch.float64)
    rows[0, 0, options.output] = options.sign
    offsets = torch.tensor([[outward(options.slack, up=False)]], dtype=torch.float64)
    size = len(left)
    queries = Queries(
        rows.repeat(size, 1, 1), offsets.repeat(size, 1), torch.zeros(size, 1, dtype=torch.int64), 1
    )  # fmt: skip
    items = torch.tensor(around.given(), dtype=torch.float64)[list(left)]

    def violated(k: int, x: NDArray[Any], y: NDArray[Any]) -> bool:
        return search.violated(left[k], x, y)

    def nearest(k: int, x: NDArray[np.float64]) -> NDArray[Any] | None:
        return search.nearest(left[k], x)

    def report(k: int, outcome: Outcome) -> None:
        found[left[k]] = _answer(outcome, options, search.found.get(left[k]))

    questions = Questions(around.region().select(torch.tensor(left)), queries, violated, items, nearest)
    total = None if options.timeout is None else options.timeout * size
    decide(steep, questions, Plan.of(options.method), report, total, options.device, options.timeout, False, None,
           options.deterministic)  # fmt: skip


def _answer(outcome: Outcome, options: MonotoneOptions, pair: Pair | None) -> Answer:
    margin = None if outcome.margin is None else finite(outcome.margin)
    least = None if margin is None else outward(Fraction(margin) - options.slack, up=False)
    reason = _WORDS.get(outcome.reason, outcome.reason)
    violated = outcome.verdict is Verdict.VIOLATED
    return Answer(outcome.verdict, reason, least, outcome.seconds, pair if violated else None)


@dataclass
class _Pairs:
    """Looks for pairs in the wrong order, along the feature through candidates. Those of items are `found`."""

    network: Network
    around: Around
    options: MonotoneOptions
    found: dict[int, Pair] = field(default_factory=dict)

    def nearest(self, i: int, x: NDArray[np.float64]) -> NDArray[Any] | None:
        return self.around.nearest(i, x, self.network.elements)

    def violated(self, i: int, x: NDArray[Any], y: NDArray[Any]) -> bool:
        """Whether there is such a pair with all but one input of a candidate."""
        run = self.network.replay
        if run is None or not self.around.contains(i, x):
            return False
        points = self._line(i, x)
        values = np.array([np.asarray(run(p)).flatten()[self.options.output] for p in points])
        if not np.isfinite(values).all():
            return False
        at = np.array([p.flatten()[self.options.feature] for p in points], dtype=np.float64)
        pair = self._worst(at, values.astype(np.float64))
        if pair is None:
            return False
        chosen = Pair(points[list(pair)], values[list(pair)])
        if not (self._wrong(at[list(pair)], chosen.y) and self._really(chosen.x)):
            return False
        self.found[i] = chosen
        return True

    def _line(self, i: int, x: NDArray[Any]) -> NDArray[Any]:
        """Points of the region that have other values of the feature, in their order."""
        feature, kind = self.options.feature, x.dtype.type
        low, high = (float(side.flatten()[feature]) for side in self.around.box(i))
        here = float(x.flatten()[feature])
        steps = (high - low) * 0.5 ** np.arange(_HALVINGS)
        values = np.concatenate([np.linspace(low, high, _GRID), [here], here - steps, here + steps]).astype(kind)
        values = np.unique(values[(low <= values.astype(np.float64)) & (values.astype(np.float64) <= high)])
        points = np.repeat(x[None], len(values), 0)
        points.reshape(len(values), -1)[:, feature] = values
        return points

    def _worst(self, at: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[int, int] | None:
        """The pair that is most in the wrong order, as far as float64 can tell."""
        worth = self.options.sign * values + float(self.options.slack) * at
        loss = worth[:, None] - worth[None, :]
        loss[np.tril_indices(len(at))] = -np.inf
        first, second = np.unravel_index(int(loss.argmax()), loss.shape)
        return (int(first), int(second)) if loss[first, second] > 0 else None

    def _wrong(self, at: NDArray[np.float64], y: NDArray[Any]) -> bool:
        """Whether the model's answers are in the wrong order, exactly."""
        (a, b), (p, q) = ([Fraction(float(v)) for v in pair] for pair in (y, at))
        return self.options.sign * (b - a) < -self.options.slack * (q - p)

    def _really(self, x: NDArray[Any]) -> bool:
        """Whether so are those of the function of real numbers: what rounding might account for is no counterexample.
        Bounds over single points, which are sound, say so."""
        points = torch.from_numpy(x.astype(np.float64))
        rows = torch.zeros(2, 1, prod(self.network.output_shape), dtype=torch.float64)
        rows[:, 0, self.options.output] = torch.tensor([1.0, -1.0], dtype=torch.float64) * self.options.sign
        queries = Queries(rows, torch.zeros(2, 1, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.int64), 1)
        with torch.no_grad():
            found = bound(Instance.of(self.network, Box(points, points)), queries, METHODS["interval"]).value
        loss = [finite(float(v)) for v in found[:, 0]]
        at = [Fraction(float(p.flatten()[self.options.feature])) for p in x]
        if loss[0] is None or loss[1] is None:
            return False
        return Fraction(loss[0]) + Fraction(loss[1]) > self.options.slack * (at[1] - at[0])
