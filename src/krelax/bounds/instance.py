"""What is bounded, twice: in the type that decides and in the one that proposes; and in pieces that fit memory."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from pathlib import Path
from threading import Event
from typing import TypeVar

import torch
from torch import Tensor

from krelax.bounds.rounding import gradual_underflow
from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.network.ops import Linear
from krelax.network.scalars import with_axes
from krelax.problem.region import Region
from krelax.proof.log import ProofLog
from krelax.watch import OutOfTime as OutOfTime  # noqa: PLC0414
from krelax.watch import Over, counts_work, current, now, watch_too, watched

T = TypeVar("T")
R = TypeVar("R")


# Seconds after the deadline when a step that is under way is given up; none is begun after the deadline.
_GRACE = 0.5
# A tensor of a pass should not be larger on a CPU: it falls out of the caches, and elementwise operators slow down.
_CACHE_BYTES = 3 << 20
# Seconds for which what the system says of its memory is good enough.
_FRESH = 0.2
# Where numbers are larger than this, or all smaller than one over it, proposals in single precision are no good.
_WIDE = 1e30
# Images are worked on together while their batch is smaller than this in all, which saves calls.
_BATCH_BYTES = 128 << 20


@dataclass(frozen=True, eq=False)
class Instance:
    """A network over a batch of regions. Witnesses are proposed with `fast_network` and `fast_region` (float32) and
    evaluated with `network` and `region` (float64). `deadline` is a reading of `krelax.watch.now`; setting
    `cancelled`, from another thread, is as if it had passed. Lemmas are recorded in `logs`, one for each region, if
    there are any. `seen` has masks `(n,)` of what the questions depend on, of nodes of which they do not see all."""

    network: Network
    region: Region
    fast_network: Network
    fast_region: Region
    deadline: float | None = None
    cancelled: Event = field(default_factory=Event)
    logs: tuple[ProofLog, ...] = ()
    seen: Mapping[int, Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls, network: Network, region: Region, fast: torch.dtype | None = None, deadline: float | None = None
    ) -> Instance:
        """Proposals are made in single precision where the network's numbers allow that, unless a type is given.
        Tensors without axes become vectors of one entry (`krelax.network.scalars`).

        Raises InputError if the region is not `(batch, *input_shape)`, or has no image."""
        if tuple(region.lower.shape[1:]) != network.input_shape:
            given, wanted = tuple(region.lower.shape[1:]), network.input_shape
            raise InputError(f"regions of inputs of shape {given} for a network with inputs of shape {wanted}")
        if not len(region):
            raise InputError("a region without any input; give one for each question")
        network = with_axes(network)
        region = region.shaped(network.input_shape)
        device = region.lower.device
        exact, box = network.to(torch.float64, device), region.to(torch.float64, device)
        fast = fast or (torch.float32 if _fits(exact, box) else torch.float64)
        return cls(exact, box, network.to(fast, device), region.to(fast, device), deadline)

    def select(self, index: Tensor) -> Instance:
        """The same network over some of the regions."""
        logs = tuple(self.logs[i] for i in index.tolist()) if self.logs else ()
        region, fast = self.region.select(index), self.fast_region.select(index)
        return replace(self, region=region, fast_region=fast, logs=logs)

    def until(self, seconds: float | None) -> Instance:
        """The same with a deadline in so many seconds, if its own is not earlier."""
        if seconds is None:
            return self
        limit = now() + seconds
        return replace(self, deadline=limit if self.deadline is None else min(limit, self.deadline))

    def share(self, parts: int) -> Instance:
        """The same with a deadline after one of so many equal parts of the time that is left."""
        left = None if self.deadline is None else (self.deadline - now()) / max(1, parts)
        return self.until(left)

    def check(self) -> None:
        """Raise OutOfTime if the deadline has passed."""
        if self.expired():
            raise OutOfTime

    def expired(self) -> bool:
        """Whether the deadline has passed."""
        return self.cancelled.is_set() or (self.deadline is not None and now() > self.deadline)

    def overdue(self) -> bool:
        """Whether the deadline has passed for so long that what is under way is to be given up, too."""
        late = self.deadline is not None and now() > self.deadline + _GRACE
        return late or self.cancelled.is_set()

    def watch(self) -> AbstractContextManager[None]:
        """While this lasts, steps of this thread's work are given up when they are overdue."""
        return watched(self.overdue)


def _fits(network: Network, region: Region) -> bool:
    """Whether the values of a network's nodes, and the sums of absolute terms that they are made of, lie well inside
    the range of single precision; and its inputs and constants, if they are not zero, too."""
    if not len(region):
        return True
    largest = region.magnitude.amax(0, keepdim=True)
    sizes = [largest]
    for node in network.nodes[1:]:
        op, operands = node.op, [sizes[j] for j in node.inputs]
        if isinstance(op, Linear):
            constants = torch.cat([t.flatten().abs() for t in op.parameters() if t.is_floating_point()] or [largest])
            if constants.numel() and 0 < float(constants.max()) < 1 / _WIDE:
                return False
            op = op.absolute()
        sizes.append(op.forward(*operands).abs().expand(1, *node.shape))
    return float(largest.max()) == 0 or all(bool((size <= _WIDE).all()) for size in [1 / largest.max(), *sizes])


