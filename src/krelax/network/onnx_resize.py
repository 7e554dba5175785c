"""Resize and Upsample of ONNX files, which are affine: nearest entries, or products with a matrix along each axis."""

from __future__ import annotations

from fractions import Fraction
from math import floor

from krelax.errors import InputError, UnsupportedError
from krelax.network import compose
from krelax.network import interpolation as by
from krelax.network.contractions import along
from krelax.network.onnx_reader import Reader

# What Upsample and the first Resize mean, which have no attributes for it.
_OLD = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def resized(r: Reader) -> int:
    """Resize or Upsample."""
    x, mode = r.value(), r.attribute("mode")
    for name, wanted in (("antialias", 0), ("keep_aspect_ratio_policy", "stretch")):
        if r.attribute(name) not in {None, wanted}:
            raise UnsupportedError(f"{name}={r.attribute(name)}; export with {name}={wanted}")
    for place, axis in _axes(r):
        r.builder.require(axis.after * axis.before)
        x = _along(r, x, place, axis, mode)
    return x


def _along(r: Reader, x: int, place: int, axis: by.Axis, mode: str) -> int:
    said = _said(r, "coordinate_transformation_mode")
    if said not in by.POSITIONS:
        raise UnsupportedError(f"coordinate_transformation_mode={said}; export with half_pixel or asymmetric")
    positions = by.POSITIONS[said](axis)
    if mode == "nearest":
        rounding = _said(r, "nearest_mode")
        if rounding not in by.ROUNDINGS:
            raise InputError(f"nearest_mode {rounding!r}")
        if (
            r.attribute("nearest_mode") is None
            and axis.after < axis.before
            and any(p.denominator > 1 for p in positions)
        ):
            raise UnsupportedError(
                "a smaller image in an operator set before 11, which runtimes read in different ways"
            )
        return compose.take_slice(r.builder, x, place, by.nearest(axis, positions, rounding))
    if mode == "linear":
        return along(r.builder, x, place, by.linear(axis, positions))
    if mode == "cubic":
        a = Fraction(float(r.attribute("cubic_coeff_a")))
        return along(r.builder, x, place, by.cubic(axis, positions, a, bool(r.attribute("exclude_outside"))))
    raise InputError(f"mode {mode!r}")


def _said(r: Reader, name: str) -> str:
    return str(r.attribute(name) or _OLD[name])


def _axes(r: Reader) -> list[tuple[int, by.Axis]]:
    """The axes that change, in order, and how."""
    shape, own = r.shape(), r.attribute("axes")
    places = list(range(len(shape))) if own is None else r.axes(own, len(shape))
    scales, sizes = _scales(r), None
    if r.version >= 11 and r.has(3) and r.given(3).shape != (0,):
        sizes = r.integers("", 3)
    if (scales is None) == (sizes is None):
        raise InputError("either scales or sizes are wanted")
    if len(places) != len(scales or sizes or ()):
        raise InputError(f"{len(scales or sizes or ())} scales or sizes for {len(places)} axes")
    found = []
    for i, place in enumerate(places):
        n = shape[place]
        scale = Fraction(sizes[i], n) if sizes is not None else (scales or [])[i]
        after = sizes[i] if sizes is not None else floor(n * scale)
        if scale <= 0 or after < 1:
            raise InputError(f"an axis of {n} entries times {float(scale):g}")
        if scale != 1 or after != n:
            found.append((place, by.Axis(n, after, scale)))
    return found


def _scales(r: Reader) -> list[Fraction] | None:
    """Scales of the axes as the file has them: of an attribute, or an operand; None if there are none."""
    if "scales" in r.schema.attributes:
        return [Fraction(float(s)) for s in r.attribute("scales") or []]
    place = 2 if r.node.op_type == "Resize" and r.version >= 11 else 1
    constant = r.constant(place)
    if constant is None or constant.shape == (0,):
        return None
    if constant.error is not None or constant.dim() != 1:
        raise UnsupportedError("scales that are not a list of numbers of the file")
    return [Fraction(float(s)) for s in constant.value]
