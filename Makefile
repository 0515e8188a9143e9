# Everything goes through the virtual environment in .venv, made from Python >= 3.11.
#
#   make train      install, then train the embedded default (digits)
#   make test       install with the test tools, then run the CPU suite in two processes side by side
#   make test-long  install with Ray, the trackers and Gradio as well, then the tests that take minutes, three files at a
#                   time, because many of them wait
#   make test-gpu PYTHON=python3   the gpu-marked tests with an existing Python; installs nothing
#                                  (FLAGS='-n 8' spreads their compiling over the cores, with pytest-xdist)
#   make test-lowest  the CPU suite with the lowest versions that pyproject.toml allows, in .venv-lowest
#   make lint       ruff: the rules of pyproject.toml, and the layout; pyright: the types
#   make fuzz       every reader on CASES changed files (10,000; slow ones a sixth), with limits of time and memory
#   make coverage   the CPU suite once more, counting which lines and branches of the package it reaches
#   make nightly    all that is too long for every change, one after the other, whatever fails
#   make notebooks  run the notebooks of the docs
#   make docs       the documentation site, into site/; open site/index.html
#   make tables     every table and figure of the README and the docs, from results/
#
# `make train TORCH='torch torchvision --index-url ADDRESS'` takes another build of PyTorch, such as the CPU's on a
# machine without an NVIDIA GPU; https://pytorch.org/get-started/locally has the address. It holds for test as well.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check
TORCH ?=

# Where it is set, each of hundreds of processes that the tests start would compile PyTorch's sources anew, for seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: train test test-long test-gpu test-lowest test-nightly fuzz coverage nightly lint docs notebooks tables clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# TORCH, if given, is installed first: what pip is to install for PyTorch.
define install
$(if $(TORCH),$(PIP) $(TORCH))
@$(BIN)/python dev/before_install.py $(1)
$(PIP) --editable '.$(EXTRAS)'
endef

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(call install,train)
	@touch $@

$(VENV)/.installed-dev: EXTRAS := [dev]
$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(call install,test)
	@touch $(VENV)/.installed $@

$(VENV)/.installed-long: EXTRAS := [dev,demo,ray,track]
$(VENV)/.installed-long: pyproject.toml | $(BIN)/python
	$(call install,test-long)
	@touch $(VENV)/.installed $(VENV)/.installed-dev $@

$(VENV)/.installed-docs: EXTRAS := [docs]
$(VENV)/.installed-docs: pyproject.toml | $(BIN)/python
	$(call install,docs)
	@touch $(VENV)/.installed $@

train: $(VENV)/.installed
	$(BIN)/pocketvit train

test: $(VENV)/.installed-dev
	@echo "Running the CPU tests: about five minutes on two cores."
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not gpu and not long'

test-long: $(VENV)/.installed-long
	@echo "Running the long CPU tests: about six minutes on two cores."
	$(BIN)/python -m pytest -n 3 --dist loadfile -m 'long and not gpu and not nightly' $$(grep -rl --include='*.py' 'mark\.long' tests)

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

notebooks: $(VENV)/.installed-dev
	@$(PIP) --quiet --editable '.[notebooks]'
	$(BIN)/python -m pytest docs/notebooks

tables: $(VENV)/.installed
	$(BIN)/python -m benchmarks.tables
	$(BIN)/python -m benchmarks.paper

test-gpu:
	PYTHONPATH=src$${PYTHONPATH:+:$$PYTHONPATH} $(PYTHON) -m pytest -m gpu $(FLAGS)

test-lowest:
	$(PYTHON) -m venv $(VENV)-lowest
	$(PYTHON) dev/lowest.py > $(VENV)-lowest/constraints.txt
	$(VENV)-lowest/bin/python -m pip install --editable '.[dev]' --constraint $(VENV)-lowest/constraints.txt
	$(VENV)-lowest/bin/python -m pytest -n 2 --dist worksteal -m 'not gpu and not long'

coverage: $(VENV)/.installed-dev
	@mkdir -p runs/coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 2 --dist worksteal -m 'not gpu and not long'
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage json --quiet -o runs/coverage/coverage.json
	$(BIN)/python -m benchmarks.trust coverage

test-nightly: $(VENV)/.installed-long
	$(BIN)/python -m pytest -n 3 --dist loadfile -m 'nightly and not gpu' $$(grep -rl --include='*.py' 'mark\.nightly' tests)

nightly:
	$(MAKE) --keep-going test-nightly coverage notebooks test-lowest fuzz

CASES ?= 10000
fuzz: $(VENV)/.installed-dev
	$(BIN)/python tests/fuzz --cases $(CASES) $(FLAGS)

lint: $(VENV)/.installed-dev
	@$(PIP) --quiet 'ruff>=0.9'
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python

clean:
	rm -rf $(VENV) $(VENV)-lowest build dist site
