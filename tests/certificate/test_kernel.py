"""What the checker derives, from any choices whatever, never exceeds the exact minimum: no tolerance."""

from __future__ import annotations

from fractions import Fraction
from importlib.resources import files
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests import exact
from tests.certificate.proofs import Author, as_file, leaves, network_of, plain, random_boxes, random_layers, rough
from tests.certificate.values import evaluate
from tests.marks import at_night_after
from tests.run.files import model, node, tensor

from krelax.certificate.format.schema import Choices, Forms, GroupSet, Layer, Lemma, Question, Region, Shares
from krelax.certificate.kernel.activations import ReLU
from krelax.certificate.kernel.arithmetic import Arithmetic, Exact, Float64
from krelax.certificate.kernel.groups import Groups
from krelax.certificate.kernel.question import Proof, check_question
from krelax.certificate.onnx.reader import read_network

SEEDS = st.integers(0, 2**32 - 1)


def setting(seed: int, slope: float = 0.0) -> tuple[Any, list[exact.Layer], Any, Region]:
    rng = np.random.default_rng(seed)
    layers = random_layers(rng, [*rng.integers(2, 5, rng.integers(1, 3)).tolist(), 2], slope)
    centre, radius = np.round(rng.normal(0, 1, 2), 2), rng.random(2) * 1.5
    region = Region("box", centre - radius, centre + radius)
    return rng, layers, network_of(layers)[1], region


def proof(network: Any, question: Question, ar: Arithmetic, float32: bool = False) -> tuple[Proof, float]:
    with np.errstate(all="ignore"):
        result = check_question(network.over(ar), question, ar, float32)
        return result, result.margin


def worst(layers: list[exact.Layer], question: Question) -> Fraction:
    """Exact minimum of the weakest single-margin clause."""
    lower, upper = question.region.lower.tolist(), question.region.upper.tolist()
    pairs = zip(question.rows.tolist(), question.offsets.tolist(), strict=True)
    return min(exact.minimum(layers, row, offset, lower, upper) for row, offset in pairs)


def below(bound: float, truth: Fraction) -> bool:
    return bound == -np.inf or Fraction(bound) <= truth


def check_everything(found: Proof, layers: list[exact.Layer], region: Region) -> None:
    ranges = exact.ranges(layers, region.lower.tolist(), region.upper.tolist())
    for j in range(len(found.context.network.activations)):
        lower, upper = (end[0] for end in found.context.ends(j))
        for low, high, truth in zip(lower, upper, ranges[j], strict=True):
            assert below(low, truth.low)
            assert below(-high, -truth.high)


@pytest.mark.parametrize("arithmetic", [Float64, Exact], ids=lambda a: a.name)
@pytest.mark.parametrize("slope", at_night_after(2, [0.0, float(np.float32(0.01)), 0.125]))
@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_no_choice_gives_more_than_the_truth(arithmetic: type, slope: float, seed: int) -> None:
    rng, layers, network, region = setting(seed, slope)
    rows, offsets = rng.normal(0, 1, (2, 2)), rng.normal(0, 1, 2)
    question = Author(rng, network, wild=rng.random()).question(region, rows, offsets, np.arange(2, dtype=np.int32))
    found, margin = proof(network, question, arithmetic())
    assert below(margin, worst(layers, question))
    check_everything(found, layers, region)


