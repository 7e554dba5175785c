"""Lists of questions about two networks: ACAS Xu networks (KRELAX_BENCHMARKS) beside copies of themselves.

    python benchmarks/pairs.py FOLDER [--count 16]
    krelax bench FOLDER/perturbed.csv --timeout 60
    krelax bench FOLDER/monotone.csv --timeout 60

`perturbed`: are all outputs of a copy, with normally distributed noise on every constant, within 0.05 of the network's,
for all inputs of the first property of ACAS Xu? `monotone`: is the cost of a strong left turn never larger when another
aircraft is nearer, of one network at two inputs? Both as the competition of 2026 asks them.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from common import benchmark_folder

# Standard deviations of the noise, in turns.
NOISE = (0.001, 0.002, 0.0005)
FIRST_PROPERTY = ((0.6, 0.679857769), (-0.5, 0.5), (-0.5, 0.5), (0.45, 0.5), (-0.5, -0.45))
AHEAD = ((-0.16247807, 0.667245963), (-0.25, 0.0), (0.25, 0.5), (0.227272727, 0.227272727), (0.25, 0.25))
WITHIN = 0.05
LIMIT = 100


def declared(relation: str) -> str:
    """Two networks of five inputs and five outputs."""
    return "(vnnlib-version <2.0>)\n" + "".join(
        f"(declare-network {name} {said}(declare-input X_{name} real [5]) (declare-output Y_{name} real [5]))\n"
        for name, said in (("f", ""), ("g", f"({relation} f) "))
    )


def bounded(box: tuple[tuple[float, float], ...]) -> str:
    return "".join(f"(assert (and (>= X_f[{i}] {low}) (<= X_f[{i}] {high})))\n" for i, (low, high) in enumerate(box))


def equal(inputs: range) -> str:
    return "".join(f"(assert (== X_f[{i}] X_g[{i}]))\n" for i in inputs)


def perturbed(model: onnx.ModelProto, noise: float, seed: int) -> onnx.ModelProto:
    """A copy with noise on all its constants."""
    copy, generator = onnx.ModelProto(), np.random.default_rng(seed)
    copy.CopyFrom(model)
    for constant in copy.graph.initializer:
        array = numpy_helper.to_array(constant)
        if array.dtype == np.float32:
            array = array + generator.normal(0, noise, array.shape).astype(np.float32)
            constant.CopyFrom(numpy_helper.from_array(array, constant.name))
    return copy


def write(folder: Path, count: int) -> None:
    """The lists, and all that they name."""
    folder.mkdir(parents=True, exist_ok=True)
    apart = "".join(f" (> Y_g[{i}] (+ Y_f[{i}] {WITHIN})) (< Y_g[{i}] (- Y_f[{i}] {WITHIN}))" for i in range(5))
    questions = {
        "perturbed": declared("isomorphic-to") + bounded(FIRST_PROPERTY) + equal(range(5)) + f"(assert (or{apart}))\n",
        "monotone": declared("equal-to")
        + bounded(AHEAD)
        + f"(assert (and (>= X_f[0] X_g[0]) (>= X_g[0] {AHEAD[0][0]})))\n"
        + equal(range(1, 5))
        + "(assert (< Y_f[3] Y_g[3]))\n",
    }
    networks = sorted((benchmark_folder() / "vnncomp" / "acasxu" / "onnx").iterdir())
    lists: dict[str, list[str]] = {kind: [] for kind in questions}
    for kind, question in questions.items():
        (folder / f"{kind}.vnnlib").write_text(question, encoding="utf-8")
    for number in range(count):
        path = networks[7 * number % len(networks)]
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        model = onnx.load_from_string(content)
        names = f"f{number}.onnx", f"g{number}.onnx"
        onnx.save(model, folder / names[0])
        onnx.save(perturbed(model, NOISE[number % len(NOISE)], number), folder / names[1])
        for kind, other in zip(lists, reversed(names), strict=True):
            lists[kind].append(f"\"[('f', '{names[0]}'), ('g', '{other}')]\",{kind}.vnnlib,{LIMIT}\n")
    for kind, lines in lists.items():
        (folder / f"{kind}.csv").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=16)
    asked = parser.parse_args()
    write(asked.folder, asked.count)
