"""What a certificate holds, as dataclasses (see docs/certificates.md).

A certificate holds questions and, for each, the free choices of a proof: slopes, shares, multipliers, trees. It holds
no bound. The dataclasses below are the schema: what they declare is what `krelax.certificate.format.archive` writes,
and what it lets pass when it reads. What depends on the network (sizes, numbers of neurons) is checked elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

# What is no neuron in a tree.
LEAF, CLIP = -1, -2


class Stored(NamedTuple):
    """How an array is stored: its type, and a name for each axis. Axes of one object with the same name have the same
    length."""

    dtype: str
    axes: str


@dataclass
class Region:
    """The inputs `lower <= x <= upper`, flattened; for "l2" and "l1" those of them with `||x - centre|| <= eps`."""

    kind: Literal["box", "l2", "l1"]
    lower: Annotated[NDArray[np.float64], Stored("<f8", "inputs")]
    upper: Annotated[NDArray[np.float64], Stored("<f8", "inputs")]
    centre: Annotated[NDArray[np.float64], Stored("<f8", "inputs")] | None = None
    eps: float | None = None

    def describe(self) -> str:
        """The region in words."""
        width = (self.upper - self.lower) / 2
        box = f"box of {len(width)} inputs, half-widths {width.min():.6g} to {width.max():.6g}"
        return box if self.kind == "box" else f"{self.kind} ball of radius {self.eps:.6g} in a {box}"


@dataclass
class Forms:
    """Linear forms `sum coefficient * z[entry]` of a pre-activation, flattened: a term is an item of each array.

    Forms are numbered from 0, none left out. There are as many as the lemma has trees. Terms come in order of form,
    then entry, each once.
    """

    form: Annotated[NDArray[np.int32], Stored("<i4", "terms")]
    entry: Annotated[NDArray[np.int32], Stored("<i4", "terms")]
    coefficient: Annotated[NDArray[np.float64], Stored("<f8", "terms")]


@dataclass
class Shares:
    """What the groups of a set take over in each leaf, of one of two kinds.

    Outright: `coeff` of the coefficients behind the activation, and `slope` of those before it, for each member.
    `basis` names, for each sign pattern, k rows of the group's polytope that are active where the pattern's maximum is:
    r for row r of the set, m + i for the side of member i; 255 for none. One more row, if it is not 255, shows with
    them that the pattern is empty. Patterns are numbered in binary: bit i (of value 2**i) says that member i is at
    least zero. Pairs need none; without a basis, members of larger groups pay for themselves.

    In parts, in units of 1 / 32767: a `share` of each member's coefficient; its slope is that of the member's own line
    times the part, and `tilt` adds so much of the sum of the absolute parts of its group.

    Of products the groups take over all, in all leaves, and nothing is said of that.
    """

    set: int
    coeff: Annotated[NDArray[np.float32], Stored("<f4", "leaves groups k")] | None = None
    slope: Annotated[NDArray[np.float32], Stored("<f4", "leaves groups k")] | None = None
    basis: Annotated[NDArray[np.uint8], Stored("|u1", "leaves groups patterns rows")] | None = None
    share: Annotated[NDArray[np.int16], Stored("<i2", "leaves groups k")] | None = None
    tilt: Annotated[NDArray[np.int16], Stored("<i2", "leaves groups k")] | None = None


@dataclass
class Choices:
    """What all leaves of a lemma choose at one activation, given by its number.

    `row` names for each leaf a row of the tables, -1 for none. Rows are numbered through `slopes`, `lines` and
    `absolute`, in this order. It is missing if there are no tables. `entries` are the neurons (entries of the
    pre-activation, flattened) that `slopes` and `lines` are about; if it is missing, they are about all. Neurons of
    which nothing is chosen are adaptive. `slopes` are of lower lines. `owner` says for each of their rows which row of
    `upper` has the slopes of upper lines, negative for no choice.

    `clips` has the multiplier of the margin for each clip of the lemma and each form of the layer's `lines`, in steps
    of a ninth or so (`krelax.certificate.kernel.clipping`), 0 for none.
    """

    activation: int
    row: Annotated[NDArray[np.int32], Stored("<i4", "leaves")] | None = None
    entries: Annotated[NDArray[np.int32], Stored("<i4", "entries")] | None = None
    slopes: Annotated[NDArray[np.uint8], Stored("|u1", "slope_rows entries")] | None = None
    lines: Annotated[NDArray[np.float32], Stored("<f4", "line_rows entries pair")] | None = None
    absolute: Annotated[NDArray[np.float32], Stored("<f4", "absolute_rows neurons")] | None = None
    upper: Annotated[NDArray[np.float32], Stored("<f4", "upper_rows entries")] | None = None
    owner: Annotated[NDArray[np.int32], Stored("<i4", "slope_rows")] | None = None
    clips: Annotated[NDArray[np.uint8], Stored("|u1", "clips lines")] | None = None
    groups: list[Shares] = field(default_factory=list)


@dataclass
class Lemma:
    """Lower bounds of some forms. Each form has a tree over splits, and each leaf a witness.

    `tree` holds the trees of all forms one after the other, in preorder: -1 for a leaf, otherwise the neuron that is
    split. Its first subtree has `z >= p` and its second `z <= p`, where p is in `points`, which have a number for each
    node: zero for what is no neuron, and for neurons of activations with two linear pieces. Others may be split
    anywhere, and again on a path; entries of windows are compared with another one, `p`, which its number in the
    window is the point of. Without `points` all of them are zero. Neurons are numbered through the entries of
    all pre-activations. Leaves are numbered in order of appearance. `multipliers` has one number for each split on the
    path to each leaf: leaf by leaf, from the root. `crossings` are the choices at activations. Without them an
    activation is adaptive throughout. `forms` is missing for margins: there the forms are the question's, in order.

    In trees of margins, and over boxes, -2 is a *clip*. It has one subtree, and a witness as leaves have, and is
    numbered with them. There the margin is taken to be at most `level`, which is positive: no bound counts for more.
    So a bound of the margin is a half-space of inputs, over which the `lines` of layers narrow intervals in the
    subtree.
    """

    tree: Annotated[NDArray[np.int32], Stored("<i4", "nodes")]
    multipliers: Annotated[NDArray[np.float32], Stored("<f4", "splits")]
    crossings: list[Choices] = field(default_factory=list)
    forms: Forms | None = None
    level: float | None = None
    points: Annotated[NDArray[np.float32], Stored("<f4", "nodes")] | None = None


@dataclass
class GroupSet:
    """Groups of k neurons of one activation, and the normals of their polytopes, with entries in {-1, 0, 1}.

    The bound of a row over a group is the best that a lemma of the same layer proves of exactly that form, or else
    what the members' intervals say. Groups of products are of both operands, which stand side by side, and second
    members are multiplied by 2 to the power of `exponents` in their rows.
    """

    members: Annotated[NDArray[np.int32], Stored("<i4", "groups k")]
    rows: Annotated[NDArray[np.int8], Stored("|i1", "rows k")]
    exponents: Annotated[NDArray[np.int8], Stored("|i1", "groups")] | None = None


@dataclass
class Layer:
    """What is proven about one activation's pre-activation, with the activations before it.

    `base` is how all undecided entries are bounded first. Then come the lemmas `claims`, of forms of the
    pre-activation. A form of one entry with coefficient 1 or -1 tightens its interval. `lines` is a lemma about such
    forms without splits. Not its bounds are kept, but its linear forms of the inputs, for clips.
    """

    base: Literal["interval", "adaptive", "parallel"]
    claims: list[Lemma] = field(default_factory=list)
    groups: list[GroupSet] = field(default_factory=list)
    lines: Lemma | None = None


@dataclass
class Step:
    """A lemma about the pre-activation of one activation, given by its number."""

    activation: int
    claim: Lemma


@dataclass
class Refutation:
    """A margin, given by its number, proven by contradiction: it is above `level`, which is positive, or at most that.

    Let it be at most `level`. Behind the outputs there is one more activation then, a ReLU of the margin less `level`,
    whose one neuron is not positive. Every path in a tree of a step begins with its split, on the side `z <= 0`. That
    split is not in the tree, but has its multiplier. Leaves have choices at all activations, because the neuron lies
    behind them all. Each of the `steps` is over the best that is known under the assumption by then, at first over what
    the question's own layers say. If bounds contradict each other, nothing is left to prove. Otherwise the lemma
    `claim` has one tree, without that split, of the margin, and no bound counts for more than `level`. The `lines` for
    its clips are over what is known then, without the split, too.
    """

    margin: int
    level: float
    steps: list[Step] = field(default_factory=list)
    claim: Lemma | None = None
    lines: list[Step] | None = None


@dataclass
class Boxes:
    """A tree of boxes in preorder: the input that is cut, -1 for a leaf, and where (0 for a leaf). First the part
    `x <= at`, then `x >= at`.

    With `weights`, in each leaf each clause is bounded by one sum of its margins, weighted in units of 1 / 16384. The
    weights of a clause add up to 16384. Without, margins are bounded one by one.

    With a `width`, entries of a bottleneck are cut in the place of inputs: of the last node with so many entries before
    the first activation, and before the outputs, that everything goes through.
    """

    cut: Annotated[NDArray[np.int32], Stored("<i4", "nodes")]
    at: Annotated[NDArray[np.float64], Stored("<f8", "nodes")]
    weights: Annotated[NDArray[np.int16], Stored("<i2", "leaves margins")] | None = None
    width: int | None = None


@dataclass
class Question:
    """For every x of the region, has every clause a margin `rows @ y + offsets` that is positive?

    `clause` numbers the clauses from 0, none left out. The proof is either one layer for each activation and a lemma
    about all margins, or a tree of boxes. A margin counts for as much as the lemma says, or one of the `cases`.

    `joint` are clauses, in increasing order, of which lemmas bound the largest margin: the network goes on by the
    members of these clauses and by ReLUs, `max(a, b) = b + relu(a - b)` of two neighbours in each round, until every
    clause has one. These margins come behind those of the other clauses.
    """

    region: Region
    rows: Annotated[NDArray[np.float64], Stored("<f8", "margins outputs")]
    offsets: Annotated[NDArray[np.float64], Stored("<f8", "margins")]
    clause: Annotated[NDArray[np.int32], Stored("<i4", "margins")]
    layers: list[Layer] = field(default_factory=list)
    margins: Lemma | None = None
    boxes: Boxes | None = None
    joint: Annotated[NDArray[np.int32], Stored("<i4", "joint")] | None = None
    cases: list[Refutation] | None = None


@dataclass
class Family:
    """Questions about boxes that differ in these and in their offsets alone, each with a tree of boxes without weights.
    The trees come one after the other."""

    lower: Annotated[NDArray[np.float64], Stored("<f8", "questions inputs")]
    upper: Annotated[NDArray[np.float64], Stored("<f8", "questions inputs")]
    rows: Annotated[NDArray[np.float64], Stored("<f8", "margins outputs")]
    offsets: Annotated[NDArray[np.float64], Stored("<f8", "questions margins")]
    clause: Annotated[NDArray[np.int32], Stored("<i4", "margins")]
    cut: Annotated[NDArray[np.int32], Stored("<i4", "nodes")]
    at: Annotated[NDArray[np.float64], Stored("<f8", "nodes")]


@dataclass
class Given:
    """What an input of a file, by its name there, is given: for each of its entries, flattened, an input of the
    region."""

    name: str
    places: Annotated[NDArray[np.int32], Stored("<i4", "entries")]


@dataclass
class Part:
    """A use of the file with the hash `network`: what its inputs are given, and the tensors whose values count, by
    their names in the file. `name` is what a specification calls it."""

    network: str
    inputs: list[Given]
    values: list[str]
    name: str | None = None


@dataclass
class System:
    """Uses of files over one vector of inputs. Its outputs are products of variables, of which there are two kinds: all
    entries of inputs of all parts, one after the other, and all entries of their values. `variable` are factors, 2i for
    input i and 2j + 1 for value j, and `output` says of which output; outputs are in order, none without a factor.

    With `apart`, proofs are about two parts of one structure in another form, which computes the same: the second, and
    what the values of the first are more."""

    parts: list[Part]
    output: Annotated[NDArray[np.int32], Stored("<i4", "factors")]
    variable: Annotated[NDArray[np.int32], Stored("<i4", "factors")]
    apart: bool | None = None


@dataclass
class Certificate:
    """Questions about one network, the file with the hash `network` (SHA-256, hexadecimal), and its output of the name
    `output`; that may be missing where there is one, or one of numbers. Or else about a `system` of networks. Questions
    of `families` follow the others. With float32, `units` may say by how many units in the last place functions are
    taken to be off."""

    network: str | None
    semantics: Literal["real", "float32"]
    tool: str
    questions: list[Question]
    output: str | None = None
    families: list[Family] | None = None
    units: int | None = None
    system: System | None = None