@pytest.mark.parametrize("slope", [0.0, float(np.float32(0.1))])
@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_rounding_is_paid_for(slope: float, seed: int) -> None:
    """Over a single point nothing is lost but by rounding: what is not charged would show."""
    rng = np.random.default_rng(seed)
    layers = random_layers(rng, [*rng.integers(2, 6, rng.integers(0, 3)).tolist(), 2], slope, rough)
    network, point = network_of(layers)[1], rng.normal(0, 1, 2)
    author = Author(rng, network, wild=0.0)
    rows, offsets = rough(rng, 2, 2), rough(rng, 2)
    question = author.question(Region("box", point, point), rows, offsets, np.arange(2, dtype=np.int32))
    y = exact.evaluate(layers, point.tolist())
    truth = min(
        sum((Fraction(a) * b for a, b in zip(row, y, strict=True)), Fraction(d))
        for row, d in zip(rows.tolist(), offsets.tolist(), strict=True)
    )
    found, margin = proof(network, question, Float64())
    assert below(margin, truth)
    for j in range(len(network.activations)):
        values = exact.evaluate([*layers[:j], exact.Layer(layers[j].weight, layers[j].bias, None)], point.tolist())
        lower, upper = (end[0] for end in found.context.ends(j))
        assert all(below(l, z) and below(-u, -z) for l, u, z in zip(lower, upper, values, strict=True))


@given(SEEDS)
@settings(deadline=None)
def test_rounding_is_paid_for_where_much_cancels(seed: int) -> None:
    """The form that reaches the input is tiny, and its errors are those of the terms that it is made of."""
    rng = np.random.default_rng(seed)
    first, r = rng.normal(0, 1, (20, 2)).astype(np.float32), rng.normal(0, 1e3, 20).astype(np.float32)
    weight = np.concatenate([first, first + 1e-6 * rng.normal(0, 1, first.shape)]).astype(np.float32)
    layers = [
        exact.Layer(weight.astype(float).tolist(), [0.0] * 40, None),
        exact.Layer([np.concatenate([r, -r]).astype(float).tolist()], [0.0], None),
    ]
    point = rng.normal(0, 1e-3, 2)
    question = Question(Region("box", point, point), np.ones((1, 1)), np.zeros(1), np.zeros(1, np.int32), [], plain(1))
    margin = proof(network_of(layers)[1], question, Float64())[1]
    assert below(margin, exact.evaluate(layers, point.tolist())[0])


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
def test_a_leaf_is_empty_only_if_it_contradicts_what_is_known(ar: Arithmetic) -> None:
    """a = ReLU(z), z in [-1, u]: y = -100 a on the side z >= 0 is as low as -100 u, if u >= 0."""
    layers = [exact.Layer([[1, 0]], [0]), exact.Layer([[-100]], [0], None)]
    network = network_of(layers)[1]
    for u in (0.05, 1e-9, 0.0, -0.05):
        region = Region("box", np.array([-1.0, 0.0]), np.array([u, 0.0]))
        claim = Lemma(np.array([0, -1, -1], np.int32), np.zeros(2, np.float32))
        question = Question(region, np.ones((1, 1)), np.zeros(1), np.zeros(1, np.int32), [Layer("interval")], claim)
        assert proof(network, question, ar)[1] <= -100 * max(u, 0)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_boxes_prove_no_more_than_the_truth(seed: int) -> None:
    rng, layers, network, region = setting(seed)
    question = Question(region, rng.normal(0, 1, (2, 2)), rng.normal(0, 1, 2), np.arange(2, dtype=np.int32))
    question.boxes = random_boxes(rng, region)
    for ar in (Float64(), Exact()):
        assert below(proof(network, question, ar)[1], worst(layers, question))


@settings(max_examples=40, deadline=None, derandomize=True)  # an end at zero on the way may decide, too
@given(SEEDS)
def test_exact_and_float_arithmetic_agree(seed: int) -> None:
    rng, _, network, region = setting(seed)
    rows, offsets = rng.normal(0, 1, (2, 2)), rng.normal(0, 1, 2)
    question = Author(rng, network).question(region, rows, offsets, np.arange(2, dtype=np.int32))
    (floats, rough), (numbers, fine) = (proof(network, question, ar) for ar in (Float64(), Exact()))
    bounds = [[p.context.ends(j) for j in range(len(network.activations))] for p in (floats, numbers)]
    for lower, upper in bounds[0]:  # which side of zero an end is on, or which end is farther, decides about slopes
        assume(abs(np.stack([lower, upper, lower + upper])).min() > 1e-9)
    assert rough <= fine + 1e-13 * abs(fine)
    assert rough == pytest.approx(fine, rel=1e-9, abs=1e-9)
    assert all(np.allclose(one, other, 1e-9, 1e-9) for one, other in zip(*bounds, strict=True))


