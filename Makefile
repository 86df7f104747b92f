# Works on a fresh machine with Python 3.11 and make: uv is brought into the checkout where it is missing.
PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
# A directory of wheels that pip already knows about is made known to uv too; empty elsewhere, and harmless.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
RUN := .venv/bin/python
INSTALLED := .venv/.installed

.PHONY: setup demo test campaign audit check bench docs format
setup: $(INSTALLED)

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet uv

# Bytecode is made once, here: where none may be kept, every process would compile torch and transformers again.
$(INSTALLED): pyproject.toml constraints.txt | $(filter .uv/bin/uv,$(UV))
	$(UV) venv --quiet --allow-existing --python 3.11 .venv
	$(UV) pip install --quiet --compile-bytecode --python .venv/bin/python --constraint constraints.txt --editable . --group dev
	touch $@

demo: $(INSTALLED)
	DEMO_MODE=automated $(RUN) demos/demo3_training.py

# Two tests at a time: most wait for processes of their own. Tests of one file share what they make.
test: $(INSTALLED)
	$(RUN) -m pytest --numprocesses 2 --dist loadfile

# The long form: hours. The short one is part of the tests.
campaign: $(INSTALLED)
	$(RUN) -m tests.faults.campaign --long

# Without the tool or its service nothing is known: it says so and goes on. The floors are a test.
audit: $(INSTALLED)
	$(RUN) .ci/audit.py

check: $(INSTALLED)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: $(INSTALLED)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: $(INSTALLED)
	$(RUN) -m bench

docs: $(INSTALLED)
	$(RUN) -m llamafarm.strategy.keys_reference > docs/STRATEGY_KEYS.md
