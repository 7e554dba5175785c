"""What radii take, beside certifying once at the radius that was found: the table in docs/cli.md.

    python benchmarks/radii.py MODEL IMAGES [--range A:B] [--timeout 20]

Seconds are counted ones, as with `--deterministic`, of one core.
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import torch

from krelax.network.onnx import load_onnx
from krelax.problem.images import load_images
from krelax.run.certify import CertifyOptions, certify
from krelax.run.radius import RadiusOptions, radius


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--range", default="0:50")
    parser.add_argument("--timeout", type=float, default=20.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = load_onnx(options.model, scores=True)
    images = load_images(options.images, network.input_shape, network.output_shape[-1])
    rows: list[tuple[float, float, float, float | None]] = []
    for i in range(*map(int, options.range.split(":"))):
        one = range(i, i + 1)
        asked = RadiusOptions(timeout=options.timeout, deterministic=True)
        found, once = radius(network, images, one, asked)[i], list[dict[str, Any]]()
        if not found["certified"]:
            print(i, found["reason"], flush=True)
            continue
        eps = Fraction(repr(found["certified"]))
        certify(
            network, images, one, CertifyOptions(eps, timeout=options.timeout, deterministic=True), seen=once.append
        )
        rows.append((found["seconds"], once[0]["seconds"], found["certified"], found["refuted"]))
        print(
            i, found["certified"], found["refuted"], f"{found['seconds']:.2f} s, {once[0]['seconds']:.2f} s", flush=True
        )
    spent, certified = (sum(row[k] for row in rows) for k in (0, 1))
    beyond = median(refuted / low - 1 for _, _, low, refuted in rows if refuted)
    print(f"{spent:.0f} s, {certified:.0f} s, quotient {spent / certified:.1f}, its median "
          f"{median(a / b for a, b, _, _ in rows):.1f}, certified {median(row[2] for row in rows):.3f}, "
          f"refuted {100 * beyond:.0f} % beyond it")  # fmt: skip


if __name__ == "__main__":
    main()
