"""A two-output graph as an encoder: rows of piece ids → the logits of each row."""

from __future__ import annotations

from pathlib import Path

from multitask_core import engines
from multitask_core.artifact import Artifact
from multitask_core.batching import (
    Float32,
    Int64,
    RowLogits,
    Rows,
    pack_rounded,
    pack_rows,
    pad_rows,
    unpack_rows,
    unpad_rows,
)
from multitask_core.engines import AUTO, ONNXRUNTIME, Session
from multitask_core.errors import ArtifactError, ConfigError
from multitask_core.labels import LabelSchema
from multitask_core.signature import (
    ATTENTION_MASK,
    CLASS_LOGITS,
    INPUT_IDS,
    LENGTHS,
    LONGEST,
    PACKED,
    PADDED,
    TOKEN_LOGITS,
    graph_signature,
)

_INPUTS = {PADDED: (INPUT_IDS, ATTENTION_MASK), PACKED: (INPUT_IDS, LENGTHS, LONGEST)}


class OnnxEncoder:
    """A callable session on an ONNX file; one call at a time.

    engine: see `engines`. layout: padded or packed, read off the graph's inputs. threads: 0 takes
    the CPUs this process may use. Raises ArtifactError for a file that is no such graph,
    ConfigError for an engine or device that cannot be had here.
    """

    def __init__(
        self,
        path: Path,
        schema: LabelSchema,
        *,
        engine: str = ONNXRUNTIME,
        device: str = "cpu",
        threads: int = 0,
    ) -> None:
        self._session = engines.open_session(path, engine, device, threads)
        self.engine = engine
        self.layout = _layout(path, self._session)
        _check_graph(path, self._session, schema)

    @classmethod
    def from_artifact(
        cls,
        artifact: Artifact,
        variant: str = "",
        *,
        engine: str = "",
        device: str = "cpu",
        threads: int = 0,
        instances: int = 1,
    ) -> OnnxEncoder:
        """Open a variant, by default the one that the export chose, on an engine that it passed.

        engine: by default the one that the export was set to, which is `auto` unless asked for.
        instances: encoders that this machine will run side by side; ONNX Runtime's threads spin
        while they wait, so without `threads` each gets its share of the CPUs.

        Raises ConfigError for an engine with which the variant did not pass its gates.
        """
        graph = artifact.graph(variant)
        gated, engine = artifact.engines(variant), engine or artifact.serving.engine
        if engine == AUTO:
            engine = engines.choose(gated, device)
        elif engine not in gated and not engines.engine_fault(engine, device):
            raise ConfigError(
                f"{graph.name} was not found equal to its checkpoint with engine {engine}, only "
                f"with {', '.join(gated)}: use one of these or {AUTO}, or export again on a "
                "machine that has the engine"
            )
        if not threads and engine == ONNXRUNTIME:
            threads = max(1, engines.available_cpus() // instances)
        return cls(graph, artifact.schema, engine=engine, device=device, threads=threads)

    def __call__(self, rows: Rows) -> list[RowLogits]:
        """Run one batch of rows."""
        return self.split(rows, *self.run(*self.prepare(rows)))

    def prepare(self, rows: Rows) -> tuple[Int64 | Float32, ...]:
        """Rows as the graph's own inputs, in the order of `signature.graph_signature`."""
        if self.layout == PADDED:
            return pad_rows(rows)
        return pack_rows(rows) if self.engine == ONNXRUNTIME else pack_rounded(rows)

    def split(self, rows: Rows, class_logits: Float32, token_logits: Float32) -> list[RowLogits]:
        """What `run` gave for `prepare(rows)`, row by row."""
        unbatch = unpad_rows if self.layout == PADDED else unpack_rows
        return unbatch(rows, class_logits, token_logits)

    def run(self, *inputs: Int64 | Float32) -> tuple[Float32, Float32]:
        """Run the graph on its own inputs, in the order of `signature.graph_signature`."""
        feeds = dict(zip(_INPUTS[self.layout], inputs, strict=True))
        class_logits, token_logits = self._session.run((CLASS_LOGITS, TOKEN_LOGITS), feeds)
        return class_logits, token_logits


def _layout(path: Path, session: Session) -> str:
    for layout, names in _INPUTS.items():
        if session.inputs == set(names):
            return layout
    wanted = " or ".join(str(sorted(names)) for names in _INPUTS.values())
    raise ArtifactError(
        f"{path} takes {sorted(session.inputs)}; this toolkit's graphs take {wanted}"
    )


def _check_graph(path: Path, session: Session, schema: LabelSchema) -> None:
    for tensor in graph_signature(schema).outputs:
        if tensor.name not in session.outputs:
            raise ArtifactError(
                f"{path} has no output {tensor.name!r}; it has {sorted(session.outputs)}"
            )
        if session.outputs[tensor.name] != tensor.dims[-1]:
            raise ArtifactError(
                f"{path}: {tensor.name} ends in {session.outputs[tensor.name]} values, the label "
                f"schema beside it asks for {tensor.dims[-1]}; graph and labels are of different "
                "models"
            )
