"""Make the environments of the other servers, each apart from the toolkit's and from each other's.

    python -m multitask_benchmarks peers install            # all of them
    python -m multitask_benchmarks peers install litserve bentoml
    python -m multitask_benchmarks peers list

An environment stands in `.venv-peers/NAME` of the checkout and holds what
`benchmarks/peers/NAME/requirements.txt` pins. `serving throughput --peer NAME` finds it there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from multitask_benchmarks.report import console, make_table
from multitask_benchmarks.serving.peers import (
    ENVIRONMENTS,
    FOLDER,
    Interface,
    Peer,
    environment,
    known_peers,
    why_not,
)
from multitask_core.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `peers`."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    install = actions.add_parser("install", help="make environments anew")
    install.add_argument("names", nargs="*", metavar="NAME", help="which peers (default: all)")
    install.add_argument(
        "--python",
        default=sys.executable,
        help="interpreter that the environments are made with (default: this one)",
    )
    install.set_defaults(function=_install)
    listed = actions.add_parser("list", help="which peers there are, and which can run here")
    listed.set_defaults(function=_list)


def execute(options: argparse.Namespace) -> int:
    """Run the chosen action; returns the exit status."""
    status: int = options.function(options)
    return status


def install(name: str, python: str, environments: Path = ENVIRONMENTS) -> Path:
    """Make a peer's environment; returns its interpreter. Raises ConfigError.

    An environment that could not be filled is removed, so that one that is there is whole.
    """
    folder = environments / name
    found = folder / "bin" / "python"
    requirements = FOLDER / name / "requirements.txt"
    try:
        subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(found), "-m", "pip", "install", "--quiet", "--requirement", str(requirements)]
        subprocess.run(pip, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise ConfigError(f"the environment of {name} could not be made: {error}") from error
    return found


def _install(options: argparse.Namespace) -> int:
    known = known_peers()
    names = options.names or known
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"no peer {', '.join(unknown)}; known: {', '.join(known) or 'none'}")
    for name in names:
        print(f"installing {name} into {environment(name).parents[1]}", file=sys.stderr)
        install(name, options.python)
    return _list(options)


def _list(_: argparse.Namespace) -> int:
    found = {}
    for name in known_peers():
        peer = Peer(name, "fp32", environment(name))
        found[name] = why_not(peer, Interface.read(FOLDER / name))
    rows = [(name, reason or "ready") for name, reason in found.items()]
    console().print(make_table("Peers", ("name", "state"), rows))
    print(json.dumps({name: reason or "ready" for name, reason in found.items()}))
    return 0
