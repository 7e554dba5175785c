"""Functions of the model's own, and branches: their bodies stand where they are called or chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from krelax.certificate.onnx.protobuf import Message
from krelax.errors import InputError, UnsupportedError

Attributes = Mapping[str, tuple[str, Any]]
# Nodes of all bodies together.
_MOST_NODES, _MOST_NESTED = 10**5, 16
_GRAPH = 5  # AttributeProto.AttributeType


class Functions:
    """The functions of a model, by domain and name."""

    def __init__(self, model: Message, version: int) -> None:
        self._known: dict[tuple[str, str], Message] = {}
        self._room, self._count = _MOST_NODES, 0
        for function in model.all("functions"):
            key = function.get("domain", ""), function.get("name", "")
            if key in self._known or function.get("overload", "") or key[0] in {"", "ai.onnx"}:
                raise UnsupportedError(f"functions of the name {key[1]!r}, overloaded or of ONNX's own domain")
            sets = [(o.get("domain", ""), o.get("version", 0)) for o in function.all("opset_import")]
            if any(v != version for domain, v in sets if domain in {"", "ai.onnx"}):
                raise UnsupportedError(f"a function {key[1]!r} of another version of the operator set")
            self._known[key] = function

    def names(self, node: Message) -> bool:
        """Whether a node is a call of a function."""
        return (node.get("domain", ""), node.get("op_type", "")) in self._known

    def body(self, node: Message, depth: int) -> tuple[Message, Callable[[str], str]]:
        """The function that a node calls, and how its tensors are called there: by the node's own names where they are
        operands and results, elsewhere by new ones."""
        function = self._known[node.get("domain", ""), node.get("op_type", "")]
        self._take(function, depth)
        own: dict[str, str] = {}
        for side in ("input", "output"):
            formal, actual = function.all(side), node.all(side)
            names = [*actual, *[""] * (len(formal) - len(actual))]
            if len(names) != len(formal) or len({*formal, *own}) < len(formal) + len(own):
                raise InputError(f"a call of {function.get('name', '')} with {len(actual)} operands or results")
            # results that nobody wants have names inside all the same
            own |= {f: name for f, name in zip(formal, names, strict=True) if name or side == "input"}
        prefix = f"{function.get('name', '')} {self._count} "
        return function, lambda name: own[name] if name in own else name and prefix + name

    def named(self, graph: Message, outside: Callable[[str], str], depth: int) -> Callable[[str], str]:
        """How tensors are called in a branch: by new names where they are its own, elsewhere as outside of it."""
        self._take(graph, depth)
        own = {name for node in graph.all("node") for name in node.all("output") if name}
        own |= {item.get("name", "") for item in graph.all("initializer")}
        prefix = f"branch {self._count} "
        return lambda name: prefix + name if name in own else outside(name)

    def _take(self, body: Message, depth: int) -> None:
        """Make room for the nodes of a body, and count it."""
        self._room -= len(body.all("node"))
        self._count += 1
        if self._room < 0 or depth > _MOST_NESTED:
            raise UnsupportedError(f"functions and branches of more than {_MOST_NODES} nodes, or {_MOST_NESTED} levels")


def branches_of(node: Message) -> list[Message]:
    """The graphs of an `If`: that for a condition that is true, and the other."""
    found = {item.get("name", ""): item for item in node.all("attribute")}
    wanted = ["then_branch", "else_branch"]
    plain = [set(item.present()) - {"doc_string"} == {"name", "type", "g"} for item in found.values()]
    if len(node.all("attribute")) != 2 or set(found) != set(wanted) or not all(plain):
        raise UnsupportedError("an If that has not exactly two branches")
    if any(item.get("type") != _GRAPH for item in found.values()):
        raise UnsupportedError("an If whose branches are no graphs")
    return [found[name].get("g") for name in wanted]
