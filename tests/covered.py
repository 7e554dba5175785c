"""What the tests cover, as a table by package: `make coverage`.

Reads what `coverage json` writes. The exit code is 1 if less is covered than is asked for.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path, PurePath
from typing import Any

# Shares of statements and branches.
ALL, CHECKER = 0.92, 1.0
# What `krelax check` reads, and nothing else that is ours: a certificate is worth what this is worth.
_CHECKER = ("certificate/", "cli/check.py", "errors.py")
_COUNTS = ("num_statements", "num_branches", "covered_lines", "covered_branches")


def counts(files: dict[str, Any]) -> dict[str, Counter[str]]:
    """Statements and branches by package, of the checker, and of everything."""
    found: dict[str, Counter[str]] = {}
    for name, about in files.items():
        path = PurePath(name).as_posix().split("src/krelax/", 1)[1]
        parts = path.split("/")
        package = "/".join(parts[: 2 if parts[0] == "certificate" and len(parts) > 2 else 1])
        rows = [package if len(parts) > 1 else "others", "**everything**"]
        rows += ["**the checker**"] * path.startswith(_CHECKER)
        for row in rows:
            found.setdefault(row, Counter()).update({key: about["summary"][key] for key in _COUNTS})
    return found


def share(count: Counter[str]) -> float:
    """Covered statements and branches, of all."""
    return (count["covered_lines"] + count["covered_branches"]) / (count["num_statements"] + count["num_branches"])


def table(found: dict[str, Counter[str]]) -> str:
    lines = ["| | statements | branches | covered |", "|---|---:|---:|---:|"]
    for name in sorted(found, key=lambda n: (n.startswith("*"), n)):
        count = found[name]
        percent = int(1000 * share(count)) / 10  # nothing is 100 that is not
        lines.append(f"| {name} | {count['num_statements']:,} | {count['num_branches']:,} | {percent:.1f} % |")
    return "\n".join(lines)


def main(path: Path) -> int:
    found = counts(json.loads(path.read_text(encoding="utf-8"))["files"])
    print(table(found))
    return int(share(found["**everything**"]) < ALL or share(found["**the checker**"]) < CHECKER)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
