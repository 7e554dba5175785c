"""Results as a run might have written them."""

from __future__ import annotations

from typing import Any

import numpy as np

from krelax.report.page import Subject
from krelax.report.pictures import drawn
from krelax.report.results import Results

SETTINGS: dict[str, Any] = {
    "kind": "run",
    "schema": 1,
    "krelax": "0.1.0",
    "model": "ab" * 32,
    "images": "cd" * 32,
    "eps": 0.06,
    "norm": "linf",
    "clip": [0.0, 1.0],
    "method": "auto",
    "timeout": 60.0,
    "device": "cpu",
}
WAYS = (("holds", "crown"), ("holds", "branching"), ("violated", "attack"), ("unknown", "timeout"))


def pixels(count: int, shape: tuple[int, ...] = (1, 8, 8), seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).random((count, *shape)).astype(np.float32)


def record(index: int, verdict: str, reason: str, image: np.ndarray[Any, Any], seed: int = 0) -> dict[str, Any]:
    """A result; every second that is violated was misclassified as it is."""
    rng = np.random.default_rng((seed, index))
    margin = float(rng.normal(1.0 if verdict == "holds" else -3.0, 0.5))
    found: dict[str, Any] = {
        "kind": "result",
        "index": index,
        "label": index % 10,
        "predicted": index % 10,
        "verdict": verdict,
        "reason": reason,
        "margin": margin,
        "seconds": 0.01 * (1 + index % 7),
        "stages": [{"name": "crown", "seconds": 0.01, "margin": margin}, {"name": "attack", "seconds": 0.002}],
    }
    if verdict == "violated":
        x = (image + rng.uniform(-0.06, 0.06, image.shape)).clip(0, 1)
        y = rng.normal(size=10)
        y[found["label"]] = y.min() - 1
        found["counterexample"] = {"x": x.flatten().tolist(), "y": y.tolist()}
    return found


def results(images: np.ndarray[Any, Any], ways: tuple[tuple[str, str], ...] = WAYS, **settings: Any) -> Results:
    """One result for each image, the verdicts in turn."""
    records = [record(i, *ways[i % len(ways)], image) for i, image in enumerate(images)]
    return Results.of("run.jsonl", SETTINGS | settings, records, images[0].size, len(images))


def subject(images: np.ndarray[Any, Any], found: Results, /, **more: Any) -> Subject:
    """What a page is about, with pictures."""
    given = {"model": "net.onnx", "images": "images.npz", "pictures": drawn(images, found.records, (0.0, 1.0))} | more
    return Subject(count=len(images), **given)
