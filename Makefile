# make study   sets up, then runs the scaling study        make test   sets up, then runs all tests that need no torch
# make parity  adds torch, diffusers and transformers, and compares with them live (RECORD=1 writes down what make test repeats)
# make processes  several processes at one study, the launch scripts, buckets, and whole jobs or compilations that take long
# make kills   kills a small study at random moments: its results must equal an uninterrupted one's (KILLS=30 SEED=0)
# make walk    tries seven wild values for every key of a config: each is refused in a sentence, or runs
# All make .venv on their own; run them in any order, as often as you like. PYTHON=python3.13 picks another Python.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
KILLS ?= 30
SEED ?= 0

.PHONY: study test parity processes kills walk lint setup clean
.DEFAULT_GOAL := help

help:
	@sed -n '1,6s/^# //p' Makefile

setup: $(VENV)/.ready

# The mark is written last: a set-up that was cut short is done again.
$(VENV)/.ready: setup.py constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "rfjax needs Python 3.11 or newer: set PYTHON=..."; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python can't make virtual environments here: apt-get install python3-venv"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[tests]'
	@touch $@

study: setup
	$(BIN)/python -m rfjax.main --config=configs/scaling.py $(ARGS)

test: setup lint
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

parity: setup $(VENV)/.parity
	RECORD=$(RECORD) $(BIN)/python -m pytest tests/parity -n 2 --dist worksteal $(ARGS)

$(VENV)/.parity: $(VENV)/.ready tests/parity/peers.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[tests,parity]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement tests/parity/peers.txt
	@rm -rf $(VENV)/lib/python3*/site-packages/tests # torch-fidelity's, which would stand before ours
	@touch $@

processes: setup $(VENV)/.moto
	$(BIN)/python -m pytest tests/processes tests/launch -n 2 --dist worksteal $(ARGS)
	$(BIN)/python -m pytest -m job -n 2 --dist worksteal $(ARGS)

# moto's botocore asks for an older python-dateutil than Matplotlib has, and its server works with either.
$(VENV)/.moto: $(VENV)/.ready tests/processes/moto.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement tests/processes/moto.txt
	@touch $@

kills: setup
	KILLS=$(KILLS) SEED=$(SEED) $(BIN)/python -m pytest tests/kills $(ARGS)

walk: setup
	$(BIN)/python -m pytest tests/walk -n 2 --dist worksteal $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) .cache build dist *.egg-info
