"""What two networks are said to differ by is no less than they do, and no more than was found but for the accuracy."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.exact_cells import least_margin
from tests.network.test_difference import side_by_side
from tests.run.files import random_dense, save

from krelax.bounds.branching import Effort
from krelax.bounds.instance import Instance
from krelax.bounds.methods import METHODS, bound
from krelax.certificate.check import check
from krelax.certificate.errors import Rejected
from krelax.certificate.format.archive import read
from krelax.certificate.onnx.model import read_model
from krelax.errors import InputError
from krelax.network.difference import difference as between
from krelax.network.graph import Network
from krelax.network.onnx import load_onnx
from krelax.problem.images import Images
from krelax.problem.scaling import Scaling
from krelax.problem.vnnlib import read_vnnlib
from krelax.run.certificates import Certificates
from krelax.run.coupling import Pair, best_of, coupled
from krelax.run.difference import DifferenceOptions, _Differences, _State, about_differences, difference
from krelax.run.journal import read_journal
from krelax.run.verify import VerifyOptions, _verify
from krelax.search.effort import Complete
from krelax.search.pipeline import Plan
from krelax.search.questions import about_specification
from krelax.search.verdict import Verdict

RNG = np.random.default_rng(0)
EPS = Fraction(1, 8)


def rounded(source: Path, target: Path, steps: float) -> None:
    """A copy of a model whose weights are rounded to multiples of a part of the largest one."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(source))
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            unit = np.abs(values).max() / steps
            tensor.CopyFrom(numpy_helper.from_array((np.round(values / unit) * unit).astype(np.float32), tensor.name))
    onnx.save(model, str(target))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Network, Network]:
    save(random_dense([2, 8, 8, 3], 3), tmp_path / "a.onnx")
    rounded(tmp_path / "a.onnx", tmp_path / "b.onnx", 31)
    return load_onnx(tmp_path / "a.onnx"), load_onnx(tmp_path / "b.onnx")


def items(network: Network, count: int = 3) -> Images:
    x = RNG.random((count, *network.input_shape)).astype(np.float32)
    return Images(x, np.zeros(count, int))


def largest(one: Network, other: Network, x: np.ndarray) -> Fraction:
    """The largest difference of outputs around an item, exactly."""
    low, high = (x.astype(np.float64).flatten() + s * float(EPS) for s in (-1, 1))
    count = int(np.prod(one.output_shape))
    rows = [sign * row for row in np.eye(count) for sign in (1, -1)]
    network = side_by_side(one, other)
    return max(-least_margin(network, low, high, [([row.tolist()], [0.0])]).value for row in rows)


def test_certified_and_found_differences_enclose_the_exact_one(pair: tuple[Network, Network]) -> None:
    data = items(pair[0])
    found = difference(*pair, data, range(3), DifferenceOptions(EPS, clip=None, accuracy=Fraction(1, 20)))
    for i, record in found.items():
        exact = largest(*pair, data.images[i])
        assert Fraction(record["certified"]) >= exact
        # the models are executed in float32
        assert Fraction(record["found"]) <= exact + Fraction(1, 10**5)
        assert record["certified"] <= 1.05 * record["found"] * (1 + 1e-9)
        assert record["reason"] == "found"


def test_a_distance_is_kept_if_and_only_if_it_is_large_enough(pair: tuple[Network, Network]) -> None:
    data = items(pair[0], 2)
    exact = [largest(*pair, x) for x in data.images]
    for factor, verdict in ((Fraction(11, 10), "holds"), (Fraction(9, 10), "violated")):
        for i, value in enumerate(exact):
            options = DifferenceOptions(EPS, value * factor, clip=None)
            record = difference(*pair, data, range(i, i + 1), options)[i]
            assert record["verdict"] == verdict
            if verdict == "holds":
                assert value <= Fraction(record["certified"]) <= value * factor * (1 + Fraction(1, 10**12))
                continue
            x = np.array(record["counterexample"]["x"], np.float32).reshape(pair[0].input_shape)
            assert (abs(x - data.images[i]) <= float(EPS)).all()
            ours, theirs = (np.asarray(n.replay(x), np.float64).flatten() for n in pair if n.replay is not None)
            assert max(abs(ours - theirs)) > float(value * factor)


