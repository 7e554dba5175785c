"""Reports from the command line: of a run that ends, of one that is interrupted, and again from its results."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.cli.conftest import Ran
from tests.cli.test_bad_input import check_refusal
from tests.run.files import dense, images, random_dense, save

Run = Callable[..., Ran]

RUN = ["certify", "good.onnx", "good.npz", "--eps", "0.1"]
AGAIN = ["report", "results.jsonl", "--network", "good.onnx", "--images", "good.npz"]


def rows(path: str) -> list[int]:
    return [int(i) for i in re.findall(r'<tbody id="image-(\d+)"', Path(path).read_text(encoding="utf-8"))]


def undated(path: str) -> str:
    return re.sub(r"<dd>\S+ \S+ UTC</dd>", "", Path(path).read_text(encoding="utf-8"))


def test_a_report_of_a_run_and_again_from_its_results(krelax: Run, good: Path) -> None:
    (good / "deep").mkdir()
    more = ["--certificates", "proofs", "--check", "--report", "deep/report.html"]
    ran = krelax(*RUN, "--jsonl", "results.jsonl", *more)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[-1] == "  report in deep/report.html"
    assert rows("deep/report.html") == [0, 1, 2]
    links = re.findall(r'href="(\./[^"]+)"', Path("deep/report.html").read_text(encoding="utf-8"))
    assert links
    assert all((good / "deep" / link).is_file() for link in links)
    assert (
        krelax(*AGAIN, "--certificates", "proofs", "--output", "deep/again.html").out == "report in deep/again.html\n"
    )
    assert undated("deep/again.html") == undated("deep/report.html")
    assert not list(good.rglob("*.part"))


def test_a_report_needs_no_results_on_disk_and_replaces_an_older_one(krelax: Run, good: Path) -> None:
    for selection, expected in (("0:2", [0, 1]), ("2", [2])):
        assert krelax(*RUN, "--range", selection, "--report", "report.html").code == 0
        assert rows("report.html") == expected


def test_a_resumed_run_reports_everything_that_was_asked_for(krelax: Run, good: Path) -> None:
    assert krelax(*RUN, "--range", "0:2", "--jsonl", "results.jsonl").code == 0
    for selection in ("0:3", "1:3"):
        again = ["--range", selection, "--jsonl", "results.jsonl", "--resume", "--report", "report.html"]
        assert krelax(*RUN, *again).code == 0
        assert rows("report.html") == list(range(int(selection[0]), 3))


def test_a_killed_run_can_be_reported(krelax: Run, good: Path) -> None:
    assert krelax(*RUN, "--jsonl", "results.jsonl").code == 0
    whole = Path("results.jsonl").read_bytes()
    Path("results.jsonl").write_bytes(whole[:-20])
    assert krelax(*AGAIN, "--output", "report.html").code == 0
    assert len(rows("report.html")) == 2
    assert "2 of the 3 images of good.npz" in Path("report.html").read_text(encoding="utf-8")
    assert Path("results.jsonl").read_bytes() == whole[:-20]


def test_an_interrupted_run_reports_what_it_has(krelax: Run, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(name: str, reason: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("krelax.cli.certify.warn", stop)
    ran = krelax(*RUN, "--report", "report.html")
    assert (ran.code, ran.out) == (130, "")
    assert len(rows("report.html")) == 1
    assert "interrupted: 2 of 3 images have no result" in Path("report.html").read_text(encoding="utf-8")


def test_several_radii_make_a_curve(krelax: Run, good: Path) -> None:
    names = []
    for eps in ("0.1", "0.2", "0.4"):
        names.append(f"{eps}.jsonl")
        assert krelax(*RUN[:-1], eps, "--jsonl", names[-1]).code == 0
    assert krelax("report", *names, *AGAIN[2:], "--output", "report.html").code == 0
    text = Path("report.html").read_text(encoding="utf-8")
    assert "The same 3 images at every radius" in text
    assert all(f"eps {eps}:" in text for eps in ("0.1", "0.2", "0.4"))
    assert krelax(*RUN, "--norm", "l2", "--jsonl", "l2.jsonl").code == 0
    ran = krelax("report", "0.1.jsonl", "l2.jsonl", *AGAIN[2:], "--output", "report.html")
    check_refusal(ran, "l2.jsonl", "norm differs from 0.1.jsonl")


def test_names_that_are_no_markup(krelax: Run, good: Path) -> None:
    name = "a<b>&\"c'.onnx"
    (good / "good.onnx").rename(good / name)
    ran = krelax("certify", name, "good.npz", "--eps", "0.1", "--report", "report.html", "--certificates", "p&q #%")
    assert ran.code == 0
    text = Path("report.html").read_text(encoding="utf-8")
    assert "a&lt;b&gt;&amp;&quot;c&#x27;.onnx" in text
    assert name not in text
    assert "./p%26q%20%23%25/image-" in text


def test_names_that_are_no_text(krelax: Run, good: Path) -> None:
    """Bytes that are not UTF-8 are shown as such in a link, and as question marks elsewhere."""
    images, proofs = os.fsdecode(b"\xe4.npz"), os.fsdecode(b"proofs \xe4")
    (good / "good.npz").rename(good / images)
    certify = ["certify", "good.onnx", images, "--eps", "0.1", "--certificates", proofs]
    assert krelax(*certify, "--report", "report.html", "--jsonl", "results.jsonl").code == 0
    text = Path("report.html").read_text(encoding="utf-8")
    assert "?.npz" in text
    assert "./proofs%20%E4/image-" in text
    assert krelax(*certify, "--jsonl", "results.jsonl", "--resume").code == 0
    (good / "good.onnx").rename(good / os.fsdecode(b"\xe4.onnx"))
    ran = krelax("certify", os.fsdecode(b"\xe4.onnx"), images, "--eps", "0.1")
    check_refusal(ran, "not UTF-8", "rename")


@pytest.mark.parametrize("output", ["good.npz", "good.onnx", "missing/report.html", ".", "results.jsonl", "x" * 300])
def test_places_where_no_report_can_go(krelax: Run, good: Path, output: str) -> None:
    """Said before the run, not after it; nothing is lost."""
    content = {path.name: path.read_bytes() for path in good.iterdir()}
    check_refusal(krelax(*RUN, "--jsonl", "results.jsonl", "--report", output), "report")
    assert {path.name: path.read_bytes() for path in good.iterdir()} == content


def test_reports_of_something_else(krelax: Run, good: Path) -> None:
    assert krelax(*RUN, "--jsonl", "results.jsonl").code == 0
    output = ["--output", "report.html"]
    save(random_dense([2, 4, 2], seed=1), good / "other.onnx")
    images(good / "other.npz", np.full((3, 2), 0.25, np.float32), [0, 1, 0])
    check_refusal(krelax(*AGAIN[:3], "other.onnx", *AGAIN[4:], *output), "results.jsonl", "network")
    check_refusal(krelax(*AGAIN[:5], "other.npz", *output), "results.jsonl", "images")
    check_refusal(krelax("report", "good.npz", *AGAIN[2:], *output), "good.npz", "line 1")
    check_refusal(krelax("report", "none.jsonl", *AGAIN[2:], *output), "none.jsonl", "no such file")
    Path("empty.jsonl").touch()
    check_refusal(krelax("report", "empty.jsonl", *AGAIN[2:], *output), "empty.jsonl", "no results")
    assert krelax("bench", "good.csv", "--jsonl", "bench.jsonl").code == 0
    check_refusal(krelax("report", "bench.jsonl", *AGAIN[2:], *output), "bench.jsonl", "data-set run")
    assert not Path("report.html").exists()


def test_results_about_two_networks_make_no_page(krelax: Run, good: Path) -> None:
    pair = ("difference", "good.onnx", "good.onnx", "good.npz", "--eps", "0.01", "--range", "0")
    ran = krelax(*pair, "--jsonl", "two.jsonl")
    assert ran.out.startswith("good.onnx and good.onnx on good.npz: 1 image, ")
    ran = krelax("report", "two.jsonl", *AGAIN[2:], "--output", "report.html")
    check_refusal(ran, "two.jsonl", "of krelax difference", "krelax certify --jsonl")


@pytest.mark.parametrize("change", [{"verdict": 3}, {"label": None}, {"seconds": "1"}, {"index": 9}])
def test_damaged_results(krelax: Run, good: Path, change: dict[str, object]) -> None:
    assert krelax(*RUN, "--jsonl", "results.jsonl").code == 0
    header, first, *rest = Path("results.jsonl").read_text(encoding="utf-8").splitlines()
    lines = [header, json.dumps(json.loads(first) | change), *rest, ""]
    Path("results.jsonl").write_text("\n".join(lines), encoding="utf-8")
    check_refusal(krelax(*AGAIN, "--output", "report.html"), "results.jsonl", "damaged")


def held(path: str) -> set[int]:
    """The images that hold."""
    records = map(json.loads, Path(path).read_text(encoding="utf-8").splitlines()[1:])
    return {r["index"] for r in records if r["verdict"] == "holds"}


def test_two_versions_are_compared(krelax: Run, good: Path) -> None:
    """The scores of the second network are exchanged: whatever held is lost."""
    rng = np.random.default_rng(0)
    layers = [(rng.normal(size=(m, n)), rng.normal(size=m)) for n, m in ((2, 4), (4, 2))]
    save(dense(*layers, shape=(1, 2)), good / "good.onnx")
    save(dense(layers[0], (layers[1][0][::-1], layers[1][1][::-1]), shape=(1, 2)), good / "other.onnx")
    for name in ("good", "other"):
        run = ["certify", f"{name}.onnx", "good.npz", "--eps", "0.001", "--jsonl", f"{name}.jsonl"]
        assert krelax(*run).code == 0
    there, now = (held(f"{name}.jsonl") for name in ("good", "other"))
    again = ["report", "other.jsonl", "--network", "other.onnx", "--images", "good.npz", "--output", "report.html"]
    more = ["--before", "good.jsonl", "--summary", "sheet.html", "--csv", "table.csv"]
    ran = krelax(*again, *more, "--fail-on-regression")
    assert ran.code == 1
    assert there > set()
    assert f"{len(there - now)} held before and do not now" in ran.out
    assert krelax(*again, *more).code == 0  # replaces what it wrote, and does not judge
    assert len(Path("table.csv").read_text().splitlines()) == 4
    same = ["report", "good.jsonl", "--network", "good.onnx", "--images", "good.npz", "--output", "report.html"]
    assert krelax(*same, "--before", "good.jsonl", "--fail-on-regression").code == 0
    header, *lines = Path("good.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    part = [line for line in lines if json.loads(line)["verdict"] != "holds"]
    Path("part.jsonl").write_text("".join([header, *part]), encoding="utf-8")
    ran = krelax("report", "part.jsonl", *same[2:], "--before", "good.jsonl", "--fail-on-regression")
    assert ran.code == 1, "an interrupted run passes nothing"
    assert f"{len(there)} held before and have no result now" in ran.out


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--fail-on-regression"], "--before"),
        (["--before", "good.npz"], "good.npz"),
        (["--csv", "good.npz"], "not a table"),
        (["--csv", "results.jsonl"], "would be lost"),
        (["--summary", "good.onnx"], "not a summary"),
        (["--summary", "page.html"], "two things"),
        (["--csv", "nowhere/table.csv"], "cannot be written"),
    ],
)
def test_files_that_do_not_fit(krelax: Run, good: Path, more: list[str], word: str) -> None:
    assert krelax(*RUN, "--jsonl", "results.jsonl").code == 0
    kept = Path("results.jsonl").read_bytes()
    check_refusal(krelax(*AGAIN, "--output", "page.html", *more), word)
    assert Path("results.jsonl").read_bytes() == kept
