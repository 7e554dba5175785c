"""What proves bounds is written into proof logs, and the numbers of lemmas go with the bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from krelax.bounds.instance import Instance
from krelax.bounds.steps import Step, choices
from krelax.proof.choices import LeafTable, Numbers
from krelax.proof.log import UNSTATED, Forms


def chosen(
    instance: Instance, witness: Mapping[int, Step], count: int, tapes: Mapping[int, Any] = MappingProxyType({})
) -> list[LeafTable]:
    """What a witness chose for so many forms, for each region that has a log, with the tapes of its evaluation."""
    return [LeafTable.unsplit(choices(witness, region, tapes), count) for region in range(len(instance.logs))]


def record(instance: Instance, node: int, forms: Forms, value: Tensor, leaves: Sequence[LeafTable]) -> Tensor | None:
    """Record that the same forms of a node are at least `value`, `(batch, forms)`, in each region, as its `leaves`
    prove, one for each form or one for all. The numbers of the lemmas, `(batch, forms)`; None without logs."""
    if not instance.logs:
        return None
    regions = zip(instance.logs, value.cpu().numpy(), leaves, strict=True)
    numbers = np.stack([log.prove(node, forms, values, leaf) for log, values, leaf in regions])
    return torch.from_numpy(numbers).to(value.device)


def record_entries(
    instance: Instance, node: int, index: Tensor, valid: Tensor, value: Tensor, leaves: Sequence[LeafTable]
) -> Tensor | None:
    """Record that entries `index`, `(batch, m)`, of a node, and then their negatives, are at least `value`, `(batch,
    2 m)`, as `record` does, where they are `valid`, `(batch, m)`."""
    return record_forms(instance, node, Forms.both, index, valid, value, leaves)


def record_forms(
    instance: Instance, node: int, forms: Callable[[Numbers], Forms], index: Tensor, valid: Tensor, value: Tensor,
    leaves: Sequence[LeafTable],
) -> Tensor | None:  # fmt: skip
    """As `record_entries`, of the `forms` of entries, as often as they are in `value`."""
    if not instance.logs:
        return None
    numbers = torch.full(value.shape, UNSTATED, dtype=torch.int64)
    parts = zip(instance.logs, leaves, index.cpu(), valid.cpu(), value.cpu(), strict=True)
    for region, (log, leaf, entries, mine, values) in enumerate(parts):
        every = mine.repeat(value.shape[1] // index.shape[1])
        rows = every.nonzero()[:, 0].numpy() * (len(leaf) > 1)
        found = log.prove(node, forms(entries[mine].numpy()), values[every].numpy(), leaf, rows)
        numbers[region, every] = torch.from_numpy(found)
    return numbers.to(value.device)
