"""Reads a PyTorch module into a `Network`.

The module is captured by `torch.export` at the shape of one example. What does not depend on the input is enclosed on
the spot (`krelax.network.torch_constants`); every other node of the captured graph goes through one table of readers,
keyed by the name of its aten operator. The result is compared with the module at random inputs before anyone sees it.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from krelax.elements import FLOAT32, FLOAT64, Elements
from krelax.errors import InputError, KrelaxError, UnsupportedError
from krelax.network import (  # noqa: F401 (they fill READERS)
    torch_affine,
    torch_composites,
    torch_moves,
    torch_numbers,
    torch_orders,
)
from krelax.network.check import check_import
from krelax.network.constants import Constant
from krelax.network.enclosing import enclosed
from krelax.network.graph import Builder, Network, Replay, as_elements
from krelax.network.simplify import fuse
from krelax.network.torch_capture import capture, tensors_of
from krelax.network.torch_constants import evaluate, evaluates
from krelax.network.torch_operators import READERS
from krelax.network.torch_reader import Branch, Call, name_of

# Their results may be truths.
DECIDING = {
    "gt", "ge", "lt", "le", "logical_not", "logical_and", "logical_or", "bitwise_not", "bitwise_and", "bitwise_or",
    "view", "reshape", "expand", "unsqueeze", "squeeze", "permute", "transpose", "clone", "detach", "alias", "select",
    "slice", "__and__", "__or__", "_to_copy", "to",
}  # fmt: skip
# Their results may be whole numbers.
KEEPING = {
    "_to_copy", "to", "argmax", "argmin", "view", "reshape", "expand", "unsqueeze", "squeeze", "permute", "transpose",
    "clone", "detach", "alias", "select", "slice",
}  # fmt: skip
# Constants, though one argument is a tensor: they use only its shape.
_SHAPE_ONLY = {"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"}


def from_torch(module: torch.nn.Module, example: Tensor, output: int | None = None) -> Network:
    """The network that a module computes in evaluation mode, with float64 constants and a `replay` through the module.

    Args:
        module: The module. It is copied: later changes to it do not reach the network.
        example: One input in float32 or float64 with every axis that the module takes, its batch axis included. Only
            its shape, type and device matter.
        output: Which of the tensors that the module returns, counted from zero through all containers. If it is left
            out, the first of floating-point numbers that depends on the input; `notes` say so if there are several.

    Returns:
        The network, whose inputs have the shape of the example.

    Raises:
        UnsupportedError: The module has an operator that krelax does not know.
        InputError: It cannot be captured, has weights that are not finite, or gives no tensor that
            depends on the input.

    Sound: yes, as `load_onnx`.
    """
    if example.dtype not in (torch.float32, torch.float64):
        raise InputError(f"the example has type {example.dtype}; give a tensor of float32 or float64")
    frozen, program = capture(module, example, _reads)
    builder = Builder(tuple(example.shape))
    kind = FLOAT64 if example.dtype == torch.float64 else FLOAT32
    place, found, notes = _chosen(_walk(builder, program), output)
    plain = fuse(builder.build(found))
    network = replace(plain, replay=_replay(frozen, example, kind, place), elements=kind, notes=notes)
    _require_finite(network)
    check_import(network, "the module")
    return network


def supported_operators() -> list[str]:
    """Names of the aten operators that may depend on the input."""
    return sorted(f"aten.{name}" for name in READERS)


def _replay(module: torch.nn.Module, example: Tensor, kind: Elements, place: int) -> Replay:
    def replay(x: NDArray[Any]) -> NDArray[Any]:
        with torch.no_grad():
            result = tensors_of(module(torch.from_numpy(as_elements(x, kind)).to(example)))[place]
        values: NDArray[Any] = result.cpu().numpy()
        return values

    return replay


def _require_finite(network: Network) -> None:
    for node in network.nodes:
        if not all(bool(t.isfinite().all()) for t in node.op.parameters()):
            raise InputError(f"{node.name or type(node.op).__name__}: a constant overflows or divides by zero")


def _reads(node: torch.fx.Node) -> bool:
    """Whether a call is read, or is no operator."""
    name = name_of(node)
    return (
        name in READERS
        or evaluates(name)
        or name in _SHAPE_ONLY | {"_assert_tensor_metadata"}
        or name == str(node.target)
    )


def _chosen(results: Sequence[tuple[Any, torch.dtype]], output: int | None) -> tuple[int, int, tuple[str, ...]]:
    """Which tensor of a module's results is read, its node, and what is to be said of that."""
    if output is not None and not 0 <= output < len(results):
        raise InputError(f"no output {output}; the module returns {len(results)} tensors")
    able = [i for i, (value, kind) in enumerate(results) if isinstance(value, Branch) and kind.is_floating_point]
    able = able or [i for i, (value, _) in enumerate(results) if isinstance(value, Branch)]
    place = output if output is not None else next(iter(able), 0)
    value = results[place][0] if results else None
    if not isinstance(value, Branch):
        raise InputError("the output of the module does not depend on its input")
    several = output is None and len(able) > 1
    note = f"about tensor {place} of the {len(results)} that the module returns; choose another with output=NUMBER"
    return place, value.index, (note,) if several else ()


def _walk(builder: Builder, program: ExportedProgram) -> list[tuple[Any, torch.dtype]]:
    """Append every node of the captured graph; returns the values of its results, and their types."""
    values: dict[torch.fx.Node, Any] = {}
    constants = _constants(program)
    for node in program.graph.nodes:
        if node.op == "placeholder":
            values[node] = constants.get(node.name, Branch(0))
        elif node.op == "call_function":
            values[node] = _value(builder, node, values)
        elif node.op == "output":
            outputs = [n for n in tree_leaves(node.args[0]) if isinstance(n, torch.fx.Node)]
            results = [(values.get(n), _kind([n])) for n in outputs if isinstance(n.meta.get("val"), Tensor)]
    return results


