"""The surface of VNN-LIB files: from bytes to nested lists of words, with positions for messages."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeGuard

from krelax.errors import InputError, UnsupportedError

_MAX_BYTES = 1 << 30
_MAX_DEPTH = 200

# An innermost list such as "(<= X_0 0.5)" is a single token: nearly all of a large file consists of
# them, many repeated, so each distinct one is taken apart only once. Repetitions are possessive or
# cannot run past the next token, so that no input makes the scan quadratic.
_WORD = r'"[^"\n]*"|[^\s()\[\]"]+(?:\s*\[[\s0-9,-]*+\])?|[^\s]'
_WORDS = re.compile(_WORD)
_TOKENS = re.compile(r'\([^()"]*+\)|[()]|' + _WORD)
_COMMENT = re.compile(r'("[^"\n]*")|;[^\n]*')


@dataclass(slots=True)
class Node:
    """A parenthesised list; ``position`` is the number of its first token in the file."""

    position: int
    items: list[Form]


# A form is a word, an innermost list still in its textual form "(...)", or a node.
Form = str | Node


class Fault(Exception):
    """What is wrong with a file, the token or node where it shows, and the error to report it as."""

    def __init__(self, message: str, where: Form | None = None, kind: type[InputError] = InputError) -> None:
        super().__init__(message)
        self.where = where
        self.kind = kind


class Source:
    """The commands of a file in order, and the lines on which they stand."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = _without_comments(_read_text(path))
        self._tokens: list[str] = _TOKENS.findall(self._text)
        self._start = 0

    def commands(self) -> Iterator[Node]:
        """The top-level lists. Raises Fault for unbalanced parentheses, stray text or no list at all."""
        for command in _read_forms(self._tokens):
            self._start = command.position
            yield command

    def error(self, fault: Fault) -> InputError:
        """The user's form of a fault that arose in the command last yielded, or after all of them."""
        where = fault.where
        if where is None:
            return fault.kind(f"{self._path}: {fault}")
        position = where.position if isinstance(where, Node) else self._tokens.index(where, self._start)
        token = next(islice(_TOKENS.finditer(self._text), position, None))
        line = self._text.count("\n", 0, token.start()) + 1
        return fault.kind(f"{self._path}:{line}: {fault}")


def _read_text(path: Path) -> str:
    try:
        if not path.is_file():
            problem = "is not a regular file" if path.exists() else "does not exist"
            raise InputError(f"{path}: {problem}; give the path of a VNN-LIB file")
        return _read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text in UTF-8 ({error.reason}); give a VNN-LIB file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged gzip data ({error}); fetch the file again") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r}: cannot be read ({error}); check its permissions") from None


def _read_bytes(path: Path) -> bytes:
    with path.open("rb") as stream:
        compressed = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        content = (gzip.GzipFile(fileobj=stream) if compressed else stream).read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise UnsupportedError(f"{path}: is larger than {_MAX_BYTES} bytes; split the specification")
    return content


def _without_comments(text: str) -> str:
    return _COMMENT.sub(lambda match: match[1] or "", text) if ";" in text else text


def _read_forms(tokens: Iterable[str]) -> list[Node]:
    commands: list[Node] = []
    enclosing: list[Node] = []
    current = Node(0, [])
    for position, token in enumerate(tokens):
        if token == "(":
            if len(enclosing) == _MAX_DEPTH:
                message = f"lists nest deeper than {_MAX_DEPTH} levels; flatten them"
                raise Fault(message, current, UnsupportedError)
            enclosing.append(current)
            current = Node(position, [])
            (enclosing[-1].items if len(enclosing) > 1 else commands).append(current)
        elif token == ")":
            if not enclosing:
                raise Fault("unmatched ')'; remove it or add its '('", Node(position, []))
            current = enclosing.pop()
        elif enclosing:
            current.items.append(token)
        else:
            commands.append(_innermost_command(token, position))
    if enclosing:
        # A forgotten parenthesis swallows the commands after it, so the outermost open list is to blame.
        raise Fault("this '(' is never closed; add its ')', or fetch a complete file", commands[-1])
    if not commands:
        raise Fault("contains no commands; give a VNN-LIB specification")
    return commands


def _innermost_command(token: str, position: int) -> Node:
    node = Node(position, list(items(token)))
    if token[0] != "(":
        raise Fault(f"found {quote(token)} where a '(' was expected; is this a VNN-LIB file?", node)
    return node


def is_word(form: Form) -> TypeGuard[str]:
    """Whether ``form`` is neither a node nor the text of a list."""
    return isinstance(form, str) and form[0] != "("


def items(form: Form) -> Sequence[Form]:
    """The items of a list; a word has none."""
    if isinstance(form, Node):
        return form.items
    return _WORDS.findall(form, 1, len(form) - 1) if form[0] == "(" else ()


def head(form: Form) -> tuple[str, Sequence[Form]]:
    """The leading word of a list and what follows it; the word is empty where there is none."""
    parts = items(form)
    if parts and isinstance(parts[0], str) and parts[0][0] != "(":
        return parts[0], parts[1:]
    return "", parts


def quote(form: Form) -> str:
    """A form as an error message shows it."""
    text = form if isinstance(form, str) else f"({head(form)[0]} ...)"
    return repr(text if len(text) <= 40 else text[:37] + "...")
