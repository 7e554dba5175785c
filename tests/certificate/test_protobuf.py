"""The checker's reading of protocol buffers: what official readers may take otherwise is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.descriptor import FieldDescriptor
from onnx import TensorProto, helper, numpy_helper

from krelax.certificate.onnx import protobuf
from krelax.certificate.onnx.protobuf import Message, decode
from krelax.certificate.onnx.schema import MESSAGES
from krelax.errors import InputError, UnsupportedError

SCALARS = {
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_FLOAT: "float",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT64: "uint64",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_ENUM: "enum",
}


def varint(value: int) -> bytes:
    result = b""
    while value > 127:
        result, value = result + bytes([value & 127 | 128]), value >> 7
    return result + bytes([value])


def entry(number: int, wire: int, content: bytes | int) -> bytes:
    """A field as it is written."""
    key = varint(number << 3 | wire)
    if isinstance(content, int):
        return key + varint(content)
    return key + (varint(len(content)) if wire == 2 else b"") + content


def test_the_schema_says_what_onnx_says() -> None:
    """Every field that the installed `onnx` package knows, with its type; enumerations with their largest value."""
    pairs, seen = [(onnx.ModelProto.DESCRIPTOR, "Model")], set()
    while pairs:
        theirs, mine = pairs.pop()
        if theirs.full_name in seen:
            continue
        seen.add(theirs.full_name)
        fields = {f.number: f for f in theirs.fields}
        assert fields.keys() <= MESSAGES[mine].keys()
        for number, f in fields.items():
            known = MESSAGES[mine][number]
            repeated = "add" if f.message_type is not None else "append"
            assert known.name == f.name
            assert known.repeated == hasattr(getattr(_instance(theirs), f.name), repeated)
            if f.message_type is not None:
                pairs.append((f.message_type, known.kind))
            else:
                assert known.kind.partition(":")[0] == SCALARS[f.type]
            if f.enum_type is not None:
                assert int(known.kind.partition(":")[2]) == max(v.number for v in f.enum_type.values)
    assert len(seen) >= 20


def _instance(descriptor: Any) -> Any:
    from google.protobuf.message_factory import GetMessageClass

    return GetMessageClass(descriptor)()


def test_numbers_of_all_types() -> None:
    made = onnx.TensorProto(
        dims=[2, -3, 2**62], data_type=-5, int32_data=[-(2**31), 2**31 - 1], uint64_data=[2**64 - 1], float_data=[0.5]
    )
    read = decode("Tensor", made.SerializeToString())
    assert read.all("dims") == [2, -3, 2**62]
    assert read.get("data_type") == -5
    assert read.all("int32_data") == [-(2**31), 2**31 - 1]
    assert read.all("uint64_data") == [2**64 - 1]
    assert read.all("float_data").tolist() == [0.5]
    assert "name" not in read
    assert read.get("name", "none") == "none"


def test_repeated_numbers_may_be_packed_or_not() -> None:
    """As official readers take them: one by one, packed, and both."""
    one, packed = entry(1, 0, 300), entry(1, 2, varint(1) + varint(2))
    for data in (one, packed, one + packed, packed + one):
        assert decode("Tensor", data).all("dims") == list(onnx.TensorProto.FromString(data).dims)
    data = entry(4, 5, np.float32(1.5).tobytes()) + entry(4, 2, np.float32([2, 3]).tobytes())
    assert decode("Tensor", data).all("float_data").tolist() == [1.5, 2, 3]


def test_a_network_is_read_as_written() -> None:
    node = helper.make_node("Gemm", ["x", "w"], ["y"], alpha=0.5, transB=1)
    weight = numpy_helper.from_array(np.float32([[1, 2]]), "w")
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2]) for n in "xy")
    model = decode("Model", helper.make_model(helper.make_graph([node], "g", [x], [y], [weight])).SerializeToString())
    graph = model.get("graph")
    (read,) = graph.all("node")
    assert (read.all("input"), read.all("output"), read.get("op_type")) == (["x", "w"], ["y"], "Gemm")
    assert [(a.get("name"), a.get("f"), a.get("i")) for a in read.all("attribute")] == [
        ("alpha", 0.5, None),
        ("transB", None, 1),
    ]
    dims = graph.all("input")[0].get("type").get("tensor_type").get("shape").all("dim")
    assert [(d.get("dim_param"), d.get("dim_value")) for d in dims] == [("N", None), (None, 2)]


FLOAT = np.float32(2).tobytes()
REFUSED: dict[str, tuple[str, bytes]] = {
    "an unknown field": ("Tensor", entry(99, 0, 1)),
    "a group": ("Model", b"\x0b\x0c"),
    "field number zero": ("Model", entry(0, 0, 1)),
    "a float as bytes": ("Attribute", entry(2, 2, FLOAT)),
    "a float as a number": ("Attribute", entry(2, 0, 2)),
    "a double where a float is": ("Attribute", entry(2, 1, np.float64(2).tobytes())),
    "a number as bytes": ("Attribute", entry(3, 2, b"\1")),
    "a number as four bytes": ("Attribute", entry(3, 5, FLOAT)),
    "text as a number": ("Node", entry(4, 0, 1)),
    "a message as a number": ("Model", entry(7, 0, 1)),
    "an integer twice": ("Attribute", entry(3, 0, 1) + entry(3, 0, 0)),
    "a float twice": ("Attribute", entry(2, 5, FLOAT) * 2),
    "text twice": ("Node", entry(4, 2, b"Relu") * 2),
    "a message twice": ("Model", entry(7, 2, b"") * 2),
    "a number longer than it must be": ("Attribute", b"\x18\x81\x00"),
    "a zero of two bytes": ("Attribute", b"\x18\x80\x00"),
    "a key longer than it must be": ("Attribute", b"\x98\x00\x01"),
    "a size longer than it must be": ("Node", b"\x22\x84\x00Relu"),
    "a number of 65 bits": ("Attribute", b"\x18" + b"\xff" * 9 + b"\x02"),
    "a number of eleven bytes": ("Attribute", b"\x18" + b"\xff" * 10 + b"\x01"),
    "int32 of five bytes that is negative": ("Tensor", entry(5, 0, 2**32 - 1)),
    "int32 above its range": ("Tensor", entry(5, 2, varint(2**31))),
    "int32 below its range": ("Tensor", entry(2, 0, 2**64 - 2**31 - 1)),
    "an enumeration's unknown value": ("Tensor", entry(14, 0, 2)),
    "a negative enumeration": ("Attribute", entry(20, 0, 2**64 - 1)),
    "text that is not UTF-8": ("Node", entry(4, 2, b"\xff\xfe")),
    "text that is an overlong encoding": ("Node", entry(4, 2, b"\xc0\x80")),
    "nested too deep": ("Model", b""),
}
DEEP = b""
for _ in range(40):
    DEEP = entry(1, 2, entry(5, 2, entry(6, 2, DEEP)))
REFUSED["nested too deep"] = ("Graph", DEEP)


@pytest.mark.parametrize(("kind", "data"), REFUSED.values(), ids=REFUSED.keys())
def test_what_may_be_taken_otherwise_is_refused(kind: str, data: bytes) -> None:
    with pytest.raises(InputError) as error:
        decode(kind, data)
    assert isinstance(error.value, UnsupportedError) or "does not end" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("Graph", entry(1, 2, b"") * 40),
        ("Model", entry(7, 2, entry(1, 2, entry(1, 2, b"") * 10) * 4)),
        ("Tensor", entry(1, 0, 0) * 40),
        ("Tensor", entry(7, 2, b"\0" * 400)),
        ("Graph", entry(5, 2, entry(7, 2, b"\x80\x01" * 150)) * 2),
    ],
)
def test_small_files_of_many_things_are_refused(kind: str, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes memory many times its bytes, which may have been compressed before."""
    decode(kind, data)
    monkeypatch.setattr(protobuf, "_MOST_COST", 256)
    with pytest.raises(UnsupportedError, match="more than 32 fields, or 256 numbers"):
        decode(kind, data)


