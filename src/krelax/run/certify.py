"""Certifies a set of labelled images: the main job of the command line."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from krelax.errors import InputError, UnsupportedError, one_line
from krelax.network.graph import Network
from krelax.problem.images import Images
from krelax.problem.layouts import Agreement
from krelax.problem.regions import Spec, Transformed
from krelax.problem.scaling import Scaling
from krelax.run.certificates import Certificates
from krelax.run.hints import Hints, replayed, tried
from krelax.run.journal import open_journal
from krelax.run.regions import check_certificates, decide_image, refuted
from krelax.search.around import Number
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import about_images
from krelax.search.verdict import Counterexample, Outcome, Stage, Verdict


@dataclass(frozen=True)
class CertifyOptions:
    """What is asked of every image, and with what effort. `timeout` is in seconds for each image (None: no limit),
    of work where the run is `deterministic`. `eps` and `clip` are exactly the numbers given: fractions, or floats;
    `eps` is one for all inputs, or one for each. They are on the scale of the images. The model is given what `scaling`
    makes of these. With a `region`, that is what is asked about, with `eps` of noise on all values."""

    eps: Number | tuple[Number, ...]
    norm: str = "linf"
    clip: tuple[Number, Number] | None = (0.0, 1.0)
    method: str = "auto"
    timeout: float | None = 60.0
    device: str = "cpu"
    deterministic: bool = False
    scaling: Scaling | None = None
    region: Spec | None = None


@dataclass
class Summary:
    """Verdicts of a run by index, how many of them an earlier run had found, and the seconds of this one."""

    verdicts: dict[int, str] = field(default_factory=dict)
    resumed: int = 0
    reasons: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.verdicts.values())

    def add(self, record: dict[str, Any]) -> None:
        """Take a record of the journal into account."""
        self.verdicts[record["index"]] = sys.intern(record["verdict"])  # there may be a million of them
        self.reasons[record["index"]] = sys.intern(record["reason"])


_VERDICTS = frozenset(verdict.value for verdict in Verdict)

Seen = Callable[[dict[str, Any]], None]
# Decides some images, given by their indices, with a plan, and keeps the record of each as soon as it is settled.
Decide = Callable[[Network, Images, list[int], CertifyOptions, Plan, Seen, Certificates | None], None]


def decide_here(
    network: Network, images: Images, wanted: list[int], options: CertifyOptions, plan: Plan, keep: Seen,
    certificates: Certificates | None,
) -> None:  # fmt: skip
    """Decide the `wanted` images on this machine: as `decide_chosen`."""
    decide_chosen(network, images.select(wanted), wanted, options, plan, keep, certificates)


def certify(
    network: Network,
    images: Images,
    indices: range,
    options: CertifyOptions,
    *,
    journal: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    settings: dict[str, Any] | None = None,
    seen: Seen = lambda record: None,
    certificates: Certificates | None = None,
    hints: Hints | None = None,
    say: Callable[[str], None] = lambda line: None,
    decide_images: Decide = decide_here,
) -> Summary:
    """Certify images: is every input in the region around each classified as its label says?

    Args:
        network: The classifier.
        images: Images `(n, *input_shape)` and labels `(n,)`.
        indices: Which of them.
        options: The regions, and with what effort.
        journal: A file to which each result is written as it comes.
        resume: Whether results that the journal holds are kept and not computed again.
        overwrite: Whether results that the journal holds, of whatever run, are deleted.
        settings: What identifies model and data in the journal.
        seen: Is called with each result.
        certificates: Where proofs are written: what holds gets one, `image-INDEX.zip`.
        hints: Points that may be counterexamples, which are replayed first.
        say: Is called with a line about each hint that refutes nothing.
        decide_images: Where images are decided that hints do not refute: here, or on other machines.

    Returns:
        How many images have which verdict.

    Raises:
        InputError: Options or images do not fit, or the journal is that of another run.

    Sound: yes. What holds is proven, what is violated has a counterexample that was replayed in the original model.
    Complete: with method `auto` and enough time, for ReLUs and leaky ReLUs, but for margins of exactly zero.
    """
    if decide_images is decide_here:
        check_device(options.device)
    plan = Plan.of(options.method)
    if options.region is not None and certificates is not None:
        check_certificates(options.region)
    if certificates is not None:
        check_proven(network)
    began = time.perf_counter()
    summary = Summary()
    header, values = identity(options, settings), {"verdict": _VERDICTS, "reason": None}
    with open_journal(journal, header, resume, values, overwrite) as book:
        for i in indices:
            if i in book.done:
                summary.add(dict(book.done[i]))
        summary.resumed = len(summary.verdicts)

        def keep(record: dict[str, Any]) -> None:
            book.write(record)
            summary.add(record)
            seen(record)

        wanted = [i for i in indices if i not in book.done]
        if hints is not None and wanted:
            wanted = _refuted_by(hints, network, images, wanted, options, keep, say)
        if wanted:
            decide_images(network, images, wanted, options, plan, keep, certificates)
    summary.seconds = time.perf_counter() - began
    return summary


def decide_chosen(
    network: Network, chosen: Images, indices: Sequence[int], options: CertifyOptions, plan: Plan, keep: Seen,
    certificates: Certificates | None,
) -> None:  # fmt: skip
    """Decide images that have these indices, and `keep` the record of each as soon as it is settled. Raises InputError
    unless the device is there."""
    check_device(options.device)
    predicted = predictions(network, chosen, options.scaling)

    def report(position: int, outcome: Outcome) -> None:
        index, written = indices[position], None
        if certificates is not None:
            outcome, written = certificates.write(f"image-{index}.zip", outcome)
        record = record_of(index, int(chosen.labels[position]), int(predicted[position]), outcome)
        if written is not None:
            record["certificate"] = written.record()
        keep(record)

    if options.region is not None:
        for i, image in enumerate(chosen.images):
            label, region = int(chosen.labels[i]), options.region
            report(i, decide_image(network, image, label, region, plan, options, certificates))
        return
    questions = about_images(network, chosen, options.eps, options.norm, options.clip, options.scaling)
    limit = None if options.timeout is None else options.timeout * len(chosen)
    proofs, required = certificates is not None, None
    if certificates is not None:
        required, plan = certificates.required_margins(questions), certificates.provable(plan)
    each, deterministic = options.timeout, options.deterministic
    decide(network, questions, plan, report, limit, options.device, each, proofs, required, deterministic)


def _refuted_by(
    hints: Hints, network: Network, images: Images, wanted: list[int], options: CertifyOptions, keep: Seen,
    say: Callable[[str], None],
) -> list[int]:  # fmt: skip
    """Keep the records of what hints refute; the images that are left."""
    chosen, spec, scaling, done = images.select(wanted), options.region, options.scaling, set[int]()
    predicted = predictions(network, chosen, scaling)
    shape = chosen.images.shape[1:]
    balls = None if spec else about_images(network, chosen, options.eps, options.norm, options.clip, scaling)

    def ask(i: int, point: NDArray[np.float64]) -> Counterexample | str:
        x = point if scaling is None or isinstance(spec, Transformed) else scaling.apply(point, shape)
        if balls is not None:
            return tried(network, balls, i, x)
        assert spec is not None
        return refuted(network, chosen.images[i], int(chosen.labels[i]), spec, options, x)

    for i, found in replayed(hints, wanted, ask, say):
        outcome = Outcome(Verdict.VIOLATED, "given", counterexample=found)
        keep(record_of(wanted[i], int(chosen.labels[i]), int(predicted[i]), outcome))
        done.add(wanted[i])
    return [index for index in wanted if index not in done]


def identity(options: CertifyOptions, settings: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a journal's header says of a run."""
    facts = {f.name: getattr(options, f.name) for f in fields(options)}
    del facts["scaling"], facts["region"]
    if not options.deterministic:  # as in journals of runs that could not be
        del facts["deterministic"]
    if options.region is not None:
        facts["region"] = str(options.region)
    if options.scaling is not None:
        facts |= {"mean": options.scaling.mean, "std": options.scaling.std}
    if isinstance(options.eps, tuple):
        facts |= {"eps": max(options.eps, default=0.0), "radii": options.eps}
    return {**(settings or {}), **_jsonable(facts)}


