"""Many random ONNX files, as they are and damaged: whatever the checker reads means what other readers say. And random
questions about two networks, answered exactly.

python -m tests.fuzz.nightly --graphs 20000 --mutations 20000 --executions 5000 --functions 5000 --reals 5000 \\
    --coupled 5000 --seed 0
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tests.fuzz.coupled import disagreement
from tests.fuzz.executions import outside, wrong
from tests.fuzz.functions import outside_functions
from tests.fuzz.graphs import random_graph, to_text
from tests.fuzz.readers import disagreements
from tests.fuzz.wire import mutated

from krelax.certificate.kernel.arithmetic import Exact, Float64

NO_FAULT = {"accepted", "unread"}


def graphs(count: int, seed: int, others: bool = True) -> tuple[Counter[str], list[str]]:
    """Random graphs: how many were accepted, and what is wrong."""
    seen, bad = Counter[str](), list[str]()
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        data, _, piece = random_graph(rng)
        found = disagreements(data, rng, others)
        seen[f"{'accepted' if found else 'refused'}: {piece}"] += 1
        seen["accepted"] += "accepted" in found
        bad += [f"graph {seed}/{i}: {name}\n{to_text(data)}" for name in found if name not in NO_FAULT]
        seen["unread by others"] += "unread" in found
    return seen, bad


def mutations(count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Damaged files: how many were accepted, and what is wrong."""
    seen, bad = Counter[str](), list[str]()
    for i in range(count):
        rng = np.random.default_rng([seed, i, 1])
        data = mutated(rng, random_graph(rng)[0])
        found = disagreements(data, rng, False)
        seen["accepted"] += "accepted" in found
        bad += [f"mutation {seed}/{i}: {name}\n{to_text(data)}" for name in found if name not in NO_FAULT]
        seen["unread by others"] += "unread" in found
    return seen, bad


def executions(count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Float32 executions: how many points were inside what is certified, and which were not."""
    seen, bad = Counter[str](), list[str]()
    for i in range(count):
        found, data = outside(np.random.default_rng([seed, i, 2]))
        seen[found] += 1
        bad += [] if data is None else [f"execution {seed}/{i}\n{to_text(data)}"]
    return seen, bad


def functions(count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """The same of functions, products and scalings."""
    seen, bad = Counter[str](), list[str]()
    for i in range(count):
        found, data = outside_functions(np.random.default_rng([seed, i, 4]))
        seen[found] += 1
        bad += [] if data is None else [f"functions {seed}/{i}\n{to_text(data)}"]
    return seen, bad


def reals(count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """The same of the function of real numbers, in both arithmetics, with numbers from 1e-300 to 1e250."""
    seen, bad = Counter[str](), list[str]()
    for i in range(count):
        for ar in (Float64(), Exact()):
            found, data = wrong(np.random.default_rng([seed, i, 3]), ar)
            seen[f"{found} {ar.name}"] += 1
            bad += [] if data is None else [f"real numbers {seed}/{i}, {ar.name}\n{to_text(data)}"]
    return seen, bad


def coupled(count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Questions about two networks: how many were answered how, and what is wrong."""
    seen, bad = Counter[str](), list[str]()
    with TemporaryDirectory() as folder:
        for i in range(count):
            said, what = disagreement(np.random.default_rng([seed, i, 4]), Path(folder))
            seen[said] += 1
            bad += [] if what is None else [f"question {seed}/{i}: {what}"]
    return seen, bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    runs = {
        "graphs": graphs, "mutations": mutations, "executions": executions, "functions": functions, "reals": reals,
        "coupled": coupled,
    }  # fmt: skip
    for name in (*runs, "seed"):
        parser.add_argument(f"--{name}", type=int, default=0)
    options, failed = vars(parser.parse_args()), 0
    for name, run in runs.items():
        began = time.perf_counter()
        seen, bad = run(options[name], options["seed"])
        seconds = time.perf_counter() - began
        print(f"{options[name]} {name}, {seconds:.0f} s, {len(bad)} wrong: {dict(sorted(seen.items()))}")
        print("\n".join(bad), flush=True)
        failed += len(bad)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
