"""The results of a list of instances as JUnit XML, which systems for continuous integration show."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

# What XML cannot hold.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# Seconds that nothing has taken yet: what says so says nothing.
_LONGEST = 1e12


def junit(name: str, records: Iterable[Mapping[str, Any]], missing: Iterable[tuple[str, str]] = ()) -> str:
    """One test suite: a case for every record that `krelax bench` writes, by index, and for every `missing` instance,
    a model and a property.

    An answer that contradicts the expected one is a failure, and what could not be read or went wrong an error. What
    is unknown is skipped: nothing was shown either way.
    """
    cases = [_case(r) for r in sorted(records, key=lambda r: int(r["index"]))]
    cases += [_skipped(*instance, "the run ended before") for instance in missing]
    kinds = [child.tag for case in cases for child in case]
    numbers = {"tests": len(cases), "failures": kinds.count("failure"), "errors": kinds.count("error")}
    facts = {key: str(n) for key, n in (numbers | {"skipped": kinds.count("skipped")}).items()}
    facts["time"] = f"{math.fsum(float(case.get('time', 0)) for case in cases):.3f}"
    whole = ElementTree.Element("testsuites", facts)
    suite = ElementTree.SubElement(whole, "testsuite", {"name": _text(name), **facts})
    suite.extend(cases)
    ElementTree.indent(whole)
    return ElementTree.tostring(whole, encoding="unicode", xml_declaration=True) + "\n"


def is_junit(path: Path) -> bool:
    """Whether a file is empty, or begins as one of these does."""
    begins = ElementTree.tostring(ElementTree.Element("testsuites"), encoding="unicode", xml_declaration=True)
    begins = begins[: begins.index("<testsuites") + len("<testsuites")]
    try:
        with path.open("rb") as file:
            return file.read(len(begins)) in {b"", begins.encode()}
    except OSError:  # a folder, for one
        return False


def _case(record: Mapping[str, Any]) -> ElementTree.Element:
    answer, expected = str(record["answer"]), str(record["expected"])
    case = _named(str(record.get("onnx", "")), str(record.get("vnnlib", "")))
    seconds = record.get("seconds")
    known = isinstance(seconds, int | float) and 0 <= seconds < _LONGEST
    case.set("time", f"{seconds:.3f}" if known else "0")
    reason = _text(str(record.get("reason", "")))
    if answer == "error":
        ElementTree.SubElement(case, "error", message=reason)
    elif {answer, expected} == {"sat", "unsat"}:
        ElementTree.SubElement(case, "failure", message=f"{answer}, but expected {expected} ({reason})")
    elif answer not in {"sat", "unsat"}:
        ElementTree.SubElement(case, "skipped", message=f"{answer} ({reason})")
    else:
        ElementTree.SubElement(case, "system-out").text = f"{answer} ({reason})"
    return case


def _skipped(onnx: str, vnnlib: str, why: str) -> ElementTree.Element:
    case = _named(onnx, vnnlib)
    ElementTree.SubElement(case, "skipped", message=why)
    return case


def _named(onnx: str, vnnlib: str) -> ElementTree.Element:
    return ElementTree.Element("testcase", classname=_text(onnx), name=_text(vnnlib))


def _text(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)
