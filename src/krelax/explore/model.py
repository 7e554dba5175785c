"""A real network around one image: its layers, the groups of `krelu` and what each gained, and all methods."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from krelax.activations import Relaxation
from krelax.bounds.bounded import Bounded
from krelax.bounds.groups import Groups
from krelax.bounds.instance import Instance
from krelax.bounds.layers import LayerBounds
from krelax.bounds.methods import METHODS, bound
from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.problem.images import Images
from krelax.problem.queries import Queries
from krelax.problem.scaling import Scaling
from krelax.proof.choices import Shared
from krelax.search.around import Number
from krelax.search.attack import Attack, search
from krelax.search.questions import about_images

GROUPS_SHOWN = 60  # of a layer, those that gained most
_NEURONS_SHOWN = 1024  # of a layer
_PIXELS = 256  # along a side; larger images are not shown
_ATTACK = Attack(restarts=16, steps=60)


@dataclass(frozen=True, eq=False)
class Question:
    """Is one image classified as its label within eps?"""

    instance: Instance
    queries: Queries
    image: Tensor
    label: int
    words: dict[str, Any]
    pixels: Tensor


def ask(
    network: Network,
    images: Images,
    index: int,
    eps: Number,
    norm: str,
    clip: tuple[Number, Number] | None,
    name: str,
    scaling: Scaling | None = None,
) -> Question:
    """The question about image `index`, of which the network is given what `scaling` makes; `name` is what the page
    calls the network. InputError if there is no such image, or for what `about_images` refuses."""
    if index >= len(images):
        raise InputError(f"--index {index}: there are only {len(images)} images")
    one = Images(images.images[index : index + 1], images.labels[index : index + 1])
    questions = about_images(network, one, eps, norm, clip, scaling)
    words = {"name": name, "index": index, "eps": float(eps), "norm": norm}
    instance = Instance.of(network, questions.region)
    given = one.images if scaling is None else scaling.nearest(one.images, one.images.shape[1:])
    return Question(
        instance,
        questions.queries,
        torch.from_numpy(given[0]),
        int(one.labels[0]),
        words,
        torch.from_numpy(one.images[0]),
    )


def summary(question: Question) -> dict[str, Any]:
    """What can be said without any bound."""
    network = question.instance.network
    scores = network(question.image[None].double()).flatten()
    return question.words | {
        "label": question.label,
        "predicted": int(scores.argmax()),
        "classes": len(scores),
        "pixels": _pixels(question.pixels),
    }


def _pixels(image: Tensor) -> list[Any] | None:
    """Rows of grey values, or of red, green and blue, if the image looks like one."""
    while image.dim() > 3 and image.shape[0] == 1:
        image = image[0]
    if image.dim() == 3 and image.shape[0] in {1, 3}:
        image = image[0] if image.shape[0] == 1 else image.permute(1, 2, 0)
    if image.dim() not in {2, 3} or min(image.shape[:2]) < 2 or max(image.shape[:2]) > _PIXELS:
        return None
    pixels: list[Any] = (image.clamp(0, 1) * 255).round().int().tolist()
    return pixels


def layers(question: Question) -> dict[str, Any]:
    """Every activation with its neurons before groups (`alpha`) and with them (`krelu`), and the groups of each with
    what they gained for the worst margin."""
    alone, together = (bound(question.instance, question.queries, METHODS[m]) for m in ("alpha", "krelu"))
    worst = int(together.value[0].argmin())
    bounds = [float(f.value.min()) for f in (alone, together)]
    found = [_layer(alone.bounds, together, i, worst) for i in sorted(together.bounds.relaxations)]
    return {"layers": found, "bounds": bounds, "rival": _rival(question, worst)}


def _layer(before: LayerBounds, found: Bounded, node: int, query: int) -> dict[str, Any]:
    """The neurons of one activation, and its groups."""
    relaxations = before.relaxations[node], found.bounds.relaxations[node]
    neurons = {
        "neurons": relaxations[1].lower[0].numel(),
        "undecided": [int(r.unstable()[0].sum()) for r in relaxations],
        "states": _states(relaxations[1]),
    }
    return neurons | _groups(found, node, query)


def _states(relaxation: Relaxation) -> str:
    """A letter for each neuron: undecided, active, or passive; of anything but ReLUs only whether it is undecided."""
    unstable = relaxation.unstable()[0].flatten().tolist()[:_NEURONS_SHOWN]
    active = (relaxation.lower[0] >= 0).flatten().tolist()
    return "".join("u" if u else "a" if on else "p" for u, on in zip(unstable, active, strict=False))


def _groups(found: Bounded, node: int, query: int) -> dict[str, Any]:
    """The groups of one activation: how many, what they gained together, and the best of them, best first, each with
    its members, its gain and what is known of it."""
    step, count, total, best = found.witness.get(node), 0, 0.0, []
    if step is not None and node in found.bounds.groups:
        for groups, shared in zip(
            found.bounds.groups[node], step.choices(0, found.tapes.get(node)).groups, strict=True
        ):
            if not isinstance(shared, Shared):  # of whole products
                continue
            gained = gains(groups, shared, found.bounds, node, query)
            count, total = count + len(gained), total + float(gained.sum())
            shown = GROUPS_SHOWN if groups.joint.negative_slopes else 0  # the page draws what has linear pieces
            order = gained.argsort(descending=True)[:shown].tolist()
            best += [_group(groups, g, float(gained[g])) for g in order]
    return {"count": count, "gained": total, "groups": best}


def _group(groups: Groups, place: int, gain: float) -> dict[str, Any]:
    return {
        "members": groups.members[0, place].tolist(),
        "gain": gain,
        "bounds": groups.joint.bounds[0, place].tolist(),
        "slopes": list(groups.joint.negative_slopes),
    }


def gains(groups: Groups, shared: Shared, bounds: LayerBounds, node: int, query: int) -> Tensor:
    """By how much each group's price is below that of its members' relaxations, with the slopes and coefficients that
    the witness of one query chose: `(groups,)`, never negative but for rounding."""
    coeff, slope = (torch.from_numpy(t[query]).double() for t in (shared.coeff, shared.slope))  # (groups, k)
    joint = groups.joint.support(*(t[None, ..., None] for t in (slope, coeff))).value[0, :, 0]
    relaxation = bounds.relaxations[node]
    lower, upper = (t[0].flatten()[groups.members[0]] for t in (relaxation.lower, relaxation.upper))
    each = relaxation.over(lower[None], upper[None]).support(slope[None, None], coeff[None, None])
    return each.value[0, 0].sum(-1) - joint


def _rival(question: Question, query: int) -> int:
    """The other class of a margin."""
    return int(question.queries.rows[0, query].argmin())


def ladder(question: Question) -> Iterator[dict[str, Any]]:
    """Each method's bound of the worst margin, the seconds it took and the neurons that it leaves undecided."""
    for name, method in METHODS.items():
        began = time.perf_counter()
        found = bound(question.instance, question.queries, method)
        seconds = time.perf_counter() - began
        undecided = sum(int(r.unstable().sum()) for r in found.bounds.relaxations.values())
        yield {"method": name, "bound": float(found.value.min()), "seconds": seconds, "undecided": undecided}


def attacked(question: Question) -> float:
    """The smallest margin that an attack reaches: no bound can be above it."""
    _, margin = search(question.instance, question.queries.to(question.instance.fast_network.dtype), _ATTACK)
    return float(margin[0])
