"""Makes the variants of one checkpoint in one folder and puts each through the gates."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnx
from tqdm import tqdm

from multitask_core import engines
from multitask_core.errors import ParityError
from multitask_core.session import OnnxEncoder
from multitask_core.text import TextEncoder
from multitask_export import fp16, fusion, gates, int8, parity
from multitask_export.graph import op_counts
from multitask_export.onnx_config import export_graph
from multitask_export.variants import (
    BUDGETS,
    ENGINE_BUDGETS,
    FP32,
    FUSED,
    PACKED32,
    VARIANTS,
    Variant,
    with_sources,
)
from multitask_train import checkpoint
from multitask_train.data import Example
from multitask_train.model import MultiTaskModel

log = logging.getLogger(__name__)

Figures = dict[str, Any]
CALIBRATION_ROWS = 256


class Maker:
    """Writes graphs into `stage`; a variant that a gate refuses is deleted again.

    allowed: variant → why it may pass a budget that it fails.
    """

    def __init__(
        self,
        stage: Path,
        model: MultiTaskModel,
        encoder: TextEncoder,
        examples: Sequence[Example],
        allowed: Mapping[str, str],
    ) -> None:
        self._stage, self._model, self._allowed = stage, model, allowed
        self._config = model.config.encoder_config
        self._schema = model.config.schema
        torch_encoder = checkpoint.TorchEncoder(model)
        self._reference = parity.Reference(encoder, torch_encoder, self._schema, examples)

    def run(self, wanted: set[str], required: set[str]) -> dict[str, Figures]:
        """Return what was measured on each wanted variant, or why it was refused.

        Raises ParityError when one of `required`, or what it is made from, is refused.
        """
        report: dict[str, Figures] = {}
        needed = with_sources(wanted)
        for name in (bar := tqdm(needed, unit="variant")):
            bar.set_description(name)
            try:
                report[name] = self._make(VARIANTS[name])
                tqdm.write(_line(name, report[name]))
            except ParityError as error:
                if name in required:
                    raise
                self._path(VARIANTS[name]).unlink(missing_ok=True)
                report[name] = {"refused": str(error)}
                log.warning("left out: %s", error)
        for name in set(report) - wanted:
            self._path(VARIANTS[name]).unlink(missing_ok=True)
        return {name: report[name] for name in needed if name in wanted}

    def _path(self, variant: Variant) -> Path:
        return self._stage / variant.file

    def _make(self, variant: Variant) -> Figures:
        """Write one variant; raises ParityError whatever keeps it from being made."""
        makers = {"fp32": self._make_fp32, "fp16": self._make_fp16, "int8": self._make_int8}
        try:
            return makers[variant.precision](variant)
        except ParityError:
            raise
        except Exception as error:  # tracer, optimizer, quantizer and runtime raise what they like
            raise ParityError(
                f"{variant.name} cannot be made: {type(error).__name__}: {error}"
            ) from error

    def _make_fp32(self, variant: Variant) -> Figures:
        path = self._path(variant)
        if variant.name == FUSED:
            fusion.fuse(self._source(variant), path, self._config)
        else:
            export_graph(self._model, path, variant.layout)
        figures = self._gate(variant, path)
        return figures if variant.contrib else {**figures, "engines": self._try_engines(path)}

    def _try_engines(self, path: Path) -> dict[str, Figures]:
        """What each further engine that this machine has answers with the graph, or its refusal."""
        tried: dict[str, Figures] = {}
        for engine, budget in ENGINE_BUDGETS.items():
            if fault := engines.engine_fault(engine):
                log.info("%s is not tried with %s: %s", path.name, engine, fault)
                continue
            try:
                encoder = OnnxEncoder(path, self._schema, engine=engine)
                measured = self._reference.measure(encoder)
                parity.check_budget(f"{path.name} with {engine}", measured, BUDGETS[budget])
                tried[engine] = {**measured.to_dict(), "histogram": measured.histogram}
            except Exception as error:  # noqa: BLE001  the runtimes raise what they like
                log.warning("engine %s will not be used: %s", engine, error)
                tried[engine] = {"refused": str(error)}
        return tried

    def _source(self, variant: Variant) -> Path:
        path = self._path(VARIANTS[variant.source])
        if not path.exists():
            raise ParityError(
                f"{variant.name}: {variant.source}, which it is made from, was refused"
            )
        return path

    def _make_fp16(self, variant: Variant) -> Figures:
        """All of it in FP16, or all but the fewest nodes that the gates ask for."""
        source, path = self._source(variant), self._path(variant)
        kept: list[str] = []
        finished = True
        try:
            rounded = self._judge(variant, self._rounded(source, kept))
            scores = self._judge(variant, self._rounded_scores(variant))
            rounded |= {name: scores[name] for name in ("failed", "allowed") if name in scores}
        except ParityError as error:
            log.warning("%s: in FP16 %s; looking for the nodes that must stay in FP32",
                        variant.name, error)  # fmt: skip
            kept, finished = self._search(variant, source)
            log.info("%s: in FP32 stay %s", variant.name, ", ".join(kept))
            rounded = self._judge(variant, self._rounded(source, kept))
        fp16.convert(source, path, kept)
        products = fp16.check_precision(path, kept)
        if products["fp32"] > products["fp16"]:
            raise ParityError(
                f"{variant.name}: {products['fp32']} of {sum(products.values())} matrix products "
                "would have to stay in FP32; that is no FP16 graph"
            )
        return {
            **self._gate(variant, path, kept),
            "kept_in_fp32": kept,
            "search_finished": finished,
            "products": products,
            "rounded": {name: value for name, value in rounded.items() if name != "histogram"},
            "histogram": rounded["histogram"],
            **{name: rounded[name] for name in ("failed", "allowed") if name in rounded},
        }

    def _search(self, variant: Variant, source: Path) -> tuple[list[str], bool]:
        """Nodes to keep; a fused Attention too whose inner scores leave FP16's range."""
        whole: list[str] = []
        try:
            self._judge(variant, self._rounded_scores(variant))
        except ParityError:
            nodes = onnx.load(source, load_external_data=False).graph.node
            whole = [node.name for node in nodes if node.op_type == "Attention"]

        def passes(kept: Collection[str]) -> bool:
            try:
                self._judge(variant, self._rounded(source, [*kept, *whole]))
            except ParityError:
                return False
            return True

        if whole and passes([]):
            return whole, True
        kept, finished = fp16.search_kept(source, passes)
        return [*(name for name in kept if name not in whole), *whole], finished

    def _rounded(self, source: Path, kept: Collection[str]) -> parity.Parity:
        """What the graph gives when every value between nodes is rounded, as on a GPU."""
        simulated = self._stage / "simulated.onnx"
        try:
            fp16.simulate(source, simulated, kept)
            return self._reference.measure(OnnxEncoder(simulated, self._schema))
        finally:
            simulated.unlink(missing_ok=True)

    def _rounded_scores(self, variant: Variant) -> parity.Parity | None:
        """The plain graph with only attention rounded: a fused node shows nothing of its inside."""
        plain = self._path(VARIANTS[FP32])
        if not variant.contrib:
            return None
        nodes = onnx.load(plain, load_external_data=False).graph.node
        outside = [node.name for node in nodes if "/attention/self/" not in node.name]
        return self._rounded(plain, outside)

    def _make_int8(self, variant: Variant) -> Figures:
        """The recipe that changes fewest answers; part of it in FP32 only where all of it fails.

        One that is allowed to fail is taken only where every recipe fails.
        """
        source = self._source(variant)
        plain = self._path(VARIANTS[PACKED32 if variant.source == PACKED32 else FP32])
        rows = self._reference.sentence_rows[:CALIBRATION_ROWS]
        refusals: list[str] = []
        for allowing in [False, True][: 1 + (variant.name in self._allowed)]:
            for title, keep in (("", False), (", second feed-forward in FP32", True)):
                kept = int8.contractions(source, self._config) if keep else []
                kept_plain = int8.contractions(plain, self._config) if keep else []
                recipes: dict[str, Callable[[Path], None]] = {
                    f"dynamic{title}": partial(int8.quantize, source, kept=kept),
                    f"static{title}": partial(
                        int8.quantize_calibrated, plain, rows=rows, kept=kept_plain
                    ),
                }
                if figures := self._best(variant, recipes, refusals, allowing):
                    return figures
        raise ParityError("; ".join(refusals))

    def _best(
        self,
        variant: Variant,
        recipes: Mapping[str, Callable[[Path], None]],
        refusals: list[str],
        allowing: bool,
    ) -> Figures | None:
        """Make every recipe and keep the one with fewest changed answers, if one passes."""
        passed: list[tuple[int, str, Path, Figures]] = []
        for index, (title, make) in enumerate(recipes.items()):
            path = self._stage / f"{index}-{variant.file}"
            make(target=path)  # type: ignore[call-arg]
            try:
                figures = self._gate(variant, path, allowing=allowing)
                changed = figures["labels_changed"] + figures["entities_changed"]
                passed.append((changed, title, path, figures))
            except ParityError as error:
                path.unlink()
                refusals.append(f"{error} ({title})")
        if not passed:
            return None
        _, title, best, figures = min(passed, key=lambda one: one[0])
        best.replace(self._path(variant))
        for _, _, path, _ in passed:
            path.unlink(missing_ok=True)
        by_recipe = {title: changed for changed, title, _, _ in passed}
        return {"recipe": title, "changed_by_recipe": by_recipe, **figures}

    def _gate(
        self, variant: Variant, path: Path, kept: Collection[str] = (), *, allowing: bool = True
    ) -> Figures:
        """Graph, numeric and task gate of one file; raises ParityError."""
        layers = self._config.num_hidden_layers
        gates.check_graph(path, variant, self._schema, layers, kept)
        measured = self._reference.measure(OnnxEncoder(path, self._schema))
        return {
            **self._judge(variant, measured, allowing=allowing),
            "bytes": path.stat().st_size,
            "operators": op_counts(path),
        }

    def _judge(
        self, variant: Variant, measured: parity.Parity | None, *, allowing: bool = True
    ) -> Figures:
        """The figures; raises ParityError beyond budget, or records why that is allowed."""
        if measured is None:
            return {}
        figures = {**measured.to_dict(), "histogram": measured.histogram}
        try:
            parity.check_budget(variant.name, measured, BUDGETS[variant.precision])
        except ParityError as error:
            if not allowing or variant.name not in self._allowed:
                raise
            figures |= {"failed": str(error), "allowed": self._allowed[variant.name]}
            log.warning("%s (allowed: %s)", error, self._allowed[variant.name])
        return figures


def _line(name: str, figures: Figures) -> str:
    judged = parity.judged(figures)
    largest = max(judged["class_difference"], judged["token_difference"])
    changed = f"{judged['labels_changed']} change their label, {judged['entities_changed']} their"
    note = f"; in FP32: {len(figures['kept_in_fp32'])}" if figures.get("kept_in_fp32") else ""
    note += f"; {figures['recipe']}" if "recipe" in figures else ""
    return (
        f"{name}: logits within {largest:.1e}; of {judged['sentences']} sentences {changed} "
        f"entities{note}"
    )
