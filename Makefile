# make demo: every figure at demo scale, from nothing, and the report.   make test: the tests.   make lint: lint and types.
# make test-clusters: the tests on a real Slurm and a real Ray, which it starts. Linux, root, Debian's packages.
# make paper-cpu: what a CPU trains at paper scale, Table 1's 3-layer network and Table 2's LeNet: 64 runs; it took 7 hours.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python -m
# make paper-cpu DATA=DIR: CIFAR-10 and MNIST are in DIR/cifar10 and DIR/mnist instead of ./data
ROOT = $(if $(DATA),'dataset.root=$(DATA)/$${dataset.name}')

.PHONY: demo paper-cpu test test-clusters lint check install constraints
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# *//p;3q' Makefile

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: install
	$(RUN) repro.train sweep=all scale=demo tracking=offline
	$(RUN) repro.report scale=demo figure=all

paper-cpu: install
	$(RUN) repro.train sweep=table2-lenet tracking=disabled $(ROOT)
	$(RUN) repro.train sweep=table1-cnn3 tracking=disabled $(ROOT)
	$(RUN) repro.figures table=all

test: install
	$(RUN) pytest

test-clusters: install
	VENV=$(VENV) tests/clusters/run

lint: install
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(VENV)/bin/lint-imports --no-logo

# Exact versions for every Python that is supported and for every extra, resolved together. It needs uv.
constraints:
	uv pip compile --quiet --universal --python-version 3.10 --all-extras --no-header --no-annotate \
		--output-file constraints.txt pyproject.toml
