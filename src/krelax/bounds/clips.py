"""Leaves of a search that narrow intervals for all that comes from them (`krelax.bounds.clipping`)."""

from __future__ import annotations

from torch import Tensor

from krelax.bounds.evaluator import Evaluator
from krelax.bounds.floors import Floors
from krelax.bounds.leaves import Leaves
from krelax.bounds.narrowing import Narrowing
from krelax.bounds.recorder import Recorder
from krelax.bounds.tree import Tree

# Clips are prepared for what so many leaves need.
_LOOKED_AT = 64


class Clips:
    """Makes clips of the leaves of a tree, once it has begun to."""

    def __init__(self, evaluator: Evaluator, recorder: Recorder, floors: Floors, target: Tensor) -> None:
        self._narrowing, self._recorder, self._floors = Narrowing(evaluator), recorder, floors
        self._target = target
        self.begun = False

    def begin(self, tree: Tree[Leaves], open_: Tensor) -> None:
        """From now on leaves narrow intervals for those behind them, as the worst of the rows `open_` need it; unless
        nothing would come of it."""
        value, query = (t[open_] for t in (tree.open.value, tree.open.query))
        self._floors.level = level = float((self._floors.ahead - self._target)[query].min())
        worst = tree.open.select(open_[value.argsort(stable=True)[:_LOOKED_AT]])
        straight = self._narrowing.begin(worst) if level > 0 else {}
        if not straight:
            return
        self.begun = True
        leaves = tree.take(tree.open.rows())
        tree.absorb(self._narrowing.widened(leaves), leaves)
        self._recorder.begin_clips(level, straight)

    def apply(self, leaves: Leaves, middle: Tensor) -> None:
        """Narrow the intervals of open leaves where that promises anything: not where the affine bound of the margin
        is near its target in more than a quarter of its range, of which `middle` is the middle."""
        self._leave_empty(leaves, self._narrowing.contradict(leaves))
        target = self._target[leaves.query]
        rows = ((leaves.floor <= target) & (leaves.value + middle > 2 * target)).nonzero()[:, 0]
        if not len(rows):
            return
        some = leaves.select(rows)
        found = self._narrowing.clip(some, self._floors.level)
        self._floors.reach(some, some.rows(), found.value)
        clips = (found.narrowed & (some.floor <= self._target[some.query])).nonzero()[:, 0]
        behind = found.leaves.select(clips)
        behind.floor, behind.proof = some.floor[clips], some.proof[clips]
        behind.clip = self._recorder.clip(some.select(clips), found.multipliers, clips)
        self._leave_empty(behind, found.empty[clips])
        some.write(clips, behind)
        leaves.write(rows, some)

    def _leave_empty(self, leaves: Leaves, empty: Tensor) -> None:
        """Leaves in which nothing is near their targets prove as much as any behind clips can."""
        leaves.floor[empty], leaves.proof[empty], leaves.value[empty] = self._floors.level, -1, self._floors.level
