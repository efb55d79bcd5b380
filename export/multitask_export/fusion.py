"""FP32 with ONNX Runtime's fused attention, GELU and layer norms (com.microsoft operators)."""

from __future__ import annotations

from pathlib import Path

from onnxruntime.transformers import optimizer
from onnxruntime.transformers.fusion_options import FusionOptions
from transformers import PretrainedConfig

from multitask_core.errors import ParityError
from multitask_export.graph import op_counts, quiet


def fuse(source: Path, target: Path, encoder: PretrainedConfig) -> None:
    """Write the fused form of a padded graph.

    Raises ParityError unless every layer has one fused Attention.
    """
    options = FusionOptions("bert")
    # The mask as lengths is silently wrong for padding on the left; the raw one is not.
    options.use_raw_attention_mask(True)
    with quiet():
        graph = optimizer.optimize_model(
            str(source),
            model_type="bert",
            num_heads=encoder.num_attention_heads,
            hidden_size=encoder.hidden_size,
            optimization_options=options,
            opt_level=0,
        )
        graph.save_model_to_file(str(target))
    check_fusion(target, encoder.num_hidden_layers)


def check_fusion(path: Path, layers: int) -> None:
    """Raise ParityError unless a graph has one fused Attention for each layer."""
    found = op_counts(path).get("Attention", 0)
    if found != layers:
        raise ParityError(
            f"{path.name}: {found} fused Attention nodes for {layers} layers; ONNX Runtime's "
            "optimizer does not know this graph. Export with --variants fp32 to do without"
        )
