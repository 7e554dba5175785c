"""What the build does beside what pyproject.toml says: the README becomes a page that can be read anywhere.

On an index of packages there are no files beside it. So its links lead to the repository, at the state that is built,
where the build knows it: KRELAX_REPOSITORY is its address, or GitHub's workflow says it. Elsewhere they become text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

# Code between fences and in one line, which stays as it is, and a link or a picture.
_PART = re.compile(
    r"(?P<code>^```.*?^```|`[^`\n]*`)|(?P<bang>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)", re.M | re.S
)


def repository(environment: Mapping[str, str]) -> str | None:
    """The address of the files of the state that is built, up to what is done with them: `/blob/`, `/raw/`."""
    server, name = (environment.get(f"GITHUB_{part}", "") for part in ("SERVER_URL", "REPOSITORY"))
    return environment.get("KRELAX_REPOSITORY") or (f"{server}/{name}" if server and name else None)


def anywhere(text: str, where: str | None, state: str) -> str:
    """Markdown whose links do not depend on where it lies: they lead to the repository at `where`, or become text."""

    def found(match: re.Match[str]) -> str:
        if match["code"] or re.match(r"[a-z]+:", match["target"]):
            return match[0]
        if where is None:
            return match["text"]
        target = f"README.md{match['target']}" if match["target"].startswith("#") else match["target"]
        return f"{match['bang']}[{match['text']}]({where}/{'raw' if match['bang'] else 'blob'}/{state}/{target})"

    return _PART.sub(found, text)


class CustomMetadataHook(MetadataHookInterface):
    """Sets the long description."""

    def update(self, metadata: dict[str, Any]) -> None:
        """As hatchling calls it."""
        text, state = Path(self.root, "README.md").read_text(encoding="utf-8"), os.environ.get("GITHUB_SHA", "HEAD")
        page = anywhere(text, repository(os.environ), state)
        metadata["readme"] = {"content-type": "text/markdown", "text": page}
