"""The page in a browser: its numbers are the library's, every control does what it says, and everything can be read.

Skipped where there is no browser.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.explore.pages import BLANK, CLIPPED, DESK, PHONE, Seen, drawn, number, slide
from tests.marks import at_night_after

from krelax.activations.joint import Joint
from krelax.explore.answers import Answers
from krelax.explore.curves import CURVES
from krelax.explore.examples import EXAMPLES
from krelax.explore.model import Question
from krelax.explore.page import page as written
from krelax.explore.server import Server
from krelax.explore.small import group, neuron
from krelax.hull.polytope import octahedral_rows

TOP = "document.querySelector('[data-top=triangle]').dataset.value"
VIEWS = ("neuron", "group", "network", "ladder")


@pytest.fixture(scope="session")
def exported(question: Question, everything: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of an exported page."""
    file: Path = tmp_path_factory.mktemp("page") / "page.html"
    file.write_text(written(question, everything), encoding="utf-8")
    return file.as_uri()


@pytest.fixture(params=["served", pytest.param("exported", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest) -> str:
    """Both kinds of page; by day what is exported is opened by other tests."""
    found = request.getfixturevalue(request.param)
    return found.url if isinstance(found, Server) else found


def cases() -> list[dict[str, Any]]:
    """The examples and random groups, some flat, stable, empty, tight or with pass-through members."""
    rng, found = np.random.default_rng(1), []
    for example in EXAMPLES:
        k = len(example["slopes"])
        for direction in ([1.0] * k, [1.0, -0.5, 2.0][:k], [-1.0] * k):
            found.append({"bounds": example["bounds"], "slopes": example["slopes"], "direction": direction})
    for i in range(120):
        k = 2 + i % 2
        rows = octahedral_rows(k)
        spread = np.abs(rows @ rng.normal(size=(k, k + 1 - i % 3))).sum(1)
        bounds = spread * rng.uniform(0.7, 1.1, size=len(rows)) + rows @ rng.normal(size=k) * (i % 5) / 4
        bounds = np.minimum(bounds, 50.0) - 3.0 * (i % 40 == 39)
        slopes = [0] * (k - 1) + [int(i % 7 == 6)]
        found.append({"bounds": bounds.tolist(), "slopes": slopes, "direction": rng.normal(size=k).round(2).tolist()})
    return found


def test_what_the_page_computes_is_what_the_library_computes(seen: Seen, exported: str) -> None:
    given = cases()
    page = seen.open(exported, "group")
    script = "async given => { const m = await import('explore/geometry'); return given.map(m.group); }"
    empty = 0
    for asked, found in zip(given, page.evaluate(script, given), strict=True):
        wanted = group(**asked)
        assert found["empty"] == wanted["empty"]
        if wanted["empty"]:
            empty += 1
            continue
        for name, value in wanted["largest"].items():
            assert found["largest"][name] == pytest.approx(value, abs=1e-6), (name, asked)
        assert found["facet"]["at"] == pytest.approx(wanted["facet"]["at"], abs=1e-6), asked
        assert _proven(asked, found["facet"]["slope"]) == pytest.approx(found["facet"]["offset"], abs=1e-6)
        k = len(asked["direction"])
        heights = [np.dot(answer["phantom"][k:], asked["direction"]) for answer in (found, wanted)]
        assert heights[0] == pytest.approx(heights[1], abs=1e-6)
    assert 0 < empty < 10


def _proven(asked: dict[str, Any], slope: list[float]) -> float:
    """The least offset with which `direction . a <= slope . z + offset` holds, by the library."""
    rows = torch.from_numpy(octahedral_rows(len(slope)))
    bounds = torch.tensor(asked["bounds"], dtype=torch.float64).reshape(1, 1, -1)
    joint = Joint(rows, bounds, tuple(map(float, asked["slopes"])))
    forms = (-torch.tensor(t, dtype=torch.float64).reshape(1, 1, -1, 1) for t in (slope, asked["direction"]))
    return float(joint.support(*forms).value)


def test_one_neuron_of_the_page_is_that_of_the_library(seen: Seen, exported: str) -> None:
    ends = [(l, u) for l, u in product((-3.0, -1.25, 0.0, 0.4), (-0.5, 0.0, 1.0, 2.5)) if l < u]
    given = [{"lower": l, "upper": u, "slope": s} for l, u in ends for s in (0.0, 0.3, 1.0)]
    page = seen.open(exported, "neuron")
    script = "async given => { const m = await import('explore/geometry'); return given.map(m.neuron); }"
    for asked, found in zip(given, page.evaluate(script, given), strict=True):
        for name, wanted in neuron(**asked)["sets"].items():
            assert found["sets"][name]["area"] == pytest.approx(wanted["area"], abs=1e-6)
            for side in ("lower", "upper"):
                assert found["sets"][name].get(side) == (pytest.approx(wanted[side]) if side in wanted else None)


@pytest.mark.parametrize("count", at_night_after(1, [2, 5]))
def test_curves_of_the_page_are_those_of_the_library(seen: Seen, exported: str, count: int) -> None:
    """Graphs are sampled there, at a hundred points for each unit: numbers are nearly those of the library."""
    ends = [(-2.0, 1.0), (0.2, 2.65), (-1.25, -0.3), (-3.0, 3.0), (-0.2, 3.0)][:count]
    given = [
        {"lower": l, "upper": u, "slope": s, "activation": name}
        for name in CURVES
        if name != "ReLU"
        for l, u in ends
        for s in (-0.2, 0.7)
    ]
    page = seen.open(exported, "neuron")
    script = """async given => {
        const { neuron } = await import('explore/geometry'), { data } = await import('explore/source');
        return given.map(asked => neuron({ ...asked, curve: data.curves[asked.activation] }));
    }"""
    for asked, found in zip(given, page.evaluate(script, given), strict=True):
        sets = neuron(**asked)["sets"]
        near = 0.03 * (1 + sets["interval"]["area"] / (asked["upper"] - asked["lower"]))
        for name, wanted in sets.items():
            assert found["sets"][name]["area"] == pytest.approx(wanted["area"], abs=near)
            for side in ("lower", "upper"):
                line = pytest.approx(wanted[side], abs=5 * near) if side in wanted else None
                assert found["sets"][name].get(side) == line


def test_the_neuron_may_be_a_curve(seen: Seen, url: str) -> None:
    page = seen.open(url, "neuron")
    drawn(page, "neuron")
    before = page.locator(".neuron canvas").screenshot()
    page.get_by_role("combobox").select_option("sigmoid")
    page.wait_for_function("document.querySelector('.neuron .verdict').textContent.startsWith('Bent')")
    for name, found in neuron(-1.0, 2.0, 0.2, "sigmoid")["sets"].items():
        assert number(page, f".neuron [data-number={name}]") == pytest.approx(found["area"], abs=1e-3)
    assert "e⁻ᶻ" in (page.locator(".neuron .lead").text_content() or "")
    page.wait_for_timeout(100)
    assert page.locator(".neuron canvas").screenshot() != before


def test_sliders_and_toggles_of_a_group(seen: Seen, url: str) -> None:
    page = seen.open(url, "group")
    drawn(page, "group")
    assert number(page, "[data-top=triangle]") == pytest.approx(3.0)
    assert number(page, "[data-top=hull]") == pytest.approx(2.0)
    slide(page, "upper bound of z₁ + z₂", 1.0)
    bounds = [2.0] * 7 + [1.0]
    wanted = group(bounds, [0, 0], [1, 1])["largest"]
    for name, value in wanted.items():
        assert number(page, f".findings [data-number={name}]") == pytest.approx(value, abs=1e-6)
    slide(page, "a₂", -0.5)
    wanted = group(bounds, [0, 0], [1, -0.5])["largest"]
    assert number(page, "[data-top=triangle]") == pytest.approx(wanted["triangle"], abs=1e-6)
    before = page.locator(".behind canvas").first.screenshot()
    page.get_by_role("checkbox", name="interval").check()
    page.wait_for_timeout(100)
    assert page.locator(".behind canvas").first.screenshot() != before
    page.get_by_role("button", name="Forget").click()
    page.wait_for_function("document.querySelector('.group').classList.contains('closed')")
    page.get_by_role("button", name="Reset").click()
    page.wait_for_function("document.querySelector('[data-top=gap]').dataset.value == 1")


def test_both_textbook_examples_and_three_neurons(seen: Seen, url: str) -> None:
    page = seen.open(url, "group")
    for i, (triangle, hull) in enumerate([(3, 2), (1.5, 1), (2.6727, 2.4), (6, 3), (3, 2)]):
        page.get_by_role("combobox").select_option(str(i))
        page.wait_for_function(f"Math.abs({TOP} - {triangle}) < 1e-4")
        assert number(page, "[data-top=hull]") == pytest.approx(hull)
        page.wait_for_timeout(60)
        assert page.evaluate(BLANK) == []


def test_the_arrow_can_be_dragged_and_moved_by_keys(seen: Seen, exported: str) -> None:
    page = seen.open(exported, "group")
    drawn(page, "group")
    page.wait_for_timeout(100)
    handle = page.locator(".handle")
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 64, y + 32, steps=4)
    page.mouse.up()
    page.wait_for_function(f"{TOP} != 3")
    weights = [float(t) for t in page.locator(".weights output").all_text_contents()]
    assert weights == pytest.approx([2.0, 0.5], abs=0.051)
    assert number(page, "[data-top=hull]") == pytest.approx(group([2.0] * 8, [0, 0], weights)["largest"]["hull"])
    handle.focus()
    page.keyboard.press("ArrowUp")
    page.wait_for_timeout(100)
    assert float(page.locator(".weights output").nth(1).text_content()) > weights[1]


def test_solids_turn_by_keys(seen: Seen, exported: str) -> None:
    page = seen.open(exported, "group")
    drawn(page, "group")
    canvas = page.locator(".roof canvas")
    canvas.focus()
    page.wait_for_timeout(100)
    before = canvas.screenshot()
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(100)
    assert canvas.screenshot() != before
    page.keyboard.press("Home")
    page.wait_for_timeout(100)
    assert canvas.screenshot() == before


def test_the_neuron_follows_its_sliders(seen: Seen, url: str) -> None:
    page = seen.open(url, "neuron")
    drawn(page, "neuron")
    assert number(page, ".neuron [data-number=triangle]") == pytest.approx(1.0)
    slide(page, "lower l", -2.0, "neuron")
    slide(page, "slope α", 0.25, "neuron")
    for name, found in neuron(-2.0, 2.0, 0.25)["sets"].items():
        assert number(page, f".neuron [data-number={name}]") == pytest.approx(found["area"], abs=1e-6)
    slide(page, "upper u", -2.5, "neuron")
    assert "inactive" in page.locator(".neuron .verdict").text_content()


def test_grouping_neurons_tightens_the_certificate(seen: Seen, url: str, answers: Answers) -> None:
    page = seen.open(url, "network")
    chosen: list[list[int]] = [[], []]
    for layer, i in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2)):
        before = drawn(page, "network")
        page.locator(f'[data-neuron="{layer}{i}"]').focus()
        page.keyboard.press("Enter")
        page.wait_for_function(f"Number(document.querySelector('.network').dataset.drawn) > {before}")
        chosen[layer].append(i)
        wanted = answers.network([c if len(c) > 1 else [] for c in chosen])
        assert number(page, "[data-number=network]") == wanted["bound"]
    assert "Proven" in page.locator(".small .verdict").text_content()


