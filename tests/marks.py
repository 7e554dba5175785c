"""Parameters of which some are tried always and all at night."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

# Methods that have groups as `krelu` and `split` have; where many things are tried with every method they are tried at
# night.
ALIKE = frozenset({"krelu3", "krelu4", "lp-krelu"})


def at_night_after(always: int, values: Iterable[Any]) -> list[Any]:
    """The values as parameters, all but the first `always` of them marked as slow; tuples are several arguments."""
    parameters = [value if isinstance(value, tuple) else (value,) for value in values]
    return [pytest.param(*p, marks=[pytest.mark.slow] * (i >= always)) for i, p in enumerate(parameters)]
