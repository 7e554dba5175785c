"""The networks that a specification names, as one network for each way in which their inputs are tied together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from krelax.bounds.instance import Instance, OutOfTime, chunk_images
from krelax.bounds.methods import METHODS, bound
from krelax.errors import InputError
from krelax.network.difference import identical
from krelax.network.graph import Network
from krelax.network.onnx_joint import Given, Model, Part, alone, apart, joint
from krelax.problem.exact import Limit, enclosure
from krelax.problem.files import Files
from krelax.problem.interface import Declared, Kind, Variable, check_tensor
from krelax.problem.quadrics import Quadric
from krelax.problem.query import Case, Monomial, Specification, merged
from krelax.problem.region import Box
from krelax.search.inconsistent import Link
from krelax.search.ordered import Copies, Copy
from krelax.search.polynomial import Factors
from krelax.search.processes import out_of_memory
from krelax.search.questions import Questions
from krelax.search.race import fastest

# Networks are compared by the first questions, so many of them, in such a part of the time.
_MOST_COMPARED, _PART = 16, 0.1
# And never for longer than this.
_SECONDS = 5.0
# Larger balls are none: float64 holds little more.
_LARGEST = 2**1000


class Pair(NamedTuple):
    """A specification, and networks that are the same function, about any of which it is; the factors of the products
    that are their outputs, if any are, the copies of one network that there are, if there are several, and which values
    are activations of others; and the uses of models that the networks are made of, if they are made of several, or of
    several tensors."""

    networks: tuple[Network, ...]
    specification: Specification
    factors: Factors | None = None
    copies: Copies | None = None
    links: tuple[Link, ...] = ()
    parts: tuple[Part, ...] = ()


def coupled(
    specification: Specification, files: Files, check: Callable[[], None], proofs: bool = False
) -> Iterator[Pair]:
    """The networks of a specification as one, with the specification of that, for each way in which inputs are equal.

    Two networks of one structure come in two ways: side by side, and by what they differ by. Every unsafe case is one
    of those of one of the pairs, and the specification holds if all of these do. For `proofs` there is one pair: inputs
    are one if they are equal in all cases. Raises InputError for models that cannot be used, or are not as they are
    declared.
    """
    models: dict[Path, Model] = {}
    for path in files.values():
        if path not in models:
            check()
            models[path] = Model.read(path)
    parts = [_part(network, models[files[network.name]]) for network in specification.networks]
    functions = _functions(specification.networks, parts, check)
    groups: dict[tuple[int, ...] | None, list[Case]] = defaultdict(list)
    common = _common(specification.cases) if proofs else None
    for case in specification.cases:
        groups[common if proofs else case.equal].append(replace(case, equal=common) if proofs else case)
    for cases in groups.values():
        check()
        each = [pair for case in cases if (pair := merged(case)) is not None]
        if not each:
            continue
        terms, places = specification.terms or (), each[0][1]  # the same for all, whose equal inputs are the same
        network, results = joint(parts, places, terms)
        _check_values(specification, results)
        values = _copies(specification.networks, parts, functions, places, proofs)
        found = [kept for case, _ in each if (kept := _without_copies(case, terms, places, values)) is not None]
        balls = [] if proofs else [_in_ball(case, terms, places) for case in found]
        if balls and all(case.around is not None for case in balls):
            found = balls
        if found:
            about = replace(specification, inputs=len(found[0].lower), cases=tuple(found), places=tuple(places))
            check()
            other = apart(parts, places, terms)
            networks = (network,) if other is None else (network, other)
            copies, links = _copies_of(functions, places), tuple(_links(specification.networks, parts))
            yield Pair(networks, about, _factors(parts, places, terms), copies, links, tuple(parts))


def _common(cases: Sequence[Case]) -> tuple[int, ...] | None:
    """For every input the first one that it equals in all cases; None if none does."""
    if not cases or any(case.equal is None for case in cases):
        return None
    first: dict[tuple[int, ...], int] = {}
    equal = zip(*(case.equal for case in cases if case.equal is not None), strict=True)
    return tuple(first.setdefault(each, i) for i, each in enumerate(equal))


def _factors(parts: Sequence[Part], places: Sequence[int], terms: Sequence[Monomial]) -> Factors | None:
    """What terms are products of, if some are."""
    if all(len(term) == 1 for term in terms):
        return None
    codes = tuple(sorted({code for term in terms for code in term}))
    return Factors(joint(parts, places, [(code,) for code in codes])[0], codes)


@dataclass(frozen=True, eq=False)
class _Function:
    """A declared network: its number among different functions, itself over its own `size` inputs, the number of the
    first of these among all inputs, and that of the first of its values."""

    number: int
    part: Part
    size: int
    base: int
    first: int

    @cached_property
    def network(self) -> Network:
        """All its values, of its own inputs."""
        return alone(self.part, range(self.size))

    def given(self, places: Sequence[int]) -> tuple[int, ...]:
        """The places of its inputs."""
        return tuple(places[self.base : self.base + self.size])


def _functions(networks: Sequence[Declared], parts: Sequence[Part], check: Callable[[], None]) -> list[_Function]:
    """The declared networks, those that are the same function with the same number: of one file, or of files that only
    differ in names."""
    found: list[_Function] = []
    first = 0
    for network, part in zip(networks, parts, strict=True):
        inputs, values = network.of(Kind.INPUT), network.of(Kind.HIDDEN, Kind.OUTPUT)
        base = inputs[0].start
        own = replace(part, columns={name: start - base for name, start in part.columns.items()})
        new = _Function(len(found), own, sum(v.size for v in inputs), base, first)
        check()
        found.append(next((replace(new, number=old.number) for old in found if _is_same(old, new)), new))
        first += sum(v.size for v in values)
    return found


def _is_same(one: _Function, other: _Function) -> bool:
    a, b = one.part, other.part
    if a.model is b.model:
        return (a.columns, a.values) == (b.columns, b.values)
    alike = one.size == other.size and len(a.values) == len(b.values)
    return alike and a.model.nodes == b.model.nodes and identical(one.network, other.network)


def _copies_of(functions: Sequence[_Function], places: Sequence[int]) -> Copies | None:
    """How networks are used, if one of them is more than once."""
    of = {function.number: function for function in reversed(functions)}
    if len(of) == len(functions):
        return None
    uses = tuple(Copy(f.number, f.given(places), f.first) for f in functions)
    return Copies(uses, lambda number: of[number].network)


def _links(networks: Sequence[Declared], parts: Sequence[Part]) -> Iterator[Link]:
    """Values that are activations of other values of the same network."""
    first = 0
    for network, part in zip(networks, parts, strict=True):
        starts = dict[str, int]()
        variables = network.of(Kind.HIDDEN, Kind.OUTPUT)
        for variable, name in zip(variables, part.values, strict=True):
            starts.setdefault(name, first)
            first += variable.size
        sizes = {name: v.size for v, name in zip(variables, part.values, strict=True)}
        for operand, result, kind, leak in part.model.activations:
            if operand in starts and result in starts:
                yield Link(starts[operand], starts[result], sizes[result], kind, Fraction(leak))


def _without_copies(case: Case, terms: Sequence[Monomial], places: Sequence[int], values: Sequence[int]) -> Case | None:
    """The case without half-spaces that say nothing once equal inputs, and values, are one, such as that they are
    equal; None if one of them is never so."""
    kept = []
    for halfspace in case.halfspaces:
        sums: dict[Monomial, Fraction] = defaultdict(Fraction)
        for i, factor in halfspace.coefficients.items():
            sums[tuple(sorted(_first(code, places, values) for code in terms[i]))] += factor
        if any(sums.values()):
            kept.append(halfspace)
        elif not halfspace.holds_exactly(dict.fromkeys(halfspace.coefficients, Fraction(0))):
            return None
    return replace(case, halfspaces=tuple(kept))


def _in_ball(case: Case, terms: Sequence[Monomial], places: Sequence[int]) -> Case:
    """The case around a point, without the half-space that says so of all inputs that vary, if there is one."""

    def monomial(term: int) -> Monomial:
        return tuple(2 * places[code // 2] if code % 2 == 0 else code for code in terms[term])

    for halfspace in case.halfspaces:
        quadric = Quadric.of(halfspace, monomial)
        if quadric is None or (radius := quadric.radius) is None:
            continue
        fixed = (case.lower == case.upper).tolist()
        if not all(fixed[i] or i in quadric.centre for i in range(len(fixed))):
            continue
        exact = [quadric.centre.get(i, Fraction(float(case.lower[i]))) for i in range(len(fixed))]
        if max(map(abs, (*exact, radius))) > _LARGEST:
            continue
        centre = np.array([float(v) for v in exact])
        if not bool(((case.lower <= centre) & (centre <= case.upper)).all()):
            continue
        radius += sum((abs(v - Fraction(float(c))) for v, c in zip(exact, centre, strict=True)), Fraction(0))
        outward = float(enclosure([Limit.of(radius)]).up[0])
        rest = tuple(other for other in case.halfspaces if other is not halfspace)
        return replace(case, halfspaces=rest, around=(centre, outward))
    return case


def _first(code: int, places: Sequence[int], values: Sequence[int]) -> int:
    """The code of the variable that one is a copy of, among those that are none."""
    return 2 * (values if code % 2 else places)[code // 2] + code % 2


def _copies(
    networks: Sequence[Declared],
    parts: Sequence[Part],
    functions: Sequence[_Function],
    places: Sequence[int],
    proofs: bool,
) -> list[int]:
    """For every value of networks the first one that it is the same as: that of the same file, or but for `proofs`,
    whose checker looks at files alone, of the same function, at the same inputs."""
    known: dict[object, int] = {}
    result: list[int] = []
    for network, part, function in zip(networks, parts, functions, strict=True):
        starts = zip(part.columns.items(), network.of(Kind.INPUT), strict=True)
        given = frozenset((name, tuple(places[start : start + v.size])) for (name, start), v in starts)
        for k, (variable, name) in enumerate(zip(network.of(Kind.HIDDEN, Kind.OUTPUT), part.values, strict=True)):
            keys: tuple[object, ...] = ((part.model.path, given, name), (function.number, function.given(places), k))
            keys = keys[:1] if proofs else keys
            first = next((known[key] for key in keys if key in known), len(result))
            known |= {key: known.get(key, first) for key in keys}
            result += range(first, first + variable.size)
    return result


def _part(network: Declared, model: Model) -> Part:
    """The use that a declared network makes of a model."""
    inputs, outputs = network.of(Kind.INPUT), network.of(Kind.OUTPUT)
    available = model.inputs if len(inputs) == len(model.inputs) else model.used
    names = _names(network, inputs, [given.name for given in available], model)
    columns = {}
    for variable, name in zip(inputs, names, strict=True):
        given = next(g for g in available if g.name == name)
        check_tensor(variable, given.shape, given.element)
        columns[name] = variable.start
    left = [given.name for given in model.used if given.name not in columns]
    if left:
        raise InputError(f"{model.path}: its input {left[0]!r} is not declared in {network.name}; declare all inputs")
    results = dict(zip([v.name for v in outputs], _names(network, outputs, model.outputs, model), strict=True))
    for variable in network.of(Kind.HIDDEN):
        results[variable.name] = model.tensor(variable.label or "")
    return Part(model, columns, tuple(results[v.name] for v in network.of(Kind.HIDDEN, Kind.OUTPUT)))


def _names(network: Declared, variables: list[Variable], own: list[str], model: Model) -> list[str]:
    """What the file calls variables: their labels, or its own names in order."""
    kind = f"{variables[0].kind}s"
    if any(v.label is not None for v in variables):
        names = [v.label or "" for v in variables]
        unknown = [name for name in names if name not in own]
        if unknown or len(set(names)) < len(names):
            what = f"no {kind[:-1]} {unknown[0]!r}" if unknown else f"two variables for one of its {kind}"
            raise InputError(f"{model.path}: has {what}, only {', '.join(map(repr, own))}; correct the name")
        return names
    if len(own) != len(variables):
        raise InputError(
            f"{model.path}: has {len(own)} {kind} ({', '.join(own)}), but {network.name or 'the specification'} "
            f"declares {len(variables)}; declare all of them, in the order of the file"
        )
    return own


def _check_values(specification: Specification, values: list[Given]) -> None:
    """Raises InputError for values that are not of the declared shapes and types."""
    declared = [v for network in specification.networks for v in network.of(Kind.HIDDEN, Kind.OUTPUT)]
    for variable, value in zip(declared, values, strict=True):
        check_tensor(variable, value.shape, value.element)


def best_of(
    networks: Sequence[Network],
    questions: Questions,
    device: str,
    seconds: float | None,
    attack: Callable[[], None] = lambda: None,
) -> Network:
    """Of networks that are the same function the one that the questions are best asked of, found in a part of the time.

    Where networks differ little, what they differ by is bounded best, and where they differ much, each of them is. So
    it is the first one whose closed-form bounds settle the first questions; then the one that boxes decide small parts
    of the first question about faster; and where they decide none, the one with the best closed-form bounds. Before
    boxes, which may be in vain, comes an `attack`, whose exceptions are raised.
    """
    seconds = _SECONDS if seconds is None else min(_SECONDS, _PART * seconds)
    scores = _scores(networks, questions, device, seconds)
    if max(scores) < 0:
        attack()
        region = questions.region.select(torch.arange(1)).to(torch.float64, device)
        queries = questions.queries.select(torch.arange(1)).to(torch.float64, device)
        if isinstance(region, Box) and (found := fastest(networks, region, queries, seconds)) is not None:
            return found
    return networks[scores.index(max(scores))]


def _scores(networks: Sequence[Network], questions: Questions, device: str, seconds: float) -> list[float]:
    """The sum of the negative margins of the first questions by closed-form bounds about each network, up to the first
    that has none."""
    method, scores = METHODS["crown"], list[float]()
    sizes = (chunk_images(network, method.copies, torch.device(device)) for network in networks)
    few = torch.arange(max(1, min(len(questions), _MOST_COMPARED, *sizes)))
    queries = questions.queries.select(few).to(torch.float64, device)
    for network in networks:
        region = questions.shaped(network.input_shape).region.select(few).to(torch.float64, device)
        instance = Instance.of(network, region).until(seconds)
        score = -torch.inf
        try:
            with instance.watch():
                margins = queries.margin(bound(instance, queries, method).value)
            score = float(margins.clamp(max=0).nan_to_num(-torch.inf).sum())
        except OutOfTime:
            pass
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        scores.append(score)
        if score == 0:
            break
    return scores
