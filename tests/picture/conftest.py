"""Figures are drawn with one thread, and looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("matplotlib")
torch.set_num_threads(1)


@pytest.fixture
def legible(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Any], list[str]]:
    """Check how a figure looks; its texts."""
    from tests.picture.seen import check

    return lambda figure: check(figure, monkeypatch, tmp_path)
