# Everything goes through the virtual environment in .venv, made from Python >= 3.11.
#
#   make train      install, then train the embedded default (digits)
#   make test       install with the test tools, then run the CPU suite in two processes side by side
#   make test-long  the tests that take minutes, two files at a time
#   make test-gpu PYTHON=python3   the gpu-marked tests with an existing Python; installs nothing
#                                  (FLAGS='-n 8' spreads their compiling over the cores, with pytest-xdist)
#   make test-lowest  the CPU suite with the lowest versions that pyproject.toml allows, in .venv-lowest
#   make lint       ruff: the rules of pyproject.toml, and the layout

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: train test test-long test-gpu test-lowest lint clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $(VENV)/.installed $@

train: $(VENV)/.installed
	$(BIN)/pocketvit train

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not gpu and not long'

test-long: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'long and not gpu'

test-gpu:
	PYTHONPATH=src$${PYTHONPATH:+:$$PYTHONPATH} $(PYTHON) -m pytest -m gpu $(FLAGS)

test-lowest:
	$(PYTHON) -m venv $(VENV)-lowest
	$(PYTHON) dev/lowest.py > $(VENV)-lowest/requirements.txt
	$(VENV)-lowest/bin/python -m pip install --quiet --editable '.[dev]' --requirement $(VENV)-lowest/requirements.txt
	$(VENV)-lowest/bin/python -m pytest -n 2 --dist worksteal -m 'not gpu and not long'

lint: | $(BIN)/python
	$(BIN)/python -m pip install --quiet 'ruff>=0.9'
	$(BIN)/ruff check
	$(BIN)/ruff format --check

clean:
	rm -rf $(VENV) $(VENV)-lowest build dist
