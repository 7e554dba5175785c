"""What a report is about: the results of one run, as its journal has them, and what can be counted from them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from krelax.errors import InputError

VERDICTS = ("holds", "violated", "unknown")
NUMBER = (int, float)

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Results:
    """The settings of a run and its records by index, as docs/jsonl.md describes them."""

    settings: Record
    records: tuple[Record, ...]

    @classmethod
    def of(cls, source: str, settings: Record, records: Sequence[Record], size: int, count: int) -> Results:
        """Records of images with `size` numbers from a file of `count`. Raises InputError, which names the `source`,
        for settings and records that `certify` does not write."""
        wrong = _wrong_settings(settings)
        if wrong:
            raise InputError(f"{source}: is not of a data-set run ({wrong}); give what `krelax certify --jsonl` wrote")
        for record in records:
            wrong = _wrong(record, size, count)
            if wrong:
                where = f"the result of image {record['index']}"
                raise InputError(f"{source}: {where} is damaged ({wrong}); run `krelax certify` again")
        return cls(settings, tuple(sorted(records, key=lambda r: int(r["index"]))))

    def only(self, indices: set[int]) -> Results:
        """The same for some images."""
        return Results(self.settings, tuple(r for r in self.records if r["index"] in indices))

    @property
    def indices(self) -> set[int]:
        return {r["index"] for r in self.records}

    @property
    def counts(self) -> dict[str, int]:
        """How many images have each verdict."""
        return {verdict: sum(r["verdict"] == verdict for r in self.records) for verdict in VERDICTS}

    @property
    def answers(self) -> list[tuple[str, str, int]]:
        """Verdict, what gave it, and how many images; the most frequent of each verdict first."""
        found = Counter((r["verdict"], r["reason"]) for r in self.records)
        order = sorted(found.items(), key=lambda item: (VERDICTS.index(item[0][0]), -item[1]))
        return [(verdict, reason, count) for (verdict, reason), count in order]

    @property
    def seconds(self) -> float:
        return math.fsum(r["seconds"] for r in self.records)

    @property
    def first(self) -> str | None:
        """The method that looked at all images first. Its bounds can be compared; those that settle a question stop at
        different efforts. None where the journal does not say."""
        stages = next((r["stages"] for r in self.records if r.get("stages")), None)
        return None if stages is None else str(stages[0]["name"])

    def bounds(self) -> list[tuple[str, float]]:
        """Verdict and margin of every image that the first method bounded."""
        stages = [(r["verdict"], r["stages"][0].get("margin")) for r in self.records if r.get("stages")]
        return [(verdict, margin) for verdict, margin in stages if margin is not None]


@dataclass(frozen=True)
class Point:
    """What is known of the same images at one radius: the share that a method certifies, and the share that nothing
    refutes."""

    eps: float
    method: str
    certified: float
    unrefuted: float


def curve(runs: Sequence[Results]) -> tuple[int, list[Point]]:
    """On how many images several runs can be compared, and their points by radius. No points of one radius alone."""
    shared = set.intersection(*(run.indices for run in runs))
    if not shared or len({run.settings["eps"] for run in runs}) < 2:
        return len(shared), []
    kept = [run.only(shared) for run in runs]
    refuted: dict[float, set[int]] = {}
    for run in kept:
        refuted.setdefault(run.settings["eps"], set()).update(
            r["index"] for r in run.records if r["verdict"] == "violated"
        )
    points = [
        Point(
            run.settings["eps"],
            run.settings["method"],
            run.counts["holds"] / len(shared),
            1 - len(refuted[run.settings["eps"]]) / len(shared),
        )
        for run in kept
    ]
    return len(shared), sorted(points, key=lambda p: p.eps)


def _wrong_settings(settings: Record) -> str:
    """What is missing in a header; empty if it is one of `certify`."""
    wants: dict[str, Any] = {"krelax": str, "model": str, "images": str, "eps": NUMBER, "norm": str, "method": str}
    clip, command = settings.get("clip"), settings.get("kind_of_run")
    if command is not None:
        return f"but of krelax {command}"
    if clip is not None and not (isinstance(clip, list) and len(clip) == 2 and all(map(_finite, clip))):
        return "clip is no range"
    if isinstance(settings.get("eps"), NUMBER) and not _finite(settings["eps"]):
        return "eps is not finite"
    return next((f"{name} is missing" for name, kind in wants.items() if not isinstance(settings.get(name), kind)), "")


def _wrong(record: Record, size: int, count: int) -> str:
    """What of a record cannot be shown; empty if nothing."""
    wants: dict[str, Any] = {"label": int, "predicted": int, "verdict": str, "reason": str, "seconds": NUMBER}
    for name, kind in wants.items():
        if not isinstance(record.get(name), kind):
            return f"{name} is missing"
    if not 0 <= record["index"] < count:
        return f"there are {count} images"
    if record["verdict"] not in VERDICTS:
        return "verdict is unknown to krelax"
    if not (_finite(record["seconds"]) and _maybe(record.get("margin"))):
        return "a number is not finite"
    return _wrong_stages(record) or _wrong_parts(record, size)


def _wrong_stages(record: Record) -> str:
    stages = record.get("stages", [])
    fine = isinstance(stages, list) and all(
        isinstance(s, dict) and isinstance(s.get("name"), str) and _finite(s.get("seconds")) and _maybe(s.get("margin"))
        for s in stages
    )
    return "" if fine else "stages"


def _wrong_parts(record: Record, size: int) -> str:
    """The parts that only some records have."""
    certificate, found = record.get("certificate"), record.get("counterexample")
    if certificate is not None and not (isinstance(certificate, dict) and isinstance(certificate.get("file"), str)):
        return "certificate"
    if certificate is not None and not all(map(_finite, (v for v in certificate.values() if isinstance(v, NUMBER)))):
        return "certificate"
    if found is None:
        return ""
    lists = [found.get(name) for name in ("x", "y")] if isinstance(found, dict) else [None]
    fine = all(isinstance(part, list) and all(map(_finite, part)) for part in lists)
    return "" if fine and len(found["x"]) == size and len(found["y"]) > 1 else "counterexample"


def _finite(value: Any) -> bool:
    try:
        return isinstance(value, NUMBER) and math.isfinite(value)
    except OverflowError:  # an integer beyond float64
        return False


def _maybe(value: Any) -> bool:
    return value is None or _finite(value)
