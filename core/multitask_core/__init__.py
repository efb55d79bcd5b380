"""What every part of the toolkit shares, once: labels, text, decoding, tensor contracts, manifests.

Free of torch and transformers; submodules import what they need, so importing it is cheap.
"""

import os

# ONNX Runtime 1.29 and later report their use over the network unless told not to before they are
# imported; nothing here uses the network unless asked to.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
