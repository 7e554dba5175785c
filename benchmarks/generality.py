"""Does any constant of the schedule matter to any list? Each is halved and doubled, and answers are counted.

Work is counted instead of time, so the table is the same on a busy machine. Of every list some questions are tried, at
even steps; those that a search decides are asked again with every change. Results go into a file, and a later run goes
on from there.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

from common import benchmark_folder
from krelax.run import verify as verifying
from krelax.run.bench import Instance, Result, bench, read_instances
from krelax.run.verify import VerifyOptions
from krelax.search.effort import Complete
from krelax.search.pipeline import Plan
from krelax.watch import now

# Reasons of what is decided before any search.
_EARLY = {"attack", "crown", "alpha", "interval", "no input can be unsafe"}
# Questions of a list that are asked again.
_OF_A_LIST = 5


@dataclass(frozen=True)
class Constant:
    """A number of the schedule: attributes of modules or classes, or a field of `Complete`, and what it says."""

    says: str
    places: tuple[str, ...]

    @contextmanager
    def scaled(self, factor: float) -> Iterator[None]:
        """While this lasts it is so many times as large."""
        if self.places[0].startswith("Complete."):
            with _planned(self.places[0].partition(".")[2], factor):
                yield
            return
        patches = [_patch(place, factor) for place in self.places]
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in patches:
                patch.stop()


def _patch(place: str, factor: float) -> Any:
    module, _, name = place.partition(":")
    owner: Any = import_module(f"krelax.{module}")
    *outer, last = name.split(".")
    for part in outer:
        owner = getattr(owner, part)
    value = getattr(owner, last)
    return mock.patch.object(owner, last, type(value)(value * factor))


@contextmanager
def _planned(field: str, factor: float) -> Iterator[None]:
    """Complete searches have a field that is so many times as large."""
    of = Plan.of

    def changed(method: str) -> Plan:
        return Plan(tuple(_with(stage, field, factor) for stage in of(method).stages))

    with mock.patch.object(verifying.Plan, "of", changed):
        yield


def _with(stage: Any, field: str, factor: float) -> Any:
    if not isinstance(stage, Complete):
        return stage
    if field == "clips":
        effort = stage.branching
        return replace(stage, branching=replace(effort, clips=None if effort.clips is None else effort.clips * factor))
    value = getattr(stage, field)
    return replace(stage, **{field: type(value)(value * factor)})


_WAYS = ("inputs", "neurons", "descents")
CONSTANTS = {
    "first slice": Constant("seconds of the first slice", ("search.schedule:_FIRST",)),
    "least share": Constant("the smallest share of a way whose course is known", ("search.schedule:_LEAST",)),
    "largest share": Constant("the largest one", ("search.schedule:_MOST",)),
    "price of products": Constant(
        "products in a second", tuple(f"search.{way}:PRODUCTS" for way in (*_WAYS, "programs"))
    ),
    "price of calls": Constant("seconds of a call", tuple(f"search.{way}:_CALLS" for way in _WAYS)),
    "share of descents": Constant("relative to ways that prove", ("search.descents:Descents.weight",)),
    "price of programs": Constant("products for each of a pass", ("search.programs:_PASSES",)),
    "price of a warm program": Constant("part of the first", ("search.programs:_WARM",)),
    "batch of boxes": Constant("few boxes cost as much as so many", ("search.boxes:_FEW",)),
    "cheap layers": Constant("products up to which layers are bounded backward", ("bounds.forward:_DEAR",)),
    "first turn": Constant("seconds of branching before anything else", ("Complete.turn",)),
    "turn after a pass": Constant("seconds of branching after a pass", ("Complete.between",)),
    "share of a turn": Constant("part of the time that is left", ("Complete.share",)),
    "share of a pass": Constant("part of the time that is left", ("Complete.passing",)),
    "hope": Constant("doublings of the time that a search on course may need", ("Complete.hope",)),
    "judged": Constant("leaves with which a search can be judged", ("Complete.judged",)),
    "promising": Constant("part of the way to zero before contradictions", ("Complete.promising",)),
    "worthwhile": Constant("part of the way that a sweep must bring", ("Complete.worthwhile",)),
    "portion": Constant("branching's part of a sweep's time", ("Complete.portion",)),
    "clips": Constant("seconds of branching before clips", ("Complete.clips",)),
}


def _asked(lists: list[str], count: int, limit: float) -> list[tuple[str, Instance]]:
    found = []
    for name in lists:
        every = read_instances(benchmark_folder() / "vnncomp" / name / "instances.csv", limit)
        found += [(name, every[i * len(every) // count]) for i in range(min(count, len(every)))]
    return found


class Book:
    """Answers by constant, factor, list and instance, kept in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.answers = {tuple(record[:4]): (record[4], record[5], record[6]) for record in map(json.loads, lines)}

    def answer(self, key: tuple[str, float, str, int], work: Callable[[], Result]) -> str:
        if key not in self.answers:
            began = now()
            result = work()
            self.answers[key] = (result.answer, result.reason, round(now() - began, 2))
            with self._path.open("a") as file:
                file.write(json.dumps([*key, *self.answers[key]]) + "\n")
            print(*key, *self.answers[key], flush=True)
        return str(self.answers[key][0])


