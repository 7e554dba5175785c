"""Verdicts against the truth: exact minima of small networks, planted counterexamples, ties, and models that disagree.

HOLDS is checked against exact arithmetic, VIOLATED by running the file in ONNX Runtime and judging the point itself.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from tests.exact import Layer, minimum
from tests.marks import ALIKE, at_night_after
from tests.run.files import dense, random_dense, save

from krelax.bounds.methods import METHODS
from krelax.cli.shared import bundled
from krelax.network.graph import Network
from krelax.network.onnx import load_onnx
from krelax.problem.images import Images, load_images
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import about_images
from krelax.search.verdict import Outcome, Verdict

Clip = tuple[float, float] | None
PLANS = ("auto", *METHODS)
WIDTHS = (2, 6, 6, 3)


def random_layers(seed: int) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Weights of a network with two inputs and three classes."""
    rng = np.random.default_rng(seed)
    shapes = list(pairwise(WIDTHS))
    sized = [(rng.normal(size=(m, n)), rng.normal(size=m)) for n, m in shapes]
    return [(w.astype(np.float32) / np.float32(1.5), b.astype(np.float32)) for w, b in sized]


def exact_layers(layers: Sequence[tuple[Any, Any]]) -> list[Layer]:
    """The same network for exact arithmetic."""
    last = len(layers) - 1
    return [
        Layer(np.asarray(w, float).tolist(), np.asarray(b, float).tolist(), None if i == last else 0.0)
        for i, (w, b) in enumerate(layers)
    ]


def random_images(network: Network, seed: int, count: int) -> Images:
    """Random points of the unit square, nearly all with the label that the network gives them."""
    rng = np.random.default_rng(seed)
    points = rng.random((count, *network.input_shape), dtype=np.float32)
    labels = network(torch.from_numpy(points).double()).flatten(1).argmax(1).numpy()
    labels[0] = (labels[0] + 1) % WIDTHS[-1]
    return Images(points, labels)


def answers(
    network: Network,
    images: Images,
    eps: float,
    norm: str = "linf",
    clip: Clip = (0.0, 1.0),
    plan: str = "auto",
    timeout: float | None = None,
) -> list[Outcome]:
    """The outcome for every image; each must be reported exactly once."""
    found: dict[int, Outcome] = {}

    def report(index: int, outcome: Outcome) -> None:
        assert index not in found
        found[index] = outcome

    decide(network, about_images(network, images, eps, norm, clip), Plan.of(plan), report, timeout)
    return [found[i] for i in range(len(images))]


def norm_exceeds(x: NDArray[np.float32], centre: NDArray[np.float32], eps: float, norm: str) -> bool:
    """Whether x is further than eps from the centre, in rational numbers."""
    steps = [
        abs(Fraction(a) - Fraction(b)) for a, b in zip(x.flatten().tolist(), centre.flatten().tolist(), strict=True)
    ]
    if norm == "linf":
        return max(steps) > Fraction(eps)
    return sum(steps) > Fraction(eps) if norm == "l1" else sum(s * s for s in steps) > Fraction(eps) ** 2


def check_counterexample(
    outcome: Outcome, proto: onnx.ModelProto, images: Images, index: int, eps: float, norm: str, clip: Clip
) -> None:
    """A VIOLATED comes with a float32 input in the region that the file itself misclassifies."""
    found = outcome.counterexample
    assert found is not None
    centre, label = images.images[index], int(images.labels[index])
    assert (found.x.dtype, found.x.shape) == (np.float32, centre.shape)
    assert not norm_exceeds(found.x, centre, eps, norm)
    if clip is not None:
        assert clip[0] <= found.x.min() <= found.x.max() <= clip[1]
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    scores = session.run(None, {session.get_inputs()[0].name: found.x})[0].flatten()
    np.testing.assert_array_equal(scores, found.y.flatten())
    assert np.delete(scores, label).max() >= scores[label]


def true_margin(layers: Sequence[tuple[Any, Any]], label: int, lower: Sequence[float], upper: Sequence[float]) -> float:
    """Exact minimum over a box of label's output minus the largest other one."""
    rows = [np.eye(WIDTHS[-1])[label] - np.eye(WIDTHS[-1])[other] for other in range(WIDTHS[-1]) if other != label]
    return float(min(minimum(exact_layers(layers), row.tolist(), 0.0, lower, upper) for row in rows))


