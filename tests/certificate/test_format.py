"""Writing and reading certificates, and files that are none."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from krelax.certificate.check import check
from krelax.certificate.errors import Malformed, Rejected
from krelax.certificate.format import archive
from krelax.certificate.format.archive import read, write
from krelax.certificate.format.schema import (
    Certificate,
    Choices,
    Forms,
    GroupSet,
    Layer,
    Lemma,
    Question,
    Region,
    Shares,
)
from krelax.errors import InputError


def i4(*values: int) -> Any:
    return np.array(values, np.int32)


def example() -> Certificate:
    """One of everything."""
    shares = Shares(0, np.ones((2, 1, 2), "f4"), np.zeros((2, 1, 2), "f4"), np.full((2, 1, 4, 2), 255, "u1"))
    crossing = Choices(0, i4(0, 1), i4(1, 2), np.zeros((1, 2), "u1"), np.ones((1, 2, 2), "f4"), groups=[shares])
    forms = Forms(i4(0), i4(3), np.array([-1.0]))
    layer = Layer("parallel", [Lemma(i4(2, -1, -1), np.zeros(2, "f4"), [crossing], forms)])
    layer.groups = [GroupSet(np.array([[0, 1]], "i4"), np.array([[1, 0], [0, -1], [1, 1]], "i1"))]
    region = Region("l2", np.zeros(2), np.ones(2), np.full(2, 0.5), 0.3)
    margins = Lemma(i4(-1, -1), np.zeros(0, "f4"))
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


Edit = Callable[[dict[str, bytes]], object]


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


def text(old: bytes, new: bytes) -> Edit:
    """Change what the document says, which need not be JSON then."""

    def edit(members: dict[str, bytes]) -> None:
        assert members["certificate.json"].count(old)
        members["certificate.json"] = members["certificate.json"].replace(old, new, 1)

    return edit


def header(old: bytes, new: bytes) -> Edit:
    """Change the header of an array."""

    def edit(members: dict[str, bytes]) -> None:
        start = 10 + int.from_bytes(members["0.npy"][8:10], "little")
        told, numbers = members["0.npy"][10:start], members["0.npy"][start:]
        assert told.count(old) == 1
        changed = told.strip().replace(old, new).ljust(245) + b"\n"
        members["0.npy"] = members["0.npy"][:8] + len(changed).to_bytes(2, "little") + changed + numbers

    return edit


def region(**fields: Any) -> Edit:
    return document(lambda d: d["questions"][0]["region"].update(fields))


def shares(**fields: Any) -> Edit:
    return document(lambda d: d["questions"][0]["layers"][0]["claims"][0]["crossings"][0]["groups"][0].update(fields))


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


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "made.zip"
    path.write_bytes(b"what was there")

    def broken(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(OSError, match="no space left"):
        write(path, example())
    assert [p.name for p in tmp_path.iterdir()] == ["made.zip"]
    assert path.read_bytes() == b"what was there"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_certificate_can_be_written_into_a_pipe(file: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as reader:
        found = reader.submit(pipe.read_bytes)
        write(pipe, example())
        assert found.result(timeout=60) == file.read_bytes()
    assert pipe.is_fifo()


def test_a_file_that_may_not_be_read_is_not_called_malformed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(zipfile, "ZipFile", refused)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)") as error:
        read(file)
    assert not isinstance(error.value, Malformed)


MALFORMED: dict[str, Edit] = {
    "no document": lambda m: m.pop("certificate.json"),
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
    "a set that is a truth": shares(set=True),
    "a set that is a decimal": shares(set=0.0),
    "a set that is a text": shares(set="0"),
    "a set that is no number": shares(set=float("nan")),
    "a set that is infinite": shares(set=float("inf")),
    "a set that is null": shares(set=None),
    "a set of too many digits": text(b'"set": 0', b'"set": ' + b"9" * 5000),
    "bases that are null": shares(basis=None),
    "a name twice": text(b'"tool"', b'"tool": "other", "tool"'),
    "a name twice within": text(b'"kind"', b'"kind": "box", "kind"'),
    "a semantics twice": text(b'"semantics"', b'"semantics": "float32", "semantics"'),
    "a comment": text(b'"tool"', b'/* */ "tool"'),
    "a comma too many": text(b"]\n}", b"],\n}"),
    "single quotes": text(b'"tool"', b"'tool'"),
    "more behind the document": lambda m: m.update({"certificate.json": m["certificate.json"] + b"{}"}),
    "a mark of the byte order": lambda m: m.update({"certificate.json": b"\xef\xbb\xbf" + m["certificate.json"]}),
    "two bytes a letter": lambda m: m.update({"certificate.json": m["certificate.json"].decode().encode("utf-16")}),
    "a document that is empty": lambda m: m.update({"certificate.json": b""}),
    "a document that is null": document(lambda d: "null"),
    "a document named otherwise": lambda m: m.update({"CERTIFICATE.json": m.pop("certificate.json")}),
    "a field in capitals": text(b'"tool"', b'"Tool"'),
    "a path upwards": region(lower="../0.npy"),
    "a path from the root": region(lower="/0.npy"),
    "a path to here": region(lower="./0.npy"),
    "a path with a backslash": region(lower="..\\0.npy"),
    "a path that ends": region(lower="0.npy\0"),
    "a path in capitals": region(lower="0.NPY"),
    "a path to a file outside": region(lower="/etc/passwd"),
    "a path of nothing": region(lower=""),
    "a path that is a number": region(lower=0),
    "a path to the document": region(lower="certificate.json"),
    "eps in capitals": region(eps="INFINITY"),
    "eps of nothing": region(eps=""),
    "a kind that is none": region(kind="linf"),
    "a kind in capitals": region(kind="BOX"),
    "a folder": lambda m: m.update({"folder/": b""}),
    "a file outside": lambda m: m.update({"../../escaped": b"x"}),
    "a file within": lambda m: m.update({"another.zip": b"PK\x05\x06" + bytes(18)}),
    "NaN": lambda m: m.update({"0.npy": array(np.array([0.0, np.nan]))}),
    "infinity": lambda m: m.update({"0.npy": array(np.array([0.0, np.inf]))}),
    "minus infinity": lambda m: m.update({"0.npy": array(np.array([0.0, -np.inf]))}),
    "a NaN that signals": lambda m: m.update({"0.npy": m["0.npy"][:-8] + b"\x01\0\0\0\0\0\xf0\x7f"}),
    "half precision": lambda m: m.update({"0.npy": array(np.zeros(2, "f2"))}),
    "whole numbers": lambda m: m.update({"0.npy": array(np.zeros(2, "i8"))}),
    "truths": lambda m: m.update({"0.npy": array(np.zeros(2, "?"))}),
    "texts": lambda m: m.update({"0.npy": array(np.zeros(2, "U2"))}),
    "records": lambda m: m.update({"0.npy": array(np.zeros(2, [("x", "f8")]))}),
    "a type in words": header(b"'<f8'", b"'float64'"),
    "a type that is the machine's": header(b"'<f8'", b"'=f8'"),
    "a type twice": header(b"'descr'", b"'descr': '<f4', 'descr'"),
    "a type that is missing": header(b"'descr': '<f8', ", b""),
    "a header of more": header(b", }", b", 'x': 1, }"),
    "a header of code": header(b"False", b"__import__('os').abort()"),
    "a header that says zero": header(b"False", b"0"),
    "no shape": header(b"(2, )", b"()"),
    "a shape that is a list": header(b"(2, )", b"[2, ]"),
    "a shape in hexadecimal": header(b"(2, )", b"(0x2, )"),
    "a shape with a sign": header(b"(2, )", b"(+2, )"),
    "a shape of zero": header(b"(2, )", b"(0, )"),
    "a shape of other digits": header(b"(2, )", "(２, )".encode()),
    "a shape that overflows": header(b"(2, )", b"(2305843009213693954, )"),
    "a header longer than the file": lambda m: m.update({"0.npy": m["0.npy"][:8] + b"\xff\xff" + m["0.npy"][10:]}),
    "a header of no length": lambda m: m.update({"0.npy": m["0.npy"][:8] + b"\0\0" + m["0.npy"][10:]}),
    "a header alone": lambda m: m.update({"0.npy": m["0.npy"][:10]}),
    "another magic": lambda m: m.update({"0.npy": b"\x93numpy" + m["0.npy"][6:]}),
    "format 3.0": lambda m: m.update({"0.npy": m["0.npy"][:6] + b"\3\0" + m["0.npy"][8:]}),
    "a pickle": lambda m: m.update({"0.npy": b"cos\nabort\n(tR."}),
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


ODD = "x\naccepted: questions 1\x1b[2K" + "y" * 5000


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m.update({ODD: b""}),
        lambda m: m.update({archive._DOCUMENT: m[archive._DOCUMENT].replace(b'"0.npy"', json.dumps(ODD).encode())}),
        lambda m: m.update({archive._DOCUMENT: m[archive._DOCUMENT].replace(b'"real"', json.dumps(ODD).encode())}),
    ],
)
def test_messages_are_one_short_line_whatever_names_hold(file: Path, edit: Edit) -> None:
    with pytest.raises(Malformed) as error:
        read(edited(file, edit))
    assert str(error.value).isprintable()
    assert len(str(error.value)) < len(str(file)) + 1100


def test_another_network_is_named_in_one_line() -> None:
    certificate = example()
    certificate.network = ODD
    with pytest.raises(Rejected) as error:
        check(certificate, b"")
    assert str(error.value).isprintable()


def test_files_that_are_no_zip_are_refused(tmp_path: Path) -> None:
    for data in (b"", b"PK\x05\x06", b"PK\x05\x06" + bytes(18), b"\0" * 1000):
        (tmp_path / "bad").write_bytes(data)
        with pytest.raises(Malformed):
            read(tmp_path / "bad")
    with pytest.raises(InputError, match="is a folder"):
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
    monkeypatch.setattr(archive, "MOST_BYTES", 1 << 20)
    with pytest.raises(Malformed, match="bytes"):
        read(edited(file, lambda m: m.update({"0.npy": array(np.zeros(1 << 18))})))


def test_a_zip_bomb_that_lies_about_its_size_is_refused(file: Path) -> None:
    data = edited(file, lambda m: m.update({"0.npy": array(np.zeros(1 << 18))})).read_bytes()
    stated, lie = len(array(np.zeros(1 << 18))), len(array(np.zeros(2)))
    file.write_bytes(data.replace(stated.to_bytes(4, "little"), lie.to_bytes(4, "little")))
    with pytest.raises(Malformed):
        read(file)


def test_too_many_members_are_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_MOST_MEMBERS", 5)
    with pytest.raises(Malformed, match="too many"):
        read(file)


def test_too_long_a_document_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_MOST_DOCUMENT", 500)
    with pytest.raises(Malformed, match="too large"):
        read(file)


def test_two_members_at_one_place_are_refused(file: Path) -> None:
    """The directory names a member twice, by another name."""
    data = file.read_bytes()
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entries = data[start:end]
    forged = entries[: entries.index(b"PK\x01\x02", 4)].replace(b"certificate.json", b"certificate.jsom")
    tail = bytearray(data[end:])
    for place in (8, 10):
        tail[place] += 1
    tail[12:16] = (len(entries) + len(forged)).to_bytes(4, "little")
    file.write_bytes(data[:end] + forged + tail)
    with pytest.raises(Malformed):
        read(file)


def test_encrypted_members_are_refused(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    file.write_bytes(bytes(data))
    with pytest.raises(Malformed, match="encrypted"):
        read(file)


def test_what_means_nothing_changes_nothing(file: Path) -> None:
    """Something before the archive, a comment behind it, members that are stored or in another order."""
    data = file.read_bytes()
    file.write_bytes(b"#!/bin/sh\nexit 1\n" + data)
    assert same(read(file), example())
    file.write_bytes(data)
    with zipfile.ZipFile(file) as old:
        members = [(name, old.read(name)) for name in reversed(old.namelist())]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as new:
        new.comment = b"margin 1e9"
        for name, content in members:
            new.writestr(name, content)
    assert same(read(file), example())


def test_other_compressions_are_refused(file: Path) -> None:
    with zipfile.ZipFile(file, "a", zipfile.ZIP_LZMA) as archive:
        archive.writestr("more", b"0" * 100)
    with pytest.raises(Malformed, match="compressed"):
        read(file)
