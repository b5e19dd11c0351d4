# `make` creates the virtual environment with all packages; `make train` and `make test` do so if there is none.

PYTHON ?= python3
BIN := .venv/bin
DEMO := hparams/ecapa_small.yaml --batch_size 32 --number_of_epochs 10 --sentence_len 2.0

PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: install train test test-slow test-all lint clean

install: .venv/installed  ## create the virtual environment

train: .venv/installed  ## train on the demo voices and evaluate
	$(BIN)/python train.py $(DEMO)
	$(BIN)/python eval_eer.py $(DEMO)

test: .venv/tests-installed lint  ## the checks that take minutes
	$(PYTEST) -m "not slow"

test-slow: .venv/tests-installed  ## what `make test` omits: kills, several processes, every variant
	$(PYTEST) -m slow

test-all: test test-slow

lint: .venv/tests-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:  ## remove the environment, demo voices and run folders
	rm -rf .venv data results

.venv/installed: requirements.txt requirements-verify.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/tests-installed: .venv/installed requirements-dev.txt examples/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@
