# `make demo` and `make test` need Python 3.11 or later and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo test lint types tests test-long bench bench-peers clean pins

demo: $(INSTALLED)  ## the whole road on this machine, to be looked at
	$(BIN)/relay demo

test: lint types tests  ## everything that must pass before a change lands

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

tests: $(INSTALLED)
	$(BIN)/pytest -n 2 --dist worksteal -m "not long"
	$(BIN)/relay check mappings

test-long: $(INSTALLED)  ## minutes rather than seconds: kills, storms, long simulations
	$(BIN)/pytest -m long

bench: $(INSTALLED) wrk  ## how fast the door is, beside a bare Flask view; see benchmarks/README.md
	$(BIN)/python -m benchmarks.door

bench-peers: $(INSTALLED) wrk  ## beside Node-RED as well; needs node and npm
	npm install --prefix benchmarks/nodered --no-package-lock --no-audit --no-fund --silent
	$(BIN)/python -m benchmarks.door --peers

.PHONY: wrk
wrk:
	@command -v wrk > /dev/null || (echo "wrk is needed: apt-get install wrk" && false)

pins: $(INSTALLED)  ## requirements.txt anew, from what is installed
	$(BIN)/python -m tests.pins > requirements.tmp && mv requirements.tmp requirements.txt

$(INSTALLED): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || (echo "a Python with venv is needed: apt-get install python3-venv" && false)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

clean:
	rm -rf .venv
