# `make demo` and `make test` need Python 3.11 or later and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo test lint types tests test-long clean

demo: $(INSTALLED)  ## the whole road on this machine, to be looked at
	$(BIN)/relay demo

test: lint types tests  ## everything that must pass before a change lands

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

tests: $(INSTALLED)
	$(BIN)/pytest -n 2 -m "not long"
	$(BIN)/relay check mappings

test-long: $(INSTALLED)  ## minutes rather than seconds: kills, storms, long simulations
	$(BIN)/pytest -m long

$(INSTALLED): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || (echo "a Python with venv is needed: apt-get install python3-venv" && false)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

clean:
	rm -rf .venv