@pytest.mark.parametrize("seed", at_night_after(1, range(6)))
def test_boxes_against_exact_minima(tmp_path: Path, seed: int) -> None:
    """Every method is right; between them the staged run decides nearly everything here."""
    layers = random_layers(seed)
    network = load_onnx(save(proto := dense(*layers), tmp_path / "net.onnx"))
    images = random_images(network, seed, 8)
    eps = 0.08
    truth = []
    for x, label in zip(images.images.reshape(-1, 2).astype(float), images.labels.tolist(), strict=True):
        truth.append(true_margin(layers, label, np.maximum(x - eps, 0).tolist(), np.minimum(x + eps, 1).tolist()))
    for plan in PLANS:
        for i, outcome in enumerate(answers(network, images, eps, plan=plan)):
            assert outcome.margin is None or outcome.margin <= truth[i] + 1e-12
            if outcome.verdict is Verdict.HOLDS:
                assert truth[i] > 0
                assert outcome.margin is not None
                assert outcome.margin > 0
            elif outcome.verdict is Verdict.VIOLATED:
                assert truth[i] < 1e-5  # up to the rounding of float32
                check_counterexample(outcome, proto, images, i, eps, "linf", (0.0, 1.0))
            else:
                assert outcome.reason
            if plan == "auto" and abs(truth[i]) > 0.1:
                assert outcome.verdict is (Verdict.HOLDS if truth[i] > 0 else Verdict.VIOLATED)


def points_of_ball(centre: NDArray[np.float64], eps: float, norm: str, clip: Clip) -> NDArray[np.float64]:
    """Many points of a ball in the plane, most of them on its edge."""
    angles = np.linspace(0, 2 * np.pi, 4000)
    directions = np.stack([np.cos(angles), np.sin(angles)], 1)
    order = {"l1": 1, "l2": 2, "linf": np.inf}[norm]
    directions /= np.linalg.norm(directions, order, axis=1, keepdims=True)
    points = np.concatenate([centre + share * eps * directions for share in (0.25, 0.5, 0.75, 1.0)])
    return points if clip is None else points[((points >= clip[0]) & (points <= clip[1])).all(1)]


BALLS = [("l1", None), ("l2", (0.0, 1.0)), ("linf", None), ("l1", (0.0, 1.0)), ("l2", None), ("linf", (0.0, 1.0))]


@pytest.mark.parametrize(("norm", "clip"), at_night_after(3, BALLS))
def test_balls_against_a_fine_net_of_points(tmp_path: Path, norm: str, clip: Clip) -> None:
    counts: dict[Verdict, int] = dict.fromkeys(Verdict, 0)
    for seed in range(2):
        network = load_onnx(save(proto := dense(*random_layers(seed)), tmp_path / "net.onnx"))
        images = random_images(network, seed, 8)
        for eps in (0.05, 0.2):
            for plan in ("auto", "interval", "crown", "zonotope"):
                for i, outcome in enumerate(answers(network, images, eps, norm, clip, plan)):
                    counts[outcome.verdict] += 1
                    if outcome.verdict is Verdict.HOLDS:
                        points = points_of_ball(images.images[i].flatten().astype(float), eps, norm, clip)
                        scores = network(torch.from_numpy(points).reshape(-1, 1, 2)).flatten(1)
                        assert bool((scores.argmax(1) == int(images.labels[i])).all())
                    elif outcome.verdict is Verdict.VIOLATED:
                        check_counterexample(outcome, proto, images, i, eps, norm, clip)
    assert min(counts[Verdict.HOLDS], counts[Verdict.VIOLATED]) > 5


# Class 1 wins in a tiny diamond around PLANT and nowhere else: y1 = relu(1 - (|x0 - p0| + |x1 - p1|) / WIDTH).
PLANT, WIDTH = (0.625, 0.3125), 2.0**-10


