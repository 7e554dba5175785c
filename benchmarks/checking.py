"""How long certificates take to check, with bounds of rounding errors and with exact numbers.

    python benchmarks/checking.py FOLDER ... [--most 10]

Each FOLDER holds certificates about one kind of network; the networks are found by their hashes. Certificates of
bundled networks and of the benchmark data can be checked. Prints the table of docs/certificates.md.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from statistics import median

from common import benchmark_folder
from krelax.certificate.check import check
from krelax.certificate.errors import Rejected
from krelax.certificate.format.archive import read
from krelax.certificate.format.schema import Certificate


def networks() -> dict[str, bytes]:
    """The networks by hash."""
    folders = (Path(str(files("krelax") / "data")), benchmark_folder())
    data = [path.read_bytes() for folder in folders for path in folder.rglob("*.onnx")]
    return {hashlib.sha256(d).hexdigest(): d for d in data}


def checked(made: Certificate, model: bytes, exact: bool) -> tuple[bool, float]:
    """Whether a certificate is accepted, and CPU seconds."""
    began = time.process_time()
    try:
        check(made, model, exact)
    except Rejected:
        return False, time.process_time() - began
    return True, time.process_time() - began


def row(folder: Path, known: dict[str, bytes], most: int) -> Iterator[str]:
    """The cells of one line."""
    paths = sorted(folder.glob("*.zip"), key=lambda p: (len(p.name), p.name))[:most]
    found = [(made, known[made.network]) for made in map(read, paths)]
    yield from (folder.name, str(len(paths)), f"{median(p.stat().st_size for p in paths) / 1000:.0f}")
    for exact in (False, True):
        results = [checked(*one, exact) for one in found]
        seconds = [s for _, s in results]
        yield from (str(sum(ok for ok, _ in results)), f"{median(seconds):.2f}", f"{max(seconds):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--most", type=int, default=10, help="certificates of each folder")
    arguments = parser.parse_args()
    known = networks()
    head = ["certificates", "number", "kB", "accepted", "seconds", "at most", "accepted, exact", "seconds", "at most"]
    for cells in (head, ["---"] * len(head)):
        print(f"| {' | '.join(cells)} |")
    for folder in arguments.folders:
        print(f"| {' | '.join(row(folder, known, arguments.most))} |", flush=True)


if __name__ == "__main__":
    main()
