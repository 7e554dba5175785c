"""Draws the figures of the documentation again, from the textbook's examples and the bundled networks.

    python docs/figures.py [NAME ...]

Without names, all of them, in some five minutes. They are written to docs/figures as SVG and need matplotlib
(`pip install 'krelax[pictures]'`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

import krelax
from krelax import picture
from krelax.activations import GELU, ReLU, Sigmoid
from krelax.activations.banded import Banded
from krelax.activations.joint import Joint
from krelax.bounds.backward import outputs
from krelax.bounds.instance import Instance
from krelax.bounds.layers import LayerBounds
from krelax.bounds.methods import METHODS, bound
from krelax.bounds.multineuron import bound_layers, neuron_scores
from krelax.bounds.optimise import Ascent
from krelax.hull.octagon import ROWS
from krelax.network.graph import Builder, Network
from krelax.network.linear import Dense
from krelax.picture.tree import bounds, trees
from krelax.problem.images import Images, load_images
from krelax.problem.queries import Queries
from krelax.problem.region import Box, ball
from krelax.search.attack import Attack, search
from krelax.search.effort import Complete
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import about_images
from krelax.search.transformed import Surroundings
from krelax.search.verdict import Outcome

FOLDER = Path(__file__).parent / "figures"
DATA = Path(krelax.__file__).parent / "data"
LARGEST = 200_000  # bytes of a figure


@cache
def bundled(name: str) -> tuple[Network, Images]:
    """A network that comes with krelax, and the images for it."""
    network = krelax.load_onnx(DATA / f"{name}.onnx")
    return network, load_images(DATA / "digits_test.npz", network.input_shape, classes=10)


def asked(name: str, index: Sequence[int], eps: float) -> tuple[Instance, Queries]:
    """Are images classified as their labels within eps?"""
    network, images = bundled(name)
    x = torch.from_numpy(images.images[list(index)]).double()
    queries = krelax.classification(torch.from_numpy(images.labels[list(index)]), classes=10)
    return Instance.of(network, ball(x, eps)), queries


def grouped(instance: Instance, queries: Queries, bounds: LayerBounds, method: str) -> LayerBounds:
    """What is known with the groups of a method."""
    fast = instance.fast_network
    form = outputs(fast, queries.rows.to(fast.dtype), queries.offsets.to(fast.dtype))
    with torch.no_grad():
        return bound_layers(instance, bounds, neuron_scores(instance, form, bounds), METHODS[method].multi_neuron[0])


def octagon(*limits: float, slopes: tuple[float, float] = (0.0, 0.0)) -> Joint:
    """A pair over an octagon with bounds in the order of `krelax.hull.octagon.ROWS`."""
    return Joint(torch.tensor(ROWS).double(), torch.tensor(limits, dtype=torch.float64).reshape(1, 1, 8), slopes)


ALONE, GROUPS = Ascent(50, 0.5, 0.92), Ascent(100, 0.3, 0.97)  # as methods take them

ROTATED = octagon(2, 2, 2, 2, 2, 2, 2, 2)  # z1 = u + v, z2 = u - v, with u and v in [-1, 1]
MAXIMUM = octagon(0, 1, 2, 0, 1, 1, 1, 1, slopes=(0.0, 1.0))  # z = y - x, and x itself, with x and y in [0, 1]


def neuron() -> Figure:
    """A ReLU, larger above zero than below."""
    return picture.neuron(ReLU(), -1.0, 2.0)


def pair() -> Figure:
    """The first textbook example."""
    return picture.pair(ROTATED)


def curves() -> Figure:
    """A pair of sigmoids below zero, where they are convex: z1 = u + v - 2, z2 = u - v - 2, u and v in [-1, 1]."""
    limits = torch.tensor([[[6, 4, 2, 4, 0, 2, 0, -2]]], dtype=torch.float64)
    return picture.pair(Banded(Sigmoid(), torch.tensor(ROWS).double(), limits))


def gelu() -> Figure:
    """A GELU, which is neither convex nor concave."""
    return picture.neuron(GELU(), -3.0, 2.0)


def product() -> Figure:
    """A product of two numbers that know their sum and difference."""
    return picture.product([1.0, 1.0, 1.2, 1.0, 1.5, 1.6, 2.0, 2.2])


def roofs() -> Figure:
    """The same in three dimensions."""
    return picture.roofs(ROTATED)


def maximum() -> Figure:
    """The second textbook example, with a pass-through member."""
    return picture.pair(MAXIMUM, names=("z", "x"))


def hull() -> Figure:
    """The pair of a real layer whose hull gains most over its triangles."""
    instance, queries = asked("digits_dense", [0], 0.06)
    bounds = grouped(instance, queries, bound(instance, queries, METHODS["alpha"]).bounds, "krelu")
    joint = next(groups[0].joint for _, groups in sorted(bounds.groups.items()))
    pairs = [picture.pick(joint, g) for g in range(joint.bounds.shape[1])]
    return picture.roofs(max(pairs, key=gain))


def gain(joint: Joint) -> float:
    """By how much the hull of a pair lowers the largest sum, relative to what triangles say."""
    from krelax.picture.pair import largest

    return 1 - largest(joint, "hull") / largest(joint, "triangle")


def reachable() -> Figure:
    """Two outputs of a small random network on a square."""
    generator = torch.Generator().manual_seed(5)
    builder, node, inputs = Builder((2,)), 0, 2
    for width in (8, 8, 2):
        weight = torch.randn(width, inputs, generator=generator, dtype=torch.float64) * (2 / inputs) ** 0.5
        node = builder.add(Dense(weight, 0.3 * torch.randn(width, generator=generator, dtype=torch.float64)), node)
        node, inputs = (node if width == 2 else builder.add(ReLU(), node)), width
    region = Box(-torch.ones(1, 2).double(), torch.ones(1, 2).double())
    instance = Instance.of(builder.build(node), region)
    names = ("interval", "zonotope", "crown", "alpha", "lp", "krelu3", "split")
    outlines = {name: picture.certified(instance, METHODS[name]) for name in names}
    return picture.reachable(picture.sampled(instance, 20_000), outlines)


def layers() -> Figure:
    """A dense network, layer by layer."""
    instance, queries = asked("digits_dense", [0], 0.06)
    names = ("interval", "zonotope", "crown", "alpha", "krelu", "split")
    return picture.layers({name: bound(instance, queries, METHODS[name]).bounds for name in names})


def progress() -> Figure:
    """Ascents with and without groups on one image, and what needs none."""
    instance, queries = asked("digits_dense", [0], 0.06)
    found = {name: bound(instance, queries, METHODS[name]) for name in ("crown", "alpha", "lp")}
    bounds = {"alpha": found["alpha"].bounds}
    bounds |= {name: grouped(instance, queries, bounds["alpha"], name) for name in ("krelu", "krelu3")}
    efforts = {"alpha": ALONE, "krelu": GROUPS, "krelu3": GROUPS}
    runs = {name: picture.watched(instance, queries, k, efforts[name]) for name, k in bounds.items()}
    levels = {name: float(found[name].value.amin()) for name in ("crown", "lp")}
    return picture.progress(runs, levels, seconds=False)


def tree() -> Figure:
    """The largest tree in the proof of an image that slopes alone do not prove."""
    name, index, eps = "digits_conv", 8, 0.06
    network, images = bundled(name)
    one = Images(images.images[[index]], images.labels[[index]])
    questions = about_images(network, one, eps, "linf", (0.0, 1.0))
    answers: list[Outcome] = []
    plan = Plan((METHODS["alpha"], Complete()))
    decide(network, questions, plan, lambda _, outcome: answers.append(outcome), proofs=True)
    margins = answers[0].proofs[0].margins
    assert margins is not None
    query, nodes = max(enumerate(trees(margins)), key=lambda item: len(item[1]))
    instance, queries = asked(name, [index], eps)
    layers = bound(instance, queries, METHODS["alpha"]).bounds
    return picture.tree(nodes, bounds(instance, queries, query, layers, nodes, Ascent(100, 0.3, 0.97)))


RADIUS = "digits_conv", 8
BISECTIONS = 8


def bisected(holds: Callable[[float], bool], low: float = 0.0, high: float = 0.2) -> float:
    """The largest radius at which something holds, to the last of the steps."""
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def certifies(name: str, eps: float) -> bool:
    """Whether a method proves the image of `RADIUS`."""
    instance, queries = asked(RADIUS[0], [RADIUS[1]], eps)
    found = bound(instance, queries, METHODS[name], stop=True)
    return bool(queries.margin(found.value) > 0)


def attacked(name: str, index: Sequence[int], eps: float, restarts: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """The worst inputs found, and their margins."""
    instance, queries = asked(name, index, eps)
    return search(instance, queries.to(torch.float32), Attack(restarts, steps=2 * restarts))


def radius() -> Figure:
    """How far one image can be moved."""
    names = ("interval", "zonotope", "crown", "alpha", "krelu", "krelu3")
    radii = {name: bisected(lambda eps, name=name: certifies(name, eps)) for name in names}
    resists = bisected(lambda eps: bool(attacked(RADIUS[0], [RADIUS[1]], eps)[1] > 0))
    broken = resists + 0.2 / 2**BISECTIONS
    x, _ = attacked(RADIUS[0], [RADIUS[1]], broken)
    network, images = bundled(RADIUS[0])
    says = f"after the attack: {int(network(x.double()).argmax())}"
    image = images.images[RADIUS[1]].reshape(8, 8)
    return picture.radius(image, x.reshape(8, 8).numpy(), radii, broken, says)


def settled(name: str, index: Sequence[int], eps: float, method: str) -> set[int]:
    """Which of some images a method certifies."""
    if not index:
        return set()
    instance, queries = asked(name, index, eps)
    margin = queries.margin(bound(instance, queries, METHODS[method], stop=True).value)
    return {i for i, m in zip(index, margin.tolist(), strict=True) if m > 0}


def shares() -> Figure:
    """A hundred images at several radii; `alpha` has to look only at what `crown` and an attack leave open."""
    name, index = "digits_conv", range(100)
    table: dict[str, list[tuple[float, float]]] = {m: [] for m in ("interval", "zonotope", "crown", "alpha")}
    unbroken = []
    for eps in np.linspace(0.0, 0.16, 9).tolist():
        found = {method: settled(name, index, eps, method) for method in ("interval", "zonotope", "crown")}
        resisting = {i for i, m in zip(index, attacked(name, index, eps, 12)[1].tolist(), strict=True) if m > 0}
        found["alpha"] = found["crown"] | settled(name, sorted(resisting - found["crown"]), eps, "alpha")
        unbroken.append((eps, len(resisting) / len(index)))
        for method, images in found.items():
            table[method].append((eps, len(images) / len(index)))
    return picture.shares(table, unbroken)


GALLERY = (
    ("the image", "rotate:0", ()),
    ("rotate:20", "rotate:20", (20.0,)),
    ("translate:1", "translate:1", (1.0, -0.5)),
    ("scale:0.2", "scale:0.2", (1.2,)),
    ("shear:0.3", "shear:0.3", (0.3,)),
    ("brightness:0.3", "brightness:0.3", (0.3,)),
    ("contrast:0.5", "contrast:0.5", (0.5,)),
    ("gamma:0.6", "gamma:0.6", (0.4,)),
    ("blur:0.8", "blur:0.8", (0.458,)),
)


def surroundings(text: str, index: int = 0) -> Surroundings:
    """What may happen to an image of the digits."""
    network, images = bundled("digits_conv")
    spec = krelax.read_region(text)
    assert isinstance(spec, krelax.Transformed)
    ends = Fraction(0), Fraction(1)
    return Surroundings(network, images.images[index], int(images.labels[index]), spec, ends=ends)


def regions() -> Figure:
    """A digit, and what some transformations make of it at an end of their ranges."""
    shown = []
    for title, text, parameters in GALLERY:
        op = surroundings(text).op
        point = torch.tensor([parameters or (0.0,)], dtype=torch.float64)
        made = op.forward(point[:, None, None, None].expand(-1, *op.picture.pixels.shape, -1))
        shown.append((title, made[0, 0].numpy()))
    return picture.gallery(shown)


def pixel() -> Figure:
    """A pixel of a digit while it is rotated."""
    return picture.planes(surroundings("rotate:40").op, (0, 2, 4), -40.0, 40.0)


FIGURES: dict[str, Callable[[], Figure]] = {
    f.__name__: f
    for f in (
        *(regions, pixel, neuron, pair, roofs, maximum, hull, reachable, layers, progress, tree, radius, shares),
        *(curves, gelu, product),
    )
}


def main() -> None:
    """Draw what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(FIGURES))
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    for name in parser.parse_args().names or FIGURES:
        began = time.perf_counter()
        path = FOLDER / f"{name}.svg"
        picture.save(FIGURES[name](), path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB, {time.perf_counter() - began:.1f} s", flush=True)
        assert path.stat().st_size <= LARGEST, f"{path} is too large"


if __name__ == "__main__":
    main()
