"""The pretended GPU minds where tensors are, as a real one would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.gpu import CPU, CUDA, pretended
from torch import Tensor

REFUSED: dict[str, Callable[[Tensor, Tensor, Tensor], Any]] = {
    "sums": lambda here, there, i: here + there,
    "sums in place": lambda here, there, i: there.add_(here),
    "products": lambda here, there, i: there @ here,
    "lists": lambda here, there, i: torch.cat([here, there]),
    "results": lambda here, there, i: torch.mul(there, there, out=here),
    "a number of the GPU": lambda here, there, i: here * there.sum(),
    "indices": lambda here, there, i: there.index_select(0, i),
    "masks": lambda here, there, i: torch.where(here > 0, there, 0.0),
    "places of the GPU": lambda here, there, i: here[i.to(CUDA)],
    "values for places": lambda here, there, i: there.__setitem__(i, here[i]),
    "generators": lambda here, there, i: torch.rand(2, generator=torch.Generator(), device="cuda"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_devices_do_not_mix(what: str) -> None:
    with pretended():
        here, index = torch.ones(3), torch.tensor([0, 2])
        there = torch.ones(3, device="cuda")
        with pytest.raises(RuntimeError, match=r"device"):
            REFUSED[what](here, there, index)
        REFUSED[what](here, there.cpu(), index) if "GPU" not in what and what != "generators" else None


@pytest.mark.parametrize("read", [Tensor.numpy, np.asarray])
def test_numpy_reads_the_cpu_only(read: Callable[[Tensor], Any]) -> None:
    with pretended():
        with pytest.raises(TypeError, match="numpy"):
            read(torch.ones(3, device="cuda"))
        read(torch.ones(3, device="cuda").cpu())


def test_results_are_where_their_operands_are() -> None:
    with pretended():
        there, number, index = torch.ones(2, 3, device="cuda"), torch.tensor(2.0), torch.tensor([1])
        kept = [there * number, there[index], there[0], there.T, there.new_zeros(1), torch.zeros_like(there)]
        kept += [*there, *there.unbind(1), there.max(1).values, there.cpu().to(there), index.to(CUDA), there.double()]
        there[:, 0] = torch.zeros(2)
        there[index, index] = 5.0
        assert there.tolist() == [[0.0, 1.0, 1.0], [0.0, 5.0, 1.0]]
        assert all(x.device == CUDA and x.is_cuda for x in kept)
        left = [there.cpu(), there.to("cpu", torch.float64), number, torch.ones(2), torch.tensor(there.tolist())]
        assert all(x.device == CPU and not x.is_cuda for x in left)
    assert torch.cuda.is_available() is (torch.cuda.device_count() > 0)
