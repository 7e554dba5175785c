"""Certificates in accepted/, rejected/ and malformed/: a file put there is a test. `corpus.py` writes them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from tests.certificate import corpus
from tests.certificate.proofs import certificate

from krelax.certificate.check import check
from krelax.certificate.errors import Malformed, Rejected
from krelax.certificate.format.archive import read
from krelax.certificate.kernel import boxes

HERE = Path(__file__).parent


def cases(folder: str) -> list[Path]:
    return sorted((HERE / folder).glob("*.zip"))


def model(path: Path) -> bytes:
    return (HERE / "networks" / f"{path.name.split('--')[0]}.onnx").read_bytes()


@pytest.mark.parametrize("path", cases("accepted"), ids=lambda p: p.stem)
@pytest.mark.parametrize("exact", [False, True], ids=["float64", "exact"])
def test_accepted(path: Path, exact: bool) -> None:
    margins = check(read(path), model(path), exact)
    assert min(margins) > 0


@pytest.mark.parametrize("path", cases("accepted"), ids=lambda p: p.stem)
def test_exact_margins_are_close_to_those_in_float64_and_not_below(path: Path) -> None:
    floats, numbers = (np.array(check(read(path), model(path), exact)) for exact in (False, True))
    assert (floats <= numbers).all()
    assert np.allclose(floats, numbers, rtol=1e-3 if "cancel" in path.name else 1e-9)


@pytest.mark.parametrize("path", cases("rejected"), ids=lambda p: p.stem)
@pytest.mark.parametrize("exact", [False, True], ids=["float64", "exact"])
def test_rejected(path: Path, exact: bool) -> None:
    with pytest.raises(Rejected):
        check(read(path), model(path), exact)


@pytest.mark.parametrize("path", cases("malformed"), ids=lambda p: p.stem)
def test_malformed(path: Path) -> None:
    tracemalloc.start()
    with pytest.raises(Malformed):
        check(read(path), model(path))
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_the_corpus_is_as_the_program_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "FOLDER", tmp_path)
    corpus.main()
    for folder in ("accepted", "rejected", "malformed"):
        assert {p.name for p in (tmp_path / folder).iterdir()} <= {p.name for p in cases(folder)}


@pytest.mark.parametrize("unknown", [-np.inf, np.nan])
def test_boxes_of_which_nothing_is_known_prove_nothing(monkeypatch: pytest.MonkeyPatch, unknown: float) -> None:
    """Neither where they can be cut nor where they are points, which cannot."""
    monkeypatch.setattr(boxes, "in_boxes", lambda context, region, *_: (np.full(len(region.lower), unknown), 0))
    for extent in (1.0, 0.0):
        question = corpus.boxed(2.75)
        question.region.lower[:], question.region.upper[:] = -extent, extent
        with pytest.raises(Rejected, match=r"nan|inf"):
            check(certificate(corpus.NETWORKS["diamond"], question), corpus.NETWORKS["diamond"])
