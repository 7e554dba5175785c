"""Where the numbers of an operand go: what a node that only moves them says, for activations and constants alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from krelax.errors import InputError, UnsupportedError
from krelax.network.onnx_reader import Reader
from krelax.network.pooling import Window
from krelax.op import Shape


def reshaped(r: Reader) -> Shape:
    """Shape of the result of Reshape, Flatten, Squeeze or Unsqueeze."""
    shape = r.shape()
    target = {"Reshape": _reshape, "Flatten": _flatten, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze}[r.node.op_type](r)
    if min(target, default=1) < 0 or prod(target) != prod(shape):
        raise InputError(f"cannot reshape {list(shape)} to {list(target)}")
    return tuple(target)


def _reshape(r: Reader) -> list[int]:
    target, shape = r.integers("shape", 1), r.shape()
    if target is None:
        raise InputError("no target shape")
    if r.attribute("allowzero"):
        if 0 in target:
            raise UnsupportedError("a shape with an axis of no entries")
    elif any(n == 0 and i >= len(shape) for i, n in enumerate(target)):
        raise InputError(f"shape {target} copies an axis that {list(shape)} does not have")
    else:
        target = [shape[i] if n == 0 else n for i, n in enumerate(target)]
    if target.count(-1) == 1:
        known = -prod(target)
        target[target.index(-1)] = prod(shape) // known if known else 0
    return target


def _flatten(r: Reader) -> list[int]:
    shape, axis = r.shape(), r.attribute("axis")
    if not -len(shape) <= axis <= len(shape):
        raise InputError(f"axis {axis} of a tensor of rank {len(shape)}")
    axis = axis + len(shape) if axis < 0 else axis
    return [prod(shape[:axis]), prod(shape[axis:])]


def _squeeze(r: Reader) -> list[int]:
    shape, axes = r.shape(), r.integers("axes", 1)
    if axes == []:
        raise UnsupportedError("an empty list of axes, which runtimes read in different ways")
    drop = [i for i, n in enumerate(shape) if n == 1] if axes is None else r.axes(axes, len(shape))
    if any(shape[i] != 1 for i in drop):
        raise InputError(f"cannot drop axes {drop} of shape {list(shape)}")
    return [n for i, n in enumerate(shape) if i not in drop]


def _unsqueeze(r: Reader) -> list[int]:
    axes, shape = r.integers("axes", 1), list(r.shape())
    if axes is None:
        raise InputError("no axes")
    for axis in sorted(r.axes(axes, len(shape) + len(axes))):
        shape.insert(axis, 1)
    return shape


def permutation(r: Reader) -> tuple[int, ...]:
    """The order of axes of a Transpose."""
    rank, order = len(r.shape()), r.attribute("perm")
    order = tuple(reversed(range(rank))) if order is None else tuple(order)
    if sorted(order) != list(range(rank)):
        raise InputError(f"perm {list(order)} does not permute {rank} axes")
    return order


def slices(r: Reader) -> list[tuple[int, NDArray[np.int64]]]:
    """The entries that a Slice keeps, axis by axis."""
    shape = r.shape()
    starts, ends = r.integers("starts", 1), r.integers("ends", 2)
    axes, steps = r.integers("axes", 3), r.integers("steps", 4)
    if starts is None or ends is None:
        raise InputError("no starts or ends")
    places = r.axes(list(range(len(starts))) if axes is None else axes, len(shape))
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(places) == len(steps) or 0 in steps:
        raise InputError("starts, ends, axes and steps do not fit, or a step is zero")
    found = []
    for start, end, axis, step in zip(starts, ends, places, steps, strict=True):
        if step < 0 and start < -shape[axis]:
            place = f"starts at {start}, before the first entry of {shape[axis]}, and goes back"
            raise UnsupportedError(f"a slice that {place}, which runtimes read in different ways")
        kept = range(shape[axis])[start:end:step]  # Python clamps as ONNX does
        found.append((axis, np.arange(kept.start, kept.stop, kept.step)))
    return found


def gathered(r: Reader) -> tuple[int, NDArray[np.int64]]:
    """The axis of a Gather and its indices, counted from the front, in their shape."""
    shape, index = r.shape(), r.given(1).integers
    axis = r.axis(r.attribute("axis"), len(shape))
    size = shape[axis]
    if index.size and not (index.min() >= -size and index.max() < size):
        raise InputError(f"indices beyond axis {axis}, which has size {size}")
    return axis, np.where(index < 0, index + size, index).astype(np.int64)


def parts(r: Reader) -> tuple[int, list[int]]:
    """The axis of a Split and the sizes of the parts."""
    shape, count = r.shape(), len(r.node.output)
    axis = r.axis(r.attribute("axis"), len(shape))
    sizes, wanted = r.integers("split", 1), r.attribute("num_outputs")
    if (sizes is not None and wanted is not None) or wanted not in {None, count}:
        raise InputError(f"{count} parts, but split or num_outputs gives another number of them")
    if sizes is None:
        part = -(-shape[axis] // count)
        if r.version < 18 and part * count != shape[axis]:
            raise InputError(f"an axis of size {shape[axis]} does not split into {count} equal parts")
        sizes = [min(part, shape[axis] - i * part) for i in range(count)]
    if sum(sizes) != shape[axis] or len(sizes) != count or min(sizes) < 1:
        raise InputError(f"parts {sizes} of an axis of size {shape[axis]}")
    return axis, sizes


def padding(r: Reader) -> tuple[list[int], list[int]]:
    """The entries that a Pad adds before and after each axis."""
    pads, rank = r.integers("pads", 1), len(r.shape())
    given = None if r.version < 18 else r.integers("", 3)
    axes = list(range(rank)) if given is None else r.axes(given, rank)
    if pads is None or len(pads) != 2 * len(axes):
        raise InputError(f"{0 if pads is None else len(pads)} pads for {len(axes)} axes")
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = pads[i], pads[i + len(axes)]
    return before, after


def expanded(r: Reader) -> Shape:
    """Shape of the result of an Expand."""
    target, shape = r.integers("", 1) or [], r.shape()
    if min(target, default=1) < 1:
        raise InputError(f"cannot expand {list(shape)} to {target}")
    try:
        return np.broadcast_shapes(shape, tuple(target))
    except ValueError:
        raise InputError(f"cannot expand {list(shape)} to {target}") from None


def reduced(r: Reader) -> tuple[list[int], bool]:
    """The axes of a reduction, and whether they stay with size one."""
    rank, axes = len(r.shape()), r.integers("axes", 1)
    if axes == [] and "axes" in r.schema.attributes:
        raise UnsupportedError("an empty list of axes, which runtimes read in different ways")
    if not axes:
        axes = [] if r.attribute("noop_with_empty_axes") else list(range(rank))
    return r.axes(axes, rank), bool(r.attribute("keepdims"))


def window(r: Reader, kernel: Sequence[int]) -> Window:
    """Geometry of a convolution or a pool, from the node's attributes."""
    return _window(r, kernel, _pads)


