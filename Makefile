# From labelled text to a Triton endpoint. `make demo` walks the whole path; `make help` lists all.

PYTHON     ?= python3
CONFIG     ?= train/configs/demo.yaml
CHECKPOINT ?= runs/demo
ARTIFACT   ?= artifacts/$(notdir $(CHECKPOINT))
REPOSITORY ?= triton_models
DATA       ?= data/demo/test.jsonl
URL        ?= localhost:8001
TEXT       ?= Hi, my router has been blinking red since last night, can Zoë call me at half past six?

PY   := .venv/bin/python
SERVE = $(PY) -m multitask_serve

.DEFAULT_GOAL := help
.PHONY: help setup demo train export check-repository engine serve predict bench peers test test-triton test-slow check lint format types contracts lock clean

help: ## list every target
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  variables: CONFIG CHECKPOINT ARTIFACT REPOSITORY DATA URL TEXT PYTHON"

# --- set-up: two environments, skipped while the locks are unchanged -------------------------------

setup: .venv/.ready .venv-server/.ready ## make both virtual environments from the locks

.venv/.ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 10) <= v < (3, 13) else f"error: Python {v.major}.{v.minor} is not supported; give PYTHON=python3.11 (3.10 to 3.12)")'
	@echo "== set-up: training, export, client (about two minutes)"
	$(PYTHON) -m venv --clear .venv
	.venv/bin/pip install -r requirements.txt
	.venv/bin/pip install --no-deps --no-build-isolation --editable .
	@touch $@

# The server has its own environment, as it would in a container: it needs numpy 1.
.venv-server/.ready: requirements-server.txt pyproject.toml
	@echo "== set-up: the Triton server's environment"
	$(PYTHON) -m venv --clear .venv-server
	.venv-server/bin/pip install --no-deps -r requirements-server.txt
	.venv-server/bin/pip install --no-deps --no-build-isolation --editable .
	@touch $@

# --- the demo: text → checkpoint → ONNX → Triton → client ------------------------------------------

demo: setup data/demo/test.jsonl artifacts/demo/manifest.json ## the whole path on the shipped corpus, ends with answers over gRPC
	@# triton_models may hold another model, from `make export CHECKPOINT=…`.
	@cmp -s artifacts/demo/manifest.json triton_models/multitask/1/manifest.json || $(EXPORT_DEMO)
	@echo "== serve and ask"
	$(SERVE) run --repository triton_models --target embedded -- \
	    $(PY) -m multitask_benchmarks demo --url {grpc} --data data/demo/test.jsonl \
	        --checkpoint runs/demo --artifact artifacts/demo --repository triton_models

data/demo/test.jsonl: | setup
	@echo "== corpus"
	$(PY) -m multitask_train corpus --output data/demo

runs/demo/manifest.json: train/configs/demo.yaml | setup
	@echo "== train"
	$(PY) -m multitask_train fit --config train/configs/demo.yaml --run.overwrite true

EXPORT_DEMO = $(PY) -m multitask_export --checkpoint runs/demo --output artifacts/demo \
	--repository triton_models

artifacts/demo/manifest.json: runs/demo/manifest.json $(wildcard export/multitask_export/*.py) | setup
	@echo "== export"
	$(EXPORT_DEMO)

# --- the stages by themselves ----------------------------------------------------------------------

train: setup ## train a checkpoint: CONFIG
	$(PY) -m multitask_train fit --config $(CONFIG) --run.overwrite true

export: setup ## checkpoint → artifact and model repository: CHECKPOINT ARTIFACT REPOSITORY
	$(PY) -m multitask_export --checkpoint $(CHECKPOINT) --output $(ARTIFACT) --repository $(REPOSITORY)

check-repository: setup ## find what Triton would ignore or refuse in production: REPOSITORY
	$(PY) -m multitask_export lint $(REPOSITORY)

engine: ## build a TensorRT plan on this machine's GPU, inside the Triton container: ARTIFACT REPOSITORY
	docker build -f Dockerfile.triton --target engine -t multitask-engine .
	docker run --rm --gpus device=0 --user "$$(id -u):$$(id -g)" \
	    -v "$(abspath $(ARTIFACT)):/artifact:ro" -v "$(abspath $(REPOSITORY)):/models" \
	    multitask-engine --artifact /artifact --repository /models

serve: setup ## run Triton on REPOSITORY until stopped
	$(SERVE) start --repository $(REPOSITORY) --target embedded

predict: setup ## ask the running server: TEXT URL
	@$(PY) -m multitask_client --url $(URL) -- '$(subst ','\'',$(value TEXT))'

# The demo's model by default; others are the user's to make.
bench: setup $(if $(filter artifacts/demo,$(ARTIFACT)),artifacts/demo/manifest.json data/demo/test.jsonl) ## quick benchmarks (minutes): engines, in process against PyTorch, over gRPC
	$(PY) -m multitask_benchmarks run benchmarks/scenarios/cpu-quick.yaml \
	    --set artifact=$(ARTIFACT) checkpoint=$(CHECKPOINT) repository=$(REPOSITORY) data=$(DATA)

peers: setup ## environments of the other servers that are benchmarked
	$(PY) -m multitask_benchmarks peers install --python $(PYTHON)

# --- tests and checks ------------------------------------------------------------------------------

test: setup ## the quick tests (minutes)
	$(PY) -m pytest -n auto -m "not slow and not gpu and not triton"

test-triton: setup ## tests against a real Triton server
	$(PY) -m pytest -m "triton and not slow"

test-slow: setup ## the long tests
	$(PY) -m pytest -m "slow and not gpu"

check: lint types contracts test ## everything that CI asks for, Triton apart

lint: setup ## formatting and ruff
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

format: setup ## format the code
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

types: setup ## mypy --strict
	$(PY) -m mypy

contracts: setup ## which package may import which
	.venv/bin/lint-imports

lock: ## resolve both lock files anew (needs uv)
	scripts/lock.sh

clean: ## remove what the demo and the tests made; environments stay
	rm -rf runs/demo artifacts/demo data/demo .pytest_cache .mypy_cache .ruff_cache
	git clean -fdXq triton_models