# z1 = u + v, z2 = u - v: their ReLUs add up to 2 at most on [-1, 1]^2, to 3 by triangles
DIAMOND = [exact.Layer([[1, 1], [1, -1]], [0, 0]), exact.Layer([[-1, -1]], [0], None)]
SQUARE = Region("box", -np.ones(2), np.ones(2))


def diamond(margins: Lemma, groups: list[GroupSet], basis: list[Lemma]) -> Question:
    layer = Layer("adaptive", basis, groups)
    return Question(SQUARE, np.ones((1, 1)), np.zeros(1), np.zeros(1, np.int32), [layer], margins)


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
def test_a_pair_of_neurons_gets_its_exact_hull(ar: Arithmetic) -> None:
    network = network_of(DIAMOND)[1]
    alone = proof(network, diamond(plain(1), [], []), ar)[1]
    pair = GroupSet(np.array([[0, 1]], np.int32), np.array(list(product((-1, 0, 1), repeat=2)), np.int8))
    signs = np.array(list(product((-1.0, 1.0), repeat=2)))
    forms = Forms(np.repeat(np.arange(4), 2).astype(np.int32), np.tile([0, 1], 4).astype(np.int32), signs.reshape(-1))
    shares = Shares(0, np.full((1, 1, 2), -1, np.float32), np.full((1, 1, 2), -0.5, np.float32))
    together = Lemma(leaves(1), np.zeros(0, np.float32), [Choices(0, groups=[shares])])
    claim = plain(4)
    claim.forms = forms
    joint = proof(network, diamond(together, [pair], [claim]), ar)[1]
    assert (alone, joint) == (pytest.approx(-3), pytest.approx(-2))


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
def test_splits_with_multipliers_decide(ar: Arithmetic) -> None:
    network = network_of(DIAMOND)[1]
    tree = np.array([0, 1, -1, -1, 1, -1, -1], np.int32)
    claim = Lemma(tree, np.zeros(8, np.float32))
    assert proof(network, diamond(claim, [], []), ar)[1] == pytest.approx(-2)
    # z >= 0 with multiplier 1 takes u + v off the form -2 u of the first leaf, and so on
    claim.multipliers[:] = [0, 0, 0, 1, 1, 0, 0, 0]
    assert proof(network, diamond(claim, [], []), ar)[1] == pytest.approx(-2)


@pytest.mark.parametrize("k", [2, 3])
def test_bases_of_triples_attain_the_linear_programs(k: int) -> None:
    """Random polytopes and costs: the best basis of those tried is the optimum that HiGHS finds."""
    rng = np.random.default_rng(k)
    rows = np.array([r for r in product((-1, 0, 1), repeat=k) if any(r)], np.int8)
    points = rng.normal(0, 1, (40, k))
    bounds = (points @ rows.T).max(0)[None]
    groups = Groups(GroupSet(np.arange(k, dtype=np.int32)[None], rows), bounds, k, ReLU().pieces)
    ends = (points.min(0)[None], points.max(0)[None])
    choices = np.array(list(combinations(range(len(rows) + k), k)))
    many = len(choices)
    choices = np.pad(choices, ((0, 0), (0, 1)), constant_values=255)
    basis = np.broadcast_to(choices[:, None, None], (many, 1, 2**k, k + 1)).astype(np.uint8)
    for _ in range(2):
        coeff, slope = rng.normal(0, 1, (2, 1, 1, k))
        truth = max(_optimum(groups, sign, (slope - coeff * (sign > 0))[0, 0]) for sign in groups._signs)
        both = [np.repeat(x, many, 0) for x in (coeff, slope)]
        # every pattern takes its own best basis: the patterns one at a time
        asked: Any = (Float64(), *both, ends, basis)
        found = max(_Single(groups, p).support(*asked).min() for p in range(2**k))
        assert found == pytest.approx(truth, abs=1e-9)
        assert found >= truth - 1e-12
        if k == 2:
            assert groups.support(Float64(), coeff, slope, ends, None) == pytest.approx(found)


