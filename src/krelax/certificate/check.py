"""The checker: a certificate against the network in an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from krelax.certificate.arithmetic import Arithmetic, Exact, Float64, Floats
from krelax.certificate.format import Certificate, Malformed
from krelax.certificate.kernel import Rejected, check_executable
from krelax.certificate.model import Model
from krelax.certificate.operators import read_network
from krelax.certificate.proof import Proof


def check(
    certificate: Certificate, model: Model | bytes, exact: bool = False, errors: Sequence[Floats] | None = None
) -> list[float]:
    """The smallest margin of every question, all of them positive, for the network in an ONNX file, or in several.

    `errors`, `(margins, outputs + 1)` for every question, bound how far rows and offsets are from what is meant.
    Raises Rejected if the certificate is about another network, or proves less; Malformed if it does not fit;
    InputError for a file that is no network.
    """
    files = model if isinstance(model, Model) else Model(model)
    digest = files.hash
    if certificate.network != digest:
        raise Rejected(f"about the network {certificate.network[:12]}..., not {digest[:12]}...")
    if not certificate.questions:
        raise Malformed("no questions")
    ar: Arithmetic = Exact() if exact else Float64()
    network, float32 = read_network(files).over(ar), certificate.semantics == "float32"
    if float32:
        check_executable(network, ar)
    margins = []
    for number, question in enumerate(certificate.questions):
        own = None if errors is None else errors[number]
        try:
            with np.errstate(all="ignore"):
                margins.append(Proof(network, question, ar, float32, own).margin())
        except Malformed as error:
            raise Malformed(f"question {number}: {error}") from None
        except OverflowError as error:
            raise Rejected(f"question {number}: numbers too large ({error})") from error
        if not margins[-1] > 0:
            raise Rejected(f"question {number}: what is proven of the smallest margin is {margins[-1]:.6g}")
    return margins
