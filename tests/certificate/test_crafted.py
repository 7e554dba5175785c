"""Crafted mutations of certificates never prove anything false, and those that fit nothing are refused."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from zlib import crc32

import pytest
from tests.certificate.bases import MODELS, bases, truth
from tests.certificate.crafted import Mutation, mutations
from tests.certificate.test_format import MALFORMED as FILES
from tests.marks import at_night_after

from krelax.certificate.check import check
from krelax.certificate.errors import Malformed, Rejected
from krelax.certificate.format.archive import read, write
from krelax.certificate.format.schema import Certificate

BASES = {name: (network, make) for name, network, make in bases()}


def outcome(path: Path, network: str, made: Certificate, exact: bool = False) -> str:
    """What the checker says of a certificate; what it accepts is compared with the truth."""
    try:
        write(path, made)
        margins = check(read(path), MODELS[network], exact)
    except ValueError:  # what cannot be written
        return "malformed"
    except (Malformed, Rejected) as error:
        return type(error).__name__.lower()
    for margin, question in zip(margins, made.questions, strict=True):
        assert Fraction(margin) <= truth(network, question)
    return "accepted"


def judge(mutation: Mutation, found: str) -> bool:
    """Whether an outcome is as it must be."""
    return {"malformed": found == "malformed", "rejected": found != "accepted", "true": True}[mutation.expected]


@pytest.mark.parametrize("tenth", at_night_after(1, range(10)))
@pytest.mark.parametrize("name", BASES)
def test_crafted_mutations(name: str, tenth: int, tmp_path: Path) -> None:
    """Always a tenth of the mutations of every certificate, and every mutation of about a tenth of the certificates."""
    (network, make), first = BASES[name], list(BASES).index(name)
    made = make()
    assert outcome(tmp_path / "case.zip", network, made) == "accepted"
    mine = mutations(made, lambda mutation: (crc32(mutation.encode()) + first) % 10 == tenth)
    for number, mutation in enumerate(mine):
        found = outcome(tmp_path / "case.zip", network, mutation.made, exact=number % 24 == 0)
        assert judge(mutation, found), f"{mutation.name}: {found}"


@pytest.mark.slow
def test_there_are_many_of_them() -> None:
    names = [{m.name for m in mutations(make())} for _, make in BASES.values()]
    assert len(set().union(*names)) >= 200
    assert sum(map(len, names)) >= 2000
    assert len(FILES) >= 100
