"""Which tensor of a file is read: one of its outputs, or the scores behind a head that keeps their order.

Files may have several outputs, as those of scikit-learn: a label, and a table of probabilities. And they may end in a
*head*, operators that change scores without changing which of two is larger: softmax, its logarithm, a division of all
by their norm, the place of the largest. A question that only compares outputs is one about the scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import onnx
import torch
from torch import Tensor

from krelax.errors import InputError, UnsupportedError
from krelax.network.onnx_branches import operands
from krelax.network.onnx_reader import FLOATS, Reader
from krelax.network.onnx_schema import full_name
from krelax.op import Shape

ML = "ai.onnx.ml"
# They keep entries and their order, or turn labels into such.
_PLAIN = {"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze"}
_LABEL, _TABLE, _CLASSIFIER = "ArgMax", f"{ML}.ZipMap", f"{ML}.LinearClassifier"


class KeptHeadError(UnsupportedError):
    """A head that changes the order of the scores, or is only of parts of them."""


@dataclass(frozen=True)
class Wanted:
    """What of a file is read: the tensor `name`, for the output `output`. `head` are the places of the nodes that are
    left out, `label` is the node behind that names the largest, and `notes` say what was chosen."""

    name: str
    output: str
    head: frozenset[int] = frozenset()
    label: onnx.NodeProto | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, graph: onnx.GraphProto, output: str | None, scores: bool) -> Wanted:
        """The output called so, or the first that has scores; for `scores` without its head."""
        made = {name: (i, node) for i, node in enumerate(graph.node) for name in node.output if name}
        chosen = _chosen(graph, made, output)
        name, notes = chosen, tuple[str, ...]()
        if len(graph.output) > 1 and output is None:
            others = ", ".join(o.name for o in graph.output if o.name != chosen)
            notes = (f"about the output {chosen!r}, not {others}; choose another one with --output",)
        if name in made and full_name(made[name][1]) == _TABLE:
            name = made[name][1].input[0]
        wanted = cls(name, chosen, notes=notes)
        return _without_head(wanted, made) if scores else wanted


def _chosen(graph: onnx.GraphProto, made: dict[str, tuple[int, onnx.NodeProto]], output: str | None) -> str:
    names = [o.name for o in graph.output]
    listed = ", ".join(names) or "none"
    if output is not None:
        if output not in names:
            raise InputError(f"no output {output!r}; the network has {listed}")
        return output
    if len(names) == 1:
        return names[0]
    scores = [o.name for o in graph.output if _has_scores(o, made)]
    if not scores:
        raise UnsupportedError(f"no output has floating-point numbers ({listed}); choose one with --output NAME")
    return scores[0]


def _has_scores(value: onnx.ValueInfoProto, made: dict[str, tuple[int, onnx.NodeProto]]) -> bool:
    if value.type.HasField("tensor_type"):
        return value.type.tensor_type.elem_type in FLOATS
    return value.name in made and full_name(made[value.name][1]) == _TABLE


def _without_head(wanted: Wanted, made: dict[str, tuple[int, onnx.NodeProto]]) -> Wanted:
    """Without the head of the output, if it has one."""
    asked, chain, name = wanted, list[tuple[int, str, str]](), wanted.name
    while name in made:
        place, node = made[name]
        op = full_name(node)
        if op not in {*_PLAIN, *HEADS, _LABEL} or not node.input or (op == _CLASSIFIER and name != node.output[-1]):
            break
        chain.append((place, op, name))
        if op == _CLASSIFIER:
            break
        name = node.input[0]
    heads = [k for k, (_, op, _) in enumerate(chain) if op in HEADS or op == _LABEL]
    if not heads:
        return wanted
    label = next((k for k in reversed(heads) if chain[k][1] == _LABEL), None)
    if label is not None:  # what comes behind it are labels: the scores are before it
        node = made[chain[label][2]][1]
        chain, heads = chain[label + 1 :], [k - label - 1 for k in heads if k > label]
        wanted = replace(wanted, name=node.input[0], label=node)
    # a cast behind a head rounds other numbers than those before it
    if any(op == "Cast" for _, op, _ in chain[: max(heads, default=0)]):
        return asked
    ops = [chain[k][1] for k in reversed(heads)] + ([] if label is None else [_LABEL])
    note = f"about the scores before {', '.join(o.rpartition('.')[2] for o in ops)}, which keeps their order"
    return replace(wanted, head=frozenset(chain[k][0] for k in heads), notes=(*wanted.notes, note))


def check_label(wanted: Wanted, shape: Shape) -> None:
    """Raises UnsupportedError if the label is not that of the largest of all scores, whose shape is given."""
    if wanted.label is None:
        return
    axis = next((a.i for a in wanted.label.attribute if a.name == "axis"), 0)
    if not -len(shape) <= axis < len(shape) or shape[axis] != prod(shape):
        raise UnsupportedError(f"labels of parts of the scores, shape {list(shape)}; export one row")


def needed(graph: onnx.GraphProto, *names: str) -> list[tuple[int, onnx.NodeProto]]:
    """The nodes that tensors depend on, with their places, in order."""
    wanted, found = {*names}, []
    for place in range(len(graph.node) - 1, -1, -1):
        node = graph.node[place]
        if wanted & set(node.output) or not any(node.output):
            found.append((place, node))
            wanted |= set(operands(node))
    return found[::-1]


def _softmax(r: Reader) -> int:
    """Over one axis, or in older operator sets over all from there on, that must have all scores."""
    shape = r.shape()
    axis = r.axis(r.attribute("axis"), len(shape))
    function = torch.softmax if r.node.op_type == "Softmax" else torch.log_softmax
    return _whole(r, shape[axis] if r.version >= 13 else prod(shape[axis:]), lambda y: function(y, 1))


def _normaliser(r: Reader) -> int:
    """Each row divided by a number that is positive where anything in it differs."""
    if r.attribute("norm") not in {"L1", "L2"}:
        raise KeptHeadError(f"norm {r.attribute('norm')} before the scores are compared; use L1 or L2")
    p = int(r.attribute("norm")[1])
    return _whole(r, r.shape()[-1] if r.shape() else 1, lambda y: y / y.norm(p, 1, keepdim=True))


def _whole(r: Reader, count: int, function: Callable[[Tensor], Tensor]) -> int:
    if count != prod(r.shape()):
        raise KeptHeadError(f"a {r.node.op_type} of parts of the scores, shape {list(r.shape())}; export one row")
    r.known.head.append(function)
    return r.value()


# What a head does to scores is left out: the readers look whether it keeps their order.
HEADS: dict[str, Callable[[Reader], int | list[int | None]]] = {
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    f"{ML}.Normalizer": _normaliser,
}
