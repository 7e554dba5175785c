"""Where multi-neuron bounds, and clips, pay beside branching: leaves and seconds to close a question, with and without.

    python benchmarks/groups.py [--seconds 20] [--journal groups.jsonl] [--families dense convolutional residual]
                                [--preparing 15] [--part 0/1] [--ways "slopes alone" "clips" ...]
    python benchmarks/groups.py --progress

Questions that optimised slopes leave open are branched on, on one core, after each of several ways to prepare: slopes
alone; groups of k neurons in every layer at the root (chosen a second time from the prices that the first choice
leaves: `anew`); layers tightened by branching, without groups and with them; groups of the root kept in every leaf;
slopes alone with `clips` in the leaves; and pairs chosen over bounds that stay as they are, in every leaf, without
clips and with them. `--ways` does only those that are named. A pass over the layers takes at most
`--preparing` seconds. Results are appended to the journal, and what is there is not done again; `--part I/N` does only
every Nth question, from number I on, for journals side by side, which make one when they are joined (`--families`
without any prints its table). Prints, for each family of networks and way, how many questions were closed within so
many seconds of branching, and the medians of what it took against slopes alone, over the questions that both close; and
how far preparing brought the worst margin on its way to zero, the median. With `--progress` it prints instead how far
branching after slopes alone brings the worst leaf of each question on its way to zero, from one doubling of the time to
the next: by that the complete search decides whether to tighten layers.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import benchmark_folder
from krelax import ball, classification, load_images, load_onnx, read_vnnlib
from krelax.bounds.backward import outputs
from krelax.bounds.bounded import Bounded
from krelax.bounds.branching import Branching, Effort
from krelax.bounds.instance import Instance
from krelax.bounds.methods import METHODS, bound, by_groups
from krelax.bounds.multineuron import MultiNeuron, choose, neuron_scores
from krelax.cli.printing import table
from krelax.hull.grouping import Grouping
from krelax.problem.queries import Queries
from krelax.run.bench import read_instances
from krelax.search.effort import Complete
from krelax.search.questions import about_specification

Record = dict[str, Any]
Way = Callable[[Instance, Queries, Bounded], Bounded]

# Family: images of networks in a ball of the given radius, and instances of lists.
IMAGES = {
    "dense": [
        ("eran/mnist_6_100", 0.026, (4, 11, 14, 21, 41)),
        ("eran/mnist_6_200", 0.015, (4, 21, 30)),
        ("eran/mnist_9_200", 0.015, (11, 14)),
    ],
    "convolutional": [
        ("eran/mnist_conv_small", 0.12, (2, 7, 13, 26, 31, 40)),
        ("sdp/mnist_cnn_a_adv", 0.3, (2, 11, 15, 25, 29)),
    ],
}
LISTS = {
    "dense": [("mnist_fc", (24, 30, 33, 37))],
    "convolutional": [("oval21", (0, 8))],
    "residual": [("sri_resnet_a", (17, 20, 32)), ("sri_resnet_b", (3, 5, 12, 16, 20, 23, 28, 31))],
}


# Pairs in leaves: more of them cost more than they save.
PAIRS = Grouping(neurons=50, overlap=1)
# Branching on margins as the complete search does it, without clips.
PLAIN = replace(Complete().branching, clips=None)


@dataclass(frozen=True, eq=False)
class Case:
    """One question."""

    family: str
    name: str
    instance: Instance
    queries: Queries


def cases(families: list[str], part: tuple[int, int]) -> Iterator[Case]:
    """The questions of some families, one after the other: every `part[1]`th, from number `part[0]` on."""
    return islice(every_case(families), part[0], None, part[1])


def every_case(families: list[str]) -> Iterator[Case]:
    """All of them."""
    folder = benchmark_folder()
    for family in families:
        for path, eps, chosen in IMAGES.get(family, ()):
            network, digits = load_onnx(folder / f"{path}.onnx"), "mnist_test" if "eran" in path else "mnist_sdp"
            data = load_images(folder / path.split("/")[0] / f"{digits}.npz", network.input_shape, 10)
            for i in chosen:
                region = ball(torch.tensor(data.images[i : i + 1]).double(), eps)
                asked = classification(torch.tensor([int(data.labels[i])]), 10)
                yield Case(family, f"{path.split('/')[1]} {i}", Instance.of(network, region), asked)
        for name, chosen in LISTS.get(family, ()):
            for line in read_instances(folder / "vnncomp" / name / "instances.csv", None):
                if line.index in chosen:
                    network = load_onnx(line.onnx)
                    asked = about_specification(network, read_vnnlib(line.vnnlib))
                    yield Case(family, f"{name} {line.index}", Instance.of(network, asked.region), asked.queries)


def joined(seconds: float, *passes: MultiNeuron) -> Way:
    """Passes over the layers, one after the other, for so many seconds each."""

    def prepare(instance: Instance, queries: Queries, found: Bounded) -> Bounded:
        for multi_neuron in passes:
            found = by_groups(instance, queries, found, multi_neuron, stop=False, seconds=seconds)
        return found

    return prepare


def paired(instance: Instance, queries: Queries, found: Bounded) -> Bounded:
    """Pairs where the worst margin loses, over bounds of layers that stay as they are."""
    worst = found.value[0].argmin(0, keepdim=True)
    rows = (t[:, worst].to(instance.fast_network.dtype) for t in (queries.rows, queries.offsets))
    bounds, multi_neuron = found.bounds.copy(), METHODS["krelu"].multi_neuron[0]
    for i, score in sorted(neuron_scores(instance, outputs(instance.fast_network, *rows), bounds).items()):
        chosen = choose(instance, bounds, i, score, PAIRS, multi_neuron.combinations)
        if chosen is not None:
            bounds.groups[i] = (chosen,)
    return replace(found, bounds=bounds)


def ways(preparing: float) -> dict[str, tuple[Way, Effort]]:
    """How to prepare, and how to branch then."""
    root = {k: METHODS[name].multi_neuron[0] for k, name in ((2, "krelu"), (3, "krelu3"), (4, "krelu4"))}
    rounds = Effort(rounds=20)
    after = partial(joined, preparing)
    found: dict[str, tuple[Way, Effort]] = {"slopes alone": (after(), PLAIN)}
    for k, multi_neuron in root.items():
        found[f"root, k = {k}"] = (after(multi_neuron), PLAIN)
    found["root, k = 2, anew"] = (after(root[2], root[2]), PLAIN)
    found["tightening, no groups"] = (after(MultiNeuron(None, splitting=rounds)), PLAIN)
    for k, multi_neuron in root.items():
        found[f"tightening, k = {k}"] = (after(replace(multi_neuron, splitting=rounds)), PLAIN)
    for k, multi_neuron in root.items():
        found[f"leaves, k = {k}"] = (after(multi_neuron), replace(PLAIN, groups=True))
    found["clips"] = (after(), replace(PLAIN, clips=0.0))
    found["pairs chosen, leaves"] = (paired, replace(PLAIN, groups=True))
    found["pairs chosen, leaves and clips"] = (paired, replace(PLAIN, groups=True, clips=0.0))
    return found


def searching(case: Case, found: Bounded, effort: Effort) -> Branching:
    """A search on the margins that are open."""
    index = (found.value[0] <= 0).nonzero()[:, 0]
    exact, fast = (
        outputs(n, *(t[:, index].to(n.dtype) for t in (case.queries.rows, case.queries.offsets)))
        for n in (case.instance.network, case.instance.fast_network)
    )
    begin = found.value[0, index]
    return Branching(case.instance, found.bounds, (exact, fast), effort, begin, torch.zeros_like(begin))


def progress(case: Case, found: Bounded) -> Iterator[float]:
    """How far branching brings the worst leaf on the way from the worst margin to zero, after 1.5, 3, 6, 12, 24 s."""
    search = searching(case, found, PLAIN)
    for seconds in (1.5, 1.5, 3.0, 6.0, 12.0):
        search.run(seconds)
        yield 1 - search.worst() / float(found.value.min())


def measured(case: Case, start: Bounded, way: tuple[Way, Effort], seconds: float) -> Record:
    """Whether and how one question is closed in one way."""
    prepare, effort = way
    began = time.thread_time()
    found = prepare(case.instance, case.queries, start)
    prepared = time.thread_time() - began
    leaves, closed = 0, bool((found.value > 0).all())
    if not closed:
        search = searching(case, found, effort)
        closed = bool((search.run(seconds).value > 0).all())
        leaves = search.leaves
    return {
        "closed": closed, "leaves": leaves, "prepared": prepared, "cpu": time.thread_time() - began,
        "worst": float(found.value.min()),
    }  # fmt: skip


def rows(found: list[Record]) -> list[tuple[str, ...]]:
    """For each family and way the questions closed, and medians against slopes alone."""
    result: list[tuple[str, ...]] = []
    for family in dict.fromkeys(r["family"] for r in found):
        here = [r for r in found if r["family"] == family]
        base = {r["case"]: r for r in here if r["way"] == "slopes alone"}
        for way in dict.fromkeys(r["way"] for r in here):
            mine = {r["case"]: r for r in here if r["way"] == way and r["case"] in base}
            both = [(r, base[c]) for c, r in mine.items() if r["closed"] and base[c]["closed"]]
            more = sum(r["closed"] and not base[c]["closed"] for c, r in mine.items())
            fewer = sum(base[c]["closed"] and not r["closed"] for c, r in mine.items())
            ratios = [
                f"{np.median([max(r[k], least) / max(b[k], least) for r, b in both]):.2f}" if both else "-"
                for k, least in (("leaves", 1), ("cpu", 1e-3))
            ]
            counts = (sum(r["closed"] for r in mine.values()), len(mine), more, fewer, len(both))
            prepared = f"{np.median([r['prepared'] for r in mine.values()]):.1f}" if mine else "-"
            gains = [1 - min(0, r["worst"]) / base[c]["worst"] for c, r in mine.items()]
            gained = f"{np.median(gains):.2f}" if gains else "-"
            numbers = (f"{counts[0]} of {counts[1]}", *map(str, counts[2:]), *ratios, prepared, gained)
            result.append((family, way, *numbers))
    return result


def open_cases(families: list[str], part: tuple[int, int] = (0, 1)) -> Iterator[tuple[Case, Bounded]]:
    """The questions that optimised slopes leave open, and what they find."""
    for case in cases(families, part):
        start = bound(case.instance, case.queries, METHODS["alpha"])
        if not (start.value > 0).all():
            yield case, start


def compare(
    families: list[str], part: tuple[int, int], journal: Path, how: dict[str, tuple[Way, Effort]], seconds: float
) -> None:
    """What the journal lacks, and the table."""
    found = [json.loads(line) for line in journal.open()] if journal.exists() else []
    done = {(r["case"], r["way"]) for r in found}
    for case, start in open_cases(families, part):
        for way, prepared in how.items():
            if (case.name, way) not in done:
                record = {"family": case.family, "case": case.name, "way": way}
                record |= measured(case, start, prepared, seconds)
                found.append(record)
                with journal.open("a") as out:
                    print(json.dumps(record), file=out)
                print(record, flush=True)
    head = ("networks", "groups", "closed", "more", "fewer", "both", "leaves", "CPU s", "prepared in s", "gained")
    print(table(head, rows(found)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--preparing", type=float, default=15.0)
    parser.add_argument("--progress", action="store_true")
    parser.add_argument("--journal", type=Path, default=Path("groups.jsonl"))
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--ways", nargs="*")
    parser.add_argument("--families", nargs="*", default=["dense", "convolutional", "residual"])
    options = parser.parse_args()
    first, step = map(int, options.part.split("/"))
    torch.set_num_threads(1)
    with torch.no_grad():
        if options.progress:
            for case, start in open_cases(options.families):
                shares = " ".join(f"{share:.2f}" for share in progress(case, start))
                print(f"{case.family:14} {case.name:22} {shares}", flush=True)
        else:
            every = ways(options.preparing)
            chosen = {name: every[name] for name in options.ways or every}
            compare(options.families, (first, step), options.journal, chosen, options.seconds)


if __name__ == "__main__":
    main()