def plain_window(r: Reader, kernel: Sequence[int]) -> Window:
    """Geometry of a window whose pads are as the attribute says, whatever `auto_pad` is."""
    return _window(r, kernel, lambda r, kernel, stride, dilation: _given_pads(r, kernel))


def _window(r: Reader, kernel: Sequence[int], pads: Callable[..., tuple[Shape, Shape]]) -> Window:
    rank, shape = len(kernel), r.shape()
    if rank not in {1, 2, 3}:
        raise UnsupportedError(f"a window over {rank} axes; krelax knows one to three")
    if r.attribute("kernel_shape") not in (None, list(kernel)):
        raise InputError(f"kernel_shape {list(r.attribute('kernel_shape'))} for a kernel of shape {list(kernel)}")
    if len(shape) != rank + 2:
        raise InputError(f"operand of rank {len(shape)} for a window over {rank} axes")
    stride, dilation = (tuple(r.attribute(name) or [1] * rank) for name in ("strides", "dilations"))
    if len(stride) != rank or len(dilation) != rank or min(*kernel, *stride, *dilation) < 1:
        raise InputError("kernel, strides or dilations do not fit one another")
    ceil = r.attribute("ceil_mode") or 0
    before, after = pads(r, kernel, stride, dilation)
    if ceil not in {0, 1} or (ceil and r.attribute("auto_pad") != "NOTSET"):
        raise UnsupportedError("ceil_mode together with auto_pad")
    return Window(tuple(kernel), stride, before, after, dilation, bool(ceil))


def transposed_window(r: Reader, kernel: Sequence[int]) -> tuple[Window, Shape]:
    """Geometry of a transposed convolution, with the pads that `auto_pad` or `output_shape` stand for, and what is
    added behind each axis."""
    w, auto, wanted = plain_window(r, kernel), r.attribute("auto_pad"), r.attribute("output_shape")
    rank, extra = len(w.kernel), tuple(r.attribute("output_padding") or [0] * len(w.kernel))
    if len(extra) != rank or not all(0 <= e < max(s, d) for e, s, d in zip(extra, w.stride, w.dilation, strict=True)):
        raise UnsupportedError(f"output_padding {list(extra)} that is not below strides or dilations")
    if wanted is None and auto not in {"SAME_UPPER", "SAME_LOWER"}:
        return w, extra
    before, after = [], []
    for i, (n, k, s, d) in enumerate(zip(r.shape()[2:], w.kernel, w.stride, w.dilation, strict=True)):
        size = n * s if wanted is None else list(wanted)[-rank:][i]
        total = s * (n - 1) + extra[i] + d * (k - 1) + 1 - size
        if total < 0 or size < 1:
            raise UnsupportedError(f"an output of {size} entries, more than the kernel reaches; use output_padding")
        small, large = total // 2, total - total // 2
        upper = auto == "SAME_UPPER"
        before.append(small if upper else large)
        after.append(large if upper else small)
    return replace(w, before=tuple(before), after=tuple(after)), extra


def _pads(r: Reader, kernel: Sequence[int], stride: Shape, dilation: Shape) -> tuple[Shape, Shape]:
    """Padding before and after each axis of a window."""
    given, auto = _given_pads(r, kernel), r.attribute("auto_pad")
    if auto in {"SAME_UPPER", "SAME_LOWER"}:
        if set(dilation) != {1}:
            raise UnsupportedError(f"dilations together with auto_pad {auto}; export with pads")
        extent = zip(r.shape()[2:], kernel, stride, strict=True)
        total = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in extent]
        small, large = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
        return (small, large) if auto == "SAME_UPPER" else (large, small)
    return given


def _given_pads(r: Reader, kernel: Sequence[int]) -> tuple[Shape, Shape]:
    rank, pads, auto = len(kernel), r.attribute("pads"), r.attribute("auto_pad")
    if auto not in {"NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"}:
        raise InputError(f"auto_pad {auto!r}")
    if auto != "NOTSET" and pads is not None and any(pads):
        raise UnsupportedError(f"pads together with auto_pad {auto}; export with pads alone")
    pads = [0] * 2 * rank if pads is None or auto == "VALID" else list(pads)
    if len(pads) != 2 * rank or min(pads) < 0:
        raise InputError(f"pads {pads} for a window over {rank} axes")
    return tuple(pads[:rank]), tuple(pads[rank:])
