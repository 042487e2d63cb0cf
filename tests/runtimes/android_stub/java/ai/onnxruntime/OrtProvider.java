package ai.onnxruntime;

public enum OrtProvider { CPU, QNN, NNAPI, XNNPACK }