def test_a_copy_differs_by_nothing(pair: tuple[Network, Network]) -> None:
    record = difference(pair[0], pair[0], items(pair[0], 1), range(1), DifferenceOptions(EPS, clip=None))[0]
    assert record["found"] == 0
    assert record["certified"] <= 1e-12
    assert record["reason"] == "found"


def test_networks_of_other_structures_have_a_difference_too(pair: tuple[Network, Network], tmp_path: Path) -> None:
    save(random_dense([2, 6, 3], 4), tmp_path / "c.onnx")
    other, data = load_onnx(tmp_path / "c.onnx"), items(pair[0], 1)
    record = difference(pair[0], other, data, range(1), DifferenceOptions(EPS, clip=None))[0]
    exact = largest(pair[0], other, data.images[0])
    assert exact <= Fraction(record["certified"]) <= exact * Fraction(12, 10)


def test_pixels_are_normalised_for_both(pair: tuple[Network, Network]) -> None:
    """Twice as much in the model's inputs is as much as half of the radius in pixels."""
    data, scaling = items(pair[0], 1), Scaling((Fraction(0),), (Fraction(1, 2),))
    half = DifferenceOptions(EPS / 2, clip=None, scaling=scaling, accuracy=Fraction(1, 100))
    plain = DifferenceOptions(EPS, clip=None, accuracy=Fraction(1, 100))
    doubled = Images(2 * data.images, data.labels)
    ours = difference(*pair, data, range(1), half)[0]
    theirs = difference(*pair, doubled, range(1), plain)[0]
    assert ours["certified"] == pytest.approx(theirs["certified"], rel=0.03)


def test_a_journal_keeps_what_is_known(pair: tuple[Network, Network], tmp_path: Path) -> None:
    data, options = items(pair[0]), DifferenceOptions(EPS, Fraction(1), clip=None)
    first = difference(*pair, data, range(2), options, journal=tmp_path / "run.jsonl")
    seen: list[int] = []
    again = difference(*pair, data, range(3), options, journal=tmp_path / "run.jsonl", resume=True,
                       seen=lambda r: seen.append(r["index"]))  # fmt: skip
    assert seen == [2]
    assert all(again[i].items() >= first[i].items() for i in (0, 1))
    header, records = read_journal(tmp_path / "run.jsonl")
    assert (header["kind_of_run"], header["within"], len(records)) == ("difference", "1", 3)


@pytest.mark.parametrize(
    ("sizes", "says"), [([3, 4, 3], "inputs of shapes"), ([2, 4, 2], "have 3 and 2 outputs")], ids=["inputs", "outputs"]
)
def test_networks_that_do_not_fit(pair: tuple[Network, Network], tmp_path: Path, sizes: list[int], says: str) -> None:
    save(random_dense(sizes), tmp_path / "c.onnx")
    with pytest.raises(InputError, match=says):
        difference(pair[0], load_onnx(tmp_path / "c.onnx"), items(pair[0]), range(1), DifferenceOptions(EPS))


def test_a_distance_is_positive() -> None:
    with pytest.raises(InputError, match="above 0, got 0"):
        DifferenceOptions(EPS, Fraction(0))


def test_time_that_is_over_at_once(pair: tuple[Network, Network]) -> None:
    """Nothing is bounded before the time is up, and nothing is raised."""
    options = DifferenceOptions(EPS, clip=None, timeout=1e-9)
    (record,) = difference(*pair, items(pair[0], 1), range(1), options).values()
    assert (record["certified"], record["reason"]) == (None, "timeout")
    assert "counterexample" not in record


def test_counted_work_gives_the_same_answers(pair: tuple[Network, Network]) -> None:
    data, options = items(pair[0], 2), DifferenceOptions(EPS, clip=None, deterministic=True)
    first, second = (difference(*pair, data, range(2), options) for _ in range(2))
    assert first == second
    assert all(record["seconds"] > 0 for record in first.values())


