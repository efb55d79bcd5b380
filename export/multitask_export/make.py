"""Makes the variants of one checkpoint in one folder and puts each through the gates."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from multitask_core.errors import ParityError
from multitask_core.session import OnnxEncoder
from multitask_core.text import TextEncoder
from multitask_export import fp16, fusion, gates, int8, parity
from multitask_export.graph import op_counts
from multitask_export.onnx_config import export_graph
from multitask_export.variants import (
    BUDGETS,
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
Recipe = Callable[[Path], None]
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
        if variant.precision == "int8":
            return self._make_int8(variant)
        if variant.precision == "fp16":
            return self._make_fp16(variant)
        path = self._path(variant)
        if variant.name == FUSED:
            fusion.fuse(self._source(variant), path, self._config)
        else:
            export_graph(self._model, path, variant.layout)
        return self._gate(variant, path)

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
        try:
            rounded = self._rounded(variant, source, kept)
        except ParityError as error:
            log.warning(
                "%s: in FP16 %s; looking for the nodes that must stay in FP32", variant.name, error
            )
            kept = fp16.smallest_kept(source, partial(self._passes_rounded, variant, source))
            log.info("%s: in FP32 stay %s", variant.name, ", ".join(kept))
            rounded = self._rounded(variant, source, kept)
        fp16.convert(source, path, kept)
        return {
            "kept_in_fp32": kept,
            "products": fp16.check_precision(path, kept),
            "rounded": rounded.to_dict(),
            **self._gate(variant, path, kept),
        }

    def _rounded(self, variant: Variant, source: Path, kept: Collection[str]) -> parity.Parity:
        """What the graph gives when every value is rounded as on a GPU; ParityError beyond budget.

        A variant that is allowed to fail is not searched either.
        """
        simulated = self._stage / "simulated.onnx"
        try:
            fp16.simulate(source, simulated, kept)
            measured = self._reference.measure(OnnxEncoder(simulated, self._schema))
        finally:
            simulated.unlink(missing_ok=True)
        if variant.name not in self._allowed:
            parity.check_budget(variant.name, measured, BUDGETS[variant.precision])
        return measured

    def _passes_rounded(self, variant: Variant, source: Path, kept: Collection[str]) -> bool:
        try:
            self._rounded(variant, source, kept)
        except ParityError:
            return False
        return True

    def _make_int8(self, variant: Variant) -> Figures:
        """The recipe that changes fewest answers; part of it in FP32 only where all of it fails."""
        fused = self._source(variant)
        plain = self._path(VARIANTS[PACKED32 if variant.source == PACKED32 else FP32])
        rows = self._reference.rows[:CALIBRATION_ROWS]
        refusals: list[str] = []
        for title, some in (("", False), (", second feed-forward in FP32", True)):
            kept = [
                int8.contractions(source, self._config) if some else [] for source in (fused, plain)
            ]
            recipes: dict[str, Recipe] = {
                f"dynamic{title}": partial(int8.quantize, fused, kept=kept[0]),
                f"static{title}": partial(int8.quantize_calibrated, plain, rows=rows, kept=kept[1]),
            }
            if figures := self._best(variant, recipes, refusals):
                return figures
        raise ParityError("; ".join(refusals))

    def _best(
        self, variant: Variant, recipes: Mapping[str, Recipe], refusals: list[str]
    ) -> Figures | None:
        """Make every recipe and keep the one with fewest changed answers, if one passes."""
        passed: list[tuple[int, str, Path, Figures]] = []
        for index, (title, make) in enumerate(recipes.items()):
            path = self._stage / f"{index}-{variant.file}"
            make(target=path)  # type: ignore[call-arg]
            try:
                figures = self._gate(variant, path)
                changed = figures["labels_changed"] + figures["entities_changed"]
                passed.append((changed, title, path, figures))
            except ParityError as error:
                path.unlink()
                refusals.append(f"{error} ({title})")
        if not passed:
            return None
        best = min(passed, key=lambda one: one[0])
        for _, _, path, _ in passed:
            if path == best[2]:
                path.replace(self._path(variant))
            else:
                path.unlink()
        others = {title: changed for changed, title, _, _ in passed}
        return {"recipe": best[1], "changed_by_recipe": others, **best[3]}

    def _gate(self, variant: Variant, path: Path, kept: Collection[str] = ()) -> Figures:
        """Graph, numeric and task gate of one file; raises ParityError."""
        layers = self._config.num_hidden_layers
        gates.check_graph(path, variant, self._schema, layers, kept)
        measured = self._reference.measure(OnnxEncoder(path, self._schema))
        figures = {
            **measured.to_dict(),
            "histogram": measured.histogram,
            "bytes": path.stat().st_size,
            "operators": op_counts(path),
        }
        try:
            parity.check_budget(variant.name, measured, BUDGETS[variant.precision])
        except ParityError as error:
            if variant.name not in self._allowed:
                raise
            figures |= {"failed": str(error), "allowed": self._allowed[variant.name]}
            log.warning("%s (allowed: %s)", error, self._allowed[variant.name])
        return figures


def _line(name: str, figures: Figures) -> str:
    largest = max(figures["class_difference"], figures["token_difference"])
    changed = f"{figures['labels_changed']} change their label, {figures['entities_changed']} their"
    note = f"; in FP32: {len(figures['kept_in_fp32'])}" if figures.get("kept_in_fp32") else ""
    note += f"; {figures['recipe']}" if "recipe" in figures else ""
    return (
        f"{name}: logits within {largest:.1e}; of {figures['sentences']} sentences {changed} "
        f"entities{note}"
    )
