"""The bytes of a network: an ONNX file, the files that hold its constants, and the hash of them all.

Constants may lie in files next to the network's (`external_data`), named in it. A network without them has the SHA-256
of its file as its hash; with them, that of a list of the hashes of all its files and their names.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import stat
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from krelax.certificate.onnx.protobuf import Message, decode, walk
from krelax.errors import InputError, UnsupportedError, one_line

EXTERNAL = 1  # TensorProto.DataLocation
# Of an ONNX file, as much as protocol buffers hold; and of one that holds constants.
_MOST_BYTES, _MOST_EXTERNAL = (1 << 31) - 1, 1 << 33
_ENTRIES = {"location", "offset", "length", "checksum"}
# A plain file name: no folders, no drives, nothing hidden, no control characters.
_PLAIN = re.compile(r"(?!\.)[^/\\:\0-\x1f\x7f]+")
# No ONNX file begins like this: it would be field 13, a group, of the model.
_LISTED = "krelax: a network in several files\n"


@dataclass(frozen=True)
class Model:
    """The ONNX file's bytes, and those of other files by the names in it."""

    data: bytes
    external: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """SHA-256, hexadecimal, of the file, or of the list of all files' hashes if there are several."""
        own = hashlib.sha256(self.data).hexdigest()
        if not self.external:
            return own
        lines = [own, *(f"{hashlib.sha256(self.external[n]).hexdigest()} {n}" for n in sorted(self.external))]
        return hashlib.sha256((_LISTED + "\n".join(lines)).encode()).hexdigest()


def read_model(path: str | Path) -> Model:
    """The network in an ONNX file, which may be compressed by gzip, with the files that it names.

    Raises InputError if a file is missing or cannot be read, or if the ONNX file is none; UnsupportedError if it names
    other files than such in its own folder, or is written in a way that the checker does not read.
    """
    path = Path(path)
    data = _bytes(path, _MOST_BYTES, "give the path of an ONNX network")
    if data[:2] == b"\x1f\x8b":
        data = _unpacked(data, path)
    try:
        names = external_names(decode("Model", data))
    except InputError as error:
        reason = one_line(f"not an ONNX file that the checker reads ({error})")
        raise type(error)(f"{path}: {reason}") from error
    for name in names:
        if not _PLAIN.fullmatch(name):
            raise UnsupportedError(f"{path}: constants in {name!r}; only files in the network's own folder are read")
    role = f"constants of {path.name} lie in it"
    return Model(data, {name: _bytes(path.parent / name, _MOST_EXTERNAL, role) for name in names})


def model_hash(path: str | Path) -> str:
    """The hash of the network in an ONNX file, with all files that hold its constants. Raises as `read_model` does."""
    return read_model(path).hash


def external_names(model: Message) -> list[str]:
    """The names of the files that hold constants of a model, wherever in it the constants are."""
    tensors = [t for t in walk(model, "Tensor") if t.get("data_location", 0) == EXTERNAL]
    return sorted({external_entry(tensor)["location"] for tensor in tensors})


def external_entry(tensor: Message) -> dict[str, str]:
    """Where the numbers of a tensor lie: "location", perhaps "offset" and "length", and a "checksum", which the hash
    makes needless."""
    pairs = [(entry.get("key", ""), entry.get("value", "")) for entry in tensor.all("external_data")]
    entry = dict(pairs)
    if len(entry) != len(pairs) or not {"location"} <= entry.keys() <= _ENTRIES:
        raise UnsupportedError(f"constant {tensor.get('name', '')!r}: external data {', '.join(sorted(entry))}")
    return entry


def _bytes(path: Path, most: int, role: str) -> bytes:
    """What is in a file. Pipes and devices may have no end, so they are not read."""
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise InputError(f"{path}: cannot be read (not a file); {role}")
        if state.st_size > most:
            raise InputError(f"{path}: cannot be read (more than {most} bytes); {role}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {role}") from error


def _unpacked(data: bytes, path: Path) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            unpacked = file.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: damaged gzip data ({error}); fetch the file again") from error
    if len(unpacked) > _MOST_BYTES:
        raise InputError(f"{path}: more than {_MOST_BYTES} bytes when unpacked")
    return unpacked
