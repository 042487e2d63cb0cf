"""The target ONNX."""
