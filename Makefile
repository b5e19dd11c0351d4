# Everything on a fresh machine: `make train` and `make test` make the virtual environment and install what they need.

PYTHON ?= python3
BIN := .venv/bin
DEMO := hparams/ecapa_small.yaml --batch_size 32 --number_of_epochs 10 --crop_duration_s 2.0

.PHONY: train test lint clean

train: .venv/installed  ## train on the demo voices and evaluate
	$(BIN)/python train.py $(DEMO)
	$(BIN)/python eval_eer.py $(DEMO)

test: .venv/tests-installed lint  ## check the code
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: .venv/tests-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:  ## remove what was made: the environment, demo voices, run folders
	rm -rf .venv data results

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/tests-installed: .venv/installed requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@
