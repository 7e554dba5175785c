"""Writes the certificates in accepted/, rejected/ and malformed/, and the networks they are about.

python -m tests.certificate.corpus
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper, numpy_helper
from tests.certificate.proofs import as_file, certificate, leaves, model, plain
from tests.exact import Layer as Dense

from krelax.certificate.format.archive import write
from krelax.certificate.format.schema import (
    Boxes,
    Certificate,
    Choices,
    Forms,
    GroupSet,
    Layer,
    Lemma,
    Question,
    Region,
    Shares,
)

FOLDER = Path(__file__).parent

# ReLU(u + v) + ReLU(u - v), negated: at least -2 on [-1, 1]^2, and -3 for triangles
DIAMOND = [Dense([[1, 1], [1, -1]], [0, 0]), Dense([[-1, -1]], [0], None)]
LEAKY = [Dense([[1, 1], [1, -1]], [0.25, 0], 0.125), Dense([[-1, 0.5], [1, 1]], [0, 0.5], None)]
DEEP = [
    Dense([[1, 0.5], [-0.75, 1], [1, -1]], [0, 0.5, 0]),
    Dense([[1, -1, 0.5], [0.5, 1, -1], [-1, 0.25, 1]], [0.25, 0, 0.5]),
    Dense([[1, -1, 1], [-0.5, 1, 0.25]], [0, 0.25], None),
]
# (1e8 x + y) - 1e8 x is y for real numbers, and often 0 in float32
CANCEL = [Dense([[1e8, 1], [1e8, 0]], [1e9, 1e9]), Dense([[1, -1]], [0], None)]


def i4(*values: int) -> Any:
    return np.array(values, np.int32)


def f4(*values: float) -> Any:
    return np.array(values, np.float32)


def window() -> bytes:
    """max over windows of a convolution, then a sigmoid."""
    weight = np.array([[[[1, 2], [0, -1]]], [[[0.5, -1], [1, 0]]]], np.float32)
    nodes = [
        helper.make_node("Reshape", ["x", "s"], ["r"]),
        helper.make_node("Conv", ["r", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["a"]),
        helper.make_node("MaxPool", ["a"], ["m"], kernel_shape=[2, 2], strides=[1, 1]),
        helper.make_node("Sigmoid", ["m"], ["g"]),
        helper.make_node("Flatten", ["g"], ["y"]),
    ]
    constants = [numpy_helper.from_array(v, n) for n, v in (("w", weight), ("s", np.array([1, 1, 1, 2])))]
    return as_file(nodes, constants, (1, 2), "y")


NETWORKS = {name: model(layers) for name, layers in
            (("diamond", DIAMOND), ("leaky", LEAKY), ("deep", DEEP), ("cancel", CANCEL))}  # fmt: skip
NETWORKS["window"] = window()


def square(radius: float = 1.0, kind: Any = "box") -> Region:
    more = {} if kind == "box" else {"centre": np.zeros(2), "eps": radius}
    return Region(kind, np.full(2, -radius), np.full(2, radius), **more)


def ask(offset: float, *layers: Layer, claim: Lemma | None = None, region: Region | None = None) -> Question:
    """Is the only output above -offset?"""
    margins = plain(1) if claim is None else claim
    return Question(region or square(), np.ones((1, 1)), np.array([offset]), i4(0), list(layers), margins)


def pair() -> Layer:
    """The diamond's pre-activations with the four combinations of the pair."""
    rows = np.array(list(product((-1, 0, 1), repeat=2)), np.int8)
    signs = np.array(list(product((-1.0, 1.0), repeat=2))).reshape(-1)
    claim = plain(4)
    claim.forms = Forms(np.repeat(np.arange(4), 2).astype(np.int32), np.tile([0, 1], 4).astype(np.int32), signs)
    return Layer("parallel", [claim], [GroupSet(i4(0, 1).reshape(1, 2), rows)])


def joint() -> Lemma:
    shares = Shares(0, np.full((1, 1, 2), -1, np.float32), np.full((1, 1, 2), -0.5, np.float32))
    return Lemma(leaves(1), f4(), [Choices(0, groups=[shares])])


def split() -> Lemma:
    """Both neurons split, with multipliers where they help and slopes where they do nothing."""
    slopes = Choices(0, i4(0, -1, 0, 0), i4(0, 1), np.array([[255, 0]], np.uint8))
    return Lemma(i4(0, 1, -1, -1, 1, -1, -1), f4(0, 0, 0, 1, 1, 0, 0, 0), [slopes])


