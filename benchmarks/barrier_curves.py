"""The convex barrier of networks of curves: what share of the gap to the truth pairs close.

    python benchmarks/barrier_curves.py [NAME ...]

For each question (network, image, worst margin) the barrier: the best lines of single neurons, by 300 steps of ascent,
over layers that are bounded in the same way; pairs, by dual ascent and by a linear program with cuts; and the least
margin that descents find. The share is of what lies between the barrier and that, so it is at least what is shown.
Digits networks are trained here in some seconds, the same ones every time; the sigmoid network of ERAN is one of the
benchmarks. CPU seconds of this process, one thread, with everything that comes before.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import krelax
from common import benchmark_folder
from krelax import ball, classification, load_onnx
from krelax.activations import GELU, Activation, Exp, Sigmoid, SiLU, Softplus, Tanh
from krelax.bounds.instance import Instance
from krelax.bounds.methods import METHODS, Method, bound
from krelax.bounds.optimise import Ascent
from krelax.cli.printing import table
from krelax.network.graph import Builder, Network
from krelax.network.linear import Dense

Question = tuple[str, Network, Tensor, Tensor, float]

LONG = Ascent(300, 0.3, 0.99)
BARRIER = replace(METHODS["alpha"], name="barrier", outer=LONG)
PAIRS, PROGRAM = METHODS["krelu"], METHODS["lp-krelu"]
DIGITS: dict[str, tuple[Activation, Callable[[Tensor], Tensor], float]] = {
    "digits, sigmoid": (Sigmoid(), torch.sigmoid, 0.1),
    "digits, tanh": (Tanh(), torch.tanh, 0.1),
    "digits, gelu": (GELU(), torch.nn.functional.gelu, 0.1),
    "digits, silu": (SiLU(), torch.nn.functional.silu, 0.1),
    "digits, softplus": (Softplus(), torch.nn.functional.softplus, 0.15),
    "digits, exp": (Exp(), torch.exp, 0.05),
}
ERAN = [(0, 0.012), (2, 0.015)]


def digits() -> tuple[Tensor, Tensor]:
    """The bundled images, `(360, 64)`, and their labels."""
    stored = np.load(Path(krelax.__file__).parent / "data" / "digits_test.npz")
    return torch.from_numpy(stored["images"]).double().reshape(-1, 64) / 255, torch.from_numpy(stored["labels"]).long()


def trained(op: Activation, act: Callable[[Tensor], Tensor], widths: tuple[int, ...] = (50, 50)) -> Network:
    """A dense network that tells the digits apart."""
    draw = torch.Generator().manual_seed(0)
    x, labels = digits()
    sizes = [64, *widths, 10]
    pairs = list(pairwise(sizes))
    weights = [torch.randn(m, n, generator=draw, dtype=torch.float64) / n**0.5 for n, m in pairs]
    biases = [torch.zeros(m, dtype=torch.float64) for _, m in pairs]
    numbers = [t.requires_grad_() for t in (*weights, *biases)]
    descent = torch.optim.Adam(numbers, lr=5e-3, weight_decay=1e-4)
    for _ in range(400):
        z = (x + 0.15 * torch.randn(x.shape, generator=draw, dtype=torch.float64)).clamp(0, 1)
        for k, (w, b) in enumerate(zip(weights, biases, strict=True)):
            z = (act(z) if k else z) @ w.T + b
        descent.zero_grad()
        torch.nn.functional.cross_entropy(z, labels).backward()  # type: ignore[no-untyped-call]
        descent.step()
    builder, node = Builder((64,)), 0
    for k, (w, b) in enumerate(zip(weights, biases, strict=True)):
        node = builder.add(Dense(w.detach(), b.detach()), builder.add(op, node) if k else node)
    return builder.build(node)


def questions(names: list[str]) -> Iterator[Question]:
    """Those that have one of the names, or all."""
    x, labels = digits()
    for name, (op, act, eps) in DIGITS.items():
        if not names or name in names:
            network = trained(op, act)
            yield from ((f"{name} {i}", network, x[i : i + 1], labels[i : i + 1], eps) for i in (1, 2, 3))
    if not names or "eran" in names:
        folder = benchmark_folder()
        network = load_onnx(folder / "vnncomp" / "eran" / "onnx" / "ffnnSIGMOID__Point_6x200.onnx")
        stored = np.load(folder / "eran" / "mnist_test.npz")
        images, truth = torch.from_numpy(stored["images"]).double() / 255, torch.from_numpy(stored["labels"]).long()
        for i, eps in ERAN:
            yield f"eran 6x200 {i}", network, images[i : i + 1].reshape(1, *network.input_shape), truth[i : i + 1], eps


def attacked(network: Network, low: Tensor, high: Tensor, row: Tensor) -> float:
    """The least margin that descents find."""
    best, draw = np.inf, torch.Generator().manual_seed(0)
    x = low + torch.rand(50, *low.shape[1:], generator=draw, dtype=torch.float64) * (high - low)
    for step in range(200):
        x = x.detach().requires_grad_()
        margin = network(x).flatten(1) @ row
        best = min(best, float(margin.detach().min()))
        (gradient,) = torch.autograd.grad(margin.sum(), x)
        x = (x - gradient.sign() * (high - low) * 0.3 * 0.97**step).clamp(low, high)
    return best


def row_of(question: Question) -> list[str]:
    """The question's line of the table."""
    name, network, x, label, eps = question
    region, queries = ball(x, eps), classification(label, 10)
    instance, found = Instance.of(network, region), []

    def measured(method: Method) -> tuple[Tensor, float]:
        start = time.process_time()
        return bound(instance, queries, method).value[0], time.process_time() - start

    found = [measured(method) for method in (BARRIER, PAIRS, PROGRAM)]
    worst = int(found[0][0].argmin())
    low, high = ((x - eps).clamp(0, 1), (x + eps).clamp(0, 1))
    least = attacked(instance.network, low, high, queries.rows[0, worst].double())
    first = float(found[0][0][worst])
    cells = [name, f"{eps:g}", f"{first:.3f} ({found[0][1]:.1f})", f"{least:.3f}"]
    for values, seconds in found[1:]:
        cells.append(f"{100 * (float(values[worst]) - first) / (least - first):.0f} ({seconds:.1f})")
    return cells


def main() -> None:
    """Print the table, line by line."""
    torch.set_num_threads(1)
    rows = []
    for question in questions(sys.argv[1:]):
        rows.append(row_of(question))
        print(*rows[-1], flush=True)
    print(table(["question", "eps", "barrier", "found", "pairs %", "LP, pairs %"], rows))


if __name__ == "__main__":
    main()
