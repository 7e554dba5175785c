"""A network and the files that its constants lie in: what is read, and the hash of it all."""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.run.files import dense

from krelax.certificate.onnx.model import model_hash, read_model
from krelax.errors import InputError, UnsupportedError


def network() -> Any:
    return dense((np.eye(2), [0.25, 0.5]), (np.ones((2, 2)), [1, 2]))


def stored(tmp_path: Path, **more: Any) -> Path:
    """The network with its constants in `weights.bin`."""
    path = tmp_path / "net.onnx"
    options = {"all_tensors_to_one_file": True, "location": "weights.bin", "size_threshold": 0, **more}
    onnx.save_model(network(), path, save_as_external_data=True, **options)
    return path


def test_the_hash_of_one_file_is_its_sha256(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(network(), path)
    assert model_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_model(path).external == {}
    (tmp_path / "net.onnx.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert model_hash(tmp_path / "net.onnx.gz") == model_hash(path)


def test_the_hash_covers_every_file(tmp_path: Path) -> None:
    path = stored(tmp_path, all_tensors_to_one_file=False)
    files = sorted(read_model(path).external)
    assert len(files) == 4
    before = {model_hash(path)}
    for name in files:
        data = bytearray((tmp_path / name).read_bytes())
        data[0] ^= 1
        (tmp_path / name).write_bytes(data)
        before.add(model_hash(path))
    assert len(before) == 5
    assert hashlib.sha256(path.read_bytes()).hexdigest() not in before


def test_files_that_change_places_change_the_hash(tmp_path: Path) -> None:
    path = stored(tmp_path, all_tensors_to_one_file=False)
    first, second = (tmp_path / name for name in sorted(read_model(path).external)[:2])
    before, one, other = model_hash(path), first.read_bytes(), second.read_bytes()
    assert one != other
    first.write_bytes(other)
    second.write_bytes(one)
    assert model_hash(path) != before


def test_constants_of_nodes_and_subgraphs_count(tmp_path: Path) -> None:
    model = network()
    external = onnx.numpy_helper.from_array(np.float32([1, 2]), "c")
    external.ClearField("raw_data")
    external.data_location = onnx.TensorProto.EXTERNAL
    external.external_data.add(key="location", value="c.bin")
    inner = onnx.helper.make_graph([onnx.helper.make_node("Constant", [], ["c"], value=external)], "inner", [], [])
    model.graph.node.append(onnx.helper.make_node("If", ["p"], ["q"], then_branch=inner, else_branch=inner))
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"c\.bin"):
        model_hash(tmp_path / "net.onnx")
    (tmp_path / "c.bin").write_bytes(b"12345678")
    assert read_model(tmp_path / "net.onnx").external == {"c.bin": b"12345678"}


@pytest.mark.parametrize(
    "name", ["../weights.bin", "/weights.bin", "a/weights.bin", "..", "", ".weights", "a\\b", "C:x", "a\nb"]
)
def test_only_files_in_the_same_folder_are_read(tmp_path: Path, name: str) -> None:
    path = stored(tmp_path)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = name
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UnsupportedError, match="own folder"):
        read_model(path)


def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    """They may have no end."""
    path = stored(tmp_path)
    weights, pipe = tmp_path / "weights.bin", tmp_path / "pipe"
    os.mkfifo(pipe)
    for other in (pipe, Path("/dev/zero")):
        weights.unlink()
        weights.symlink_to(other)
        with pytest.raises(InputError, match=r"weights\.bin: cannot be read \(not a file\)"):
            read_model(path)
        with pytest.raises(InputError, match=r"cannot be read \(not a file\)"):
            read_model(other)


def test_files_larger_than_any_network_are_not_read(tmp_path: Path) -> None:
    """Such files need not be on disk: these are holes."""
    path = stored(tmp_path)
    for large, size in ((tmp_path / "weights.bin", 1 << 34), (path, 1 << 32)):
        with large.open("r+b") as file:
            file.truncate(size)
        with pytest.raises(InputError, match=rf"{large.name}: cannot be read \(more than"):
            read_model(path)


def test_files_that_cannot_be_read_say_which(tmp_path: Path) -> None:
    path = stored(tmp_path)
    (tmp_path / "weights.bin").unlink()
    for bad, text in (
        (path, "weights.bin: cannot be read"),
        (tmp_path / "none.onnx", "none.onnx: cannot be read"),
        (tmp_path, "cannot be read"),
    ):
        with pytest.raises(InputError, match=text):
            read_model(bad)
    for content in (b"text", gzip.compress(b"text"), b"\x1f\x8bdamaged"):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.onnx") as error:
            read_model(tmp_path / "bad.onnx")
        assert "\n" not in str(error.value)