QUERY = """(vnnlib-version <2.0>)
(declare-network f (declare-input X float32 [1,2]) (declare-output Y float32 [1,3]))
(declare-network g (isomorphic-to f) (declare-input U float32 [1,2]) (declare-output V float32 [1,3]))
(assert (and (>= X[0,0] 0) (<= X[0,0] 1) (>= X[0,1] 0) (<= X[0,1] 1) (== X[0,0] U[0,0]) (== X[0,1] U[0,1])))
"""
APART = "(assert (or (>= Y[0,0] (+ V[0,0] 0.3)) (<= (+ Y[0,1] 0.3) V[0,1])))"


def test_questions_about_two_networks_are_bounded_by_what_they_differ_by(tmp_path: Path) -> None:
    """Where that is better; both networks are the same function."""
    files: dict[str | None, Path] = {name: tmp_path / f"{name}.onnx" for name in "fg"}
    save(random_dense([2, 24, 24, 3], 3), tmp_path / "f.onnx")
    rounded(tmp_path / "f.onnx", tmp_path / "g.onnx", 127)
    (tmp_path / "query.vnnlib").write_text(QUERY + APART, "utf-8")
    (pair,) = coupled(read_vnnlib(tmp_path / "query.vnnlib"), files, lambda: None)
    plain, differences = pair.networks
    x = torch.from_numpy(RNG.random((50, 2)))
    torch.testing.assert_close(plain(x), differences(x), rtol=0, atol=1e-9)
    questions = about_specification(plain, pair.specification)
    assert best_of(pair.networks, questions, "cpu", None) is differences

    def decided(networks: tuple[Network, ...]) -> Verdict:
        return _verify([Pair(networks, pair.specification)], VerifyOptions("crown"), None).verdict

    assert decided((plain,)) is Verdict.UNKNOWN
    assert decided(pair.networks) is Verdict.HOLDS
    (tmp_path / "query.vnnlib").write_text(QUERY + "(assert (>= Y[0,0] 9.0))", "utf-8")
    (pair,) = coupled(read_vnnlib(tmp_path / "query.vnnlib"), files, lambda: None)
    questions = about_specification(pair.networks[0], pair.specification)
    assert best_of(pair.networks, questions, "cpu", None) is pair.networks[0]


def test_networks_of_other_structures_are_side_by_side(tmp_path: Path) -> None:
    files: dict[str | None, Path] = {name: tmp_path / f"{name}.onnx" for name in "fg"}
    save(random_dense([2, 8, 3], 3), tmp_path / "f.onnx")
    save(random_dense([2, 8, 8, 3], 3), tmp_path / "g.onnx")
    (tmp_path / "query.vnnlib").write_text(QUERY + APART, "utf-8")
    (pair,) = coupled(read_vnnlib(tmp_path / "query.vnnlib"), files, lambda: None)
    assert len(pair.networks) == 1


