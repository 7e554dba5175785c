"""Questions about regions that are unions of boxes, or in which few pixels are free, for one image at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.problem.exact import Floats, Numbers
from krelax.problem.few import Few
from krelax.problem.queries import classification
from krelax.problem.region import Box
from krelax.problem.regions import Categories, Patch, Pixels
from krelax.problem.scaling import Scaling
from krelax.problem.shown import Shown
from krelax.search.around import Around, Radius
from krelax.search.questions import Questions

# More boxes are not looked at for one item.
_MOST_BOXES = 1 << 16


@dataclass(frozen=True, eq=False)
class Ends:
    """A box of a model's inputs: the float64 numbers from `least` to `most`, and an enclosure of all real ones."""

    lower: Floats
    upper: Floats
    least: Floats
    most: Floats

    @classmethod
    def of(cls, around: Around) -> Ends:
        """Of the only region around an image. Its norm is linf."""
        region, (least, most) = around.region(), around.box(0)
        return cls(region.lower[0].numpy(), region.upper[0].numpy(), least, most)

    def mixed(self, mask: NDArray[np.bool_], other: Ends) -> Ends:
        """The sides of another one where a mask, `(boxes, *shape)`, is set."""
        names = ("lower", "upper", "least", "most")
        return Ends(*(np.where(mask, getattr(other, n), getattr(self, n)) for n in names))


class Block(NamedTuple):
    """Places next to each other, `rows` by `columns` of them, the first one at the top left."""

    top: int
    left: int
    rows: int
    columns: int

    def cut(self, size: int) -> list[Block]:
        """Blocks of at most so many rows and columns."""
        down, right = (range(0, n, size) for n in (self.rows, self.columns))
        return [
            Block(self.top + i, self.left + j, min(size, self.rows - i), min(size, self.columns - j))
            for i, j in product(down, right)
        ]


