"""A made demo corpus: support-desk requests with an intent label and annotated entities."""

from .corpus import build, write

__all__ = ["build", "write"]
