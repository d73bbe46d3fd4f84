# `make demo` and `make test` each work as the first command on a fresh machine with Python >= 3.11.
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
TOOLS := .venv-tools
UV := $(TOOLS)/bin/uv

.PHONY: setup demo pretrained app test test-browser test-faults test-matrix soak fuzz test-lowest test-newest lint opt lock audit clean

setup: $(VENV)/.run
demo: setup
	$(PY) scripts/run_experiment.py experiments/demo.yaml --jobs 2
# Runs on street scenes to edit with at once (--name checkpoints/pretrained/divsem); stopped, it goes on.
pretrained: setup
	$(PY) scripts/run_experiment.py experiments/streets_pretrained.yaml --jobs 2
	$(foreach run,divsem spmpgan siedob,\
	$(PY) scripts/export.py --name streets_128_$(run) --output checkpoints/pretrained/$(run) --half &&) true
# The page, for the pretrained run, or NAME=my_divsem; with ARGS="--segmenter streets" and any flag of scripts/app.py.
app: $(VENV)/.app
	$(PY) scripts/app.py $(if $(NAME),--name $(NAME)) $(ARGS)
test: $(VENV)/.dev
	$(PY) -m pytest
# The page in a Chromium: Debian's, or any other by CHROMIUM=PATH.
test-browser: $(VENV)/.browser
	$(PY) -m pytest tests/browser
FAULTS := .pytest_cache/faults.jsonl
test-faults: $(VENV)/.dev
	@mkdir -p $(dir $(FAULTS)) && rm -f $(FAULTS)
	FAULTS_LEDGER=$(abspath $(FAULTS)) $(PY) -m pytest tests/faults
	$(PY) tests/faults/reliability_table.py $(FAULTS)
soak: $(VENV)/.dev
	$(PY) tests/faults/soak.py --write
# Long fuzzing of every reader, by the coverage of the code; needs `pip install atheris`, and says so where it is missing.
FUZZ_SECONDS ?= 60
fuzz: $(VENV)/.dev
	$(PY) tests/fuzz/follow_coverage.py $(FUZZ_SECONDS)
# Under other processors' instructions, threads, locales and users; --whole runs all tests under each.
test-matrix: $(VENV)/.dev
	$(PY) tests/matrix.py
# The lowest versions that the requirements admit, and the newest that there are.
test-lowest test-newest: test-%: .venv-%/.dev
	.venv-$*/bin/python -m pytest
lint: $(VENV)/.dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
# The typed view of all options (util/opt.py), after a flag has come, changed or gone.
opt: $(VENV)/.run
	$(PY) -m options.view
clean:
	rm -rf checkpoints/demo_* .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The locks keep the versions that they hold; `make lock UPGRADE=--upgrade` takes the newest.
COMPILE := UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile --quiet --universal --python-version 3.11 \
	--fork-strategy fewest --generate-hashes --no-annotate
lock: $(TOOLS)/.done
	$(COMPILE) $(UPGRADE) requirements-dev.txt --output-file requirements-dev.lock
	$(COMPILE) $(UPGRADE) requirements.txt --constraint requirements-dev.lock --output-file requirements.lock
	$(COMPILE) $(UPGRADE) requirements-app.txt --constraint requirements-dev.lock --output-file requirements-app.lock
audit: $(TOOLS)/.done
	@if $(TOOLS)/bin/pip-audit --strict --disable-pip -r requirements-dev.lock > $(TOOLS)/audit 2>&1; then cat $(TOOLS)/audit; \
	else cat $(TOOLS)/audit; \
	if grep -q '^Name .*Fix Versions' $(TOOLS)/audit; then echo 'make audit: raise the versions listed above (make lock UPGRADE=--upgrade)'; \
	else echo "make audit: no verdict, PyPI's list of advisories could not be read here: run it where the index can be reached"; fi; exit 1; fi

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "SemEdit needs Python 3.11 or newer, this is %s: make PYTHON=python3.12 ..." % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
# The lock's torch is PyPI's, a CUDA build on Linux. TORCH_INDEX=URL takes the same versions from another index, without hashes.
TORCH := ^((torch|torchvision|triton)==|nvidia-|cuda-)
beside_torch = awk '/^[a-z]/ {keep = !/$(TORCH)/} keep' $(1) > $(VENV)/$(1) && $(PIP) --require-hashes -r $(VENV)/$(1)
$(VENV)/.run: requirements.lock | $(PY)
ifdef TORCH_INDEX
	$(PIP) --no-deps --index-url $(TORCH_INDEX) $$(grep -oE '^(torch|torchvision)==[0-9.]+' $<)
	$(call beside_torch,$<)
else
	@[ "$$(uname)" != Linux ] || [ -e /proc/driver/nvidia ] || \
	echo 'No NVIDIA driver here: make setup TORCH_INDEX=URL takes a CPU build of torch instead (docs/dependencies.md)'
	$(PIP) --require-hashes -r $<
endif
	@touch $@
$(VENV)/.app: requirements-app.lock $(VENV)/.run
	$(PIP) --require-hashes -r $<
	@touch $@
$(VENV)/.browser: requirements-browser.txt $(VENV)/.dev
	$(PIP) -r $<
	@[ -n "$$CHROMIUM" ] || command -v chromium || command -v google-chrome || { apt-get update -qq && apt-get install -qqy chromium; } || \
	echo 'No Chromium, and none could be installed: install one, or name it by CHROMIUM=PATH'
	@touch $@
$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	$(call beside_torch,$<)
	@touch $@

.venv-lowest/.dev: RESOLUTION := lowest-direct
.venv-newest/.dev: RESOLUTION := highest
.venv-%/.dev: requirements-dev.txt requirements.txt $(TOOLS)/.done
	$(PYTHON) -m venv $(@D)
	$(UV) pip install --quiet --upgrade --python $(@D) --resolution $(RESOLUTION) -r $<
	@touch $@
$(TOOLS)/.done: requirements-tools.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@
