"""What is bounded, twice: in the type that decides and in the one that proposes; and in pieces that fit memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.problem.region import Region

# Work on about this many bytes at a time on a CPU: more does not fit its caches and is slower.
_CACHE_BYTES = 4 << 20


@dataclass(frozen=True, eq=False)
class Instance:
    """A network over a batch of regions. Witnesses are proposed with `fast_network` and `fast_region` (float32) and
    evaluated with `network` and `region` (float64)."""

    network: Network
    region: Region
    fast_network: Network
    fast_region: Region

    @classmethod
    def of(cls, network: Network, region: Region, fast: torch.dtype = torch.float32) -> Instance:
        """Raises InputError if the region is not `(batch, *input_shape)`."""
        if tuple(region.lower.shape[1:]) != network.input_shape:
            given, wanted = tuple(region.lower.shape[1:]), network.input_shape
            raise InputError(f"regions of inputs of shape {given} for a network with inputs of shape {wanted}")
        device = region.lower.device
        decide = network.to(torch.float64, device)
        return cls(decide, region.to(torch.float64, device), network.to(fast, device), region.to(fast, device))

    def select(self, index: Tensor) -> Instance:
        """The same network over some of the regions."""
        return Instance(self.network, self.region.select(index), self.fast_network, self.fast_region.select(index))


def memory_budget(device: torch.device) -> int:
    """Bytes that bounding may use at a time: half of what is free."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] // 2)
    return int(os.sysconf("SC_AVPHYS_PAGES")) * int(os.sysconf("SC_PAGE_SIZE")) // 2


def chunk_rows(bytes_per_row: int, device: torch.device, budget: int | None = None) -> int:
    """How many rows of a batch to work on at a time (at least one)."""
    allowed = memory_budget(device) if budget is None else budget
    if device.type == "cpu":
        allowed = min(allowed, _CACHE_BYTES)
    return max(1, allowed // max(1, bytes_per_row))


def pieces(total: int, size: int) -> Iterator[Tensor]:
    """`range(total)` in index tensors of at most `size`, of nearly equal length."""
    count = max(1, -(-total // size))
    yield from torch.arange(total).tensor_split(count)
