"""The one place that knows numba: compiled kernels when it is there, the same code as plain Python when it is not.

Kernels release the interpreter lock, so `spread` runs one kernel on several chunks of a batch in ordinary threads.
(numba's own parallel loops are not used: their default threading layer aborts when two Python threads enter it.)
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import sys
import threading
import types
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from krelax.watch import current, look, tick, watched

# Threads that compile, which nothing ends, have this name.
COMPILING = "krelax-compiling"
# Seconds between two looks at the clock while a kernel is compiled.
_LOOK = 0.05

F = TypeVar("F", bound=Callable[..., Any])


def _compiler() -> Any:
    """The module numba, or None where it is missing or switched off with `KRELAX_NUMBA=0`."""
    if os.environ.get("KRELAX_NUMBA") == "0":
        return None
    try:
        numba = importlib.import_module("numba")
    except ImportError:
        return None
    # A file in the current folder may name another place for compiled code, and anybody may have put code there.
    numba.config.CACHE_DIR = os.environ.get("NUMBA_CACHE_DIR", "")
    return numba


_NUMBA = _compiler()
COMPILED: bool = _NUMBA is not None


def kernel(function: F) -> F:
    """Compile `function` on its first call, without contraction or reordering of floating-point operations.

    Compiled code is kept on disk for the next process. Without numba the function itself: the same results, a hundred
    to a thousand times slower.
    """
    return _compiled(function, fastmath=False)


def kernel_in_any_order(function: F) -> F:
    """As `kernel`, but sums may be added up in any order, in vectors: for those that only propose, or whose rounding
    is bounded whatever the order."""
    return _compiled(function, fastmath={"reassoc", "nsz"})


def kernel_with_fused_products(function: F) -> F:
    """As `kernel`, but a product and a sum may be one operation that rounds once: for loops over lanes, whose sums are
    added up in the order that is written, and whose rounding is bounded with or without it."""
    return _compiled(function, fastmath={"contract", "nsz"})


def kernel_that_proposes(function: F) -> F:
    """As `kernel_with_fused_products`, in any order, and quotients and roots may be off by a few units: for what only
    proposes."""
    return _compiled(function, fastmath={"contract", "nsz", "reassoc", "arcp", "afn"})


def intrinsic(function: Callable[..., Any]) -> Any:
    """Code that is written down for kernels instruction by instruction. Without numba it cannot run."""
    return function if _NUMBA is None else importlib.import_module("numba.extending").intrinsic(function)


def llvm_tools() -> tuple[Any, Any, Any]:
    """What instructions are written down with: `llvmlite.ir`, and numba's `cgutils` and `types`."""
    names = ("llvmlite.ir", "numba.core.cgutils", "numba.core.types")
    return importlib.import_module(names[0]), importlib.import_module(names[1]), importlib.import_module(names[2])


def has_wide_registers() -> bool:
    """Whether kernels are compiled for 32 registers of 64 bytes. Code on disk knows for which processor it is."""
    return bool(importlib.import_module("llvmlite.binding").get_host_cpu_features().get("avx512f"))


def is_on_disk(function: Any, arguments: Sequence[Any]) -> bool:
    """Whether a kernel needs no compiler for such arguments. When in doubt it is said to need one."""
    if _NUMBA is None:
        return False
    signature = tuple(_NUMBA.typeof(a) for a in arguments)
    if signature in function.overloads:
        return True
    try:  # numba has no public way to ask
        cache = function._cache
        index = cache._cache_file._load_index()
        return cache._index_key(signature, function.targetctx.codegen()) in index
    except (AttributeError, OSError, TypeError):
        return False


def keeps_code(function: Any) -> bool:
    """Whether there is a place on disk for a kernel's code."""
    return _NUMBA is not None and function.stats.cache_path is not None


def _compiled(function: F, fastmath: bool | set[str]) -> F:
    if _NUMBA is None:
        return function
    options = {"nogil": True, "fastmath": fastmath, "error_model": "numpy"}
    try:
        compiled = _NUMBA.njit(cache=True, **options)(_stamped(function))
    except RuntimeError:  # nowhere to write a cache: compile once in every process
        compiled = _NUMBA.njit(**options)(function)
    _interruptible(compiled)
    return cast(F, compiled)


def _interruptible(compiled: Any) -> None:
    """Let a call of a kernel that has yet to be compiled, which takes seconds, end at the caller's deadline.

    The compiler itself cannot be interrupted. It runs in another thread, and finishes its work for later calls.
    """
    # what numba calls where it has no machine code for some arguments
    compile_for = getattr(compiled, "_compile_for_args", None)
    if compile_for is None:
        return

    def compile_and_wait(*arguments: object, **keywords: object) -> Any:
        if current() is None:
            return compile_for(*arguments, **keywords)
        result: Future[Any] = Future()
        work = functools.partial(_finish, result, functools.partial(compile_for, *arguments, **keywords))
        threading.Thread(target=work, name=COMPILING).start()
        while True:
            with suppress(TimeoutError):
                return result.result(_LOOK)
            look()

    compiled._compile_for_args = compile_and_wait


def _finish(result: Future[Any], work: Callable[[], object]) -> None:
    """Do the work and say what came of it."""
    try:
        result.set_result(work())
    except BaseException as error:
        result.set_exception(error)


def _stamped(function: F) -> F:
    """The function with a digest of all kernels of its folder in a closure variable that it does not use.

    numba looks a kernel up on disk by its file's date and its closure, and would not see that a kernel which it calls,
    in another file, has changed. Stale machine code must not outlive an update of a rigorous bound.
    """
    code = function.__code__
    stamped = types.FunctionType(
        code.replace(co_freevars=("_digest",)),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        (types.CellType(_digest(Path(code.co_filename).parent)),),
    )
    return cast(F, functools.update_wrapper(stamped, function))


@functools.cache
def _digest(folder: Path) -> str:
    """A digest of those sources of a folder that have kernels."""
    sources = [source.read_bytes() for source in sorted(folder.glob("*.py"))]
    return hashlib.sha256(b"".join(source for source in sources if b"@kernel" in source)).hexdigest()


# Chunks for each worker.
_CHUNKS = 8
# An item is as much work as so many products.
_WORK = 1e5


def threads() -> int:
    """As many threads as the process may run on, and no more than torch has been told to use."""
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    torch = sys.modules.get("torch")
    return min(allowed, torch.get_num_threads()) if torch is not None else allowed


def spread(function: Callable[[int, int], object], count: int, *, minimum: int = 256) -> None:
    """Call `function(start, stop)` on chunks that cover `range(count)`, in parallel where that pays.

    `minimum` is the least number of items worth a thread. Chunks must not write to the same memory. An exception of
    any chunk is raised here, and OutOfTime if the work of this thread is to be given up. Without numba nothing would
    run in parallel, so chunks follow each other.
    """
    workers = min(threads(), count // max(minimum, 1)) if COMPILED else 1
    # Several chunks per worker: groups differ in cost, and so may the cores; and the clock is looked at in between.
    chunks = max(1, min(_CHUNKS * workers, count // max(minimum, 1)))
    edges = [count * i // chunks for i in range(chunks + 1)]
    over = current()
    tick(_WORK * count)

    def work(start: int, stop: int) -> None:
        with watched(over):
            look()
        function(start, stop)

    with ThreadPoolExecutor(workers) if workers > 1 else nullcontext() as pool:
        list((pool.map if pool else map)(work, edges[:-1], edges[1:]))
