"""From the results of runs to the file of a report."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from krelax._version import __version__
from krelax.errors import InputError
from krelax.problem.images import read_images
from krelax.problem.scaling import Scaling
from krelax.report.comparison import Comparison
from krelax.report.page import Subject, page, summary
from krelax.report.pictures import drawn
from krelax.report.results import Record, Results, curve
from krelax.report.spreadsheet import spreadsheet
from krelax.run.files import replacing
from krelax.run.journal import digest_of_data, digest_of_network

Run = tuple[str, Record, Sequence[Record]]  # a name for messages, header and results as in a journal

_BEGINS = b"<!doctype html>"


def write_report(
    output: Path,
    model: Path,
    images: Path,
    runs: Sequence[Run],
    *,
    asked: Sequence[int] | None = None,
    certificates: Path | None = None,
    labels: Sequence[Path] = (),
    before: Run | None = None,
    sheet: Path | None = None,
    table: Path | None = None,
) -> Comparison | None:
    """Write the page of the first of the runs, which are about the network and images of two files, to `output`: of the
    images `asked` for, or of all that have results, with a curve if the other runs are at other radii.

    `certificates` is the folder of the first run's certificates, `labels` are files of labels, and of names of classes,
    where they do not lie with the images. `before` is a run about the same images, and maybe about another network,
    with which the first is compared; that is returned. `sheet` is a file for one sheet of paper (HTML), `table` one for
    comma-separated values. Raises InputError if the runs do not fit the files or each other, or a file cannot be
    written.
    """
    check_output(output)
    if sheet is not None:
        check_output(sheet, "summary")
    data = read_images(images, labels[0] if labels else None, runs[0][1]).images
    hashes = {"model": digest_of_network(model), "images": digest_of_data(images, labels)}
    results = _results(data, [*runs, *([] if before is None else [before])])
    earlier = None if before is None else results.pop()
    about, first = _subject(output, (model.name, images.name), data, runs, results, hashes, asked, certificates)
    if before is not None and earlier is not None:
        names = (before[0], runs[0][0])
        about = replace(about, before=Path(before[0]).name, compared=Comparison.of(names, earlier, first))
    write_text(output, page(first, about))
    if sheet is not None:
        write_text(sheet, summary(first, about))
    if table is not None:
        write_text(table, spreadsheet(first, earlier))
    return about.compared


def write_page(
    output: Path, names: tuple[str, str], data: NDArray[np.float32], header: Record, records: Sequence[Record]
) -> None:
    """As `write_report`, of one run that is in memory, about a model and images called so. Raises InputError."""
    check_output(output)
    runs = [("the results", header, records)]
    about, first = _subject(output, names, data, runs, _results(data, runs), {}, None, None)
    write_text(output, page(first, about))


def _results(data: NDArray[np.float32], runs: Sequence[Run]) -> list[Results]:
    return [Results.of(name, header, records, data[0].size, len(data)) for name, header, records in runs]


def _subject(
    output: Path, names: tuple[str, str], data: NDArray[np.float32], runs: Sequence[Run], results: Sequence[Results],
    hashes: Mapping[str, str], asked: Sequence[int] | None, certificates: Path | None,
) -> tuple[Subject, Results]:  # fmt: skip
    """What a page at `output` is about, and the results that it shows."""
    _check_together([name for name, *_ in runs], results, hashes)
    shared, points = curve(results)
    first = results[0] if asked is None else results[0].only(set(asked))
    about = Subject(
        *names,
        count=len(data),
        asked=None if asked is None else len(asked),
        pictures=drawn(data, first.records, first.settings.get("clip"), _scaling(first.settings)),
        links=_links(first.records, certificates, output),
        points=points,
        shared=shared,
        made=_versions(),
    )
    return about, first


def _scaling(settings: Record) -> Scaling | None:
    """What the network was given for pixels, as far as pictures need it; None for these themselves."""
    mean, std = settings.get("mean"), settings.get("std")
    if not mean or not std:
        return None
    try:
        return Scaling(tuple(map(Fraction, mean)), tuple(map(Fraction, std)))
    except (TypeError, ValueError) as error:
        raise InputError("the settings of the run are damaged (mean and std); run `krelax certify` again") from error


def check_output(path: Path, what: str = "report") -> None:
    """Raises InputError where a page cannot be written, or would replace something that is none."""
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise InputError(f"{path}: cannot be written; give a file in a folder that exists for the {what}")
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; give a file for the {what}")
        if path.is_file() and not _is_page(path):
            raise InputError(f"{path}: exists and is not a {what}; give another file for it")
    except OSError as error:
        raise _unwritable(path, error) from error


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_BEGINS)).lower() in {_BEGINS, b""}


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written ({error.strerror}); give another file for the report")


def _check_together(names: Sequence[str], runs: Sequence[Results], hashes: Mapping[str, str]) -> None:
    """InputError unless all runs are about these files and the same kind of perturbations."""
    first = runs[0].settings
    for name, run in zip(names, runs, strict=True):
        check_digests(name, run.settings, hashes)
        for key in ("region", "norm", "clip", "semantics", "layout"):
            if run.settings.get(key, "real") != first.get(key, "real"):
                raise InputError(f"{name}: {key} differs from {names[0]}; a curve needs runs that differ in eps only")


def check_digests(name: str, settings: Record, hashes: Mapping[str, str]) -> None:
    """InputError unless a run is about the files of these hashes."""
    for key, value in hashes.items():
        if settings.get(key) != value:
            what = "network" if key == "model" else key
            raise InputError(f"{name}: is about another file (SHA-256 of the {what} differs); give that of the run")


def _links(records: Sequence[Record], folder: Path | None, output: Path) -> dict[int, str]:
    """Where certificates lie as seen from the page, by index."""
    if folder is None:
        return {}
    base = os.path.relpath(folder.absolute(), output.absolute().parent)
    names = {r["index"]: Path(r["certificate"]["file"]).name for r in records if r.get("certificate")}
    return {
        i: "./" + quote(os.fsencode(Path(base, name).as_posix()))
        for i, name in names.items()
        if (folder / name).is_file()
    }


def _versions() -> dict[str, str]:
    """When and by what a page was made."""
    libraries = {name: version(name) for name in ("torch", "numpy", "onnx", "onnxruntime", "highspy")}
    made = {"made": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "krelax": __version__}
    return made | {"Python": platform.python_version(), **libraries}


def write_text(path: Path, text: str) -> None:
    """Write at once, so that what is killed leaves no half page."""
    try:
        with replacing(path) as file:
            file.write(text.encode(errors="replace"))  # paths may hold bytes that are no text
    except OSError as error:
        raise _unwritable(path, error) from error
