"""Import of other implementations' checkpoints, and export of style models to ONNX, TorchScript and others."""
