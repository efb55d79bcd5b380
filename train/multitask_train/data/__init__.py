"""Corpora: readers for every supported format, all to one `Example` type."""

from multitask_train.data.examples import Example, Span
from multitask_train.data.sources import read_examples

__all__ = ["Example", "Span", "read_examples"]
