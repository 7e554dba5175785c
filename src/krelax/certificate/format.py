"""The certificate file, a zip of `certificate.json` and `.npy` arrays, as dataclasses (see docs/certificates.md).

A certificate holds questions and, for each, the free choices of a proof: slopes, shares, multipliers, trees. It holds
no bound. The dataclasses below are the schema: what they declare is what `write` accepts and `read` lets pass.
Everything that depends on the network (sizes, numbers of neurons) is checked by whoever uses the parts.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
import zlib
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from math import isfinite, prod
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from krelax.errors import InputError

FORMAT, VERSION = "krelax certificate", 1
# What a file may hold, stated or not: bytes of all members together, of the document, and number of members.
MOST_BYTES, _MOST_DOCUMENT, _MOST_MEMBERS = 1 << 31, 1 << 24, 1 << 17

# What is no neuron in a tree.
LEAF, CLIP = -1, -2

_DOCUMENT = "certificate.json"
_SHAPE = rb"((?:[0-9]{1,10}, ?)*(?:[0-9]{1,10})?)"
_HEADER = re.compile(rb"\{'descr': '([<|][fiu][1248])', 'fortran_order': False, 'shape': \(" + _SHAPE + rb"\), \} *\n")


class Malformed(InputError):
    """The file is not a certificate of this format, or does not fit the network: nothing can be said about a proof."""


class Stored(NamedTuple):
    """How an array is stored: its type, and a name for each axis. Axes of one object with the same name have the same
    length."""

    dtype: str
    axes: str


@dataclass
class Region:
    """The inputs `lower <= x <= upper`, flattened; for "l2" and "l1" those of them with `||x - centre|| <= eps`."""

    kind: Literal["box", "l2", "l1"]
    lower: Annotated[NDArray[np.float64], Stored("<f8", "inputs")]
    upper: Annotated[NDArray[np.float64], Stored("<f8", "inputs")]
    centre: Annotated[NDArray[np.float64], Stored("<f8", "inputs")] | None = None
    eps: float | None = None

    def describe(self) -> str:
        """The region in words."""
        width = (self.upper - self.lower) / 2
        box = f"box of {len(width)} inputs, half-widths {width.min():.6g} to {width.max():.6g}"
        return box if self.kind == "box" else f"{self.kind} ball of radius {self.eps:.6g} in a {box}"


@dataclass
class Forms:
    """Linear forms `sum coefficient * z[entry]` of a pre-activation, flattened: a term is an item of each array.

    Forms are numbered from 0, none left out; there are as many as the claim has trees. Terms come in order of form,
    then entry, each once.
    """

    form: Annotated[NDArray[np.int32], Stored("<i4", "terms")]
    entry: Annotated[NDArray[np.int32], Stored("<i4", "terms")]
    coefficient: Annotated[NDArray[np.float64], Stored("<f8", "terms")]


@dataclass
class Shares:
    """What the groups of a set take over in each leaf: `coeff` of the coefficients behind the activation and `slope` of
    those before it, for each member, outright.

    `basis` names, for each sign pattern, k rows of the group's polytope that are active where the pattern's maximum is:
    r for row r of the set, m + i for the side of member i; 255 for none. One more row, if it is not 255, shows with
    them that the pattern is empty. Patterns are numbered in binary: bit i (of value 2**i) says that member i is at
    least zero. Without a basis, pairs try all their rows, larger groups none.
    """

    set: int
    coeff: Annotated[NDArray[np.float32], Stored("<f4", "leaves groups k")]
    slope: Annotated[NDArray[np.float32], Stored("<f4", "leaves groups k")]
    basis: Annotated[NDArray[np.uint8], Stored("|u1", "leaves groups patterns rows")] | None = None


@dataclass
class Crossing:
    """The choices at one activation, given by its number, for all leaves of a claim.

    `row`, for each leaf, is a row of the tables, numbered through `slopes`, `lines` and `absolute` in this order, or -1
    for none; it is missing if there are no tables. `entries` are the neurons (entries of the pre-activation, flattened)
    that `slopes` and `lines` are about, all of them if it is missing; neurons without a choice are adaptive. `slopes`
    are of lower lines; `owner` says for each row which row of `upper` has those of upper lines, negative for no choice.
    `clips` has for each clip of the claim, and each form of the layer's `lines`, the multiplier of the margin in steps
    of a ninth or so (`krelax.certificate.clips`), 0 for none.
    """

    activation: int
    row: Annotated[NDArray[np.int32], Stored("<i4", "leaves")] | None = None
    entries: Annotated[NDArray[np.int32], Stored("<i4", "entries")] | None = None
    slopes: Annotated[NDArray[np.uint8], Stored("|u1", "slope_rows entries")] | None = None
    lines: Annotated[NDArray[np.float32], Stored("<f4", "line_rows entries pair")] | None = None
    absolute: Annotated[NDArray[np.float32], Stored("<f4", "absolute_rows neurons")] | None = None
    upper: Annotated[NDArray[np.float32], Stored("<f4", "upper_rows entries")] | None = None
    owner: Annotated[NDArray[np.int32], Stored("<i4", "slope_rows")] | None = None
    clips: Annotated[NDArray[np.uint8], Stored("|u1", "clips lines")] | None = None
    groups: list[Shares] = field(default_factory=list)


@dataclass
class Claim:
    """Lower bounds of some forms. Each form has a tree over splits, and each leaf a witness.

    `tree` holds the trees of all forms one after the other, in preorder: -1 for a leaf, otherwise the neuron that is
    split, whose first subtree has `z >= 0` and whose second has `z <= 0`. Neurons are numbered through the entries of
    all pre-activations. Leaves are numbered in order of appearance. `multipliers` has one number for each split on the
    path to each leaf: leaf by leaf, from the root. Activations without a crossing are adaptive throughout.
    `forms` is missing for margins: there the forms are the question's, in order.

    In trees of margins, and over boxes, -2 is a *clip*, which has a witness, as leaves have, with which it is numbered,
    and one subtree. There the margin is taken to be at most `level`, which is positive: no bound counts for more. So a
    bound of the margin is a half-space of inputs, over which the `lines` of layers narrow intervals in the subtree.
    """

    tree: Annotated[NDArray[np.int32], Stored("<i4", "nodes")]
    multipliers: Annotated[NDArray[np.float32], Stored("<f4", "splits")]
    crossings: list[Crossing] = field(default_factory=list)
    forms: Forms | None = None
    level: float | None = None


@dataclass
class GroupSet:
    """Groups of k neurons of one activation, and the normals of their polytopes, with entries in {-1, 0, 1}.

    The bound of a row over a group is the best proven by a claim of the same layer about exactly that form, or else
    what the members' intervals say.
    """

    members: Annotated[NDArray[np.int32], Stored("<i4", "groups k")]
    rows: Annotated[NDArray[np.int8], Stored("|i1", "rows k")]


@dataclass
class Layer:
    """What is proven about one activation's pre-activation, with the activations before it.

    `base` is how all undecided entries are bounded first; then come the claims, of forms over the pre-activation.
    A form of one entry with coefficient 1 or -1 tightens its interval. `lines` are such forms without splits, of which
    not the bounds but the linear forms of the inputs are kept, for clips.
    """

    base: Literal["interval", "adaptive", "parallel"]
    claims: list[Claim] = field(default_factory=list)
    groups: list[GroupSet] = field(default_factory=list)
    lines: Claim | None = None


@dataclass
class Step:
    """Lower bounds of forms over the pre-activation of one activation, given by its number."""

    activation: int
    claim: Claim


@dataclass
class Case:
    """A margin, given by its number, proven by contradiction: assume that it is at most `level`, which is positive, or
    else it is above it.

    Behind the outputs there is one more activation then, a ReLU of the margin less `level`, whose one neuron is not
    positive. Every path in a tree of a step begins with its split, on the side `z <= 0`, which is not in the tree and
    has its multiplier. Leaves have choices at all activations, because that neuron lies behind them all. Each of the
    `steps` is over the best that is known under the assumption then, at first what the question's own layers say. If
    bounds contradict each other, nothing is left to prove; otherwise `claim` has one tree, without that split, of the
    margin, and no bound counts for more than `level`. The `lines` for its clips are over what is known then, without
    the split, too.
    """

    margin: int
    level: float
    steps: list[Step] = field(default_factory=list)
    claim: Claim | None = None
    lines: list[Step] | None = None


@dataclass
class Boxes:
    """A tree of boxes in preorder: the input that is cut, -1 for a leaf, and where (0 for a leaf). First the part
    `x <= at`, then `x >= at`."""

    cut: Annotated[NDArray[np.int32], Stored("<i4", "nodes")]
    at: Annotated[NDArray[np.float64], Stored("<f8", "nodes")]


@dataclass
class Question:
    """For every x of the region, has every clause a margin `rows @ y + offsets` that is positive?

    `clause` numbers the clauses from 0, none left out. The proof is either one layer for each activation and a claim
    of all margins, or a tree of boxes. With `maxima`, it has one more activation behind the outputs, the largest margin
    of every clause (in windows as long as the longest; shorter ones repeat their first member), and the claim is of
    these maxima. A margin counts for as much as the claim says, or one of the `cases`.
    """

    region: Region
    rows: Annotated[NDArray[np.float64], Stored("<f8", "margins outputs")]
    offsets: Annotated[NDArray[np.float64], Stored("<f8", "margins")]
    clause: Annotated[NDArray[np.int32], Stored("<i4", "margins")]
    layers: list[Layer] = field(default_factory=list)
    margins: Claim | None = None
    boxes: Boxes | None = None
    maxima: bool | None = None
    cases: list[Case] | None = None


@dataclass
class Certificate:
    """Questions about one network, the file with the hash `network` (SHA-256, hexadecimal)."""

    network: str
    semantics: Literal["real", "float32"]
    tool: str
    questions: list[Question]


def write(path: str | Path, certificate: Certificate) -> None:
    """Write a certificate; the file appears at once and whole. TypeError or ValueError for a part that does not fit
    its declaration."""
    path = Path(path)
    arrays: list[NDArray[Any]] = []
    document = {"format": FORMAT, "version": VERSION} | _encode(Certificate, certificate, arrays, "certificate")
    part = path.with_name(path.name + ".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as file:
        _put(file, _DOCUMENT, json.dumps(document, indent=1).encode())
        for number, array in enumerate(arrays):
            _put(file, f"{number}.npy", _npy(array))
    os.replace(part, path)


def _put(file: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name)  # of fixed date, so that equal certificates are equal files
    info.compress_type = zipfile.ZIP_DEFLATED
    file.writestr(info, data)


def _npy(array: NDArray[Any]) -> bytes:
    shape = "".join(f"{n}, " for n in array.shape)
    header = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': ({shape}), }}"
    header = header.ljust(-(len(header) + 11) % 64 + len(header)) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + array.tobytes()


def _encode(hint: Any, value: Any, arrays: list[NDArray[Any]], where: str) -> Any:
    """A value as JSON; its arrays are appended to `arrays` and named."""
    hint = _bare(hint)
    if get_origin(hint) is Annotated:
        stored = hint.__metadata__[0]
        if not isinstance(value, np.ndarray) or value.dtype.str != stored.dtype:
            raise TypeError(f"{where}: not an array of type {stored.dtype}")
        if value.ndim != len(stored.axes.split()) or not _finite(value):
            raise ValueError(f"{where}: an array of shape {value.shape}, or not finite, for axes {stored.axes}")
        arrays.append(np.ascontiguousarray(value))
        return f"{len(arrays) - 1}.npy"
    if get_origin(hint) is list:
        return [_encode(get_args(hint)[0], v, arrays, f"{where}[{i}]") for i, v in enumerate(value)]
    if is_dataclass(hint):
        present = {name: h for name, h in _schema(hint).items() if getattr(value, name) is not None}
        result = {name: _encode(h, getattr(value, name), arrays, f"{where}.{name}") for name, h in present.items()}
        if problem := _mismatch(value):
            raise ValueError(f"{where}{problem}")
        return result
    return float(value).hex() if hint is float else value


def read(path: str | Path) -> Certificate:
    """Read a certificate. Raises Malformed for anything but a file as `write` makes them, after bounded work."""
    try:
        with zipfile.ZipFile(path) as file:
            members = _Members(file)
            result: Certificate = _decode(Certificate, members.document(), members, "certificate")
            members.finish()
            return result
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the path of a certificate") from None
    except Malformed as error:
        raise Malformed(f"{path}: {error}") from None
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise Malformed(f"{path}: not a readable zip file ({error})") from error


class _Members:
    """The members of the zip, each of which is to be used once; their stated sizes are enforced while reading."""

    def __init__(self, file: zipfile.ZipFile) -> None:
        infos = file.infolist()
        self._file, self._left = file, {info.filename: info for info in infos}
        if len(self._left) != len(infos) or len(infos) > _MOST_MEMBERS:
            raise Malformed("members of the same name, or too many of them")
        if any(i.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED} or i.flag_bits & 1 for i in infos):
            raise Malformed("members that are encrypted, or compressed by anything but deflate")
        if sum(info.file_size for info in infos) > MOST_BYTES:
            raise Malformed(f"more than {MOST_BYTES} bytes")

    def _read(self, name: str, most: int = MOST_BYTES) -> bytes:
        info = self._left.pop(name, None)
        if info is None or info.file_size > most:
            raise Malformed(f"{name}: missing, used twice, or too large")
        with self._file.open(info) as stream:
            data = stream.read(info.file_size + 1)
        if len(data) != info.file_size:
            raise Malformed(f"{name}: not of its stated size")
        return data

    def document(self) -> dict[str, Any]:
        """The document, less its name and version."""
        try:
            document = json.loads(self._read(_DOCUMENT, _MOST_DOCUMENT).decode(), object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            raise Malformed(f"{_DOCUMENT}: not JSON ({error})") from error
        if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
            raise Malformed(f"{_DOCUMENT}: not of the format {FORMAT!r}")
        if (version := document.pop("version", None)) != VERSION:
            raise Malformed(f"{_DOCUMENT}: version {version!r}; this checker reads version {VERSION}")
        return document

    def array(self, name: Any, stored: Stored, where: str) -> NDArray[Any]:
        """An array of the stated type and number of axes, with finite numbers."""
        data = self._read(name) if isinstance(name, str) else b""
        start = 10 + int.from_bytes(data[8:10], "little")
        header = _HEADER.fullmatch(data[10:start])
        if data[:8] != b"\x93NUMPY\x01\x00" or header is None or header[1].decode() != stored.dtype:
            raise Malformed(f"{where}: {name!r} is not an array of type {stored.dtype} in C order")
        shape = tuple(int(n) for n in header[2].replace(b",", b" ").split())
        if len(shape) != len(stored.axes.split()) or prod(shape) * np.dtype(stored.dtype).itemsize != len(data) - start:
            raise Malformed(f"{where}: {name} has shape {shape} and {len(data) - start} bytes for axes {stored.axes}")
        array = np.frombuffer(data, stored.dtype, offset=start).reshape(shape)
        if not _finite(array):
            raise Malformed(f"{where}: {name} holds NaN or infinity")
        return array

    def finish(self) -> None:
        """Nothing may be left over."""
        if self._left:
            raise Malformed(f"{next(iter(self._left))}: a member that nothing refers to")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, whose names must differ."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise Malformed(f"{_DOCUMENT}: an object with a name that occurs twice")
    return result


def _finite(array: NDArray[Any]) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _mismatch(value: Any) -> str:
    """Which of an object's axes of one name have different lengths; empty if none have."""
    sizes: dict[str, int] = {}
    for name, hint in _schema(type(value)).items():
        array = getattr(value, name)
        if get_origin(_bare(hint)) is Annotated and array is not None:
            for axis, n in zip(_bare(hint).__metadata__[0].axes.split(), array.shape, strict=True):
                if sizes.setdefault(axis, n) != n:
                    return f".{name}: {n} {axis}, elsewhere {sizes[axis]}"
    return ""


