"""Certificates that are accepted, of every kind of network and proof, by little: what crafted mutations start from.

What they prove can be compared with the exact minimum of their margins, or, for balls and sigmoids, with many points.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper, numpy_helper
from tests.certificate.corpus import NETWORKS, accepted, i4
from tests.certificate.proofs import Author, as_file, certificate, dyadic, plain
from tests.certificate.values import evaluate
from tests.exact_cells import least_margin

from krelax.certificate.format.schema import (
    Boxes,
    Certificate,
    Choices,
    Forms,
    GroupSet,
    Layer,
    Lemma,
    Question,
    Refutation,
    Region,
    Shares,
    Step,
)
from krelax.certificate.kernel.arithmetic import Float64
from krelax.certificate.kernel.network import Network as Read
from krelax.certificate.kernel.question import check_question
from krelax.certificate.onnx.reader import read_network
from krelax.network.graph import Network
from krelax.network.onnx import load_onnx

# How much the margins of the certificates made here are above zero.
SLACK = 2.0**-6
_GRID = np.stack(np.meshgrid(*[np.linspace(0, 1, 33)] * 2), -1).reshape(-1, 2)


def convolutional() -> bytes:
    """Convolution, ReLU, convolution, leaky ReLU, dense, on an image of two entries."""
    rng = np.random.default_rng(1)
    nodes = [
        helper.make_node("Reshape", ["x", "s"], ["r"]),
        helper.make_node("Conv", ["r", "w", "b"], ["c"], pads=[0, 1, 0, 1]),
        helper.make_node("Relu", ["c"], ["a"]),
        helper.make_node("Conv", ["a", "v"], ["d"]),
        helper.make_node("LeakyRelu", ["d"], ["e"], alpha=0.125),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "u"], ["y"]),
    ]
    shapes = {"w": (2, 1, 1, 2), "b": (2,), "v": (2, 2, 1, 2), "u": (4, 2)}
    return _file(nodes, {name: dyadic(rng, *shape) for name, shape in shapes.items()} | {"s": np.array([1, 1, 1, 2])})


def residual() -> bytes:
    """Two layers, with a connection around the second, and an absolute value."""
    rng = np.random.default_rng(2)
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["z"]),
        helper.make_node("Relu", ["z"], ["a"]),
        helper.make_node("Gemm", ["a", "v"], ["c"]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Add", ["a", "d"], ["e"]),
        helper.make_node("Gemm", ["e", "u"], ["f"]),
        helper.make_node("Abs", ["f"], ["y"]),
    ]
    shapes = {"w": (2, 3), "b": (3,), "v": (3, 3), "u": (3, 2)}
    return _file(nodes, {name: dyadic(rng, *shape) for name, shape in shapes.items()})


def pooled() -> bytes:
    """Convolution, maximum over windows, ReLU, dense."""
    rng = np.random.default_rng(3)
    nodes = [
        helper.make_node("Reshape", ["x", "s"], ["r"]),
        helper.make_node("Conv", ["r", "w"], ["c"], pads=[0, 1, 0, 1]),
        helper.make_node("MaxPool", ["c"], ["m"], kernel_shape=[1, 2]),
        helper.make_node("Flatten", ["m"], ["f"]),
        helper.make_node("Gemm", ["f", "v", "b"], ["z"]),
        helper.make_node("Relu", ["z"], ["a"]),
        helper.make_node("Gemm", ["a", "u"], ["y"]),
    ]
    shapes = {"w": (2, 1, 1, 2), "v": (4, 3), "b": (3,), "u": (3, 2)}
    return _file(nodes, {name: dyadic(rng, *shape) for name, shape in shapes.items()} | {"s": np.array([1, 1, 1, 2])})


def _file(nodes: list[Any], constants: dict[str, Any]) -> bytes:
    stored = {name: v if v.dtype.kind == "i" else v.astype(np.float32) for name, v in constants.items()}
    return as_file(nodes, [numpy_helper.from_array(v, name) for name, v in stored.items()], (1, 2), "y")


MODELS = NETWORKS | {"convolutional": convolutional(), "residual": residual(), "pooled": pooled()}


def bases() -> Iterator[tuple[str, str, Callable[[], Certificate]]]:
    """Name, network, and what makes the certificate, which takes a while."""
    for name, network, made in accepted():
        yield f"{network} {name}", network, partial(_same, made)
    for n, network in enumerate(("convolutional", "residual", "pooled", "deep")):
        yield f"{network} everything", network, partial(everything, network, n)
        yield f"{network} claims", network, partial(relational, network)
    for network in ("convolutional", "residual", "pooled"):
        yield f"{network} boxes", network, partial(_boxed, network)
        yield f"{network} joint", network, partial(_jointly, network)
        yield f"{network} shares", network, partial(_shared, network)
    for network in ("convolutional", "residual", "deep"):
        yield f"{network} clips", network, partial(clipped, network)
        yield f"{network} case", network, partial(contradicted, network)


def _same(made: Certificate) -> Certificate:
    return made


def _margin(network: str, question: Question) -> float:
    with np.errstate(all="ignore"):
        return check_question(_read(network), question, Float64()).margin


@cache
def _read(network: str) -> Read:
    return read_network(MODELS[network])


def _settled(network: str, question: Question) -> Certificate:
    """With an offset so large that the margin is `SLACK`."""
    question.offsets = question.offsets - (_margin(network, question) - SLACK)
    return certificate(MODELS[network], question)


@cache
def everything(network: str, seed: int) -> Certificate:
    """Random choices of every kind."""
    author = Author(np.random.default_rng(seed), _read(network), wild=0.0)
    region = Region("box", np.full(2, -0.25), np.full(2, 0.375))
    return _settled(network, author.question(region, np.array([[1.0, -1.0]]), np.zeros(1), i4(0)))


@cache
def relational(network: str) -> Certificate:
    """Every entry of every pre-activation bounded with a split, and where there are ReLUs a group with all its rows."""
    read = _read(network)
    sizes = [read.size(read.before(j)) for j in range(len(read.activations))]
    relu = [read.activation(j).rule.pieces is not None for j in range(len(sizes))]
    splits = [sum(sizes[:j]) for j in range(len(sizes)) if relu[j]]
    layers = []
    for j, size in enumerate(sizes):
        earlier = [n for n in splits if n < sum(sizes[:j])]
        layer = Layer("adaptive", [_split(earlier, _forms(size, relu[j]))])
        if relu[j]:
            layer.groups = [GroupSet(i4(0, 1).reshape(1, 2), _octagon())]
        layers.append(layer)
    margins = _split(splits[:2], None)
    last = max(j for j, is_relu in enumerate(relu) if is_relu)
    count = int((margins.tree == -1).sum())
    slopes = np.array([[255] * sizes[last], [0] * sizes[last]], np.uint8)
    shares = Shares(0, np.full((count, 1, 2), 2**-5, np.float32), np.full((count, 1, 2), 2**-6, np.float32))
    rows = (np.arange(count) % 2).astype(np.int32)
    upper = np.array([[0.75] * sizes[last], [-1.0] * sizes[last]], np.float32)
    margins.crossings = [Choices(last, rows, slopes=slopes, upper=upper, owner=i4(0, 1), groups=[shares])]
    region = Region("box", np.full(2, -0.25), np.full(2, 0.375))
    question = Question(region, np.array([[1.0, -1.0]]), np.zeros(1), i4(0), layers, margins)
    margins.multipliers = max(_draws(margins.multipliers), key=lambda drawn: _with(network, question, drawn))
    return _settled(network, question)


@cache
def clipped(network: str) -> Certificate:
    """A clip at the root, a split, and behind it another clip, with multipliers near 1. What holds rests on them."""
    read = _read(network)
    sizes = [read.size(read.before(j)) for j in range(len(read.activations))]
    layers = [Layer("adaptive") for _ in sizes]
    crossings = []
    for j, size in enumerate(sizes):
        if j > 0:
            layers[j].lines = Lemma(i4(*[-1] * 2 * size), np.zeros(0, np.float32), [], _forms(size, False))
            crossings.append(Choices(j, clips=np.full((2, 2 * size), 128, np.uint8)))
    margins = Lemma(i4(-2, 0, -2, -1, -1), np.zeros(3, np.float32), crossings, level=0.5)
    question = Question(
        Region("box", np.full(2, -0.25), np.full(2, 0.375)), np.array([[1.0, -1.0]]), np.zeros(1), i4(0)
    )
    question.layers, question.margins = layers, margins
    return _hardly(network, question)


@cache
def contradicted(network: str) -> Certificate:
    """A margin proven by contradiction: twice over all layers, each entry with a split, and at last the margin."""
    read = _read(network)
    count = len(read.activations)
    steps = []
    for j in [*range(count - 1, -1, -1)] * 2:
        size = read.size(read.before(j))
        claim = Lemma(i4(*[0, -1, -1] * 2 * size), np.full(8 * size, 0.125, np.float32), [], _forms(size, False))
        steps.append(Step(j, claim))
    last = Lemma(i4(0, -1, -1), np.zeros(2, np.float32))
    region = Region("box", np.full(2, -0.25), np.full(2, 0.375))
    question = Question(region, np.array([[1.0, -1.0]]), np.zeros(1), i4(0), [Layer("adaptive")] * count, plain(1))
    question.cases = [Refutation(0, 0.125, steps, last)]
    return _hardly(network, question)


def _hardly(network: str, question: Question) -> Certificate:
    """With an offset that is hardly large enough: what it does to half-spaces is found by trying."""
    least, most = 0.0, 64.0
    for _ in range(40):
        question.offsets = np.array([(least + most) / 2])
        least, most = (least, (least + most) / 2) if _margin(network, question) > 0 else ((least + most) / 2, most)
    question.offsets = np.array([most])
    return certificate(MODELS[network], question)


def _draws(multipliers: Any) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.choice([0, 0.5, 1, 2, 3], len(multipliers)).astype(np.float32) for _ in range(12)]


def _with(network: str, question: Question, multipliers: Any) -> float:
    assert question.margins is not None
    question.margins.multipliers = multipliers
    return _margin(network, question)


def _octagon() -> Any:
    return np.array([row for row in product((-1, 0, 1), repeat=2) if any(row)], np.int8)


def _forms(size: int, pairs: bool) -> Forms:
    rows = np.concatenate([np.eye(size), -np.eye(size)])
    if pairs:
        rows = np.concatenate([rows, np.pad(_octagon().astype(float), ((0, 0), (0, size - 2)))])
    form, entry = np.nonzero(rows)
    return Forms(form.astype(np.int32), entry.astype(np.int32), rows[form, entry])


def _split(neurons: list[int], forms: Forms | None) -> Lemma:
    """Every form's tree splits all the neurons."""
    tree = [-1]
    for neuron in reversed(neurons):
        tree = [neuron, *tree, *tree]
    count = 1 if forms is None else int(forms.form.max()) + 1
    splits = len(neurons) << len(neurons)
    multipliers = np.resize(np.float32([0, 2**-5, 2**-6]), count * splits)
    return Lemma(np.tile(i4(*tree), count), multipliers, [], forms)


