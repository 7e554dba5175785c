"""krelax: certified robustness of neural networks by single- and multi-neuron relaxations.

The names below are the public interface; they are imported when first used, so `import krelax` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from krelax._version import __version__
from krelax.errors import InputError, KrelaxError, UnsupportedError

if TYPE_CHECKING:
    from krelax.api.bounding import Bounds as Bounds
    from krelax.api.bounding import bound as bound
    from krelax.api.certifying import Certified as Certified
    from krelax.api.certifying import certify as certify
    from krelax.api.differing import Differences as Differences
    from krelax.api.differing import difference as difference
    from krelax.api.radii import Radii as Radii
    from krelax.api.radii import radius as radius
    from krelax.api.verifying import Verified as Verified
    from krelax.api.verifying import verify as verify
    from krelax.bounds.branching import Effort as Effort
    from krelax.bounds.instance import Instance as Instance
    from krelax.bounds.methods import METHODS as METHODS
    from krelax.bounds.methods import Method as Method
    from krelax.bounds.multineuron import MultiNeuron as MultiNeuron
    from krelax.hull.grouping import Grouping as Grouping
    from krelax.hull.grouping import Strategy as Strategy
    from krelax.network.graph import Builder as Builder
    from krelax.network.graph import Network as Network
    from krelax.network.onnx import load_onnx as load_onnx
    from krelax.network.torch import from_torch as from_torch
    from krelax.problem.images import Images as Images
    from krelax.problem.images import load_images as load_images
    from krelax.problem.queries import Queries as Queries
    from krelax.problem.queries import classification as classification
    from krelax.problem.region import Box as Box
    from krelax.problem.region import ball as ball
    from krelax.problem.regions import Categories as Categories
    from krelax.problem.regions import Patch as Patch
    from krelax.problem.regions import Pixels as Pixels
    from krelax.problem.regions import Transformed as Transformed
    from krelax.problem.regions import read_region as read_region
    from krelax.problem.vnnlib import read_vnnlib as read_vnnlib
    from krelax.run.certify import CertifyOptions as CertifyOptions
    from krelax.run.verify import VerifyOptions as VerifyOptions
    from krelax.search.verdict import Outcome as Outcome
    from krelax.search.verdict import Verdict as Verdict

_HOMES = {
    "Instance": "bounds.instance",
    "bound": "api.bounding",
    "Bounds": "api.bounding",
    "CertifyOptions": "run.certify",
    "certify": "api.certifying",
    "Certified": "api.certifying",
    "VerifyOptions": "run.verify",
    "difference": "api.differing",
    "Differences": "api.differing",
    "radius": "api.radii",
    "Radii": "api.radii",
    "verify": "api.verifying",
    "Verified": "api.verifying",
    "Outcome": "search.verdict",
    "Verdict": "search.verdict",
    "METHODS": "bounds.methods",
    "Method": "bounds.methods",
    "MultiNeuron": "bounds.multineuron",
    "Grouping": "hull.grouping",
    "Strategy": "hull.grouping",
    "Effort": "bounds.branching",
    "Builder": "network.graph",
    "Network": "network.graph",
    "load_onnx": "network.onnx",
    "from_torch": "network.torch",
    "Images": "problem.images",
    "load_images": "problem.images",
    "Queries": "problem.queries",
    "classification": "problem.queries",
    "Box": "problem.region",
    "ball": "problem.region",
    "Categories": "problem.regions",
    "Patch": "problem.regions",
    "Pixels": "problem.regions",
    "Transformed": "problem.regions",
    "read_region": "problem.regions",
    "read_vnnlib": "problem.vnnlib",
}

__all__ = ["InputError", "KrelaxError", "UnsupportedError", "__version__", *_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'krelax' has no attribute {name!r}")
    return getattr(import_module(f"krelax.{_HOMES[name]}"), name)