def test_the_real_network_and_its_groups(seen: Seen, url: str, everything: dict[str, Any]) -> None:
    page = seen.open(url, "network")
    if page.locator(".compute").is_visible():
        page.locator(".compute").click()
    page.wait_for_selector(".real[data-drawn]")
    layers = everything["layers"]
    for name, value in zip(("alpha", "krelu"), layers["bounds"], strict=True):
        assert number(page, f".real [data-number={name}]") == value
    best = layers["layers"][0]["groups"][0]
    page.locator(".groups button").first.click()
    page.wait_for_selector(".group:not([hidden])")
    wanted = group(best["bounds"], best["slopes"], [1, 1])["largest"]["triangle"]
    page.wait_for_function(f"Math.abs({TOP} - {wanted}) < 1e-6")


def test_the_ladder_shows_every_method(seen: Seen, url: str, everything: dict[str, Any]) -> None:
    page = seen.open(url, "ladder")
    page.wait_for_selector(".ladder[data-done=true]")
    for row in everything["ladder"]["rows"]:
        assert number(page, f".ladder [data-number={row['method']}]") == row["bound"]


def test_the_exported_page_works_offline_and_asks_for_nothing(seen: Seen, exported: str) -> None:
    page = seen.open(exported, "group", offline=True)
    for view in VIEWS:
        page.get_by_role("tab").nth(VIEWS.index(view)).click()
        page.wait_for_selector(f".{view}:not([hidden])")
    slide_back = page.get_by_role("tab", name="group")
    slide_back.click()
    slide(page, "upper bound of z₁", 1.0)
    assert all(address.startswith(("file:", "data:")) for address in seen.asked)


