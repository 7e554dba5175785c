"""Modules as users write them: krelax computes what they compute, or says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from krelax.errors import InputError, UnsupportedError
from krelax.network.torch import from_torch

IMAGE, SIGNAL, VECTOR = (1, 2, 4, 6), (1, 2, 8), (1, 8)
MASK, ORDER = torch.tensor([True, False] * 4), torch.tensor([[3, 1, 0, 2, 4, 5, 7, 6]])


class Function(nn.Module):
    def __init__(self, function: Callable[..., Any], *modules: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *self.parts)


def constant(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


MATRIX, STACK, ROW = constant(8, 3), constant(2, 4, 3), constant(8)


def resized(x: Tensor) -> Tensor:
    """Every mode of an image, side by side."""
    parts = [F.interpolate(x, scale_factor=2), F.interpolate(x, size=(7, 5), mode="nearest-exact"),
             F.interpolate(x, scale_factor=1.5, mode="bilinear"), F.interpolate(x, size=(2, 3), mode="area"),
             F.interpolate(x, size=(7, 3), mode="bilinear", align_corners=True),
             F.interpolate(x, scale_factor=2, mode="bicubic")]  # fmt: skip
    return torch.cat([part.flatten() for part in parts])


def padded(x: Tensor) -> Tensor:
    return torch.cat(
        [F.pad(x, (1, 2, 1, 0), mode=m).flatten() for m in ("reflect", "replicate", "circular", "constant")]
    )


def largest(x: Tensor) -> Tensor:
    parts = [x.amax((2, 3)), x.amin((2, 3)), x.max(dim=3).values, torch.min(x, 2, keepdim=True)[0], x.max()]
    return torch.cat([part.flatten() for part in parts])


def contracted(x: Tensor) -> Tensor:
    products = [torch.einsum("bi,ij->bj", x, MATRIX), torch.tensordot(x, MATRIX, dims=1)]
    return torch.cat([*products, x.reshape(8).outer(MATRIX[0])[:1]], 1)


def moved(x: Tensor) -> Tensor:
    parts = [
        x.gather(1, ORDER[:, :3]),
        x.take(torch.tensor([1, 3])),
        torch.zeros(1, 8).scatter(1, ORDER, x),
        x.tile(2),
        x.repeat_interleave(2, 1),
        torch.hstack([x, x]),
        x.reshape(2, 4).tril(),
        x.reshape(2, 4).rot90(),
    ]
    return torch.cat([part.flatten() for part in parts])


def assigned(x: Tensor) -> Tensor:
    y, z = x.clone(), torch.zeros(1, 8)
    y[:, 0] = 0.5
    z[:, 2:4] = x[:, :2]
    return torch.cat([y, z], 1)


def chosen(x: Tensor) -> Tensor:
    return torch.cat([torch.where(MASK, x, -x), torch.where(MASK, x, 0.5), x.masked_fill(MASK, -1.0), x * MASK], 1)


def bent(x: Tensor) -> Tensor:
    parts = [F.leaky_relu(x, 1.5), F.threshold(x, 0.25, 0.25), F.relu6(x), F.hardtanh(x)]
    return torch.cat([*parts, torch.max(x, -x), x.clamp(min=0.3)], 1)


def summed(x: Tensor) -> Tensor:
    parts = [x.cumsum(1), x.diff(dim=1), torch.lerp(x, torch.ones(8), 0.3), x.reshape(2, 4).trace()[None, None]]
    return torch.cat([*parts, torch.addcmul(x, torch.ones(8), ROW)], 1)


def numbers(x: Tensor) -> Tensor:
    y = torch.sigmoid(x) + 0.5
    return torch.stack([
        y**x, x**torch.arange(1.0, 9.0), 2.0**x, x.asinh(), y.add(1).acosh(), x.trunc(), x.frac(), torch.fmod(x, 0.75),
        torch.logit(y / 2), torch.logaddexp2(x, y), torch.atan2(x, y), torch.floor_divide(x, 0.75), x.int().float(),
        torch.addcmul(x, y, x, value=0.5), torch.lerp(x, y, y), F.softplus(x, 2.0, 4.0), torch.round(x, decimals=1),
        (x > 0).float() * y, x.bool().to(x.dtype), torch.special.xlog1py(y, y),
        torch.special.expit(x), torch.special.erf(x), torch.fmax(x, y), torch.fmin(x, y), torch.deg2rad(x),
    ])  # fmt: skip


def ordered(x: Tensor) -> Tensor:
    y = x.reshape(2, 4)
    values, places = y.sort(dim=1)[0], (y.argmax(1).float(), y.argmin(0).float())
    parts = [values, y.topk(3, 1)[0], y.topk(2, 0, largest=False)[0], y.median(1)[0], x.median(), *places]
    parts += [y.kthvalue(2, 1)[0], y.cummax(1)[0], y.sigmoid().prod(1), y.sigmoid().cumprod(1), y.std(), *y.aminmax()]
    return torch.cat([part.flatten() for part in parts])


def put(x: Tensor) -> Tensor:
    grid = torch.linspace(-1.1, 1.1, 12).reshape(1, 2, 3, 2)
    image, turned = x.reshape(1, 1, 2, 4), F.affine_grid(torch.eye(2, 3)[None], [1, 1, 2, 4], align_corners=True)
    parts = [
        torch.zeros(1, 5).scatter_add(1, torch.tensor([[0, 1, 1, 4, 4, 4, 2, 0]]), x),
        torch.ones(1, 3).index_add(1, torch.tensor([0, 0, 2]), x[:, :3], alpha=2),
        F.fold(x.reshape(1, 4, 2), (2, 3), (2, 2)),
        F.grid_sample(image, grid, align_corners=False),
        F.grid_sample(image, turned, align_corners=True),
        torch.outer(x[0], x[0]), torch.kron(x, torch.ones(1, 2)), torch.linalg.norm(x, ord=float("inf")),
        F.cosine_similarity(x, torch.arange(8.0)[None]), torch.einsum("bi,bi,b->i", x, x, torch.ones(1)),
        torch.einsum("ii->i", x[:, :4].reshape(2, 2)), torch.linalg.multi_dot([x, torch.ones(8, 2), torch.eye(2)]),
        torch.linalg.cross(x[:, :3], x[:, 3:6]), torch.linalg.cross(x[:, :3], torch.ones(1, 3)),
    ]  # fmt: skip
    return torch.cat([part.flatten() for part in parts])


def more_numbers(x: Tensor) -> Tensor:
    y = torch.sigmoid(x)
    parts = [
        x.exp2(), x.expm1(), x.erfc(), y.acos(), torch.logaddexp(x, y), torch.logaddexp(x, ROW), torch.hypot(x, y),
        torch.logit(y, eps=0.25), torch.nan_to_num(x), torch.div(x, 0.75, rounding_mode="floor"),
        torch.div(x, 0.75, rounding_mode="trunc"), torch.xlogy(ROW, y), torch.log1p(y), torch.log2(y + 1),
    ]  # fmt: skip
    near = torch.cdist(x.reshape(2, 4), torch.linspace(-1, 1, 12).reshape(3, 4))
    norms = [x.norm(p, 1) for p in (1, 3, float("inf"), -float("inf"))]
    return torch.cat([part.flatten() for part in (*parts, near, torch.cdist(x.reshape(4, 2), y.reshape(4, 2)), *norms)])


def from_a_state(x: Tensor, layer: nn.GRU) -> Tensor:
    """A recurrence that begins with what depends on the input."""
    out, last = layer(x.reshape(2, 1, 4), x[:, :3].reshape(1, 1, 3))
    return torch.cat([out.flatten(), last.flatten()])


def normalised() -> nn.Module:
    """By what was seen in training."""
    layer = nn.InstanceNorm2d(2, affine=True, track_running_stats=True).eval()
    layer.load_state_dict({
        "weight": torch.tensor([0.5, -2.0]), "bias": torch.tensor([0.25, 1.0]),
        "running_mean": torch.tensor([1.0, -0.5]), "running_var": torch.tensor([2.0, 0.25]),
        "num_batches_tracked": torch.tensor(1),
    })  # fmt: skip
    return layer


def constants(x: Tensor, layer: nn.Linear) -> Tensor:
    """Of weights, what is otherwise read of activations."""
    w = layer.weight
    mask = torch.triu(torch.ones(8, 8, dtype=torch.bool), 1)
    masked = torch.zeros(8, 8).masked_fill(mask, float("-inf"))
    return F.linear(x, F.softplus(w) + F.softmax(w, -1) + F.gelu(w)) + F.softmax(x.T @ x + masked, -1)[:1]


MODULES: dict[str, tuple[tuple[int, ...], nn.Module]] = {
    "resizing": (IMAGE, Function(resized)),
    "resizing a signal": (SIGNAL, nn.Upsample(scale_factor=1.5, mode="linear")),
    "padding": (IMAGE, Function(padded)),
    "convolution, circular": (IMAGE, nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular")),
    "largest": (IMAGE, Function(largest)),
    "contractions": (VECTOR, Function(contracted)),
    "stacks of matrices": ((2, 5, 4), Function(lambda x: torch.baddbmm(torch.ones(2, 5, 3), x, STACK))),
    "moves": (VECTOR, Function(moved)),
    "windows": (IMAGE, nn.Unfold(3, padding=1)),
    "assignments": (VECTOR, Function(assigned)),
    "masks": (VECTOR, Function(chosen)),
    "bends": (VECTOR, Function(bent)),
    "sums": (VECTOR, Function(summed)),
    "slopes of channels": (IMAGE, nn.PReLU(2)),
    "adaptive pools": (IMAGE, nn.Sequential(nn.AdaptiveAvgPool2d((3, 4)), nn.AdaptiveMaxPool2d((2, 3)))),
    "embedding": (VECTOR, Function(lambda x, e: x + e(torch.tensor([2])), nn.Embedding(5, 8))),
    "weight norm": (VECTOR, torch.nn.utils.parametrizations.weight_norm(nn.Linear(8, 3))),
    "weight norm of old": (VECTOR, torch.nn.utils.weight_norm(nn.Linear(8, 3))),
    "spectral norm": (VECTOR, torch.nn.utils.parametrizations.spectral_norm(nn.Linear(8, 3))),
    "scripted": (VECTOR, torch.jit.script(nn.Sequential(nn.Linear(8, 4), nn.ReLU()))),
    "traced": (VECTOR, torch.jit.trace(nn.Sequential(nn.Linear(8, 4), nn.ReLU()), torch.zeros(1, 8))),
    "numbers": (VECTOR, Function(numbers)),
    "more numbers": (VECTOR, Function(more_numbers)),
    "a state that depends on the input": (VECTOR, Function(from_a_state, nn.GRU(4, 3))),
    "instances by running statistics": (IMAGE, normalised()),
    "orders": (VECTOR, Function(ordered)),
    "places": (VECTOR, Function(put)),
    "constants": (VECTOR, Function(constants, nn.Linear(8, 8))),
    "bilinear": (VECTOR, Function(lambda x, m: m(x, x), nn.Bilinear(8, 8, 2))),
    "decoder": (
        (1, 3, 4),
        Function(
            lambda x, m: m(x, torch.linspace(-1, 1, 8).reshape(1, 2, 4)),
            nn.TransformerDecoderLayer(4, 2, 8, batch_first=True),
        ),
    ),
    "a dictionary": (VECTOR, Function(lambda x, m: {"logits": m(x)}, nn.Linear(8, 3))),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_compute_what_krelax_reads(name: str) -> None:
    """Importing compares them at points of the unit box; here beyond it."""
    shape, module = MODULES[name]
    network = from_torch(module, torch.rand(shape))
    x = 3 * torch.randn(1, *shape, generator=torch.Generator().manual_seed(2))
    assert network.replay is not None
    wanted = torch.from_numpy(network.replay(x[0].numpy())).double()
    torch.testing.assert_close(network(x.double())[0], wanted, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_read_says_what_to_do() -> None:
    with pytest.raises(UnsupportedError, match=r"float\(\), whose weights are the same numbers"):
        from_torch(nn.Linear(8, 3).bfloat16(), torch.rand(VECTOR))
    with pytest.raises(InputError, match="wrap it to return a tensor"):
        from_torch(Function(lambda x: "x"), torch.rand(VECTOR))
    with pytest.raises(InputError, match="no output 2"):
        from_torch(Function(lambda x: (x, x * 2)), torch.rand(VECTOR), output=2)


def attended(x: Tensor, **more: Any) -> Tensor:
    q = x.reshape(1, 1, 2, 4)
    return F.scaled_dot_product_attention(q, q, q, **more)


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "distances of another order": (Function(lambda x: torch.cdist(x, x * 2, p=1.0)), "distances of order 1"),
    "a logarithm of constants": (Function(lambda x: torch.xlogy(x, ROW.abs() + 1)), "a logarithm of a constant"),
    "attention with dropout": (Function(lambda x: attended(x, dropout_p=0.5)), "attention with dropout"),
    "a mask that depends on the input": (
        Function(lambda x: attended(x, attn_mask=x.reshape(4, 2)[:2])), "a mask that depends on the input"),
    "weights that depend on the input": (
        Function(lambda x, m: torch.func.functional_call(
            m, {"weight_hh_l0": x.reshape(2, 4)[:, :2]}, x.reshape(1, 1, 8)), nn.RNN(8, 2)),
        "weights that depend on the input"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_modelled_is_refused_in_a_line(name: str) -> None:
    module, reason = REFUSED[name]
    with pytest.raises((InputError, UnsupportedError), match=reason) as error:
        from_torch(module, torch.rand(VECTOR))
    assert "\n" not in str(error.value)


def test_of_several_tensors_the_first_is_read_or_the_one_that_is_chosen() -> None:
    module, x = Function(lambda x: {"none": torch.zeros(1), "a": [x * 2, (x * 3,)]}), torch.rand(1, *VECTOR)
    first, second = (from_torch(module, torch.rand(VECTOR), output=output) for output in (None, 2))
    assert "tensor 1 of the 3" in first.notes[0]
    assert torch.equal(first(x.double()), 2 * x.double())
    assert torch.equal(second(x.double()), 3 * x.double())
