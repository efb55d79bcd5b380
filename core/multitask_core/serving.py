"""Settings of the served text model; export writes them into the model's config.

`python -m multitask_export … --set engine=onnxruntime --set max_pieces=5000`
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from multitask_core.batching import MAX_ROWS, TOKEN_BUDGET
from multitask_core.config import Section
from multitask_core.text import MAX_CHARS, MAX_PIECES


class Serving(Section):
    """How a text model runs and what it accepts."""

    engine: Literal["auto", "onnxruntime", "openvino", "openvino-bf16"] = "auto"
    """Runtime of the encoder on `embedded`; auto: the fastest that passed the gates"""
    threads: int = Field(default=0, ge=0)
    """Threads of an encoder on a CPU; 0: all CPUs with OpenVINO, its share with ONNX Runtime"""
    instances: int = Field(default=2, ge=1)
    """Processes that answer texts side by side; one tokenises while another waits"""
    max_batch: int = Field(default=MAX_ROWS, ge=1)
    """Most texts in a request, and in a batch that Triton merges"""
    token_budget: int = Field(default=TOKEN_BUDGET, ge=8)
    """Most word pieces, padding included, in one run of the encoder; 8 times as many on a GPU"""
    light_pieces: int = Field(default=128, ge=0)
    """Requests with more word pieces than this step aside and let shorter ones pass"""
    waiting_pieces: int = Field(default=60_000, ge=1)
    """Word pieces that may wait in an instance for having stepped aside, besides what runs; more
    are refused, but for one request of any size, which counts as half of it"""
    max_chars: int = Field(default=MAX_CHARS, ge=1)
    """Longest text, in characters"""
    max_pieces: int = Field(default=MAX_PIECES, ge=1)
    """Longest text, in word pieces"""
    max_request_chars: int = Field(default=1_000_000, ge=1)
    """Most characters in a request of several texts, all together"""
    max_windows: int = Field(default=1024, ge=1)
    """Most windows in a request, its texts together"""
    queue_size: int = Field(default=128, ge=1)
    """Requests that may wait for a batch; more are refused at once"""
    queue_ms: int = Field(default=1000, ge=1)
    """Longest wait for a batch; then the request is refused"""
