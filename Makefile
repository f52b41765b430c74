# `make help` lists the targets. Everything happens in .venv; the system's Python is only used to create it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := $(shell sed -n 's/^\(torch==[^ ]*\).*/\1/p' constraints.txt)
# One for each core: the fast tests wait for nothing, and each more would import PyTorch once more.
FAST := -n logical --dist worksteal -m "not slow and not real"
# Many of the slow ones wait for servers, some use all cores or gigabytes: two at a time, on any machine.
SLOW := -n 2 --dist worksteal -m "(slow or real) and not alone"
EXTRAS := simulation,postgres,peft,service,federated,keyring,ray,datasets,paper,docs,dev

.DEFAULT_GOAL := help
.PHONY: help venv test unit thorough lint site demo

help:  ## show this list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/make \1|\2/p' Makefile | awk -F'|' '{printf "  %-14s %s\n", $$1, $$2}'

venv: $(VENV)/.installed  ## create .venv and install Antefix into it, with the tested versions

# Each stamp is written last, so an interrupted install is done again.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(call install,$(EXTRAS))
	@touch $(VENV)/.demo $@

# What the demo needs and no more: seconds and gigabytes less than the tools of the tests.
$(VENV)/.demo: pyproject.toml constraints.txt
	$(call install,simulation)
	@touch $@

# torch first and alone: asked for exactly, a CPU build at hand satisfies it; unpinned, pip fetches gigabytes.
# pip compiles one file after another; compileall does on all cores. A file for another Python fails, and may.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "antefix: error: needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo not there);" \
	       "try: make PYTHON=python3.12 venv" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	@echo "installing PyTorch and what else is needed: a few minutes" >&2
	$(BIN)/python -m pip install --quiet --no-compile "$(TORCH)"
	$(BIN)/python -m pip install --quiet --no-compile -e ".[$(1)]" -c constraints.txt
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true
endef

test: venv  ## all checks: format, lint, types, import layers, the site, every test (minutes)
	@# Types take one core, the fast tests all: together they leave none idle.
	$(MAKE) --no-print-directory -j 2 lint unit site
	$(BIN)/python -m pytest $(SLOW)
	$(BIN)/python -m pytest -m alone

unit: venv  ## the fast tests only: a minute
	$(BIN)/python -m pytest $(FAST)

# ANTEFIX_THOROUGH: tests/support/trial_counts.py has the numbers.
thorough: venv  ## the slow tests with every number at its largest: kills, forged records, the soak (hours)
	ANTEFIX_THOROUGH=1 ANTEFIX_KILLS=50 ANTEFIX_RUN_KILLS=20 $(BIN)/python -m pytest $(SLOW) --timeout 7200
	$(BIN)/python -m pytest -m alone

lint: venv  ## format, lint, types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# NO_MKDOCS_2_WARNING: mkdocs-material's notice about other versions of mkdocs is no fault of a page.
site: venv  ## build the documentation's site into build/site; a broken link or mark fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

demo: $(VENV)/.demo  ## the whole story: rounds, eight sealed private prefixes, one removed, a report
	$(BIN)/antefix-sim demo