def check_device(device: str) -> None:
    """Raises InputError unless the device is there."""
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("no CUDA device is available here; use --device cpu")
    if device not in {"cpu", "cuda"}:
        raise InputError(f"unknown device {device!r}: use cpu or cuda")


def check_proven(network: Network, place: str = "") -> None:
    """Raises UnsupportedError for a network that takes other numbers than the checker knows."""
    if not {*network.elements.names} <= {"float32", "float64"}:
        message = f"certificates are about inputs in float32 or float64, not {network.elements.title}"
        raise UnsupportedError(f"{place}{message}; leave the certificate out")


def agreement(network: Network, scaling: Scaling | None = None) -> Agreement:
    """How many of some images the network classifies as labelled. Raises UnsupportedError for a network of whole
    numbers."""
    if network.elements.any_whole:
        raise UnsupportedError(
            f"the network takes {network.elements.title} numbers, and images are floating-point ones; export it "
            "without the Cast in front, or ask with krelax verify, which knows whole numbers"
        )

    def agree(images: NDArray[np.float32], labels: NDArray[np.int64]) -> int:
        return int((predictions(network, Images(images, labels), scaling) == labels).sum())

    return agree


def predictions(network: Network, images: Images, scaling: Scaling | None = None) -> NDArray[np.int64]:
    """Class of the largest score of every image."""
    return np.concatenate([y.argmax(1).numpy() for y in _scores(network, images, scaling)])


