"""From a decomposed checkpoint to verified Core ML, ONNX and ExecuTorch programs; the command line is `kind-export`."""