def deep(offsets: tuple[float, float] = (4.25, 1.75)) -> Question:
    """Two clauses about the deep network, with tightened layers."""
    forms = Forms(i4(0, 1, 2), i4(0, 1, 2), np.array([1.0, -1.0, 1.0]))
    claim = Lemma(i4(0, -1, -1, -1, 1, 2, -1, -1, -1), f4(0.5, 0, 0, 0, 1, 0, 0.25), forms=forms)
    claim.crossings = [Choices(0, i4(0, 0, -1, 1, 0, 0), i4(0, 2), np.array([[255, 9], [0, 99]], np.uint8))]
    lines = np.array([[[0.5, 0.75], [1, 1], [0, 0.5]]], np.float32)
    margins = Lemma(i4(4, -1, -1, -1), f4(0, 0))
    margins.crossings = [Choices(1, i4(0, 0, 1), lines=lines, absolute=f4(-0.5, 0.5, 0.1).reshape(1, 3))]
    layers = [Layer("interval"), Layer("adaptive", [claim])]
    return Question(square(0.5), np.eye(2), np.array(offsets), i4(0, 1), layers, margins)


def boxed(offset: float) -> Question:
    question = ask(offset)
    tree = [0, 1, -1, -1, 1, -1, -1]
    question.margins, question.boxes = None, Boxes(i4(*tree), np.array([0.0] * len(tree)))
    return question


def one_of_two() -> Question:
    """A clause of two margins of the leaky network, one of which is enough, and a clause of one."""
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    return Question(square(0.25), rows, np.array([1.0, -9.0, 2.0]), i4(1, 1, 0), [Layer("adaptive")], plain(3))


def smooth() -> Question:
    lines = np.full((1, 4, 2), 0.2, np.float32)
    claim = Lemma(leaves(4), f4(), [Choices(2, i4(*[0] * 4), lines=lines)])
    layers = [Layer("adaptive"), Layer("adaptive"), Layer("parallel")]
    return Question(square(0.5), np.eye(4), np.full(4, -0.4), i4(0, 1, 2, 3), layers, claim)


def accepted() -> Iterator[tuple[str, str, Certificate]]:
    """Name, network and certificate."""
    for name, network, *questions in (
        ("pair", "diamond", ask(2.125, pair(), claim=joint())),
        ("splits", "diamond", ask(2.125, Layer("adaptive"), claim=split())),
        ("boxes", "diamond", boxed(2.75)),
        ("l2", "diamond", ask(3.0, Layer("adaptive"), region=square(0.9, "l2"))),
        ("l1", "diamond", ask(3.0, Layer("adaptive"), region=square(0.9, "l1"))),
        ("layers", "deep", deep()),
        ("several", "deep", deep(), deep((9.0, 9.0))),
        ("clauses", "leaky", one_of_two()),
        ("cancelling", "cancel", ask(1.5, Layer("interval"))),
    ):
        yield name, network, certificate(NETWORKS[network], *questions)
    yield "smooth", "window", certificate(NETWORKS["window"], smooth())
    for name, network, question in (("float32", "deep", deep((5.0, 2.5))), ("float32-boxes", "diamond", boxed(2.75))):
        yield name, network, certificate(NETWORKS[network], question, semantics="float32")


def rejected() -> Iterator[tuple[str, str, Certificate]]:
    for name, network, *questions in (
        ("false", "diamond", ask(1.9, pair(), claim=joint())),
        ("pair-without-combinations", "diamond", ask(2.125, Layer("parallel", [], pair().groups), claim=joint())),
        ("triangles", "diamond", ask(2.125, Layer("adaptive"))),
        ("splits-false", "diamond", ask(1.9, Layer("adaptive"), claim=split())),
        ("boxes-false", "diamond", boxed(1.9)),
        ("exactly-zero", "diamond", boxed(2.0)),
        ("layers-false", "deep", deep((1.0, 1.75))),
        ("second-question", "deep", deep(), deep((1.0, 9.0))),
        ("wrong-slopes", "deep", _edited(deep(), lambda q: q.margins.crossings[0].lines.fill(1e30))),
        ("huge-multipliers", "deep", _edited(deep(), lambda q: q.margins.multipliers.fill(3e38))),
        ("huge-offset", "diamond", ask(-1e308, Layer("adaptive"))),
    ):
        yield name, network, certificate(NETWORKS[network], *questions)
    yield "another-network", "diamond", certificate(NETWORKS["leaky"], boxed(2.75))
    yield "float32-cancels", "cancel", certificate(NETWORKS["cancel"], ask(1.5, Layer("interval")), semantics="float32")
    yield "float32-smooth", "window", certificate(NETWORKS["window"], smooth(), semantics="float32")


def _edited(question: Question, edit: Callable[[Any], Any]) -> Question:
    question = deepcopy(question)
    edit(question)
    return question