@cache
def _boxed(network: str) -> Certificate:
    from tests.certificate.proofs import random_boxes

    region = Region("box", np.full(2, -0.25), np.full(2, 0.375))
    question = Question(region, np.array([[1.0, -1.0]]), np.zeros(1), i4(0))
    question.boxes = random_boxes(np.random.default_rng(5), region)
    return _settled(network, question)


_OPPOSITE = np.array([[1.0, -1.0], [-1.0, 1.0]])


@cache
def _jointly(network: str) -> Certificate:
    """A margin or its negative is positive: half of both, whatever the network computes."""
    read = _read(network)
    lines = np.array([[[0.5, 1.0]]], np.float32)
    claim = Lemma(i4(-1), np.zeros(0, np.float32), [Choices(len(read.activations), i4(0), lines=lines)])
    question = Question(Region("box", np.full(2, -0.25), np.full(2, 0.375)), _OPPOSITE, np.zeros(2), i4(0, 0))
    question.layers, question.margins = [Layer("adaptive") for _ in range(len(read.activations) + 1)], claim
    question.joint = i4(0)
    return _settled(network, question)


@cache
def _shared(network: str) -> Certificate:
    """The same in three boxes, and a clause of one margin."""
    rows = np.concatenate([_OPPOSITE, [[1.0, 0.0]]])
    question = Question(
        Region("box", np.full(2, -0.25), np.full(2, 0.375)), rows, np.array([0.0, 0.0, 4.0]), i4(0, 0, 1)
    )
    weights = np.array([[8192, 8192, 16384]] * 3, np.int16)
    question.boxes = Boxes(i4(0, -1, 1, -1, -1), np.array([0.0, 0.0, 0.125, 0.0, 0.0]), weights)
    return _settled(network, question)


