"""What tightening by branching is worth: bounds of every layer, and of the margins over them.

    python benchmarks/branching.py [rounds]

Rounds are 20 unless given. Prints for each network and image the smallest margin with optimised slopes alone and after
tightening, the unstable neurons left in every layer, and CPU seconds: those of the searches, and those of everything.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from common import benchmark_folder
from krelax import ball, classification, load_images, load_onnx
from krelax.bounds.backward import lower_bound, outputs
from krelax.bounds.branching import Effort
from krelax.bounds.instance import Instance
from krelax.bounds.intermediate import tighten_by_ascent
from krelax.bounds.layers import LayerBounds, advance, start
from krelax.bounds.methods import METHODS, bound
from krelax.bounds.optimise import Ascent, ascend
from krelax.bounds.steps import over
from krelax.bounds.tightening import tighten_layer
from krelax.problem.queries import Queries

CASES = [
    ("mnist_9_100", 0.026, 0),
    ("mnist_9_100", 0.026, 1),
    ("mnist_9_100", 0.026, 3),
    ("mnist_6_100", 0.026, 4),
    ("mnist_6_100", 0.026, 11),
    ("mnist_6_100", 0.026, 14),
    ("mnist_9_200", 0.015, 11),
    ("mnist_conv_small", 0.12, 2),
    ("mnist_conv_small", 0.12, 4),
]


def prepared(folder: Path, name: str, eps: float, image: int) -> tuple[Instance, Queries]:
    """The problem of certifying one image."""
    network = load_onnx(folder / f"{name}.onnx")
    images = load_images(folder / "mnist_test.npz", network.input_shape, 10)
    region = ball(torch.tensor(images.images[image : image + 1]).double(), eps)
    return Instance.of(network, region), classification(torch.tensor([int(images.labels[image])]), 10)


def tightened(instance: Instance, found: LayerBounds, effort: Effort) -> tuple[LayerBounds, list[int], float]:
    """Bounds of every node, unstable neurons of every activation but the first, and CPU seconds of the searches."""
    network, bounds = instance.network, start(instance.region)
    unstable, seconds = [], 0.0
    for i, node in enumerate(network.nodes[1:], start=1):
        if i in network.activations() and bounds.relaxations:
            source = node.inputs[0]
            tighten_by_ascent(instance, bounds, source, Ascent(12, 0.5, 0.85))
            began = time.thread_time()
            tighten_layer(instance, bounds, source, effort)
            seconds += time.thread_time() - began
            unstable.append(int(((bounds.lower[source] < 0) & (bounds.upper[source] > 0)).sum()))
        advance(network, bounds)
        bounds.meet(found, i)
    return bounds, unstable, seconds


def smallest_margin(instance: Instance, bounds: LayerBounds, queries: Queries) -> float:
    """The smallest bound of the margins, with slopes optimised for them."""
    dtype = instance.fast_network.dtype
    asked = outputs(instance.fast_network, queries.rows.to(dtype), queries.offsets.to(dtype))
    witness = ascend(instance, asked, bounds.to(dtype, instance.network), Ascent(50, 0.5, 0.92))
    form = outputs(instance.network, queries.rows, queries.offsets)
    return float(lower_bound(instance.network, instance.region, form, over(witness, bounds), bounds).min())


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    effort = Effort(rounds=int(sys.argv[1])) if len(sys.argv) > 1 else Effort()
    folder = benchmark_folder() / "eran"
    for name, eps, image in CASES:
        instance, queries = prepared(folder, name, eps, image)
        began = time.thread_time()
        with torch.no_grad():
            alpha = bound(instance, queries, METHODS["alpha"])
            bounds, unstable, seconds = tightened(instance, alpha.bounds, effort)
            margin = smallest_margin(instance, bounds, queries)
        total = time.thread_time() - began
        case = f"{name} {image:2d}: {float(alpha.value.min()):7.2f} -> {margin:6.3f}"
        print(f"{case}  unstable {unstable}  {seconds:.2f} of {total:.2f} CPU s", flush=True)


if __name__ == "__main__":
    main()