# What makes certificates about the deep network, or the diamond (with a name in front), not fit it.
EDITS: dict[str, Callable[[Any], Any]] = {
    "tree-cut-short": lambda q: setattr(q.margins, "tree", q.margins.tree[:-1]),
    "tree-longer": lambda q: setattr(q.margins, "tree", np.append(q.margins.tree, i4(-1))),
    "tree-of-minus-two": lambda q: q.margins.tree.__setitem__(-1, -2),
    "tree-empty": lambda q: setattr(q.margins, "tree", i4()),
    "neuron-too-large": lambda q: q.margins.tree.__setitem__(0, 6),
    "neuron-of-a-later-layer": lambda q: q.layers[1].claims[0].tree.__setitem__(0, 3),
    "neuron-twice": lambda q: setattr(q.margins, "tree", i4(4, 4, -1, -1, -1, -1)),
    "multipliers-negative": lambda q: q.margins.multipliers.__setitem__(0, -1),
    "multipliers-missing": lambda q: setattr(q.margins, "multipliers", f4(0)),
    "multipliers-too-many": lambda q: setattr(q.margins, "multipliers", f4(0, 0, 0)),
    "rows-too-large": lambda q: q.margins.crossings[0].row.__setitem__(0, 2),
    "rows-below": lambda q: q.margins.crossings[0].row.__setitem__(0, -2),
    "rows-too-few": lambda q: setattr(q.margins.crossings[0], "row", i4(0)),
    "rows-missing": lambda q: setattr(q.margins.crossings[0], "row", None),
    "tables-missing": lambda q: (setattr(q.margins.crossings[0], "lines", None),
                                 setattr(q.margins.crossings[0], "absolute", None)),
    "entries-too-large": lambda q: q.layers[1].claims[0].crossings[0].entries.__setitem__(0, 3),
    "entries-negative": lambda q: q.layers[1].claims[0].crossings[0].entries.__setitem__(0, -1),
    "absolute-too-short": lambda q: setattr(q.margins.crossings[0], "absolute", f4(0, 0).reshape(1, 2)),
    "lines-too-short": lambda q: setattr(q.margins.crossings[0], "lines", np.zeros((1, 2, 2), np.float32)),
    "lines-of-three": lambda q: setattr(q.margins.crossings[0], "lines", np.zeros((1, 3, 3), np.float32)),
    "crossing-itself": lambda q: setattr(q.layers[1].claims[0].crossings[0], "activation", 1),
    "crossing-negative": lambda q: setattr(q.margins.crossings[0], "activation", -1),
    "crossing-huge": lambda q: setattr(q.margins.crossings[0], "activation", 10**30),
    "crossings-twice": lambda q: q.margins.crossings.append(q.margins.crossings[0]),
    "forms-missing": lambda q: setattr(q.layers[1].claims[0], "forms", None),
    "forms-of-margins": lambda q: setattr(q.margins, "forms", Forms(i4(0, 1), i4(0, 1), np.ones(2))),
    "forms-twice": lambda q: q.layers[1].claims[0].forms.form.__setitem__(1, 0)
    or q.layers[1].claims[0].forms.entry.__setitem__(1, 0),
    "forms-out-of-order": lambda q: q.layers[1].claims[0].forms.form.__setitem__(0, 2),
    "forms-left-out": lambda q: q.layers[1].claims[0].forms.form.__setitem__(2, 3),
    "forms-of-no-neuron": lambda q: q.layers[1].claims[0].forms.entry.__setitem__(0, 3),
    "forms-negative": lambda q: q.layers[1].claims[0].forms.form.__setitem__(0, -1),
    "layers-too-few": lambda q: q.layers.pop(),
    "layers-too-many": lambda q: q.layers.append(Layer("interval")),
    "margins-missing": lambda q: setattr(q, "margins", None),
    "both-proofs": lambda q: setattr(q, "boxes", Boxes(i4(-1), np.zeros(1))),
    "clauses-from-one": lambda q: setattr(q, "clause", i4(1, 2)),
    "clauses-negative": lambda q: setattr(q, "clause", i4(0, -1)),
    "clauses-with-a-gap": lambda q: setattr(q, "clause", i4(0, 2)),
    "rows-of-three-outputs": lambda q: setattr(q, "rows", np.zeros((2, 3))),
    "no-margins": lambda q: (setattr(q, "rows", np.zeros((0, 2))), setattr(q, "offsets", np.zeros(0)),
                             setattr(q, "clause", i4())),
    "region-empty": lambda q: q.region.lower.__setitem__(0, 2.0),
    "region-of-three-inputs": lambda q: (setattr(q.region, "lower", np.zeros(3)),
                                         setattr(q.region, "upper", np.ones(3))),
    "box-with-centre": lambda q: setattr(q.region, "centre", np.zeros(2)),
    "ball-without-centre": lambda q: setattr(q.region, "kind", "l2"),
    "ball-of-negative-radius": lambda q: setattr(q, "region", Region("l1", -np.ones(2), np.ones(2), np.zeros(2), -1.0)),
    "ball-off-centre": lambda q: setattr(q, "region", Region("l2", -np.ones(2), np.ones(2), np.full(2, 3.0), 5.0)),
    "diamond-groups-of-one": lambda q: q.layers[0].groups.append(GroupSet(i4(0).reshape(1, 1), np.ones((1, 1), "i1"))),
    "diamond-member-twice": lambda q: setattr(q.layers[0].groups[0], "members", i4(0, 0).reshape(1, 2)),
    "diamond-member-none": lambda q: setattr(q.layers[0].groups[0], "members", i4(0, 2).reshape(1, 2)),
    "diamond-member-negative": lambda q: setattr(q.layers[0].groups[0], "members", i4(0, -1).reshape(1, 2)),
    "diamond-rows-of-two": lambda q: q.layers[0].groups[0].rows.__setitem__((0, 0), 2),
    "diamond-set-missing": lambda q: setattr(q.margins.crossings[0].groups[0], "set", 1),
    "diamond-set-negative": lambda q: setattr(q.margins.crossings[0].groups[0], "set", -1),
    "diamond-shares-of-two-leaves": lambda q: (
        setattr(q.margins.crossings[0].groups[0], "coeff", np.zeros((2, 1, 2), np.float32)),
        setattr(q.margins.crossings[0].groups[0], "slope", np.zeros((2, 1, 2), np.float32))),
    "diamond-basis-of-three-patterns": lambda q: setattr(
        q.margins.crossings[0].groups[0], "basis", np.zeros((1, 1, 3, 3), np.uint8)),
}  # fmt: skip

