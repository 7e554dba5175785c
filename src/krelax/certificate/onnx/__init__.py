"""A reader of ONNX files that shares no code with krelax's own."""
