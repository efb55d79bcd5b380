#!/usr/bin/env bash
# Writes both lock files from pyproject.toml: `make lock`.
#   requirements.txt         everything that development, training, export and the client need
#   requirements-server.txt  what the Triton server's own environment needs (numpy 1)
# The server shares every pin with the main lock, numpy apart: one tokenizer version on both sides
# is part of the promise that the same text gets the same answer.
# No hashes: torch's CPU and CUDA builds share a version, and pip wants hashes for all or for none.
set -euo pipefail
cd "$(dirname "$0")/.."
lock() { uv pip compile --quiet --universal --python-version 3.10 --no-annotate --no-header "$@"; }

shared=$(mktemp)
trap 'rm -f "$shared"' EXIT
lock pyproject.toml --extra dev --output-file requirements.txt
grep -v '^numpy==' requirements.txt > "$shared"
lock --group server --constraint "$shared" --output-file requirements-server.txt
sed -i '1i # Written by `make lock` from pyproject.toml; do not edit.' requirements.txt requirements-server.txt
