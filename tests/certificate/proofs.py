"""Random certificates: any choices whatever, over small networks whose exact minimum is known."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from tests.exact import Layer as Dense

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
from krelax.certificate.kernel.network import Network
from krelax.certificate.onnx.reader import read_network

Random = np.random.Generator


def leaves(count: int) -> Any:
    """Trees without splits."""
    return np.full(count, -1, np.int32)


def plain(forms: int) -> Lemma:
    """A claim without choices."""
    return Lemma(leaves(forms), np.zeros(0, np.float32))


def dyadic(rng: Random, *shape: int) -> Any:
    """Multiples of 1/8 around zero, many of them zero."""
    return np.round(rng.normal(0, 1.5, shape) * 8) / 8 * (rng.random(shape) < 0.85)


def rough(rng: Random, *shape: int) -> Any:
    """Float32 numbers of very different sizes."""
    return (rng.normal(0, 1, shape) * 10 ** rng.uniform(-3, 2, shape)).astype(np.float32).astype(np.float64)


def random_layers(
    rng: Random, widths: Sequence[int], slope: float = 0.0, numbers: Callable[..., Any] = dyadic
) -> list[Dense]:
    """A dense network of two inputs with activations behind all layers but the last."""
    sizes = [2, *widths]
    result = []
    for i, (n, m) in enumerate(zip(sizes[:-1], widths, strict=True)):
        last = i == len(widths) - 1
        result.append(Dense(numbers(rng, m, n).tolist(), numbers(rng, m).tolist(), None if last else slope))
    return result


def model(layers: Sequence[Dense]) -> bytes:
    """The layers as an ONNX file."""
    nodes, constants, x = [], [], "x"
    for i, layer in enumerate(layers):
        for name, value in (("w", layer.weight), ("b", layer.bias)):
            constants.append(numpy_helper.from_array(np.array(value, np.float32), f"{name}{i}"))
        nodes.append(helper.make_node("Gemm", [x, f"w{i}", f"b{i}"], [f"z{i}"], transB=1))
        x = f"z{i}"
        if layer.slope is not None:
            kind, more = ("Relu", {}) if layer.slope == 0 else ("LeakyRelu", {"alpha": layer.slope})
            nodes.append(helper.make_node(kind, [x], [f"a{i}"], **more))
            x = f"a{i}"
    return as_file(nodes, constants, (1, len(layers[0].weight[0])), x)


def as_file(nodes: list[Any], constants: list[Any], shape: Sequence[int], output: str, version: int = 17) -> bytes:
    """An ONNX file with an input x."""
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", ends, outs, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=8)
    data: bytes = made.SerializeToString()
    return data


def certificate(data: bytes, *questions: Question, semantics: Any = "real") -> Certificate:
    """Questions about the network in an ONNX file."""
    return Certificate(hashlib.sha256(data).hexdigest(), semantics, "test", list(questions))


class Author:
    """Writes proofs full of random choices."""

    def __init__(self, rng: Random, network: Network, wild: float = 1.0) -> None:
        self.rng, self.network, self.wild = rng, network, wild
        self.sizes = [network.size(network.before(j)) for j in range(len(network.activations))]
        self.relu = [network.activation(j).rule.pieces is not None for j in range(len(self.sizes))]
        self.sets: list[list[GroupSet]] = []

    def question(self, region: Region, rows: Any, offsets: Any, clause: Any) -> Question:
        self.sets = []
        layers = []
        for j in range(len(self.sizes)):
            layers.append(self._layer(j))
            self.sets.append(layers[-1].groups)
        margins = self.claim(len(rows), len(self.sizes))
        return Question(region, rows, offsets, clause, layers, margins)

    def _layer(self, j: int) -> Layer:
        rng = self.rng
        base = rng.choice(["interval", "adaptive", "parallel"])
        groups = [self._set(j) for _ in range(rng.integers(0, 3))] if self.sizes[j] > 2 and self.relu[j] else []
        return Layer(base, [self._about(j, groups) for _ in range(rng.integers(0, 3))], groups)

    def _set(self, j: int) -> GroupSet:
        rng, k = self.rng, int(self.rng.integers(2, 4))
        members = np.array([rng.permutation(self.sizes[j])[:k] for _ in range(rng.integers(1, 3))], np.int32)
        rows = np.array([r for r in product((-1, 0, 1), repeat=k) if any(r) and rng.random() < 0.9], np.int8)
        return GroupSet(members, rows.reshape(-1, k))

    def _about(self, j: int, groups: list[GroupSet]) -> Lemma:
        """A claim of single entries and of rows of groups."""
        size, forms = self.sizes[j], np.concatenate([np.eye(self.sizes[j]), -np.eye(self.sizes[j])])
        for s in groups:
            rows = np.zeros((len(s.members), len(s.rows), size))
            for g, members in enumerate(s.members):
                rows[g][:, members] = -s.rows
            forms = np.concatenate([forms, rows.reshape(-1, size)])
        forms = forms[self.rng.random(len(forms)) < 0.7]
        form, entry = np.nonzero(forms)
        kept = np.unique(form)
        stored = Forms(
            np.searchsorted(kept, form).astype(np.int32),
            entry.astype(np.int32),
            np.ascontiguousarray(forms[form, entry]),
        )
        claim = self.claim(len(kept), j)
        claim.forms = stored
        return claim

    def claim(self, forms: int, before: int) -> Lemma:
        """Random choices for so many forms."""
        tree: list[int] = []
        depths: list[int] = []
        for _ in range(forms):
            self._grow(tree, depths, set(), self._splittable(before))
        multipliers = (self.rng.exponential(1, sum(depths)) * (self.rng.random(sum(depths)) < 0.7)).astype(np.float32)
        crossings = [self._crossing(j, len(depths)) for j in range(before) if self.rng.random() < 0.8]
        return Lemma(np.array(tree, np.int32), multipliers, crossings)

    def _splittable(self, before: int) -> list[int]:
        neurons = np.arange(sum(self.sizes[:before]))
        return neurons[np.repeat(self.relu[:before], self.sizes[:before]).astype(bool)].tolist()

    def _grow(self, tree: list[int], depths: list[int], path: set[int], neurons: list[int]) -> None:
        free = [n for n in neurons if n not in path]
        if not free or len(path) > 2 or self.rng.random() < 0.5:
            tree.append(-1)
            depths.append(len(path))
            return
        neuron = int(self.rng.choice(free))
        tree.append(neuron)
        for _ in range(2):
            self._grow(tree, depths, path | {neuron}, neurons)

    def _crossing(self, j: int, count: int) -> Choices:
        rng, size, wild = self.rng, self.sizes[j], self.wild
        entries = np.flatnonzero(rng.random(size) < 0.8).astype(np.int32)
        slopes = rng.integers(0, 256, (2, len(entries))).astype(np.uint8)
        lines = (rng.random((2, len(entries), 2)) + wild * rng.normal(0, 0.2, (2, len(entries), 2))).astype(np.float32)
        if not self.relu[j]:
            slopes = slopes[:0]
        absolute = (wild * rng.normal(0, 1, (1, size))).astype(np.float32)
        row = rng.integers(-1, len(slopes) + 3, count).astype(np.int32)
        crossing = Choices(j, row, entries, slopes if self.relu[j] else None, lines=lines, absolute=absolute)
        if self.relu[j] and rng.random() < 0.5:
            crossing.upper = rng.uniform(-0.2 - wild, 1 + wild, (2, len(entries))).astype(np.float32)
            crossing.owner = rng.integers(0, 2, len(slopes)).astype(np.int32)
        crossing.groups = [self._shares(n, s, count) for n, s in enumerate(self.sets[j]) if rng.random() < 0.7]
        return crossing

    def _shares(self, number: int, s: GroupSet, count: int) -> Shares:
        rng, (groups, k) = self.rng, s.members.shape
        if rng.random() < 0.5:
            most = 20_000 if not self.wild else 32_767
            share, tilt = (rng.integers(-most, most, (count, groups, k)).astype(np.int16) for _ in range(2))
            return Shares(number, share=share, tilt=tilt)
        coeff, slope = (rng.normal(0, 0.5, (count, groups, k)).astype(np.float32) for _ in range(2))
        basis = rng.integers(0, len(s.rows) + k + 1, (count, groups, 2**k, k + 1)).astype(np.uint8)
        basis[rng.random(basis.shape) < 0.05] = 255
        return Shares(number, coeff, slope, basis if rng.random() < 0.8 else None)


def random_boxes(rng: Random, region: Region, depth: int = 4) -> Boxes:
    """A random tree of boxes."""
    cut: list[int] = []
    at: list[float] = []

    def grow(lower: Any, upper: Any, level: int) -> None:
        if level == depth or rng.random() < 0.2:
            cut.append(-1)
            at.append(0.0)
            return
        i = int(rng.integers(len(lower)))
        place = float(lower[i] + (upper[i] - lower[i]) * rng.random())
        cut.append(i)
        at.append(place)
        left, right = upper.copy(), lower.copy()
        left[i] = right[i] = place
        grow(lower, left, level + 1)
        grow(right, upper, level + 1)

    grow(region.lower, region.upper, 0)
    return Boxes(np.array(cut, np.int32), np.array(at))


def network_of(layers: Sequence[Dense]) -> tuple[bytes, Network]:
    """The ONNX file of some layers, and the checker's reading of it."""
    data = model(layers)
    return data, read_network(data)
