"""Export: a checkpoint → two-output ONNX graphs, proven equal to it → a Triton model repository."""

import multitask_core  # noqa: F401  first of all: it sets what ONNX Runtime reads when imported
