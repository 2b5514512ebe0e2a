# One listed entry per chore; `make` alone lists them.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test lint typecheck unit bench bench-compare incidents no-harm load clean

help: ## List every target
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) ## Run guard, embedded API server and synthetic cluster until Ctrl-C
	@$(BIN)/apiguard demo

test: lint typecheck unit ## Lint, type check, check import floors and run every test

lint: $(STAMP) ## Check style, formatting and import floors
	@echo "==> ruff"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@echo "==> import floors"
	@$(BIN)/lint-imports --no-cache >$(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log; exit 1; }

typecheck: $(STAMP) ## Type check package and tests, strictly
	@echo "==> mypy"
	@$(BIN)/mypy apiguard tests loadtests

# Tests wait more than they compute: three groups run beside each other, about as long each. The
# tests of benchmarks and incidents measure, and have the machine to themselves.
E2E_ONE := $(wildcard tests/e2e/test_[a-m]*.py)
E2E_TWO := $(filter-out $(E2E_ONE),$(wildcard tests/e2e/test_*.py))
unit: $(STAMP) ## Run every test; PYTEST_ARGS chooses some
ifdef PYTEST_ARGS
	@$(BIN)/pytest $(PYTEST_ARGS)
else
	@echo "==> pytest tests/bench tests/loadtests"
	@$(BIN)/pytest tests/bench tests/loadtests
	@echo "==> pytest tests/e2e tests/unit tests/wire, beside it tests/net tests/docs tests/deploy"
	@$(BIN)/pytest tests/net >$(VENV)/net.log 2>&1 & net=$$!; \
	$(BIN)/pytest $(E2E_TWO) tests/docs tests/deploy >$(VENV)/e2e.log 2>&1 & e2e=$$!; \
	trap 'kill $$net $$e2e' INT TERM; \
	$(BIN)/pytest $(E2E_ONE) tests/unit tests/wire; code=$$?; \
	wait $$e2e || code=1; wait $$net || code=1; \
	cat $(VENV)/e2e.log $(VENV)/net.log; exit $$code
endif

bench: $(STAMP) ## Measure the traffic path beside its peers (minutes)
	@$(BIN)/python -m loadtests.bench $(BENCH_ARGS)

# Both trees are run by the same interpreter and libraries, one after the other.
bench-compare: $(STAMP) ## Measure BASE=COMMIT and this tree, and compare; BENCH_ARGS=--only=refused
	@test -n "$(BASE)" || { echo "say what to compare with: make bench-compare BASE=HEAD~1" >&2; exit 2; }
	@rm -rf .bench/base && git worktree prune && git worktree add --quiet --detach .bench/base "$(BASE)"
	@cd .bench/base && PYTHONPATH="$$PWD" $(CURDIR)/$(BIN)/python -m loadtests.bench $(BENCH_ARGS)
	@PYTHONPATH="$$PWD" $(BIN)/python -m loadtests.bench $(BENCH_ARGS)
	@$(BIN)/python -m loadtests.bench compare .bench/base/.bench/latest.json .bench/latest.json
	@git worktree remove --force .bench/base

# An incident's scenario is loadtests/scenarios/NAME.yaml. INCIDENT_ARGS: --scale 4, --server real ...
incident-%: $(STAMP) ## Replay one incident without the guard and with it: incident-S1, S3 ... S11
	@$(BIN)/python -m loadtests.incidents $* $(INCIDENT_ARGS)

incidents: $(STAMP) ## Replay all of them; report in .incidents/ (about a quarter of an hour)
	@$(BIN)/python -m loadtests.incidents $(INCIDENT_ARGS)

no-harm: $(STAMP) ## Show that a healthy cluster notices nothing of the shipped policy
	@$(BIN)/python -m loadtests.incidents no-harm $(INCIDENT_ARGS)

load: $(STAMP) ## Locust's web UI with a scenario, against `make demo`; LOAD_ARGS=--scenario=S1 ...
	@$(BIN)/locust -f loadtests/locustfile.py $(LOAD_ARGS)

clean: ## Remove everything made by these targets
	rm -rf $(VENV) .demo .bench .incidents .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info

# Stamped on pyproject.toml: installed once, again only when dependencies change.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "apiguard needs Python 3.11 or newer; set PYTHON=/path/to/python" >&2; exit 1; }
	@echo "==> creating $(VENV) and installing dependencies (once; a minute or two)"
	@$(PYTHON) -m venv $(VENV) || { echo "python's venv is missing: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@$(BIN)/python -m compileall -q apiguard  # pip leaves that out: 45 ms of every command
	@touch $@
