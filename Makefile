# Everything a developer or a newcomer runs. Only Python (3.11 or newer) and pip are needed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first Python on the path that is new enough.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
# cpu and gpu bring different builds of the same module, so an environment holds one of them.
SOUNDPOST_ACCELERATOR ?= $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)

VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
LOCK := requirements/$(SOUNDPOST_ACCELERATOR).txt
INSTALLED := $(VENV)/.installed-$(SOUNDPOST_ACCELERATOR)
OTHERS = $(filter-out $(INSTALLED) $(INSTALLED)-train,$(wildcard $(VENV)/.installed-*))
COMPILE := $(BIN)/uv pip compile --quiet pyproject.toml --universal --python-version 3.11 \
	--no-emit-package torch --constraints requirements/torch.txt \
	--custom-compile-command "make lock"
# Without these, glibc gives memory back after each step and training waits for page faults.
TRAIN_ENV := MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 \
	MALLOC_TOP_PAD_=268435456
# Hands arguments on: make test ARGS="-k clap"
ARGS ?=

.PHONY: help
help: ## List what make can do
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) \
		| awk -F ':.*## ' '{ printf "  make %-22s %s\n", $$1, $$2 }'

.PHONY: install
install: $(INSTALLED) ## Create .venv with the locked versions (the others do it by themselves)

.PHONY: demo
demo: $(INSTALLED) ## Build a small archive, search it, and watch a machine
	$(BIN)/soundpost demo $(ARGS)

.PHONY: up
up: $(INSTALLED) ## Run the service with its workers on this machine
	$(BIN)/soundpost up $(ARGS)

.PHONY: test
test: $(INSTALLED) ## Run the tests
	$(BIN)/pytest $(ARGS)

.PHONY: lint
lint: $(INSTALLED) ## Check style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# As the command line sets it: spinning compute threads take the cores from decoding.
.PHONY: bench
bench: $(INSTALLED) ## Measure the speed and write docs/benchmarks.md
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python benchmarks/run.py $(ARGS)

# What is measured never heard the held-out folds; what is shipped is trained on everything, in the
# same way. Each step goes on where it stopped.
.PHONY: eval-encoder
eval-encoder: runs/measured/model.safetensors ## Measure how well the encoder finds sounds by text (trains it first)
	$(BIN)/python -m soundpost.evaluation.calibration
	$(BIN)/python -m soundpost.evaluation.encoder $(ARGS)

# What is slow to compute stays below runs/, so that another run is quick.
.PHONY: eval-watch
eval-watch: $(INSTALLED) ## Measure what watching notices, and how often it is wrong
	$(BIN)/python -m soundpost.evaluation.anomaly --write docs/benchmarks.md $(ARGS)

# Embeds, trains and judges; each step goes on where it stopped.
.PHONY: eval-retrieval
eval-retrieval: runs/measured/model.safetensors ## Measure what reranking adds to similarity (trains it first)
	$(TRAIN_ENV) $(BIN)/python -m soundpost.evaluation.retrieval --write docs/benchmarks.md $(ARGS)

.PHONY: train-reranker
train-reranker: runs/measured/model.safetensors ## Train the reranker over the shipped encoder and put it into the package
	$(TRAIN_ENV) $(BIN)/python -m soundpost.evaluation.shipped_reranker

# Trained on what either encoder hears of the training clips, so that one network serves both; the
# held-out folds are measured with the encoder that never heard them. Each step goes on where it stopped.
EXPLAIN := runs/explain
EXPLAIN_GROUPS ?= 1600
EXPLAIN_PAIRS ?= 630
STAGE_2_STEPS ?= 500
EXPLAIN_STEPS ?= 1500
ABLATION_STEPS ?= 300
PAIRS := $(EXPLAIN)/pairs/train-shipped $(EXPLAIN)/pairs/train-measured
METEOR := $(EXPLAIN)/meteor/pycocoevalcap/meteor/meteor-1.5.jar
ADIFF := $(TRAIN_ENV) $(BIN)/python -m soundpost.training.adiff --pairs $(PAIRS) \
	--develop $(EXPLAIN)/pairs/dev-measured

.PHONY: eval-explain
eval-explain: runs/measured/model.safetensors $(if $(shell command -v java),$(METEOR)) ## Measure explanations and captions (after train-explain)
	$(BIN)/python -m soundpost.evaluation.difference --pairs $(EXPLAIN_PAIRS) --write docs/benchmarks.md $(ARGS)
	$(BIN)/python -m soundpost.evaluation.explanation_examples --pairs $(EXPLAIN_PAIRS) \
		--write docs/examples/explanations.md $(ARGS)
	$(BIN)/python -m soundpost.evaluation.captioning --write docs/benchmarks.md

$(METEOR): | $(INSTALLED)
	$(PIP) install --quiet --no-deps --target $(EXPLAIN)/meteor pycocoevalcap==1.2

.PHONY: train-explain
train-explain: explain-pairs ## Train what explains and captions, and put it into the package
	$(TRAIN_ENV) $(BIN)/python -m soundpost.training.language --pairs $(PAIRS)
	$(ADIFF) --stage 2 --steps $(STAGE_2_STEPS)
	$(ADIFF) --stage 3 --steps $(EXPLAIN_STEPS)
	$(BIN)/python -m soundpost.training.adiff --ship platform/soundpost/models/weights/adiff
	$(TRAIN_ENV) $(BIN)/python -m soundpost.training.caption_data --encoder compact --which 0 --of 2 \
		--out $(EXPLAIN)/captions/compact
	$(TRAIN_ENV) $(BIN)/python -m soundpost.training.caption_data --encoder runs/measured --which 1 --of 2 \
		--out $(EXPLAIN)/captions/measured
	$(TRAIN_ENV) $(BIN)/python -m soundpost.training.dac --half --twin-steps 2400 \
		--dac-steps 10000 --taught-texts 500 --taught-draws 2 --ship platform/soundpost/models/weights/dac \
		--captions $(EXPLAIN)/captions/measured $(EXPLAIN)/captions/compact