def planted() -> onnx.ModelProto:
    signs = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    tip = np.full((1, 4), -1 / WIDTH)
    return dense((signs, -signs @ np.array(PLANT)), (tip, [1.0]), (np.array([[0.0], [1.0]]), [0.5, 0.0]))


NORMS = ("linf", "l2", "l1")
# every plan that is like no other always, in one of the norms
UNLIKE = [plan for plan in PLANS if plan not in ALIKE]
NORMED = [(plan, NORMS[(i + j) % 3]) for j in range(3) for i, plan in enumerate(UNLIKE)]
NORMED += [(plan, norm) for plan in sorted(ALIKE) for norm in NORMS]


@pytest.mark.parametrize(("plan", "norm"), at_night_after(len(UNLIKE), NORMED))
def test_a_planted_counterexample_is_never_proven_away(tmp_path: Path, plan: str, norm: str) -> None:
    """Too narrow for an attack to meet by chance, so that nothing but soundness keeps the answer from being HOLDS."""
    network = load_onnx(save(proto := planted(), tmp_path / "net.onnx"))
    centres = np.array([[[0.5, 0.4]], [list(PLANT)], [[0.7, 0.35]]], np.float32)
    images = Images(centres, np.zeros(3, np.int64))
    for i, outcome in enumerate(answers(network, images, 0.25, norm, plan=plan)):
        assert outcome.verdict is not Verdict.HOLDS
        if outcome.verdict is Verdict.VIOLATED:
            check_counterexample(outcome, proto, images, i, 0.25, norm, (0.0, 1.0))


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_away_from_the_planted_counterexample_there_is_none(tmp_path: Path, norm: str) -> None:
    network = load_onnx(save(planted(), tmp_path / "net.onnx"))
    far = Images(np.array([[[0.1, 0.9]]], np.float32), np.zeros(1, np.int64))
    assert answers(network, far, 0.05, norm)[0].verdict is Verdict.HOLDS


@pytest.mark.parametrize("eps", [0.0, 0.125])
@pytest.mark.parametrize(("plan", "norm"), at_night_after(len(UNLIKE), NORMED))
def test_a_tie_is_no_proof(tmp_path: Path, plan: str, norm: str, eps: float) -> None:
    """Both classes always score the same: the margin is exactly zero, and the class is not the only largest one."""
    weight = np.array([[1.0, -2.0]])
    network = load_onnx(save(dense((weight, [0.5]), (np.ones((2, 1)), [0.25, 0.25])), tmp_path / "net.onnx"))
    images = Images(np.full((2, 1, 2), 0.5, np.float32), np.array([0, 1]))
    for outcome in answers(network, images, eps, norm, plan=plan):
        assert outcome.verdict is Verdict.VIOLATED


# every plan always in one of the norms, a third of them in each
BY_NORM = [*((norm, PLANS[i::3]) for i, norm in enumerate(NORMS)), *((norm, PLANS) for norm in NORMS)]
every_norm = pytest.mark.parametrize(("norm", "plans"), at_night_after(3, BY_NORM))


@every_norm
def test_touching_the_boundary_of_a_class_is_no_proof(tmp_path: Path, norm: str, plans: Sequence[str]) -> None:
    """Class 0 wins for x0 > 0, the region reaches exactly to x0 = 0."""
    network = load_onnx(save(dense((np.array([[1.0, 0.0], [0.0, 0.0]]), [0.0, 0.0])), tmp_path / "net.onnx"))
    image = Images(np.array([[[0.25, 0.0]]], np.float32), np.array([0]))
    for plan in plans:
        assert answers(network, image, 0.25, norm, None, plan)[0].verdict is not Verdict.HOLDS
        assert answers(network, image, 0.2499, norm, None, plan)[0].verdict is Verdict.HOLDS


@every_norm
def test_no_perturbation_at_all(tmp_path: Path, norm: str, plans: Sequence[str]) -> None:
    """With eps = 0 the answer is the network's own."""
    network = load_onnx(save(proto := dense(*random_layers(1)), tmp_path / "net.onnx"))
    images = random_images(network, 1, 12)
    for plan in plans:
        first, *others = answers(network, images, 0.0, norm, plan=plan)
        assert first.verdict is Verdict.VIOLATED
        check_counterexample(first, proto, images, 0, 0.0, norm, (0.0, 1.0))
        assert {o.verdict for o in others} == {Verdict.HOLDS}


