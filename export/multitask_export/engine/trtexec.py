"""The command lines of trtexec, and how they are run."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from multitask_core.errors import ArtifactError
from multitask_core.signature import ATTENTION_MASK, INPUT_IDS

ERROR_LINES = 5
_TICK_S = 1.0


@dataclass(frozen=True)
class Shape:
    """A batch: rows × pieces."""

    rows: int
    pieces: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.pieces}"

    def spec(self) -> str:
        """As trtexec's shape options take it; both inputs have one shape."""
        return f"{INPUT_IDS}:{self},{ATTENTION_MASK}:{self}"


SMALLEST = Shape(1, 1)


@dataclass(frozen=True)
class Recipe:
    """How a plan is built.

    typical, largest: the shapes that TensorRT optimises for and allows. level: builder optimisation
    level, 0 to 5. timing_cache: a file of kernel timings that is read and extended.
    """

    typical: Shape
    largest: Shape
    level: int
    timing_cache: Path | None

    def command(
        self, trtexec: Path, graph: Path, plan: Path, layers: Path, *, major: int
    ) -> list[str]:
        """The build: `graph` → `plan`, and what was built into `layers` (JSON).

        major: of TensorRT. From 11 on every network is strongly typed and the flag is gone.
        """
        cache = [f"--timingCacheFile={self.timing_cache}"] if self.timing_cache else []
        return [
            str(trtexec),
            f"--onnx={graph}",
            f"--saveEngine={plan}",
            *(["--stronglyTyped"] if major < 11 else []),
            f"--minShapes={SMALLEST.spec()}",
            f"--optShapes={self.typical.spec()}",
            f"--maxShapes={self.largest.spec()}",
            f"--builderOptimizationLevel={self.level}",
            *cache,
            "--profilingVerbosity=detailed",
            f"--exportLayerInfo={layers}",
            "--skipInference",
        ]


def run_command(
    trtexec: Path,
    plan: Path,
    shape: Shape,
    inputs: Mapping[str, Path],
    output: Path,
    layers: Path | None = None,
) -> list[str]:
    """One batch through a plan: raw INT64 files in, all outputs as JSON out.

    layers: where to write what was built. Only a run, which knows the shapes, tells the datatypes
    of layers with dynamic shapes.
    """
    files = ",".join(f"{name}:{path}" for name, path in inputs.items())
    return [
        str(trtexec),
        f"--loadEngine={plan}",
        f"--shapes={shape.spec()}",
        f"--loadInputs={files}",
        f"--exportOutput={output}",
        *([f"--exportLayerInfo={layers}"] if layers else []),
        "--warmUp=0",
        "--duration=0",
        "--iterations=2",
    ]


def execute(command: Sequence[str], log: Path, what: str, made: Path) -> None:
    """Run a command with its output appended to a log and the seconds shown on a terminal.

    Raises ArtifactError with the last errors when it fails or does not write `made`.
    """
    start = log.stat().st_size if log.exists() else 0
    with log.open("ab") as stream:
        stream.write(f"$ {shlex.join(command)}\n".encode())
        stream.flush()
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
        ) as process:
            try:
                status = _wait(process, what)
            except BaseException:
                process.kill()
                raise
    if status or not made.is_file():
        with log.open("rb") as stream:
            stream.seek(start)
            output = stream.read().decode(errors="replace")
        raise ArtifactError(
            f"{what} failed (exit status {status}):\n{_last_errors(output)}\nall of it: {log}"
        )


def _wait(process: subprocess.Popen[bytes], what: str) -> int:
    begin = time.monotonic()
    terminal = sys.stderr.isatty()
    while True:
        try:
            status = process.wait(_TICK_S)
        except subprocess.TimeoutExpired:
            if terminal:
                seconds = time.monotonic() - begin
                print(f"\r{what}: {seconds:.0f} s", end="", file=sys.stderr, flush=True)
        else:
            if terminal:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            return status


def _last_errors(output: str) -> str:
    """trtexec marks errors with [E]; a crash leaves none, and then the last lines must do."""
    lines = [line for line in output.splitlines()[1:] if line.strip()]
    errors = [line for line in lines if "[E]" in line]
    return "\n".join(f"  {line}" for line in (errors or lines)[-ERROR_LINES:])
