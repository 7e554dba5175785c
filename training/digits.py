"""Train the two small ReLU digit classifiers shipped with krelax, and write them with their test images.

Run from anywhere: ``python training/digits.py``. It writes ``digits_conv.onnx``, ``digits_dense.onnx`` and
``digits_test.npz`` to ``src/krelax/data`` and the figures to ``training/digits.json``.
"""

import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "src" / "krelax" / "data"
FIGURES = ROOT / "training" / "digits.json"

SPLIT_SEED = 0
PGD_SEED = 1234
TEST_IMAGES = 360
ATTACK_EPS = (0.02, 0.04, 0.06, 0.08, 0.10)
ATTACK_STEPS = 40
ATTACK_RESTARTS = 3
PACKAGES = ("torch", "numpy", "onnx", "onnxruntime", "scikit-learn")
OPSET = 17
IR_VERSION = 9


@dataclass(frozen=True)
class Split:
    """Training and test images, uint8 of shape (M, 1, 8, 8), and their labels, int64 of shape (M,)."""

    train_images: np.ndarray
    test_images: np.ndarray
    train_labels: np.ndarray
    test_labels: np.ndarray


@dataclass(frozen=True)
class Recipe:
    """How one network is built and trained."""

    build: Callable[[], nn.Sequential]
    seed: int
    epochs: int
    eps: float
    clean_weight: float
    l1: float
    steps: int = 5
    batch: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4


def conv_net() -> nn.Sequential:
    """Two convolutions and two dense layers."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=1, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12 * 4 * 4, 48),
        nn.ReLU(),
        nn.Linear(48, 10),
    )


def dense_net() -> nn.Sequential:
    """Five hidden dense layers of 50 neurons."""
    layers: list[nn.Module] = [nn.Flatten()]
    for width_in, width_out in pairwise([64, 50, 50, 50, 50, 50]):
        layers += [nn.Linear(width_in, width_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(50, 10))


RECIPES = {
    "digits_conv": Recipe(conv_net, seed=1, epochs=100, eps=0.10, clean_weight=0.3, l1=2e-5),
    "digits_dense": Recipe(dense_net, seed=2, epochs=100, eps=0.08, clean_weight=0.5, l1=2e-5),
}


def load_split() -> Split:
    """Read the digits, scale their values 0..16 to 0..255, and hold out a fixed stratified test set."""
    values, labels = load_digits(return_X_y=True)
    images = np.round(values * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    parts = train_test_split(
        images,
        labels.astype(np.int64),
        test_size=TEST_IMAGES,
        random_state=SPLIT_SEED,
        stratify=labels,
    )
    return Split(*parts)


def to_input(images: np.ndarray) -> Tensor:
    """Pixels 0..255 as network input: float32 in [0, 1]."""
    return torch.from_numpy(images.astype(np.float32) / np.float32(255))


def pgd(net: nn.Module, x: Tensor, y: Tensor, *, eps: float, steps: int, generator: torch.Generator) -> Tensor:
    """Projected gradient ascent on the loss, from a random point of the L-infinity ball cut to [0, 1]."""
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    step_size = 2.5 * eps / steps
    adversarial = low + (high - low) * torch.rand(x.shape, generator=generator)
    for _ in range(steps):
        adversarial.requires_grad_()
        loss = cross_entropy(net(adversarial), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, adversarial)
        moved = adversarial.detach() + step_size * gradient.sign()
        adversarial = torch.minimum(torch.maximum(moved, low), high)
    return adversarial


def loss_on_batch(
    net: nn.Module, recipe: Recipe, eps: float, batch: tuple[Tensor, Tensor], generator: torch.Generator
) -> Tensor:
    """Clean and adversarial cross entropy, mixed, plus the L1 norm of the weight matrices and kernels."""
    x, y = batch
    adversarial = pgd(net, x, y, eps=eps, steps=recipe.steps, generator=generator)
    clean, attacked = cross_entropy(net(x), y), cross_entropy(net(adversarial), y)
    l1 = sum((p.abs().sum() for p in net.parameters() if p.dim() > 1), torch.zeros(()))
    return recipe.clean_weight * clean + (1 - recipe.clean_weight) * attacked + recipe.l1 * l1


def train(recipe: Recipe, x: Tensor, y: Tensor) -> nn.Sequential:
    """Adversarial training with AdamW; the radius grows linearly over the first third of the epochs."""
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    net = recipe.build()
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.epochs)
    for epoch in range(recipe.epochs):
        eps = recipe.eps * min(1.0, 3 * (epoch + 1) / recipe.epochs)
        for chosen in torch.randperm(len(x), generator=generator).split(recipe.batch):
            optimiser.zero_grad()
            loss_on_batch(net, recipe, eps, (x[chosen], y[chosen]), generator).backward()
            optimiser.step()
        schedule.step()
    return net.eval().requires_grad_(False)


def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of the inputs classified as labelled."""
    return float((net(x).argmax(1) == y).double().mean())


