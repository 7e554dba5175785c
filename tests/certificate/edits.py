"""Crafted edits of the fields of a certificate, for the tests of `crafted.py`.

`TRUE` edits leave something that may be a proof; whatever is accepted must be true. `MALFORMED` ones fit nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tests.certificate.corpus import i4

from krelax.certificate.format.schema import (
    Boxes,
    Choices,
    Forms,
    GroupSet,
    Layer,
    Lemma,
    Question,
    Refutation,
    Region,
    Shares,
    Step,
)

Edit = Callable[[Any], Any]

TRUE: dict[tuple[type, str], dict[str, Edit]] = {
    (Choices, "slopes"): {
        "all greatest": lambda a: np.full_like(a, 255),
        "all least": np.zeros_like,
        "complements": lambda a: 255 - a,
        "neurons reversed": lambda a: a[:, ::-1],
        "rows reversed": lambda a: a[::-1],
    },
    (Choices, "upper"): {
        "none": lambda a: np.full_like(a, -1),
        "nothing": np.zeros_like,
        "steep": lambda a: np.full_like(a, 1e30),
        "neurons reversed": lambda a: a[:, ::-1],
        "subnormal": lambda a: np.full_like(a, 1e-45),
    },
    (Choices, "owner"): {"all the first": np.zeros_like, "reversed": lambda a: a[::-1]},
    (Choices, "lines"): {
        "negated": lambda a: -a,
        "swapped": lambda a: a[:, :, ::-1],
        "neurons reversed": lambda a: a[:, ::-1],
        "huge": lambda a: a * np.float32(1e30),
        "largest": lambda a: np.full_like(a, 3.4e38),
        "subnormal": lambda a: np.full_like(a, 1e-45),
        "minus zero": lambda a: np.full_like(a, -0.0),
    },
    (Choices, "absolute"): {
        "negated": lambda a: -a,
        "neurons reversed": lambda a: a[:, ::-1],
        "huge": lambda a: np.full_like(a, 1e30),
        "largest": lambda a: np.full_like(a, -3.4e38),
        "subnormal": lambda a: np.full_like(a, -1e-45),
    },
    (Choices, "row"): {
        "all the first": np.zeros_like,
        "none": lambda a: np.full_like(a, -1),
        "of the next leaf": lambda a: np.roll(a, 1),
    },
    (Choices, "entries"): {
        "reversed": lambda a: a[::-1],
        "all the first": np.zeros_like,
    },
    (Choices, "clips"): {
        "none": np.zeros_like,
        "all greatest": lambda a: np.full_like(a, 255),
        "all least": np.ones_like,
        "clips reversed": lambda a: a[::-1],
        "lines reversed": lambda a: a[:, ::-1],
    },
    (Refutation, "level"): {"tiny": lambda a: 5e-324, "huge": lambda a: 1.7e308, "doubled": lambda a: 2 * a},
    (Refutation, "steps"): {
        "none": lambda a: [],
        "reversed": lambda a: a[::-1],
        "the first only": lambda a: a[:1],
        "twice": lambda a: a * 2,
    },
    (Refutation, "claim"): {"none": lambda a: None},
    (Lemma, "level"): {"tiny": lambda a: 5e-324, "huge": lambda a: 1.7e308, "doubled": lambda a: 2 * a},
    (Shares, "coeff"): {
        "negated": lambda a: -a,
        "nothing": np.zeros_like,
        "huge": lambda a: np.full_like(a, 1e30),
        "huge, below": lambda a: np.full_like(a, -1e30),
        "subnormal": lambda a: np.full_like(a, 1e-45),
        "members reversed": lambda a: a[:, :, ::-1],
        "leaves reversed": lambda a: a[::-1],
    },
    (Shares, "slope"): {
        "negated": lambda a: -a,
        "nothing": np.zeros_like,
        "largest": lambda a: np.full_like(a, 3.4e38),
        "members reversed": lambda a: a[:, :, ::-1],
    },
    (Shares, "share"): {
        "negated": lambda a: -a,
        "nothing": np.zeros_like,
        "everything": lambda a: np.full_like(a, 32767),
        "the least": lambda a: np.full_like(a, -32768),
        "members reversed": lambda a: a[:, :, ::-1],
        "leaves reversed": lambda a: a[::-1],
    },
    (Shares, "tilt"): {
        "negated": lambda a: -a,
        "nothing": np.zeros_like,
        "everything": lambda a: np.full_like(a, 32767),
        "members reversed": lambda a: a[:, :, ::-1],
    },
    (Shares, "basis"): {
        "no rows": lambda a: np.full_like(a, 255),
        "rows beyond the last": lambda a: np.full_like(a, 254),
        "the first row only": np.zeros_like,
        "patterns reversed": lambda a: a[:, :, ::-1],
        "rays first": lambda a: a[..., ::-1],
    },
    (Lemma, "multipliers"): {
        "none": np.zeros_like,
        "reversed": lambda a: a[::-1],
        "huge": lambda a: np.full_like(a, 1e30),
        "largest": lambda a: np.full_like(a, 3.4e38),
        "subnormal": lambda a: np.full_like(a, 1e-45),
        "minus zero": lambda a: np.full_like(a, -0.0),
    },
    (Forms, "coefficient"): {
        "negated": lambda a: -a,
        "doubled": lambda a: 2 * a,
        "nothing": np.zeros_like,
        "minus zero": lambda a: np.full_like(a, -0.0),
        "a little more": lambda a: np.nextafter(a, np.inf),
        "huge": lambda a: 1e300 * a,
        "subnormal": lambda a: 5e-324 * a,
        "reversed": lambda a: a[::-1],
    },
    (Forms, "entry"): {"shifted": lambda a: np.where(a > 0, a - 1, a)},
    (GroupSet, "members"): {
        "reversed": lambda a: a[:, ::-1],
        "groups reversed": lambda a: a[::-1],
        "of no groups": lambda a: a[:0],
    },
    (GroupSet, "rows"): {
        "negated": lambda a: -a,
        "nothing": np.zeros_like,
        "reversed": lambda a: a[::-1],
        "members reversed": lambda a: a[:, ::-1],
        "absolute": abs,
    },
    (Region, "lower"): {
        "farther": lambda a: a - 1,
        "much farther": lambda a: a - 1e6,
        "as far as can be": lambda a: np.full_like(a, -1.7e308),
        "a little farther": lambda a: np.nextafter(a, -np.inf),
    },
    (Region, "upper"): {
        "farther": lambda a: a + 1,
        "as far as can be": lambda a: np.full_like(a, 1.7e308),
        "reversed": lambda a: a[::-1],
    },
    (Question, "rows"): {
        "negated": lambda a: -a,
        "tripled": lambda a: 3 * a,
        "nothing": np.zeros_like,
        "huge": lambda a: np.full_like(a, 1e308),
        "subnormal": lambda a: np.full_like(a, 5e-324),
        "outputs reversed": lambda a: a[:, ::-1],
        "margins reversed": lambda a: a[::-1],
    },
    (Question, "offsets"): {
        "less": lambda a: a - 1,
        "negated": lambda a: -a,
        "reversed": lambda a: a[::-1],
        "much less": lambda a: np.full_like(a, -1e308),
        "much more": lambda a: np.full_like(a, 1e308),
    },
    (Question, "clause"): {"all one": np.zeros_like, "one each": lambda a: np.arange(len(a), dtype=np.int32)},
    (Boxes, "cut"): {"of the other input": lambda a: np.where(a >= 0, 1 - a, a).astype(np.int32)},
    (Boxes, "at"): {
        "at zero": np.zeros_like,
        "a little elsewhere": lambda a: a * 0.99,
        "subnormal": lambda a: np.full_like(a, 5e-324),
        "in leaves, too": lambda a: np.where(a == 0, 1e300, a),
    },
}  # fmt: skip

MALFORMED: dict[tuple[type, str], dict[str, Edit]] = {
    (Refutation, "margin"): {
        "of none": lambda a: a + 9,
        "negative": lambda a: -1 - a,
        "a huge number": lambda a: 1 << 80,
    },
    (Refutation, "level"): {"zero": lambda a: 0.0, "negated": lambda a: -a},
    (Step, "activation"): {"of none": lambda a: a + 9, "the assumed one": lambda a: 3, "negative": lambda a: -1 - a},
    (Choices, "slopes"): {"a neuron less": lambda a: a[:, 1:], "no neurons": lambda a: a[:, :0]},
    (Choices, "upper"): {"a neuron less": lambda a: a[:, 1:], "no rows": lambda a: a[:0]},
    (Choices, "owner"): {
        "a row less": lambda a: a[1:],
        "beyond the last": lambda a: np.full_like(a, 1 << 20),
        "below the first": lambda a: np.full_like(a, -1),
    },
    (Choices, "clips"): {
        "a clip less": lambda a: a[1:],
        "a line less": lambda a: a[:, 1:],
        "a line more": lambda a: np.append(a, a[:, :1], 1),
    },
    (Choices, "lines"): {"three of them": lambda a: np.concatenate([a, a[:, :, :1]], 2)},
    (Choices, "absolute"): {"a neuron more": lambda a: np.append(a, a[:, :1], 1)},
    (Choices, "row"): {
        "a leaf less": lambda a: a[1:],
        "beyond the tables": lambda a: np.full_like(a, 1 << 30),
        "below none": lambda a: np.full_like(a, -2),
        "the least number": lambda a: np.full_like(a, -(1 << 31)),
    },
    (Choices, "entries"): {
        "beyond the last": lambda a: np.full_like(a, 1 << 20),
        "below the first": lambda a: np.full_like(a, -1),
    },
    (Choices, "activation"): {
        "itself or later": lambda a: a + 3,
        "negative": lambda a: -1 - a,
        "a huge number": lambda a: 1 << 200,
    },
    (Shares, "coeff"): {
        "a leaf less": lambda a: a[1:],
        "a group more": lambda a: np.append(a, a[:, :1], 1),
        "a member less": lambda a: a[:, :, 1:],
    },
    (Shares, "slope"): {"a leaf more": lambda a: np.append(a, a[:1], 0)},
    (Shares, "share"): {
        "a leaf less": lambda a: a[1:],
        "a group more": lambda a: np.append(a, a[:, :1], 1),
    },
    (Shares, "tilt"): {"a member less": lambda a: a[:, :, 1:], "none": lambda a: None},
    (Shares, "basis"): {
        "a pattern less": lambda a: a[:, :, 1:],
        "a row more": lambda a: np.append(a, a[..., :1], 3),
    },
    (Shares, "set"): {"of none": lambda a: a + 9, "negative": lambda a: -1, "a huge number": lambda a: 1 << 80},
    (Lemma, "tree"): {
        "a leaf dropped": lambda a: a[:-1],
        "a leaf more": lambda a: np.append(a, i4(-1)),
        "all dropped": lambda a: a[:0],
        "minus two": lambda a: np.where(a < 0, -2, a).astype(np.int32),
        "of the last neuron": lambda a: np.where(a < 0, 1 << 30, a).astype(np.int32),
        "reversed": lambda a: np.append(a[::-1], a),
        "all split": np.zeros_like,
    },
    (Lemma, "multipliers"): {
        "negated": lambda a: -1 - a,
        "one more": lambda a: np.append(a, np.float32(0)),
        "one less": lambda a: a[1:],
        "one subnormal below zero": lambda a: np.full_like(a, -1e-45),
    },
    (Forms, "form"): {
        "from one": lambda a: a + 1,
        "negative": lambda a: -1 - a,
        "reversed": lambda a: a[::-1] if len(set(a.tolist())) > 1 else a - 1,
        "far apart": lambda a: a << 20 if a.max() > 0 else a + 5,
    },
    (Forms, "entry"): {
        "beyond the last": lambda a: a + (1 << 20),
        "negative": lambda a: -1 - a,
        "one less": lambda a: a[1:],
    },
    (GroupSet, "members"): {
        "twice the same": lambda a: np.repeat(a[:, :1], a.shape[1], 1),
        "beyond the last": lambda a: a + (1 << 20),
        "negative": lambda a: -1 - a,
        "of one": lambda a: a[:, :1],
        "a million groups": lambda a: np.tile(a[:1], (1 << 20, 1)),
        "of seven": lambda a: np.tile(np.arange(7, dtype=np.int32), (len(a), 1)),
    },
    (GroupSet, "rows"): {
        "of two": lambda a: 2 * a + 2,
        "of -128": lambda a: np.full_like(a, -128),
        "of another size": lambda a: np.append(a, a[:, :1], 1),
        "as many as numbers": lambda a: np.resize(a, (256, a.shape[1])),
    },
    (Region, "lower"): {"above": lambda a: a + 1e6, "of one input": lambda a: a[:1]},
    (Region, "upper"): {"below": lambda a: a - 1e6, "of three inputs": lambda a: np.append(a, a[:1])},
    (Region, "kind"): {"the other": lambda a: "l2" if a == "box" else "box"},
    (Region, "centre"): {"outside": lambda a: a + 1e6, "of one input": lambda a: a[:1], "none": lambda a: None},
    (Region, "eps"): {"negative": lambda a: -a, "none": lambda a: None},
    (Question, "rows"): {
        "an output more": lambda a: np.append(a, a[:, :1], 1),
        "one more": lambda a: np.append(a, a, 0),
    },
    (Question, "offsets"): {"none": lambda a: a[:0]},
    (Question, "clause"): {
        "from one": lambda a: a + 1,
        "negative": lambda a: a - 1,
        "a huge number": lambda a: np.full_like(a, (1 << 31) - 1),
    },
    (Question, "layers"): {
        "one less": lambda a: a[1:] if a else [Layer("adaptive")],
        "one more": lambda a: [*a, Layer("interval")],
    },
    (Boxes, "cut"): {
        "cut short": lambda a: a[:-1],
        "one more": lambda a: np.append(a, i4(-1)),
        "of no input": lambda a: np.where(a >= 0, 2, a).astype(np.int32),
        "minus two": lambda a: np.where(a < 0, -2, a).astype(np.int32),
        "all cut": np.zeros_like,
    },
    (Boxes, "at"): {"outside": lambda a: a + 1e6, "as far as can be": lambda a: np.full_like(a, -1.7e308)},
}  # fmt: skip