@pytest.mark.parametrize(
    "data", [b"\x08", b"\x08\x80", b"\x0a", b"\x0a\x05abc", b"\x25\0\0", b"\x22\x03\0\0\0", b"\x22\xff\xff\xff\xff\x7f"]
)
def test_what_is_cut_short_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="cut short"):
        decode("Tensor", data)


def test_damaged_messages_mean_what_the_official_parser_says_or_are_refused() -> None:
    """Whatever happens to the bytes: what is read is what the official parser reads."""
    rng = np.random.default_rng(5)
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2], [1, 2])
    counts = helper.make_tensor("i", TensorProto.INT32, [2], [-1, 300])
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[0, 1], auto_pad="NOTSET", alpha=0.5, group=2)
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])]
    made = helper.make_model(helper.make_graph([node], "g", ends, ends, [weight, counts])).SerializeToString()
    accepted = 0
    for _ in range(3000):
        data = bytearray(made)
        for place in rng.integers(0, len(made) - 2, rng.integers(1, 3)):
            match rng.integers(4):
                case 0:
                    data[place] ^= 1 << rng.integers(8)
                case 1:
                    data[place] = rng.integers(256)
                case 2:
                    del data[place]
                case 3:
                    data.insert(place, rng.integers(256))
                case _:
                    pass
        try:
            read = decode("Model", bytes(data))
        except InputError:
            continue
        accepted += 1
        same(read, onnx.ModelProto.FromString(bytes(data)))
    assert accepted > 100


def same(mine: Message, theirs: Any) -> None:
    names = {field.name for field, _ in theirs.ListFields()}
    for name in names | mine.present():
        value, wanted = mine.get(name), getattr(theirs, name)
        if isinstance(value, Message):
            same(value, wanted)
        elif hasattr(wanted, "append") or hasattr(wanted, "add"):
            assert len(value) == len(wanted)
            for a, b in zip(value, wanted, strict=True):
                if isinstance(a, Message):
                    same(a, b)
                else:
                    assert equal(a, b)
        else:
            assert equal(value, wanted)
    assert {n for n in mine.present() if not isinstance(mine.get(n), list | np.ndarray)} <= names


def equal(mine: Any, theirs: Any) -> bool:
    return bool(mine == theirs or (np.isnan(mine) and np.isnan(theirs)))
