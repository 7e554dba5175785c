"""One call takes what people have, and says in one line what does not fit."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.run.files import random_dense, save, specification
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import krelax
from krelax.api.taking import number, one_or_each
from krelax.run.certify import CertifyOptions
from krelax.run.certify import certify as long_way

torch.manual_seed(0)
MODEL = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
X = np.random.default_rng(0).random((30, 4), dtype=np.float32)
Y = MODEL(torch.from_numpy(X)).argmax(1).numpy()
EPS = Fraction(1, 10)


@cache
def network() -> krelax.Network:
    """The model captured once, which takes longer than most of what is asked about it."""
    return krelax.from_torch(MODEL, torch.zeros(1, 4))


def ways(folder: Path) -> dict[str, tuple[Any, Any, Any]]:
    """The same question, asked in as many ways."""
    np.savez(folder / "data.npz", images=X, labels=Y)
    data = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    return {
        "arrays": (MODEL, X, Y),
        "tensors": (MODEL, torch.from_numpy(X).requires_grad_(), torch.from_numpy(Y)),
        "lists": (network(), X.astype(float).tolist(), Y.tolist()),
        "one-hot": (network(), X, np.eye(3)[Y]),
        "loader": (MODEL, DataLoader(data, batch_size=7), None),
        "network": (network(), X, Y),
        "file": (network(), folder / "data.npz", None),
        "double": (nn.Sequential(*MODEL).eval(), X.astype(np.float64), Y.astype(np.uint8)),
    }


def test_every_way_gives_the_same_verdicts(tmp_path: Path) -> None:
    images = krelax.Images(X[:, None], Y)
    wanted = long_way(network(), images, range(30), CertifyOptions(EPS)).verdicts
    assert set(wanted.values()) == {"holds", "violated"}
    for name, (model, x, y) in ways(tmp_path).items():
        found = krelax.certify(model, x, y, eps=EPS)
        assert dict(enumerate(map(str, found.verdicts))) == wanted, name
    assert len(found) == 30
    assert found.accuracy == 1.0
    assert found.certified.sum() + found.violated.sum() == 30
    for i, point in found.counterexamples.items():
        assert MODEL(torch.tensor(point, dtype=torch.float32)).argmax() != Y[i] or found[i]["margin"] is not None
        assert np.abs(point[0] - X[i]).max() <= 0.1 + 1e-6


def test_results_print_and_are_kept(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    results = krelax.certify(MODEL, X, Y, eps=EPS)
    text = repr(results)
    assert text.startswith("30 items, linf ball of radius 0.1: 100.0 % classified as labelled")
    assert f"holds     {int(results.certified.sum())}" in text
    assert "<table>" in results._repr_html_()
    assert results.report(tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert len(results.plot().axes) == 1
    bounds = krelax.bound(MODEL, X, Y, eps=EPS)
    assert repr(bounds).splitlines()[0] == f"alpha: {int(bounds.certified.sum())} of 30 items proven robust"
    assert not (bounds.certified & results.violated).any()
    assert bounds.values.shape == (30, 2)
    assert bounds.plot().axes


def test_a_journal_is_gone_on_with(tmp_path: Path) -> None:
    first = krelax.certify(MODEL, X, Y, eps=EPS, journal=tmp_path / "run.jsonl")
    again = krelax.certify(MODEL, X, Y, eps=EPS, journal=tmp_path / "run.jsonl", resume=True)
    assert [dict(r) for r in first] == [{k: v for k, v in r.items() if k not in {"kind", "run"}} for r in again]
    other = nn.Sequential(nn.Linear(4, 3)).eval()
    with pytest.raises(krelax.InputError, match="model"):
        krelax.certify(other, X, Y, eps=EPS, journal=tmp_path / "run.jsonl", resume=True)


@pytest.mark.parametrize("region", ["pixels:1", "pixels:2", "brightness:0.2", "patch:1x2"])
def test_bounds_in_regions_and_points_of_others(region: str) -> None:
    """Bounds are below the margins at counterexamples, which are replayed first when they are given."""
    x, y = X[:8], Y[:8]
    bounds = krelax.bound(network(), x, y, region=region, method="crown")
    assert bounds.values.shape == (8, 2)
    results = krelax.certify(network(), x, y, region=region, timeout=5)
    assert not (bounds.certified & results.violated).any()
    given = {}
    for i, point in results.counterexamples.items():
        scores = MODEL(torch.from_numpy(point.reshape(1, 4)).float())[0].detach().double().numpy()
        assert (scores[y[i]] - np.delete(scores, y[i]) >= bounds.values[i] - 1e-5).all()
        own = results[i]["counterexample"].get("parameters")
        given[i] = point.reshape(4) if own is None else np.array(list(own.values()))
    assert given
    again = krelax.certify(network(), x, y, region=region, method="interval", counterexamples=given)
    assert {r["index"] for r in again if r["reason"] == "given"} == set(given)
    with pytest.raises(krelax.InputError, match="several questions"):
        bounds.plot()


def test_points_outside_of_regions_are_ignored() -> None:
    for region, point in (("pixels:1", X[0] + 0.5), ("brightness:0.1", np.array([0.7]))):
        with pytest.warns(UserWarning, match="outside the region, by 0\\.[3-6]"):
            krelax.certify(network(), X[:1], Y[:1], region=region, timeout=5, counterexamples={0: point})


def test_counterexamples_of_others_are_replayed(recwarn: pytest.WarningsRecorder) -> None:
    results = krelax.certify(network(), X, Y, eps=EPS)
    points = {i: x[0] for i, x in results.counterexamples.items()}
    again = krelax.certify(network(), X, Y, eps=EPS, method="interval", counterexamples=points)
    assert {r["index"] for r in again if r["reason"] == "given"} == set(points)
    assert not recwarn.list
    whole = torch.from_numpy(X)  # the items themselves are none, and what lies outside is none
    for point, words in ((whole, "classifies it as labelled"), (whole + 1, "outside the region, by 0.9")):
        with pytest.warns(UserWarning, match=words):
            same = krelax.certify(network(), X, Y, eps=EPS, counterexamples=point)
        assert same.verdicts == results.verdicts
    with pytest.raises(krelax.InputError, match="29 points for 30 images"):
        krelax.certify(network(), X, Y, eps=EPS, counterexamples=X[:29])
    with pytest.raises(krelax.InputError, match="about image 30"):
        krelax.certify(network(), X, Y, eps=EPS, counterexamples={30: X[0]})


def test_normalised_inputs_and_radii_of_their_own() -> None:
    scaled = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
    with torch.no_grad():
        scaled[0].weight.copy_(MODEL[0].weight / 2)
        scaled[0].bias.copy_(MODEL[0].bias + MODEL[0].weight.sum(1) / 2)
        scaled[2].load_state_dict(MODEL[2].state_dict())
    plain = krelax.certify(MODEL, X, Y, eps=EPS)
    right = krelax.certify(scaled, X, Y, eps=EPS, mean=0.5, std=[0.5])
    assert right.verdicts == plain.verdicts
    fixed = krelax.certify(network(), X, Y, eps=[0.0, 0.0, 0.0, 0.1])
    assert fixed.certified.sum() > plain.certified.sum()
    assert krelax.certify(network(), X, Y, eps=[0.1] * 4).verdicts == krelax.certify(network(), X, Y, eps=0.1).verdicts


@pytest.mark.parametrize("holder", [tuple, np.array, torch.tensor, list])
def test_radii_of_their_own_are_taken_from_whatever_holds_them(holder: Callable[[Any], Any]) -> None:
    """The first of them alone would be another question, whose answer is another one."""
    own = holder([0.0, 0.0, 0.0, 0.5])
    assert krelax.bound(network(), X, Y, eps=own, method="crown").margins == pytest.approx(
        krelax.bound(network(), X, Y, eps=[0.0, 0.0, 0.0, 0.5], method="crown").margins
    )
    assert krelax.monotone(network(), X[:1], eps=own, feature=0, timeout=1).verdicts == ["holds"]  # it does not move


@pytest.mark.parametrize(
    "given", [Decimal("0.1"), np.array(0.1), torch.tensor(0.1, dtype=torch.float64), np.longdouble("0.1")]
)
def test_one_number_is_taken_as_it_is(given: Any) -> None:
    wanted = Fraction(1, 10) if isinstance(given, Decimal) else Fraction(*given.item().as_integer_ratio())
    assert number("eps", given) == one_or_each("eps", given) == wanted


def test_lists_of_tensors_are_items() -> None:
    rows = [torch.from_numpy(row).requires_grad_() for row in X[:2]]
    assert krelax.certify(network(), rows, Y[:2].tolist(), eps=0.0).certified.all()
    assert len(krelax.difference(network(), network(), rows, eps=0.0)) == 2  # without labels, as any array


def test_a_property_in_one_call(tmp_path: Path) -> None:
    save(random_dense([2, 4, 2]), tmp_path / "net.onnx")
    text = specification([0, 0], [1, 1], "(assert (<= Y_0 -100))")
    (tmp_path / "p.vnnlib").write_text(text, encoding="utf-8")
    found = krelax.verify(tmp_path / "net.onnx", tmp_path / "p.vnnlib", certificate=tmp_path / "proof.zip")
    assert (found.answer, found.verdict) == ("unsat", krelax.Verdict.HOLDS)
    assert (tmp_path / "proof.zip").is_file()
    assert "unsat" in repr(found)
    unsafe = krelax.read_vnnlib(tmp_path / "p.vnnlib")
    assert krelax.verify(krelax.load_onnx(tmp_path / "net.onnx"), unsafe).verdict == found.verdict
    with pytest.raises(krelax.InputError, match="path of an ONNX file"):
        krelax.verify(MODEL, unsafe)


def test_radii_in_one_call(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    radii = krelax.radius(network(), X[:5], Y[:5], accuracy=0.05)
    assert (radii.refuted <= 1.05 * radii.certified + 1e-12).all()
    assert repr(radii).startswith("5 items, linf radii: median certified")
    page = radii.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.count("<tr>") == 6
    assert radii.plot().axes
    half = krelax.certify(network(), X[:5], Y[:5], eps=float(radii.certified.min()) / 2)
    assert half.certified.all()


def two_types() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3).double()).eval()


def on_meta() -> nn.Module:
    return nn.Linear(4, 3, device="meta").eval()


def partly_training() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout()).eval()
    model[1].train()
    return model


class Both(nn.Module):
    """Returns two tensors."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, -x


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "a label": (lambda: krelax.certify(network(), X, Y + 2, eps=0.1), "y: label 3 of item"),
    "a timeout": (lambda: krelax.certify(network(), X, Y, eps=0.1, timeout=-1), "timeout must be a number of seconds"),
    "no timeout": (lambda: krelax.radius(network(), X, Y, timeout=float("nan")), "timeout must be a finite number"),
    "a scripted module": (
        lambda: krelax.certify(torch.jit.ScriptModule(), X, Y, eps=0.1),  # type: ignore[no-untyped-call]
        "scripted or traced module",
    ),
    "a negative label": (lambda: krelax.certify(network(), X, Y.astype(int) - 1, eps=0.1), "negative; classes count"),
    "fractions as labels": (lambda: krelax.certify(network(), X, Y / 2, eps=0.1), "list of integers"),
    "no labels": (lambda: krelax.certify(network(), X, eps=0.1), "give the labels"),
    "too few labels": (lambda: krelax.certify(network(), X, Y[:3], eps=0.1), "30 images but 3 labels"),
    "NaN": (lambda: krelax.certify(network(), np.where(X > 0.9, np.nan, X), Y, eps=0.1), "NaN"),
    "range": (lambda: krelax.certify(network(), X * 3, Y, eps=0.1), "outside the range"),
    "shape": (lambda: krelax.certify(MODEL, X[:, :3], Y, eps=0.1), "capture"),
    "shape of a network": (
        lambda: krelax.certify(network(), X[:, :3], Y, eps=0.1),
        "do not fit the network's input",
    ),
    "no axis": (lambda: krelax.certify(MODEL, X[0, 0], Y[0], eps=0.1), "one axis for the items"),
    "whole numbers": (lambda: krelax.certify(MODEL, X.astype(np.int64), Y, eps=0.1), "int64"),
    "ragged": (lambda: krelax.certify(network(), [[0.1, 0.2], [0.3]], [0, 1], eps=0.1), "different lengths"),
    "training": (lambda: krelax.certify(nn.Linear(4, 3), X, Y, eps=0.1), "model.eval()"),
    "a part in training": (
        lambda: krelax.certify(partly_training(), X, Y, eps=0.1),
        "part '1' of the module is in training",
    ),
    "no values": (lambda: krelax.certify(nn.LazyLinear(3).eval(), X, Y, eps=0.1), "'weight' has no values yet"),
    "no specification": (lambda: krelax.verify(network(), None), "specification is a NoneType"),  # type: ignore[arg-type]
    "no options": (lambda: krelax.verify(network(), "q.vnnlib", 5), "options are a int"),  # type: ignore[arg-type]
    "half": (lambda: krelax.certify(nn.Linear(4, 3).half().eval(), X, Y, eps=0.1), "float16"),
    "two types": (lambda: krelax.certify(two_types(), X, Y, eps=0.1), "float32 and float64"),
    "no device": (lambda: krelax.certify(on_meta(), X, Y, eps=0.1), "meta"),
    "no model": (lambda: krelax.certify(7, X, Y, eps=0.1), "model is a int"),  # type: ignore[arg-type]
    "no file": (lambda: krelax.certify("none.onnx", X, Y, eps=0.1), "none.onnx: no such file"),
    "eps": (lambda: krelax.certify(network(), X, Y, eps="wide"), "eps must be a finite number"),  # type: ignore[arg-type]
    "negative eps": (lambda: krelax.certify(network(), X, Y, eps=-1), "eps must be a finite number >= 0"),
    "infinite eps": (lambda: krelax.certify(network(), X, Y, eps=float("inf")), "eps must be a finite number"),
    "eps as text": (lambda: krelax.certify(network(), X, Y, eps="1/9"), "eps must be a finite number"),  # type: ignore[arg-type]
    "too few radii": (lambda: krelax.difference(network(), network(), X, eps=[0.1]), "1 radii for 4 inputs"),
    "no radii": (lambda: krelax.difference(network(), network(), X, eps=[]), "0 radii for 4 inputs"),
    "lines": (lambda: krelax.bound(network(), X, Y, eps=np.full((4, 4), np.nan)), "eps must be a finite number"),  # type: ignore[call-overload]
    "a truth": (lambda: krelax.bound(network(), X, Y, eps=True), "eps must be a finite number"),
    "two slacks": (lambda: krelax.monotone(network(), X, eps=0.1, feature=0, slack=(1, 2)), "slack must be one"),  # type: ignore[arg-type]
    "two limits": (lambda: krelax.certify(network(), X, Y, eps=0.1, timeout=[1, 2]), "timeout must be one"),  # type: ignore[arg-type]
    "a scalar": (lambda: krelax.difference(network(), network(), np.float32(1), eps=0.1), "one axis for the items"),
    "masked": (lambda: krelax.certify(network(), np.ma.masked_greater(X, 0.9), Y, eps=0.1), "masked entries"),
    "norm": (lambda: krelax.certify(network(), X, Y, eps=0.1, norm="l3"), "unknown norm"),  # type: ignore[arg-type]
    "clip": (lambda: krelax.certify(network(), X, Y, eps=0.1, clip=(1, 0)), "clip must be two numbers"),
    "method": (lambda: krelax.certify(network(), X, Y, eps=0.1, method="best"), "unknown method"),
    "bound's method": (lambda: krelax.bound(network(), X, Y, eps=0.1, method="auto"), "unknown method"),
    "scores": (lambda: krelax.certify(nn.Linear(4, 1).eval(), X, Y, eps=0.1), "not a vector of class scores"),
    "certificates": (lambda: krelax.certify(MODEL, X, Y, eps=0.1, certificates="p"), "path of an ONNX file"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_one_line(name: str) -> None:
    call, words = WRONG[name]
    with pytest.raises(krelax.InputError) as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_which_of_several_tensors_is_said() -> None:
    with pytest.warns(UserWarning, match="about tensor 0 of the 2 that the module returns"):
        assert len(krelax.certify(Both().eval(), X[:1], Y[:1], eps=0.0)) == 1


def test_every_public_name_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "library.md").read_text(encoding="utf-8")
    for name in krelax.__all__:
        assert name == "__version__" or f"`{name}" in page or f"krelax.{name}" in page, name
        assert name == "__version__" or inspect.getdoc(getattr(krelax, name)), name


