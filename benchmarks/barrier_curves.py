"""The convex barrier of networks of curves: what share of the gap to the truth pairs close.

    python benchmarks/barrier_curves.py [NAME ...]

For each question (network, region, worst margin) the barrier: the best lines of single neurons, by 300 steps of ascent,
over layers that are bounded in the same way; pairs, by dual ascent and by a linear program with cuts; and the least
margin that descents find. The share is of what lies between the barrier and that, so it is at least what is shown.
Networks with products have pairs of curves, and then octagons of operands as well. Digits networks and a transformer of
digits are trained here in some seconds, the same ones every time; ERAN's sigmoid network and the Lyapunov networks of
lsnc are benchmarks. CPU seconds of this process, one thread, with everything that comes before.
"""

from __future__ import annotations

import gzip
import math
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import krelax
from common import benchmark_folder
from krelax import ball, classification, from_torch, load_onnx
from krelax.activations import GELU, Activation, Exp, Product, Sigmoid, SiLU, Softplus, Tanh
from krelax.bounds.instance import Instance
from krelax.bounds.methods import METHODS, Method, bound
from krelax.bounds.optimise import Ascent
from krelax.cli.printing import table
from krelax.network.graph import Builder, Network
from krelax.network.linear import Dense
from krelax.problem.queries import Queries
from krelax.problem.region import Box


@dataclass(frozen=True, eq=False)
class Question:
    """The margins of a network over a box, which is described by a number."""

    name: str
    network: Network
    box: Box
    queries: Queries
    eps: float


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
            yield from (of_image(f"{name} {i}", network, x[i : i + 1], labels[i : i + 1], eps) for i in (1, 2, 3))
    if not names or "transformer" in names:
        network = transformer()
        for i in (1, 2):
            image = x[i : i + 1].reshape(1, *network.input_shape)
            yield of_image(f"digits, transformer {i}", network, image, labels[i : i + 1], 0.01)
    if not names or "lsnc" in names:
        yield from (lyapunov(i) for i in (0, 1))
    if not names or "eran" in names:
        folder = benchmark_folder()
        network = load_onnx(folder / "vnncomp" / "eran" / "onnx" / "ffnnSIGMOID__Point_6x200.onnx")
        stored = np.load(folder / "eran" / "mnist_test.npz")
        images, truth = torch.from_numpy(stored["images"]).double() / 255, torch.from_numpy(stored["labels"]).long()
        for i, eps in ERAN:
            image = images[i : i + 1].reshape(1, *network.input_shape)
            yield of_image(f"eran 6x200 {i}", network, image, truth[i : i + 1], eps)


def of_image(name: str, network: Network, x: Tensor, label: Tensor, eps: float) -> Question:
    """The margins of an image over a ball."""
    region = ball(x, eps)
    return Question(name, network, Box(region.lower, region.upper), classification(label, 10), eps)


class Transformer(torch.nn.Module):
    """Digits as four tokens of two rows each, attention of two heads, GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = torch.nn.Linear(16, 8), torch.nn.Linear(32, 10)
        self.layer = torch.nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=True)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(torch.flatten(self.layer(self.embed(x)), 1))
        return scores


def transformer() -> Network:
    """A transformer that tells the digits apart."""
    torch.manual_seed(0)
    model, (x, labels) = Transformer(), digits()
    descent = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(150):
        descent.zero_grad()
        noisy = (x + 0.1 * torch.randn(x.shape, dtype=torch.float64)).clamp(0, 1).float().reshape(-1, 4, 16)
        torch.nn.functional.cross_entropy(model(noisy), labels).backward()  # type: ignore[no-untyped-call]
        descent.step()
    return from_torch(model.eval(), torch.zeros(1, 4, 16))


def lyapunov(number: int) -> Question:
    """How much a Lyapunov function falls, over a tenth of the box of one of the benchmark's questions."""
    folder, share = benchmark_folder() / "vnncomp" / "lsnc", 0.1
    network = load_onnx(folder / "onnx" / "quadrotor2d_state.onnx")
    with gzip.open(folder / "vnnlib" / f"quadrotor2d_state_{number}.vnnlib.gz", "rt") as file:
        found = dict(re.findall(r"\(<= (X_\d+) ([^)]+)\)", text := file.read()))
    least = dict(re.findall(r"\(>= (X_\d+) ([^)]+)\)", text))
    upper, lower = (
        torch.tensor([float(side[f"X_{i}"]) for i in range(len(found))]).double() for side in (found, least)
    )
    centre, radius = ((t / 2).reshape(1, *network.input_shape) for t in (upper + lower, share * (upper - lower)))
    rows = torch.zeros(1, 1, math.prod(network.output_shape)).double()
    rows[..., 0] = 1
    queries = Queries(rows, torch.zeros(1, 1).double(), torch.zeros(1, 1).long(), 1)
    return Question(f"lsnc, state {number}", network, Box(centre - radius, centre + radius), queries, share)


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
    instance = Instance.of(question.network, question.box)
    products = any(instance.network.activation(i).paired for i in instance.network.activations())

    def measured(method: Method) -> tuple[Tensor, float]:
        start = time.process_time()
        return bound(instance, question.queries, method).value[0], time.process_time() - start

    found = [measured(BARRIER)]
    if products:
        Product.paired = False
        found.append(measured(PAIRS))
        Product.paired = True
    found += [measured(method) for method in ((PAIRS,) if products else (PAIRS, PROGRAM))]
    worst = int(found[0][0].argmin())
    least = attacked(instance.network, question.box.lower, question.box.upper, question.queries.rows[0, worst].double())
    first = float(found[0][0][worst])
    cells = [question.name, f"{question.eps:g}", f"{first:.3f} ({found[0][1]:.1f})", f"{least:.3f}"]
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
    print(
        table(["question", "eps", "barrier", "found", "pairs %", "LP, pairs % (with products: and octagons %)"], rows)
    )


if __name__ == "__main__":
    main()
