# `make demo` and `make test` each work as the first command on a fresh machine with Python >= 3.11.
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: setup demo test test-faults lint clean

setup: $(VENV)/.run
demo: setup
	$(PY) scripts/run_experiment.py experiments/demo.yaml --jobs 2
test: $(VENV)/.dev
	$(PY) -m pytest
FAULTS := .pytest_cache/faults.jsonl
test-faults: $(VENV)/.dev
	@mkdir -p $(dir $(FAULTS)) && rm -f $(FAULTS)
	FAULTS_LEDGER=$(abspath $(FAULTS)) $(PY) -m pytest tests/faults
	$(PY) tests/faults/reliability_table.py $(FAULTS)
lint: $(VENV)/.dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
clean:
	rm -rf checkpoints/demo_* .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "SemEdit needs Python 3.11 or newer, this is %s: make PYTHON=python3.12 ..." % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
$(VENV)/.run: requirements.txt constraints.txt | $(PY)
	$(PIP) -r requirements.txt
	@touch $@
$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	$(PIP) -r requirements-dev.txt
	@touch $@
