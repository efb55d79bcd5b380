"""Write a checkpoint with random weights: an encoder's shape, for speed and parity alone.

    python -m multitask_benchmarks untrained --encoder bert-base --data data/demo --output runs/bert

It needs no model hub: the vocabulary is MiniLM's, which is bert-base-uncased's. Labels come from
the data. Its answers mean nothing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

SHAPES = {
    "bert-base": {"hidden": 768, "layers": 12, "heads": 12},
    "minilm": {"hidden": 384, "layers": 6, "heads": 12},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `untrained`."""
    add = parser.add_argument
    add("--encoder", choices=[*SHAPES], default="bert-base", help="shape [%(default)s]")
    add("--data", required=True, help="labelled text: gives the labels and the gate's sentences")
    add("--seed", type=int, default=0, help="of the weights [%(default)s]")
    add("--max-length", type=int, default=256, help="pieces in a window [%(default)s]")
    add("--output", type=Path, required=True, help="folder of the checkpoint")


def execute(options: argparse.Namespace) -> int:
    """Write the checkpoint; returns the exit status."""
    # torch takes seconds to load, which --help does without.
    import torch
    from transformers import BertConfig

    from multitask_core import manifest
    from multitask_train import checkpoint
    from multitask_train.backbones import resolve
    from multitask_train.data import read_examples
    from multitask_train.data.features import collect_schema
    from multitask_train.model import MultiTaskConfig, MultiTaskModel

    manifest.check_target(options.output, checkpoint.KIND)
    examples = read_examples(options.data)
    schema = collect_schema(examples)
    shape = SHAPES[options.encoder]
    inner = BertConfig(
        hidden_size=shape["hidden"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        intermediate_size=4 * shape["hidden"],
    )
    torch.manual_seed(options.seed)
    config = MultiTaskConfig(
        encoder=inner.to_dict(),
        classes=list(schema.classes),
        entity_types=list(schema.entity_types),
        window_length=options.max_length,
        window_stride=options.max_length // 4,
    )
    model = MultiTaskModel(config)
    with torch.no_grad():  # fresh heads are so small that every sentence gets one label
        for head in (model.sentence_head, model.token_head):
            for parameter in head.parameters():
                parameter.mul_(5)
    checkpoint.save(
        options.output,
        model,
        checkpoint.load_tokenizer(resolve("minilm")),
        card=f"# {options.encoder} with random weights\n\nFor measuring speed and parity.\n",
        metrics={},
        config={"untrained": options.encoder, "seed": options.seed},
        samples=examples,
        data="",
    )
    print(json.dumps({"checkpoint": str(options.output), "parameters": model.num_parameters()}))
    return 0
