"""Are the networks of a system those that a specification declares? Names, sizes, shapes, types, and which tensors of
the files they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Protocol

from krelax.certificate.errors import Rejected
from krelax.certificate.format.schema import Part, System
from krelax.errors import one_line

Shape = tuple[int, ...]


class Variable(Protocol):
    """A tensor of a network: `label` is what the file calls it, or for hidden nodes the node. Its `kind` is "input",
    "hidden" or "output". Without a `shape`, or `element` type, nothing is said of that."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def shape(self) -> Shape | None: ...
    @property
    def size(self) -> int: ...
    @property
    def element(self) -> str | None: ...
    @property
    def label(self) -> str | None: ...


class Network(Protocol):
    """A network that is declared, perhaps with a relation to another one; its inputs and values are in order."""

    @property
    def name(self) -> str | None: ...
    @property
    def relation(self) -> str | None: ...
    @property
    def other(self) -> str | None: ...
    @property
    def variables(self) -> Sequence[Variable]: ...


class Tensor(Protocol):
    """A tensor of a file."""

    @property
    def shape(self) -> Shape: ...
    @property
    def element(self) -> str: ...


class Ends(Protocol):
    """What a file calls its inputs, those that something reads, its outputs, and nodes with their results."""

    @property
    def inputs(self) -> Sequence[str]: ...
    @property
    def used(self) -> Sequence[str]: ...
    @property
    def outputs(self) -> Sequence[str]: ...
    @property
    def nodes(self) -> Sequence[tuple[str, Sequence[str]]]: ...


class Used(Protocol):
    """What a use of a file was found to be."""

    @property
    def inputs(self) -> Sequence[Tensor]: ...
    @property
    def values(self) -> Sequence[Tensor]: ...
    @property
    def ends(self) -> Ends: ...


def check_networks(system: System, networks: Sequence[Network]) -> None:
    """Raises Rejected unless parts are the networks, in order, each with as many inputs and values, and those that are
    equal of one file."""
    if [part.name for part in system.parts] != [network.name for network in networks]:
        raise Rejected("networks of other names, or in another order, than the specification declares")
    hashes = {network.name: part.network for network, part in zip(networks, system.parts, strict=True)}
    for network, part in zip(networks, system.parts, strict=True):
        if network.relation == "equal-to" and part.network != hashes[network.other]:
            raise Rejected(f"{network.name} and {network.other} are declared equal, and are two files")
        sizes = [v.size for v in _inputs(network)]
        if [len(g.places) for g in part.inputs] != sizes or len(part.values) != len(_values(network)):
            raise Rejected(f"inputs or values of {_called(network)} that are others than the specification declares")


def check_files(system: System, given: Mapping[str | None, str]) -> None:
    """Raises Rejected if a network is another file than the one that is given for its name, by their hashes."""
    for part in system.parts:
        own = given.get(part.name, part.network)
        if own != part.network:
            raise Rejected(one_line(f"of {part.name} about the network {part.network[:12]}..., not {own[:12]}..."))


def same_values(system: System, networks: Sequence[Network]) -> list[int]:
    """For every value the first one that it is the same as: that of the same tensor of the same file, at the same
    inputs. Sizes are those that are declared."""
    known, result = dict[object, int](), list[int]()
    for network, part in zip(networks, system.parts, strict=True):
        given = frozenset((g.name, g.places.tobytes()) for g in part.inputs)
        for variable, name in zip(_values(network), part.values, strict=True):
            first = known.setdefault((part.network, given, name), len(result))
            result += range(first, first + variable.size)
    return result


def check_tensors(system: System, networks: Sequence[Network], used: Sequence[Used]) -> None:
    """Raises Rejected unless inputs and values are the tensors of the files that are declared, of shapes that differ by
    axes of size one alone, and of their types."""
    for network, part, use in zip(networks, system.parts, used, strict=True):
        _check_names(network, part, use.ends)
        pairs = zip((*_inputs(network), *_values(network)), chain(use.inputs, use.values), strict=True)
        for variable, own in pairs:
            size = 1
            for n in own.shape:
                size *= n
            fits = variable.shape is None or [n for n in variable.shape if n != 1] == [n for n in own.shape if n != 1]
            if size != variable.size or not fits:
                raise Rejected(f"{variable.name} of {_called(network)} is declared of another shape than the file has")
            if variable.element not in {None, own.element}:
                raise Rejected(f"{variable.name} of {_called(network)} is declared as {variable.element}, the file has "
                               f"{own.element}")  # fmt: skip


def _check_names(network: Network, part: Part, ends: Ends) -> None:
    inputs, values = _inputs(network), _values(network)
    own = ends.inputs if len(inputs) == len(ends.inputs) else ends.used
    outputs = [v for v in values if v.kind == "output"]
    named = {v.name: name for v, name in zip(outputs, _names(outputs, ends.outputs), strict=False)}
    named |= {v.name: _result(v.label, ends) for v in values if v.kind == "hidden"}
    wanted = _names(inputs, own), [named.get(v.name) for v in values]
    if ([g.name for g in part.inputs], part.values) != wanted:
        raise Rejected(one_line(f"tensors of {_called(network)} that are others than the specification declares: "
                                f"{', '.join([*(g.name for g in part.inputs), *part.values])}"))  # fmt: skip


def _names(variables: Sequence[Variable], own: Sequence[str]) -> Sequence[str | None]:
    """What a file calls variables: their labels if any has one, which must differ, or else its own names in order."""
    labels = [v.label for v in variables]
    if any(label is not None for label in labels):
        known = set(labels) <= set(own) and len(set(labels)) == len(labels)
        return labels if known else [None] * len(labels)
    return list(own) if len(own) == len(variables) else [None] * len(variables)


def _result(label: str | None, ends: Ends) -> str | None:
    """The tensor that is called so, or the only result of the only node of that name."""
    results = {name for _, names in ends.nodes for name in names}
    if label in results:
        return label
    named = [names for node, names in ends.nodes if node == label]
    return named[0][0] if label is not None and len(named) == 1 and len(named[0]) == 1 else None


def _inputs(network: Network) -> list[Variable]:
    return [v for v in network.variables if v.kind == "input"]


def _values(network: Network) -> list[Variable]:
    return [v for v in network.variables if v.kind != "input"]


def _called(network: Network) -> str:
    return "the network" if network.name is None else network.name
