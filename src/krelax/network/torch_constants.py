"""What a captured graph computes of its constants: a closed list of aten operators.

Integers are PyTorch's own, computed by PyTorch. Floating-point constants are enclosures of what the module's weights
give in real arithmetic (`krelax.network.constants`): what only moves or makes entries is run by PyTorch on the values
and on their errors; arithmetic has one line here for each operator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from krelax.errors import UnsupportedError
from krelax.network.constants import Constant
from krelax.network.ops import normal_axes
from krelax.network.quantised import on_grid, rounded

# They copy entries, and write none of their own but zeros.
MOVES = {
    "alias", "clone", "contiguous", "detach", "lift_fresh_copy", "view", "reshape", "_unsafe_view", "flatten",
    "unflatten", "squeeze", "unsqueeze", "expand", "permute", "transpose", "t", "movedim", "slice", "select",
    "narrow", "split", "split_with_sizes", "chunk", "tensor_split", "unbind", "index_select", "index", "gather",
    "flip", "roll", "repeat", "repeat_interleave", "unfold", "pixel_shuffle", "pixel_unshuffle", "cat", "stack",
    "tril", "triu", "diagonal", "embedding", "tile", "where", "hstack", "meshgrid",
    "vstack", "rot90", "diag_embed", "type_as", "zeros", "zeros_like", "new_zeros", "dropout",
}  # fmt: skip
# They write numbers that stand in the module: what PyTorch makes of them, in the module's own type, is the constant.
MAKES = {
    "full", "full_like", "new_full", "ones", "ones_like", "new_ones", "scalar_tensor", "eye", "arange", "linspace",
}  # fmt: skip


def number(value: float, dtype: torch.dtype) -> Constant:
    """A Python number of a module. It takes part in the type of the tensors it meets, so it is rounded to that."""
    constant = Constant.of(torch.tensor(value, dtype=dtype if dtype.is_floating_point else torch.float64))
    return constant if value == -inf else constant.checked()  # which masks have


def evaluate(
    name: str, target: Any, args: Sequence[Any], kwargs: dict[str, Any], dtype: torch.dtype, source: torch.dtype
) -> Any:
    """A call that does not depend on the input: Constants, integer tensors, or sequences of them.

    `dtype` is the type of the result in the module, `source` that of the first operand. Raises UnsupportedError for
    what is not in the list.
    """
    given = [leaf for leaf in tree_leaves((args, kwargs), is_leaf=_is_constant) if isinstance(leaf, Constant)]
    if name in MOVES:
        exact = all(c.error is None for c in given)
        values = target(*_each(args, lambda c: c.value), **_each(kwargs, lambda c: c.value))
        if exact:
            return tree_map_only(Tensor, lambda t: _wrapped(t, dtype), values)
        errors = target(*_each(args, lambda c: c.errors()), **_each(kwargs, lambda c: c.errors()))
        return tree_map(Constant, values, errors)
    if name in {"_to_copy", "to"} and (given or dtype.is_floating_point):
        return _converted(given[0], source, dtype) if given else Constant.of(args[0].to(dtype))
    if name in MAKES:
        return tree_map_only(Tensor, lambda t: _wrapped(t, dtype), target(*_each(args, lambda c: c.value), **kwargs))
    if not dtype.is_floating_point:
        return _decided(name, args) if given else target(*args, **kwargs)
    return _computed(name, args, kwargs, dtype)


def _computed(name: str, args: Sequence[Any], kwargs: dict[str, Any], dtype: torch.dtype) -> Constant:
    """Arithmetic of floating-point constants."""
    if name == "masked_fill":
        return _filled(_number(args[0]), args[1], args[2] if isinstance(args[2], Constant) else number(args[2], dtype))
    compute = _ARITHMETIC.get(name)
    if compute is None:
        raise UnsupportedError("not a computation of constants krelax knows; compute them before the module is made")
    keep = [a if isinstance(a, Constant) else _entries(a, dtype) for a in args]
    return compute(*keep, **{k: v for k, v in kwargs.items() if k != "dtype"}).checked()


def evaluates(name: str) -> bool:
    """Whether an operator is in the list."""
    return name in MOVES | MAKES | _ARITHMETIC.keys() or name in {"_to_copy", "to", "masked_fill"}


_COMPARED = {"gt": torch.gt, "ge": torch.ge, "lt": torch.lt, "le": torch.le, "eq": torch.eq, "ne": torch.ne}


def _decided(name: str, args: Sequence[Any]) -> Tensor:
    """A comparison of constants, one that their errors leave no doubt about."""
    if name not in _COMPARED:
        raise UnsupportedError("decisions about floating-point constants; compute them before the module is made")
    apart = _number(args[0]) - _number(args[1])
    if not bool(((apart.value.abs() > apart.errors()) | (apart.errors() == 0)).all()):
        raise UnsupportedError("a comparison of computed constants that are nearly equal; compute it before")
    return _COMPARED[name](apart.value, 0.0)


def _filled(x: Constant, mask: Tensor, value: Constant) -> Constant:
    """A constant with another number where a mask is true, which may be minus infinity."""
    exact = x.error is None and value.error is None
    error = None if exact else torch.where(mask, value.errors(), x.errors())
    return Constant(torch.where(mask, value.value, x.value), error)


def _is_constant(value: Any) -> bool:
    return isinstance(value, Constant)


def _each(tree: Any, part: Callable[[Constant], Tensor]) -> Any:
    """With plain tensors in the place of constants."""
    return tree_map(lambda v: part(v) if isinstance(v, Constant) else v, tree, is_leaf=_is_constant)


def _wrapped(tensor: Tensor, dtype: torch.dtype) -> Any:
    """A tensor that PyTorch made, in the type that it has in the module."""
    return Constant.of(tensor.to(dtype)) if tensor.is_floating_point() else tensor


def _entries(value: Any, dtype: torch.dtype) -> Any:
    """Integer tensors and numbers among operands of floating-point arithmetic; axes and flags stay."""
    if isinstance(value, Tensor):
        return Constant.of(value)
    return number(value, dtype) if isinstance(value, float) else value


def _converted(constant: Constant, source: torch.dtype, dtype: torch.dtype) -> Any:
    """A constant in another type. Only one that its own type holds can be rounded."""
    if source in (torch.float32, torch.float64) and dtype in (source, torch.float64):
        return constant
    if constant.error is not None or not torch.equal(constant.value.to(source).double(), constant.value):
        raise UnsupportedError("a computed constant that is rounded to another type")
    value = constant.value.to(dtype)
    return Constant.of(value).checked() if dtype.is_floating_point else value


def _number(value: Any) -> Constant:
    if isinstance(value, Constant | Tensor):
        return value if isinstance(value, Constant) else Constant.of(value)
    return Constant.of(float(value))


def _sum(x: Constant, axes: Any = None, keepdim: bool = False) -> Constant:
    chosen = normal_axes([axes] if isinstance(axes, int) else axes or range(x.dim()), x.dim()) if x.dim() else ()
    total = x.sum(chosen)
    return total if keepdim else total.moved(lambda t: t.squeeze(chosen))


def _mean(x: Constant, axes: Any = None, keepdim: bool = False) -> Constant:
    total = _sum(x, axes, keepdim)
    return total / Constant.of(float(x.value.numel() // max(1, total.value.numel())))


def _power(x: Any, exponent: Any) -> Constant:
    """Small whole powers, halves of them, and any powers of positive numbers."""
    base, power = _number(x), _number(exponent)
    given = power.value.item() if power.value.numel() == 1 and power.error is None else inf
    if given not in {0.5, -0.5, 1, 2, 3, 4, -1, -2}:
        return (base.function("log") * power).function("exp")
    result = base.sqrt() if abs(given) == 0.5 else base
    for _ in range(int(abs(given)) - 1):
        result = result * base
    return result if given > 0 else result.reciprocal()


def _product(x: Any, y: Any) -> Constant:
    return _number(x) * _number(y)


def _function(name: str, x: Constant) -> Constant:
    return x.function(name)


def _linear(x: Any, weight: Constant, bias: Constant | None = None) -> Constant:
    y = _number(x).matmul(weight.mT if weight.dim() > 1 else weight)
    return y if bias is None else y + bias


def _clamp(x: Constant, low: Any = None, high: Any = None, **named: Any) -> Constant:
    low, high = named.get("min", low), named.get("max", high)
    x = x if low is None else x.maximum(_number(low))
    return x if high is None else x.minimum(_number(high))


def _extremum(sign: int) -> Callable[..., Any]:
    """The largest entry, or the smallest one, of all, along axes, or of two tensors."""

    def pick(x: Constant, other: Any = None, keepdim: bool = False) -> Constant:
        if isinstance(other, Constant):
            return x.maximum(other) if sign > 0 else x.minimum(other)
        axes = list(range(x.dim())) if other is None or other == [] else [other] if isinstance(other, int) else other
        signed = x if sign > 0 else -x
        value = signed.value.amax(axes, keepdim)
        result = Constant(value, None if x.error is None else signed.errors().amax(axes, keepdim))
        return result if sign > 0 else -result

    return pick


def _norm(x: Constant, order: Any = 2, axes: Any = None, keepdim: bool = False, **named: Any) -> Constant:
    order = order.value.item() if isinstance(order, Constant) else order
    if order not in (None, 1, 2):
        raise UnsupportedError(f"a norm of order {order} of a constant; compute it before the module is made")
    total = _sum(abs(x) if order == 1 else x * x, axes, named.get("keepdim", keepdim))
    return total if order == 1 else total.sqrt()


def _channels(x: Constant, scale: Any, zero: Any, axis: int, low: int, high: int) -> Constant:
    """Fake quantisation with a scale for each channel."""
    shape = [-1 if i == axis % x.dim() else 1 for i in range(x.dim())]
    return _faked(x, _number(scale).reshape(*shape), _number(zero).reshape(*shape), low, high)


def _faked(x: Constant, scale: Any, zero: Any, low: int, high: int) -> Constant:
    scale, zero = _number(scale), _number(zero)
    return (on_grid(x, scale, zero, (low, high), shifted=True) - zero) * scale


_ARITHMETIC: dict[str, Callable[..., Constant]] = {
    "linear": _linear,
    "addmm": lambda x, a, b, beta=1, alpha=1: _product(beta, x) + _product(alpha, a.matmul(b)),
    "sign": Constant.sign,
    "sgn": Constant.sign,
    "round": rounded,
    "floor": Constant.floor,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "amax": _extremum(1),
    "amin": _extremum(-1),
    "max": _extremum(1),
    "min": _extremum(-1),
    "linalg_vector_norm": _norm,
    "fake_quantize_per_tensor_affine": _faked,
    "fake_quantize_per_channel_affine": _channels,
    **{name: partial(_function, name) for name in ("exp", "log", "sin", "cos", "tanh", "sigmoid")},
    "add": lambda x, y, alpha=1: _number(x) + _product(alpha, y),
    "sub": lambda x, y, alpha=1: _number(x) - _product(alpha, y),
    "rsub": lambda x, y, alpha=1: _number(y) - _product(alpha, x),
    "mul": _product,
    "div": lambda x, y: _number(x) / _number(y),
    "neg": lambda x: -x,
    "abs": abs,
    "relu": Constant.relu,
    "sqrt": Constant.sqrt,
    "rsqrt": lambda x: x.sqrt().reciprocal(),
    "reciprocal": Constant.reciprocal,
    "pow": _power,
    "sum": _sum,
    "mean": _mean,
    "maximum": lambda x, y: _number(x).maximum(_number(y)),
    "minimum": lambda x, y: _number(x).minimum(_number(y)),
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot"), Constant.matmul),
}
