"""The documents keep their word: snippets run and print what they say, links resolve, nothing goes unmentioned."""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from tests.docs.snippets import run

import krelax
from krelax import from_torch
from krelax.activations import ACTIVATIONS
from krelax.bounds.methods import METHODS
from krelax.cli import cli

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
GUIDES = sorted((DOCS / "guides").glob("*.md"))
CHAPTERS = sorted((DOCS / "tutorial").glob("*.md"))
METHOD_PAGES = sorted((DOCS / "methods").glob("*.md"))
HEADINGS = ["Requires", "Returns", "Method", "Sound / Complete", "Cost", "Reference"]
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
FIGURE = re.compile(r"!\[[^\]]*\]\(([^)/]+)\)")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The fragments that headings can be linked by, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_snippets_run_and_print_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = []

    def same(printed: str, written: str) -> str:
        blocks.append(printed)
        assert not written or printed == written
        return written

    run(DOCS / "library.md", same)
    assert len(blocks) > 5


def test_the_lines_for_newcomers_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they stand in the README, in a folder with the bundled files."""
    monkeypatch.chdir(tmp_path)
    for file in (Path(krelax.__file__).parent / "data").iterdir():
        shutil.copy(file, tmp_path)
    images = np.load("digits_test.npz")
    np.savez("digits_test.npz", images=images["images"][:8], labels=images["labels"][:8])
    printed = []

    def kept(output: str, written: str) -> str:
        printed.append(output)
        return written

    run(ROOT / "README.md", kept)
    assert "8 items, linf ball of radius 0.0313725" in printed[0]
    assert (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_chapters_print_and_draw_what_they_say(chapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is printed that the chapter does not show; figures are drawn anew, and are there."""
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)

    def same(printed: str, written: str) -> str:
        assert printed == written
        return written

    run(chapter, same)
    for figure in FIGURE.findall(chapter.read_text(encoding="utf-8")):
        assert (tmp_path / figure).stat().st_size > 1000
        assert (chapter.parent / figure).stat().st_size < 100_000


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_guides_print_what_they_say(guide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def same(printed: str, written: str) -> str:
        assert printed == written
        return written

    run(guide, same)


def test_every_public_name_is_in_the_reference() -> None:
    named = set(re.findall(r"^\.\. (?:auto\w+|py:data):: (\w+)$", (DOCS / "api.md").read_text(), re.MULTILINE))
    assert named == set(krelax.__all__) - {"__version__"}


def test_chapters_lead_to_the_next() -> None:
    assert len(CHAPTERS) == 7
    for chapter, following in pairwise(CHAPTERS):
        *_, last = chapter.read_text(encoding="utf-8").splitlines()
        assert last.startswith("**Next:**")
        assert f"]({following.name})" in last
    for number, chapter in enumerate(CHAPTERS, start=1):
        lines = chapter.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith(f"# {number}. ")
        assert 80 <= len(lines) <= 150
        assert f"(tutorial/{chapter.name})" in prose(DOCS / "README.md")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_relative_links_resolve(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, fragment = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), f"{named(page)}: {link}"
        assert not fragment or fragment in anchors(target), f"{named(page)}: {link}"


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_has_its_words(name: str) -> None:
    assert name.replace("-", " ") in prose(DOCS / "methods" / "activations.md").lower()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_page_in_the_index(method: str) -> None:
    row = re.search(
        rf"^\| `{re.escape(method)}` \|.*\]\((methods/.+\.md)\) \|$", prose(DOCS / "README.md"), re.MULTILINE
    )
    assert row, f"docs/README.md has no row for {method}"
    page = DOCS / row[1]
    assert page in METHOD_PAGES
    assert f"`{method}`" in page.read_text(encoding="utf-8").splitlines()[0]


@pytest.mark.parametrize("page", METHOD_PAGES, ids=named)
def test_every_method_page_has_the_same_headings(page: Path) -> None:
    text = prose(page)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    assert [line[:2] for line in text.splitlines()[2:5]] == ["> ", "> ", ""], "two lines say when to use it"
    assert f"methods/{page.name}" in prose(DOCS / "README.md")


def commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(cli)
    yield "", cli
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        yield name, command


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_every_command_and_option_is_documented(name: str, command: click.Command) -> None:
    """Each in the section of its command; those of `krelax` itself at the top."""
    sections = re.split(r"^## ", prose(DOCS / "cli.md"), flags=re.MULTILINE)
    own = [s for s in sections if s.startswith(f"`krelax {name}`\n")] if name else sections[:1]
    assert own, f"docs/cli.md has no section for krelax {name}"
    for parameter in command.params:
        spellings = parameter.opts if isinstance(parameter, click.Option) else [str(parameter.name).upper()]
        for spelling in spellings:
            assert re.search(rf"(?<![\w-]){re.escape(spelling)}(?![\w-])", own[0]), f"krelax {name}: {spelling}"


def test_every_exit_code_is_documented() -> None:
    from krelax import cli as codes

    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", prose(DOCS / "cli.md"), re.MULTILINE)}
    assert rows == {value for name, value in vars(codes).items() if name.isupper() and type(value) is int}


FUNCTIONS = [name for name in krelax.__all__ if inspect.isfunction(getattr(krelax, name))]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_describe_what_they_take_and_give(name: str) -> None:
    function = getattr(krelax, name)
    text = inspect.getdoc(function) or ""
    sections = re.findall(r"^(Args|Returns|Raises|Sound|Complete|Reference):", text, re.MULTILINE)
    assert sections == sorted(sections, key=["Args", "Returns", "Raises", "Sound", "Complete", "Reference"].index)
    assert sections[:3] == ["Args", "Returns", "Raises"]
    described = re.findall(r"^    (\w+): ", text[: text.index("Returns:")], re.MULTILINE)
    assert described == list(inspect.signature(function).parameters)


def test_shapes_of_public_functions_are_as_described() -> None:
    network, images = from_torch(torch.nn.Linear(3, 2), torch.zeros(1, 3)), torch.rand(4, 1, 3)
    region, queries = krelax.ball(images, 0.1), krelax.classification(torch.tensor([0, 1, 0, 1]), 2)
    assert region.lower.shape == (4, 1, 3)
    assert region.lower.dtype == torch.float64
    assert queries.rows.shape == (4, 1, 2)
    found = krelax.bound(krelax.Instance.of(network, region), queries, METHODS["crown"])
    assert found.value.shape == (4, 1)
