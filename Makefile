# `make demo` and `make test` work in a fresh clone: each makes .venv first when it is missing or out of date.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# For another package index or torch build: make test PIP_ARGS="--index-url …"
PIP_ARGS ?=
# Test workers; each runs single-threaded, so that two of them fill two cores.
JOBS ?= 2

.PHONY: help demo test test-slow lint bench clean

help:
	@echo "make demo    data, small model, SFT, GRPO and a report in runs/demo, about 10 minutes on 2 cores"
	@echo "make test    the test suite"
	@echo "make lint    style checks"
	@echo "make bench   benchmarks against peers"
	@echo "make clean   remove .venv and caches; runs/ stays"

demo: $(STAMP)
	@$(BIN)/scenerl demo $(ARGS)

test: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --durations 5 $(ARGS)

test-slow: $(STAMP)
	@$(BIN)/python -m pytest -q -m slow $(ARGS)

lint: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt ruff
	@$(BIN)/ruff check src tests
	@$(BIN)/ruff format --check src tests

bench: $(STAMP)
	@for file in bench/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist

$(STAMP): pyproject.toml constraints.txt
	@echo "Installing SceneRL and its packages into $(VENV) (a few minutes, once) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[train,test]'
	@touch $@
