# make train    installs into .venv, trains on the embedded real digits, shows the accuracy
# make test     installs into .venv, runs the tests
# make lint     installs into .venv, checks the style, who imports whom (.importlinter), and what types a user sees
# make docs     installs into .venv, builds the documentation into site/
#               (`python -m http.server --directory site` shows it with its search at http://127.0.0.1:8000/)
# make tutorials    runs the tutorials and the helps of the commands, and writes their outputs and figures into docs/

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
COMPILED = setup.py $(wildcard allconv_resnet/kernels/*.[ch])

.PHONY: train test lint docs tutorials

train: $(VENV)/.installed
	$(VENV)/bin/python train_cifar.py --recipe digits --run-dir runs/digits

test: $(VENV)/.installed-test
	OPENBLAS_NUM_THREADS=1 $(VENV)/bin/python -m pytest -m "not slow" -n 2 --dist loadfile

lint: $(VENV)/.installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports --no-cache
	$(VENV)/bin/basedpyright --pythonpath $(VENV)/bin/python

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build

tutorials: $(VENV)/.installed-test
	$(VENV)/bin/python docs/pages.py docs/tutorials/*.md docs/commands.md

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg $(COMPILED) | $(VENV)/bin/python
	@echo Installing the package and TensorFlow into $(VENV), which takes some minutes
	$(VENV)/bin/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: setup.cfg $(COMPILED) | $(VENV)/bin/python
	@echo Installing the package and what its tests need into $(VENV), which takes some minutes
	$(VENV)/bin/python -m pip install --quiet --editable '.[test,jax]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: setup.cfg | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --editable '.[docs]'
	touch $@