def test_the_served_page_asks_its_own_server_only(seen: Seen, served: Server) -> None:
    page = seen.open(served.url, "network")
    drawn(page, "network")
    assert all(address.startswith((served.url, "data:")) for address in seen.asked)


@pytest.mark.parametrize(
    ("size", "scheme"), at_night_after(2, [(DESK, "light"), (PHONE, "dark"), (DESK, "dark"), (PHONE, "light")])
)
def test_everything_can_be_read(seen: Seen, exported: str, size: tuple[int, int], scheme: str) -> None:
    for view in VIEWS:
        page = seen.open(exported, view, size, scheme)
        page.wait_for_timeout(250)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        assert page.evaluate(CLIPPED) == []
        assert page.evaluate(BLANK) == []


def test_tabs_follow_arrow_keys(seen: Seen, exported: str) -> None:
    page = seen.open(exported, "neuron")
    page.get_by_role("tab", name="neuron").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".group:not([hidden])")
    assert page.get_by_role("tab", name="group").get_attribute("aria-selected") == "true"


def test_an_empty_group_says_so(seen: Seen, url: str) -> None:
    page = seen.open(url, "group")
    slide(page, "upper bound of z₁ + z₂", -2.0)
    slide(page, "lower bound of z₁", 0.5)
    slide(page, "lower bound of z₂", 0.5)
    assert page.get_by_text("No z satisfies").is_visible()