def test_layers_of_the_models_are_tightened_before_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which settles what bounds of differences leave open."""
    save(random_dense([3, 16, 16, 16, 2], 6), tmp_path / "a.onnx")
    rounded(tmp_path / "a.onnx", tmp_path / "b.onnx", 127)
    one, other = (load_onnx(tmp_path / f"{name}.onnx") for name in "ab")
    x = np.random.default_rng(0).random((1, *one.input_shape)).astype(np.float32)
    options, plan = DifferenceOptions(2 * EPS, clip=None), Plan((METHODS["alpha"], Complete()))
    found: list[_State] = []
    monkeypatch.setattr("krelax.run.difference._LAYERS", Effort(rounds=4))
    search = _Differences(between(one, other), (one, other), Images(x, np.zeros(1, int)), options, plan, found.append)
    state, within = _State(0, 0, (0, 0)), Fraction(17, 1000)
    search.decide([state], [within], search.keep)
    assert found == [state]
    assert (state.verdict, state.reason) == (Verdict.HOLDS, "layers")
    samples = x + 2 * float(EPS) * RNG.uniform(-1, 1, size=(5000, *one.input_shape))
    apart = abs(search.network(torch.from_numpy(samples))).max()
    assert float(apart) <= float(state.certified or 0) <= float(within)


def test_bounds_are_no_worse_than_those_of_both_models_alone(tmp_path: Path) -> None:
    """Of models that have next to nothing in common, what neurons are apart by is larger than either."""
    for name, seed in (("a", 1), ("b", 2)):
        save(random_dense([4, 12, 12, 12, 2], seed), tmp_path / f"{name}.onnx")
    one, other = (load_onnx(tmp_path / f"{name}.onnx") for name in "ab")
    data = items(one, 1)
    search = _Differences(between(one, other), (one, other), data, DifferenceOptions(EPS, clip=None), Plan(()), print)
    state = _State(0, 0, (0, 0))
    search.measure(state)
    asked = about_differences(search.network, search.around([state]), [Fraction(0)])
    together, beside = (
        -float(bound(Instance.of(network, asked.region), asked.queries, METHODS["crown"]).value.min())
        for network in (search.network, search.beside)
    )
    assert beside < together
    assert float(state.found) <= float(state.certified or 0) <= beside


@pytest.mark.parametrize(("norm", "widths"), [("linf", [2, 8, 8, 3]), ("l2", [2, 6, 3])])
def test_what_is_within_a_distance_has_a_certificate(tmp_path: Path, norm: str, widths: list[int]) -> None:
    """About both files: of networks of one structure by what they differ by, of others side by side. A distance that
    they exceed has none, and that of one image is none of another file."""
    paths = [tmp_path / f"{name}.onnx" for name in ("a", "b", "c")]
    save(random_dense([2, 8, 8, 3], 3), paths[0])
    save(random_dense(widths, 3 if norm == "linf" else 5), paths[1])
    if norm == "linf":
        rounded(paths[0], paths[1], 31)
    save(random_dense(widths, 6), paths[2])
    one, other = (load_onnx(path) for path in paths[:2])
    keeper = Certificates(tmp_path / "proofs", paths[0], check=True, others=(paths[1],))
    images, within = items(one, 2), Fraction(1, 5) if norm == "linf" else Fraction(6)
    options = DifferenceOptions(EPS, within=within, norm=norm, timeout=60.0)
    results = difference(one, other, images, range(2), options, certificates=keeper)
    models = [read_model(path) for path in paths]
    for i, record in results.items():
        assert record["verdict"] == "holds"
        certificate = read(tmp_path / "proofs" / record["certificate"]["file"])
        assert certificate.system is not None
        assert bool(certificate.system.apart) == (norm == "linf")
        assert min(check(certificate, models[:2], exact=True)) > 0
        (question,) = certificate.questions
        assert question.region.kind == ("box" if norm == "linf" else "l2")
        both = np.concatenate([np.eye(3), -np.eye(3)], 1)
        np.testing.assert_array_equal(question.rows, np.concatenate([-both, both]))
        assert (question.offsets <= float(within)).all()
        for others in ([models[0], models[2]], models[:1]):
            with pytest.raises(Rejected):
                check(certificate, others)
        assert (question.region.lower <= images.images[i].flatten()).all()
    tight = DifferenceOptions(EPS, within=Fraction(1, 10**6), norm=norm, timeout=1.0)
    (record, _) = difference(one, other, images, range(2), tight, certificates=keeper).values()
    assert record["verdict"] != "holds"
    assert "certificate" not in record


def test_certificates_are_about_a_distance(pair: tuple[Network, Network], tmp_path: Path) -> None:
    keeper = Certificates(tmp_path / "proofs", tmp_path / "a.onnx", others=(tmp_path / "b.onnx",))
    with pytest.raises(InputError, match="say with --within which one"):
        difference(*pair, items(pair[0]), range(1), DifferenceOptions(EPS), certificates=keeper)
