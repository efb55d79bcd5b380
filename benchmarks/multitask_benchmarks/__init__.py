"""How fast and how faithful the served model is, measured against its own checkpoint.

`python -m multitask_benchmarks run | compare | report | …`, each with --help.
"""

import multitask_core  # noqa: F401  first of all: it sets what ONNX Runtime reads when imported
