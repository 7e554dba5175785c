"""Benchmark polytopes with known vertices."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(os.environ.get("KRELAX_BENCHMARKS", Path(__file__).parents[2] / "../shared/benchmarks")) / "hull"


@pytest.fixture
def hull_data() -> Callable[[str], dict[str, np.ndarray]]:
    """Read a file of the benchmark folder `hull`."""

    def read(name: str) -> dict[str, np.ndarray]:
        path = FOLDER / f"{name}.npz"
        if not path.exists():
            pytest.skip(f"needs {path.name} of the benchmark polytopes; set KRELAX_BENCHMARKS")
        with np.load(path) as file:
            return dict(file)

    return read