def _constants(program: ExportedProgram) -> dict[str, Any]:
    """Parameters, buffers and literal tensors that are used, by placeholder; floating-point ones as `Constant`s."""
    signature = program.graph_signature
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    used = {n.name for n in program.graph.nodes if n.users}
    tensors = {**program.constants, **program.state_dict}
    return {place: _finite(tensors[name], name) for place, name in names.items() if place in used}


def _finite(tensor: Tensor, name: str) -> Any:
    if not (tensor.isfinite() | tensor.isneginf()).all():
        raise InputError(f"tensor {name!r} holds NaN or infinity; train or load the module again")
    plain = tensor.detach().cpu().clone()  # no memory shared with the module
    return Constant.of(plain) if plain.is_floating_point() else plain


def _value(builder: Builder, node: torch.fx.Node, values: dict[torch.fx.Node, Any]) -> Any:
    """Value of a call: a branch, a constant, or a tuple of them."""
    args: Any
    kwargs: Any
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), values.__getitem__)
    try:
        if node.target is operator.getitem:
            return _item(args[0], args[1])
        if name_of(node) == "_assert_tensor_metadata":  # a check of types and shapes, which stand in the graph
            return None
        if name_of(node) in _SHAPE_ONLY:
            args = tree_map_only(Branch, lambda b: torch.zeros(builder.shape(b.index)), args)
        elif any(isinstance(values[n], Branch) for n in node.all_input_nodes):
            return _read(builder, node, args, kwargs)
        return _evaluate(node, args, kwargs)
    except KrelaxError as error:
        raise type(error)(f"{_place(node)}: {error}") from error


def _item(values: Sequence[Any], position: int) -> Any:
    if position >= len(values):
        raise UnsupportedError("krelax has only the first result of this operator; do not use the others")
    return values[position]


def _evaluate(node: torch.fx.Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """A call that does not depend on the input."""
    target: Any = node.target
    if torch.Tag.nondeterministic_seeded in getattr(target, "tags", ()):
        raise UnsupportedError("random numbers; krelax needs a module that always computes the same function")
    device = {"device": torch.device("cpu")} if "device" in kwargs else {}
    kind = _kind([node])
    given = next((v for v in tree_leaves((args, kwargs)) if isinstance(v, Constant)), None)
    try:
        if given is not None and kind.is_floating_point and not evaluates(name_of(node)) and name_of(node) in READERS:
            return _enclosed(node, args, kwargs, given)
        return evaluate(name_of(node), target, args, kwargs | device, kind, _kind(node.all_input_nodes))
    except (RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UnsupportedError(f"not a constant krelax can evaluate ({reason})") from error


def _enclosed(node: torch.fx.Node, args: Sequence[Any], kwargs: dict[str, Any], given: Constant) -> Any:
    """The same of an operator that is only read of what depends on an input: as if the first constant were one."""
    builder = Builder(given.shape)
    args, kwargs = tree_map(lambda v: Branch(0) if v is given else v, (args, kwargs))
    result = _read(builder, node, args, kwargs)
    return tree_map(lambda b: enclosed(builder.build(b.index), given.checked()).checked(), result)


def _kind(nodes: Sequence[torch.fx.Node]) -> torch.dtype:
    """Type, in the module, of the first tensor that nodes compute."""
    tensors = tree_leaves([node.meta.get("val") for node in nodes])
    return next((t.dtype for t in tensors if isinstance(t, Tensor)), torch.int64)


def _read(builder: Builder, node: torch.fx.Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """A call that depends on the input, through the table."""
    read = READERS.get(name_of(node))
    if read is None:
        raise UnsupportedError(
            "krelax does not support this operator; write the module with those that `krelax supports` lists"
        )
    target: Any = node.target
    defaults = {a.name: a.default_value for a in target._schema.arguments}
    given = dict(zip(defaults, args, strict=False))
    _require_same_type(node)
    try:
        result = read(Call(builder, node, defaults | given | kwargs))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:  # what torch raises for shapes it cannot tell
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UnsupportedError(f"not as krelax reads it ({reason})") from error
    return Branch(result) if isinstance(result, int) else tuple(Branch(i) for i in result)


def _require_same_type(node: torch.fx.Node) -> None:
    """Raises UnsupportedError if a result that depends on the input is rounded to a narrower type than float32, or
    than its operand's."""
    found = [t.dtype for t in tree_leaves(node.meta["val"]) if isinstance(t, Tensor)][:1]
    operands = [n.meta["val"].dtype for n in node.all_input_nodes if isinstance(n.meta.get("val"), Tensor)]
    wide = any(d == torch.float64 for d in operands)
    if name_of(node) in DECIDING and found == [torch.bool]:
        return
    if name_of(node) in KEEPING and found in ([torch.int32], [torch.int64]):
        return
    if any(d not in (torch.float32, torch.float64) or (wide and d == torch.float32) for d in found):
        raise UnsupportedError(f"a result rounded to {found[0]}; krelax reads modules of one type, float32 or float64")


def _place(node: torch.fx.Node) -> str:
    """The operator, and the module it is called in."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    if not stack or not stack[-1][0]:
        return str(node.target)
    path, kind = stack[-1]
    return f"{node.target} in module {path!r} ({str(getattr(kind, '__name__', kind)).rpartition('.')[2]})"
