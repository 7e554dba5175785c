"""All crossings, one after the other: `python -m tests.crossings.everything [--part I/N] [--seconds S]`.

Every structure with every activation, plan, region and kind of proof, all questions about a region at a time; clauses
take turns. Prints what is wrong as it comes, and in the end how many were run, and in what time. Exit code 1 if
anything is wrong.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from tests.crossings.runs import CLAUSES, PLANS, PROOFS, REGIONS, Crossing, run
from tests.crossings.sketches import ACTIVATIONS, STRUCTURES


def crossings() -> Iterator[Crossing]:
    rows = product(STRUCTURES, ACTIVATIONS, PLANS, REGIONS, PROOFS)
    for number, (structure, activation, plan, region, proofs) in enumerate(rows):
        clauses = CLAUSES[(number + number // len(CLAUSES)) % len(CLAUSES)]
        yield Crossing(structure, activation, plan, region, clauses, proofs, "together")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="1/1", help="run the i-th of n parts, drawn at random but always the same")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many seconds")
    parser.add_argument("--plans", default=",".join(PLANS), help="only these plans")
    options = parser.parse_args()
    which, parts = (int(n) for n in options.part.split("/"))
    rows = [row for row in crossings() if row.plan in options.plans.split(",")]
    random.Random(0).shuffle(rows)
    mine, began, bad, done = rows[which - 1 :: parts], time.perf_counter(), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for row in mine:
            if time.perf_counter() - began > options.seconds:
                break
            wrong, done = run(row, Path(folder)), done + 1
            bad += bool(wrong)
            for what in wrong:
                print(f"{row}: {what}", flush=True)
    spent = time.perf_counter() - began
    print(f"{done} of {len(mine)} crossings (of {len(rows)}) in {spent:.0f} s, {bad} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
