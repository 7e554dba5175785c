"""Random questions about two networks in VNN-LIB, answered exactly.

Weights, bounds and constants are dyadic. So the truth is found by cutting the polytope of all inputs of both networks,
in integers: at the kinks of every neuron, and by the conditions of every case. A polytope has a point that satisfies
strict conditions if each of them is strict at one of its vertices. None of krelax's readers or bounds has a part in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, product
from math import lcm
from pathlib import Path
from unittest.mock import patch

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tests.exact_cells import Corners, Forms, halves, whole_box
from tests.run.files import dense, save

from krelax.network.onnx import load_onnx
from krelax.run.assignment import assigned
from krelax.run.verify import VerifyOptions, verify_file
from krelax.search.verdict import Verdict

Layers = list[tuple[NDArray[np.float64], NDArray[np.float64]]]
Row = NDArray[np.object_]
_OPS = ("<", "<=", ">", ">=")
_OPPOSITE = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "=="}
# What a constant is off from where a condition begins to hold, or ceases to.
_OFF = (Fraction(0), Fraction(1, 64), Fraction(-1, 64), Fraction(1))
_NEAR = Fraction(1, 4)
_SECONDS = 10.0
# Questions are decided as ever, without exact arithmetic, which settles most small ones, and by bounds and an attack.
_WAYS = (("auto", True), ("auto", False), ("alpha", True))


@dataclass(frozen=True)
class Atom:
    """A comparison of a weighted sum of variables with a constant."""

    weights: Mapping[str, Fraction]
    op: str
    constant: Fraction

    def text(self, rng: np.random.Generator) -> str:
        """In VNN-LIB, with either side first."""
        terms = [name if w == 1 else f"(* {float(w)} {name})" for name, w in self.weights.items()]
        left = terms[0] if len(terms) == 1 else f"(+ {' '.join(terms)})"
        if rng.random() < 0.3:
            return f"({_OPPOSITE[self.op]} {float(self.constant)} {left})"
        return f"({self.op} {left} {float(self.constant)})"

    def holds(self, values: Mapping[str, Fraction]) -> bool:
        """Whether it does, exactly."""
        value = sum((w * values[name] for name, w in self.weights.items()), Fraction(0)) - self.constant
        return {"<": value < 0, "<=": value <= 0, ">": value > 0, ">=": value >= 0, "==": value == 0}[self.op]


@dataclass(frozen=True)
class Tree:
    """All of some parts, or one of them."""

    every: bool
    parts: tuple[Tree | Atom, ...]

    def text(self, rng: np.random.Generator) -> str:
        """In VNN-LIB."""
        return f"({'and' if self.every else 'or'} {' '.join(part.text(rng) for part in self.parts)})"

    def holds(self, values: Mapping[str, Fraction]) -> bool:
        """Whether it does, exactly."""
        return (all if self.every else any)(part.holds(values) for part in self.parts)

    def cases(self) -> list[list[Atom]]:
        """The ways in which it can hold."""
        each = [[[part]] if isinstance(part, Atom) else part.cases() for part in self.parts]
        if not self.every:
            return [case for cases in each for case in cases]
        return [[atom for case in chosen for atom in case] for chosen in product(*each)]


@dataclass(frozen=True)
class Question:
    """Two networks, of inputs X and U and outputs Y and V, and what is asked of both."""

    layers: tuple[Layers, Layers]
    relation: str
    inputs: list[Atom]
    tree: Tree

    @property
    def parts(self) -> list[Atom | Tree]:
        """Conditions that hold all together."""
        return [*self.inputs, self.tree]

    @property
    def names(self) -> tuple[list[str], list[str]]:
        """Of all inputs, and of all outputs."""
        count, outputs = self.layers[0][0][0].shape[1], [len(layers[-1][1]) for layers in self.layers]
        return (
            [f"{name}[0,{i}]" for name in "XU" for i in range(count)],
            [f"{name}[0,{i}]" for name, n in zip("YV", outputs, strict=True) for i in range(n)],
        )

    def text(self, rng: np.random.Generator) -> str:
        """The file."""
        lines = ["(vnnlib-version <2.0>)"]
        for name, (x, y), layers in zip("fg", (("X", "Y"), ("U", "V")), self.layers, strict=True):
            relation = self.relation if name == "g" else ""
            n, m = layers[0][0].shape[1], len(layers[-1][1])
            lines.append(f"(declare-network {name} {relation}(declare-input {x} float32 [1,{n}])"
                         f"(declare-output {y} float32 [1,{m}]))")  # fmt: skip
        return "\n".join([*lines, *(f"(assert {part.text(rng)})" for part in self.parts)])

    def cells(self) -> Iterator[tuple[Corners, dict[str, tuple[Row, int]]]]:
        """Polytopes that cover the inputs, with what every variable is there: a row, and what it is divided by."""
        inputs, outputs = self.names
        size = len(inputs)
        start, x = whole_box(np.full(size, -1.0), np.full(size, 1.0))
        rows = {name: _row(x, i) for i, name in enumerate(inputs)}
        for atom in self.inputs:
            start = _kept(start, _form(atom, rows))
        parts: list[tuple[Corners, list[tuple[Row, int]]]] = [(start, [])] if start else []
        for k, layers in enumerate(self.layers):
            given = [rows[name] for name in inputs[k * size // 2 : (k + 1) * size // 2]]
            parts = [(part, [*before, *y]) for corners, before in parts for part, y in _through(layers, corners, given)]
        for part, y in parts:
            yield part, rows | dict(zip(outputs, y, strict=True))

    def truth(self) -> bool:
        """Whether there are real numbers that satisfy it."""
        cases = [[*self.inputs, *case] for case in self.tree.cases()]
        return any(_satisfied(corners, rows, case) for corners, rows in self.cells() for case in cases)


def _row(x: Forms, i: int) -> tuple[Row, int]:
    return x.digits[:, i], 1 << x.shift


def _combined(terms: list[tuple[Fraction, tuple[Row, int]]], constant: Fraction) -> tuple[Row, int]:
    """A weighted sum of rows and a constant."""
    below = lcm(constant.denominator, *(w.denominator * d for w, (_, d) in terms))
    row = sum((row * int(w * below / d) for w, (row, d) in terms), 0 * terms[0][1][0])
    row[-1] += int(constant * below)
    return row, below


def _form(atom: Atom, rows: Mapping[str, tuple[Row, int]]) -> tuple[Row, str]:
    """What is compared with zero."""
    return _combined([(w, rows[name]) for name, w in atom.weights.items()], -atom.constant)[0], atom.op


def _through(
    layers: Layers, corners: Corners, given: list[tuple[Row, int]]
) -> Iterator[tuple[Corners, list[tuple[Row, int]]]]:
    """The outputs of a network on the parts of a polytope on which they are affine."""
    (weight, bias), *rest = layers
    z = [
        _combined([(Fraction(w), x) for w, x in zip(row, given, strict=True)], Fraction(b))
        for row, b in zip(weight.tolist(), bias.tolist(), strict=True)
    ]
    if not rest:
        yield corners, z
        return
    parts: list[tuple[Corners, list[tuple[Row, int]]]] = [(corners, [])]
    for row, below in z:
        cut = [(halves(part, row), before) for part, before in parts]
        parts = [
            (part, [*before, (sign * row, below)])
            for both, before in cut
            for part, sign in zip(both, (1, 0), strict=True)
            if part
        ]
    for part, active in parts:
        yield from _through(rest, part, active)


def _kept(corners: Corners, form: tuple[Row, str]) -> Corners:
    """The part of a polytope in which the closure of a condition holds."""
    row, op = form
    if op == "==":
        return _kept(_kept(corners, (row, "<=")), (row, ">="))
    row = row if op in (">", ">=") else -row
    values = {v: sum(a * b for a, b in zip(row, v, strict=True)) for v in corners}
    if max(values.values(), default=-1) < 0:
        return {}
    if max(values.values()) > 0:
        return halves(corners, row)[0]
    new = 1 << max(tight.bit_length() for tight in corners.values())
    return {v: tight | new for v, tight in corners.items() if values[v] == 0}


def _satisfied(corners: Corners, rows: Mapping[str, tuple[Row, int]], case: list[Atom]) -> bool:
    """Whether some point of a polytope satisfies all of a case."""
    forms = [_form(atom, rows) for atom in case]
    for form in forms:
        corners = _kept(corners, form)
    strict = [row for row, op in forms if op in ("<", ">")]
    return bool(corners) and all(any(sum(a * b for a, b in zip(r, v, strict=True)) for v in corners) for r in strict)


def random_question(rng: np.random.Generator) -> Question:
    """Networks that are the same, nearly so, or not at all, at inputs that are equal, near, ordered or free."""
    inputs, outputs = int(rng.integers(1, 3)), int(rng.integers(1, 3))
    hidden = [int(rng.integers(2, 4)), *([2] if rng.random() < 0.3 else [])]
    one = _random_layers(rng, [inputs, *hidden, outputs])
    kind = int(rng.integers(3))
    if kind == 0:
        if rng.random() < 0.5:  # outputs rise with all inputs
            one = [(abs(weight), bias) for weight, bias in one]
        other, relation = one, "(equal-to f) "
    elif kind == 1:
        other = [tuple(t + rng.integers(-1, 2, t.shape) / 16 for t in layer) for layer in one]  # type: ignore[misc]
        relation = "(isomorphic-to f) "
    else:
        other, relation = _random_layers(rng, [inputs, int(rng.integers(2, 4)), int(rng.integers(1, 3))]), ""
    one_sided = Question((one, other), relation, [], Tree(True, ()))
    question = Question((one, other), relation, _random_inputs(rng, one_sided.names[0]), Tree(True, ()))
    cells = list(question.cells())
    count = int(rng.integers(1, 4))
    parts: list[Tree | Atom] = [_random_atom(rng, question, cells) for _ in range(count)]
    if rng.random() < 0.4:
        parts.append(Tree(bool(rng.integers(2)), tuple(_random_atom(rng, question, cells) for _ in range(2))))
    return Question(question.layers, relation, question.inputs, Tree(bool(rng.integers(2)), tuple(parts)))


def _random_layers(rng: np.random.Generator, widths: list[int]) -> Layers:
    return [(rng.integers(-6, 7, (m, n)) / 4, rng.integers(-3, 4, m) / 4) for n, m in pairwise(widths)]


def _random_inputs(rng: np.random.Generator, names: list[str]) -> list[Atom]:
    """Boxes, and how the inputs of both networks are related."""
    one = Fraction(1)
    box = [Atom({name: one}, op, side * one) for name in names for op, side in ((">=", -1), ("<=", 1))]
    pairs = list(zip(names[: len(names) // 2], names[len(names) // 2 :], strict=True))
    kind, found = int(rng.integers(4)), list[Atom]()
    for i, (x, u) in enumerate(pairs):
        apart = {x: one, u: -one}
        if kind == 0 or (kind == 1 and i):
            found.append(Atom(apart, "==", Fraction(0)))
        elif kind == 1:
            found.append(Atom(apart, str(rng.choice(_OPS)), Fraction(0)))
        elif kind == 2:
            found += [Atom(apart, "<=", _NEAR), Atom(apart, ">=", -_NEAR)]
    return box + found


def _random_atom(
    rng: np.random.Generator, question: Question, cells: list[tuple[Corners, dict[str, tuple[Row, int]]]]
) -> Atom:
    """A condition on outputs, perhaps on inputs as well, that holds nearly nowhere, or nearly everywhere, or else."""
    inputs, outputs = question.names
    chosen = list(rng.choice(outputs, int(rng.integers(1, 3)), replace=False)) if len(outputs) > 1 else outputs
    chosen = [*chosen, *([str(rng.choice(inputs))] if rng.random() < 0.3 else [])]
    if rng.random() < 0.5:
        weights = {outputs[0]: Fraction(1), outputs[-1]: Fraction(-1)}
    else:
        weights = {str(name): Fraction(int(rng.choice([-2, -1, 1, 3])), int(rng.choice([1, 2]))) for name in chosen}
    op, values = str(rng.choice(_OPS)), [Fraction(0)]
    for corners, rows in cells:
        row, below = _combined([(w, rows[name]) for name, w in weights.items()], Fraction(0))
        values += [Fraction(sum(a * b for a, b in zip(row, v, strict=True)), below * v[-1]) for v in corners]
    end = (max if op in (">", ">=") else min)(values[1:] or values)
    constant = end + _OFF[int(rng.integers(len(_OFF)))] * (1 if rng.random() < 0.5 else -1)
    dyadic = constant.denominator & (constant.denominator - 1) == 0
    return Atom(weights, op, constant if dyadic else Fraction(round(constant * 64), 64))


def disagreement(rng: np.random.Generator, folder: Path) -> tuple[str, str | None]:
    """What krelax said of a random question, and what is wrong with that, if anything is."""
    question = random_question(rng)
    paths: dict[str | None, Path] = {}
    for name, layers in zip("fg", question.layers, strict=True):
        paths[name] = save(dense(*layers, shape=(1, layers[0][0].shape[1])), folder / f"{name}.onnx")
    query = folder / "query.vnnlib"
    query.write_text(text := question.text(rng), "utf-8")
    files = {"f": paths["f"]} if "equal-to" in question.relation else paths
    method, exactly = _WAYS[int(rng.integers(len(_WAYS)))]
    options = VerifyOptions(method, timeout=_SECONDS, deterministic=True)
    with nullcontext() if exactly else patch("krelax.run.verify._WORK", 0):
        specification, outcome = verify_file(query, files, lambda path, scores: load_onnx(path, scores=scores), options)
    assert specification is not None
    truth, said = question.truth(), outcome.verdict
    told = f"{text}\n{question.layers}\n{method}: {said.value}, {outcome.reason}"
    if said is Verdict.HOLDS:
        return "unsat", f"there is a counterexample\n{told}" if truth else None
    if said is Verdict.UNKNOWN:
        return f"unknown, {'sat' if truth else 'unsat'}", None
    assert outcome.counterexample is not None
    values = {t.name: t.array for t in assigned(specification, outcome.counterexample)}
    for name, x, y in (("f", "X", "Y"), ("g", "U", "V")):
        session = onnxruntime.InferenceSession(str(paths[name]), providers=["CPUExecutionProvider"])
        if not np.array_equal(session.run(None, {"x": values[x]})[0], values[y]):
            return "sat", f"the outputs {y} are others\n{told}"
    numbers = {f"{name}[0,{i}]": Fraction(float(v)) for name, a in values.items() for i, v in enumerate(a.flatten())}
    if not all(part.holds(numbers) for part in question.parts):
        return "sat", f"{numbers} satisfies it not\n{told}"
    return ("sat" if truth else "sat by rounding"), None
