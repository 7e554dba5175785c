"""The messages of an ONNX file: every field of `onnx.proto` (IR version 3 to 13) by its number, name and type.

A type is a scalar of protocol buffers, an enumeration with its largest value, or another message; `*` marks repeated
fields. What is not in these tables is no ONNX file that the checker reads. A test compares them with what the `onnx`
package says.
"""

from __future__ import annotations

from dataclasses import dataclass

_MESSAGES = {
    "Model": "1 ir_version int64, 2 producer_name string, 3 producer_version string, 4 domain string, "
    "5 model_version int64, 6 doc_string string, 7 graph Graph, 8 opset_import OperatorSetId*, "
    "14 metadata_props StringStringEntry*, 20 training_info TrainingInfo*, 25 functions Function*, "
    "26 configuration DeviceConfiguration*",
    "Graph": "1 node Node*, 2 name string, 5 initializer Tensor*, 10 doc_string string, 11 input ValueInfo*, "
    "12 output ValueInfo*, 13 value_info ValueInfo*, 14 quantization_annotation TensorAnnotation*, "
    "15 sparse_initializer SparseTensor*, 16 metadata_props StringStringEntry*",
    "Node": "1 input string*, 2 output string*, 3 name string, 4 op_type string, 5 attribute Attribute*, "
    "6 doc_string string, 7 domain string, 8 overload string, 9 metadata_props StringStringEntry*, "
    "10 device_configurations NodeDeviceConfiguration*",
    "Attribute": "1 name string, 2 f float, 3 i int64, 4 s bytes, 5 t Tensor, 6 g Graph, 7 floats float*, "
    "8 ints int64*, 9 strings bytes*, 10 tensors Tensor*, 11 graphs Graph*, 13 doc_string string, 14 tp Type, "
    "15 type_protos Type*, 20 type enum:14, 21 ref_attr_name string, 22 sparse_tensor SparseTensor, "
    "23 sparse_tensors SparseTensor*",
    "Tensor": "1 dims int64*, 2 data_type int32, 3 segment Segment, 4 float_data float*, 5 int32_data int32*, "
    "6 string_data bytes*, 7 int64_data int64*, 8 name string, 9 raw_data bytes, 10 double_data double*, "
    "11 uint64_data uint64*, 12 doc_string string, 13 external_data StringStringEntry*, 14 data_location enum:1, "
    "16 metadata_props StringStringEntry*",
    "ValueInfo": "1 name string, 2 type Type, 3 doc_string string, 4 metadata_props StringStringEntry*",
    "Type": "1 tensor_type TensorType, 4 sequence_type SequenceType, 5 map_type MapType, 6 denotation string, "
    "7 opaque_type OpaqueType, 8 sparse_tensor_type TensorType, 9 optional_type SequenceType",
    "TensorType": "1 elem_type int32, 2 shape Shape",
    "Shape": "1 dim Dimension*",
    "Dimension": "1 dim_value int64, 2 dim_param string, 3 denotation string",
    "OperatorSetId": "1 domain string, 2 version int64",
    "StringStringEntry": "1 key string, 2 value string",
    # Read so that tensors in other files are found; networks that use them are not supported.
    "SequenceType": "1 elem_type Type",
    "MapType": "1 key_type int32, 2 value_type Type",
    "OpaqueType": "1 domain string, 2 name string",
    "Segment": "1 begin int64, 2 end int64",
    "SparseTensor": "1 values Tensor, 2 indices Tensor, 3 dims int64*",
    "TensorAnnotation": "1 tensor_name string, 2 quant_parameter_tensor_names StringStringEntry*",
    "TrainingInfo": "1 initialization Graph, 2 algorithm Graph, 3 initialization_binding StringStringEntry*, "
    "4 update_binding StringStringEntry*",
    "Function": "1 name string, 4 input string*, 5 output string*, 6 attribute string*, 7 node Node*, "
    "8 doc_string string, 9 opset_import OperatorSetId*, 10 domain string, 11 attribute_proto Attribute*, "
    "12 value_info ValueInfo*, 13 overload string, 14 metadata_props StringStringEntry*",
    "DeviceConfiguration": "1 name string, 2 num_devices int32, 3 device string*",
    "NodeDeviceConfiguration": "1 configuration_id string, 2 sharding_spec ShardingSpec*, 3 pipeline_stage int32",
    "ShardingSpec": "1 tensor_name string, 2 device int64*, 3 index_to_device_group_map IntIntListEntry*, "
    "4 sharded_dim ShardedDim*",
    "IntIntListEntry": "1 key int64, 2 value int64*",
    "ShardedDim": "1 axis int64, 2 simple_sharding SimpleShardedDim*",
    "SimpleShardedDim": "1 dim_value int64, 2 dim_param string, 3 num_shards int64",
}


@dataclass(frozen=True)
class Field:
    """A field of a message: its name, the name of its type, and whether it is repeated."""

    name: str
    kind: str
    repeated: bool


def _fields(text: str) -> dict[int, Field]:
    rows = (entry.split() for entry in text.split(","))
    return {int(number): Field(name, kind.rstrip("*"), kind.endswith("*")) for number, name, kind in rows}


MESSAGES: dict[str, dict[int, Field]] = {name: _fields(text) for name, text in _MESSAGES.items()}
