"""When the compiled kernels of lanes are at hand. Compiling them takes ten seconds, loading them a tenth of one.

Nobody waits for a compiler: what is not on disk is compiled by another process while searches go on without it, and
only once one has worked for so long that it may be worth it. `python -m krelax.lanes.ready` compiles at once. With
`KRELAX_LANES=1` whoever can use the kernels waits for them; with `KRELAX_LANES=0` nobody does.
"""

from __future__ import annotations

import atexit
import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from krelax.hull.jit import COMPILED, is_on_disk, keeps_code
from krelax.lanes.plan import Climb, Forms, Layers, Own, Pairs, Pattern, Proposing, Proving, Table
from krelax.watch import counts_work

# Passes over one leaf, down and up, after which it is worth it to load the kernels, and to compile them.
_LOAD, _COMPILE = 5_000, 20_000

_BOOT = "import sys; sys.path[:] = sys.argv[1:]; from krelax.lanes.ready import compile_now; compile_now()"


class Kernels:
    """The kernels of this process."""

    def __init__(self, wanted: str | None) -> None:
        self._waits, self._never = wanted == "1", wanted == "0" or not COMPILED
        self._loaded = False
        self._compiler: subprocess.Popen[bytes] | None = None

    @property
    def forced(self) -> bool:
        """Whether whoever can use the kernels is to use them."""
        return self._waits and not self._never

    def ready(self, passes: int) -> bool:
        """Whether a search that has made, or is about to make, so many passes over leaves can use the kernels now."""
        if self._never or (self._loaded and not counts_work()):
            return self._loaded
        if self._waits or (passes >= _LOAD and (counts_work() or _is_compiled())):
            compile_now()
            self._loaded = True
            return True
        if counts_work():  # what others have loaded makes no difference
            return False
        if passes >= _COMPILE and self._compiler is None and keeps_code(_kernels()[0]):
            self._compiler = _begin()
        elif self._compiler is not None and self._compiler.poll() not in {None, 0}:
            self._never = True  # it failed
        return self._loaded


@functools.cache
def kernels() -> Kernels:
    """Those of this process."""
    return Kernels(os.environ.get("KRELAX_LANES"))


def _begin() -> subprocess.Popen[bytes]:
    """Compile in another process, which ends with this one. It finds modules where this one does, but never in the
    current folder."""
    kept = [entry for entry in sys.path if os.path.isabs(entry)]
    home = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-I", "-c", _BOOT, *([] if home in kept else [home]), *kept]
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, process_group=0)
    atexit.register(process.kill)
    return process


def _kernels() -> tuple[Any, Any]:
    from krelax.lanes.kernels import improve, prove

    return improve, prove


def _is_compiled() -> bool:
    return all(is_on_disk(kernel, given) for kernel, given in zip(_kernels(), _examples(), strict=True))


def compile_now() -> None:
    """Compile the kernels, or load them."""
    for kernel, given in zip(_kernels(), _examples(), strict=True):
        kernel(*given)


def _examples() -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Arguments of both kernels: one input, one neuron, no leaf."""
    whole, single, double = np.zeros(1, np.int64), np.zeros(1, np.float32), np.zeros(1)
    layers = Layers(np.array([0, 2, 3]), np.array([0, 0, 1]), np.zeros(2, np.int64), np.array([1.0, 0.0]), 1)
    matrices = Pattern(np.zeros(4, np.int64), whole, np.zeros(0, np.int32), whole)
    lanes32, lanes64 = np.zeros(16, np.float32), np.zeros(16)
    forms = Forms(np.zeros(2, np.int64), whole, double, double)
    none = np.zeros((0, 0))
    own = Own(np.zeros(0, np.int64), np.zeros(3, np.int64), none, none, none, none)
    rows = np.zeros((0, 1), np.float32)
    table = Table(whole[:0], np.zeros((0, 1), np.int64), *[rows] * 5)
    pairs = Pairs(np.zeros(3, np.int64), np.zeros((0, 2), np.int64), single, double, np.zeros(0, np.int32), double, 0.0)
    proposing = Proposing(single, single, lanes32, lanes32)
    proving = Proving(double, lanes64, lanes64, double, double, double, double, np.ones((2, 256)), 0.0)
    results = single[:0], single[:0], whole[:0], np.zeros((0, 1), np.float32)
    first = (layers, matrices, matrices, proposing, pairs, forms, own, table, Climb(1, 0.1, 0.9), 0, 0, *results)
    return first, (layers, matrices, proving, pairs, forms, own, table, 0, 0, double[:0], double[:0], none)


if __name__ == "__main__":
    compile_now()
