# torch comes first and alone: which build of it is installed (CPU, CUDA) is then the choice of the package index.
TORCH := torch==2.13.0
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
OUT ?= build/impute.jsonl

.PHONY: demo test lint bench

demo: .venv/installed
	$(BIN)/python -m tabmae.demo

test: lint
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed-bench
	$(BIN)/python -m benchmarks.impute --out $(OUT) $(ARGS)
	$(BIN)/python -m benchmarks.report $(OUT)

.venv/installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; pass it as PYTHON=/path/to/python." >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

.venv/installed-bench: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@
