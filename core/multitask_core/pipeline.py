"""Text → Prediction in this process: tokenise, batch, run an encoder, decode.

The encoder is any callable on batches of rows: an ONNX session, a torch model under evaluation, or
on a server a call to another Triton model. Everything round it is the same code everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from multitask_core.artifact import Artifact
from multitask_core.batching import (
    MAX_ROWS,
    TOKEN_BUDGET,
    Float32,
    RowLogits,
    Rows,
    plan_batches,
)
from multitask_core.decode import decode
from multitask_core.errors import InputError
from multitask_core.labels import LabelSchema
from multitask_core.prediction import Prediction
from multitask_core.session import OnnxEncoder
from multitask_core.text import (
    MAX_CHARS,
    MAX_PIECES,
    EncodedText,
    TextEncoder,
    Window,
    text_fault,
)

Encoder = Callable[[Rows], Sequence[RowLogits]]
# One text: class logits [windows, C] and for each window token logits [pieces, T].
Logits = tuple[Float32, list[Float32]]


class Pipeline:
    """Predicts texts of any length with one encoder.

    token_budget: most padded tokens in one call of the encoder; max_rows: most windows in it;
    max_chars, max_pieces: longest text accepted, in characters and in word pieces; in_flight: calls
    of the encoder at once, which it must then bear.
    """

    def __init__(
        self,
        text_encoder: TextEncoder,
        encoder: Encoder,
        schema: LabelSchema,
        *,
        token_budget: int = TOKEN_BUDGET,
        max_rows: int = MAX_ROWS,
        max_chars: int = MAX_CHARS,
        max_pieces: int = MAX_PIECES,
        in_flight: int = 1,
    ) -> None:
        self.schema = schema
        self.text_encoder = text_encoder
        self._encoder = encoder
        self._token_budget, self._max_rows = token_budget, max_rows
        self._max_chars, self._max_pieces = max_chars, max_pieces
        self._threads = ThreadPoolExecutor(in_flight) if in_flight > 1 else None

    @classmethod
    def from_artifact(
        cls,
        folder: Path,
        *,
        variant: str = "",
        engine: str = "",
        device: str = "cpu",
        threads: int = 0,
    ) -> Pipeline:
        """Open an exported artifact after checking it against its manifest (ArtifactError)."""
        artifact = Artifact.open(folder)
        encoder = OnnxEncoder.from_artifact(
            artifact, variant, engine=engine, device=device, threads=threads
        )
        return cls(artifact.text_encoder(), encoder, artifact.schema)

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Answer every text, or raise InputError naming the first that cannot be answered."""
        answers: list[Prediction] = []
        for index, answer in enumerate(self.predict_each(texts)):
            if isinstance(answer, InputError):
                raise InputError(f"text {index}: {answer}")
            answers.append(answer)
        return answers

    def predict_each(self, texts: Sequence[str]) -> list[Prediction | InputError]:
        """Answer every text by itself: one that cannot be answered gets its own error."""
        encoded = self.encode(texts)
        answers = iter(self.answer([one for one in encoded if isinstance(one, EncodedText)]))
        return [next(answers) if isinstance(one, EncodedText) else one for one in encoded]

    def encode(self, texts: Sequence[str]) -> list[EncodedText | InputError]:
        """Tokenise every text, or say why it cannot be answered."""
        faults = [text_fault(text, self._max_chars) for text in texts]
        good = [text for text, fault in zip(texts, faults, strict=True) if not fault]
        encoded = self.text_encoder.each(good, self._max_pieces)
        return [fault or next(encoded) for fault in faults]

    def answer(self, encoded: Sequence[EncodedText]) -> list[Prediction]:
        """Answer tokenised texts."""
        pairs = zip(encoded, self.logits(encoded), strict=True)
        return [decode(one, logits, tokens, self.schema) for one, (logits, tokens) in pairs]

    def logits(self, encoded: Sequence[EncodedText]) -> list[Logits]:
        """The logits of every text, special tokens left out."""
        windows = [(text, window) for text, one in enumerate(encoded) for window in one.windows]
        rows = [self.text_encoder.input_ids(encoded[text], window) for text, window in windows]
        outputs = self._run(rows, [window for _, window in windows])
        result: list[Logits] = []
        position = 0
        for one in encoded:
            mine = outputs[position : position + len(one.windows)]
            position += len(one.windows)
            result.append(
                (np.stack([logits for logits, _ in mine]), [logits for _, logits in mine])
            )
        return result

    def _run(self, rows: Rows, windows: Sequence[Window]) -> list[RowLogits]:
        outputs: list[RowLogits] = [_NOTHING] * len(rows)
        first = len(self.text_encoder.prefix)
        batches = plan_batches([len(row) for row in rows], self._token_budget, self._max_rows)
        run = self._threads.map if self._threads else map
        ran = run(self._encoder, [[rows[index] for index in batch] for batch in batches])
        for batch, answers in zip(batches, ran, strict=True):
            for index, (class_logits, token_logits) in zip(batch, answers, strict=True):
                last = first + windows[index].stop - windows[index].start
                outputs[index] = class_logits, token_logits[first:last]
        return outputs


_NOTHING = (np.empty(0, np.float32), np.empty((0, 0), np.float32))
