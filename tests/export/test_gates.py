"""Planted faults: each gate refuses its own, with what it found."""

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnxruntime.transformers import optimizer

from multitask_core.artifact import Artifact
from multitask_core.errors import ParityError
from multitask_core.labels import LabelSchema
from multitask_core.session import OnnxEncoder
from multitask_export import fp16, fusion, gates, int8, parity, variants
from multitask_export.graph import op_counts
from multitask_export.task import spans
from multitask_train import checkpoint
from multitask_train.data import Example, Span
from tiny import SENTENCES, random_model

EXAMPLES = [Example(text, "music", (Span(0, 1, "genre"),)) for text in SENTENCES]


@pytest.fixture(scope="module")
def reference(tiny_checkpoint: Path) -> parity.Reference:
    model, encoder = checkpoint.load(tiny_checkpoint)
    return parity.Reference(encoder, checkpoint.TorchEncoder(model), model.config.schema, EXAMPLES)


def edited(source: Path, target: Path, edit) -> Path:
    model = onnx.load(source)
    edit(model)
    onnx.save(model, target)
    return target


def check(path: Path, schema: LabelSchema, name: str = "fp32") -> None:
    gates.check_graph(path, variants.VARIANTS[name], schema, layers=2)


def scale_constant(name: str, factor: float):
    def edit(model) -> None:
        weight = next(one for one in model.graph.initializer if one.name == name)
        array = numpy_helper.to_array(weight) * np.float32(factor)
        weight.CopyFrom(numpy_helper.from_array(array, name))

    return edit


# --- the graph -----------------------------------------------------------------------------------


def test_swapped_outputs(tiny_artifact: Path, tmp_path: Path, schema: LabelSchema) -> None:
    def swap(model) -> None:
        first, second = model.graph.output
        first.name, second.name = second.name, first.name

    path = edited(tiny_artifact / "model.onnx", tmp_path / "swapped.onnx", swap)
    with pytest.raises(ParityError, match="class_logits has axes"):
        check(path, schema)


def test_a_renamed_input(tiny_artifact: Path, tmp_path: Path, schema: LabelSchema) -> None:
    def rename(model) -> None:
        model.graph.input[0].name = "ids"

    path = edited(tiny_artifact / "model.onnx", tmp_path / "renamed.onnx", rename)
    with pytest.raises(ParityError, match=r"inputs are \['attention_mask', 'ids'\]"):
        check(path, schema)


def test_a_fixed_axis(tiny_artifact: Path, tmp_path: Path, schema: LabelSchema) -> None:
    def fix(model) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 16

    path = edited(tiny_artifact / "model.onnx", tmp_path / "fixed.onnx", fix)
    with pytest.raises(ParityError, match=r"input_ids has axes \(-1, 16\)"):
        check(path, schema)


def test_a_wrong_datatype(tiny_artifact: Path, tmp_path: Path, schema: LabelSchema) -> None:
    def change(model) -> None:
        model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16

    path = edited(tiny_artifact / "model.onnx", tmp_path / "half.onnx", change)
    with pytest.raises(ParityError, match="class_logits has datatype FP16, must be FP32"):
        check(path, schema)


def test_the_layouts_are_not_mixed_up(tiny_artifact: Path, schema: LabelSchema) -> None:
    with pytest.raises(ParityError, match="inputs are"):
        check(tiny_artifact / "model_packed.onnx", schema, "fp32")


@pytest.mark.parametrize(("what", "value"), [("opset", 23), ("IR version", 13)])
def test_a_graph_too_new_for_the_server(
    tiny_artifact: Path, tmp_path: Path, schema: LabelSchema, what: str, value: int
) -> None:
    def renew(model) -> None:
        if what == "opset":
            model.opset_import[0].version = value
        else:
            model.ir_version = value

    path = edited(tiny_artifact / "model.onnx", tmp_path / "new.onnx", renew)
    with pytest.raises(ParityError, match=f"{what} {value}; the pinned Triton reads up to"):
        check(path, schema)


