"""The tree of a branch and bound: whatever is done with its subproblems, it never says more than they prove."""

from __future__ import annotations

import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from krelax.bounds.tree import Subproblems, Tree, once


@dataclass
class Intervals(Subproblems):
    """Parts of [0, 1] for each query, which is to be bounded: the value at their left ends, say."""

    left: Tensor
    right: Tensor
    tags: list[Tensor]

    def covered(self, queries: int) -> Tensor:
        return torch.zeros(queries).double().scatter_add_(0, self.query, self.right - self.left)


@dataclass
class Came:
    subproblems: Intervals


def roots(queries: int) -> Intervals:
    zero = torch.zeros(queries).double()
    return Intervals(torch.arange(queries), zero - torch.inf, zero, zero + 1, [torch.arange(queries), zero[:, None]])


def halved(parts: Intervals) -> Intervals:
    middle = (parts.left + parts.right) / 2
    both = parts.join(parts)
    both.left, both.right = torch.cat([parts.left, middle]), torch.cat([middle, parts.right])
    both.floor = both.left
    return both


def tree_of(queries: int, target: float, most: int = 1000) -> Tree[Intervals]:
    return Tree(roots(queries), torch.full((queries,), target).double(), most)


def test_open_and_closed_parts_cover_everything() -> None:
    generator, closed = torch.Generator().manual_seed(0), torch.zeros(3).double()
    tree = tree_of(3, 0.5)
    for _ in range(40):
        rows = torch.randperm(len(tree), generator=generator)[:4]
        taken = tree.take(rows)
        gone = tree.absorb(halved(taken), taken)
        assert bool((gone.floor > 0.5).all())
        closed += gone.covered(3)
        assert torch.equal(closed + tree.open.covered(3), torch.ones(3).double())
        assert bool((tree.open.floor <= 0.5).all())
        # every column moves with its row
        assert torch.equal(tree.open.tags[0], tree.open.query)
    assert torch.equal(tree.bound(), torch.zeros(3).double())


def test_what_is_taken_proves_nothing() -> None:
    tree = tree_of(2, 0.75)
    taken = tree.take(torch.tensor([1]))
    assert tree.bound()[1] == -torch.inf
    assert tree.closed.tolist() == [torch.inf, -torch.inf]
    assert tree.answered.tolist() == [False, False]
    tree.absorb(halved(taken), taken)
    parts = [tree.take((tree.open.query == 1).nonzero()[:1, 0]) for _ in range(2)]
    parts[0].floor += 1
    tree.absorb(parts[0], parts[0])
    # the other half is lost
    assert tree.bound()[1] == -torch.inf
    assert not tree.answered[1]


def test_a_query_is_answered_once_all_its_parts_are_closed() -> None:
    tree = tree_of(2, 0.0)
    taken = tree.take(torch.tensor([0]))
    found = halved(taken)
    found.floor = found.floor + 0.25
    assert len(tree.absorb(found, taken)) == 2
    assert tree.answered.tolist() == [True, False]
    assert tree.bound().tolist() == [0.25, -torch.inf]


@pytest.mark.parametrize("threads", [1, 2])
def test_parts_whose_work_fails_stay_as_they_were(threads: int) -> None:
    tree = tree_of(6, 2.0)

    def work(part: Intervals) -> Came:
        if 3 in part.query:
            raise TimeoutError
        return Came(halved(part))

    with ThreadPoolExecutor(threads) as pool, pytest.raises(TimeoutError):
        for _ in tree.grow(once(torch.arange(6).split(2)), work, pool if threads > 1 else None):
            pass
    assert torch.equal(tree.open.covered(6), torch.ones(6).double())
    assert sorted(tree.open.query.tolist()) == [0, 0, 1, 1, 2, 3, 4, 5]
    assert tree.bound().tolist() == [0, 0, *[-torch.inf] * 4]
    assert not bool(tree.answered.any())


def test_parts_that_nobody_waits_for_go_back() -> None:
    tree = tree_of(4, 2.0)
    for _ in tree.grow(once(torch.arange(4).split(1)), lambda part: Came(halved(part))):
        break
    assert torch.equal(tree.open.covered(4), torch.ones(4).double())


def test_numbers_that_are_none_close_nothing() -> None:
    tree = tree_of(1, 0.0)
    taken = tree.take(torch.tensor([0]))
    taken.floor = torch.full((1,), torch.nan).double()
    assert len(tree.absorb(taken, taken)) == 0
    assert len(tree) == 1


def test_there_is_room_for_so_many() -> None:
    tree = tree_of(1, 2.0, most=3)
    taken = tree.take(torch.tensor([0]))
    tree.absorb(halved(taken), taken)
    assert (len(tree), tree.free) == (2, 1)
    taken = tree.take(torch.tensor([0, 1]))
    tree.absorb(halved(taken), taken)
    assert (len(tree), tree.free) == (4, 0)


def test_nothing_to_do_is_nothing_done() -> None:
    tree = tree_of(2, 0.0)
    assert list(tree.grow(once([]), Came)) == []
    assert len(tree) == 2


@pytest.mark.parametrize("threads", [1, 2])
def test_parts_are_chosen_while_others_are_worked_on(threads: int) -> None:
    tree, asked = tree_of(8, 2.0), [2, 2, 2, 2, 0]

    def choose() -> list[torch.Tensor]:
        rows = tree.open.rows()[: asked.pop(0) if asked else 0]
        return list(rows.split(1)) if len(rows) else [rows]

    order: list[int] = []
    with ThreadPoolExecutor(threads) as pool:
        for _, came in tree.grow(choose, lambda part: Came(halved(part)), pool, ahead=2):
            order += came.subproblems.query[:1].tolist()
            assert torch.equal(tree.open.covered(8) <= 1, torch.ones(8).bool())
    assert len(order) == 8
    assert torch.equal(tree.open.covered(8), torch.ones(8).double())


def test_work_that_nobody_waits_for_has_ended_before_it_goes_back() -> None:
    tree, ended = tree_of(4, 2.0), list[int]()

    def work(part: Intervals) -> Came:
        time.sleep(0.01)
        ended.append(len(part))
        return Came(halved(part))

    with ThreadPoolExecutor(2) as pool:
        running = tree.grow(once(torch.arange(4).split(1)), work, pool)
        next(running)
        assert isinstance(running, Generator)
        running.close()
        before = len(ended)
        assert torch.equal(tree.open.covered(4), torch.ones(4).double())
        time.sleep(0.05)
    assert len(ended) == before
