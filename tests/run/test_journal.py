"""One run, one file: what another run or another program has written is never believed."""

from __future__ import annotations

import errno
import fcntl
import json
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.run.files import external, random_dense, save

import krelax.run.journal as journal_module
from krelax.cli import main
from krelax.cli.shared import bundled
from krelax.errors import InputError, UnsupportedError
from krelax.run.journal import SCHEMA, digest, digest_of_all, digest_of_network, open_journal, read_journal, tag

FIELDS = {"verdict": {"holds", "unknown"}}
SETTINGS = {"model": "abc", "eps": 0.25, "clip": [0.0, 1.0], "timeout": None}


def record(index: int, **more: Any) -> dict[str, Any]:
    return {"index": index, "verdict": "holds", "reason": "crown", **more}


def test_header_and_records(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with open_journal(path, SETTINGS, resume=False) as journal:
        assert journal.done == {}
        for index in (3, 1):
            journal.write(record(index))
            header, *_, last = map(json.loads, path.read_bytes().splitlines())
            assert last == {"kind": "result", "run": tag(header), **record(index)}
    header = json.loads(path.read_bytes().splitlines()[0])
    assert header.pop("krelax").count(".") == 2
    assert header == {"kind": "run", "schema": SCHEMA, **SETTINGS}
    with open_journal(path, SETTINGS, resume=True) as journal:
        assert list(journal.done) == [3, 1]
        journal.write(record(7))
    assert path.read_bytes().count(b'"kind": "run"') == 1


def test_without_a_path_nothing_is_kept() -> None:
    with open_journal(None, SETTINGS, resume=True) as journal:
        journal.write(record(0))
        assert journal.done == {}


@pytest.mark.parametrize("length", [0, 1, 20])
def test_killed_while_the_header_was_written(tmp_path: Path, length: int) -> None:
    path = tmp_path / "results.jsonl"
    with open_journal(path, SETTINGS, resume=False) as journal:
        journal.write(record(0))
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    with open_journal(path, SETTINGS, resume=True) as journal:
        assert journal.done == {}
        journal.write(record(0))
    assert path.read_bytes() == whole


def test_every_place_of_a_cut(tmp_path: Path) -> None:
    """Wherever the file ends: whole records stay, the torn one goes, and the file can be continued."""
    path = tmp_path / "results.jsonl"
    with open_journal(path, SETTINGS, resume=False) as journal:
        for index in range(3):
            journal.write(record(index, x=0.1))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with open_journal(path, SETTINGS, resume=True, fields=FIELDS) as journal:
            assert list(journal.done) == list(range(max(0, whole[:length].count(b"\n") - 1)))
            journal.write(record(9))
        kept = whole[:length].split(b"\n")[:-1] or whole.splitlines()[:1]
        last = {"kind": "result", "run": tag(json.loads(kept[0])), **record(9)}
        assert path.read_bytes().splitlines() == [*kept, json.dumps(last).encode()]


def refused(path: Path, settings: dict[str, Any], words: str, resume: bool = True) -> None:
    """The run is not begun, and the file is left as it is."""
    content = path.read_bytes()
    with pytest.raises(InputError, match=words), open_journal(path, settings, resume, FIELDS):
        pytest.fail("opened")
    assert path.read_bytes() == content


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A journal with one result."""
    path = tmp_path / "results.jsonl"
    with open_journal(path, SETTINGS, resume=False) as journal:
        journal.write(record(0))
    return path


CHANGES = {"model": "b", "eps": 0.5, "clip": None, "timeout": 1.0, "certificates": "checked"}


@pytest.mark.parametrize("key", CHANGES)
def test_only_the_same_run_goes_on(begun: Path, key: str) -> None:
    """The message says what differs, and how; a setting that is there but not here differs, too."""
    there, here = (json.dumps(s[key]) if key in s else "not given" for s in (SETTINGS, CHANGES))
    refused(
        begun, SETTINGS | {key: CHANGES[key]}, re.escape(f"another run ({key} differs: {there} there, {here} here)")
    )
    if key in SETTINGS:
        refused(begun, {k: v for k, v in SETTINGS.items() if k != key}, re.escape(f"{there} there, not given here"))


def test_every_difference_is_named(begun: Path) -> None:
    refused(begun, SETTINGS | {"model": "c" * 64, "eps": 1.0}, "model differs; eps differs: 0.25 there, 1.0 here")


def test_another_version_of_krelax_does_not_go_on(begun: Path) -> None:
    """What it found may be what this one was mended for."""
    text = begun.read_text().replace('"krelax": "', '"krelax": "9.')
    begun.write_text(text)
    refused(begun, SETTINGS, "krelax differs")


def test_results_of_an_old_format_do_not_go_on_but_are_read(begun: Path) -> None:
    header, result = map(json.loads, begun.read_text().splitlines())
    del result["run"]
    begun.write_text("".join(json.dumps(r) + "\n" for r in (header | {"schema": 1}, result)))
    refused(begun, SETTINGS, "schema differs: 1 there, 2 here")
    assert read_journal(begun)[1] == [result]


def two_runs(path: Path, other: dict[str, Any]) -> bytes:
    """A journal as two runs leave it that know nothing of each other."""
    contents = []
    for number, settings in enumerate((SETTINGS, other)):
        alone = path.with_name(f"{number}.jsonl")
        with open_journal(alone, settings, resume=False) as journal:
            journal.write(record(number))
        contents.append(alone.read_bytes())
    return b"".join(contents)


@pytest.mark.parametrize("other", [SETTINGS, SETTINGS | {"eps": 0.5}])
@pytest.mark.parametrize("schema", [1, SCHEMA])
def test_two_runs_in_one_file_are_not_believed(tmp_path: Path, other: dict[str, Any], schema: int) -> None:
    """Neither to go on with, nor to be read."""
    path = tmp_path / "both.jsonl"
    path.write_bytes(two_runs(path, other).replace(b'"schema": 2', f'"schema": {schema}'.encode()))
    refused(path, SETTINGS, "line 3 begins another run" if schema == SCHEMA else "schema differs: 1 there, 2 here")
    with pytest.raises(InputError, match="line 3 begins another run"):
        read_journal(path)


def test_results_of_another_run_are_not_believed(tmp_path: Path) -> None:
    """Not even without its header."""
    path = tmp_path / "both.jsonl"
    lines = two_runs(path, SETTINGS | {"eps": 0.5}).splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    refused(path, SETTINGS, "line 3 is a result of another run")
    with pytest.raises(InputError, match="line 3"):
        read_journal(path)


def test_a_header_that_was_changed_has_no_results(begun: Path) -> None:
    begun.write_text(begun.read_text().replace("0.25", "0.5"))
    refused(begun, SETTINGS | {"eps": 0.5}, "line 2 is a result of another run")


LINES = ['"NaN": NaN', '"x": Infinity', '"verdict": 7', '"verdict": "robust"', '"index": -0.0', r'"reason": "\ud800"']


@pytest.mark.parametrize("text", LINES)
def test_lines_that_are_no_records(begun: Path, text: str) -> None:
    line = begun.read_text().splitlines()[1].replace('"index": 0', '"index": 1')
    begun.write_text(begun.read_text() + line[:-1] + f", {text}}}\n")
    refused(begun, SETTINGS, "line 3 is not a record")


@pytest.mark.parametrize("deep", [32, 33, 900, 10**6])
def test_values_that_lie_in_one_another_too_deep(begun: Path, deep: int) -> None:
    line = begun.read_text().splitlines()[1].replace('"index": 0', '"index": 1')
    begun.write_text(begun.read_text() + line[:-1] + f', "x": {"[" * (deep - 1)}{"]" * (deep - 1)}}}\n')
    if deep <= 32:
        assert [r["index"] for r in read_journal(begun, FIELDS)[1]] == [0, 1]
    else:
        refused(begun, SETTINGS, "line 3 is not a record")


def test_lines_that_are_too_long(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = begun.read_text().splitlines()[1].replace('"index": 0', '"index": 1')
    monkeypatch.setattr(journal_module, "_LONGEST", 1 << 20)
    begun.write_text(begun.read_text() + line[:-1] + f', "x": "{" " * (1 << 20)}"}}\n')
    refused(begun, SETTINGS, "line 3 is longer than 1 MiB; give another file")
    begun.write_text("[" * (2 << 20))
    with (
        pytest.raises(InputError, match="line 1 is longer"),
        open_journal(begun, SETTINGS, False, FIELDS, overwrite=True),
    ):
        pytest.fail("deleted")
    assert begun.stat().st_size == 2 << 20


def test_files_that_are_too_large(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with begun.open("r+b") as file:
        file.truncate(5 << 30)  # which takes no place
    with pytest.raises(InputError, match="larger than 4 GiB"), open_journal(begun, SETTINGS, True, FIELDS):
        pytest.fail("opened")
    with pytest.raises(SystemExit) as stop:
        main(["certify", *map(str, map(bundled, ("digits_dense.onnx", "digits_test.npz"))), "--eps", "0.01", "--resume",
              "--jsonl", str(begun)])  # fmt: skip
    assert stop.value.code == 2
    assert "larger than 4 GiB" in capsys.readouterr().err


def test_a_second_result_of_one_index(begun: Path) -> None:
    begun.write_text(begun.read_text() + begun.read_text().splitlines()[1] + "\n")
    refused(begun, SETTINGS, "line 3 is a second result of index 0")


def test_a_second_run_is_refused_while_the_first_writes(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with open_journal(path, SETTINGS, resume=False) as journal:
        for resume in (False, True):
            refused(path, SETTINGS, "another run is writing to it", resume)
        journal.write(record(0))
        refused(path, SETTINGS, "another run is writing to it")
    with open_journal(path, SETTINGS, resume=True) as journal:
        assert list(journal.done) == [0]


def test_a_run_that_was_killed_locks_nothing(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    code = (
        "import os, sys; from pathlib import Path; from krelax.run.journal import open_journal\n"
        f"with open_journal(Path({str(path)!r}), {SETTINGS!r}, False) as journal:\n"
        f"    journal.write({record(0)!r}); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    with open_journal(path, SETTINGS, resume=True) as journal:
        assert list(journal.done) == [0]


def test_where_files_cannot_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said, and what another run writes is noticed, if only late."""

    def unable(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unable)
    path = tmp_path / "results.jsonl"
    with open_journal(path, SETTINGS, resume=False) as journal:
        assert "cannot be locked" in caplog.text
        journal.write(record(0))
        with open_journal(path, SETTINGS, resume=True) as other:
            other.write(record(1))
        with pytest.raises(InputError, match="something else has written to it"):
            journal.write(record(2))
    with open_journal(path, SETTINGS, resume=True) as journal:
        assert list(journal.done) == [0, 1]


def test_the_file_is_removed_during_the_run(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with open_journal(path, SETTINGS, resume=False) as journal:
        path.unlink()
        with pytest.raises(InputError, match="removed"):
            journal.write(record(0))


def test_the_header_is_there_from_the_beginning(tmp_path: Path) -> None:
    """Of a run that found nothing nothing stays, unless it was killed; the same run may then begin anew."""
    path = tmp_path / "results.jsonl"
    with suppress(KeyError), open_journal(path, SETTINGS, resume=False):
        header = path.read_bytes()
        raise KeyError
    assert json.loads(header)["kind"] == "run"
    assert path.read_bytes() == b""
    path.write_bytes(header)
    refused(path, SETTINGS | {"eps": 0.5}, "already exists", resume=False)
    with open_journal(path, SETTINGS, resume=False) as journal:
        assert journal.done == {}
    assert path.read_bytes() == header
    with pytest.raises(InputError, match="holds no results"):
        read_journal(path)


def test_errors_of_the_work_are_not_errors_of_the_file(tmp_path: Path) -> None:
    """A broken pipe of stdout is an OSError too."""
    with pytest.raises(BrokenPipeError), open_journal(tmp_path / "results.jsonl", SETTINGS, resume=False):
        raise BrokenPipeError


def test_digest_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert digest(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(InputError, match="missing"):
        digest(tmp_path / "missing")


def test_a_network_is_all_of_its_files(tmp_path: Path) -> None:
    """Weights beside it decide as much as it does."""
    path = save(random_dense([2, 4, 2]), tmp_path / "alone.onnx")
    assert digest_of_network(path) == digest(path)
    path = external(tmp_path / "several.onnx", 1.0)
    before, file = digest_of_network(path), path.read_bytes()
    external(path, 2.0)
    assert path.read_bytes() == file
    assert digest_of_network(path) != before
    Path(f"{path}.data").unlink()
    with pytest.raises(InputError, match=r"several\.onnx\.data"):
        digest_of_network(path)


def test_networks_that_the_checker_does_not_read_have_digests_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        raise UnsupportedError("too new")

    monkeypatch.setattr(journal_module, "model_hash", refuse)
    path = external(tmp_path / "several.onnx", 1.0)
    before = digest_of_network(path)
    assert digest_of_network(path) == before
    external(path, 2.0)
    assert digest_of_network(path) != before


def test_the_files_of_a_list(tmp_path: Path) -> None:
    network, other = external(tmp_path / "n.onnx", 1.0), tmp_path / "s.vnnlib"
    lists: list[tuple[list[Path], list[Path]]] = [([network, network], [other, tmp_path / "none"])]
    lists += [([network], [other, tmp_path / "none"]), ([network, other], [network, tmp_path / "none"])]
    other.write_text("a")
    digests = [digest_of_all(*files) for files in lists]
    other.write_text("b")
    digests += [digest_of_all(*files) for files in lists]
    external(network, 2.0)
    digests.append(digest_of_all(*lists[0]))
    (tmp_path / "none").write_text("now it is there")
    digests.append(digest_of_all(*lists[0]))
    assert len(set(digests)) == len(digests)
