"""Export: a checkpoint → two-output ONNX graphs, proven equal to it → a Triton model repository."""