def test_the_difference_of_two_modules() -> None:
    """Of a copy whose last bias is larger by one quarter."""
    other = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
    other.load_state_dict({k: v + 0.25 if k == "2.bias" else v for k, v in MODEL.state_dict().items()})
    found = krelax.difference(MODEL, other, X[:3], eps=EPS)
    assert len(found) == 3
    assert (found.found <= found.certified + 1e-6).all()  # what is found is executed in float32
    assert found.certified == pytest.approx(0.25, rel=1e-3)
    assert found.verdicts == []
    assert "at most" in repr(found)
    assert "<table" in found._repr_html_()
    asked = krelax.difference(MODEL, other, torch.from_numpy(X[:2]), Y[:2], eps=EPS, within=0.3)
    assert [v.value for v in asked.verdicts] == ["holds", "holds"]
    with pytest.raises(krelax.InputError, match="inputs of shapes"):
        krelax.difference(MODEL, krelax.from_torch(nn.Linear(3, 3).eval(), torch.zeros(1, 3)), X, Y, eps=EPS)


def test_results_are_data_frames() -> None:
    pandas = pytest.importorskip("pandas")
    results = krelax.certify(network(), X[:5], Y[:5], eps=EPS)
    frame = results.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["verdict"].tolist() == [str(verdict) for verdict in results.verdicts]
    assert frame["index"].tolist() == [0, 1, 2, 3, 4]
    labels = np.arange(30) % 3
    names = np.array(["ant", "bee", "cow"])[labels]
    for series in (pandas.Series(names), pandas.Series(names, dtype=object), pandas.Series(names, dtype="category")):
        assert (
            krelax.certify(network(), X, series, eps=EPS, method="interval").images.labels.tolist() == labels.tolist()
        )
    bounds = krelax.bound(network(), X[:5], Y[:5], eps=EPS)
    assert bounds.to_pandas()["margin"].tolist() == bounds.margins.tolist()
