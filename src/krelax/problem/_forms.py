"""The surface of VNN-LIB files: from text to nested lists of words, with positions for messages."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeGuard

from krelax.errors import InputError
from krelax.problem._text import STRING, Check, read_text

_PIECE = 1 << 20

# An innermost list such as "(<= X_0 0.5)" is a single token: nearly all of a large file consists of them, many
# repeated, so each distinct one is taken apart only once. Repetitions are possessive or cannot run past the next token,
# so that no input makes the scan quadratic. White space is what SMT-LIB says, and nothing else. Operators end where
# they end, but for signs of numbers, and "<2.0>" is a word.
_OPERATOR = r"<[0-9][^<>()\s]*+>|=>|[<>=!]=|[<>=*]|[+-](?![0-9.])"
_WORD = STRING + "|" + _OPERATOR + r'|[^ \t\n()\[\]"]+(?:[ \t\n]*\[[ \t\n0-9,-]*+\])?|[^ \t\n]'
_WORDS = re.compile(_WORD)
_TOKENS = re.compile(r'\([^()"]*+\)|[()]|' + _WORD)


@dataclass(slots=True, eq=False)
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
    """The commands of a file in order, and the lines on which they stand.

    The text is cut into pieces in front of opening parentheses, at the beginning of lines if there are strings, where
    no token can be running, so that `check` is called often enough.
    """

    def __init__(self, path: Path, check: Check) -> None:
        self._path = path
        self._check = check
        self._text = read_text(path, check)
        self._tokens: list[str] = []
        # for each piece the number of its first token and of its first character
        self._firsts: list[tuple[int, int]] = []
        place, border = 0, "\n(" if '"' in self._text else "("
        while place < len(self._text):
            end = self._text.find(border, place + _PIECE)
            end = len(self._text) if end < 0 else end
            self._firsts.append((len(self._tokens), place))
            self._tokens += _TOKENS.findall(self._text, place, end)
            check()
            place = end
        self._start = 0

    def commands(self) -> Iterator[Node]:
        """The top-level lists. Raises Fault for unbalanced parentheses, stray text or no list at all."""
        for command in self._read():
            self._start = command.position
            yield command

    def error(self, fault: Fault) -> InputError:
        """The user's form of a fault that arose in the command last yielded, or after all of them."""
        where = fault.where
        if where is None:
            return fault.kind(f"{self._path}: {fault}")
        position = where.position if isinstance(where, Node) else self._tokens.index(where, self._start)
        count, place = self._firsts[bisect_right(self._firsts, position, key=lambda first: first[0]) - 1]
        token = next(islice(_TOKENS.finditer(self._text, place), position - count, None))
        line = self._text.count("\n", 0, token.start()) + 1
        return fault.kind(f"{self._path}:{line}: {fault}")

    def _read(self) -> list[Node]:
        commands: list[Node] = []
        enclosing: list[Node] = []
        current = Node(0, [])
        for position, token in enumerate(self._tokens):
            if not position & 0xFFFF:
                self._check()
            if token == "(":
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
