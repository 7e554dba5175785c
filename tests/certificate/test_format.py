"""Writing and reading certificates, and files that are none."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from krelax.certificate import format as formats
from krelax.certificate.format import (
    Certificate,
    Claim,
    Crossing,
    Forms,
    GroupSet,
    Layer,
    Malformed,
    Question,
    Region,
    Shares,
    read,
    write,
)
from krelax.errors import InputError


def i4(*values: int) -> Any:
    return np.array(values, np.int32)


def example() -> Certificate:
    """One of everything."""
    shares = Shares(0, np.ones((2, 1, 2), "f4"), np.zeros((2, 1, 2), "f4"), np.full((2, 1, 4, 2), 255, "u1"))
    crossing = Crossing(0, i4(0, 1), i4(1, 2), np.zeros((1, 2), "u1"), np.ones((1, 2, 2), "f4"), groups=[shares])
    forms = Forms(i4(0), i4(3), np.array([-1.0]))
    layer = Layer("parallel", [Claim(i4(2, -1, -1), np.zeros(2, "f4"), [crossing], forms)])
    layer.groups = [GroupSet(np.array([[0, 1]], "i4"), np.array([[1, 0], [0, -1], [1, 1]], "i1"))]
    region = Region("l2", np.zeros(2), np.ones(2), np.full(2, 0.5), 0.3)
    margins = Claim(i4(-1, -1), np.zeros(0, "f4"))
    return Certificate("0" * 64, "real", "test", [Question(region, np.eye(2), np.zeros(2), i4(0, 1), [layer], margins)])


def same(a: Any, b: Any) -> bool:
    if is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    return bool(a == b)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "good.zip"
    write(path, example())
    return path


Edit = Callable[[dict[str, bytes]], None]


def edited(path: Path, edit: Edit) -> Path:
    """The file with its members changed."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    edit(members)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in members.items():
            new.writestr(name, data)
    return path


def document(change: Callable[[Any], Any]) -> Edit:
    def edit(members: dict[str, bytes]) -> None:
        content = json.loads(members["certificate.json"])
        changed = change(content)
        members["certificate.json"] = json.dumps(content if changed is None else changed).encode()

    return edit


def array(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(value), **options)
    return buffer.getvalue()


def test_what_is_written_is_read(file: Path) -> None:
    assert same(read(file), example())


def test_equal_certificates_are_equal_files(file: Path, tmp_path: Path) -> None:
    write(tmp_path / "again.zip", read(file))
    assert (tmp_path / "again.zip").read_bytes() == file.read_bytes()


