"""What few files hold: krelax refuses it in a line, or computes what ONNX Runtime computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from tests.certificate.test_operators import UNREADABLE, run
from tests.certificate.test_read_files import READ
from tests.certificate.test_refused_files import REFUSED

from krelax.errors import InputError
from krelax.network.graph import Network
from krelax.network.onnx import load_onnx

_STATE = onnxruntime.capi.onnxruntime_pybind11_state
_NAMES = ("Fail", "InvalidGraph", "InvalidArgument", "NotImplemented", "RuntimeException")
REFUSED_THERE = tuple(getattr(_STATE, name) for name in _NAMES)


def agrees(network: Network, data: bytes) -> None:
    """With ONNX Runtime, where that runs the file."""
    rng = np.random.default_rng(3)
    for _ in range(3):
        x = rng.uniform(-1, 1, network.input_shape)
        try:
            theirs = run(data, x)
        except REFUSED_THERE:
            return
        single = torch.from_numpy(x.astype(np.float32)).double()[None]
        ours = network(single)[0].numpy()
        np.testing.assert_allclose(ours.reshape(-1), theirs.reshape(-1), rtol=1e-4, atol=1e-5)


FILES = UNREADABLE | {name: data for table in (REFUSED, READ) for name, (data, _) in table.items()}


@pytest.mark.parametrize("data", FILES.values(), ids=FILES.keys())
def test_what_the_checker_was_tried_on_is_refused_or_right(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(data)
    message = ""
    try:
        network = load_onnx(tmp_path / "model.onnx", check=False)
    except InputError as error:
        message = str(error)
    if message:
        assert "\n" not in message
    else:
        agrees(network, data)
