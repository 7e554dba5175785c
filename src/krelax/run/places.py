"""A patch, or a pixel, that may be anywhere: places are bounded in blocks first, many with one box that contains them.

What holds for the box of a block holds in all of its places. Blocks that stay open are cut, and what is open of single
places is decided by all means. As one counterexample ends it, a few places all over the image are attacked before.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from krelax.bounds.methods import Method
from krelax.search.attack import Attack
from krelax.search.pipeline import Plan, decide
from krelax.search.unions import AnyOf, Block
from krelax.search.verdict import Outcome, Verdict

# The sides of blocks, in places, and the attack on places that together cover the image.
_SIDES = (4, 2)
_PROBE = Attack(restarts=4, steps=20, samples=16)
_LEAST_SECONDS = 0.1


@dataclass
class Places:
    """What is asked of one image, the time that is left, in seconds (None: no limit), and what was spent."""

    one: AnyOf
    plan: Plan
    timeout: float | None
    device: str
    deterministic: bool
    seconds: float = 0.0

    def outcomes(self) -> list[Outcome]:
        """What came of all blocks and places, or of those until one counterexample."""
        every = self.one.places
        probes = self._decided(self._apart(every), Plan((_PROBE,)))
        found = [o for o in probes if o.verdict is Verdict.VIOLATED]
        if found:
            return found
        settled = list[Outcome]()
        quick = Plan(tuple(stage for stage in self.plan.stages if isinstance(stage, Method))[:1])
        blocks = every.cut(_SIDES[0])
        for side in (*_SIDES[1:], 1):
            parts = self._decided(blocks, quick)
            settled += [o for o in parts if o.verdict is Verdict.HOLDS]
            left = [(b, o) for b, o in zip(blocks, parts, strict=True) if o.verdict is not Verdict.HOLDS]
            blocks = [part for block, _ in left for part in block.cut(side)]
            if not blocks:
                return settled
        return settled + self._decided(blocks, self.plan)

    def _apart(self, every: Block) -> list[Block]:
        """Places in which something covers all of the image."""
        shape = self.one.size
        rows, columns = (sorted({*range(0, n, s), n - 1}) for n, s in zip(every[2:], shape, strict=True))
        return [Block(row, column, 1, 1) for row in rows for column in columns]

    def _decided(self, blocks: Sequence[Block], plan: Plan) -> list[Outcome]:
        """The outcome of each block, or only of some if one of them is violated."""
        found: dict[int, Outcome] = {}

        def report(i: int, outcome: Outcome) -> None:
            found[i] = outcome
            if outcome.verdict is Verdict.VIOLATED:
                raise _Enough

        began = time.perf_counter()
        try:
            decide(self.one.network, self.one.over(blocks), plan, report, self.timeout, self.device,
                   deterministic=self.deterministic)  # fmt: skip
        except _Enough:
            return [o for o in found.values() if o.verdict is Verdict.VIOLATED]
        finally:
            counted = sum(outcome.seconds for outcome in found.values())
            spent = counted if self.deterministic else time.perf_counter() - began
            self.seconds += spent
            if self.timeout is not None:
                self.timeout = max(_LEAST_SECONDS, self.timeout - spent)
        return [found[i] for i in range(len(blocks))]


class _Enough(Exception):
    """One counterexample answers for the image."""
