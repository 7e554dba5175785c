"""Groups cost no more than a network affords, and where it affords all of them nothing changes."""

from __future__ import annotations

import torch

from krelax.activations import Activation, ReLU, Sigmoid
from krelax.bounds import thrift
from krelax.bounds.methods import METHODS
from krelax.bounds.optimise import WORK
from krelax.network.graph import Builder, Network
from krelax.network.linear import Dense

PAIRS = METHODS["krelu"].multi_neuron[0]
assert PAIRS.grouping is not None
assert PAIRS.inner is not None


def dense(op: Activation, layers: int, width: int) -> tuple[Network, dict[int, int]]:
    """A network, and all its neurons as candidates."""
    builder, node = Builder((width,)), 0
    for _ in range(layers):
        node = builder.add(op, builder.add(Dense(torch.eye(width).double(), torch.zeros(width).double()), node))
    network = builder.build(node)
    return network, dict.fromkeys(network.activations(), width)


def within(op: Activation, layers: int, width: int) -> tuple[int, float]:
    """How many neurons of a layer are grouped, and what that costs against what is affordable."""
    network, candidates = dense(op, layers, width)
    assert PAIRS.grouping is not None
    grouping = thrift.grouping_within(network, candidates, PAIRS.grouping, PAIRS.inner, PAIRS.combinations)
    work = thrift._work(network, candidates, grouping, PAIRS.inner, PAIRS.combinations)
    return grouping.neurons, work / (thrift._TIMES * WORK)


def test_networks_that_afford_all_groups_have_them() -> None:
    assert within(ReLU(), 9, 100)[0] == 60
    assert within(Sigmoid(), 2, 50)[0] == 60


def test_deep_networks_of_curves_have_fewer() -> None:
    neurons, share = within(Sigmoid(), 6, 200)
    assert 8 <= neurons < 60
    assert share <= 1
    assert within(Sigmoid(), 12, 200)[0] <= neurons


def test_other_settings_stay() -> None:
    network, candidates = dense(Sigmoid(), 6, 200)
    assert PAIRS.grouping is not None
    grouping = thrift.grouping_within(network, candidates, PAIRS.grouping, PAIRS.inner, PAIRS.combinations)
    assert (grouping.size, grouping.overlap) == (PAIRS.grouping.size, PAIRS.grouping.overlap)


def test_ascents_between_groups_are_shortened_where_steps_are_dear() -> None:
    assert PAIRS.inner is not None
    assert thrift.inner_within(dense(ReLU(), 9, 100)[0], PAIRS.inner) == PAIRS.inner
    wide = dense(ReLU(), 12, 2000)[0]
    assert 4 <= thrift.inner_within(wide, PAIRS.inner).steps < PAIRS.inner.steps
