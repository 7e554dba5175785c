"""What an accepted certificate says, in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.certificate.corpus import i4

from krelax.certificate.format import statement as words
from krelax.certificate.format.schema import Question, Region
from krelax.certificate.format.statement import listed, statement


def said(rows: Any, clause: Any = None, full: bool = False) -> list[str]:
    """What is said of outputs in a point."""
    rows, point = np.array(rows, np.float64), np.zeros(1)
    clause = np.arange(len(rows), dtype=np.int32) if clause is None else clause
    lines = list(statement(Question(Region("box", point, point), rows, np.zeros(len(rows)), clause), full))
    return [line.strip() for line in lines[4:]]


def test_long_lists_are_cut_unless_all_are_asked_for() -> None:
    numbers = np.append(np.zeros(words._MOST_NUMBERS), [1.0, 2.0])
    assert listed(numbers, False) == "1000*0.0 ... 2 more; --full shows them"
    assert listed(numbers, True) == "1000*0.0 1.0 2.0"


def test_many_clauses_are_cut_unless_all_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_MOST_CLAUSES", 2)
    rows = [[1, 2], [2, 1], [3, 1]]
    assert said(rows) == ["y[0] + 2.0 y[1] > 0", "2.0 y[0] + y[1] > 0", "... 1 more clauses; --full shows them"]
    assert said(rows, full=True)[2:] == ["3.0 y[0] + y[1] > 0"]


@pytest.mark.parametrize(
    ("rows", "label"),
    [
        ([[-1, 1, 0], [0, 1, -1]], 1),
        ([[1, -1, 0], [0, 1, -1]], None),  # the label of one is another's of the other
        ([[-1, 1, 0], [-1, 1, 0]], None),  # one output twice
        ([[-2, 1, 0], [0, 1, -1]], None),  # not larger than the other, but than twice that
        ([[-1, 1, 0], [0, 2, -1]], None),
    ],
)
def test_a_label_is_named_only_where_it_is_larger_than_every_other_output(rows: Any, label: int | None) -> None:
    lines = said(rows)
    if label is None:
        assert len(lines) == 2
        assert not any("label" in line for line in lines)
    else:
        assert lines == [f"y[{label}] > y[j] for every other j: the label is {label}"]


def test_members_of_one_clause_are_alternatives() -> None:
    assert said([[-1, 1, 0], [0, 1, -1]], i4(0, 0)) == ["-y[0] + y[1] > 0 or y[1] - y[2] > 0"]