def margins(network: Network, images: Images, scaling: Scaling | None = None) -> NDArray[np.float64]:
    """By how much the score of every image's label is larger than all others."""
    scores = torch.cat(list(_scores(network, images, scaling)))
    labels = torch.from_numpy(images.labels)[:, None]
    others = scores.scatter(1, labels, -torch.inf).amax(1)
    return (scores.gather(1, labels)[:, 0] - others).numpy()


def _scores(network: Network, images: Images, scaling: Scaling | None) -> Iterator[Tensor]:
    given = images.images if scaling is None else scaling.nearest(images.images, images.images.shape[1:])
    for x in torch.from_numpy(np.ascontiguousarray(given)).double().split(64):
        with torch.no_grad():
            scores = network(x).reshape(len(x), -1)
        yield scores


def record_of(index: int, label: int, predicted: int, outcome: Outcome) -> dict[str, Any]:
    """What a journal says of an image."""
    record: dict[str, Any] = {
        "index": index,
        "label": label,
        "predicted": predicted,
        "verdict": outcome.verdict.value,
        "reason": one_line(outcome.reason),
        "margin": finite(outcome.margin),
        "seconds": round(outcome.seconds, 4),
        "stages": [_stage(stage) for stage in outcome.stages],
    }
    if outcome.counterexample is not None:
        record["counterexample"] = counterexample_record(outcome.counterexample)
    return record


def _stage(stage: Stage) -> dict[str, Any]:
    facts = {"name": stage.name, "seconds": round(stage.seconds, 4), "margin": finite(stage.margin)}
    return {name: value for name, value in facts.items() if value is not None}


def finite(margin: float | None) -> float | None:
    """A margin as JSON can hold it; a bound that overflowed is no bound."""
    return margin if margin is not None and math.isfinite(margin) else None


def counterexample_record(found: Counterexample) -> dict[str, Any]:
    """A counterexample as plain lists; every float32 survives the trip through JSON. `exact` has the entries of x that
    are not numbers of the model's type, as text, and `parameters` those of the transformation that made x."""
    record: dict[str, Any] = {
        "x": found.x.flatten().astype(float).tolist(),
        "y": found.y.flatten().astype(float).tolist(),
    }
    if found.parameters:
        record["parameters"] = dict(found.parameters)
    return record | ({"exact": {str(i): text for i, text in found.exact.items()}} if found.exact else {})


def _jsonable(options: dict[str, Any]) -> dict[str, Any]:
    """Options as JSON can hold them. A fraction is the float nearest to it; where the digits of that are another
    number, NAME_exact has the fraction, so that different questions stay different."""
    result: dict[str, Any] = {}
    for key, value in options.items():
        parts = list(value) if isinstance(value, tuple) else [value]
        near = [float(part) if isinstance(part, Fraction) else part for part in parts]
        result[key] = near if isinstance(value, tuple) else near[0]
        if any(isinstance(p, Fraction) and Fraction(repr(n)) != p for p, n in zip(parts, near, strict=True)):
            result[f"{key}_exact"] = " ".join(map(str, parts))
    return result
