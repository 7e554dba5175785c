"""How many images are certified for the function of real numbers, and how many for every execution in float32.

    python benchmarks/semantics.py [--only digits_conv,mnist_6_100] [--seconds 10]

Both with certificates that the checker has accepted. Prints the table of docs/certificates.md.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch

from common import benchmark_folder
from krelax.network.onnx import load_onnx
from krelax.problem.images import load_images
from krelax.run.certificates import Certificates
from krelax.run.certify import CertifyOptions, certify


@dataclass(frozen=True)
class Task:
    """Some images of a data set, and the radius around them."""

    network: str
    images: str
    eps: float
    count: int


BUNDLED = [
    Task(f"{name}.onnx", "digits_test.npz", eps, 360)
    for name in ("digits_dense", "digits_conv")
    for eps in (0.02, 0.04, 0.06)
]
OTHERS = [
    Task("eran/mnist_6_100.onnx", "eran/mnist_test.npz", 0.026, 20),
    Task("eran/mnist_6_200.onnx", "eran/mnist_test.npz", 0.015, 20),
    Task("eran/mnist_conv_small.onnx", "eran/mnist_test.npz", 0.12, 20),
    Task("sdp/cifar_cnn_a_adv.onnx", "sdp/cifar10_sdp.npz", 2 / 255, 20),
]


def certified(task: Task, folder: Path, semantics: Literal["real", "float32"], seconds: float) -> set[int]:
    """The images that are certified, with certificates that are accepted."""
    network = load_onnx(folder / task.network, check=False)
    images = load_images(folder / task.images, network.input_shape, network.output_shape[-1])
    with TemporaryDirectory() as place:
        keeper = Certificates(Path(place), folder / task.network, True, semantics)
        options = CertifyOptions(task.eps, timeout=seconds)
        found = certify(network, images, range(task.count), options, certificates=keeper)
    return {i for i, verdict in found.verdicts.items() if verdict == "holds"}


def row(task: Task, folder: Path, seconds: float) -> list[str]:
    """One line of the table."""
    found, spent = [], []
    for semantics in ("real", "float32"):
        began = time.perf_counter()
        found.append(certified(task, folder, semantics, seconds))
        spent.append((time.perf_counter() - began) / task.count)
    counts = [str(len(found[0])), str(len(found[1])), str(len(found[0] - found[1]))]
    print(Path(task.network).stem, f"{task.eps:.3g}", *counts, flush=True)
    return [Path(task.network).stem, f"{task.eps:.3g}", str(task.count), *counts, *(f"{s:.1f}" for s in spent)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[])
    parser.add_argument("--seconds", type=float, default=10.0, help="for each image")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bundled = Path(str(files("krelax") / "data"))
    tasks = [(task, bundled) for task in BUNDLED] + [(task, benchmark_folder()) for task in OTHERS]
    wanted = [t for t in tasks if not arguments.only or Path(t[0].network).stem in arguments.only]
    rows = [row(task, folder, arguments.seconds) for task, folder in wanted]
    head = ["network", "eps", "images", "real", "float32", "real only", "seconds, real", "float32"]
    for cells in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
