# On a machine with Python and make: `make quickstart` shows the whole way, `make test` runs the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt
# Two test processes share the cores; each keeps to one thread.
JOBS ?= 2
RUN_TESTS := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: help quickstart install install-dev test test-slow test-hostile test-distributed test-floor tuning-table lint format types check benchmark benchmark-serving gpu-pack gpu-page recipe-page docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /	/' | expand -t 16

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable ".[dev]"
	touch $@

install: $(VENV)/.installed ## make .venv and install the project

install-dev: $(VENV)/.installed-dev ## the same, with what tests and checks need

quickstart: $(VENV)/.installed ## SFT, labels, reward model, DPO, PPO, evaluation and report of recipes/tiny, offline
	OMP_NUM_THREADS=1 $(BIN)/alignment run recipes/tiny/pipeline.yaml  # a model this small is slower on two threads

test: $(VENV)/.installed-dev ## unit tests and the tiny pipeline end to end
	$(RUN_TESTS) -n $(JOBS)

test-slow: $(VENV)/.installed-dev ## the long proofs
	$(RUN_TESTS) -m slow

test-hostile: $(VENV)/.installed-dev ## damaged, wrong and malicious inputs by the hundred; minutes
	$(RUN_TESTS) -m hostile -n $(JOBS) tests/hostile

test-distributed: $(VENV)/.installed-dev ## every stage under every file of launch/accelerate, on two CPU processes; long
	$(PIP) --no-build-isolation --editable ".[deepspeed]"
	$(RUN_TESTS) -m distributed tests/distributed

tuning-table: $(VENV)/.installed-dev ## try each tuning method in each stage, and write the table of docs/tuning.md; 20 minutes, METHODS="lora dora" for some
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m tests.tuning.table --try $(METHODS)

# The oldest versions that pyproject.toml allows, in an environment of their own. PyTorch stays at constraints.txt's: PyPI
# has older ones for CUDA alone. `make test-floor FLOOR_TORCH=2.8.0` tries another one.
FLOOR := .venv-floor
FLOOR_TORCH ?= $(shell sed -n 's/^torch==//p' constraints.txt)

$(FLOOR)/.installed: pyproject.toml constraints.txt tests/floor.py
	test -x $(FLOOR)/bin/python || $(PYTHON) -m venv $(FLOOR)
	$(PYTHON) tests/floor.py torch=$(FLOOR_TORCH) >$(FLOOR)/constraints.txt
	$(FLOOR)/bin/python -m pip install --quiet --constraint $(FLOOR)/constraints.txt --editable ".[dev]"
	touch $@

test-floor: $(FLOOR)/.installed ## policy, rollout, train and recipes on the oldest transformers, trl, peft and accelerate allowed
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(FLOOR)/bin/python -m pytest -n $(JOBS) \
		tests/policy tests/rollout tests/train tests/recipes

lint: $(VENV)/.installed-dev ## ruff
	$(BIN)/ruff check .

format: $(VENV)/.installed-dev ## is everything formatted?
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev ## mypy --strict on alignment and reward
	$(BIN)/mypy

docs: $(VENV)/.installed-dev ## the documentation's site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

check: lint format types docs test ## all of what CI runs

gpu-pack: $(VENV)/.installed ## what a GPU machine without a network needs, in .gpu-pack; then there: bash benchmarks/gpu/run.sh
	$(PIP) setuptools wheel  # deepspeed is built here
	$(BIN)/python -m benchmarks.gpu.pack

recipe-page: $(VENV)/.installed ## docs/recipes.md of the schema in alignment/config/schema
	$(BIN)/python -m alignment.config.reference >docs/recipes.md

gpu-page: $(VENV)/.installed ## docs/gpu.md of benchmarks/gpu/results
	$(BIN)/python -m benchmarks.gpu.page $(sort $(wildcard benchmarks/gpu/results/*.json)) >docs/gpu.md

TRL_WITH_PPO := runs/benchmarks/trl-1.12.0

$(TRL_WITH_PPO):
	$(BIN)/python -m pip install --quiet --no-deps --target $@ trl==1.12.0

benchmark: $(VENV)/.installed $(TRL_WITH_PPO) ## one table of all comparisons with TRL and others, in runs/benchmarks/table.md; two hours
	$(BIN)/python -m benchmarks.table

benchmark-serving: $(VENV)/.installed ## alignment serve against transformers serve; ten minutes
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.serving --width 512 --tokens 32 --rounds 2 --in_flight 1 16

clean: ## remove the environment and all runs
	rm -rf $(VENV) $(FLOOR) runs site
