"""One verdict for each image about a region that is no ball: transformations, patches, few pixels, categories."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from krelax.errors import InputError, UnsupportedError
from krelax.network.graph import Network
from krelax.problem.regions import Categories, Patch, Pixels, Spec, Transformed
from krelax.run.certificates import Certificates
from krelax.run.hints import tried
from krelax.run.places import Places
from krelax.search.around import Radius, exact, radii_of
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import Questions
from krelax.search.transformed import Surroundings
from krelax.search.unions import AnyOf
from krelax.search.verdict import Counterexample, Outcome, Verdict, combine

if TYPE_CHECKING:
    from krelax.run.certify import CertifyOptions

_NO_CERTIFICATE = "certificates are about boxes of inputs, not about transformations, or several free pixels"


def asked(
    network: Network, image: NDArray[np.float32], label: int, spec: Spec, options: CertifyOptions
) -> tuple[Network, Questions, Callable[[Counterexample], Counterexample]]:
    """What is to be decided about an image: of which network, and what a counterexample to it is an input of.

    Raises InputError where the region does not fit the image.
    """
    if not isinstance(spec, Transformed):
        return network, _any_of(network, image, label, spec, options).questions(), lambda found: found
    ends, radius = _ends(options)
    if isinstance(radius, tuple):
        raise InputError("a transformed image has one radius; give --eps instead of --eps-file")
    around = Surroundings(network, image, label, spec, radius, ends, options.scaling)
    front, questions = around.asked()
    return front, questions, around.counterexample


def _ends(options: CertifyOptions) -> tuple[tuple[Fraction, Fraction] | None, Radius]:
    """The range of values, and the radius around every one of them."""
    if options.norm != "linf":
        raise UnsupportedError(
            f"--region with --norm {options.norm}: values around a changed image vary in linf only; leave --norm out"
        )
    ends = None if options.clip is None else (exact(options.clip[0]), exact(options.clip[1]))
    return ends, radii_of(options.eps, 1)[0]


def _any_of(
    network: Network, image: NDArray[np.float32], label: int, spec: Patch | Pixels | Categories, options: CertifyOptions
) -> AnyOf:
    ends, radius = _ends(options)
    return AnyOf(network, image, label, spec, radius, ends, options.scaling)


def _places(
    network: Network, image: NDArray[np.float32], label: int, spec: Spec, plan: Plan, options: CertifyOptions
) -> Places | None:
    """A question about what may be anywhere in an image; None for other regions."""
    if isinstance(spec, Transformed):
        return None
    one = _any_of(network, image, label, spec, options)
    return Places(one, plan, options.timeout, options.device, options.deterministic) if one.has_places else None


def decide_image(
    network: Network, image: NDArray[np.float32], label: int, spec: Spec, plan: Plan, options: CertifyOptions,
    certificates: Certificates | None = None,
) -> Outcome:  # fmt: skip
    """Is an image classified as its label wherever it is in a region?

    Sound: yes. What holds is proven for every place, choice and parameter; what is violated has an input of the model
    that lies in the region, replayed.
    Complete: with method `auto` and enough time, for ReLUs and leaky ReLUs, but for margins of about zero, several
    pixels at once, and parameters and noise together.
    """
    if certificates is None and (anywhere := _places(network, image, label, spec, plan, options)) is not None:
        return combine(anywhere.outcomes(), anywhere.seconds)
    front, questions, input_of = asked(network, image, label, spec, options)
    began, outcomes = time.perf_counter(), list[Outcome]()

    def report(i: int, outcome: Outcome) -> None:
        outcomes.append(outcome)
        if outcome.verdict is Verdict.VIOLATED:
            raise _Enough

    each = options.timeout if len(questions) == 1 else None
    proofs, required = certificates is not None, None
    if certificates is not None:
        required, plan = certificates.required_margins(questions), certificates.provable(plan)
    limit, device, deterministic = options.timeout, options.device, options.deterministic
    with suppress(_Enough):
        decide(front, questions, plan, report, limit, device, each, proofs, required, deterministic)
    counted = sum(outcome.seconds for outcome in outcomes)
    found = combine(outcomes, counted if deterministic else time.perf_counter() - began)
    if found.counterexample is not None:
        found = replace(found, counterexample=input_of(found.counterexample))
    return found if len(questions) > 1 else replace(found, stages=outcomes[0].stages)


def refuted(
    network: Network, image: NDArray[np.float32], label: int, spec: Spec, options: CertifyOptions,
    x: NDArray[np.float64],
) -> Counterexample | str:  # fmt: skip
    """The counterexample at a point `x` that somebody found, an input or the parameters of a transformation; or why
    there is none. Of boxes, that is asked of the one to which the point is nearest."""
    front, questions, input_of = asked(network, image, label, spec, options)
    sides = (side.reshape(len(questions), -1) for side in (questions.region.lower, questions.region.upper))
    point = torch.from_numpy(x).flatten()
    lower, upper = sides
    off = torch.maximum(lower - point, point - upper).amax(1)
    found = tried(front, questions, int(off.argmin()), x)
    return found if isinstance(found, str) else input_of(found)


def check_certificates(spec: Spec) -> None:
    """Raises UnsupportedError for regions that no certificate is about."""
    if isinstance(spec, Transformed) or (isinstance(spec, Pixels) and spec.count > 1):
        raise UnsupportedError(f"{_NO_CERTIFICATE}; leave --certificates out")


class _Enough(Exception):
    """One counterexample answers for the image."""
