"""Where the benchmark data lies."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def benchmark_folder() -> Path:
    """The folder named by KRELAX_BENCHMARKS (default `../shared/benchmarks`); ends the program if it is not there."""
    default = Path(__file__).resolve().parents[2] / "shared" / "benchmarks"
    folder = Path(os.environ.get("KRELAX_BENCHMARKS", default))
    if not folder.is_dir():
        sys.exit(f"{folder}: no such folder; set KRELAX_BENCHMARKS to the benchmark data")
    return folder
