# ChainForge: every target works on a fresh machine with python3 (3.11-3.13), git and make.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The steps' commands say `python`: let it be this environment's.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export PYTHONHASHSEED := 0
# On a CPU: freed memory is used again, up to 32 MB in one piece. Without, a step takes up to 4% longer.
export GLIBC_TUNABLES ?= glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=536870912
# Linux without a GPU: PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu" saves gigabytes of CUDA.
PIP_ARGS ?=
PIP = $(BIN)/python -m pip install --quiet
# Whether pip asks pypi.org and nothing else. Then every file must be one of those whose digest is in the lock;
# elsewhere the versions are the same, but the files need not be, as with a build of torch for CPUs.
PUBLIC = test -z "$(PIP_ARGS)" && ! $(BIN)/python -m pip config list | grep -E 'index|find-links|constraint' | \
  grep -qv "index-url='https://pypi.org/simple/*'"
UV ?= uv
PINS = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
  --custom-compile-command "make pins" pyproject.toml

# A file at a time, in the order of tests/conftest.py. Three processes keep two cores busy: many tests wait for
# servers and processes. The quick ones do not.
FILES = --dist loadfile --no-loadscope-reorder --numprocesses

# make run: a profile to take first, in place of the settings in params.yaml.
PROFILE ?=
# make bench: the Python that has TRL, a local folder of SmolLM2-135M-Instruct (adds work b), more options.
BENCH_TRL_PYTHON ?= .bench/trl/bin/python
SMOLLM2 ?=
BENCH_ARGS ?=
# make reproduce: the size of the model, a folder with GSM8K's train.jsonl and test.jsonl, 1 for random weights.
MODEL ?= 0.5b
GSM8K ?=
DRY ?=

.DEFAULT_GOAL := help
.PHONY: help run setup setup-dev test test-all test-quick check-gpu pins lint fix results exp-show clean docs bench bench-sft bench-techniques bench-before bench-vllm reproduce

help: ## List all targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 18

run: setup ## Set up and run the whole recipe of params.yaml, or of PROFILE=smollm2, then show the results
	$(if $(PROFILE),@$(BIN)/chainforge profile use $(PROFILE))
	@$(BIN)/chainforge repro || { echo "what DVC's messages mean: docs/experiments.md, \"What DVC's message means\"" >&2; exit 1; }
	@$(BIN)/chainforge results

setup: $(VENV)/.run-ready .dvc/config ## Make .venv with pinned dependencies

setup-dev: $(VENV)/.dev-ready .dvc/config

test: setup-dev ## Set up and run the tests
	$(BIN)/pytest $(FILES) 3 -m "not long and not gpu"

# pytest compiles what it imports: the second worker, and the next run, have it from the first.
test test-all test-quick: export PYTHONDONTWRITEBYTECODE :=

test-all: setup-dev ## The same, and the long chains of kills and re-runs (an hour and more)
	$(BIN)/pytest $(FILES) 3 -m "not gpu"

check-gpu: setup-dev ## Tests on a GPU, then times and peak memory in .bench/gpu/results.json (25 minutes)
	$(BIN)/python benchmarks/check_gpu.py $(if $(SMOLLM2),--smollm2 $(SMOLLM2))

test-quick: setup-dev ## The quick tests
	$(BIN)/pytest $(FILES) 2 -m "not slow and not long and not peer and not gpu"

lint: setup-dev ## Check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fix: setup-dev ## Format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

results: ## The table of the last run
	@$(BIN)/chainforge results

exp-show: ## Experiments, with readable columns
	@$(BIN)/chainforge experiments

docs: $(VENV)/.docs-ready ## The pages of docs/ as a site: site/index.html, which needs no server and no network
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet && echo "the docs: $(CURDIR)/site/index.html"

bench: setup $(if $(filter .bench/%,$(BENCH_TRL_PYTHON)),.bench/trl/.ready) ## One GRPO step against TRL's, in turns
	$(BIN)/python benchmarks/grpo.py a c d $(if $(SMOLLM2),b --smollm2 $(SMOLLM2)) --trl $(BENCH_TRL_PYTHON) $(BENCH_ARGS)

bench-sft: setup $(if $(filter .bench/%,$(BENCH_TRL_PYTHON)),.bench/trl/.ready) ## SFT against TRL's, in turns
	$(BIN)/python benchmarks/sft.py a c $(if $(SMOLLM2),b --smollm2 $(SMOLLM2)) --trl $(BENCH_TRL_PYTHON) $(BENCH_ARGS)

