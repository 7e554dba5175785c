"""The rules of docs/architecture.md that a program can check."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "krelax"

# What each part may import, besides itself; `errors` and `_version` are for everyone.
ALLOWED = {
    "network": {"activations"},
    "problem": {"activations", "network"},
    "hull": set(),
    "activations": {"hull"},
    "lanes": {"network", "hull"},
    "proof": {"network", "problem", "hull", "activations", "certificate"},
    "bounds": {"network", "problem", "hull", "activations", "proof", "lanes"},
    "search": {"network", "problem", "hull", "activations", "proof", "bounds", "certificate"},
    "run": {"network", "problem", "activations", "bounds", "search", "certificate"},
    "report": {"problem", "run"},
    "api": {"network", "problem", "bounds", "search", "run", "report", "picture"},
    "certificate": set(),
    "picture": {"network", "problem", "hull", "activations", "bounds", "search", "certificate"},
    "explore": {"network", "problem", "hull", "activations", "proof", "bounds", "search", "picture"},
    "cli": {
        "network",
        "problem",
        "activations",
        "bounds",
        "search",
        "run",
        "report",
        "certificate",
        "picture",
        "explore",
    },
}
HEAVY = {"torch", "numpy", "onnx", "onnxruntime", "rich"}


@cache
def leaves(file: Path) -> list[ast.Import | ast.ImportFrom | ast.Constant]:
    """The imports and constants of a file, which many rules look at."""
    return [
        n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Import | ast.ImportFrom | ast.Constant)
    ]


def imports(file: Path) -> list[ast.Import | ast.ImportFrom]:
    return [n for n in leaves(file) if isinstance(n, ast.Import | ast.ImportFrom)]


def modules(statement: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(statement, ast.ImportFrom):
        # `from krelax.bounds import zonotope` names a module in its second half
        return [f"{statement.module}.{alias.name}" for alias in statement.names]
    return [alias.name for alias in statement.names]


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_point_one_way(part: str) -> None:
    for file in (SOURCE / part).rglob("*.py"):
        for statement in imports(file):
            for name in modules(statement):
                pieces = name.split(".")
                if pieces[0] == "krelax" and len(pieces) > 1 and pieces[1] in ALLOWED:
                    assert pieces[1] == part or pieces[1] in ALLOWED[part], f"{file.name}: {name}"


def test_every_folder_has_a_rule() -> None:
    folders = {p.relative_to(SOURCE).parts[0] for p in SOURCE.rglob("*.py") if p.parent != SOURCE}
    assert folders == set(ALLOWED)


@pytest.mark.parametrize("file", [SOURCE / "__init__.py", *sorted((SOURCE / "cli").glob("*.py"))], ids=lambda p: p.name)
def test_the_command_line_starts_light(file: Path) -> None:
    """Heavy packages may only be imported inside functions there: `krelax --version` must not load torch."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert not {m.split(".")[0] for m in modules(node)} & HEAVY


def test_the_checker_trusts_nobody() -> None:
    """Certificates are checked by the standard library, NumPy, and code that reads nothing of the rest of krelax."""
    own = ("krelax.certificate", "krelax.errors")
    for file in (SOURCE / "certificate").rglob("*.py"):
        for statement in imports(file):
            for name in modules(statement):
                top = name.split(".")[0]
                assert name.startswith(own) or top in sys.stdlib_module_names | {"numpy"}, f"{file.name}: {name}"


# What each part of the checker may import of the others.
CHECKER = {
    "errors": set(),
    "format": {"errors"},
    "kernel": {"errors", "format"},
    "onnx": {"errors", "kernel"},
    "check": {"errors", "format", "kernel", "onnx"},
}


def parts_of_the_checker() -> dict[Path, str]:
    folder = SOURCE / "certificate"
    files = [p for p in folder.rglob("*.py") if p != folder / "__init__.py"]
    return {p: p.relative_to(folder).parts[0].removesuffix(".py") for p in files}


def test_the_parts_of_the_checker_import_one_way() -> None:
    found = parts_of_the_checker()
    assert set(found.values()) == set(CHECKER)
    for file, part in found.items():
        for name in (n for statement in imports(file) for n in modules(statement)):
            if name.startswith("krelax.certificate."):
                other = name.split(".")[2]
                assert other == part or other in CHECKER[part], f"{file.name}: {name}"


def test_the_kernel_reads_no_files() -> None:
    """Its rules are about arrays and numbers: they know the schema of certificates, and neither files nor ONNX."""
    for file in (SOURCE / "certificate" / "kernel").rglob("*.py"):
        for name in (n for statement in imports(file) for n in modules(statement)):
            assert name.split(".")[0] not in {"zipfile", "json", "io", "os", "pathlib", "gzip", "zlib"}, file.name
            assert not name.startswith("krelax.certificate.format.archive"), file.name


def test_pictures_read_certificates_and_need_matplotlib_only_when_they_draw() -> None:
    for file in (SOURCE / "picture").rglob("*.py"):
        for statement in imports(file):
            for name in modules(statement):
                assert not name.startswith("krelax.certificate.") or name.startswith("krelax.certificate.format.")
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert not {m.split(".")[0] for m in modules(node)} & {"matplotlib", "mpl_toolkits"}, file.name


def test_reports_are_made_without_heavy_libraries() -> None:
    """What was found is told by the standard library and NumPy, in half a second."""
    for file in (SOURCE / "report").rglob("*.py"):
        for statement in imports(file):
            for name in modules(statement):
                assert name.split(".")[0] in sys.stdlib_module_names | {"numpy", "krelax"}, f"{file.name}: {name}"


def test_nothing_is_shipped_that_only_tests_use() -> None:
    """Every module is imported by another one, or is where `krelax`, its commands or `python -m krelax` find theirs."""
    used = {f"krelax.{name}" for name in ("__main__", "cli.__init__")}
    for file in SOURCE.rglob("*.py"):
        texts = (n.value for n in leaves(file) if isinstance(n, ast.Constant))
        used |= {text for text in texts if isinstance(text, str) and text.startswith("krelax.")}
        for statement in imports(file):
            names = modules(statement)
            used |= {*names, *(name.rpartition(".")[0] for name in names)}
    commands = {f"krelax.cli.{file.stem}" for file in (SOURCE / "cli").glob("*.py")}
    for file in SOURCE.rglob("*.py"):
        name = ".".join(("krelax", *file.relative_to(SOURCE).with_suffix("").parts))
        assert name.endswith("__init__") or name in used | commands, f"{name} is not used"


def test_no_star_imports() -> None:
    for file in SOURCE.rglob("*.py"):
        assert not any(a.name == "*" for s in imports(file) for a in s.names), file
