"""Pictures of relaxations, bounds and results: one function for each question, each of which returns a figure.

They show what the library computed and bound nothing themselves. They need matplotlib, which is imported when the first
figure is drawn. All methods have one colour and line style throughout, those of `krelax.looks`.
"""

from krelax.looks import LOOKS
from krelax.picture.layers import layers
from krelax.picture.neuron import neuron
from krelax.picture.pair import octagon, pair, pick, projections
from krelax.picture.product import product
from krelax.picture.progress import progress, watched
from krelax.picture.reachable import certified, reachable, sampled
from krelax.picture.robust import margins, radius, shares
from krelax.picture.roof import roofs
from krelax.picture.style import save
from krelax.picture.transforms import gallery, planes
from krelax.picture.tree import tree, trees

__all__ = [
    "LOOKS",
    "certified",
    "gallery",
    "layers",
    "margins",
    "neuron",
    "octagon",
    "pair",
    "pick",
    "planes",
    "product",
    "progress",
    "projections",
    "radius",
    "reachable",
    "roofs",
    "sampled",
    "save",
    "shares",
    "tree",
    "trees",
    "watched",
]
