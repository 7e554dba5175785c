"""Results as JUnit XML: what systems for continuous integration count."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from krelax.report.junit import junit


def record(index: int, answer: str, expected: str = "open", **more: object) -> dict[str, object]:
    return {
        "index": index, "onnx": "net.onnx", "vnnlib": f"p{index}.vnnlib", "answer": answer, "expected": expected,
        "reason": "crown", "seconds": 0.25,
    } | more  # fmt: skip


def test_every_answer_has_its_kind() -> None:
    records = [
        record(1, "unsat", "sat"),
        record(0, "unsat", "unsat"),
        record(2, "unknown", "unsat"),
        record(3, "timed-out"),
        record(4, "error"),
        record(5, "sat", "unsat"),
        record(6, "sat"),
    ]
    suite = ElementTree.fromstring(junit("list.csv", records, [("a.onnx", "b.vnnlib")]))[0]
    assert suite.attrib == {
        "name": "list.csv", "tests": "8", "failures": "2", "errors": "1", "skipped": "3", "time": "1.750",
    }  # fmt: skip
    kinds = [[child.tag for child in case] for case in suite]
    assert kinds == [
        ["system-out"], ["failure"], ["skipped"], ["skipped"], ["error"], ["failure"], ["system-out"], ["skipped"],
    ]  # fmt: skip
    assert [case.get("name") for case in suite][:2] == ["p0.vnnlib", "p1.vnnlib"]


@pytest.mark.parametrize("text", ["<&\"'>", "\x00\x1b\ufffe\ud800", "]]>", "\n\t ü 😀"])
def test_any_text_can_be_read_again(text: str) -> None:
    """Names and reasons come from files."""
    written = junit(text, [record(0, "error", reason=text, onnx=text, vnnlib=text, seconds=float("nan"))])
    suite = ElementTree.fromstring(written.encode())[0]
    kept = "".join("\ufffd" if c in "\x00\x1b\ufffe\ud800" else c for c in text)
    assert suite.get("name") == kept
    assert suite[0][0].get("message") == kept


@pytest.mark.parametrize("seconds", [10**400, -1, float("inf"), float("nan"), 1.7e308, None, "long"])
def test_seconds_that_say_nothing_are_none(seconds: object) -> None:
    written = junit("n", [record(i, "sat", seconds=seconds) for i in range(3)])
    assert [case.get("time") for case in ElementTree.fromstring(written.encode()).iter("testcase")] == ["0"] * 3
