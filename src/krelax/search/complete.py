"""Deciding one question: inputs and neurons are split until every part is closed or one holds a counterexample."""

from __future__ import annotations

from dataclasses import replace

import torch

from krelax.bounds.bounded import Bounded
from krelax.bounds.instance import Instance, OutOfTime
from krelax.bounds.seen import seen
from krelax.problem.queries import Queries
from krelax.search.bottleneck import Bottleneck
from krelax.search.clauses import pose
from krelax.search.descents import Descents
from krelax.search.effort import Complete, SearchResult
from krelax.search.inputs import Inputs
from krelax.search.margins import Confirm, Probe, Refuted
from krelax.search.neurons import Neurons
from krelax.search.programs import Programs
from krelax.search.schedule import Way, take_turns

# Why a search ends that would not have done in time.
OFF_COURSE = "off course"


def decide_question(
    instance: Instance,
    queries: Queries,
    found: Bounded,
    effort: Complete,
    confirm: Confirm,
    boxes: Inputs | None = None,
) -> SearchResult:
    """Decide one question about one region, of which `found` is known; `confirm` replays points `(n, *input_shape)`.
    `boxes` is a search that has begun.

    The margin is proven. Ends at the deadline of the instance with what it has then.
    """
    instance = replace(instance, seen=seen(instance.network, queries.rows))
    probe = Probe(instance, queries, effort.attack, confirm)
    try:
        posed = pose(instance, queries, found)
    except OutOfTime:
        return SearchResult(float(queries.margin(found.value)), "timeout", conclusion=found.conclusion())
    clauses = (posed.queries if found.joint else queries).clause_values(found.value)
    before = float(clauses.amin())
    descents = Descents(instance, queries, clauses[0] > 0, effort.attack, probe)
    ways: list[Way] = [descents]
    if "inputs" in effort.split and Inputs.able(instance):
        ways.append(boxes.joining(probe) if boxes else Inputs(instance, queries, effort.boxes, probe))
    if "bottleneck" in effort.split and (narrow := Bottleneck.of(instance, queries, effort.boxes, probe)):
        ways.append(narrow)
    if "programs" in effort.split:
        ways.append(Programs(posed, probe, descents.follow))
    if "neurons" in effort.split or len(ways) < 2:
        ways.append(Neurons(posed, effort, probe))
    with torch.no_grad():
        try:
            way, off_course = take_turns(ways, instance, effort.patience)
            best = replace(way.found, worst=max(each.found.worst for each in ways))
            best = replace(best, reason=OFF_COURSE) if off_course else best
        except Refuted as refuted:
            return SearchResult(before, "branching", refuted.found)
    return best if best.margin >= before else replace(best, margin=before, conclusion=found.conclusion())
