"""Lemmas keep their numbers, whatever is appended, sent elsewhere, or dropped."""

from __future__ import annotations

import pickle
from dataclasses import replace
from threading import Thread

import numpy as np
import pytest
import torch

from krelax.proof.choices import Choices, LeafTable
from krelax.proof.log import MARGINS, UNSTATED, ByCases, Forms, Lemma, ProofLog, Refutation


def leaves(count: int) -> LeafTable:
    return LeafTable.unsplit({3: Choices(absolute=np.zeros((count, 2), np.float32))}, count)


def values(log: ProofLog, numbers: np.ndarray) -> list[float]:
    return [lemma.value for lemma in map(log.__getitem__, numbers.tolist()) if isinstance(lemma, Lemma)]


def test_forms_have_keys() -> None:
    forms = Forms.of(torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    keys = [((1, 1.0), (2, -1.0)), ((0, 2.0),), (), ((2, 1.0),)]
    assert [forms.key(n) for n in range(4)] == keys
    chosen = forms.select(np.array([3, 0, 2, 0]))
    assert [chosen.key(n) for n in range(4)] == [keys[n] for n in (3, 0, 2, 0)]
    assert [Forms.both([4, 7]).key(n) for n in range(4)] == [((4, 1.0),), ((7, 1.0),), ((4, -1.0),), ((7, -1.0),)]


def test_each_lemma_is_proven_by_its_own_leaf_or_by_the_only_one() -> None:
    log = ProofLog()
    own, shared = (log.prove(2, Forms.single([5, 6]), np.array([0.5, 1.5]), leaves(n)) for n in (2, 1))
    assert own.tolist() == [1, 2]
    assert shared.tolist() == [3, 4]
    for numbers, rows in ((own, [0, 1]), (shared, [0, 0])):
        found = [log[n] for n in numbers.tolist()]
        assert all(isinstance(lemma, Lemma) and lemma.node == 2 for lemma in found)
        assert [lemma.parts[0][1].tolist() for lemma in found if isinstance(lemma, Lemma)] == [[r] for r in rows]
        assert values(log, numbers) == [0.5, 1.5]


def test_what_certificates_cannot_say_has_no_number() -> None:
    log = ProofLog()
    infinite = replace(leaves(1), choices={3: Choices(absolute=np.full((1, 2), np.inf, np.float32))})
    assert log.prove(2, Forms.single([5]), np.array([0.5]), infinite).tolist() == [UNSTATED]
    assert len(log) == 0


@pytest.mark.parametrize("number", [-1, 0, 4])
def test_numbers_of_nothing(number: int) -> None:
    log = ProofLog()
    log.prove(2, Forms.single([5, 6, 7]), np.zeros(3), leaves(3))
    with pytest.raises(LookupError):
        log[number]


def test_what_is_appended_elsewhere_comes_back() -> None:
    log = ProofLog()
    first = log.prove(2, Forms.single([5, 6]), np.array([1.0, 2.0]), leaves(2))
    there = pickle.loads(pickle.dumps(log.tail()))
    second = there.prove(2, Forms.single([5]), np.array([3.0]), leaves(1))
    case = there.append(ByCases(Refutation(0.5, [(2, second)], 0)))
    log.absorb(pickle.loads(pickle.dumps(there)))
    assert values(log, np.concatenate([first, second])) == [1.0, 2.0, 3.0]
    found = log[int(case[0])]
    assert isinstance(found, Refutation)
    assert found.level == 0.5
    assert log.prove(2, Forms.single([5]), np.array([4.0]), leaves(1)).tolist() == [5]


def test_dropped_numbers_are_not_given_again() -> None:
    log = ProofLog()
    kept = log.prove(2, Forms.single([5]), np.array([1.0]), leaves(1))
    begin = log.next
    dropped = log.prove(2, Forms.single([5, 6]), np.array([2.0, 3.0]), leaves(2))
    log.forget(begin)
    later = log.prove(2, Forms.single([5]), np.array([4.0]), leaves(1))
    assert values(log, np.concatenate([kept, later])) == [1.0, 4.0]
    for number in dropped.tolist():
        with pytest.raises(LookupError):
            log[number]


def test_margins_are_restated_as_entries() -> None:
    """But for those that nothing is known of."""
    log = ProofLog()
    (number,) = log.prove(MARGINS, Forms.single([4]), np.array([1.5]), leaves(1))
    first, second = log.restate(np.array([0, number]), 9, Forms.single([0, 1]))
    assert first == UNSTATED
    lemma = log[int(second)]
    assert isinstance(lemma, Lemma)
    assert (lemma.node, lemma.key, lemma.value) == (9, ((1, 1.0),), 1.5)


def test_threads_get_numbers_of_their_own() -> None:
    log, found = ProofLog(), list[int]()

    def work() -> None:
        for _ in range(200):
            found.extend(log.prove(2, Forms.single([5, 6, 7]), np.zeros(3), leaves(3)).tolist())

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(1, 2401))
    assert all(isinstance(log[n], Lemma) for n in range(1, 2401))
