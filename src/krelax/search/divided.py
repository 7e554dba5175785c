"""Boxes of a search that others work on for a while: they are taken out of its tree, and what comes of them takes their
place. So boxes that are lost on the way never count as proven."""

from __future__ import annotations

import pickle
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from krelax.bounds.instance import Instance
from krelax.bounds.tree import Tree
from krelax.problem.queries import Queries
from krelax.proof.cuts import Cuts
from krelax.search.channel import UNSENDABLE
from krelax.search.cutting import Boxes
from krelax.search.exchange import Exchange
from krelax.watch import now

# Seconds for which somebody works on a part: of less, too much is lost in sending it.
SECONDS = 4.0
# Seconds after which who has nothing else to do waits no longer for a part.
_LATE = 1.5 * SECONDS
# Boxes of a part, at most, and bytes of a question: messages that are sent every few seconds.
_MOST, _LARGEST = 4096, 16 << 20


@dataclass(frozen=True, eq=False)
class Came:
    """What came of a part: how many boxes were bounded; the smallest bound of those that are closed, `(1,)`, infinite
    if there are none; those that are open; how they were cut, if proofs are recorded; points, `(n, *input_shape)`,
    that seem to be counterexamples."""

    bounded: int
    closed: Tensor
    open: Boxes
    cuts: Cuts | None
    points: Tensor


class Away:
    """The parts of a tree of boxes that others work on, about one question on one region."""

    def __init__(
        self, exchange: Exchange, instance: Instance, queries: Queries, tree: Tree[Boxes], cuts: Cuts | None
    ) -> None:
        self._exchange, self._gives = exchange, True
        self._instance, self._queries, self._tree, self._cuts = instance, queries, tree, cuts
        self._question: bytes | None = None
        self._parts: dict[str, tuple[Boxes, float]] = {}

    def __len__(self) -> int:
        return len(self._parts)

    def boxes(self) -> list[Boxes]:
        """The boxes that were given away."""
        return [boxes for boxes, _ in self._parts.values()]

    def take_back(self) -> list[Came]:
        """Put what has come of parts in their places, and parts as they were of which nothing has."""
        found, idle = list[Came](), not len(self._tree)
        for name, (boxes, since) in list(self._parts.items()):
            came = self._exchange.came(name)
            if came is None and not (idle and time.monotonic() > since + _LATE):
                continue
            del self._parts[name]
            if came is None or came[0] is None:
                self._tree.absorb(boxes, boxes)
                continue
            found.append(pickle.loads(came[0]))
            self._tree.absorb(self._replaced(boxes, found[-1]), boxes)
        return found

    def _replaced(self, boxes: Boxes, came: Came) -> Boxes:
        """What takes the place of boxes; one stands for all that are closed. The boxes themselves do where these are
        not closed here, because one cannot stand for what is open."""
        if not bool((came.closed > self._tree.target).all()):
            return boxes
        new = came.open
        if self._cuts is not None and came.cuts is not None:
            new = replace(new, number=self._cuts.graft(boxes.number, came.cuts)[new.number])
        if float(came.closed) == torch.inf:
            return new
        return new.join(replace(boxes.select(torch.zeros(1, dtype=torch.int64)), floor=came.closed))

    def give(self) -> None:
        """Give as many parts as are wanted, of those that are open, and keep as many as each gets."""
        count = len(self._tree)
        wanted = min(self._exchange.wanted, count - 1) if self._gives else 0
        if wanted <= 0:
            return
        rows = self._tree.open.rows()
        for part in self._tree.parts([rows[k :: wanted + 1][:_MOST] for k in range(wanted)]):
            self._give(part)

    def _give(self, boxes: Boxes) -> None:
        message = self._message(boxes)
        if message is None:
            self._tree.absorb(boxes, boxes)
            self.keep()
        else:
            self._parts[self._exchange.give(message)] = boxes, time.monotonic()

    def keep(self) -> None:
        """Give nothing from now on."""
        self._gives = False

    def _message(self, boxes: Boxes) -> bytes | None:
        """A part; None where it cannot be sent."""
        instance = self._instance
        if self._question is None:
            network = replace(instance.network, replay=None)
            try:
                self._question = pickle.dumps((network, instance.region, self._queries, bool(instance.logs)))
            except UNSENDABLE:
                self._question = b""
        if not 0 < len(self._question) <= _LARGEST:
            return None
        left = None if instance.deadline is None else instance.deadline - now()
        return pickle.dumps((self._question, alone(boxes), left))


def alone(boxes: Boxes) -> Boxes:
    """A copy, which does not take the memory of a whole table along where it is sent."""
    return boxes.select(boxes.rows())
