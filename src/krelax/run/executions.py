"""How much of a margin executions in float32 can take: an estimate, so that proofs are looked for that leave room."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from krelax.certificate.arithmetic import Float64
from krelax.certificate.format import Claim, Layer, Question, Region
from krelax.certificate.model import Model
from krelax.certificate.network import Network
from krelax.certificate.operators import read_network
from krelax.certificate.proof import Proof
from krelax.search.pipeline import Questions

# Over a region relaxed networks have larger terms than over a point; measured: 2 to 40 times.
_RELAXED = 10.0
# Margins of a question that are looked at.
_MOST_MARGINS = 100


def room(model: Model | bytes, questions: Questions) -> Tensor:
    """What the smallest margin of each question should be above, `(questions,)`, to be positive for float32, too.

    The checker's own charge for rounding at the middle of the region, several times. Raises InputError for a network
    that the checker does not read.
    """
    network = read_network(model)
    charges = [_charge(network, questions, i) for i in range(len(questions))]
    return _RELAXED * torch.tensor(charges, dtype=torch.float64)


def _charge(network: Network, questions: Questions, i: int) -> float:
    """What float32 takes of the smallest margin at the middle of a region."""
    region, queries = questions.region, questions.queries
    point = ((region.lower[i] + region.upper[i]) / 2).double().flatten().cpu().numpy()
    rows, offsets = (t[i, :_MOST_MARGINS].double().cpu().numpy() for t in (queries.rows, queries.offsets))
    claim = Claim(np.full(len(rows), -1, np.int32), np.zeros(0, np.float32))
    question = Question(Region("box", point, point), rows, offsets, np.arange(len(rows), dtype=np.int32))
    question.layers, question.margins = [Layer("interval") for _ in network.activations], claim
    with np.errstate(all="ignore"):
        real, executed = (Proof(network, question, Float64(), float32).margin() for float32 in (False, True))
    return max(0.0, real - executed) if np.isfinite(real - executed) else 0.0
