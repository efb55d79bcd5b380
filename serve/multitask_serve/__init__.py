"""Starts a Triton server for a model repository: see `python -m multitask_serve --help`."""

from multitask_serve.ports import Ports
from multitask_serve.server import TritonServer

__all__ = ["Ports", "TritonServer"]
