"""Margins by CROWN and by optimised slopes against those measured for auto_LiRPA 0.7, image by image.

    python benchmarks/peers.py [--threads N]

One image at a time, CPU seconds of this process. Writes a table in Markdown to stdout.
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from common import benchmark_folder
from krelax import METHODS, ball, classification, load_images, load_onnx
from krelax.bounds.instance import Instance
from krelax.bounds.methods import bound

RADII = {
    "mnist_6_100": 0.026, "mnist_9_100": 0.026, "mnist_6_200": 0.015, "mnist_9_200": 0.015, "mnist_conv_small": 0.12
}  # fmt: skip
PAIRS = {"interval": "IBP", "crown-ibp": "CROWN-IBP", "crown": "CROWN", "alpha": "CROWN-Optimized"}


def compare(name: str, eps: float, ours: str, theirs: str, published: list[dict]) -> str:
    """One row: worst relative difference (negative: ours is lower) and CPU seconds of both."""
    folder = benchmark_folder() / "eran"
    network = load_onnx(folder / f"{name}.onnx")
    images = load_images(folder / "mnist_test.npz", network.input_shape, 10)
    worst, cpu, cpu_peer, count = float("inf"), 0.0, 0.0, 0
    for entry in published:
        if theirs not in entry["bounds"]:
            continue
        x = torch.from_numpy(images.images[entry["image"]]).double()[None]
        began = time.process_time()
        found = bound(
            Instance.of(network, ball(x, eps)), classification(torch.tensor([entry["label"]]), 10), METHODS[ours]
        )
        cpu += time.process_time() - began
        cpu_peer += entry["bounds"][theirs]["cpu_s"]
        margins = torch.tensor(entry["bounds"][theirs]["margins"], dtype=torch.float64)
        worst = min(worst, float(((found.value[0] - margins) / margins.abs()).min()))
        count += 1
    return f"| {name} | {ours} | {count} | {worst:+.2e} | {cpu:.2f} | {cpu_peer:.2f} | {cpu / cpu_peer:.3f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    peers = json.loads((benchmark_folder() / "peers" / "auto_lirpa_bounds.json").read_text())
    print("| network | method | images | worst relative difference | CPU s | CPU s, auto_LiRPA | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name, eps in RADII.items():
        for ours, theirs in PAIRS.items():
            print(compare(name, eps, ours, theirs, peers[name]), flush=True)


if __name__ == "__main__":
    main()
