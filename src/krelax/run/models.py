"""Networks in files, compressed or not, for runs that come back to them."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.network.onnx import load_onnx

# More than this, unpacked, is no network that could be read.
_MAX_BYTES = 1 << 32
_PIECE = 1 << 22


class Models:
    """The network that was asked for last, and compressed files unpacked in a folder that is removed in the end."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="krelax-")
        self._unpacked: tuple[Path, Path] | None = None
        self._loaded: tuple[Path, Network] | None = None

    def __enter__(self) -> Models:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def unpacked(self, path: Path) -> Path:
        """The file itself, or what is in it if its name ends in `.gz`. Raises InputError if that is damaged."""
        if path.suffix != ".gz" or not path.is_file():
            return path
        if self._unpacked is None or self._unpacked[0] != path:
            if self._unpacked is not None:
                self._unpacked[1].unlink(missing_ok=True)
            target = Path(self._folder.name) / path.stem
            _unpack(path, target)
            self._unpacked = path, target
        return self._unpacked[1]

    def network(self, path: Path) -> Network:
        """The network in a file. Raises InputError if it cannot be used; messages name the file that was given."""
        if self._loaded is None or self._loaded[0] != path:
            unpacked = self.unpacked(path)
            try:
                self._loaded = path, load_onnx(unpacked)
            except InputError as error:
                raise type(error)(str(error).replace(str(unpacked), str(path))) from error
        return self._loaded[1]


def _unpack(path: Path, target: Path) -> None:
    size = 0
    try:
        with gzip.open(path) as source, target.open("wb") as sink:
            while piece := source.read(_PIECE):
                size += sink.write(piece)
                if size > _MAX_BYTES:
                    raise InputError(f"{path}: is larger than {_MAX_BYTES} bytes unpacked")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged gzip data ({error}); fetch the file again") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be unpacked ({error.strerror or error})") from None
