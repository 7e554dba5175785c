"""The network in an ONNX file, as the checker sees it: every operator is read by a function of its own.

They lie in four modules: entries that move, affine maps, windows, and activations.
"""

from __future__ import annotations

from math import prod

from krelax.certificate import affine, movement, nonlinear, windows  # noqa: F401 (each fills OPERATORS)
from krelax.certificate.context import OPERATORS, Context, Tensor, Value
from krelax.certificate.network import Builder, Network
from krelax.certificate.onnx import parse
from krelax.errors import InputError, UnsupportedError


def read_network(data: bytes) -> Network:
    """The network in an ONNX file. InputError if it cannot be used, UnsupportedError for unknown operators."""
    model = parse(data)
    builder = Builder(prod(model.shape))
    tensors: dict[str, Tensor] = {**model.constants, model.input: Value(0, model.shape)}
    for call in model.calls:
        place = f"operator {call.op} for {call.outputs[:1]}"
        if call.op not in OPERATORS or "broadcast" in call.attributes:  # other rules, before version 7
            raise UnsupportedError(f"{place} is not supported by the checker")
        try:
            operands = [tensors[name] if name else None for name in call.inputs]
            results = OPERATORS[call.op](Context(builder, call, operands, model.version))
        except (KeyError, IndexError, ValueError, TypeError, AttributeError, ZeroDivisionError, MemoryError) as error:
            raise InputError(f"{place}: malformed ({error})") from error
        except InputError as error:
            raise type(error)(f"{place}: {error}") from error
        several = results if isinstance(results, list) else [results]
        tensors.update(zip(call.outputs, several, strict=False))
    output = tensors.get(model.output)
    if not isinstance(output, Value):
        raise InputError("the output does not depend on the input")
    return builder.build(output.node)
