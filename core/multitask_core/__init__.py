"""What every part of the toolkit shares, once: labels, text, decoding, tensor contracts, manifests.

Free of torch and transformers; submodules import what they need, so importing it is cheap.
"""

__version__ = "0.1.0"
