# make quickstart: the first five minutes.  make test: everything is checked.  make test-fast: the
# inner loop, under two minutes.  make lint: style.
# make test-long: longer runs of what make test checks on small parts or on one decoder; quarter of an hour.
# make torture: every file of a run damaged, and runs stopped at 200 moments; an hour.
# make recipes-check: the recipes for COCO, features and sounds, on stand-ins; ten minutes.
# make workers-check: features by several processes, one of them killed; a minute.
# make devices-check: every objective on three devices against one; ten minutes.
# make machines-check: several workers against one, killed, hung and stopped; half an hour.
# make serve-check: an exported model in other loaders and under loads of callers; five minutes.
# make gpu-check: training on a GPU against the CPU, and its speed; needs a GPU.
# make benchmark: what training and decoding cost on this machine.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
RUN := .venv/bin/python
# Processes that tests run in; each grows to 4 GB.
JOBS ?= 2

.PHONY: .venv quickstart test test-fast test-long torture recipes-check workers-check devices-check machines-check serve-check gpu-check benchmark lint format clean

quickstart: .venv
	$(RUN) -m pipeline.main --flagfile=recipes/quickstart.flags

test: .venv
	$(RUN) -m pytest -q -n $(JOBS) --no-loadscope-reorder

test-fast: .venv
	$(RUN) -m pytest -q -n $(JOBS) --no-loadscope-reorder -m "not slow and not long"

test-long: .venv
	$(RUN) -m pytest -q -n $(JOBS) --no-loadscope-reorder -m long

torture: .venv
	$(RUN) -m tests.torture

recipes-check: .venv
	$(RUN) -m tests.recipes_check

workers-check: .venv
	$(RUN) -m tests.workers_check

devices-check: .venv
	$(RUN) -m tests.devices_check

machines-check: .venv
	$(RUN) -m tests.machines_check

serve-check: .venv
	$(RUN) -m tests.serve_check

gpu-check: .venv
	$(RUN) -m tests.gpu_check --output=docs/gpu.md

benchmark: .venv
	$(RUN) -m benchmarks.speed

lint: .venv
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	mkdir -p build/lint/spidercap
	ln -sfn $(CURDIR)/models $(CURDIR)/pipeline $(CURDIR)/export $(wildcard $(CURDIR)/spidercap/*.py) build/lint/spidercap/
	cd build/lint && $(CURDIR)/.venv/bin/lint-imports --no-cache $(CURDIR)/pyproject.toml

format: .venv
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

.venv: .venv/.installed

# The stamp comes last, so that an interrupted install is begun again.
.venv/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
