"""Margins that proofs need so that rounding does not take them away: estimates, which say what to look for."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from krelax.certificate.format.schema import Layer, Lemma, Question, Region
from krelax.certificate.kernel.arithmetic import Arithmetic, Float64, Unbounded
from krelax.certificate.kernel.network import Network
from krelax.certificate.kernel.question import check_question
from krelax.problem.region import middle
from krelax.search.questions import Questions

# Over a region relaxed networks have larger terms than over a point; measured: 2 to 40 times.
_RELAXED = 10.0
# Charges of float64 are so small that many times as much costs nothing; questions whose charges are computed.
_AMPLE, _LOOKED_AT = 1000.0, 4
# Margins of a question that are looked at.
_MOST_MARGINS = 100


def required_for_float32(network: Network, questions: Questions) -> Tensor:
    """What the smallest margin of each question should be above, `(questions,)`, to be positive for float32, too.

    The checker's own charge for rounding at the middle of the region, several times.
    """
    charges = [_charge(network, questions, i, _EXECUTED) for i in range(len(questions))]
    return _RELAXED * torch.tensor(charges, dtype=torch.float64)


def required_for_real(network: Network, questions: Questions) -> Tensor:
    """What the smallest margin of each question should be above, `(questions,)`, to be positive for a checker that
    charges for the rounding of float64: many times the charge at the middle of some regions, which is next to nothing.
    """
    step = max(1, -(-len(questions) // _LOOKED_AT))
    charges = [_charge(network, questions, i, _CHECKED) for i in range(0, len(questions), step)]
    return torch.full((len(questions),), _AMPLE * max(charges, default=0.0), dtype=torch.float64)


# Two ways to check a proof, by arithmetic and whether of executions in float32, of which the second one charges more.
_Way = tuple[Arithmetic, bool]
_EXECUTED: tuple[_Way, _Way] = (Float64(), False), (Float64(), True)
_CHECKED: tuple[_Way, _Way] = (Unbounded(), False), (Float64(), False)


def _charge(network: Network, questions: Questions, i: int, ways: tuple[_Way, _Way]) -> float:
    """What the second way takes of the smallest margin at the middle of a region."""
    region, queries = questions.region, questions.queries
    point = middle(region.lower[i], region.upper[i]).double().flatten().cpu().numpy()
    rows, offsets = (t[i, :_MOST_MARGINS].double().cpu().numpy() for t in (queries.rows, queries.offsets))
    claim = Lemma(np.full(len(rows), -1, np.int32), np.zeros(0, np.float32))
    question = Question(Region("box", point, point), rows, offsets, np.arange(len(rows), dtype=np.int32))
    question.layers, question.margins = [Layer("interval") for _ in network.activations], claim
    with np.errstate(all="ignore"):
        more, less = (check_question(network, question, ar, float32).margin for ar, float32 in ways)
    return max(0.0, more - less) if np.isfinite(more - less) else 0.0
