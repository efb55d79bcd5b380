"""An exported model's folder: graph variants, tokenizer, labels, manifest.

The same layout stands in artifacts/<name>/ and in a version folder of the Triton text model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multitask_core import manifest
from multitask_core.config import parse
from multitask_core.engines import ONNXRUNTIME
from multitask_core.errors import ArtifactError, ConfigError
from multitask_core.labels import LabelSchema
from multitask_core.manifest import Manifest
from multitask_core.serving import Serving
from multitask_core.text import TextEncoder, Windowing

KIND = "artifact"
LABELS = "labels.json"
TOKENIZER = "tokenizer.json"
# Beside the models of a repository: held by who changes it, what was published there, and what is
# being published.
LOCK = "publish.lock"
HISTORY = "history.jsonl"
JOURNAL = "publish.json"


@dataclass(frozen=True)
class Artifact:
    """A folder whose labels and tokenizer were checked against its manifest."""

    folder: Path
    manifest: Manifest
    schema: LabelSchema

    @classmethod
    def open(cls, folder: Path) -> Artifact:
        """Check and read everything but the graphs; raises ArtifactError."""
        record = manifest.verify(folder, KIND, [LABELS, TOKENIZER])
        for key in ("graphs", "default", "targets", "layouts", "windowing"):
            if key not in record.config:
                raise ArtifactError(f"{folder / manifest.NAME} lacks config.{key}: export again")
        return cls(folder, record, LabelSchema.load(folder / LABELS))

    @property
    def graphs(self) -> Mapping[str, str]:
        """Variant name → graph file name."""
        graphs: Mapping[str, str] = self.manifest.config["graphs"]
        return graphs

    def graph(self, variant: str = "") -> Path:
        """The checked graph file of a variant, by default the one that the export chose.

        Raises ArtifactError for a variant that is not there or a graph that was changed.
        """
        variant = variant or self.manifest.config["default"]
        if variant not in self.graphs:
            raise ArtifactError(
                f"{self.folder} has no variant {variant!r}; it has {', '.join(sorted(self.graphs))}"
            )
        name = self.graphs[variant]
        manifest.verify(self.folder, KIND, [name])
        return self.folder / name

    @property
    def serving(self) -> Serving:
        """Settings of the served text model; ConfigError where this release does not know them."""
        given = self.manifest.config.get("serving", {})
        return parse(Serving, given, f"{self.folder}: config.serving")

    def engines(self, variant: str = "") -> tuple[str, ...]:
        """Engines with which a variant was found equal to its checkpoint."""
        variant = variant or self.manifest.config["default"]
        recorded: Mapping[str, list[str]] = self.manifest.config.get("engines", {})
        return tuple(recorded.get(variant, [ONNXRUNTIME]))

    def text_encoder(self) -> TextEncoder:
        """The tokenizer with the windowing that the model was trained with."""
        return TextEncoder.from_file(self.folder / TOKENIZER, self._windowing())

    def _windowing(self) -> Windowing:
        value: Mapping[str, Any] = self.manifest.config["windowing"]
        try:
            return Windowing(**value)
        except (TypeError, ConfigError) as error:
            raise ArtifactError(f"{self.folder}: config.windowing {value!r}: {error}") from error
