# `make demo` upscales the bundled sample; `make test` runs every check. Both start from nothing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint clean

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

demo: .venv/installed
	mkdir -p out
	$(BIN)/oasis upscale samples/demo.mp4 out/demo-x4.mp4 --scale 4 --overwrite
	@echo "wrote out/demo-x4.mp4 (compare it with samples/demo.mp4)"

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest

clean:
	rm -rf .venv out
