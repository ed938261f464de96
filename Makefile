# One command for each habit. `make` alone lists them; `make check` is exactly what CI runs.
#
# Nothing is installed outside .venv, and nothing is needed but make and Python 3.11 or newer.

.DEFAULT_GOAL := help
.PHONY: help setup test check lint types grid sim fuzz chaos bench plots screenshots demo audit compose-test clean

CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(firstword $(foreach one,$(CANDIDATES),$(shell $(one) $(NEW_ENOUGH) 2>/dev/null && echo $(one))))
BIN := .venv/bin
SAME_PYTHON = test "$$($(BIN)/python --version)" = "$$($(PYTHON) --version)"

# A PYTHON that was asked for by name takes the place of another version that .venv was made with.
ifneq ($(origin PYTHON),file)
ifneq ($(shell $(SAME_PYTHON) 2>/dev/null && echo same),same)
.PHONY: .venv/ready
endif
endif

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/ready ## install everything into .venv (the other commands do it for you)

.venv/ready: pyproject.toml
	@test -n "$(PYTHON)" && $(PYTHON) $(NEW_ENOUGH) || { \
	  echo "Python 3.11 or newer is needed, and was not found."; \
	  echo "Install it (Debian, Ubuntu: apt install python3 python3-venv), or name one: make setup PYTHON=/path/to/python3"; \
	  exit 1; } >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments: its venv module is missing."; \
	  echo "Install it (Debian, Ubuntu: apt install python3-venv), then try again."; \
	  exit 1; } >&2
	@{ $(SAME_PYTHON) && $(BIN)/python -m pip --version; } >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

test: setup ## run the tests, with coverage
	$(BIN)/python -m pytest --cov --numprocesses auto --dist loadfile --no-loadscope-reorder

check: setup ## what CI runs: formatting, lint, types, tests; changes nothing
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest --cov --numprocesses auto --dist loadfile --no-loadscope-reorder

lint: setup ## mend formatting and what ruff can mend
	$(BIN)/python -m ruff format .
	$(BIN)/python -m ruff check --fix .

types: setup ## check the types
	$(BIN)/python -m mypy

grid: setup ## test every stream, rank error and batch size, not a sample (half an hour)
	$(BIN)/python -m pytest --grid --durations=5

sim: setup ## simulate storms: make sim N=1000 runs so many, make sim SEED=7 repeats one
	$(BIN)/python -m pytest --quiet tests/test_storm.py --seed $(or $(SEED),1) --storms $(or $(N),$(if $(SEED),1,1000))

fuzz: setup ## send bytes that are almost right: make fuzz N=1000 for longer, SEED=7 for others
	$(BIN)/python -m pytest --quiet tests/test_fuzz.py --seed $(or $(SEED),1) --fuzz $(or $(N),100)

chaos: setup ## kill real processes for a minute, again and again: make chaos SECONDS=600 SEED=7
	$(BIN)/python -m tests.chaos --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED))

demo: setup ## start everything, send hard streams through it, check every answer (half a minute)
	@$(BIN)/python -m loadgen demo

bench: .venv/bench ## measure the digest beside its peers, in one run (half a minute)
	$(BIN)/python -m benchmarks.digest peers

plots: .venv/bench ## draw the images of docs/analysis.md anew (six minutes)
	$(BIN)/python -m benchmarks.plots all

screenshots: .venv/bench ## take the pictures of the page in docs/images anew (five minutes; needs Chromium)
	$(BIN)/python -m benchmarks.screenshots

.venv/bench: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

audit: .venv/audit ## ask whether a fault is known of what the services install
	$(BIN)/python -m pip_audit --strict .

.venv/audit: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[audit]'
	@touch $@

compose-test: setup ## try the whole in containers, where Docker is (five minutes)
	$(BIN)/python -m pytest tests/compose

clean: ## remove .venv and every cache
	rm -rf .venv .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
