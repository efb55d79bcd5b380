"""Does a plan answer like the FP32 graph? Real sentences in batches of different shapes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from multitask_core.batching import Float32, Int64, pad_rows
from multitask_core.errors import ArtifactError, ConfigError, ParityError
from multitask_core.signature import ATTENTION_MASK, CLASS_LOGITS, INPUT_IDS, TOKEN_LOGITS
from multitask_core.text import MAX_CHARS, TextEncoder, text_fault
from multitask_export.engine.trtexec import Shape
from multitask_export.variants import BUDGETS

# Largest absolute difference of a logit: FP16 has 11 bits, and some ten products follow each other.
TOLERANCE = BUDGETS["fp16"].logits or 0.0
MAX_TEXTS = 256

SENTENCES = (
    "yes",
    "play some jazz",
    "cancel my order, please",
    "Hi, my router has been blinking red since last night.",
    "Could you book a table for four at seven on Friday in Zoë's café?",
    "what is the weather like in New York tomorrow morning, and do I need an umbrella?",
    "I was charged twice for the March invoice (£45.90 each) and want one of them refunded.",
    "move the appointment on the 3rd of June from 9:30 to any time after lunch, or the day after",
)


class Batch(NamedTuple):
    """input_ids and attention_mask, both INT64 [B, L]."""

    input_ids: Int64
    attention_mask: Int64

    @property
    def shape(self) -> Shape:
        """Rows and pieces."""
        return Shape(*self.input_ids.shape)


class Answer(NamedTuple):
    """class_logits [B, C] and token_logits [B, L, T]."""

    class_logits: Float32
    token_logits: Float32


@dataclass(frozen=True)
class Agreement:
    """Largest logit differences, and how many answers changed: all of them nearly ties."""

    class_difference: float
    token_difference: float
    labels_changed: int
    tags_changed: int
    rows: int
    shapes: tuple[str, ...]


def read_texts(path: Path | None) -> list[str]:
    """The first sentences of a file, one a line or JSONL with `text`; SENTENCES without a file.

    Raises ConfigError naming the line that is no text.
    """
    if path is None:
        return list(SENTENCES)
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the sentences {path}: {error}") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise ConfigError(f"{path} holds no sentences")
    json_lines = path.suffix == ".jsonl"
    return [_text(path, number, line, json_lines) for number, line in numbered[:MAX_TEXTS]]


def make_batches(
    encoder: TextEncoder, texts: Sequence[str], typical: int, largest: int
) -> list[Batch]:
    """Typical rows first, then the shortest, the longest, all in mixed lengths, and full windows.

    typical, largest: rows in a batch.
    """
    rows = _rows(encoder, texts)
    ordered = sorted(rows, key=len)
    middle = max(0, (len(rows) - typical) // 2)
    pieces = max(1, sum(len(encoded.ids) for encoded in encoder(texts)))
    repeats = -(-typical * encoder.windowing.max_length // pieces)
    full = _rows(encoder, [" ".join([*texts] * repeats)[:MAX_CHARS]])
    groups = (
        ordered[middle : middle + typical],
        ordered[:1],
        ordered[-1:],
        *(rows[first : first + largest] for first in range(0, len(rows), largest)),
        full[:typical],
    )
    return [Batch(*pad_rows(group)) for group in groups]


def reference(graph: Path) -> Callable[[Batch], Answer]:
    """The FP32 graph in ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])

    def answer(batch: Batch) -> Answer:
        feeds = {INPUT_IDS: batch.input_ids, ATTENTION_MASK: batch.attention_mask}
        return Answer(*session.run([CLASS_LOGITS, TOKEN_LOGITS], feeds))

    return answer


