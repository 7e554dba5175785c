"""Functions of one number that exporters write as products of others are read as what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.network.cases import agrees
from tests.network.recognised import FORMS, form

from krelax.activations import TanhGELU
from krelax.network.graph import Network


def activations(network: Network) -> list[str]:
    return [type(network.activation(i)).__name__ for i in network.activations()]


@pytest.mark.parametrize("name", FORMS)
def test_they_are_read_as_what_they_are(name: str, tmp_path: Path) -> None:
    assert activations(agrees(form(name), tmp_path)) == FORMS[name][1]


def test_constants_of_the_file_are_not_exchanged_for_better_ones(tmp_path: Path) -> None:
    """They are those of float32, and the function is that of the file: to the digits of float64."""
    network = agrees(form("gelu of torch"), tmp_path)
    x = torch.linspace(-6, 6, 1000, dtype=torch.float64).reshape(-1, 1, 1).expand(-1, 2, 3)
    root = float(torch.tensor(2.0).sqrt())
    torch.testing.assert_close(network(x), x * torch.erfc(-x / root) / 2, rtol=1e-13, atol=0)
    away = (network(x) - torch.nn.functional.gelu(x)).abs().max()
    assert away > 1e-9


def test_the_tanh_form_is_known_near_its_constants_only() -> None:
    assert TanhGELU.near(0.795, 0.0447) is not None
    assert TanhGELU.near(0.75, 0.0447) is None
    assert TanhGELU.near(0.795, 0.05) is None
