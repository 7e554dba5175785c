"""Regions of normalised inputs, and of inputs with radii of their own, are exactly what is asked about."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.run.files import random_dense, save

from krelax.elements import FLOAT32
from krelax.errors import InputError, UnsupportedError
from krelax.network.onnx import load_onnx
from krelax.problem.images import Images
from krelax.problem.scaling import Scaling
from krelax.run.certificates import Certificates
from krelax.run.certify import CertifyOptions, certify
from krelax.search.around import Around

RNG = np.random.default_rng(0)
IMAGES = RNG.random((3, 1, 2, 2, 3), dtype=np.float32)
CLIP = (Fraction(0), Fraction(1))
SCALING = Scaling(tuple(map(Fraction, ("0.485", "0.456", "0.406"))), tuple(map(Fraction, ("0.229", "0.224", "0.225"))))
ONE = Scaling((Fraction("0.1307"),), (Fraction("0.3081"),))


def truth(around: Around, i: int, x: np.ndarray) -> bool:
    """The same by fractions alone."""
    scaling = around.scaling or Scaling((Fraction(0),), (Fraction(1),))
    channels = scaling.channels(around.shape).flatten()
    steps = []
    for j, (own, given) in enumerate(zip(around.images[i].flatten(), x.flatten(), strict=True)):
        mean, std = scaling.numbers(int(channels[j]))
        pixel = Fraction(float(given)) * std + mean
        if around.ends and not around.ends[0] <= pixel <= around.ends[1]:
            return False
        steps.append(abs(pixel - Fraction(float(own))))
    radius = around.radii[i]
    if isinstance(radius, tuple):
        return all(step <= r for step, r in zip(steps, radius, strict=True))
    size = {"linf": max(steps), "l1": sum(steps), "l2": sum(s * s for s in steps)}[around.norm]
    return size <= (radius**2 if around.norm == "l2" else radius)


CASES = [
    ("linf", None, Fraction(8, 255)), ("linf", SCALING, Fraction(8, 255)), ("linf", ONE, Fraction(1, 3)),
    ("l2", ONE, Fraction(1, 5)), ("l1", ONE, Fraction(1, 5)), ("l2", None, Fraction(1, 5)),
    ("linf", SCALING, tuple(Fraction(i % 3 + 1, 40) for i in range(12))),
    ("linf", None, tuple(Fraction(i % 3, 40) for i in range(12))),
]  # fmt: skip


@pytest.mark.parametrize("clip", [None, CLIP])
@pytest.mark.parametrize(("norm", "scaling", "radius"), CASES)
def test_membership_is_exact_and_enclosed(norm: str, scaling: Scaling | None, radius: object, clip: object) -> None:
    around = Around(IMAGES, (radius,) * 3, norm, clip, scaling)  # type: ignore[arg-type]
    region = around.region()
    inside = 0
    for i in range(3):
        width = (region.upper[i] - region.lower[i]).numpy()
        for share in (0.1, 0.35, 1.0, 1.0, 1.1):
            start = around.given()[i].astype(np.float64)
            x = start + RNG.uniform(-share, share, start.shape) * width / 2
            if share == 1.0:
                corner = RNG.random(start.shape) < 0.5
                x = np.where(corner, region.lower[i].numpy(), region.upper[i].numpy())
            point = around.nearest(i, x, FLOAT32)
            if point is None:
                continue
            assert truth(around, i, point)
            for y in (point, np.nextafter(point, np.float32(9)), x.astype(np.float32)):
                assert around.contains(i, y) == truth(around, i, y)
                if truth(around, i, y):
                    inside += 1
                    one = torch.from_numpy(y).double()
                    assert bool(((region.lower[i] <= one) & (one <= region.upper[i])).all())
                    form = torch.from_numpy(RNG.normal(size=(3, 1, *y.shape)))
                    value = (form[:, 0] * one).flatten(1).sum(1)
                    assert bool((region.minimise(form)[i] <= value[i] + 1e-12).all())
    assert inside > 5


def test_normalised_inputs_hold_as_a_network_with_the_normalisation_does(tmp_path: Path) -> None:
    """The same images, once normalised by an affine layer of the network and once by the scaling: verdicts agree, and
    certificates are accepted, whose network is the file's own."""
    plain = load_onnx(save(random_dense([4, 8, 3], seed=3), tmp_path / "net.onnx"))
    scaling = Scaling((Fraction(1, 4),), (Fraction(1, 2),))
    module = torch.nn.Linear(4, 4)
    with torch.no_grad():
        module.weight.copy_(2 * torch.eye(4))
        module.bias.fill_(-0.5)
    images = RNG.random((20, 1, 4), dtype=np.float32)
    given = scaling.nearest(images, (1, 4))
    np.testing.assert_allclose(given, module(torch.from_numpy(images)).detach().numpy(), rtol=1e-6)
    labels = plain(torch.from_numpy(given).double())[:, 0].argmax(1).numpy()
    eps = Fraction(1, 20)
    half = CertifyOptions(eps, timeout=20.0, scaling=scaling)
    proofs = Certificates(tmp_path / "proofs", tmp_path / "net.onnx", check=True)
    scaled = certify(plain, Images(images, labels), range(20), half, certificates=proofs)
    wide = CertifyOptions(2 * eps, clip=(-0.5, 1.5), timeout=20.0)
    direct = certify(plain, Images(given, labels), range(20), wide)
    assert scaled.verdicts == direct.verdicts
    assert len(set(scaled.verdicts.values())) == 2


def test_a_scaling_that_does_not_fit() -> None:
    with pytest.raises(InputError, match="std must be positive"):
        Scaling((Fraction(0),), (Fraction(0),))
    with pytest.raises(InputError, match="of 3 channels, which are no axis of \\[1, 28, 28\\]"):
        SCALING.channels((1, 28, 28))
    with pytest.raises(InputError, match="may be at either end of \\[3, 5, 3\\]; give"):
        SCALING.channels((3, 5, 3))
    with pytest.raises(InputError, match="2 means and 3 stds"):
        Scaling(SCALING.mean[:2], SCALING.std).channels((3, 4, 4))
    with pytest.raises(UnsupportedError, match="ellipsoids"):
        Around(IMAGES, (Fraction(1),) * 3, "l2", None, SCALING)
    with pytest.raises(InputError, match="11 radii for 12 inputs"):
        Around(IMAGES, ((Fraction(1),) * 11,) * 3)