def test_contrib_operators_where_tensorrt_reads(tiny_artifact: Path, schema: LabelSchema) -> None:
    with pytest.raises(ParityError, match=r"operators com\.microsoft\.Attention.* not among"):
        check(tiny_artifact / "model_fused.onnx", schema, "fp32")


def test_an_export_through_dynamo(
    tiny_artifact: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Torch's default exporter writes attention that ONNX Runtime's optimizer cannot fuse."""
    model, _ = checkpoint.load(tiny_checkpoint)
    ids = torch.ones(2, 8, dtype=torch.int64)
    path = tmp_path / "dynamo.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (ids, ids),
            path,
            input_names=["input_ids", "attention_mask"],
            output_names=["class_logits", "token_logits"],
            dynamo=True,
            verbose=False,
        )
    with pytest.raises(ParityError, match="0 fused Attention nodes for 2 layers"):
        fusion.fuse(path, tmp_path / "fused.onnx", model.config.encoder_config)


def test_a_graph_that_did_not_fuse(
    tiny_artifact: Path, tmp_path: Path, schema: LabelSchema
) -> None:
    with pytest.raises(ParityError, match="0 fused Attention nodes for 2 layers"):
        check(tiny_artifact / "model.onnx", schema, "fp32-fused")
    with pytest.raises(ParityError, match="2 fused Attention nodes for 3 layers"):
        fusion.check_fusion(tiny_artifact / "model_fused.onnx", 3)


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "message"), [(1.01, "logits differ by up to"), (np.nan, "finite")]
)
def test_changed_weights(
    tiny_artifact: Path,
    tmp_path: Path,
    schema: LabelSchema,
    reference: parity.Reference,
    factor: float,
    message: str,
) -> None:
    edit = scale_constant("token_head.output.bias", factor)
    path = edited(tiny_artifact / "model.onnx", tmp_path / "changed.onnx", edit)
    with pytest.raises(ParityError, match=message):
        parity.check_budget("changed", reference.measure(OnnxEncoder(path, schema)), variants.EXACT)


def test_a_fused_mask_that_assumes_right_padding(
    tiny_artifact: Path, tmp_path: Path, schema: LabelSchema, reference: parity.Reference
) -> None:
    """The optimizer's own default turns the mask into lengths: silently wrong on the left."""
    path = tmp_path / "lengths.onnx"
    optimizer.optimize_model(
        str(tiny_artifact / "model.onnx"), "bert", num_heads=2, hidden_size=32, opt_level=0
    ).save_model_to_file(str(path))
    check(path, schema, "fp32-fused")
    with pytest.raises(ParityError, match="assumes that padding stands on the right"):
        reference.measure(OnnxEncoder(path, schema))


def test_every_mix_of_lengths_gives_the_padded_logits(
    tiny_artifact: Path, schema: LabelSchema
) -> None:
    padded = OnnxEncoder(tiny_artifact / "model.onnx", schema)
    packed = OnnxEncoder(tiny_artifact / "model_packed.onnx", schema)
    random = np.random.default_rng(0)
    for lengths in ([1], [1, 64], [64], [3, 1, 1], [5] * 9, random.integers(1, 65, 40)):
        rows = [random.integers(5, 100, length).tolist() for length in lengths]
        for mine, theirs in zip(packed(rows), padded(rows), strict=True):
            np.testing.assert_allclose(mine[0], theirs[0], atol=1e-5)
            np.testing.assert_allclose(mine[1], theirs[1], atol=1e-5)


# --- answers -------------------------------------------------------------------------------------


def test_changed_answers(
    reference: parity.Reference, tiny_encoder: Path, schema: LabelSchema
) -> None:
    """A graph allowed to differ in logits must still give the same answers."""
    other = checkpoint.TorchEncoder(random_model(tiny_encoder, schema, seed=2))
    measured = reference.measure(other)
    budget = variants.BUDGETS["int8"]
    with pytest.raises(ParityError, match="sentences change their"):
        parity.check_budget("other", measured, budget)


def test_a_quantised_embedding_that_flips_labels(
    tiny_artifact: Path, tmp_path: Path, schema: LabelSchema, reference: parity.Reference
) -> None:
    def coarsen(model) -> None:
        for weight in model.graph.initializer:
            if weight.name.endswith("word_embeddings.weight"):
                array = numpy_helper.to_array(weight)
                step = np.abs(array).max() / 1.5
                coarse = (np.round(array / step) * step).astype(np.float32)
                weight.CopyFrom(numpy_helper.from_array(coarse, weight.name))

    path = edited(tiny_artifact / "model.onnx", tmp_path / "coarse.onnx", coarsen)
    measured = reference.measure(OnnxEncoder(path, schema))
    assert measured.labels_changed or measured.entities_changed
    with pytest.raises(ParityError, match="coarse: .* sentences change their"):
        parity.check_budget("coarse", measured, variants.BUDGETS["int8"])


def test_lost_accuracy_is_told_with_its_interval(tiny_checkpoint: Path) -> None:
    """On sentences annotated with the checkpoint's own answers everything else is a loss."""

    class Constant:
        layout = "packed"

        def __call__(self, rows):
            label, tags = np.array([0, 0, 0], np.float32), np.zeros((1, 7), np.float32)
            label[rare] = 9
            return [(label, tags.repeat(len(row), 0)) for row in rows]

    model, encoder = checkpoint.load(tiny_checkpoint)
    answers = checkpoint.load_pipeline(tiny_checkpoint).predict(SENTENCES)
    examples = [
        Example(text, one.label, tuple(Span(*span) for span in spans(one)))
        for text, one in zip(SENTENCES, answers, strict=True)
    ]
    schema = model.config.schema
    labels = [one.label for one in answers]
    rare = min(range(3), key=lambda index: labels.count(schema.classes[index]))
    own = parity.Reference(encoder, checkpoint.TorchEncoder(model), schema, examples)
    measured = own.measure(Constant())
    assert measured.accuracy.before == measured.f1.before == 100
    lenient = variants.Budget(None, 1, 1, clear_labels=True, accuracy=1, f1=100)
    with pytest.raises(ParityError, match=r"accuracy falls from 100.00 .* \(95 % interval of"):
        parity.check_budget("constant", measured, lenient)
    lenient = variants.Budget(None, 1, 1, clear_labels=True, accuracy=100, f1=1)
    with pytest.raises(ParityError, match="entity F1 falls from 100.00 to 0.00"):
        parity.check_budget("constant", measured, lenient)


# --- FP16 ----------------------------------------------------------------------------------------


def test_a_mask_constant_outside_fp16(tiny_artifact: Path, tmp_path: Path) -> None:
    def widen(model) -> None:
        for constant in model.graph.node:
            for attribute in constant.attribute:
                if constant.op_type == "Constant" and attribute.name == "value":
                    array = numpy_helper.to_array(attribute.t)
                    if array.dtype == np.float32 and array.size == 1 and array.item() == -10_000:
                        wide = np.full(array.shape, -1e38, np.float32)
                        attribute.t.CopyFrom(numpy_helper.from_array(wide, attribute.t.name))

    path = edited(tiny_artifact / "model_packed.onnx", tmp_path / "mask.onnx", widen)
    with pytest.raises(ParityError, match=r"reaches 1e\+38; FP16 ends at 65504"):
        fp16.convert(path, tmp_path / "half.onnx")


def test_what_runs_in_fp32_unasked_is_caught(tiny_artifact: Path, tmp_path: Path) -> None:
    name = next(
        node.name
        for node in onnx.load(tiny_artifact / "model.onnx").graph.node
        if node.op_type == "MatMul"
    )
    path = tmp_path / "mixed.onnx"
    fp16.convert(tiny_artifact / "model.onnx", path, [name])
    counts = fp16.check_precision(path, [name])
    assert counts["fp32"] == 1
    with pytest.raises(ParityError, match=r"is tensor\(float\), not FP16"):
        fp16.check_precision(path, [])


def overflowing(source: Path, target: Path) -> Path:
    """The second layer's output product leaves FP16's range, and what follows brings it back."""

    def edit(model) -> None:
        graph = model.graph
        product = [node for node in graph.node if node.op_type == "MatMul"][-2]
        index = list(graph.node).index(product)
        big, small = f"{product.output[0]}_big", f"{product.output[0]}_small"
        factors = {"up": np.float32(30000), "down": np.float32(1 / 30000)}
        for name, value in factors.items():
            graph.initializer.append(numpy_helper.from_array(np.array(value), name))
        result = product.output[0]
        product.output[0] = small
        graph.node.insert(index + 1, helper.make_node("Mul", [small, "up"], [big], name="grow"))
        graph.node.insert(
            index + 2, helper.make_node("Mul", [big, "down"], [result], name="shrink")
        )

    return edited(source, target, edit)


def test_overflow_is_seen_though_the_cpu_hides_it(
    tiny_artifact: Path, tmp_path: Path, schema: LabelSchema, reference: parity.Reference
) -> None:
    source = overflowing(tiny_artifact / "model.onnx", tmp_path / "source.onnx")
    fp16.convert(source, tmp_path / "half.onnx")
    reference.measure(OnnxEncoder(tmp_path / "half.onnx", schema))  # finite on this CPU
    fp16.simulate(source, tmp_path / "simulated.onnx")
    with pytest.raises(ParityError, match="values are not finite"):
        reference.measure(OnnxEncoder(tmp_path / "simulated.onnx", schema))


def test_the_search_finds_the_nodes_that_overflow(
    tiny_artifact: Path, tmp_path: Path, schema: LabelSchema, reference: parity.Reference
) -> None:
    source = overflowing(tiny_artifact / "model.onnx", tmp_path / "source.onnx")

    def passes(kept) -> bool:
        path = tmp_path / "simulated.onnx"
        fp16.simulate(source, path, kept)
        try:
            measured = reference.measure(OnnxEncoder(path, schema))
            parity.check_budget("fp16", measured, variants.BUDGETS["fp16"])
        except ParityError:
            return False
        return True

    assert fp16.search_kept(source, passes) == (["grow", "shrink"], True)
    kept, finished = fp16.search_kept(source, passes, tries=2)
    assert not finished
    assert passes(kept)
    fp16.convert(source, tmp_path / "half.onnx", ["grow", "shrink"])
    onnx.checker.check_model(onnx.load(tmp_path / "half.onnx"))


# --- INT8 ----------------------------------------------------------------------------------------


def test_the_second_feed_forward_can_stay_in_fp32(tiny_artifact: Path, tmp_path: Path) -> None:
    config = checkpoint_config(tiny_artifact)
    source = tiny_artifact / "model_fused.onnx"
    kept = int8.contractions(source, config)
    assert len(kept) == 2
    int8.quantize(source, tmp_path / "all.onnx")
    int8.quantize(source, tmp_path / "most.onnx", kept)
    every, most = op_counts(tmp_path / "all.onnx"), op_counts(tmp_path / "most.onnx")
    assert every["QAttention"] == 2
    assert most["MatMul"] == every.get("MatMul", 0) + 2


@pytest.mark.parametrize("file", ["model.onnx", "model_packed.onnx"])
def test_static_answers_do_not_depend_on_the_batch(
    tiny_artifact: Path, tmp_path: Path, schema: LabelSchema, reference: parity.Reference, file: str
) -> None:
    int8.quantize_calibrated(tiny_artifact / file, tmp_path / "static.onnx", reference.rows)
    encoder = OnnxEncoder(tmp_path / "static.onnx", schema)
    rows = reference.rows[:4]
    for row, (together, _) in zip(rows, encoder(rows), strict=True):
        np.testing.assert_allclose(encoder([row])[0][0], together, atol=1e-4)


def checkpoint_config(artifact: Path):
    """Only the width matters here."""
    assert Artifact.open(artifact)
    return type("Config", (), {"hidden_size": 32})
