"""A lemma is checked by a function of its arguments, and of nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
from tests.certificate.bases import MODELS, bases

from krelax.certificate.errors import Rejected
from krelax.certificate.format.schema import Question
from krelax.certificate.kernel.arithmetic import Exact, Float64
from krelax.certificate.kernel.context import Context
from krelax.certificate.kernel.lemma import check_lemma
from krelax.certificate.kernel.question import check_layer, check_question, check_refutation
from krelax.certificate.onnx.reader import read_network


def arrays(value: Any) -> Iterator[Any]:
    """All arrays in a value."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from arrays(part)
    elif isinstance(value, dict):
        yield from arrays(list(value.values()))
    elif is_dataclass(value):
        yield from arrays([getattr(value, f.name) for f in fields(value)])


def frozen(value: Any) -> Any:
    """The same value, whose arrays nobody can write to."""
    for array in arrays(value):
        array.setflags(write=False)
    return value


@pytest.mark.parametrize("ar", [Float64(), Exact()], ids=["float64", "exact"])
@pytest.mark.parametrize("base", list(bases()), ids=lambda b: b[0])
def test_nothing_but_the_arguments_decides(base: Any, ar: Any) -> None:
    """Over arguments that cannot be changed a lemma proves the same, whatever was checked before."""
    _, network, make = base
    for question in make().questions:
        with np.errstate(all="ignore"):
            context = frozen(check_question(read_network(MODELS[network]).over(ar), frozen(question), ar).context)
            if question.margins is not None:
                first = check_lemma(context, question.margins)
                other_things(context, question)
                assert check_lemma(context, question.margins).tobytes() == first.tobytes()


def other_things(context: Context, question: Question) -> None:
    """Other proofs over the same context."""
    for case in question.cases or ():
        check_refutation(context, case)
    for j, layer in enumerate(question.layers):
        try:
            check_layer(context, j, layer)
        except Rejected:  # its own bounds are known already
            continue
