"""Many questions in the same boxes: what is proven of each, what is left to others, and the certificates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.certificate.proofs import certificate, model, random_layers
from tests.rows import rows_model
from tests.search.asking import Question, answers, margin_at, replayed, specification

from krelax.bounds.instance import Instance
from krelax.certificate.check import check
from krelax.certificate.errors import Malformed, Rejected
from krelax.certificate.format.archive import read, write
from krelax.certificate.format.families import packed, unpacked
from krelax.certificate.format.schema import Certificate
from krelax.network.graph import Network
from krelax.network.onnx import load_onnx
from krelax.search.pipeline import Plan, decide
from krelax.search.questions import about_specification
from krelax.search.together import Together, close, groups
from krelax.search.verdict import Outcome, Verdict

# With so much room, one of the questions needs cuts.
COUNT, ROOM = 40, 1.1
ROWS = np.array([[1.0, -0.5], [-1.0, 0.5]])


@pytest.fixture(scope="module")
def data() -> bytes:
    return model(random_layers(np.random.default_rng(3), [24, 24, 2]))


@pytest.fixture(scope="module")
def network(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> Network:
    path = tmp_path_factory.mktemp("together") / "net.onnx"
    path.write_bytes(data)
    return load_onnx(path)


def asked(network: Network, room: float) -> list[Question]:
    """Questions about small boxes, whether a form of the outputs stays so near to its value in the middle."""
    rng, found = np.random.default_rng(4), []
    for centre in rng.uniform(-1, 1, (COUNT, 1, 2)):
        value = network(torch.from_numpy(centre[None]))[0].numpy().flatten() @ ROWS[0]
        clauses = tuple((row[None], np.array([room - sign * value])) for row, sign in zip(ROWS, (1, -1), strict=True))
        found.append(Question(centre - 0.02, centre + 0.02, clauses))
    return found


def proven(network: Network, questions: list[Question]) -> list[Outcome]:
    """Outcomes with proofs, in order."""
    found: dict[int, Outcome] = {}
    decide(
        network,
        about_specification(network, specification(network, questions)),
        Plan((Together(),)),
        found.__setitem__,
        proofs=True,
    )
    return [found[i] for i in range(len(questions))]


@pytest.fixture(scope="module")
def whole(data: bytes, network: Network) -> Certificate:
    outcomes = proven(network, asked(network, ROOM))
    assert all(o.verdict is Verdict.HOLDS and o.reason == "boxes" for o in outcomes)
    assert any(len(p.boxes.cut) > 1 for o in outcomes for p in o.proofs if p.boxes is not None)
    return certificate(data, *(p for o in outcomes for p in o.proofs))


def test_bounds_of_each_question_are_below_its_own_margins(network: Network) -> None:
    questions = asked(network, ROOM)
    about = about_specification(network, specification(network, questions))
    instance = Instance.of(network, about.region.to(torch.float64))
    margins, _ = close(instance, about.queries, Together())
    for question, margin in zip(questions, margins.tolist(), strict=True):
        corners = [question.lower, question.upper, (question.lower + question.upper) / 2]
        assert all(margin <= margin_at(network, question, x) for x in corners)
    assert len(set(margins.tolist())) > COUNT // 2


def test_questions_about_different_rows_of_a_table_are_answered_together(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(rows_model())
    network, rng, questions = load_onnx(tmp_path / "net.onnx"), np.random.default_rng(5), []
    for i, at in enumerate(rng.uniform(-1, 1, (24, *network.input_shape))):
        upper = at.copy()
        upper[0, i % 3, 1 + i % 2] += 0.05
        value = network(torch.from_numpy(at[None]))[0].numpy().flatten() @ ROWS[0]
        clauses = tuple((row[None], np.array([1.0 - sign * value])) for row, sign in zip(ROWS, (1, -1), strict=True))
        questions.append(Question(at, upper, clauses))
    about = about_specification(network, specification(network, questions))
    instance = Instance.of(network, about.region.to(torch.float64))
    margins, trees = close(instance, about.queries, Together())
    assert bool((margins > 0).all())
    for i, (question, margin) in enumerate(zip(questions, margins.tolist(), strict=True)):
        x = torch.from_numpy(np.linspace(question.lower, question.upper, 5))
        values = network(x).flatten(1).numpy() @ ROWS.T + [offset[0] for _, offset in question.clauses]
        assert margin <= values.min() + 1e-12  # evaluations round
        assert set(trees.tree(i).cut) <= {-1, 3 * (i % 3) + 1 + i % 2}
    outcomes = proven(network, questions)
    proofs = [p for o in outcomes for p in o.proofs]
    assert len(check(certificate(rows_model(), *proofs), rows_model())) == len(questions)


def test_questions_that_stay_open_are_left_to_others(network: Network) -> None:
    assert all(o.verdict is Verdict.UNKNOWN for o in proven(network, asked(network, -1.0)))
    outcomes = answers(replayed(network), asked(network, -1.0))
    assert all(o.verdict is Verdict.VIOLATED for o in outcomes)


def test_a_look_is_for_several_questions_in_which_few_inputs_vary(network: Network) -> None:
    about = about_specification(network, specification(network, asked(network, ROOM)))
    instance = Instance.of(network, about.region.to(torch.float64))
    assert [len(part) for part in groups(instance, about.queries, torch.arange(COUNT), Together())] == [COUNT]
    assert groups(instance, about.queries, torch.arange(1), Together()) == []
    assert groups(instance, about.queries, torch.arange(COUNT), Together(most=3)) == []
    first = about.region.upper.clone()
    first[: COUNT // 2, :, 0] = about.region.lower[: COUNT // 2, :, 0]  # one input of half of them does not vary
    other = replace(instance, region=replace(instance.region, upper=first.to(instance.region.upper)))
    assert (
        sorted(len(part) for part in groups(other, about.queries, torch.arange(COUNT), Together())) == [COUNT // 2] * 2
    )


def test_certificates_of_many_questions_are_small_and_accepted(whole: Certificate, data: bytes, tmp_path: Path) -> None:
    write(tmp_path / "alone", whole)
    write(tmp_path / "together", packed(whole))
    assert packed(whole).questions == []
    assert 5 * (tmp_path / "together").stat().st_size < (tmp_path / "alone").stat().st_size
    margins = check(read(tmp_path / "together"), data)
    assert margins == check(read(tmp_path / "alone"), data)
    each = [check(replace(whole, questions=[q]), data)[0] for q in whole.questions]
    np.testing.assert_allclose(margins, each, rtol=1e-9)


def test_one_question_that_does_not_hold_is_rejected_among_others(whole: Certificate, data: bytes) -> None:
    questions = list(whole.questions)
    questions[7] = replace(questions[7], offsets=questions[7].offsets - 20.0)
    with pytest.raises(Rejected, match="question 7"):
        check(unpacked(packed(replace(whole, questions=questions))), data)


def test_errors_of_decimals_count_for_their_own_question(whole: Certificate, data: bytes) -> None:
    errors = [np.zeros((2, 3)) for _ in whole.questions]
    errors[3][:, 2] = 20.0
    with pytest.raises(Rejected, match="question 3"):
        check(whole, data, errors=errors)


@pytest.mark.parametrize("cut", [[-1] * (COUNT - 1), [-1] * (COUNT + 1), [0] + [-1] * COUNT + [0]])
def test_families_without_a_tree_for_each_question_are_malformed(whole: Certificate, cut: list[int]) -> None:
    families = packed(whole).families
    assert families is not None
    family = replace(families[0], cut=np.array(cut, np.int32), at=np.zeros(len(cut)))
    with pytest.raises(Malformed, match="not a tree of boxes for each"):
        unpacked(replace(whole, questions=[], families=[family]))
