"""Two versions of a network on the same images: what was lost, and in which files it is told."""

from __future__ import annotations

import csv
from dataclasses import replace
from io import StringIO

import pytest
from tests.report.runs import pixels, results, subject
from tests.report.test_page import NASTY, Reader

from krelax.errors import InputError
from krelax.report.comparison import MOST_NAMED, Comparison
from krelax.report.page import page, summary
from krelax.report.results import Results
from krelax.report.spreadsheet import COLUMNS, spreadsheet

IMAGES = pixels(12)
NAMES = ("old.jsonl", "new.jsonl")
# before: holds, holds, violated, unknown, and again
BEFORE = results(IMAGES, model="ef" * 32)
NOW = results(IMAGES, (("holds", "crown"), ("violated", "attack"), ("holds", "alpha"), ("unknown", "timeout")))


def test_what_was_lost_and_gained() -> None:
    found = Comparison.of(NAMES, BEFORE, NOW)
    assert found.lost == [1, 5, 9]
    assert found.gained == [2, 6, 10]
    assert "12 images: 3 held before and do not now (images 1, 5, 9), 3 hold now" in str(found)


def test_only_images_that_both_have_are_compared() -> None:
    found = Comparison.of(NAMES, BEFORE.only({0, 1, 2, 11}), NOW.only({1, 2, 3}))
    assert (found.lost, found.gained) == ([1], [2])
    assert [i for i, *_ in found.moves] == [1, 2]
    with pytest.raises(InputError, match="no image in common"):
        Comparison.of(NAMES, BEFORE.only({1}), NOW.only({2}))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"images": "00" * 32}, "other images"),
        ({"eps": 0.05}, "eps"),
        ({"norm": "l2"}, "norm"),
        ({"clip": None}, "clip"),
        ({"semantics": "float32"}, "semantics"),
        ({"region": "rotate angle -5:5"}, "region"),
        ({"mean": ["1/2"]}, "mean"),
    ],
)
def test_other_questions_are_not_compared(change: dict[str, object], word: str) -> None:
    with pytest.raises(InputError, match=word):
        Comparison.of(NAMES, Results(dict(BEFORE.settings) | change, BEFORE.records), NOW)


def test_methods_and_limits_may_differ() -> None:
    other = Results(dict(BEFORE.settings) | {"method": "crown", "timeout": 1.0, "semantics": "real"}, BEFORE.records)
    assert Comparison.of(NAMES, other, NOW).lost == [1, 5, 9]


def test_the_page_and_the_sheet_tell_it() -> None:
    about = replace(subject(IMAGES, NOW), before=NASTY, compared=Comparison.of(NAMES, BEFORE, NOW))
    whole, sheet = Reader(page(NOW, about)), Reader(summary(NOW, about))
    links = [a["href"] for a in whole.find("a")]
    assert links == [f"#image-{i}" for i in (1, 5, 9, 2, 6, 10)]
    rows = {row.get("id") for row in whole.find("tbody")}
    assert all((link or "")[1:] in rows for link in links)
    for read in (whole, sheet):
        words = " ".join(read.text)
        assert "Held before, and do not now: 3." in words
        assert NASTY in words
    assert not sheet.find("a")
    assert not sheet.find("script")
    assert not sheet.find("tbody")
    assert len(sheet.find("svg")) == 2


def test_what_is_lost_is_named_up_to_a_number() -> None:
    images = pixels(MOST_NAMED + 5, (1, 1, 2))
    before, now = results(images, (("holds", "crown"),)), results(images, (("unknown", "timeout"),))
    about = replace(subject(images, now), before="old.jsonl", compared=Comparison.of(NAMES, before, now))
    read = Reader(summary(now, about))
    assert len(read.find("li")) == MOST_NAMED + 1
    assert "and 5 more" in read.text


def test_a_spreadsheet_has_what_the_results_have() -> None:
    head, *rows = csv.reader(StringIO(spreadsheet(NOW, BEFORE.only(set(range(4))))))
    assert tuple(head) == COLUMNS
    for row, record in zip(rows, NOW.records, strict=True):
        told = dict(zip(head, row, strict=True))
        assert int(told["index"]) == record["index"]
        assert float(told["margin"]) == record["margin"]
        assert told["verdict"] == record["verdict"]
    assert [row[-1] for row in rows[:5]] == ["holds", "holds", "violated", "unknown", ""]
    assert spreadsheet(NOW).splitlines()[0] == ",".join(COLUMNS[:-1])


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@A1", "\t=1", 'a,"b"\nc'])
def test_no_cell_is_a_formula(text: str) -> None:
    record = dict(NOW.records[0]) | {"reason": text, "certificate": {"file": text}}
    (_, row) = csv.reader(StringIO(spreadsheet(Results(NOW.settings, (record,)))))
    for cell in (row[4], row[7]):
        assert cell.lstrip("'") == text.lstrip("'")
        assert not cell.startswith(("=", "+", "-", "@", "\t"))
