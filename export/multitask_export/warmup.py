"""Warm-up data: a request for every bucket of lengths, so that no caller waits for a first time.

The files lie in `<model>/warmup/`; Triton reads them when it loads a version. Ids come from the
artifact's own tokenizer: random ones would lie outside the vocabulary.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tritonclient.grpc import model_config_pb2 as pb

from multitask_core import signature
from multitask_core.batching import length_buckets
from multitask_core.files import write_bytes
from multitask_core.signature import PADDED
from multitask_core.text import TextEncoder

FOLDER = "warmup"
_STORY = "please tell the long story of the town again and again, "


def text_samples(window: int) -> list[pb.ModelWarmup]:
    """One request of the text model for each bucket."""
    return [
        _sample(f"{length} pieces", 1, {signature.TEXT: (pb.TYPE_STRING, 1, f"text_{length}")})
        for length in length_buckets(window)
    ]


def tensor_samples(window: int, layout: str, rows: Iterable[int]) -> list[pb.ModelWarmup]:
    """Requests of the tensor model for each bucket and number of rows."""
    return [
        _sample(
            f"{count} x {length} pieces",
            count,
            {
                signature.INPUT_IDS: (pb.TYPE_INT64, length, f"input_ids_{length}"),
                **(
                    {
                        signature.ATTENTION_MASK: (
                            pb.TYPE_INT64,
                            length,
                            f"attention_mask_{length}",
                        )
                    }
                    if layout == PADDED
                    else {}
                ),
            },
        )
        for length in length_buckets(window)
        for count in rows
    ]


def write_text_data(folder: Path, encoder: TextEncoder) -> None:
    """Texts of each bucket's length, as Triton serialises BYTES."""
    for length in length_buckets(encoder.windowing.max_length):
        text = _text(encoder, length).encode()
        write_bytes(folder / FOLDER / f"text_{length}", struct.pack("<I", len(text)) + text)


def write_tensor_data(folder: Path, encoder: TextEncoder) -> None:
    """Rows of each bucket's length and their masks, INT64."""
    for length in length_buckets(encoder.windowing.max_length):
        encoded = encoder([_text(encoder, length)])[0]
        row = encoder.input_ids(encoded, encoded.windows[0])
        row = (row * (1 + length // len(row)))[:length]
        for name, values in (
            (signature.INPUT_IDS, np.array(row, np.int64)),
            (signature.ATTENTION_MASK, np.ones(length, np.int64)),
        ):
            write_bytes(folder / FOLDER / f"{name}_{length}", values.tobytes())


def _text(encoder: TextEncoder, length: int) -> str:
    """The longest beginning of a story that fits into a row of `length` pieces."""
    room = length - len(encoder.prefix) - len(encoder.suffix)
    words = (_STORY * (1 + length // 4)).split()
    lengths = [len(one.ids) for one in encoder(words)]
    fitting = int(np.searchsorted(np.cumsum(lengths), room, side="right"))
    return " ".join(words[: max(1, fitting)])


def _sample(name: str, rows: int, inputs: dict[str, tuple[int, int, str]]) -> pb.ModelWarmup:
    sample = pb.ModelWarmup(name=name, batch_size=rows)
    for tensor, (datatype, length, file) in inputs.items():
        sample.inputs[tensor].data_type = datatype
        sample.inputs[tensor].dims.append(length)
        sample.inputs[tensor].input_data_file = file
    return sample