@dataclass(frozen=True, eq=False)
class AnyOf:
    """What may happen to one image: `region`, with `radius` on all values, in the range `ends`."""

    network: Network
    image: NDArray[np.float32]
    label: int
    region: Patch | Pixels | Categories
    radius: Radius = Fraction(0)
    ends: tuple[Fraction, Fraction] | None = None
    scaling: Scaling | None = None

    def questions(self) -> Questions:
        """One for each box, or one about few pixels. Raises InputError where the region does not fit the image."""
        if isinstance(self.region, Pixels) and self.region.count > 1:
            return self._few(self.region.count)
        if isinstance(self.region, Categories):
            return self._about(self._categories())
        return self.over(self.places.cut(1))

    @property
    def has_places(self) -> bool:
        """Whether the region is what lies somewhere: a patch, or one pixel."""
        return isinstance(self.region, Patch) or self.region == Pixels(1)

    @property
    def places(self) -> Block:
        """All places of a patch, or of one pixel. Raises InputError if there is none."""
        shown, size = Shown.of(self.image.shape), self.size
        if size[0] > shown.height or size[1] > shown.width:
            raise InputError(
                f"a patch of {size[0]} x {size[1]} pixels is larger than the image, {shown.height} x {shown.width}"
            )
        return Block(0, 0, shown.height - size[0] + 1, shown.width - size[1] + 1)

    def over(self, blocks: Sequence[Block]) -> Questions:
        """One question for each block of places: about all pixels that something in one of its places covers. For a
        single place this is the region, and else it contains those of all of its places."""
        return self._about(self._free(blocks))

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of what lies somewhere."""
        return (self.region.height, self.region.width) if isinstance(self.region, Patch) else (1, 1)

    def _about(self, boxes: Ends) -> Questions:
        count = len(boxes.lower)

        def nearest(i: int, x: Floats) -> NDArray[Any] | None:
            return Numbers.of(boxes.least[i], boxes.most[i], self.network.elements).nearest(x)

        def violated(i: int, x: NDArray[Any], y: NDArray[Any]) -> bool:
            inside = bool(((boxes.least[i] <= x) & (x <= boxes.most[i])).all())
            return inside and self._wrong(y)

        box = Box(torch.from_numpy(boxes.lower), torch.from_numpy(boxes.upper))
        queries = classification(torch.full((count,), self.label), self._classes())
        return Questions(box, queries, violated, None, nearest)

    def _classes(self) -> int:
        classes = int(np.prod(self.network.output_shape))
        if classes < 2:
            raise InputError(f"the network's output {list(self.network.output_shape)} is not a vector of class scores")
        return classes

    def _wrong(self, y: NDArray[Any]) -> bool:
        scores = y.flatten()
        return bool(np.delete(scores, self.label).max() >= scores[self.label])

    def _around(self, radius: Radius) -> Ends:
        return Ends.of(Around(self.image[None], (radius,), "linf", self.ends, self.scaling))

    @cached_property
    def _any(self) -> Ends:
        """Any values in the range."""
        if self.ends is None:
            raise InputError("pixels of any value need a range of values: give --clip LOW:HIGH")
        return self._around(self.ends[1] - self.ends[0])

    def _free(self, blocks: Sequence[Block]) -> Ends:
        """A box for each block of places."""
        shown, size = Shown.of(self.image.shape), self.size
        mask = np.zeros((len(blocks), shown.channels, shown.height, shown.width), dtype=bool)
        for i, block in enumerate(blocks):
            bottom, right = block.top + block.rows - 1 + size[0], block.left + block.columns - 1 + size[1]
            mask[i, :, block.top : bottom, block.left : right] = True
        flat = np.asarray(shown.flat(mask), dtype=bool)
        return self._around(self.radius).mixed(flat.reshape(len(blocks), *self.image.shape), self._any)

    def _few(self, count: int) -> Questions:
        shown = Shown.of(self.image.shape)
        kept, free = self._around(self.radius), self._any
        numbers = np.arange(shown.height * shown.width).reshape(1, shown.height, shown.width)
        pixel = np.asarray(shown.flat(np.repeat(numbers, shown.channels, 0))).reshape(self.image.shape)
        sides = (free.lower, free.upper, kept.lower, kept.upper, pixel.astype(np.float64))
        lower, upper, least, most, number = (torch.from_numpy(np.ascontiguousarray(t))[None] for t in sides)
        region = Few(lower, upper, least, most, number, count)

        def nearest(i: int, x: Floats) -> NDArray[Any] | None:
            near = region.project(torch.from_numpy(x)[None, None])[0, 0].numpy()
            inside = (kept.lower <= near) & (near <= kept.upper)
            ends = kept.mixed(~inside, free)
            return Numbers.of(ends.least, ends.most, self.network.elements).nearest(near)

        def violated(i: int, x: NDArray[Any], y: NDArray[Any]) -> bool:
            if not bool(((free.least <= x) & (x <= free.most)).all()):
                return False
            changed = pixel[(x < kept.least) | (x > kept.most)]
            return len(np.unique(changed)) <= count and self._wrong(y)

        queries = classification(torch.tensor([self.label]), self._classes())
        anchor = torch.from_numpy(kept.lower / 2 + kept.upper / 2)[None]
        return Questions(region, queries, violated, anchor, nearest)

    def _categories(self) -> Ends:
        """A box for each choice of categories."""
        assert isinstance(self.region, Categories)
        size, groups = self.image.size, self.region.groups
        for first, last in groups:
            if last >= size:
                raise InputError(f"there are no categories {first}-{last} among inputs 0 to {size - 1}")
        count = int(np.prod([last - first + 1 for first, last in groups]))
        if count > _MOST_BOXES:
            raise InputError(f"{count} choices of categories; at most {_MOST_BOXES} are looked at")
        found = [self._chosen(choice) for choice in self._choices()]
        names = ("lower", "upper", "least", "most")
        return Ends(*(np.stack([getattr(f, n) for f in found]) for n in names))

    def _choices(self) -> Iterator[tuple[int, ...]]:
        assert isinstance(self.region, Categories)
        return product(*(range(first, last + 1) for first, last in self.region.groups))

    def _chosen(self, choice: tuple[int, ...]) -> Ends:
        """The item with these inputs one, and the others of their groups zero; radii count for what is in no group."""
        assert isinstance(self.region, Categories)
        item = self.image.copy().reshape(-1)
        whole = self.radius if isinstance(self.radius, tuple) else (self.radius,) * item.size
        radii = list(whole)
        for (first, last), one in zip(self.region.groups, choice, strict=True):
            item[first : last + 1] = 0
            item[one] = 1
            radii[first : last + 1] = [Fraction(0)] * (last + 1 - first)
        image = item.reshape(self.image.shape)
        return Ends.of(Around(image[None], (tuple(radii),), "linf", self.ends, self.scaling))
