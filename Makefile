# `make demo` upscales the bundled sample; `make test` runs every check. Both start from nothing.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2

.PHONY: demo test lint check bench docs pictures man release-check clean

.venv/installed: pyproject.toml constraints.txt
	@echo "setting up .venv ..."
	@began=$$(date +%s) && \
	$(PYTHON) -m venv .venv && \
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]' && \
	touch $@ && \
	echo "set-up took $$(($$(date +%s) - began)) s"

# First a picture of five frames' work, then the whole clip. Twice as large, not four times: a
# quarter of the time.
demo: .venv/installed
	@mkdir -p out
	@began=$$(date +%s) && \
	$(BIN)/oasis upscale samples/demo.mp4 out/demo-x2.png --scale 2 --window 5 --overlap 2 \
	    --preview --overwrite && \
	echo "look at out/demo-x2.png: before | after, made in $$(($$(date +%s) - began)) s" && \
	$(BIN)/oasis upscale samples/demo.mp4 out/demo-x2.mp4 --scale 2 --overwrite && \
	echo "look at out/demo-x2.mp4 beside samples/demo.mp4; all in $$(($$(date +%s) - began)) s"

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# In two processes: half the time on two cores. `make check JOBS=4` where there are more.
# A hundred processes are started: they read what one has compiled, whatever the environment says.
# A test that hangs fails after three minutes, and is named.
check: .venv/installed
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n $(JOBS) --dist worksteal \
	    -o faulthandler_timeout=180 -o faulthandler_exit_on_timeout=true

test: lint check

# Minutes each; best on a machine that does nothing else.
bench: .venv/installed
	mkdir -p out
	$(BIN)/python benchmarks/speed.py --json out/speed.json
	$(BIN)/python benchmarks/memory.py --json out/memory.json
	$(BIN)/oasis bench

# mkdocs is no part of the development environment: this installs it.
docs: .venv/installed
	$(BIN)/pip install -q -c constraints.txt 'mkdocs>=1.6'
	$(BIN)/mkdocs build --strict --site-dir out/site

# The picture on the README's first screen: the sample before and after.
pictures: .venv/installed
	mkdir -p out
	$(BIN)/oasis upscale samples/demo.mp4 out/demo-x4.mp4 --scale 4 --overwrite
	$(BIN)/oasis compare samples/demo.mp4 out/demo-x4.mp4 -o docs/images/demo.webp --frames 8,44 --overwrite

# Wheel, sdist, bill of materials and hashes in dist/, each artefact tried in an empty environment.
release-check: .venv/installed
	$(BIN)/pip install -q -c constraints.txt 'build>=1.2' 'hatchling>=1.25' 'cyclonedx-bom>=7'
	$(BIN)/python tools/release_check.py

# The manual page and the completions, from the command's own help.
man: .venv/installed
	mkdir -p out
	$(BIN)/python docs/make_man.py > out/oasis.1

clean:
	rm -rf .venv out
