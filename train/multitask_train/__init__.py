"""Training: labelled text → a two-headed checkpoint in Hugging Face layout.

Importing this package registers the architecture with AutoConfig and AutoModel.
"""

from multitask_train.model import MultiTaskConfig, MultiTaskModel

__all__ = ["MultiTaskConfig", "MultiTaskModel"]
