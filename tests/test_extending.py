"""The recipe of docs/extending.md for an activation, followed to the letter with its own code: asinh."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from tests.activations import kit, test_contract
from tests.bounds.problems import METHODS
from tests.crossings import runs, sketches
from tests.marks import at_night_after
from torch import nn

import krelax
from krelax.activations import ACTIVATIONS, Activation, ReLU, Rule
from krelax.bounds.backward import outputs
from krelax.bounds.evaluator import Evaluator
from krelax.bounds.instance import Instance
from krelax.bounds.methods import bound
from krelax.bounds.optimise import Ascent
from krelax.certificate.check import check
from krelax.certificate.errors import Rejected
from krelax.certificate.format.archive import read
from krelax.certificate.kernel.activations import RULES
from krelax.certificate.kernel.arithmetic import Exact, Float64
from krelax.certificate.onnx.model import read_model
from krelax.certificate.onnx.operator import OPERATORS
from krelax.errors import UnsupportedError
from krelax.network import nonlinear, onnx_operators, torch_numbers, torch_operators
from krelax.network.graph import Builder, Network
from krelax.network.linear import Dense
from krelax.problem.queries import Queries
from krelax.problem.region import Box
from krelax.run.certificates import Certificates
from krelax.search.pipeline import decide
from krelax.search.verdict import Outcome, Verdict

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
TABLES: list[dict[str, Any]] = [
    ACTIVATIONS,
    nonlinear.ONNX,
    nonlinear.TORCH,
    onnx_operators.READERS,
    torch_operators.READERS,
    RULES,
    OPERATORS,
    sketches.ACTIVATIONS,
]


def blocks() -> dict[int, list[str]]:
    """The code of every step of the recipe, by its number."""
    section = PAGE.read_text(encoding="utf-8").split("\n## An activation\n")[1].split("\n## ")[0]
    steps = re.split(r"^\*\*(\d)\. ", section, flags=re.MULTILINE)[1:]
    code = (re.findall(r"^```python\n(.*?)^```$", step, re.DOTALL | re.MULTILINE) for step in steps[1::2])
    return dict(zip(map(int, steps[::2]), code, strict=True))


def as_module(code: str, path: Path, name: str) -> ModuleType:
    """A new file."""
    path.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("asinh")


@pytest.fixture(scope="module", autouse=True)
def asinh(folder: Path) -> Iterator[kit.Elementwise]:
    """Krelax as it is when every block stands where the recipe puts it; afterwards all tables are as they were."""
    before = [dict(table) for table in TABLES]
    code = blocks()
    (whole,), (table,), (names,), (rule, entry), (line,) = (code[step] for step in range(1, 6))
    # not of krelax by name: other tests count its activations, and classes live on
    new = as_module(whole, folder / "asinh.py", "recipe.asinh")
    ours = as_module(rule, folder / "rule.py", "recipe.rule")
    bounds = {"Asinh": new.Asinh, "ACTIVATIONS": ACTIVATIONS}
    for place, block in ((krelax.activations, table), (nonlinear, names)):
        exec(block, vars(place) | bounds)
    exec(entry, {"RULES": RULES, "Asinh": ours.Asinh})
    # these read the tables of names once; readers of parts, of which the recipe lets this one go, must be there before
    assert torch_numbers.__name__ in sys.modules
    OPERATORS["Asinh"] = OPERATORS["Relu"]
    onnx_operators.READERS["Asinh"] = onnx_operators.READERS["Sigmoid"]
    torch_operators.READERS["asinh"] = torch_operators.READERS["sigmoid"]
    lines = vars(kit) | bounds
    exec(line, lines)
    sketches.ACTIVATIONS["asinh"] = lines["ASINH"]
    yield lines["ASINH"]
    del sys.modules[new.__name__], sys.modules[ours.__name__]
    for table_, saved in zip(TABLES, before, strict=True):
        table_.clear()
        table_.update(saved)


def test_the_recipe_names_at_most_five_source_files() -> None:
    section = PAGE.read_text(encoding="utf-8").split("\n## An activation\n")[1].split("**1. ")[0]
    files = re.findall(r"^\| `([\w/]+\.py)`", section, re.MULTILINE)
    assert 0 < len(files) <= 5
    sources = PAGE.parents[1] / "src" / "krelax"
    assert [f for f in files if not (sources / f).exists()] == [
        "activations/asinh.py",
        "certificate/kernel/activations/asinh.py",
    ]


# --- what is true of it


@pytest.mark.parametrize("dtype", at_night_after(1, test_contract.DTYPES), ids=str)
def test_it_keeps_the_contract(asinh: kit.Elementwise, dtype: torch.dtype) -> None:
    test_contract.test_support_encloses_the_graph_and_is_attained_on_it(asinh, dtype, 1)
    test_contract.test_interval_contains_every_value(asinh, dtype, 1)


def test_it_keeps_the_rest_of_the_contract(asinh: kit.Elementwise) -> None:
    for rule in (Rule.PARALLEL, Rule.ADAPTIVE):
        test_contract.test_lines_of_every_rule_enclose_the_graph(asinh, torch.float64, rule, 1)
    test_contract.test_lines_with_slopes_inside_the_range_enclose_the_graph(asinh, torch.float64, 1)
    test_contract.test_pieces_of_split_neurons_cover_the_graph(asinh, torch.float64, 1)
    test_contract.test_neurons_are_split_inside_their_intervals(asinh, torch.float64)
    test_contract.test_a_line_touches_the_graph_where_it_says(asinh)
    test_contract.test_any_shape_of_neurons(asinh)


# --- bounds


def network(*activations: Activation) -> Network:
    """Two inputs, a dense layer of three before every activation, two outputs."""
    draw = torch.Generator().manual_seed(15)
    builder, node, width = Builder((2,)), 0, 2
    for op, out in [*((op, 3) for op in activations), (None, 2)]:
        weight, bias = (torch.randn(*shape, generator=draw).double() for shape in ((out, width), (out,)))
        node, width = builder.add(Dense(1.5 * weight, bias), node), out
        node = node if op is None else builder.add(op, node)
    return builder.build(node)


def exactly(net: Network, x: list[float], act: Any) -> list[Any]:
    """The outputs at an input to 60 digits."""
    values = [mpmath.mpf(v) for v in x]
    for node in net.nodes[1:]:
        if isinstance(node.op, Dense):
            assert node.op.bias is not None
            rows = zip(node.op.weight.tolist(), node.op.bias.tolist(), strict=True)
            values = [mpmath.fsum([b, *(w * v for w, v in zip(row, values, strict=True))]) for row, b in rows]
        else:
            values = [max(v, mpmath.mpf(0)) if isinstance(node.op, ReLU) else act(v) for v in values]
    return values


REGION = Box(torch.tensor([[-1.5, -1.0]]).double(), torch.tensor([[1.5, 2.0]]).double())
QUERIES = Queries(
    torch.eye(2).double().repeat(2, 1)[None] * torch.tensor([1.0, 1.0, -1.0, -1.0]).double()[None, :, None],
    torch.zeros(1, 4).double(),
    torch.zeros(1, 4, dtype=torch.long),
    1,
)


@pytest.mark.parametrize("method", METHODS)
def test_no_bound_is_above_any_value(asinh: kit.Elementwise, method: str) -> None:
    """At the input of a grid where a margin is smallest, to 60 digits and without tolerance."""
    net = network(asinh.op, ReLU(), asinh.op)
    found = bound(Instance.of(net, REGION), QUERIES, METHODS[method]).value[0].tolist()
    ends = zip(REGION.lower[0], REGION.upper[0], strict=True)
    grid = torch.cartesian_prod(*(torch.linspace(float(l), float(u), 41).double() for l, u in ends))
    places = (QUERIES.rows[0] @ net(grid).T).argmin(1)
    for row, lowest, place in zip(QUERIES.rows[0].tolist(), found, places.tolist(), strict=True):
        reached = exactly(net, grid[place].tolist(), asinh.act)
        assert -1e3 < lowest <= sum(w * y for w, y in zip(row, reached, strict=True)), method


@pytest.mark.parametrize("depth", [3, 6])
def test_searches_split_it(asinh: kit.Elementwise, depth: int) -> None:
    """Where its chord is farthest, and again; and its leaves hold at the inputs that lie in them."""
    net = network(asinh.op)
    instance = Instance.of(net, REGION)
    bounds = bound(instance, QUERIES, METHODS["crown"]).bounds
    forms = [outputs(n, QUERIES.rows.to(n.dtype), QUERIES.offsets.to(n.dtype)) for n in (net, instance.fast_network)]
    evaluator = Evaluator(instance, bounds, *forms)
    leaves = evaluator.roots(torch.arange(1), depth=depth + 1)
    with torch.no_grad():
        for _ in range(depth):
            evaluator.improve(leaves, Ascent(3, 0.1, 0.9))
            assert bool((leaves.branch >= 0).all())
            leaves = leaves.children()
        proven = evaluator.prove(leaves)
    assert len(leaves.point.unique()) > 3
    ends = zip(REGION.lower[0], REGION.upper[0], strict=True)
    grid = torch.cartesian_prod(*(torch.linspace(float(l), float(u), 41).double() for l, u in ends))
    z, margin = net.nodes[1].op.forward(grid), QUERIES.rows[0, 0] @ net(grid).T
    inside = torch.zeros(len(grid), dtype=torch.bool)
    for row in range(len(leaves)):
        splits = zip(*(t[row, :depth].tolist() for t in (leaves.neuron, leaves.point, leaves.side)), strict=True)
        here = torch.stack([side * (z[:, n] - p) >= 0 for n, p, side in splits]).all(0)
        inside |= here
        assert not bool(here.any()) or float(proven[row]) <= float(margin[here].min())
    assert bool(inside.all())


def test_pairs_of_it_need_nothing_more(asinh: kit.Elementwise) -> None:
    net = network(asinh.op, ReLU())
    instance = Instance.of(net, REGION)
    alone, found = (bound(instance, QUERIES, METHODS[name]) for name in ("alpha", "krelu"))
    assert set(found.bounds.groups) == set(net.activations())
    assert bool((found.value >= alone.value - 1e-9).all())


# --- files


class _Module(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 3), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.second(torch.asinh(self.first(x)))
        return result


def test_torch_modules_are_read(asinh: kit.Elementwise) -> None:
    torch.manual_seed(0)
    module = _Module().double()
    net = krelax.from_torch(module, torch.zeros(1, 2, dtype=torch.float64))
    assert [type(net.nodes[i].op) for i in net.activations()] == [type(asinh.op)]
    x = torch.randn(5, 1, 2).double() * 9
    torch.testing.assert_close(net(x), module(x), rtol=1e-13, atol=1e-13)


# Plans, and models in which they have something to do: the second has ReLUs, too.
PLANS = [
    *(("residual", plan) for plan in ("auto", "crown", "alpha", "lp", "boxes", "neurons")),
    *(("maxima-and-clips", plan) for plan in ("krelu", "neurons", "contradictions")),
]


@pytest.mark.parametrize(("model", "plan"), PLANS)
def test_questions_about_onnx_files_are_answered_and_proven(model: str, plan: str, folder: Path) -> None:
    """Read from a file that ONNX Runtime agrees with, decided, and checked by the checker."""
    region = runs.REGIONS[PLANS.index((model, plan)) % len(runs.REGIONS)]
    crossing = runs.Crossing(model, "asinh", plan, region, "several", "written", "together")
    assert runs.run(crossing, folder, 0.5, runs.QUICK) == []


def proof(folder: Path) -> tuple[Path, Path]:
    """A model and a certificate about it."""
    path, net = runs.loaded("dense", "asinh", folder)
    here, every = runs.questions("dense", "asinh", "box", "one", folder)
    keeper, found = Certificates(folder, path, True), list[Outcome]()
    asked = runs.put_together(net, here, [q for q in every if q.name == "easy"])
    decide(net, asked, runs.PLANS["alpha"], lambda _, o: found.append(o), proofs=True)
    outcome, written = keeper.write("proof.zip", found[0])
    assert outcome.verdict is Verdict.HOLDS
    assert written is not None
    return path, written.path


def test_certificates_are_accepted_and_tampered_ones_are_not(folder: Path) -> None:
    model, written = proof(folder)
    certificate, data = read(written), read_model(model)
    for exact in (False, True):
        assert min(check(certificate, data, exact=exact)) > 0
    question = certificate.questions[0]
    assert question.margins is not None
    assert any(c.lines is not None for c in question.margins.crossings)
    more = replace(question, offsets=question.offsets - 10)
    wider = replace(question, region=replace(question.region, upper=question.region.upper + 3))
    for wrong in (more, wider):
        for exact in (False, True):
            with pytest.raises(Rejected):
                check(replace(certificate, questions=[wrong]), data, exact=exact)


def test_without_its_rule_the_checker_refuses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, written = proof(folder)
    monkeypatch.delitem(OPERATORS, "Asinh")
    with pytest.raises(UnsupportedError, match="Asinh"):
        check(read(written), read_model(model))


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
def test_the_price_of_the_rule_is_the_support_function(ar: Any) -> None:
    """Against a search of the interval; never below it."""
    rng = np.random.default_rng(1)
    middle, radius = rng.normal(0, 3, (300, 1)), rng.exponential(2, (300, 1))
    ends = middle - radius, middle + radius
    coeff, slope = rng.normal(0, 1, (300, 1)), rng.normal(0, 0.3, (300, 1))
    coeff[:30], slope[30:60] = 0.0, 0.0
    with np.errstate(divide="ignore", invalid="ignore"):  # as checks do
        price = ar.floats(RULES["Asinh"]().price(ar, ar.number(coeff), ar.number(slope), ends))
    z = ends[0] + (ends[1] - ends[0]) * np.linspace(0, 1, 4000)
    searched = (slope * z - coeff * np.arcsinh(z)).max(1)
    assert (price[:, 0] >= searched - 1e-13).all()
    assert np.allclose(price[:, 0], searched, atol=1e-5)


def test_the_interval_of_the_rule_contains_every_value(asinh: kit.Elementwise) -> None:
    """Against 60 digits, without tolerance."""
    ends = np.array(test_contract.INTERVALS).T
    low, high = RULES["Asinh"]().interval((ends[0], ends[1]), False)
    for interval, a, b in zip(test_contract.INTERVALS, low.tolist(), high.tolist(), strict=True):
        assert all(a <= asinh.act(z) <= b for z in test_contract.graph_points(interval)), interval