def read_outputs(path: Path) -> Answer:
    """Read trtexec's exported outputs: [{name, dimensions: "8x64", values: [...]}, ...].

    The values have six significant digits. Raises ArtifactError for another format.
    """
    text = path.read_text()
    # C++ prints values that JSON does not know.
    text = re.sub(r"\binf\b", "Infinity", re.sub(r"-?\bnan\b", "NaN", text))
    try:
        tensors = {
            tensor["name"]: np.array(tensor["values"], np.float32).reshape(
                [int(size) for size in tensor["dimensions"].split("x")]
            )
            for tensor in json.loads(text)
        }
        return Answer(tensors[CLASS_LOGITS], tensors[TOKEN_LOGITS])
    except (ValueError, TypeError, KeyError) as error:
        raise ArtifactError(
            f"trtexec's outputs {path.name} cannot be read: {type(error).__name__}: {error}"
        ) from error


def check_agreement(
    batches: Sequence[Batch], wanted: Sequence[Answer], found: Sequence[Answer]
) -> Agreement:
    """Compare the plan's answers with the reference's.

    Raises ParityError where shapes differ, a value is not finite, a logit differs by more than
    TOLERANCE, or an answer changes that was no tie: whose margin is the largest difference or more.
    """
    pairs = [
        (np.concatenate(left), np.concatenate(right))
        for left, right in (
            _pairs(CLASS_LOGITS, batches, wanted, found),
            _pairs(TOKEN_LOGITS, batches, wanted, found),
        )
    ]
    of_class, of_token = (float(np.abs(left - right).max(initial=0.0)) for left, right in pairs)
    largest = max(of_class, of_token)
    if largest > TOLERANCE:
        raise ParityError(
            f"the plan's logits differ by up to {largest:.2e} from the FP32 graph, allowed are "
            f"{TOLERANCE:.0e}"
        )
    labels, tags = (
        _changed(what, *pair, largest) for what, pair in zip(("label", "tag"), pairs, strict=True)
    )
    rows = sum(batch.shape.rows for batch in batches)
    shapes = tuple(str(batch.shape) for batch in batches)
    return Agreement(of_class, of_token, labels, tags, rows, shapes)


def _pairs(
    name: str, batches: Sequence[Batch], wanted: Sequence[Answer], found: Sequence[Answer]
) -> tuple[list[Float32], list[Float32]]:
    """One output's logits as rows [n, values], what answers padding left out."""
    left, right = [], []
    for batch, mine, theirs in zip(batches, wanted, found, strict=True):
        one, other = (getattr(answer, name) for answer in (mine, theirs))
        if one.shape != other.shape:
            raise ParityError(
                f"{name} of a {batch.shape} batch: the plan gives {other.shape}, the FP32 graph "
                f"{one.shape}"
            )
        if name == TOKEN_LOGITS:
            one, other = (values[batch.attention_mask == 1] for values in (one, other))
        if not np.isfinite(other).all():
            raise ParityError(
                f"{name} of a {batch.shape} batch: {int((~np.isfinite(other)).sum())} values are "
                "not finite, so a value left FP16's range: export with that node in FP32"
            )
        left.append(one)
        right.append(other)
    return left, right


def _changed(what: str, wanted: Float32, found: Float32, difference: float) -> int:
    rows = np.arange(len(wanted))
    best, chosen = wanted.argmax(-1), found.argmax(-1)
    margins = (wanted[rows, best] - wanted[rows, chosen])[best != chosen]
    if margins.max(initial=0.0) >= difference and len(margins):
        raise ParityError(
            f"the plan changes a {what} that is no tie: by a margin of {margins.max():.2e} where "
            f"logits differ by up to {difference:.2e}"
        )
    return len(margins)


def _rows(encoder: TextEncoder, texts: Sequence[str]) -> list[list[int]]:
    return [
        encoder.input_ids(encoded, window)
        for encoded in encoder(texts)
        for window in encoded.windows
    ]


def _text(path: Path, number: int, line: str, json_lines: bool) -> str:
    try:
        text = json.loads(line)["text"] if json_lines else line
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{path}:{number}: no JSON object with 'text' ({type(error).__name__}: {error})"
        ) from error
    if fault := text_fault(text):
        raise ConfigError(f"{path}:{number}: {fault}")
    return str(text)
