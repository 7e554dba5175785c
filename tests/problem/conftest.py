"""What the tests of this folder share."""

import pytest

from krelax.problem.query import Specification
from krelax.problem.vnnlib import read_vnnlib


@pytest.fixture
def read(tmp_path):
    def read_content(content: str | bytes) -> Specification:
        path = tmp_path / "property.vnnlib"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_vnnlib(path)

    return read_content
