"""The files of the networks that a specification declares."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from krelax.errors import InputError
from krelax.problem.query import Specification

Files = Mapping[str | None, Path]


def matched(specification: Specification, files: Files) -> dict[str | None, Path]:
    """The file of every network that a specification declares.

    Where there is one network to be given, its file may come without a name. A network that is equal to another one has
    that one's file. Raises InputError for files that are missing, or not asked for.
    """
    wanted = [n.name for n in specification.networks if n.relation != "equal-to"]
    names = [n.name for n in specification.networks]
    given = dict(files)
    if len(wanted) == 1 and len(given) == 1 and (None in given or wanted == [None]):
        given = {wanted[0]: next(iter(given.values()))}
    called = ", ".join(map(str, names))
    for name in given:
        if name not in names:
            what = "a network without a name" if name is None else name
            raise InputError(f"is about the network {called}, not {what}; give --network NAME=FILE for each")
    for name in wanted:
        if name not in given:
            raise InputError(f"is about the network {name}, too; add --network {name}=FILE")
    result: dict[str | None, Path] = {}
    for network in specification.networks:
        own = given.pop(network.name, None)
        result[network.name] = own or result[network.other]
        if network.relation == "equal-to" and own is not None and not _same(own, result[network.other]):
            raise InputError(
                f"{own}: given for the network {network.name}, which is declared equal to {network.other} and is not; "
                "leave it out, or correct the declaration"
            )
    return result


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other) or one.read_bytes() == other.read_bytes()
    except OSError as error:
        raise InputError(f"{one}: cannot be read ({error.strerror}); give an ONNX file") from error
