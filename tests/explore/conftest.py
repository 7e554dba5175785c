"""A small question to explore, and a browser to do it with."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from tests.explore.pages import Seen

from krelax.activations import ReLU
from krelax.explore.answers import Answers
from krelax.explore.model import Question, ask
from krelax.explore.server import Server
from krelax.network.graph import Builder
from krelax.network.linear import Dense
from krelax.problem.images import Images


@pytest.fixture(scope="session")
def question() -> Question:
    """A random network with groups in both layers, and a point that only some methods prove."""
    generator, builder, node, width = torch.Generator().manual_seed(3), Builder((4,)), 0, 4
    for n in (8, 8, 3):
        weight = torch.randn(n, width, generator=generator, dtype=torch.float64) * (2 / width) ** 0.5
        bias = 0.3 * torch.randn(n, generator=generator, dtype=torch.float64)
        node, width = builder.add(Dense(weight, bias), node), n
        node = node if n == 3 else builder.add(ReLU(), node)
    network = builder.build(node)
    images = torch.rand(2, 4, generator=generator).numpy()
    labels = network(torch.from_numpy(images).double()).argmax(1).numpy()
    return ask(network, Images(images, labels.astype(np.int64)), 1, 0.3, "linf", (0.0, 1.0), "random.onnx")


@pytest.fixture(scope="session")
def answers(question: Question) -> Answers:
    return Answers(question)


@pytest.fixture(scope="session")
def everything(answers: Answers) -> dict[str, Any]:
    """What an exported page brings along."""
    return answers.everything(lambda _: None)


@pytest.fixture(scope="session")
def served(answers: Answers) -> Iterator[Server]:
    """The page on a free port."""
    with Server(answers) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture
def seen(browser: Any) -> Iterator[Seen]:
    """Opens pages; at the end nothing may have been complained about."""
    opened = Seen(browser)
    yield opened
    opened.close()
    assert opened.complaints == []
