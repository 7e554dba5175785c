"""Bounds in few digits, which are bounds still."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context


def shown(bound: float, up: bool, digits: int = 6) -> str:
    """So many digits at most: upper bounds are rounded upwards, lower ones downwards."""
    context = Context(prec=digits, rounding=ROUND_CEILING if up else ROUND_FLOOR)
    return f"{float(context.create_decimal(repr(float(bound)))):.{digits}g}"