class _Limit:
    """Bytes that this process may use, None where nobody has said; and that were available, when that was read."""

    most: int | None = None
    read, free = -math.inf, 0


def limit_memory(most: int | None) -> None:
    """From now on this process uses at most about so many bytes."""
    _Limit.most = most


def memory_budget(device: torch.device) -> int:
    """Bytes that bounding may use at a time: half of what is free, or of what the process may use; 2 GiB where the
    system does not say, and where nothing may depend on what else is going on."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] // 2)
    if counts_work():
        return 2 << 30
    if time.monotonic() > _Limit.read + _FRESH:
        _Limit.read, _Limit.free = time.monotonic(), _available()
    free = _Limit.free
    return min(free, free if _Limit.most is None else _Limit.most) // 2


def _available() -> int:
    """Bytes that nobody uses, or that the system only keeps files in; twice the 2 GiB where it does not say."""
    with suppress(OSError, ValueError, IndexError), Path("/proc/meminfo").open(encoding="ascii") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 4 << 30


def chunk_rows(bytes_per_row: int, copies: int, device: torch.device, cache: int, budget: int, least: int = 1) -> int:
    """How many rows of a batch to work on at a time, if `copies` tensors of `bytes_per_row` each are held for a row:
    at least one, never more than `budget` bytes allow, and on a CPU no tensor larger than `cache` bytes, unless it has
    the `least` rows or fewer."""
    rows = budget // max(1, bytes_per_row * copies)
    if device.type == "cpu":
        rows = min(rows, max(least, cache // max(1, bytes_per_row)))
    return max(1, rows)


def chunk_queries(bytes_per_row: int, copies: int, device: torch.device, least: int = 1) -> int:
    """How many queries to work on at a time; the `least` that are worth a call, if memory allows that."""
    return chunk_rows(bytes_per_row, copies, device, _CACHE_BYTES, memory_budget(device) // workers(device), least)


def chunk_images(network: Network, copies: int, device: torch.device, queries: int | None = None) -> int:
    """How many regions to work on at a time, if each keeps `copies` tensors of one row for each of `queries` (None:
    two for every neuron of the widest activation)."""
    widths = [prod(node.shape) for node in network.nodes]
    if queries is None:
        queries = 2 * max([widths[i] for i in network.activations()], default=1)
    budget = memory_budget(device) // workers(device)
    return chunk_rows(queries * max(widths) * 8, copies, device, _BATCH_BYTES // copies, budget)


class _Here(threading.local):
    """How many cores this thread may use; None where nobody has said."""

    cores: int | None = None


_here = _Here()


def workers(device: torch.device) -> int:
    """How many batches to work on side by side: one on each core that this thread may use, one on a GPU."""
    if device.type != "cpu":
        return 1
    return torch.get_num_threads() if _here.cores is None else _here.cores


@contextmanager
def one_core_each(device: torch.device) -> Iterator[None]:
    """Operators use one core each; what can be done side by side uses all that torch may use.

    Threads inside operators wait for each other after every one of them: on small operators they gain nothing, and on a
    machine that does other work, too, they cost more than they gain on large ones. Subnormal numbers are numbers.
    """
    cores, before = _here.cores, torch.get_num_threads()
    _here.cores = 1 if counts_work() else workers(device)
    torch.set_num_threads(1)
    try:
        with gradual_underflow():
            yield
    finally:
        _here.cores = cores
        torch.set_num_threads(before)


def alone() -> None:
    """From now on this thread uses one core."""
    _here.cores = 1
    torch.set_num_threads(1)


def _works_for(over: Over | None) -> None:
    """From now on this thread uses one core, and works for one that watches the clock."""
    alone()
    watch_too(over)


@contextmanager
def helpers(device: torch.device, most: int | None = None) -> Iterator[ThreadPoolExecutor | None]:
    """At most so many threads that work side by side, each on one core; None where there is only one."""
    count = workers(device) if most is None else min(workers(device), most)
    if count < 2:
        yield None
        return
    with one_core_each(device):
        pool = ThreadPoolExecutor(count, initializer=partial(_works_for, current()))
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


def side_by_side(work: Callable[[T], R], parts: Sequence[T], device: torch.device) -> Iterator[R]:
    """What `work`, without gradients, makes of every part, in order; parts are worked on side by side."""
    if len(parts) < 2:
        yield from map(work, parts)
        return
    with helpers(device) as pool:
        yield from (pool.map if pool else map)(torch.no_grad()(work), parts)


def pieces(total: int, size: int, device: torch.device | None = None) -> Iterator[Tensor]:
    """`range(total)` in index tensors of at most `size`, of nearly equal length, on the device of what they index."""
    if total:
        yield from torch.arange(total, device=device).tensor_split(-(-total // size))
