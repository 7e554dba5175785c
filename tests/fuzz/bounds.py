"""Every method and the whole pipeline on random networks, against exact truth: `python -m tests.fuzz.bounds --help`."""

from __future__ import annotations

import argparse
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import islice

import numpy as np
import torch
from tests.bounds.problems import METHODS
from tests.random_networks import Case, random_case
from torch import Tensor

from krelax.bounds.branching import Effort
from krelax.bounds.instance import Instance
from krelax.bounds.layers import LayerBounds
from krelax.bounds.methods import Method, bound
from krelax.bounds.optimise import Ascent
from krelax.search.attack import Attack
from krelax.search.boxes import Splitting
from krelax.search.effort import Complete
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import Questions
from krelax.search.verdict import Outcome, Verdict

_ASCENT = Ascent(4, 0.5, 0.9)
_EFFORT = Effort(leaves=8, rounds=12, root=Ascent(3), leaf=Ascent(1), last=Ascent(4), partial=False, clips=0.0)
# Each network is bounded by a cheap method, some of them by a dear one, and about some a verdict is searched for.
CHEAP = ("interval", "zonotope", "fast-lin", "fixed0", "fixed1", "crown-ibp", "crown")
DEAR = ("alpha", "lp", "krelu", "alpha", "lp-krelu", "krelu3", "split", "alpha", "krelu4")
# Seconds that the search for one verdict may take.
_SECONDS = 0.2


def _short(name: str) -> Method:
    method = METHODS[name]
    return method if method.inner is None else replace(method, inner=_ASCENT, outer=_ASCENT)


def findings(seed: int, dear: int = 2, searched: int = 8) -> list[str]:
    """What is wrong with krelax's answers to the case of a seed; one in `dear` is bounded by a dear method too, one
    in `searched` is decided."""
    torch.set_num_threads(1)
    try:
        case = random_case(seed)
    except Exception:
        return [f"{seed}: no case: {traceback.format_exc()}"]
    names = [CHEAP[seed % len(CHEAP)], *([] if seed % dear else [DEAR[seed // dear % len(DEAR)]])]
    found: list[str] = []
    for name in dict.fromkeys(names):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found += _tried(f"{seed} {name}", partial(_wrong_bounds, case, _short(name)))
    with np.errstate(all="ignore"):
        found += [] if seed % searched else _tried(f"{seed} pipeline", partial(_wrong_verdict, case, seed))
    return found


def _tried(name: str, work: partial[Iterator[str]]) -> list[str]:
    try:
        return [f"{name}: {what}" for what in work()]
    except Exception:
        return [f"{name}: {traceback.format_exc()}"]


def _wrong_bounds(case: Case, method: Method) -> Iterator[str]:
    """Margins bounded above their minima, and nodes outside their bounds."""
    found = bound(Instance.of(case.network, case.region), case.queries, method)
    yield from _above(found.value[0].tolist(), case.limits)
    yield from _outside(case, found.bounds)


def _above(values: Sequence[float], limits: Sequence[Fraction]) -> Iterator[str]:
    for q, (value, limit) in enumerate(zip(values, limits, strict=True)):
        if not value < float("inf"):
            yield f"margin {q} has the bound {value}"
        elif value > float("-inf") and Fraction(value) > limit:
            yield f"margin {q} is bounded by {value!r}, and reaches {_shown(limit)}"


def _outside(case: Case, bounds: LayerBounds) -> Iterator[str]:
    for nodes in case.seen:
        for i, (ends, lower, upper) in enumerate(zip(nodes, bounds.lower, bounds.upper, strict=False)):
            sides = zip(ends, _flat(lower), _flat(upper), strict=True)
            for j, ((low, high), least, most) in enumerate(sides):
                if not (_is_at_most(least, high) and _is_at_most(-most, -low)):
                    yield f"entry {j} of node {i} is bounded by [{least!r}, {most!r}], and reaches {_shown(low)}"


def _flat(t: Tensor) -> list[float]:
    values: list[float] = t[0].flatten().tolist()
    return values


def _is_at_most(bound: float, value: Fraction) -> bool:
    return bound == float("-inf") or (bound < float("inf") and Fraction(bound) <= value)


def _shown(value: Fraction) -> str:
    try:
        return repr(float(value))
    except OverflowError:
        return f"{'-' if value < 0 else ''}2**{abs(value.numerator).bit_length() - value.denominator.bit_length()}"


def _wrong_verdict(case: Case, seed: int) -> Iterator[str]:
    """A property that is said to hold though it does not, or with a margin that it does not have."""
    answers: list[Outcome] = []
    questions = Questions(case.region, case.queries, lambda i, x, y: False)
    split = ("inputs", "neurons")[seed // 8 % 2]
    complete = Complete(
        split=(split,), boxes=Splitting(batch=32), branching=_EFFORT, passes=(), turn=0.05, sweeps=(_EFFORT,) * 2
    )
    stages = (_short("crown"), Attack(2, 3, 4), complete)
    decide(
        case.network,
        questions,
        Plan(stages),
        lambda i, outcome: answers.append(outcome),
        timeout=_SECONDS,
        each=_SECONDS,
    )
    (answer,) = answers
    if answer.verdict is Verdict.VIOLATED or (answer.verdict is Verdict.HOLDS and case.worst <= 0):
        yield f"{answer.verdict} by {answer.reason}, and the margin reaches {_shown(case.worst)}"
    if answer.margin is not None:
        yield from _above([answer.margin], [case.worst])


def _run(seeds: Sequence[int]) -> list[str]:
    return [what for seed in seeds for what in findings(seed)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="networks")
    parser.add_argument("--first", type=int, default=0, help="number of the first network")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    began, seeds = time.perf_counter(), iter(range(options.first, options.first + options.count))
    parts, wrong = list(iter(lambda: list(islice(seeds, 50)), [])), 0
    kinds: Counter[str] = Counter()
    with ProcessPoolExecutor(options.processes) as pool:
        for done, found in enumerate(pool.map(_run, parts), start=1):
            wrong += len(found)
            kinds.update(what.split(":")[0].split(" ")[-1] for what in found)
            print(*found, sep="\n", end="\n" if found else "", flush=True)
            if done % 20 == 0 or done == len(parts):
                seconds = time.perf_counter() - began
                print(f"{50 * done} networks, {wrong} findings {dict(kinds)}, {seconds:.0f} s", flush=True)
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