def test_a_basis_with_one_more_row_shows_that_a_pattern_is_empty() -> None:
    """z1 + z2 <= -1 leaves nothing where both are positive: four rows prove less there than elsewhere, three do not."""
    rows = np.array([*(s * np.eye(3)[i] for i in range(3) for s in (1, -1)), [1, 1, 0]], np.int8)
    bounds = np.array([[*[2.0] * 6, -1.0]])
    groups = Groups(GroupSet(np.array([[0, 1, 2]], np.int32), rows), bounds, 3, ReLU().pieces)
    ends = (np.full((1, 3), -2.0), np.full((1, 3), 2.0))
    coeff, slope = np.array([[[-1.0, -1.0, 0.0]]]), np.zeros((1, 1, 3))
    every = _Single(groups, 7)
    basis = np.full((1, 1, 8, 4), 255, np.uint8)
    basis[0, 0, 7, :3] = (6, 7, 4)
    some = every.support(Float64(), coeff, slope, ends, basis).max()
    basis[0, 0, 7] = (6, 7, 4, 8)
    assert some > -1.1
    assert every.support(Float64(), coeff, slope, ends, basis).max() < -4


def test_patterns_that_an_octagon_leaves_empty_count_for_nothing() -> None:
    """As above, of a pair, which needs no basis; a leaf with such a split alone has any bound, and says so."""
    rows = np.array([[1, 0], [-1, 0], [0, 1], [0, -1], [1, 1]], np.int8)
    stored, bounds = GroupSet(np.array([[0, 1]], np.int32), rows), np.array([[2.0, 2.0, 2.0, 2.0, -1.0]])
    groups = Groups(stored, bounds, 2, ReLU().pieces)
    ends = (np.full((1, 2), -2.0), np.full((1, 2), 2.0))
    assert _Single(groups, 3).support(Float64(), -np.ones((1, 1, 2)), np.zeros((1, 1, 2)), ends, None) == -np.inf
    for ar in (Float64(), Exact()):
        coeff, slope = (ar.number(x) for x in (-np.ones((1, 1, 2)), np.zeros((1, 1, 2))))
        value = ar.floats(groups.support(ar, coeff, slope, ends, None))
        assert 1 <= value <= 1 + 1e-12  # where one is at most 1, because the other is at least -2


class _Single(Groups):
    """One pattern alone."""

    def __init__(self, groups: Groups, pattern: int) -> None:
        self.__dict__.update(groups.__dict__)
        self._pattern = pattern

    def _maximum(self, ar: Any, values: Any, possible: Any) -> Any:
        return values[self._pattern] if possible[self._pattern].all() else np.full(1, -np.inf)


def _optimum(groups: Groups, sign: Any, c: Any) -> float:
    from scipy.optimize import linprog

    found = linprog(-c, groups._rows_of(sign), groups._bounds[0], bounds=(None, None))
    return -found.fun if found.success else -np.inf


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
def test_a_network_that_computes_nothing(ar: Arithmetic) -> None:
    network = read_network(as_file([helper.make_node("Identity", ["x"], ["y"])], [], (1, 2), "y"))
    question = Question(SQUARE, np.ones((1, 2)), np.array([3.0]), np.zeros(1, np.int32), [], plain(1))
    assert proof(network, question, ar)[1] == pytest.approx(1)