bench-techniques: setup ## The GRPO step without each of its techniques
	$(BIN)/python benchmarks/techniques.py a c d e $(BENCH_ARGS)

bench-before: setup ## A GRPO step of this checkout against one of another: BEFORE=folder
	$(BIN)/python benchmarks/checkouts.py $(BEFORE) a c d $(if $(SMOLLM2),b --smollm2 $(SMOLLM2)) $(BENCH_ARGS)

bench-vllm: setup ## Rollouts against vLLM: VLLM_PYTHON=python that has it, SMOLLM2=folder
	$(BIN)/python benchmarks/grpo.py $(if $(SMOLLM2),b --smollm2 $(SMOLLM2),a) --vllm $(VLLM_PYTHON) --precisions \
	  --output .bench/results-vllm $(BENCH_ARGS)

reproduce: $(VENV)/.reproduce-ready ## A published result repeated on one GPU: MODEL=0.5b or 1.5b; DRY=1 on a CPU
	@$(BIN)/python benchmarks/reproduce.py $(MODEL) $(if $(GSM8K),--gsm8k $(GSM8K)) $(if $(DRY),--dry)

clean: ## Remove everything that a run made (the DVC cache stays)
	rm -rf data checkpoints logs plots metrics reports .work

$(VENV)/.python:
	@command -v git >/dev/null || { echo "git is missing -> install it (apt install git, brew install git)"; exit 1; }
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing -> install Python 3.11 to 3.13"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "$$($(PYTHON) --version) does not fit -> make PYTHON=python3.12 run (3.11 to 3.13)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing -> apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/constraints.txt: $(VENV)/.python requirements.lock requirements-dev.lock
	@sed -n 's/^\([A-Za-z0-9._-]*==[^ ]*\).*/\1/p' requirements.lock requirements-dev.lock >$@

$(VENV)/.run-ready: $(VENV)/constraints.txt pyproject.toml
	@echo "installing the pinned packages into $(VENV): a minute or several, in which pip says nothing"
	@if $(PUBLIC); then set -x; \
	  $(PIP) --require-hashes -r requirements.lock && $(PIP) --no-deps --no-build-isolation -e .; \
	else set -x; \
	  $(PIP) $(PIP_ARGS) torch==2.13.0 && $(PIP) $(PIP_ARGS) -c $< -e .; \
	fi
	@touch $@

$(VENV)/.dev-ready: $(VENV)/.run-ready
	@echo "installing what the tests need into $(VENV): a minute, in which pip says nothing"
	@if $(PUBLIC); then set -x; \
	  $(PIP) --require-hashes -r requirements.lock -r requirements-dev.lock; \
	else set -x; \
	  $(PIP) $(PIP_ARGS) -c $(VENV)/constraints.txt -e '.[dev]'; \
	fi
	@touch $@

$(VENV)/.reproduce-ready: $(VENV)/.run-ready .dvc/config
	$(PIP) $(PIP_ARGS) -c $(VENV)/constraints.txt -e '.[lora,hub]'
	@touch $@

$(VENV)/.docs-ready: $(VENV)/constraints.txt pyproject.toml
	$(PIP) $(PIP_ARGS) -c $(VENV)/constraints.txt \
	  $$(sed -n '/^docs = /,/^]/s/^ *"\([^"]*\)".*/\1/p' pyproject.toml)
	@touch $@

.bench/trl/.ready: $(VENV)/constraints.txt
	$(BIN)/python -m venv .bench/trl
	.bench/trl/bin/python -m pip install --quiet $(PIP_ARGS) torch==2.13.0
	.bench/trl/bin/python -m pip install --quiet $(PIP_ARGS) -c $< transformers trl==1.16.0
	@touch $@

# Versions that fit stay as they are; to have newer ones, delete both files first.
pins: ## Make requirements.lock and requirements-dev.lock (pip install uv)
	$(PINS) -o requirements.lock
	$(PINS) --extra dev -c requirements.lock -o requirements-dev.lock \
	  $$(sed -n 's/^\([A-Za-z0-9._-]*\)==.*/--no-emit-package \1/p' requirements.lock)

# A git clone brings .dvc/config; a tarball needs one, and DVC told that there is no git.
.dvc/config: $(VENV)/.run-ready
	@test -f $@ || $(BIN)/dvc init --no-scm --quiet
	@git rev-parse --git-dir >/dev/null 2>&1 || $(BIN)/dvc config --local core.no_scm true
	@touch $@
