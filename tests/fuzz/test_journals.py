"""Journals and what is made of them are untrusted: whatever they hold, there is a page or one line that says why not.

By day a few examples of each; at night thousands.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.report.runs import SETTINGS, WAYS, pixels, record, subject
from tests.report.test_page import Reader

from krelax.errors import InputError
from krelax.report.comparison import Comparison
from krelax.report.junit import junit
from krelax.report.page import page, summary
from krelax.report.results import Results, curve
from krelax.report.spreadsheet import spreadsheet
from krelax.run.bench import FIELDS
from krelax.run.journal import open_journal, read_journal, tag

IMAGES = pixels(6, (1, 2, 2))
HEADER = SETTINGS | {"schema": 2, "region": "rotate angle -5:5", "mean": ["1/2"], "std": ["1/4"], "semantics": "real"}
RECORDS = [record(i, *WAYS[i % len(WAYS)], image) for i, image in enumerate(IMAGES)]
for _made in RECORDS:
    _made["certificate"] = {"file": f"image-{_made['index']}.zip", "bytes": 100, "checked": 0.5, "check_seconds": 0.1}

numbers = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 1e308, -1.0, 0, 5e-324, float("inf")])
words = st.text(max_size=8) | st.sampled_from(["holds", "crown", "<script>", "=1+1", "\x00", "\ud800", "../../x", ""])
scalars = st.none() | st.booleans() | numbers | words
junk = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(words, v, max_size=3), max_leaves=6)


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """The value with something in it replaced, left out, or added, at any depth."""
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        if not draw(st.integers(0, 7)):
            return {k: v for k, v in value.items() if k != key}
        return value | {key: draw(changed(value[key]))}
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], draw(changed(value[place])), *value[place + 1 :]]
    return draw(junk)


def trials(by_day: int) -> Any:
    """So many examples by day, two hundred times as many at night."""
    calm = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    counts = [pytest.param(by_day, id="day"), pytest.param(200 * by_day, id="night", marks=pytest.mark.slow)]

    def decorate(check: Any) -> Any:
        def test(tmp_path: Path, count: int) -> None:
            chosen = settings(max_examples=count, deadline=None, suppress_health_check=calm)
            chosen(given(st.data())(lambda data: check(tmp_path, data)))()

        test.__doc__ = check.__doc__
        return pytest.mark.parametrize("count", counts)(test)

    return decorate


def one_line(error: InputError) -> None:
    assert "\n" not in str(error)


@trials(75)
def test_whatever_records_hold_there_is_a_page_or_a_reason(tmp_path: Path, data: st.DataObject) -> None:
    """Pages nest, execute nothing of it, and tables can be read again."""
    header = data.draw(changed(HEADER) if data.draw(st.booleans()) else st.just(HEADER))
    records = [data.draw(changed(r)) if data.draw(st.booleans()) else r for r in RECORDS]
    if not (isinstance(header, dict) and all(isinstance(r, dict) and type(r.get("index")) is int for r in records)):
        return  # journals have no such lines
    try:
        found = Results.of("run.jsonl", header, records, IMAGES[0].size, len(IMAGES))
    except InputError as error:
        one_line(error)
        return
    other = Results(HEADER | {"eps": 0.01}, tuple(RECORDS))
    shared, points = curve([found, other])
    about = subject(IMAGES, found, points=points, shared=shared, pictures={})
    read = Reader(page(found, about))
    assert len(read.find("script")) == 1
    assert not Reader(summary(found, about)).find("script")
    assert len(spreadsheet(found).splitlines()) >= 7


@trials(75)
def test_whatever_bytes_a_journal_has_it_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    """A journal that is refused stays as it is, to the byte."""
    header = data.draw(st.just(HEADER) | changed(HEADER))
    made = [{"run": tag(header) if isinstance(header, dict) else "", **r} for r in RECORDS]
    lines = [header, *(data.draw(changed(r)) if data.draw(st.booleans()) else r for r in made)]
    content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    for _ in range(data.draw(st.integers(0, 3))):
        place, length = data.draw(st.integers(0, len(content))), data.draw(st.integers(0, 20))
        content = content[:place] + data.draw(st.binary(max_size=4)) + content[place + length :]
    path = tmp_path / "run.jsonl"
    path.write_bytes(content)
    for read in (
        lambda: read_journal(path),
        lambda: open_journal(path, SETTINGS, True, {"verdict": {"holds"}}).__enter__(),
    ):
        try:
            read()
        except InputError as error:
            one_line(error)
            assert path.read_bytes() == content


@trials(50)
def test_whatever_records_hold_there_is_junit(tmp_path: Path, data: st.DataObject) -> None:
    """As `bench` takes them from its journal: with an index, an answer and what was expected."""
    plain = {"onnx": "a.onnx", "vnnlib": "b.vnnlib", "reason": "crown", "seconds": 0.1}
    records = []
    for i in range(3):
        made = data.draw(changed(plain))
        made = made if isinstance(made, dict) else {}
        records.append(
            made | {name: data.draw(st.sampled_from(sorted(v or ()))) for name, v in FIELDS.items()} | {"index": i}
        )
    suite = ElementTree.fromstring(junit(data.draw(words), records).encode())[0]
    assert len(suite) == 3


def test_two_damaged_runs_are_compared_or_refused() -> None:
    for name in HEADER:
        other = Results({k: v for k, v in HEADER.items() if k != name}, tuple(RECORDS))
        try:
            assert Comparison.of(("a", "b"), other, Results(HEADER, tuple(RECORDS))).lost == []
        except InputError as error:
            one_line(error)