def _loaded(network: str) -> Network:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.onnx"
        path.write_bytes(MODELS[network])
        return load_onnx(path, check=False)


@cache
def _least(network: str, ends: tuple[bytes, ...], clauses: tuple[tuple[bytes, bytes], ...]) -> Any:
    lower, upper = (np.frombuffer(e).reshape(1, -1) for e in ends)
    listed = [(np.frombuffer(r).reshape(len(d) // 8, -1), np.frombuffer(d)) for r, d in clauses]
    return least_margin(_loaded(network), lower, upper, listed).value


def truth(network: str, question: Question) -> Any:
    """The exact minimum of the question's margin, a fraction; for balls and sigmoids that of many points, a float."""
    region = question.region
    if network != "window" and region.kind == "box":
        of = [question.clause == n for n in np.unique(question.clause)]
        clauses = tuple((question.rows[mine].tobytes(), question.offsets[mine].tobytes()) for mine in of)
        return _least(network, (region.lower.tobytes(), region.upper.tobytes()), clauses)
    x = region.lower + (region.upper - region.lower) * _GRID
    if region.centre is not None:
        norm = np.linalg.norm(x - region.centre, 2 if region.kind == "l2" else 1, 1)
        x = np.append(x[norm <= (region.eps or 0)], region.centre[None], 0)
    values = evaluate(_read(network), x)[-1] @ question.rows.T + question.offsets
    return float(min(values[:, question.clause == n].max(1).min() for n in np.unique(question.clause))) + 1e-9


def hashed(network: str) -> str:
    """The hash of a network's file."""
    return hashlib.sha256(MODELS[network]).hexdigest()
