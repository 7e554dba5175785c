"""Compiling is given up at a deadline, and is done for later calls."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from krelax.hull import jit
from krelax.watch import OutOfTime, watched

numba = pytest.importorskip("numba")
pytestmark = pytest.mark.skipif(not jit.COMPILED, reason="kernels are not compiled")


def total(values: np.ndarray) -> float:
    result = 0.0
    for value in values:
        result += value
    return result


def test_a_call_ends_at_the_deadline_while_its_kernel_is_compiled() -> None:
    compiled = numba.njit(total)
    jit._interruptible(compiled)
    with watched(lambda: True), pytest.raises(OutOfTime):
        compiled(np.ones(3))
    for thread in threading.enumerate():
        if thread.name == jit.COMPILING:
            thread.join()
    assert len(compiled.signatures) == 1
    with watched(lambda: True):  # it is compiled by now
        assert compiled(np.ones(3)) == 3


def test_what_the_compiler_raises_is_raised() -> None:
    compiled = numba.njit(total)
    jit._interruptible(compiled)
    with watched(lambda: False), pytest.raises(numba.TypingError):
        compiled("text")