def _run(instance: Instance) -> Result:
    (result,) = bench([instance], VerifyOptions(deterministic=True))
    return result


def _table(book: Book, asked: list[tuple[str, Instance]]) -> str:
    names = sorted({name for name, _ in asked})

    def solved(constant: str, factor: float) -> Counter[str]:
        return Counter(
            name for name, i in asked if book.answers[constant, factor, name, i.index][0] in {"sat", "unsat"}
        )

    whole = Counter(name for name, _ in asked)
    rows = [
        "| constant | | " + " | ".join(names) + " |",
        "|---|---|" + "---|" * len(names),
        "| asked again | | " + " | ".join(str(whole[name]) for name in names) + " |",
    ]
    for constant, facts in CONSTANTS.items():
        for factor in (0.5, 2.0):
            if all((constant, factor, name, i.index) in book.answers for name, i in asked):
                now_solved = solved(constant, factor)
                cells = [f"{now_solved[n] - whole[n]:+d}" if now_solved[n] != whole[n] else "" for n in names]
                rows.append(f"| {constant}: {facts.says} | × {factor:g} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--limit", type=float, default=8.0, help="seconds of work for each question")
    parser.add_argument("--count", type=int, default=12, help="questions of each list")
    parser.add_argument("--lists", help="comma-separated; default: all")
    parser.add_argument("--table", action="store_true", help="print what the journal holds, and nothing else")
    options = parser.parse_args()
    every = sorted(path.parent.name for path in (benchmark_folder() / "vnncomp").glob("*/instances.csv"))
    lists = options.lists.split(",") if options.lists else every
    book = Book(options.journal)
    asked = [
        (name, instance)
        for name, instance in _asked(lists, options.count, options.limit)
        if not options.table or ("", 1.0, name, instance.index) in book.answers
    ]
    for name, instance in asked:
        book.answer(("", 1.0, name, instance.index), lambda i=instance: _run(i))  # type: ignore[misc]
    again, taken = [], Counter[str]()
    for name, instance in asked:
        answer, reason, _ = book.answers["", 1.0, name, instance.index]
        if answer in {"sat", "unsat"} and reason not in _EARLY and taken[name] < _OF_A_LIST:
            taken[name] += 1
            again.append((name, instance))
    for constant, facts in () if options.table else CONSTANTS.items():
        for factor in (0.5, 2.0):
            with facts.scaled(factor):
                for name, instance in again:
                    key = (constant, factor, name, instance.index)
                    book.answer(key, lambda i=instance: _run(i))  # type: ignore[misc]
    print(_table(book, again))


if __name__ == "__main__":
    main()