BOX_EDITS: dict[str, Callable[[Any], Any]] = {
    "boxes-cut-short": lambda q: setattr(q, "boxes", Boxes(q.boxes.cut[:-1], q.boxes.at[:-1])),
    "boxes-longer": lambda q: setattr(q, "boxes", Boxes(np.append(q.boxes.cut, i4(-1)), np.append(q.boxes.at, 0.0))),
    "boxes-empty": lambda q: setattr(q, "boxes", Boxes(i4(), np.zeros(0))),
    "boxes-cut-outside": lambda q: q.boxes.at.__setitem__(0, 1.5),
    "boxes-cut-of-no-input": lambda q: q.boxes.cut.__setitem__(0, 2),
    "boxes-of-minus-two": lambda q: q.boxes.cut.__setitem__(-1, -2),
    "boxes-of-a-ball": lambda q: setattr(q, "region", square(1.0, "l2")),
    "boxes-with-layers": lambda q: q.layers.append(Layer("interval")),
}


def malformed() -> Iterator[tuple[str, str, Certificate]]:
    for name, edit in EDITS.items():
        network = "diamond" if name.startswith("diamond") else "deep"
        question = ask(2.125, pair(), claim=joint()) if network == "diamond" else deep()
        yield name, network, certificate(NETWORKS[network], _edited(question, edit))
    for name, edit in BOX_EDITS.items():
        yield name, "diamond", certificate(NETWORKS["diamond"], _edited(boxed(2.75), edit))
    yield "no-questions", "diamond", certificate(NETWORKS["diamond"])
    groups = _edited(
        smooth(), lambda q: q.layers[2].groups.append(GroupSet(i4(0, 1, 2).reshape(1, 3), np.ones((1, 3), "i1")))
    )
    yield "groups-of-three-sigmoids", "window", certificate(NETWORKS["window"], groups)
    splits = _edited(smooth(), lambda q: setattr(q, "margins", Lemma(i4(29, -1, -1, -1, -1, -1), f4(0, 0))))
    yield "a-sigmoid-split", "window", certificate(NETWORKS["window"], splits)
    slopes = _edited(smooth(), lambda q: q.margins.crossings.__setitem__(
        0, Choices(2, i4(0, 0, 0, 0), slopes=np.zeros((1, 4), np.uint8))))  # fmt: skip
    yield "slopes-of-sigmoids", "window", certificate(NETWORKS["window"], slopes)


def main() -> None:
    (FOLDER / "networks").mkdir(exist_ok=True)
    for name, data in NETWORKS.items():
        (FOLDER / "networks" / f"{name}.onnx").write_bytes(data)
    for folder in (accepted, rejected, malformed):
        place = FOLDER / folder.__name__
        place.mkdir(exist_ok=True)
        for name, network, made in folder():
            write(place / f"{network}--{name}.zip", made)


if __name__ == "__main__":
    main()
