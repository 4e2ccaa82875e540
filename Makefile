# Each command below is complete by itself on a fresh clone: it makes .venv first where that is missing or out of date.
#   EXTRA=cpu|cuda12|cuda13|tpu   the hardware to install JAX for; remembered, cpu at first
#   GCS=1                         add what runs in gs:// buckets need (EXTRA=tpu has it)
#   FILTERS=1                     add what some of config.data.filters need
#   HF=1                          add Hugging Face's datasets, to read text from
#   QUANTIZATION=1                add what model.quantization needs
#   TOKENIZERS=1                  add what SentencePiece's and tiktoken's files need
#   PYTHON=python3.12             the Python to use; python3 when not given
#   ARGS="--config.key=value"     passed on to the command
CONFIG = configs/python_stdlib.py
WORKDIR = runs/$(basename $(notdir $(CONFIG)))
PY := .venv/bin/python
SETUP := @sh requirements/setup.sh
# A file of tests stays in one process, where its tests share what they compile.
PARALLEL := -n auto --maxprocesses=4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev train test test-all plan-all golden parity reinforcement marathon marathon-data lint format bench lock clean

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22
	@sed -n 's/^#   /  /p' Makefile

setup: ## make .venv from the locked requirements; quick when nothing changed
	$(SETUP)

setup-dev:
	$(SETUP) dev

train: setup ## pretrain the default run into WORKDIR, or go on with it; CONFIG=configs/X.py for another
	$(PY) train.py --config=$(CONFIG) --workdir="$(WORKDIR)" $(ARGS)

test: setup-dev ## run the tests, except the long combinations
	$(PY) -m pytest $(PARALLEL) -m "not slow" $(ARGS)

test-all: setup-dev ## run all tests
	$(PY) -m pytest $(PARALLEL) $(ARGS)

plan-all: setup ## plan every shipped run on the hardware of its layouts; needs EXTRA=tpu, no TPU; ARGS="--only=llama3_8b"
	$(PY) -m planning.everywhere $(ARGS)

golden: setup-dev ## write tests/golden/ anew, and show what changed
	$(PY) -m tests.goldens

parity: setup-dev ## compare every family with PyTorch's transformers, in .venv-reference, which it makes with pip
	@sh requirements/reference.sh
	.venv-reference/bin/python -m pytest -n auto --maxprocesses=4 --dist loadgroup tests/parity $(ARGS)

reinforcement: setup-dev ## test the bridge to Tunix, in .venv-tunix, which it makes with pip (docs/reinforcement.md)
	@sh requirements/reference.sh tunix
	.venv-tunix/bin/python -m pytest tests/tunix $(ARGS)

marathon: setup-dev ## kill runs at random and compare what they leave; ARGS="--runs=20", "--processes=2", "--gcs"
	$(PY) -m tests.marathon $(ARGS)

marathon-data: setup-dev ## kill preparations at random; ARGS="--runs=20 -- --config=configs/X.py"
	$(PY) -m tests.marathon_preparation $(ARGS)

lint: setup-dev ## check style, formatting and types
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

format: setup-dev ## mend style and formatting
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

bench: setup ## measure against the peers; ARGS="cpu --torch_python=PYTHON", "--help"
	$(PY) -m bench $(ARGS)

# Pins stay where they are unless pyproject.toml asks otherwise. ARGS=--upgrade renews them all,
# ARGS="--upgrade-package jax" one.
# cpu.txt comes first and constrains the rest, so that no two locks disagree.
LOCK = PATH="$$PATH:$(CURDIR)/.venv-tools/bin" uv pip compile --quiet --universal \
  --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
  --custom-compile-command "make lock" $(ARGS)

lock: ## write requirements/*.txt anew from pyproject.toml (needs uv, or fetches it)
	@command -v uv >/dev/null || [ -x .venv-tools/bin/uv ] || \
	  { python3 -m venv .venv-tools && .venv-tools/bin/python -m pip install --quiet uv; }
	$(LOCK) pyproject.toml -o requirements/cpu.txt
	for extra in cuda12 cuda13 filters gcs hf quantization tokenizers tpu; do \
	  $(LOCK) pyproject.toml --extra $$extra -c requirements/cpu.txt -o requirements/$$extra.txt || exit 1; done
	for group in build dev; do \
	  $(LOCK) --group $$group -c requirements/cpu.txt -o requirements/$$group.txt || exit 1; done

clean: ## remove .venv and the tools' caches; runs/ and ~/.cache/podium stay
	rm -rf .venv .venv-tools .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './runs/*' -prune -exec rm -rf {} +
