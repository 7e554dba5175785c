"""What batching is worth: the same images together and one at a time, in one process; and a whole data set.

    python benchmarks/batch.py

Prints wall and CPU seconds. Images one at a time go through the same pipeline as a batch of one.
"""

from __future__ import annotations

import time

from common import benchmark_folder
from krelax import Images, load_images, load_onnx
from krelax.network.graph import Network
from krelax.run.certify import CertifyOptions, certify

EPS = 0.026


def timed(network: Network, images: Images, options: CertifyOptions, groups: list[range]) -> tuple[float, float]:
    """Wall and CPU seconds for certifying the groups one after the other."""
    wall, cpu = time.perf_counter(), time.process_time()
    for group in groups:
        certify(network, images, group, options)
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Print the figures."""
    folder = benchmark_folder() / "eran"
    network = load_onnx(folder / "mnist_6_100.onnx")
    images = load_images(folder / "mnist_test.npz", network.input_shape, 10)
    timed(network, images, CertifyOptions(EPS, method="alpha"), [range(2)])  # first calls are slow
    for method in ("crown", "alpha"):
        options = CertifyOptions(EPS, method=method)
        alone = timed(network, images, options, [range(i, i + 1) for i in range(20)])
        together = timed(network, images, options, [range(100)])
        print(f"{method}, one at a time: {alone[0] / 20:.4f} s an image ({alone[1] / 20:.4f} CPU s)")
        print(f"{method}, 100 together:  {together[0] / 100:.4f} s an image ({together[1] / 100:.4f} CPU s)")
        print(f"{method}, ratio of wall seconds: {alone[0] / 20 / (together[0] / 100):.2f}")
    wall, cpu = timed(network, images, CertifyOptions(EPS, method="crown"), [range(500)])
    print(f"crown on 500 images: {wall:.2f} s wall, {cpu:.2f} CPU s, imports and reading not counted")


if __name__ == "__main__":
    main()
