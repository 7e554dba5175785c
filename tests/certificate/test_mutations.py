"""Accepted certificates with anything changed are malformed, rejected, or prove something true."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.certificate.corpus import DEEP, DIAMOND, LEAKY, NETWORKS, accepted
from tests.marks import at_night_after

from krelax.certificate.check import check
from krelax.certificate.errors import Malformed, Rejected
from krelax.certificate.format.archive import read, write
from krelax.certificate.format.schema import Certificate, Question

LAYERS = {"diamond": DIAMOND, "leaky": LEAKY, "deep": DEEP}
CASES = [(name, network, made) for name, network, made in accepted() if network in LAYERS]
GRID = np.stack(np.meshgrid(*[np.linspace(0, 1, 41)] * 2), -1).reshape(-1, 2)


def smallest(network: str, question: Question) -> float:
    """The margin at the worst of many points of the region: no proof may claim more."""
    region = question.region
    x = region.lower + (region.upper - region.lower) * GRID
    if region.kind != "box":
        step = x - region.centre
        norm = np.linalg.norm(step, 2 if region.kind == "l2" else 1, 1)
        x = x[norm <= (region.eps or 0)]
        x = np.append(x, np.clip(region.centre, region.lower, region.upper)[None], 0)
    for layer in LAYERS[network]:
        x = x @ np.array(layer.weight).T + np.array(layer.bias)
        x = x if layer.slope is None else np.maximum(x, layer.slope * x)
    values = x @ question.rows.T + question.offsets
    clauses = [values[:, question.clause == n].max(1) for n in np.unique(question.clause)]
    return float(np.min(clauses))


def arrays(value: Any) -> Iterator[tuple[Any, str]]:
    """Every array in a certificate, as the object and the field that hold it."""
    for f in fields(value):
        item = getattr(value, f.name)
        if isinstance(item, np.ndarray):
            yield value, f.name
        for inner in item if isinstance(item, list) else [item]:
            if is_dataclass(inner):
                yield from arrays(inner)


def mutate(rng: Any, made: Certificate) -> None:
    """One random change somewhere."""
    places = list(arrays(made.questions[0] if rng.random() < 0.8 else made.questions[-1]))
    owner, name = places[rng.integers(len(places))]
    array = getattr(owner, name).copy()
    match rng.integers(6):
        case 0 if array.size:
            array.reshape(-1)[rng.integers(array.size)] = _number(rng, array.dtype)
        case 1 if array.size:
            array = -array if array.dtype.kind != "u" else array ^ np.uint8(rng.integers(256))
        case 2:
            array = rng.permutation(array)
        case 3:
            array = array[: rng.integers(len(array) + 1)]
        case 4:
            array = np.concatenate([array, array[: rng.integers(len(array) + 1)]])
        case _:
            other = [getattr(o, n) for o, n in places if getattr(o, n).dtype == array.dtype]
            array = other[rng.integers(len(other))].copy()
    setattr(owner, name, array)


def _number(rng: Any, dtype: Any) -> Any:
    if dtype.kind == "f":
        return rng.choice([0, -0.0, 1, -1, 0.5, 255, 1e-30, 1e30, -1e30, 3e38, float(rng.normal())])
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return rng.choice([low, high, 0, 1, *rng.integers(max(low, -3), 8, 4)])


def outcome(path: Path, network: str, made: Certificate, exact: bool = False) -> str:
    """Checks a certificate; what it accepts must be true."""
    try:
        write(path, made)
        margins = check(read(path), NETWORKS[network], exact)
    except ValueError:
        return "Malformed"
    except (Malformed, Rejected) as error:
        return type(error).__name__
    for margin, question in zip(margins, made.questions, strict=True):
        assert margin <= smallest(network, question) + 1e-9
    return "accepted"


@pytest.mark.parametrize("count", at_night_after(1, (200, 6000)))
def test_random_mutations(count: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    seen = {"accepted": 0, "Malformed": 0, "Rejected": 0}
    for n in range(count):
        _, network, made = CASES[n % len(CASES)]
        changed = deepcopy(made)
        for _ in range(rng.integers(1, 3)):
            mutate(rng, changed)
        seen[outcome(tmp_path / "case.zip", network, changed, exact=n % 10 == 0)] += 1
    assert min(seen.values()) > count / 20, seen


@pytest.mark.parametrize("count", at_night_after(1, (50, 1000)))
def test_random_mutations_of_the_file(count: int, tmp_path: Path) -> None:
    """Bytes of members changed, with checksums that are right again."""
    rng = np.random.default_rng(1)
    for n in range(count):
        _, network, made = CASES[n % len(CASES)]
        write(tmp_path / "good.zip", made)
        with zipfile.ZipFile(tmp_path / "good.zip") as old, zipfile.ZipFile(tmp_path / "bad.zip", "w") as new:
            names = old.namelist()
            chosen = names[rng.integers(len(names))]
            for member in names:
                data = bytearray(old.read(member))
                if member == chosen:
                    for place in rng.integers(len(data), size=rng.integers(1, 4)):
                        data[place] = rng.integers(256)
                new.writestr(member, bytes(data))
        with suppress(Malformed):
            outcome(tmp_path / "case.zip", network, read(tmp_path / "bad.zip"))


@pytest.mark.parametrize(("name", "network", "made"), CASES, ids=lambda x: x if isinstance(x, str) else "")
def test_no_other_region_or_property_is_accepted_by_the_same_proof(
    name: str, network: str, made: Certificate, tmp_path: Path
) -> None:
    """Wider regions and larger offsets: the margins shrink accordingly, or the certificate is refused."""
    for factor in (1.001, 1.01, 1.1, 2.0, 10.0, 1e6):
        wider = deepcopy(made)
        for question in wider.questions:
            region = question.region
            region.lower, region.upper = region.lower * factor, region.upper * factor
            region.eps = None if region.eps is None else region.eps * factor
        outcome(tmp_path / "case.zip", network, wider)
        harder = deepcopy(made)
        for question in harder.questions:
            question.offsets = question.offsets - np.log(factor)
        outcome(tmp_path / "case.zip", network, harder)
    for other in NETWORKS:
        if other != network:
            with pytest.raises(Rejected, match="network"):
                check(made, NETWORKS[other])
