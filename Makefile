# make demo | make test: both set up .venv first, each time only what is missing.
# ACCELERATOR=cuda or tpu picks the other JAX wheels; PYTHON= picks the interpreter (3.11 or later).

PYTHON ?= $(shell command -v python3.12 >/dev/null 2>&1 && python3.12 -c "" >/dev/null 2>&1 && echo python3.12 || echo python3)
ACCELERATOR ?= cpu
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed-$(ACCELERATOR)
comma := ,
TEST_STAMP := $(VENV)/installed-tests
# Bytecode is compiled when a module is first imported, which is less than all of it.
INSTALL := $(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check --progress-bar off -c requirements.txt

ifneq ($(words $(filter cpu cuda tpu,$(ACCELERATOR))),1)
$(error ACCELERATOR=$(ACCELERATOR): wanted cpu, cuda or tpu)
endif

.PHONY: demo draw micro test lint setup starting-weights pixel-decoder clean

demo: $(STAMP)
	$(BIN)/xgenmm demo experiments/nano --workdir runs/demo

# After demo: a part that draws, over its frozen model; then pictures of held-out captions and their scores.
draw: $(STAMP)
	$(BIN)/xgenmm train experiments/nano/draw.py --workdir runs/draw
	$(BIN)/xgenmm evaluate runs/draw

# One size up, for one GPU: starting weights first, then the same five stages.
micro: $(STAMP)
	$(BIN)/xgenmm train experiments/micro.py:vision_tower --workdir runs/micro/vision_tower
	$(BIN)/xgenmm train experiments/micro.py:vision_tower_reading --workdir runs/micro/vision_tower_reading
	$(BIN)/xgenmm train experiments/micro.py:vision_tower_small_text --workdir runs/micro/vision_tower_small_text
	$(BIN)/xgenmm train experiments/micro.py:language_model --workdir runs/micro/language_model
	$(BIN)/xgenmm train experiments/micro.py:language_model_finding --workdir runs/micro/language_model_finding
	$(BIN)/xgenmm train experiments/micro.py:language_model_naming --workdir runs/micro/language_model_naming
	$(BIN)/xgenmm demo experiments/micro.py --workdir runs/micro

test: $(TEST_STAMP) lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: $(TEST_STAMP)
	$(BIN)/ruff check .
	$(BIN)/lint-imports

setup: $(STAMP)

# Three to four hours on 2 cores; interrupted, the same command continues.
starting-weights: $(STAMP)
	$(BIN)/xgenmm train experiments/nano/starting_weights/vision_tower.py --workdir runs/weights/vision_tower
	$(BIN)/xgenmm train experiments/nano/starting_weights/vision_tower_reading.py --workdir runs/weights/vision_tower_reading
	$(BIN)/xgenmm train experiments/nano/starting_weights/vision_tower_small_text.py --workdir runs/weights/vision_tower_small_text
	$(BIN)/python tools/export_starting_weights.py runs/weights/vision_tower_small_text vision
	$(BIN)/xgenmm train experiments/nano/starting_weights/language_model.py --workdir runs/weights/language_model
	$(BIN)/xgenmm train experiments/nano/starting_weights/language_model_finding.py --workdir runs/weights/language_model_finding
	$(BIN)/xgenmm train experiments/nano/starting_weights/language_model_naming.py --workdir runs/weights/language_model_naming
	$(BIN)/python tools/export_starting_weights.py runs/weights/language_model_naming decoder
	$(MAKE) pixel-decoder

# What makes pixels of the tower's features. About ten minutes. A finished runs/weights/pixels stays: delete it first to
# train anew, as for another tower.
pixel-decoder: $(STAMP)
	$(BIN)/xgenmm train experiments/nano/draw.py:pixels --workdir runs/weights/pixels
	$(BIN)/python tools/export_starting_weights.py runs/weights/pixels pixels

$(STAMP): setup.cfg pyproject.toml requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python %d.%d found, 3.11 or later wanted: make PYTHON=/path/to/python3.12" % sys.version_info[:2])'
	$(INSTALL) -e ".[demo$(if $(filter cpu,$(ACCELERATOR)),,$(comma)$(ACCELERATOR))$(if $(filter tpu,$(ACCELERATOR)),$(comma)buckets)]"
	touch $@

# What tests need beside: pytest, ruff, ..., and the TPU compiler for `xgenmm plan`, which a TPU machine has already.
$(TEST_STAMP): $(STAMP)
	$(INSTALL) -e ".[test$(if $(filter tpu,$(ACCELERATOR)),,$(comma)plan)]"
	touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info
