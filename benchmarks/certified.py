"""How many images of the k-ReLU and PRIMA papers' networks each method certifies, and at what cost.

    python benchmarks/certified.py [--methods crown,alpha,krelu] [--networks mnist_6_100] [--images 50] [--jobs 2]

The first correctly classified test images at the standard radius of each network, one method after the other, every
image by itself on one core. A line per image is appended to `certified.jsonl` as it is finished, and what is in it is
not done again. Prints shares beside published ones.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import benchmark_folder
from krelax.bounds.instance import Instance
from krelax.bounds.methods import METHODS, bound
from krelax.cli.printing import table
from krelax.network.onnx import load_onnx
from krelax.problem.queries import classification
from krelax.problem.region import ball
from krelax.search.attack import Attack, search

# radius; share of correctly classified images certified by kPoly and PRIMA, in percent, and their seconds per image
NETWORKS = {
    "mnist_6_100": (0.026, 46, 307, 53, 159),
    "mnist_9_100": (0.026, 39, 171, 45, 301),
    "mnist_6_200": (0.015, 59, 187, 71, 224),
    "mnist_9_200": (0.015, 53, 464, 66, 395),
    "mnist_conv_small": (0.12, 35, 477, 61, 42),
}


def correct_images(name: str, count: int) -> list[int]:
    """The first correctly classified images."""
    network, x, labels = _data(name)
    predicted = network(x).flatten(1).argmax(1)
    return (predicted == labels).nonzero()[:count, 0].tolist()


def _data(name: str) -> tuple[Any, torch.Tensor, torch.Tensor]:
    folder = benchmark_folder() / "eran"
    network = load_onnx(folder / f"{name}.onnx")
    data = np.load(folder / "mnist_test.npz")
    x = torch.from_numpy(data["images"] / 255.0).reshape(-1, *network.input_shape)
    return network, x, torch.from_numpy(data["labels"]).long()


def one(name: str, image: int, method: str) -> dict[str, Any]:
    """One image by one method; images that an attack breaks first are not bounded."""
    torch.set_num_threads(1)
    network, x, labels = _data(name)
    label = labels[image : image + 1]
    instance = Instance.of(network, ball(x[image : image + 1], NETWORKS[name][0]))
    queries = classification(label, 10)
    began, cpu = time.perf_counter(), time.process_time()
    _, broken = search(instance, queries.to(torch.float32, "cpu"), Attack(restarts=32, steps=100, samples=100))
    margin = -1.0 if bool(broken[0] <= 0) else float(bound(instance, queries, METHODS[method], stop=True).value.min())
    verdict = "violated" if bool(broken[0] <= 0) else ("holds" if margin > 0 else "unknown")
    seconds, spent = time.perf_counter() - began, time.process_time() - cpu
    return {"network": name, "image": image, "method": method, "verdict": verdict, "margin": margin,
            "seconds": seconds, "cpu": spent}  # fmt: skip


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Everything that was asked for and is not in the file yet."""
    path = Path(arguments.out)
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    have = {(d["network"], d["image"], d["method"]) for d in done}
    images = {name: correct_images(name, arguments.images) for name in arguments.networks}
    asked = [(n, i, m) for m in arguments.methods for n in arguments.networks for i in images[n]]
    with ProcessPoolExecutor(arguments.jobs) as pool, path.open("a") as out:
        futures = [pool.submit(one, *a) for a in asked if a not in have]
        for future in as_completed(futures):
            done.append(future.result())
            print(json.dumps(done[-1]), file=out, flush=True)
    return [d for d in done if (d["network"], d["image"], d["method"]) in set(asked)]


def report(results: list[dict[str, Any]]) -> None:
    rows = []
    for name, (_, kpoly, kpoly_seconds, prima, prima_seconds) in NETWORKS.items():
        for method in dict.fromkeys(d["method"] for d in results):
            mine = [d for d in results if d["network"] == name and d["method"] == method]
            if mine:
                share = 100 * sum(d["verdict"] == "holds" for d in mine) / len(mine)
                wall, cpu, most = (f"{f([d[k] for d in mine]):.2f}" for f, k in
                                   ((np.mean, "seconds"), (np.mean, "cpu"), (np.max, "seconds")))  # fmt: skip
                rows.append((name, method, str(len(mine)), f"{share:.0f}", wall, cpu, most,
                             f"{kpoly} ({kpoly_seconds})", f"{prima} ({prima_seconds})"))  # fmt: skip
    print(table(("network", "method", "images", "certified %", "s/image", "CPU s", "most s",
                 "kPoly % (s)", "PRIMA % (s)"), rows))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--methods", type=lambda s: s.split(","), default=["crown", "alpha", "krelu", "krelu3", "split"]
    )
    parser.add_argument("--networks", type=lambda s: s.split(","), default=list(NETWORKS))
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", default="certified.jsonl")
    report(run(parser.parse_args()))


if __name__ == "__main__":
    main()