def test_numpy_reads_and_writes_the_arrays(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist()[1:]:
            with archive.open(name) as stream:
                value = np.load(stream, allow_pickle=False)
            edited(file, lambda m, name=name, value=value: m.update({name: array(value, version=(1, 0))}))  # type: ignore[misc]
    assert same(read(file), example())


def test_arrays_of_another_type_or_shape_are_not_written(tmp_path: Path) -> None:
    wrong = example()
    wrong.questions[0].region.lower = np.zeros(2, np.float32)  # type: ignore[assignment]
    with pytest.raises(TypeError):
        write(tmp_path / "wrong.zip", wrong)
    wrong.questions[0].region.lower = np.zeros((2, 1))
    with pytest.raises(ValueError, match="lower"):
        write(tmp_path / "wrong.zip", wrong)
    assert not (tmp_path / "wrong.zip").exists()


MALFORMED: dict[str, Edit] = {
    "no document": lambda m: m.pop("certificate.json") and None,
    "a document that is not JSON": lambda m: m.update({"certificate.json": b"{"}),
    "a document that is not text": lambda m: m.update({"certificate.json": b"\xff\xfe\x00"}),
    "a document nested deeply": lambda m: m.update({"certificate.json": b"[" * 100_000}),
    "a list": document(lambda d: [d]),
    "another format": document(lambda d: d.update(format="zip")),
    "another version": document(lambda d: d.update(version=2)),
    "a version that is no number": document(lambda d: d.update(version="1")),
    "a field missing": document(lambda d: d.pop("tool") and None),
    "a field too many": document(lambda d: d.update(bound=1.0)),
    "a number for a text": document(lambda d: d.update(network=7)),
    "unknown semantics": document(lambda d: d.update(semantics="float16")),
    "semantics that cannot be hashed": document(lambda d: d.update(semantics=[])),
    "questions that are none": document(lambda d: d.update(questions={})),
    "a null question": document(lambda d: d.update(questions=[None])),
    "eps that is not a number": document(lambda d: d["questions"][0]["region"].update(eps="nan")),
    "eps that is infinite": document(lambda d: d["questions"][0]["region"].update(eps="inf")),
    "eps that is huge": document(lambda d: d["questions"][0]["region"].update(eps="0x1p99999")),
    "eps that is decimal": document(lambda d: d["questions"][0]["region"].update(eps=0.3)),
    "an array used twice": document(lambda d: d["questions"][0]["region"].update(lower="1.npy")),
    "an array that is missing": document(lambda d: d["questions"][0]["region"].update(lower="99.npy")),
    "an array given in the document": document(lambda d: d["questions"][0]["region"].update(lower=[0, 0])),
    "an array that nothing uses": lambda m: m.update({"99.npy": array(np.zeros(2))}),
    "a set that is not a number": document(
        lambda d: d["questions"][0]["layers"][0]["claims"][0]["crossings"][0]["groups"][0].update(set=True)
    ),
    "NaN": lambda m: m.update({"0.npy": array(np.array([0.0, np.nan]))}),
    "infinity": lambda m: m.update({"0.npy": array(np.array([0.0, np.inf]))}),
    "another type": lambda m: m.update({"0.npy": array(np.zeros(2, "f4"))}),
    "another byte order": lambda m: m.update({"0.npy": array(np.zeros(2, ">f8"))}),
    "complex numbers": lambda m: m.update({"0.npy": array(np.zeros(2, "c16"))}),
    "objects": lambda m: m.update({"0.npy": array(np.array([0.0, None]), allow_pickle=True)}),
    "another number of axes": lambda m: m.update({"0.npy": array(np.zeros((2, 1)))}),
    "another length than its neighbours": lambda m: m.update({"0.npy": array(np.zeros(3))}),
    "Fortran order": lambda m: m.update({"2.npy": array(np.asfortranarray(np.eye(2)))}),
    "format 2.0": lambda m: m.update({"0.npy": array(np.zeros(2), version=(2, 0))}),
    "an array cut short": lambda m: m.update({"0.npy": m["0.npy"][:-1]}),
    "an array with more behind": lambda m: m.update({"0.npy": m["0.npy"] + b"\0"}),
    "an empty array file": lambda m: m.update({"0.npy": b""}),
    "a huge shape": lambda m: m.update({"0.npy": m["0.npy"].replace(b"(2, )", b"(9999999999, )")}),
    "a negative shape": lambda m: m.update({"0.npy": m["0.npy"].replace(b"(2, )", b"(-2, )")}),
    "code for a shape": lambda m: m.update({"0.npy": m["0.npy"].replace(b"(2, )", b"(1+1, )")}),
}


@pytest.mark.parametrize("edit", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_files_are_refused(file: Path, edit: Edit) -> None:
    with pytest.raises(Malformed):
        read(edited(file, edit))


def test_files_that_are_no_zip_are_refused(tmp_path: Path) -> None:
    for data in (b"", b"PK\x05\x06", b"PK\x05\x06" + bytes(18), b"\0" * 1000):
        (tmp_path / "bad").write_bytes(data)
        with pytest.raises(Malformed):
            read(tmp_path / "bad")
    with pytest.raises(Malformed):
        read(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "missing")


def test_every_cut_and_every_flipped_byte_is_noticed_or_harmless(file: Path) -> None:
    data = file.read_bytes()
    rng = np.random.default_rng(1)
    for cut in rng.integers(0, len(data), 100):
        file.write_bytes(data[:cut])
        with pytest.raises(Malformed):
            read(file)
    for place in rng.integers(0, len(data), 1000):
        file.write_bytes(data[:place] + bytes([data[place] ^ int(rng.integers(1, 256))]) + data[place + 1 :])
        with suppress(Malformed):
            assert same(read(file), example())


def test_duplicated_members_are_refused(file: Path) -> None:
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("0.npy", array(np.ones(2)))
    with pytest.raises(Malformed, match="same name"):
        read(file)


def test_a_zip_bomb_is_refused_by_what_it_states(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "MOST_BYTES", 1 << 20)
    with pytest.raises(Malformed, match="bytes"):
        read(edited(file, lambda m: m.update({"0.npy": array(np.zeros(1 << 18))})))


def test_a_zip_bomb_that_lies_about_its_size_is_refused(file: Path) -> None:
    data = edited(file, lambda m: m.update({"0.npy": array(np.zeros(1 << 18))})).read_bytes()
    stated, lie = len(array(np.zeros(1 << 18))), len(array(np.zeros(2)))
    file.write_bytes(data.replace(stated.to_bytes(4, "little"), lie.to_bytes(4, "little")))
    with pytest.raises(Malformed):
        read(file)


def test_other_compressions_are_refused(file: Path) -> None:
    with zipfile.ZipFile(file, "a", zipfile.ZIP_LZMA) as archive:
        archive.writestr("more", b"0" * 100)
    with pytest.raises(Malformed, match="compressed"):
        read(file)
