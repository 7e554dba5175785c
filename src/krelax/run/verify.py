"""One specification, one network, one verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from krelax.bounds.instance import OutOfTime
from krelax.certificate.format.schema import System
from krelax.errors import InputError, UnsupportedError
from krelax.network.graph import Network
from krelax.network.linear import Within
from krelax.network.onnx_file import read_model
from krelax.problem.files import Files, matched
from krelax.problem.query import Specification
from krelax.problem.vnnlib import read_vnnlib
from krelax.run.certificates import Certificates
from krelax.run.certify import check_device, check_proven
from krelax.run.coupling import Pair, best_of, coupled
from krelax.run.systems import system_of
from krelax.search.attack import Attack
from krelax.search.excluded import without_excluded
from krelax.search.inconsistent import without_contradictions
from krelax.search.ordered import without_ordered
from krelax.search.pipeline import ATTACKS, Plan, decide
from krelax.search.questions import about_specification, check_fit
from krelax.search.rational import Settled, settled
from krelax.search.typed import typed
from krelax.search.verdict import Outcome, Verdict, combine
from krelax.search.whole import closed
from krelax.watch import counted, watched

# The reason of what holds because no input satisfies what is assumed.
EMPTY = "no input can be unsafe"
# The reason of what exact numbers decide, and the work, of a quarter of a second, that is spent on that first.
EXACT = "exact arithmetic"
# The reason of what holds because networks rise.
ORDER = "slopes of the network"
_REAL = "exact arithmetic of real numbers, which the model breaks up to its rounding"
_WORK = 60_000

_NO_CERTIFICATE = "certificates about float32 are about one network with one input and one output"

# Seconds that a question has even where reading took all of the time.
_GLANCE = 1.0


@dataclass(frozen=True)
class VerifyOptions:
    """Effort of a verification; `timeout` is in seconds of wall time, or of work where it is `deterministic`: nothing
    but the search counts then. With `proofs`, an outcome that holds has them."""

    method: str = "auto"
    timeout: float | None = None
    device: str = "cpu"
    proofs: bool = False
    deterministic: bool = False

    @property
    def seconds(self) -> float | None:
        """The limit of wall time."""
        return None if self.deterministic else self.timeout


def check_options(options: VerifyOptions) -> Plan:
    """The plan behind the options. Raises InputError for an unknown method and a device that is not there."""
    check_device(options.device)
    return Plan.of(options.method)


# Reads the network in a file, or the scores before its head.
Load = Callable[[Path, bool], Network]


class Clock:
    """A limit in seconds (None: no limit) that counts from now on, or from when `time.perf_counter()` read `began`."""

    def __init__(self, limit: float | None, began: float | None = None) -> None:
        self._limit, self._began = limit, time.perf_counter() if began is None else began

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._began

    def over(self, since: float = 0.0) -> bool:
        """Whether the time has been up for so many seconds."""
        return self._limit is not None and self.seconds > self._limit + since

    def check(self) -> None:
        """Raise OutOfTime if the time is up."""
        if self.over():
            raise OutOfTime

    def left(self) -> float | None:
        """What is left of the limit. Something always is, so that what can be decided at a glance is decided."""
        return None if self._limit is None else max(self._limit - self.seconds, min(self._limit / 2, _GLANCE))

    def timeout(self) -> Outcome:
        """The answer where no time was left to find one."""
        return Outcome(Verdict.UNKNOWN, "timeout", seconds=self.seconds)


def verify(
    network: Network, specification: Specification, options: VerifyOptions, certificates: Certificates | None = None
) -> Outcome:
    """Does a property hold?

    Args:
        network: The network.
        specification: The property: cases that would be unsafe, each a region of inputs and conditions on outputs.
            Without any case it holds, whatever the network is, and there is nothing to prove.
        options: With what effort. The time limit counts what prepares the search, too.
        certificates: Where proofs are written, if an outcome that holds is to have them.

    Returns:
        HOLDS if every case is impossible, VIOLATED with the first counterexample found, and else UNKNOWN with the
        reason.

    Raises:
        InputError: The specification does not fit the network, or the options are none.

    Sound: yes. What holds is proven, a counterexample was replayed in the original model.
    Complete: with method `auto` and enough time, for ReLUs and leaky ReLUs, and wherever few inputs vary, but for
        margins of exactly zero, which are decided for small networks of ReLUs, leaky ReLUs and maxima.
    """
    check_fit(network, specification)
    return _verify([Pair((network,), specification)], options, certificates)


def _verify(
    pairs: Iterable[Pair],
    options: VerifyOptions,
    certificates: Certificates | None,
) -> Outcome:
    """The answer about specifications, each of a network, that hold if all of them do."""
    check_options(options)
    clock = Clock(options.seconds)
    outcomes: list[Outcome] = []
    for pair in pairs:
        outcomes += _outcomes(pair, options, certificates, clock)
        if any(outcome.verdict is Verdict.VIOLATED for outcome in outcomes):
            break
    if not outcomes:
        return Outcome(Verdict.HOLDS, EMPTY, seconds=clock.seconds)
    return replace(combine(outcomes, clock.seconds), system=outcomes[0].system)  # proofs are of one pair


def _outcomes(pair: Pair, options: VerifyOptions, certificates: Certificates | None, clock: Clock) -> list[Outcome]:
    """What came of the questions of a specification: of all, or of those until one counterexample."""
    plan, networks, specification = check_options(options), pair.networks, pair.specification
    network = networks[0]
    if not specification.cases:
        return []
    proofs = options.proofs or certificates is not None
    outcomes: list[Outcome] = []

    system: System | None = None

    def report(index: int, outcome: Outcome) -> None:
        outcomes.append(replace(_whole(outcome, specification), system=system))
        if outcome.verdict is Verdict.VIOLATED:
            raise _Enough

    def found(index: int, outcome: Outcome) -> None:
        if outcome.verdict is Verdict.VIOLATED:
            report(index, outcome)

    exact = Settled(specification)
    try:
        if not proofs:  # certificates are about closures
            exact, reason = _without_impossible(pair, options, clock)
            specification = exact.specification
            if exact.certain:
                report(0, Outcome(Verdict.VIOLATED, reason, seconds=clock.seconds, counterexample=exact.found))
            if not specification.cases:
                return [Outcome(Verdict.HOLDS, reason, seconds=clock.seconds)]
        questions = about_specification(network, specification, clock.check)
        if len(networks) > 1:

            def attack() -> None:
                decide(network, questions, Plan((Attack(),)), found, clock.left(), options.device,
                       deterministic=options.deterministic)  # fmt: skip

            with counted(options.deterministic):
                network = best_of(networks, questions, options.device, clock.left(), attack)
    except _Enough:
        return outcomes
    except OutOfTime:
        return [clock.timeout()]
    if exact.found is not None:  # real numbers break the property, and perhaps numbers of the model's type as well
        plan = ATTACKS
    required = None
    system = _stated(pair, network) if proofs else None
    if certificates is not None:
        required, plan = certificates.required_margins(questions, system), certificates.provable(plan, system)
    with suppress(_Enough):
        left = options.timeout if options.deterministic else clock.left()
        decide(network, questions, plan, report, left, options.device, None, proofs, required, options.deterministic)
        if exact.found is not None:
            report(0, Outcome(Verdict.VIOLATED, _REAL, seconds=clock.seconds, counterexample=exact.found))
    return outcomes


def _without_impossible(pair: Pair, options: VerifyOptions, clock: Clock) -> tuple[Settled, str]:
    """The specification without the cases that are impossible by what is known at once; or what settles it, and why the
    last of the cases is impossible. Raises OutOfTime."""
    network = pair.networks[0]
    known = typed(network, closed(network, pair.specification), clock.check)
    if known.certain:
        return known, EXACT
    known, reason = Settled(without_excluded(network, known.specification, clock.check)), "interval"
    if options.method != "auto":
        return known, reason
    if known.specification.cases:
        left = without_contradictions(network, known.specification, pair.links, _WORK, clock.check)
        known = replace(known, specification=left)
        reason = EXACT
    if known.specification.cases:
        known = settled(network, known.specification, _WORK, clock.check, pair.factors)
    limited = any(isinstance(node.op, Within) for node in network.nodes)  # whose slopes are not those of the model
    if known.specification.cases and pair.copies is not None and known.found is None and not limited:
        reason = ORDER
        left = without_ordered(
            pair.copies, known.specification, clock.check, clock.left(), options.device, options.deterministic
        )
        known = replace(known, specification=left)
    return known, reason


def _stated(pair: Pair, network: Network) -> System | None:
    """What certificates call the networks of a specification, of which the proofs are about this one; None for one
    network with an input and an output."""
    if not pair.parts:
        return None
    return system_of(pair.parts, pair.specification, network is not pair.networks[0])


def _whole(outcome: Outcome, specification: Specification) -> Outcome:
    """The outcome with a counterexample that has every input that is declared."""
    found, places = outcome.counterexample, specification.places
    if found is None or places is None:
        return outcome
    exact = {i: found.exact[place] for i, place in enumerate(places) if place in found.exact}
    return replace(outcome, counterexample=replace(found, x=specification.given(found.x), exact=exact))


def verify_file(
    query: Path,
    files: Files,
    load: Load,
    options: VerifyOptions,
    certificates: Certificates | None = None,
) -> tuple[Specification | None, Outcome]:
    """As `verify`, for the property in a file, about the networks in `files`, by the names that it has for them: None
    where there is but one. `load` reads that where the property is about its one input and its one output. It is
    told whether the property only compares outputs: then the scores before a head will do.

    Reading counts against the limit of time; if it took all of that, there is no specification. Raises InputError for
    what cannot be read, and for declarations that a network does not match.
    """
    check_options(options)
    clock = Clock(options.seconds)
    try:
        specification = read_vnnlib(query, clock.check)
    except OutOfTime:
        return None, clock.timeout()
    try:
        found = matched(specification, files)
    except InputError as error:
        raise type(error)(f"{query}: {error}") from error
    if specification.terms is not None and certificates is not None and certificates.executed:
        raise UnsupportedError(f"{query}: {_NO_CERTIFICATE}; leave --semantics out")
    try:
        with watched(lambda: clock.over(_GLANCE)):
            if specification.terms is None:
                network = load(found[specification.network], specification.compares)
            else:
                pairs = list(coupled(specification, found, clock.check, options.proofs or certificates is not None))
    except OutOfTime:
        return specification, clock.timeout()
    networks = [network] if specification.terms is None else [pair.networks[0] for pair in pairs]
    for each in networks if certificates is not None else ():
        check_proven(each, f"{query}: ")
    left = options.timeout if options.deterministic else clock.left()
    options = replace(options, timeout=left)
    if specification.terms is not None:
        return specification, _verify(pairs, options, certificates)
    _check_labels(query, found[specification.network], specification, network)
    try:
        check_fit(network, specification)
    except InputError as error:
        raise InputError(f"{query}: {error}") from error
    return specification, verify(network, specification, options, certificates)


def _check_labels(query: Path, model: Path, specification: Specification, network: Network) -> None:
    """Raises InputError if the network's input and output have other names than a specification says."""
    if specification.labels == (None, None):
        return
    graph = read_model(model)[0].graph
    constants = {constant.name for constant in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in constants]
    outputs = [network.output] if network.output else [value.name for value in graph.output]
    for declared, own in zip(specification.labels, (inputs, outputs), strict=True):
        if declared is not None and [declared] != own:
            raise InputError(f"{query}: declares {declared!r}, but the network calls it {own[0]!r}; correct the name")


class _Enough(Exception):
    """One counterexample answers the whole specification."""