def test_balls_use_their_dual_norm() -> None:
    network = network_of([exact.Layer([[3, 4]], [0], None)])[1]
    for kind, worst_value in (("l2", -5.0), ("l1", -4.0), ("box", -7.0)):
        more = {} if kind == "box" else {"centre": np.zeros(2), "eps": 1.0}
        region = Region(kind, -np.ones(2), np.ones(2), **more)
        question = Question(region, np.ones((1, 1)), np.zeros(1), np.zeros(1, np.int32), [], plain(1))
        for ar in (Float64(), Exact()):
            margin = proof(network, question, ar)[1]
            assert margin == pytest.approx(worst_value)
            assert margin <= worst_value


@pytest.mark.parametrize("base", ["interval", "parallel", "adaptive"])
@pytest.mark.parametrize("name", ["digits_conv", "digits_dense", "window"])
@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
def test_points_of_the_region_have_larger_margins(ar: Arithmetic, name: str, base: Any) -> None:
    """Convolutions, maxima and sigmoids: bounds of every pre-activation and of the outputs against samples."""
    own = Path(__file__).parent / "networks" / f"{name}.onnx"
    bundled = Path(str(files("krelax") / "data" / f"{name}.onnx"))
    network = read_network((own if own.exists() else bundled).read_bytes())
    rng = np.random.default_rng(5)
    centre, outputs = rng.random(network.input_size), network.size(len(network.nodes) - 1)
    region = Region("box", centre - 0.03, centre + 0.03)
    rows = np.concatenate([np.eye(outputs), -np.eye(outputs)])
    question = Question(region, rows, np.zeros(2 * outputs), np.arange(2 * outputs, dtype=np.int32))
    question.layers, question.margins = [Layer(base) for _ in network.activations], plain(2 * outputs)
    found, margin = proof(network, question, ar)
    values = evaluate(network, centre + 0.03 * rng.choice([-1, 1, rng.random()], (200, network.input_size)))
    assert margin <= (values[-1] @ rows.T).min() + 1e-9
    for j in range(len(network.activations)):
        lower, upper = found.context.ends(j)
        z = values[network.before(j)]
        assert ((lower <= z + 1e-9) & (z <= upper + 1e-9)).all()
    if base != "interval":
        assert margin >= (values[-1] @ rows.T).min() - 6


def test_exact_numbers_need_no_sizes_of_what_cancels() -> None:
    """The sum of a neuron's absolute terms is beyond float64. Rounding is charged for it, and exact numbers have
    none; in float64 nothing is proven."""
    layers = [exact.Layer([[1e308, -1e308]], [0.0]), exact.Layer([[1e-308]], [0.0], None)]
    nodes = [node("MatMul", "x", "v", "z"), node("Relu", "z", "a"), node("MatMul", "a", "w", "y")]
    ends = [tensor("x", [2], TensorProto.DOUBLE)], [tensor("y", [1], TensorProto.DOUBLE)]
    data = model(nodes, {"v": np.array([[1e308], [-1e308]]), "w": np.array([[1e-308]])}, *ends)
    network, region = read_network(data.SerializeToString()), Region("box", np.zeros(2), np.ones(2))
    rows, offsets = np.array([[-1.0]]), np.array([1.0625])
    question = Question(region, rows, offsets, np.zeros(1, np.int32), [Layer("interval")], plain(1))
    margin = proof(network, question, Exact())[1]
    assert 0 < Fraction(margin) <= worst(layers, question)
    assert not proof(network, question, Float64())[1] > 0


@pytest.mark.parametrize("sign", [1, -1])
def test_bounds_of_numbers_beyond_float64(sign: int) -> None:
    most = np.finfo(np.float64).max
    wanted = [most, most] if sign > 0 else [-np.inf, -most]
    numbers = Exact().number(np.array([most, most / 2]) * sign)
    assert Exact().down(numbers + numbers).tolist() == wanted
    assert Exact().down(numbers + numbers + sign * 0.5).tolist() == (wanted if sign > 0 else [-np.inf, -np.inf])