TIMED = """async name => {
    const view = document.querySelector('.group'), slider = document.querySelector(`[aria-label="${name}"]`);
    const times = [];
    for (let i = 0; i < 15; i++) {
        const before = view.dataset.drawn, began = performance.now();
        slider.value = Number(slider.value) - 0.05;
        slider.dispatchEvent(new Event('input'));
        while (view.dataset.drawn === before) await new Promise(wake => setTimeout(wake, 0));
        await new Promise(requestAnimationFrame);
        times.push(performance.now() - began);
    }
    return times.sort((a, b) => a - b)[7];
}"""


@pytest.mark.slow  # measures time, for which nothing else may run
def test_sliders_answer_at_once(seen: Seen, url: str) -> None:
    """A tenth of a second is what feels immediate; tests run on machines that do other work, too."""
    page = seen.open(url, "group")
    for example, name in (("0", "upper bound of z₁"), ("3", "upper bound of z₁")):
        page.get_by_role("combobox").select_option(example)
        page.wait_for_timeout(200)
        milliseconds = page.evaluate(TIMED, name)
        print(f"{'live' if url.startswith('http') else 'alone'}, example {example}: {milliseconds:.0f} ms")
        assert milliseconds < 1000


def test_the_bundled_model_is_there(seen: Seen) -> None:
    from threading import Thread

    import krelax
    from krelax.cli.shared import bundled
    from krelax.explore.model import ask
    from krelax.problem.images import load_images

    network = krelax.load_onnx(bundled("digits_dense.onnx"))
    images = load_images(bundled("digits_test.npz"), network.input_shape, 10)
    answers = Answers(ask(network, images, 0, 0.06, "linf", (0.0, 1.0), "digits_dense.onnx"))
    with Server(answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        page = seen.open(server.url, "group")
        drawn(page, "group")
        server.shutdown()
    assert json.loads(page.locator("#data").text_content())["question"]["label"] == 7
