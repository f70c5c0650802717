# Everything runs in .venv, which the first target that needs it makes. `make demo` is the place to begin.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test slow teeth torture agents lint install bench dist clean

demo: $(INSTALLED)  ## The whole loop at work, in half a minute
	$(BIN)/loop demo

test: $(INSTALLED)  ## All tests that are quick
	$(BIN)/python -m pytest -m "not slow" -n 4

slow: $(INSTALLED)  ## The tests that take more than 20 seconds, alone or with their like
	$(BIN)/python -m pytest -m slow -n 2

agents: $(INSTALLED)  ## The real agents, from their packages, under loop, on a model server on loopback
	$(BIN)/python tests/agents/run.py

teeth: $(INSTALLED)  ## Hundreds of simulated seeds, and known bugs that they must catch
	$(BIN)/python tests/teeth/run.py

SECONDS := 60
torture: $(INSTALLED)  ## Real processes, killed and stopped at random for SECONDS=60
	$(BIN)/python -m tests.torture --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

lint: $(INSTALLED)  ## Style, types, and which room may import which
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

install: $(INSTALLED)  ## Only the environment: .venv/bin/loop

bench: $(INSTALLED)  ## How long things take
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python tests/bench/run.py

dist: $(INSTALLED)  ## Wheel and source archive in dist/
	rm -rf dist build
	$(BIN)/python -m build

clean:  ## What was built and cached; .venv stays
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make: no $(PYTHON) here; loop needs Python 3.11 or newer: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: loop needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1):" \
	    "make PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
