"""The two kinds of failure a user meets. Everything else is a bug of ours."""

import os
from pathlib import Path

_MOST_SHOWN = 1000


class KrelaxError(Exception):
    """Base class: the message says what is wrong, where, and what to do about it, in one line."""


class InputError(KrelaxError):
    """An input (file, array, option) cannot be used. The command line prints it and exits with code 2."""


class UnsupportedError(InputError):
    """The input is well formed but uses something krelax does not implement yet (an operator, a query form)."""


def no_file(path: Path, wanted: str) -> InputError:
    """What is wrong with a path at which there is no file, and what is wanted there."""
    what = "is a folder, not a file" if path.is_dir() else "is not a regular file" if path.exists() else "no such file"
    return InputError(f"{path}: {what}; give {wanted}")


def one_line(text: str) -> str:
    """A text with what a file may have put into it, as a message of one printable line that is not endless."""
    line = "".join(c if c.isprintable() else "?" for c in text)
    return line if len(line) <= _MOST_SHOWN else f"{line[:_MOST_SHOWN]}..."


def shows_tracebacks() -> bool:
    """Whether bugs are to be seen with their tracebacks, as `KRELAX_TRACEBACK=1` says, instead of in one line."""
    return os.environ.get("KRELAX_TRACEBACK", "0") not in {"", "0"}


_INTERNAL = "internal error"


def internal(error: BaseException) -> str:
    """A bug as the reason of an answer, in one line."""
    return f"{_INTERNAL}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def failed(reason: str) -> bool:
    """Whether a reason is a bug."""
    return reason.startswith(_INTERNAL)