.PHONY: explain-pairs
explain-pairs: runs/measured/model.safetensors ## Make the pairs that explanations are trained on
	$(BIN)/python -m soundpost.training.pair_store --encoder compact --groups $(EXPLAIN_GROUPS) \
		--processes 2 --out $(EXPLAIN)/pairs/train-shipped
	$(BIN)/python -m soundpost.training.pair_store --encoder runs/measured --groups $(EXPLAIN_GROUPS) \
		--first-group 100000 --processes 2 --out $(EXPLAIN)/pairs/train-measured
	$(BIN)/python -m soundpost.training.pair_store --encoder runs/measured --split dev --groups 60 \
		--first-group 200000 --processes 2 --out $(EXPLAIN)/pairs/dev-measured

# The parts of ADIFF at a small budget, the same for each stage: B neither separator nor
# cross-projection, C both, D with position captioning, E with stage 3 after that; and D and E without
# the cross-projection alone. What is taught before stage 2 is the same for all but B, whose prefix has
# other places.
ABLATIONS := $(EXPLAIN)/ablations
TAUGHT := $(EXPLAIN)/adiff/{captions,projections}*
.PHONY: eval-explain-ablations
eval-explain-ablations: explain-pairs ## Measure what the parts of the difference network are worth (after train-explain)
	mkdir -p $(ABLATIONS)/{b,c,d,without}
	cp $(TAUGHT) $(ABLATIONS)/b
	for run in c d without; do cp $(TAUGHT) $(EXPLAIN)/adiff/reading* $(ABLATIONS)/$$run; done
	$(ADIFF) --stage 2 --steps $(ABLATION_STEPS) --out $(ABLATIONS)/b \
		--without-cross-projection --without-separator --without-position-captioning
	$(ADIFF) --stage 2 --steps $(ABLATION_STEPS) --out $(ABLATIONS)/c --without-position-captioning
	$(ADIFF) --stage 2 --steps $(ABLATION_STEPS) --out $(ABLATIONS)/d
	$(ADIFF) --stage 3 --steps $(ABLATION_STEPS) --out $(ABLATIONS)/d
	$(ADIFF) --stage 2 --steps $(ABLATION_STEPS) --out $(ABLATIONS)/without --without-cross-projection
	$(ADIFF) --stage 3 --steps $(ABLATION_STEPS) --out $(ABLATIONS)/without
	$(BIN)/python -m soundpost.evaluation.explain_ablations --write docs/benchmarks.md \
		--run "B, neither=$(ABLATIONS)/b/stage2" --run "C, cross-projection=$(ABLATIONS)/c/stage2" \
		--run "D, position captions=$(ABLATIONS)/d/stage2" --run "E, stage 3=$(ABLATIONS)/d/stage3" \
		--run "D without cross-projection=$(ABLATIONS)/without/stage2" \
		--run "E without cross-projection=$(ABLATIONS)/without/stage3" $(ARGS)

.PHONY: train-encoder
train-encoder: runs/shipped/model.safetensors runs/measured/model.safetensors ## Train the compact encoder and put it into the package
	$(BIN)/python -m soundpost.evaluation.calibration --shipped runs/shipped

runs/text/text.safetensors: $(INSTALLED)-train
	$(TRAIN_ENV) $(BIN)/python -m soundpost.training.text

runs/measured/model.safetensors: | runs/text/text.safetensors
	$(TRAIN_ENV) $(BIN)/python -m soundpost.training.compact

runs/shipped/model.safetensors: | runs/text/text.safetensors
	$(TRAIN_ENV) $(BIN)/python -m soundpost.training.compact --everything --out runs/shipped

.PHONY: lock
lock: $(INSTALLED) ## Pin the dependencies anew (UPGRADE=1 takes the newest versions)
	$(COMPILE) --extra cpu --output-file requirements/cpu.txt $(if $(UPGRADE),--upgrade)
	$(COMPILE) --extra gpu --constraints requirements/cpu.txt --output-file requirements/gpu.txt
	$(COMPILE) --constraints requirements/cpu.txt --output-file requirements/bare.txt
	$(COMPILE) --extra dev --constraints requirements/cpu.txt \
		--output-file requirements/dev.txt $(if $(UPGRADE),--upgrade)
	$(COMPILE) --extra train --constraints requirements/cpu.txt \
		--output-file requirements/train.txt $(if $(UPGRADE),--upgrade)

.PHONY: clean
clean: ## Remove .venv and everything that was built
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes first and alone: pip takes the build that its own configuration (find-links) offers,
# and what follows finds it there. The locks name every other package, so nothing is resolved.
$(INSTALLED): requirements/torch.txt $(LOCK) requirements/dev.txt pyproject.toml
	$(if $(OTHERS),@echo "$(VENV) was made for another accelerator; making it anew." && rm -rf $(VENV))
	$(if $(PYTHON),,$(error No Python 3.11 or newer was found; name one: make PYTHON=/path/to/python3))
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { echo "Install Python's venv module (Debian: apt-get install python3-venv)."; exit 1; }
	$(PIP) install --quiet --requirement requirements/torch.txt --constraint $(LOCK)
	$(PIP) install --quiet --no-deps --requirement $(LOCK) --requirement requirements/dev.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	$(PIP) check
	@touch $@

$(INSTALLED)-train: $(INSTALLED) requirements/train.txt
	$(PIP) install --quiet --no-deps --requirement requirements/train.txt
	$(PIP) check
	@touch $@