@pytest.mark.parametrize(
    "replayed",
    [
        None,
        lambda x: np.array([[9.0, 0.0, 0.0]], np.float32),
        lambda x: np.array([[np.nan, 1.0, 1.0]], np.float32),
        lambda x: np.array([[0.0, np.inf, 1.0]], np.float32),
    ],
    ids=["no replay", "another answer", "NaN", "infinity"],
)
def test_the_original_model_has_the_last_word(tmp_path: Path, replayed: Any) -> None:
    """What only our own evaluation calls a counterexample is none."""
    network = load_onnx(save(dense(*random_layers(2)), tmp_path / "net.onnx"))
    points = np.random.default_rng(0).random((6, 1, 2), dtype=np.float32)
    scores = network(torch.from_numpy(points).double()).flatten(1)
    wrong = Images(points[scores.argmax(1) != 0][:2], np.zeros(2, np.int64))
    assert len(wrong.images) == 2
    assert {o.verdict for o in answers(network, wrong, 0.01)} == {Verdict.VIOLATED}
    doubtful = replace(network, replay=replayed)
    for plan in UNLIKE if replayed is None else ("auto", "crown", "alpha"):
        assert {o.verdict for o in answers(doubtful, wrong, 0.01, plan=plan, timeout=0.4)} == {Verdict.UNKNOWN}


def test_questions_do_not_depend_on_one_another(tmp_path: Path) -> None:
    """The same verdicts one by one and all together, in another order."""
    network = load_onnx(save(dense(*random_layers(4)), tmp_path / "net.onnx"))
    images = random_images(network, 4, 10)
    together = [o.verdict for o in answers(network, images, 0.05, plan="crown")]
    order = np.random.default_rng(0).permutation(10)
    shuffled = answers(network, Images(images.images[order], images.labels[order]), 0.05, plan="crown")
    assert [together[i] for i in order] == [o.verdict for o in shuffled]


@pytest.mark.parametrize("plan", ["auto", "alpha", "zonotope"])
@pytest.mark.parametrize("limit", at_night_after(2, [1e-6, 0.3, 1.0]))
def test_timeouts_are_kept(tmp_path: Path, plan: str, limit: float) -> None:
    """What is open then is UNKNOWN, for that reason. CPU seconds of both threads: other programs do not count."""
    network = load_onnx(save(random_dense([64, 150, 150, 150, 150, 10]), tmp_path / "net.onnx"))
    points = np.random.default_rng(0).random((400, 1, 64), dtype=np.float32)
    labels = network(torch.from_numpy(points).double()).flatten(1).argmax(1).numpy()
    began = time.process_time()
    outcomes = answers(network, Images(points, labels), 0.03, plan=plan, timeout=limit)
    assert time.process_time() - began < 2 * (limit + 1.5)
    unsettled = [o for o in outcomes if o.verdict is Verdict.UNKNOWN]
    assert unsettled
    assert {o.reason for o in unsettled} == {"timeout"}
    if limit < 1e-3:
        assert len(unsettled) == len(outcomes)
        assert all(o.margin is None for o in outcomes)


def test_bundled_digits_against_a_search_of_their_corners() -> None:
    """Nothing that is proven is refuted by many random corners of the region, where perturbations are largest."""
    path = bundled("digits_dense.onnx")
    network = load_onnx(path)
    data = load_images(bundled("digits_test.npz"), network.input_shape, 10)
    images, eps = Images(data.images[:60], data.labels[:60]), 0.05
    generator = torch.Generator().manual_seed(0)
    outcomes = answers(network, images, eps, plan="crown")
    held = [i for i, o in enumerate(outcomes) if o.verdict is Verdict.HOLDS]
    assert len(held) > 20
    for i in held:
        centre = torch.from_numpy(images.images[i]).double()
        signs = torch.randint(0, 2, (500, *centre.shape), generator=generator) * 2 - 1
        scores = network((centre + eps * signs).clamp(0, 1)).flatten(1)
        assert bool((scores.argmax(1) == int(images.labels[i])).all())
