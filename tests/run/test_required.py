"""Bounds that must be above more than zero, so that what they prove is true of float32 executions, too."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from krelax.bounds.methods import METHODS
from krelax.network.onnx import load_onnx
from krelax.problem.images import Images
from krelax.run.certificates import Certificates
from krelax.search.effort import Complete
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import Questions, about_images
from krelax.search.verdict import Outcome, Verdict

DATA = Path(str(files("krelax") / "data"))
MODEL = DATA / "digits_dense.onnx"


def questions(eps: float = 0.01) -> Questions:
    data, network = np.load(DATA / "digits_test.npz"), load_onnx(MODEL)
    images = (data["images"][:2] / 255.0).astype(np.float32).reshape(2, *network.input_shape)
    return about_images(network, Images(images, data["labels"][:2]), eps, "linf", (0.0, 1.0))


def decided(asked: Questions, required: torch.Tensor | None, *more: Complete) -> list[Outcome]:
    outcomes: dict[int, Outcome] = {}
    decide(
        load_onnx(MODEL),
        asked,
        Plan((METHODS["crown"], *more)),
        outcomes.__setitem__,
        4,
        proofs=True,
        required=required,
    )
    return [outcomes[i] for i in range(2)]


def test_what_holds_is_bounded_above_the_required_margin() -> None:
    asked = questions()
    margins = [o.margin for o in decided(asked, None)]
    assert min(margins) > 0  # type: ignore[type-var]
    required = torch.tensor([margins[0] / 2, 2 * margins[1]])  # type: ignore[operator]
    enough, too_little = decided(asked, required)
    assert [(o.verdict, o.reason) for o in (enough, too_little)] == [
        (Verdict.HOLDS, "crown"),
        (Verdict.HOLDS, "narrowly"),
    ]
    assert enough.margin == pytest.approx(margins[0])
    assert too_little.margin == pytest.approx(margins[1])
    assert not enough.proofs[0].offsets.any()  # what is asked stays what it was


def test_what_a_search_gives_up_holds_narrowly_too() -> None:
    """The required margin is out of reach: the search ends at its time limit, below it but above zero."""
    asked = questions()
    for outcome in decided(asked, torch.full((2,), 1e3), Complete()):
        assert (outcome.verdict, outcome.reason) == (Verdict.HOLDS, "narrowly")
        assert outcome.margin is not None
        assert outcome.margin > 0


def test_what_is_not_bounded_above_zero_stays_open() -> None:
    assert all(o.verdict is Verdict.UNKNOWN for o in decided(questions(0.2), torch.full((2,), 0.01)))


def test_proofs_about_float32_require_margins_and_others_next_to_none(tmp_path: Path) -> None:
    asked = questions()
    for_real = Certificates(tmp_path, MODEL).required_margins(asked)
    assert for_real is not None
    assert ((for_real > 0) & (for_real < 1e-8)).all()
    required = Certificates(tmp_path, MODEL, semantics="float32").required_margins(asked)
    assert required is not None
    assert required.shape == (2,)
    assert ((required > 1e-3) & (required < 0.1)).all()


def test_networks_that_the_checker_does_not_read_have_no_required_margins(tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(b"no network")
    assert Certificates(tmp_path, tmp_path / "other.onnx", semantics="float32").required_margins(questions()) is None