def pgd_accuracy(net: nn.Module, x: Tensor, y: Tensor, eps: float) -> float:
    """Share of the inputs classified as labelled before and after every restart of the attack."""
    generator = torch.Generator().manual_seed(PGD_SEED)
    robust = net(x).argmax(1) == y
    for _ in range(ATTACK_RESTARTS):
        attacked = pgd(net, x, y, eps=eps, steps=ATTACK_STEPS, generator=generator)
        robust &= net(attacked).argmax(1) == y
    return float(robust.double().mean())


def to_onnx(net: nn.Sequential, name: str) -> onnx.ModelProto:
    """The network as ONNX with input ``image`` (N, 1, 8, 8) and output ``logits`` (N, 10)."""
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    value = "image"
    for index, layer in enumerate(net):
        result = "logits" if index == len(net) - 1 else f"value_{index}"
        operator, attributes = operator_of(layer)
        inputs = [value]
        for parameter_name, parameter in layer.named_parameters():
            inputs.append(f"layer_{index}.{parameter_name}")
            weights.append(numpy_helper.from_array(parameter.numpy(), inputs[-1]))
        nodes.append(helper.make_node(operator, inputs, [result], name=f"layer_{index}", **attributes))
        value = result
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        weights,
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="krelax")
    onnx.checker.check_model(model, full_check=True)
    return model


def operator_of(layer: nn.Module) -> tuple[str, dict[str, Any]]:
    """The ONNX operator of a layer and its attributes."""
    match layer:
        case nn.Conv2d():
            attributes = {
                "kernel_shape": list(layer.kernel_size),
                "strides": list(layer.stride),
                "pads": [*layer.padding, *layer.padding],
            }
            return "Conv", attributes
        case nn.Linear():
            return "Gemm", {"transB": 1}
        case nn.Flatten():
            return "Flatten", {"axis": 1}
        case nn.ReLU():
            return "Relu", {}
    raise TypeError(f"no ONNX operator for {type(layer).__name__}")


def onnx_difference(path: Path, net: nn.Module, x: Tensor) -> float:
    """Largest difference between onnxruntime and torch, relative to the largest logit."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": x.numpy()})
    expected = net(x).numpy()
    return float(np.abs(logits - expected).max() / np.abs(expected).max())


def make_network(name: str, recipe: Recipe, split: Split) -> dict[str, Any]:
    """Train, export and measure one network; returns its figures."""
    x_train, y_train = to_input(split.train_images), torch.from_numpy(split.train_labels)
    x_test, y_test = to_input(split.test_images), torch.from_numpy(split.test_labels)
    start = time.perf_counter()
    net = train(recipe, x_train, y_train)
    seconds = time.perf_counter() - start
    path = DATA / f"{name}.onnx"
    onnx.save(to_onnx(net, name), path)
    return {
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "train_accuracy": round(accuracy(net, x_train, y_train), 4),
        "test_accuracy": round(accuracy(net, x_test, y_test), 4),
        "test_pgd_accuracy": {f"{eps:.2f}": round(pgd_accuracy(net, x_test, y_test, eps), 4) for eps in ATTACK_EPS},
        "onnx_relative_difference": onnx_difference(path, net, x_test),
        "bytes": path.stat().st_size,
        "training_seconds": round(seconds, 1),
        "recipe": {key: entry for key, entry in asdict(recipe).items() if key != "build"},
    }


def main() -> None:
    """Write the package data and the figures."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    split = load_split()
    DATA.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(DATA / "digits_test.npz", images=split.test_images, labels=split.test_labels)
    figures: dict[str, Any] = {
        "train_images": len(split.train_images),
        "test_images": len(split.test_images),
        "split_seed": SPLIT_SEED,
        "attack": {"steps": ATTACK_STEPS, "restarts": ATTACK_RESTARTS, "seed": PGD_SEED},
        "networks": {name: make_network(name, recipe, split) for name, recipe in RECIPES.items()},
        "seconds": round(time.perf_counter() - start, 1),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
    }
    text = json.dumps(figures, indent=2)
    FIGURES.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
