"""Captures a PyTorch module as a graph: what users hand over, made plain first.

The module is copied. Its weights are what PyTorch computes of their parametrisations (weight norm, spectral norm).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch._export.utils import _collect_all_valid_cia_ops, _get_decomp_for_cia
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.utils._pytree import tree_leaves

from krelax.errors import InputError, UnsupportedError

_HALF = {torch.float16, torch.bfloat16}
# Operators that are made of others are written out so many times at most, one inside another.
_DEEPEST = 4


def capture(
    module: torch.nn.Module, example: Tensor, reads: Callable[[torch.fx.Node], bool]
) -> tuple[torch.nn.Module, ExportedProgram]:
    """A copy of the module in evaluation mode, and its graph without in-place operators. Operators that nobody `reads`
    are written as those that PyTorch makes them of.

    Raises InputError for a module that cannot be captured, or gives no tensor, UnsupportedError for one that
    writes to its buffers or its input, or computes in half precision.
    """
    _require_full(module)
    _require_values(module)
    _require_floats(module)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            frozen = _with_fixed_scales(_plain(_copied(module))).eval()
            result = frozen(example)
            program = _written_out(_exported(frozen, example).run_decompositions({}), reads)
    except Exception as error:  # the module's own code runs here, and torch has a type for every failure
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"torch.export cannot capture the module: {reason}") from error
    if not tensors_of(result):
        raise InputError(f"the module returns a {type(result).__name__}; wrap it to return a tensor")
    written = {OutputKind.BUFFER_MUTATION, OutputKind.USER_INPUT_MUTATION}
    if any(s.kind in written for s in program.graph_signature.output_specs):
        raise UnsupportedError("the module changes its buffers or its input; remove what writes to them")
    return frozen, program


def tensors_of(result: Any) -> list[Tensor]:
    """The tensors that a module returns, alone or in containers."""
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]


def _require_values(module: torch.nn.Module) -> None:
    """Raises InputError for weights that the module's first call would draw at random."""
    for name, weight in [*module.named_parameters(), *module.named_buffers()]:
        if is_lazy(weight):
            raise InputError(f"tensor {name!r} has no values yet; call or load the module first")


def _require_full(module: torch.nn.Module) -> None:
    tensors = [*module.named_parameters(), *module.named_buffers()]
    half = [name for name, t in tensors if t.dtype in _HALF]
    if half and len(half) == sum(t.is_floating_point() for _, t in tensors):
        raise UnsupportedError(
            f"a module in half precision, which rounds every result ({half[0]}); give copy.deepcopy(module).float(), "
            "whose weights are the same numbers"
        )


def _require_floats(module: torch.nn.Module) -> None:
    """Modules of quantised numbers are no graphs that PyTorch can export."""
    for name, part in module.named_modules():
        if ".quantized" in type(part).__module__:
            raise UnsupportedError(
                f"{name or 'the module'} computes with quantised numbers; give the module with fake quantisation, "
                "before it is converted, or export it as ONNX"
            )


def _copied(module: torch.nn.Module) -> torch.nn.Module:
    """A copy. Weights that are computed of others, as older parametrisations keep them, are copied as they are."""
    kept = {id(t): t.detach().clone() for m in module.modules() for t in vars(m).values() if isinstance(t, Tensor)}
    return copy.deepcopy(module, dict(kept))


def _plain(module: torch.nn.Module) -> torch.nn.Module:
    """The module with plain weights."""
    if isinstance(module, torch.jit.ScriptModule):
        return module
    for part in list(module.modules()):
        if parametrize.is_parametrized(part):
            part.eval()
            for name in list(part.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(part, name, leave_parametrized=True)
        for hook in list(part._forward_pre_hooks.values()):
            kind, name = type(hook).__name__, getattr(hook, "name", "weight")
            if kind == "WeightNorm":
                remove_weight_norm(part, name)
            elif kind == "SpectralNorm":
                remove_spectral_norm(part, name)
    return module


class _Quantised(torch.nn.Module):
    """Fake quantisation with the scales that a module has now."""

    def __init__(self, part: Any) -> None:
        super().__init__()
        self.scale, self.zero = part.scale.detach().clone(), part.zero_point.detach().clone()
        self.limits, self.axis = (int(part.quant_min), int(part.quant_max)), int(getattr(part, "ch_axis", -1))

    def forward(self, x: Tensor) -> Tensor:
        if self.axis >= 0 and self.scale.numel() > 1:
            zero = self.zero.to(torch.int32)
            return torch.fake_quantize_per_channel_affine(x, self.scale, zero, self.axis, *self.limits)
        return torch.fake_quantize_per_tensor_affine(x, float(self.scale), int(self.zero), *self.limits)


def _with_fixed_scales(module: torch.nn.Module) -> torch.nn.Module:
    """The module with fake quantisation as it is now: what would observe the data no longer does."""
    from torch.ao.quantization import FakeQuantizeBase, ObserverBase

    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, FakeQuantizeBase):
                on = bool(child.fake_quant_enabled[0])
                setattr(part, name, _Quantised(child) if on else torch.nn.Identity())
            elif isinstance(child, ObserverBase):
                setattr(part, name, torch.nn.Identity())
    return module


def _exported(module: torch.nn.Module, example: Tensor) -> ExportedProgram:
    if not isinstance(module, torch.jit.ScriptModule):
        return torch.export.export(module, (example,), strict=False)  # as newer releases do by themselves
    from torch._export.converter import TS2EPConverter

    return TS2EPConverter(module, (example,)).convert()


def _written_out(program: ExportedProgram, reads: Callable[[torch.fx.Node], bool]) -> ExportedProgram:
    for _ in range(_DEEPEST):
        calls = [n for n in program.graph.nodes if n.op == "call_function" and not reads(n)]
        table = {n.target: rule for n in calls if (rule := _rule(n.target)) is not None}
        if not table:
            break
        program = program.run_decompositions(table)
    return program


def _rule(target: Any) -> Callable[..., Any] | None:
    """What PyTorch makes an operator of, None if it is made of no others of its kind."""
    found: Callable[..., Any] | None = decomposition_table.get(target)
    if found is not None and not found.__module__.startswith("torch._refs"):
        return found
    return _get_decomp_for_cia(target) if target in _collect_all_valid_cia_ops() else None