def _schema(kind: Any) -> dict[str, Any]:
    """Type hints of a dataclass's fields."""
    return _hints(kind)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {f.name: hints[f.name] for f in fields(kind)}


def _bare(hint: Any) -> Any:
    """A hint without `| None`."""
    if get_origin(hint) is UnionType or NoneType in get_args(hint):
        return next(h for h in get_args(hint) if h is not NoneType)
    return hint


def _decode(hint: Any, value: Any, members: _Members, where: str) -> Any:
    """What `_encode` made of a value of the hinted type."""
    hint = _bare(hint)
    if get_origin(hint) is Annotated:
        return members.array(value, hint.__metadata__[0], where)
    if get_origin(hint) is list:
        if not isinstance(value, list):
            raise Malformed(f"{where}: not a list")
        return [_decode(get_args(hint)[0], v, members, f"{where}[{i}]") for i, v in enumerate(value)]
    if is_dataclass(hint):
        return _decode_object(hint, value, members, where)
    return _decode_scalar(hint, value, where)


def _decode_object(kind: Any, value: Any, members: _Members, where: str) -> Any:
    schema = _schema(kind)
    needed = {name for name, h in schema.items() if _bare(h) is h}
    if not isinstance(value, dict) or not needed <= value.keys() <= schema.keys():
        raise Malformed(f"{where}: fields must be {sorted(needed)}, and may be {sorted(schema)}")
    result = kind(**{name: _decode(schema[name], v, members, f"{where}.{name}") for name, v in value.items()})
    if problem := _mismatch(result):
        raise Malformed(f"{where}{problem}")
    return result


def _decode_scalar(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) is Literal:
        if not isinstance(value, str) or value not in get_args(hint):
            raise Malformed(f"{where}: {value!r} is none of {get_args(hint)}")
        return value
    if hint is float:
        try:
            value = float.fromhex(value)
        except (TypeError, ValueError, OverflowError):
            value = float("nan")
        if not isfinite(value):
            raise Malformed(f"{where}: not a finite hexadecimal number")
        return value
    if type(value) is not hint:
        raise Malformed(f"{where}: not of type {hint.__name__}")
    return value
