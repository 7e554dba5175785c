"""Which tensor of a file is read: an output, or for questions that only compare outputs the scores before its head.

A head changes scores, but not which of two is larger, in real numbers: each is exponentiated and divided by the same
sum (softmax; its logarithm is such a function, too), or divided by the same positive norm. The place of the largest is
a head, too, with a label behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

ML = "ai.onnx.ml."
CLASSIFIER, LABEL = f"{ML}LinearClassifier", "ArgMax"
HEAD = frozenset({"Softmax", "LogSoftmax", f"{ML}Normalizer", CLASSIFIER})
_PLAIN = frozenset({"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})


class Node(Protocol):
    """A node of the file, whatever else is known of it."""

    @property
    def op(self) -> str: ...

    @property
    def inputs(self) -> list[str]: ...

    @property
    def outputs(self) -> list[str]: ...


@dataclass(frozen=True)
class Wanted:
    """The tensor that is read. `head` are the calls that are left out, by the tensors they make, in order, and `label`
    is the tensor behind that says which is the largest."""

    name: str
    head: tuple[str, ...] = ()
    label: str = ""


def before_head(name: str, made: Mapping[str, Node]) -> Wanted:
    """The scores that a tensor is made of, if it is made of such."""
    chain: list[str] = []
    while name in made:
        call = made[name]
        last = call.op == CLASSIFIER
        if call.op not in _PLAIN | HEAD | {LABEL} or not call.inputs or (last and name != call.outputs[-1]):
            break
        chain.append(name)
        if last:
            break
        name = call.inputs[0]
    asked = first = chain[0] if chain else name
    label = next((n for n in reversed(chain) if made[n].op == LABEL), "")
    if label:
        first, chain = made[label].inputs[0], chain[chain.index(label) + 1 :]
    head = [k for k, n in enumerate(chain) if made[n].op in HEAD]
    # a cast behind a head rounds other numbers than those before it
    if any(made[n].op == "Cast" for n in chain[: max(head, default=0)]):
        return Wanted(asked)
    return Wanted(first, tuple(chain[k] for k in reversed(head)), label)


_N = TypeVar("_N", bound=Node)


def needed(calls: Sequence[_N], *names: str) -> list[_N]:
    """The calls that tensors depend on, in order."""
    wanted, found = {*names}, list[_N]()
    for call in reversed(calls):
        if wanted & set(call.outputs):
            found.append(call)
            wanted |= set(call.inputs)
    return found[::-1]
