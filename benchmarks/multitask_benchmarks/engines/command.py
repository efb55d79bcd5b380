"""Time the model alone on every engine: arrays of piece ids in, both heads' logits out.

    python -m multitask_benchmarks engines --checkpoint runs/demo --artifact artifacts/demo
    python -m multitask_benchmarks engines --checkpoint runs/demo --artifact artifacts/demo \\
        --lengths data --data data/demo/test.jsonl --subjects 'torch*' '*packed*'

The grid has rows of one length, made of random valid pieces; `--lengths data` takes the windows of
real texts in random order, and `long-tail` joins and cuts them to a log-normal distribution (median
16, one in twenty above 80). A padded engine pads every batch to its longest row. Each engine runs
in a process of its own, one at a time; before anything is timed its logits are compared with
PyTorch FP32's. GFLOP/s are those of real pieces (`engines/flops.py`), and utilisation divides them
by the peak that plain matrix products of the model's shapes reach in the same rounds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from multitask_benchmarks.engines.points import DATA, GRID, LENGTHS
from multitask_benchmarks.engines.settings import Settings
from multitask_benchmarks.recording import add_result_arguments, require_positive
from multitask_core.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")
# Seconds of a cell in a round, of the longest call, and of the whole run. A GPU does in a
# millisecond what a CPU does in a second.
DEFAULTS = {"cpu": (0.5, 5.0, 1800.0), "cuda": (0.12, 1.0, 290.0)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `engines`."""
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="training run: the reference, in torch")
    add("--artifact", type=Path, help="its export, for ONNX Runtime, OpenVINO and TensorRT")
    add("--subjects", nargs="+", default=[], metavar="PATTERN",
        help="engines by name: 'torch*' '*packed*' (default: all that suit)")  # fmt: skip
    add("--device", choices=DEVICES, default="auto", help="auto: CUDA where there is a GPU")
    add("--batch", type=int, nargs="+", default=[1, 8, 32, 128], metavar="N",
        help="rows in a batch (default: 1 8 32 128)")  # fmt: skip
    add("--length", type=int, nargs="+", default=[16, 128, 384], metavar="N",
        help="pieces in every row of the grid (default: 16 128 384)")  # fmt: skip
    add("--lengths", choices=LENGTHS, default=GRID, help="where rows come from [%(default)s]")
    add("--data", help="texts that give the rows: JSONL, CoNLL, .gz too")
    add("--rows", type=int, default=512, help="rows of data or the long tail [%(default)s]")
    add("--compile", choices=("dynamic", "per-shape"), default="dynamic",
        help="shapes that torch.compile specialises for [%(default)s]")  # fmt: skip
    add("--threads", type=int, default=0, help="intra-op threads; 0: all CPUs")
    _add_time_arguments(parser)
    add("--allow-different", action="store_true",
        help="record logits beyond the bound of their precision instead of refusing")  # fmt: skip
    add_result_arguments(parser)


def _add_time_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="interleaved rounds (default: %(default)s)")
    add("--seconds", type=float,
        help="each engine at each point in each round (default: 0.5, on a GPU 0.12)")  # fmt: skip
    add("--longest-call", type=float, metavar="S",
        help="leave out what takes longer for one call (default: 5, on a GPU 1)")  # fmt: skip
    add("--budget", type=float, metavar="S",
        help="for everything; large points are left out (default: 1800, on a GPU 290)")  # fmt: skip


def execute(options: argparse.Namespace) -> int:
    """Measure and write the scenario; returns the exit status."""
    settings = _settle(options)
    # torch takes seconds to load, which --help and a faulty option do without.
    from multitask_benchmarks.engines.scenario import run

    return run(options, settings)


def _settle(options: argparse.Namespace) -> Settings:
    """Check what can be checked without a model, and settle what depends on the device."""
    require_positive(options, "batch", "length", "rows", "rounds")
    if options.threads < 0:
        raise ConfigError(f"--threads {options.threads}: give 0 for all CPUs, or how many")
    if options.lengths != GRID and not options.data:
        raise ConfigError(f"--lengths {options.lengths} takes its rows from texts: give --data")
    if options.lengths == GRID and options.data:
        raise ConfigError(f"--data is not read for the grid: add --lengths {DATA} or leave it out")
    for name in ("seconds", "longest_call", "budget"):
        if getattr(options, name) is not None:
            require_positive(options, name)
    device = _device(options.device)
    seconds, longest_call_s, budget_s = DEFAULTS[device]
    return Settings(
        device,
        tuple(options.subjects),
        options.artifact,
        options.rounds,
        seconds=options.seconds or seconds,
        longest_call_s=options.longest_call or longest_call_s,
        budget_s=options.budget or budget_s,
        allow_different=options.allow_different,
    )


def _device(wanted: str) -> str:
    if wanted == "cpu":
        return wanted
    import torch

    found = torch.cuda.is_available()
    if wanted == "cuda" and not found:
        raise ConfigError("--device cuda: torch sees no CUDA device here; use --device cpu")
    return "cuda" if found else "cpu"
