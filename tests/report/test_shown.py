from __future__ import annotations

import pytest

from krelax.report.shown import shown


@pytest.mark.parametrize(
    ("bound", "below", "above"),
    [
        (0.1317, "0.1317", "0.1317"),
        (12.13200001, "12.132", "12.1321"),
        (0.99999999, "0.999999", "1"),
        (-2.4485901, "-2.4486", "-2.44859"),
        (0.0, "0", "0"),
        (60.0, "60", "60"),
        (float("inf"), "inf", "inf"),
    ],
)
def test_bounds_are_bounds_still(bound: float, below: str, above: str) -> None:
    assert (shown(bound, up=False), shown(bound, up=True)) == (below, above)
