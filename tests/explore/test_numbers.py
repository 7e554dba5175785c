"""What the page is told: the library's numbers, of which the textbook's are known."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from krelax.bounds.methods import METHODS, bound
from krelax.errors import InputError
from krelax.explore import textbook
from krelax.explore.answers import Answers, key
from krelax.explore.examples import EXAMPLES
from krelax.explore.model import Question, summary
from krelax.explore.page import modules, page
from krelax.explore.small import group, neuron
from krelax.hull.envelope import upper_envelope
from krelax.hull.polytope import octahedral_rows


def examples(name: str) -> dict[str, Any]:
    """The answer to an example with all weights one."""
    chosen = next(e for e in EXAMPLES if e["name"] == name)
    return group(chosen["bounds"], chosen["slopes"], [1.0] * len(chosen["slopes"]))


@pytest.mark.parametrize(
    ("name", "triangle", "exact"),
    [
        ("Two that share inputs", 3.0, 2.0),
        ("The maximum of two inputs", 1.5, 1.0),
        ("Three that share inputs", 6.0, 3.0),
        ("Three in a ring", 3.0, 2.0),
    ],
)
def test_textbook_numbers(name: str, triangle: float, exact: float) -> None:
    found = examples(name)
    assert found["largest"]["triangle"] == pytest.approx(triangle)
    assert found["largest"]["hull"] == pytest.approx(exact)
    assert found["facet"]["at"] == pytest.approx(exact)
    k = len(found["real"])
    assert sum(found["phantom"][k:]) == pytest.approx(triangle)
    assert sum(found["real"]) <= exact + 1e-9


def test_pairs_of_a_ring_know_less() -> None:
    """What the story of the example says: without the sum of all three the hull allows 3."""
    ring = next(e for e in EXAMPLES if e["name"] == "Three in a ring")
    wide = [b if np.count_nonzero(r) < 3 else 100.0 for r, b in zip(octahedral_rows(3), ring["bounds"], strict=True)]
    assert group(wide, [0, 0, 0], [1.0, 1.0, 1.0])["largest"]["hull"] == pytest.approx(3.0)


def test_a_facet_is_above_the_graph_and_lowest_at_the_phantom() -> None:
    rng = np.random.default_rng(0)
    for k in (2, 3):
        for _ in range(10):
            bounds = np.abs(octahedral_rows(k) @ rng.normal(size=(k, k + 1))).sum(1)
            direction = rng.normal(size=k)
            found = group(bounds.tolist(), [0] * k, direction.tolist())
            points, facet = np.array(found["points"]), found["facet"]
            heights = points[:, k:] @ direction
            planes = points[:, :k] @ facet["slope"] + facet["offset"]
            assert (planes >= heights - 1e-9).all()
            assert facet["at"] <= found["largest"]["hull"] + 1e-6 or found["largest"]["triangle"] < facet["at"]


def test_the_upper_envelope_above_a_point() -> None:
    z = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.4, 0.4]])
    slope, offset = upper_envelope(z, np.array([0.0, 1.0, 1.0, 0.0, 0.2]), np.array([0.3, 0.3]))
    assert slope @ [0.3, 0.3] + offset == pytest.approx(0.6)
    flat, level = upper_envelope(z * [1, 0], np.zeros(5), np.array([0.5, 0.0]))
    assert flat @ [0.5, 0.0] + level == pytest.approx(0.0)


@pytest.mark.parametrize(("name", "area"), [("interval", 6.0), ("zonotope", 2.0), ("planar", 1.5), ("triangle", 1.0)])
def test_areas_of_one_neuron(name: str, area: float) -> None:
    assert neuron(-1.0, 2.0, 0.4)["sets"][name]["area"] == pytest.approx(area)


def test_the_lower_line_with_a_slope_of_ones_own() -> None:
    """Between the chord and α z: two triangles of height u and |l| α with the corner of the chord."""
    found = neuron(-1.0, 2.0, 0.4)["sets"]["alpha"]
    assert found["area"] == pytest.approx(3 * (2 - 0.8 + 0.4) / 2)
    assert found["lower"] == [0.4, 0.0]
    assert neuron(-1.0, 2.0, 1.0)["sets"]["alpha"]["area"] == pytest.approx(1.5)
    assert neuron(1.0, 2.0, 0.0)["sets"]["alpha"]["area"] == pytest.approx(0.0, abs=1e-9)


def test_bounds_that_contradict_each_other_are_empty() -> None:
    assert group([1, 1, 1, 1, 1, 1, 1, -9], [0, 0], [1, 1]) == {"empty": True}
    assert group([-5.0] * 13 + [4.0] * 13, [0, 0, 0], [1, 1, 1]) == {"empty": True}


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("neuron", {"lower": 1, "upper": 0, "slope": 0}),
        ("neuron", {"lower": float("nan"), "upper": 0, "slope": 0}),
        ("neuron", {"lower": "a", "upper": 0, "slope": 0}),
        ("neuron", {"lower": 0}),
        ("neuron", {"lower": 0, "upper": 1, "slope": 0, "activation": "softmax"}),
        ("neuron", {"lower": 0, "upper": 900, "slope": 0, "activation": "exponential"}),
        ("group", {"bounds": [1] * 7, "slopes": [0, 0], "direction": [1, 1]}),
        ("group", {"bounds": [1] * 8, "slopes": [0, 0.5], "direction": [1, 1]}),
        ("group", {"bounds": [1e300] * 8, "slopes": [0, 0], "direction": [1, 1]}),
        ("group", {"bounds": [1] * 80, "slopes": [0] * 4, "direction": [1] * 4}),
        ("group", {"bounds": 3, "slopes": [0, 0], "direction": [1, 1]}),
        ("network", {"chosen": [[0, 1]]}),
        ("network", {"chosen": [[0, 7], []]}),
        ("network", {"chosen": [[0, 0], []]}),
        ("network", {"chosen": 5}),
    ],
)
def test_requests_that_make_no_sense_are_refused(answers: Answers, name: str, given: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        answers.answer(name, given)


def test_groups_tighten_the_certificate_of_the_textbooks_network(everything: dict[str, Any]) -> None:
    side = torch.linspace(-1, 1, 201, dtype=torch.float64)
    reached = textbook.network()(torch.cartesian_prod(side, side)).min()
    assert float(reached) == pytest.approx(textbook.EXACT)
    found = {chosen: everything["network"][key(chosen)]["bound"] for chosen in textbook.choices()}
    assert max(found.values()) <= textbook.EXACT
    alone, pair, triple, all_ = ((), ()), ((0, 1), ()), ((0, 1, 2), ()), ((0, 1, 2), (0, 1, 2))
    assert found[alone] < found[pair] < 0 < found[triple] < found[all_]
    assert found[alone] == pytest.approx(-2.222, abs=0.02)


def test_what_groups_gained_is_never_negative(question: Question, everything: dict[str, Any]) -> None:
    found = everything["layers"]
    gains = [g["gain"] for layer in found["layers"] for g in layer["groups"]]
    assert gains
    for layer in found["layers"]:
        assert layer["count"] == len(layer["groups"])
        assert layer["gained"] == pytest.approx(sum(g["gain"] for g in layer["groups"]))
    assert min(gains) >= -1e-9
    assert max(gains) > 1e-3
    assert found["bounds"][1] > found["bounds"][0]
    for name, value in zip(("alpha", "krelu"), found["bounds"], strict=True):
        assert value == pytest.approx(float(bound(question.instance, question.queries, METHODS[name]).value.min()))
    assert all(len(layer["states"]) == layer["neurons"] == 8 for layer in found["layers"])


def test_the_ladder_is_complete_and_below_the_attack(everything: dict[str, Any]) -> None:
    ladder = everything["ladder"]
    assert [row["method"] for row in ladder["rows"]] == list(METHODS)
    assert ladder["done"]
    assert max(row["bound"] for row in ladder["rows"]) <= ladder["attack"] + 1e-6


def test_a_page_is_one_file_that_asks_for_nothing(question: Question, everything: dict[str, Any]) -> None:
    html = page(question, everything)
    assert "@data@" not in html
    assert {"main.js", "geometry.js"} < set(modules())
    assert all(f'"explore/{name.removesuffix(".js")}"' in html for name in modules())
    assert "http" not in html.replace("http://www.w3.org", "")
    start = html.index('id="data">') + len('id="data">')
    data = json.loads(html[start : html.index("</script>", start)])
    assert data["answers"]["ladder"]["rows"] == everything["ladder"]["rows"]
    assert data["question"] == json.loads(json.dumps(summary(question)))
