# make audit    install, then the quick inversion audit
# make test     every check of CI: ruff, mypy, tests and doctests
# make models   train the bundled models again, on rendered faces
# make clean    remove .venv, builds and caches, but never runs/
#
# VENV and PYTHON choose the environment: `make test VENV=/tmp/venv PYTHON=python3.12`.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --constraint constraints.txt

# Idle threads sleep instead of spinning, which small tensors on few cores need.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: audit test models clean
.DELETE_ON_ERROR:

audit: $(VENV)/.installed
	$(BIN)/diffaudit invert configs/quick.yaml

# One process per core, for the models of the tests are too small for threads; a file's tests share what they prepare.
test: export HF_HUB_OFFLINE = 1
test: export OMP_NUM_THREADS = 1
test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses=auto --maxprocesses=8 --dist=loadfile

models: $(VENV)/.installed
	$(BIN)/diffaudit train all

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Editable, so that only a change of dependencies installs again.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[dev]'
	touch $(VENV)/.installed $@
