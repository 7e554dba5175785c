"""Two networks of one structure in the values of one and of what both differ by: the same functions, and an activation
whose price is its support function."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from tests.certificate.values import ACTIVATIONS, evaluate
from tests.run.conformance import ONE, SAME, VERSION, F, G, files
from tests.run.files import model, node, save, tensor

from krelax.certificate.check import check, network_of
from krelax.certificate.errors import Malformed, Rejected
from krelax.certificate.format.archive import read
from krelax.certificate.format.schema import Certificate, Given, Part, Question, Region, System
from krelax.certificate.kernel.activations.difference import Difference
from krelax.certificate.kernel.arithmetic import Exact, Float64
from krelax.certificate.kernel.bounds import LayerBounds
from krelax.certificate.kernel.linear import Dense, Pick, Scale
from krelax.certificate.kernel.network import Affine, Network
from krelax.certificate.kernel.region import Region as Inputs
from krelax.certificate.onnx.apart import _between, _combined
from krelax.certificate.onnx.model import read_model
from krelax.cli import cli

RNG = np.random.default_rng(0)


def boxes(count: int) -> tuple[Any, Any]:
    """Intervals of pairs, some of them points, and some with an end at zero, or whose ends add up to it."""
    middle, radius = RNG.normal(0, 1, (count, 2)), RNG.exponential(1, (count, 2)) * (RNG.random((count, 2)) < 0.9)
    lower, upper = middle - radius, middle + radius
    lower[:20, 0] = 0.0
    upper[20:40, 1] = -lower[20:40, 0]
    return np.minimum(lower, upper), np.maximum(lower, upper)


@pytest.mark.parametrize("leak", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
def test_the_price_is_the_support_function(ar: Any, leak: float) -> None:
    rule, (lower, upper) = Difference(leak), boxes(300)
    coeff, slope = RNG.normal(0, 1, (300, 1)), RNG.normal(0, 0.5, (300, 2))
    price = ar.floats(rule.price(ar, rule.behind(ar.number(coeff)), ar.number(slope), (lower, upper)))[:, 0]
    low, high = (end[:, 0] for end in rule.interval((lower, upper), False))
    worst, least, most = np.full(300, -np.inf), np.full(300, np.inf), np.full(300, -np.inf)
    for t in np.stack(np.meshgrid(*[np.linspace(0, 1, 61)] * 2), -1).reshape(-1, 2):
        z = np.clip(lower + t * (upper - lower), lower, upper)
        a = ACTIVATIONS[Difference](rule, z)[:, 0]
        worst = np.maximum(worst, (slope * z).sum(1) - coeff[:, 0] * a)
        least, most = np.minimum(least, a), np.maximum(most, a)
    assert (price >= worst - 1e-12).all()
    assert np.allclose(price, worst, atol=0.2)  # the grid misses kinks
    assert np.median(price - worst) < 1e-3
    assert (low <= least + 1e-14).all()  # what is searched rounds
    assert (high >= most - 1e-14).all()
    assert np.median(np.maximum(least - low, high - most)) < 1e-3


def test_where_nothing_is_known_nothing_is_said() -> None:
    rule, ends = Difference(0.0), (np.array([[-np.inf, -1.0, 0.0, 0.0]]), np.array([[1.0, 1.0, 1.0, 0.5]]))
    assert rule.interval(ends, False)[0].tolist() == [[-1.0, 0.0]]  # it is no larger than d
    one = np.ones((1, 2))
    price = rule.price(Float64(), rule.behind(one), np.zeros((1, 4)), ends)
    assert price[0, 0] == np.inf
    assert price[0, 1] == 0
    assert rule.price(Float64(), rule.behind(0 * one), np.zeros((1, 4)), ends)[0, 0] == 0


def saved(folder: Path, name: str, change: float, kinds: tuple[str, ...], alike: bool = True) -> Path:
    """A network of 3 inputs with such activations, the same but for a change of all constants behind the first ones."""
    rng, size, x, nodes, constants = np.random.default_rng(7), 3, "x", list[Any](), dict[str, Any]()
    more = np.random.default_rng(8)
    for i, kind in enumerate((*kinds, "")):
        after = 2 if not kind else 4
        w, b = rng.normal(0, 1, (after, size)), rng.normal(0, 0.3, after)
        if i and change:
            w, b = w + change * more.normal(0, 1, w.shape), b + change * more.normal(0, 1, b.shape)
        constants |= {f"w{i}": w.astype(np.float32), f"b{i}": b.astype(np.float32)}
        nodes.append(node("Gemm", x, f"w{i}", f"b{i}", f"z{i}", transB=1))
        if kind == "Scaled":
            constants[f"s{i}"] = np.float32(3.0 + change)
            nodes += [node("Div", f"z{i}", f"s{i}", f"u{i}"), node("Relu", f"u{i}", f"a{i}")]
        elif kind:
            nodes.append(node(kind, f"z{i}", f"a{i}", **({"alpha": 0.25} if kind == "LeakyRelu" else {})))
        x, size = f"a{i}", after
    if not alike:
        nodes.append(node("Relu", f"z{len(kinds)}", "y"))
    made = model(nodes, constants, [tensor("x", [1, 3])], [tensor("y" if not alike else f"z{len(kinds)}", [1, 2])])
    return save(made, folder / f"{name}.onnx")


def both(one: Path, other: Path, apart: bool | None) -> Network:
    """The values of two networks, those of the first one first."""
    models = [read_model(path) for path in (one, other)]
    numbers = np.arange(3, dtype=np.int32)
    names = [onnx.load(str(path)).graph.output[0].name for path in (one, other)]
    parts = [Part(m.hash, [Given("x", numbers)], [name]) for m, name in zip(models, names, strict=True)]
    system = System(parts, np.arange(4, dtype=np.int32), 2 * np.arange(4, dtype=np.int32) + 1, apart)
    question: Any = None
    return network_of(Certificate(None, "real", "test", [question], system=system), models)[0]


def bounds_of(network: Network, lowest: float, ar: Any) -> LayerBounds:
    """By interval arithmetic, over all inputs from the lowest number to one."""
    region = Inputs.of(Region("box", np.full(3, lowest), np.ones(3)))
    return LayerBounds.of(network, region, ar, False).over(network)


KINDS = [("Relu", "Relu"), ("LeakyRelu", "Relu"), ("Tanh", "Relu"), ("Relu", "Sigmoid", "Relu"), ("Scaled", "Relu")]


@pytest.mark.parametrize("kinds", KINDS, ids="-".join)
@pytest.mark.parametrize("change", [0.0, 1e-9, 0.1])
def test_both_forms_are_the_same_functions(tmp_path: Path, kinds: tuple[str, ...], change: float) -> None:
    """At points, and enclosed over a box; differences are as small as they are."""
    one, other = saved(tmp_path, "one", 0.0, kinds), saved(tmp_path, "other", change, kinds)
    beside, apart = (both(one, other, kind) for kind in (None, True))
    x = RNG.normal(0, 1, (50, 3))
    first, second = evaluate(beside, x)[-1], evaluate(apart, x)[-1]
    np.testing.assert_allclose(second, first, rtol=0, atol=1e-12)
    for ar in (Float64(), Exact()):
        bounds = bounds_of(apart.over(ar), -1.0, ar)
        inside = evaluate(apart, np.clip(x, -1, 1))
        for low, high, here in zip(bounds.lower, bounds.upper, inside, strict=True):
            assert ((low <= here + 1e-12) & (here <= high + 1e-12)).all()
    differences = sum(isinstance(getattr(n, "rule", None), Difference) for n in apart.nodes)
    # quotients are enclosed, and so never known to be the same
    first = 0 if kinds[0] == "Scaled" else 1 if change else len(kinds)
    assert differences == sum(kind in {"Relu", "LeakyRelu", "Scaled"} for kind in kinds[first:])


def test_rounded_differences_of_constants_are_charged(tmp_path: Path) -> None:
    """1 less 2**-80 is no float64 number: what is missing is enclosed, and counted by exact numbers, too."""
    one, other = (tmp_path / f"{name}.onnx" for name in ("one", "other"))
    for path, weight in ((one, 1.0), (other, 2.0**-80)):
        constants = {"w": np.full((2, 3), weight, np.float32)}
        save(model([node("Gemm", "x", "w", "z", transB=1)], constants, [tensor("x", [1, 3])],
                   [tensor("z", [1, 2])]), path)  # fmt: skip
    network = both(one, other, True)
    affine = [n for n in network.nodes if isinstance(n, Affine) and n.fuzz]
    assert [n.fuzz for n in affine] == [2.0**-52]
    for ar in (Float64(), Exact()):
        bounds = bounds_of(network.over(ar), 1.0, ar)
        assert bounds.lower[-1][0, 0] < 3
        assert bounds.upper[-1][0, 0] > 3


def test_networks_that_differ_in_what_they_add(tmp_path: Path) -> None:
    one, other = (tmp_path / f"{name}.onnx" for name in ("one", "other"))
    for path, more in ((one, 0.25), (other, 1.0)):
        constants = {"w": np.eye(2, 3, dtype=np.float32), "b": np.full(2, more, np.float32)}
        save(model([node("Gemm", "x", "w", "b", "z", transB=1)], constants, [tensor("x", [1, 3])],
                   [tensor("z", [1, 2])]), path)  # fmt: skip
    x = RNG.normal(0, 1, (5, 3))
    beside, apart = (evaluate(both(one, other, kind), x)[-1] for kind in (None, True))
    np.testing.assert_allclose(apart, beside, atol=1e-15)


def test_maps_of_other_kinds_are_not_subtracted() -> None:
    """Both values are had then."""
    dense, scale = Dense(np.eye(2)), Scale(np.ones(2))
    picks = [Pick(np.array(index), 2) for index in ([0, 1], [1, 0])]
    assert _combined(dense, scale, -1.0) is None
    assert _combined(dense, Dense(np.eye(2, 3)), -1.0) is None
    assert _combined(dense, Dense(np.full((2, 2), -1.7e308)), -1.0) is not None
    assert _combined(Dense(np.full((2, 2), 1.7e308)), Dense(np.full((2, 2), -1.7e308)), -1.0) is None
    assert _combined(picks[0], picks[0], -1.0) is picks[0]
    assert _combined(picks[0], picks[1], -1.0) is None
    assert _combined(picks[0], dense, -1.0) is None
    plain = Affine((0,), (dense,), 2)
    assert _between(plain, Affine((0,), (dense,), 2, within=4.0)) is None
    assert _between(plain, Affine((0, 0), (dense, dense), 2)) is None
    assert _between(plain, Affine((0,), (scale,), 2)) is None
    assert _between(*(Affine((0,), (picks[0],), 2, fuzz=2.0**-50) for _ in range(2))) is None


def test_other_structures_are_refused(tmp_path: Path) -> None:
    one, longer = saved(tmp_path, "one", 0.0, ("Relu",)), saved(tmp_path, "longer", 0.0, ("Relu",), alike=False)
    with pytest.raises(Malformed, match="do not correspond"):
        both(one, longer, True)
    other = saved(tmp_path, "other", 0.0, ("Tanh",))
    x = RNG.normal(0, 1, (5, 3))
    beside, apart = (evaluate(both(one, other, kind), x)[-1] for kind in (None, True))
    np.testing.assert_allclose(apart, beside, atol=1e-12)  # of other activations both values are had


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path], Certificate]:
    """A proof that two networks are near each other, which needs what they differ by."""
    folder = tmp_path_factory.mktemp("apart")
    nets, query, path = files(folder), folder / "query.vnnlib", folder / "proof.zip"
    text = F + G + ONE + SAME + "(assert (or (> (- Y[0,0] V[0,0]) 0.02) (< (- Y[0,0] V[0,0]) -0.02)))"
    query.write_text(VERSION + text, "utf-8")
    given = [str(query), "--network", f"f={nets['net']}", "--network", f"g={nets['near']}"]
    found = CliRunner().invoke(cli, ["verify", *given, "--certificate", str(path), "--check"], catch_exceptions=False)
    assert found.stdout == "unsat\n", found.output
    arguments = [str(path), *given[1:], "--spec", str(query)]
    taken = CliRunner().invoke(cli, ["check", *arguments], catch_exceptions=False, standalone_mode=False)
    assert taken.return_value == 0, taken.output
    return query, nets, read(path)


def test_near_networks_have_proofs_of_what_they_differ_by(
    proven: tuple[Path, dict[str, Path], Certificate],
) -> None:
    _, nets, certificate = proven
    assert certificate.system is not None
    assert certificate.system.apart
    models = [read_model(nets[name]) for name in ("net", "near")]
    assert min(check(certificate, models, exact=True)) > 0


def far(certificate: Any, nets: dict[str, Path]) -> None:
    """The same of networks that are not so near."""
    certificate.system.parts[1].network = read_model(nets["far"]).hash


def other_way(certificate: Any, nets: dict[str, Path]) -> None:
    certificate.system.apart = None


def three(certificate: Any, nets: dict[str, Path]) -> None:
    certificate.system.parts.append(certificate.system.parts[1])


def elsewhere(certificate: Any, nets: dict[str, Path]) -> None:
    """The second one at other inputs."""
    certificate.system.parts[1].inputs[0].places = np.array([1, 0], np.int32)


def nearer(certificate: Any, nets: dict[str, Path]) -> None:
    for question in certificate.questions:
        question.offsets = question.offsets - 0.0101


@pytest.mark.parametrize("forge", [far, other_way, three, elsewhere, nearer], ids=lambda f: f.__name__)
def test_forgeries_are_refused(proven: tuple[Path, dict[str, Path], Certificate], forge: Any) -> None:
    """Also without the query."""
    _, nets, genuine = proven
    model_of = onnx.load(str(nets["near"]))
    model_of.graph.initializer[0].raw_data = (
        onnx.numpy_helper.to_array(model_of.graph.initializer[0]) * np.float32(1.5)
    ).tobytes()
    nets = nets | {"far": save(model_of, nets["near"].with_name("far.onnx"))}
    certificate = deepcopy(genuine)
    forge(certificate, nets)
    models = [read_model(nets[name]) for name in ("net", "far" if forge is far else "near")]
    with pytest.raises((Malformed, Rejected)):
        check(certificate, models)


def test_random_changes_are_refused_or_true(proven: tuple[Path, dict[str, Path], Certificate]) -> None:
    """Of slopes, points, trees and what is asked: nothing proves more than what both networks differ by at corners."""
    _, nets, genuine = proven
    models, rng = [read_model(nets[name]) for name in ("net", "near")], np.random.default_rng(1)
    network = network_of(genuine, models)[0]
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 21)] * 2), -1).reshape(-1, 2)
    outputs = evaluate(network, grid)[-1]
    kept = 0
    for _ in range(60):
        certificate: Any = deepcopy(genuine)
        question: Question = certificate.questions[rng.integers(len(certificate.questions))]
        places = list(_arrays(question))
        owner, name = places[rng.integers(len(places))]
        array = getattr(owner, name).copy()
        if not array.size:
            continue
        flat = array.reshape(-1)
        with np.errstate(over="ignore"):
            flat[rng.integers(flat.size)] += array.dtype.type(rng.choice([-1, 1]))
        setattr(owner, name, array)
        try:
            margins = check(certificate, models)
        except (Malformed, Rejected):
            continue
        kept += 1
        for margin, q in zip(margins, certificate.questions, strict=True):
            inside = ((grid >= q.region.lower) & (grid <= q.region.upper)).all(1)
            values = outputs[inside] @ q.rows.T + q.offsets
            clauses = [values[:, q.clause == n].max(1) for n in np.unique(q.clause)]
            assert margin <= np.min(clauses) + 1e-9
    assert kept


def _arrays(value: Any) -> Any:
    for name, item in vars(value).items():
        if isinstance(item, np.ndarray):
            yield value, name
        for inner in item if isinstance(item, list) else [item]:
            if hasattr(inner, "__dataclass_fields__"):
                yield from _arrays(inner)
