# make demo: every figure at demo scale, from nothing, and the report.   make test: the tests.   make lint: lint and types.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python -m

.PHONY: demo test lint check install constraints
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# *//p;1q' Makefile

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: install
	$(RUN) repro.train sweep=all scale=demo tracking=offline
	$(RUN) repro.report scale=demo figure=all

test: install
	$(RUN) pytest

lint: install
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(VENV)/bin/lint-imports --no-logo

# The exact versions that were tested, for every Python that is supported.
constraints:
	uv pip compile --quiet --universal --python-version 3.10 --extra dev --no-header --no-annotate \
		--output-file constraints.txt pyproject.toml
