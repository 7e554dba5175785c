"""What a network is taken to be, in a word: a function of real numbers, or executions in float32."""

from __future__ import annotations

import re

from krelax.errors import InputError

# Units in the last place of float32 by which functions may be off: with more, nothing is left of a number.
MOST_UNITS = 2**20
_FLOAT32 = re.compile(r"float32(?::([1-9][0-9]{0,8}))?")


def units_of(semantics: str) -> int | None:
    """By how many units in the last place functions may be off, if that is said.

    Semantics are "real", "float32", or "float32:N" for N units. Raises InputError for anything else.
    """
    found = _FLOAT32.fullmatch(semantics)
    if semantics != "real" and (found is None or int(found[1] or 1) > MOST_UNITS):
        wanted = (
            f"real, float32, or float32:N for functions that are right to N units in the last place, 1 to {MOST_UNITS}"
        )
        raise InputError(f"semantics {semantics!r}: give {wanted}")
    return int(found[1]) if found and found[1] else None


def named(semantics: str, units: int | None) -> str:
    """The word that says both."""
    return semantics if units is None else f"{semantics}:{units}"
