"""The long description of the package can be read where no file lies beside it."""

from __future__ import annotations

import importlib.util
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
WHERE = "https://example.org/krelax"


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the build imports, with a stand-in for the backend, which is not there when tests run."""
    interface: Any = types.ModuleType("hatchling.metadata.plugin.interface")
    interface.MetadataHookInterface = object
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    for variable in ("KRELAX_REPOSITORY", "GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_SHA"):
        monkeypatch.delenv(variable, raising=False)
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)]*)\)", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def described(build: Any) -> str:
    hook, metadata = build.CustomMetadataHook(), dict[str, Any]()
    hook.root = str(ROOT)
    hook.update(metadata)
    assert metadata["readme"]["content-type"] == "text/markdown"
    return str(metadata["readme"]["text"])


def test_links_lead_to_the_repository(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://example.org")
    monkeypatch.setenv("GITHUB_REPOSITORY", "krelax")
    monkeypatch.setenv("GITHUB_SHA", "abc")
    own, text = links((ROOT / "README.md").read_text(encoding="utf-8")), described(build)
    found = links(text)
    assert len(found) == len(own) > 20
    relative = [link for link in own if not link.startswith("http")]
    ours = [link for link in found if link.startswith(WHERE)]
    assert len(ours) == len(relative)
    for link in ours:
        kind, _, path = link.removeprefix(f"{WHERE}/").partition("/abc/")
        assert kind == ("raw" if path.endswith(".svg") else "blob")
        assert (ROOT / path.partition("#")[0]).is_file()
    assert not [link for link in found if not link.startswith("https://")]


def test_where_nobody_knows_the_repository_links_are_text(build: Any) -> None:
    text = described(build)
    assert not [link for link in links(text) if not link.startswith("https://")]
    assert "Each outcome has its\nexit code." in text


def test_code_is_left_as_it_is(build: Any) -> None:
    text = "`a[0](b)`\n\n```\n[x](y)\n```\n\n[x](y) ![z](w.svg) [h](https://h.org)\n"
    assert build.anywhere(text, WHERE, "v1") == (
        f"`a[0](b)`\n\n```\n[x](y)\n```\n\n[x]({WHERE}/blob/v1/y) ![z]({WHERE}/raw/v1/w.svg) [h](https://h.org)\n"
    )
    assert build.anywhere(text, None, "v1").endswith("\nx z [h](https://h.org)\n")
