# `make test`, `make quickstart` and `make demo` install what they need into .venv on first use.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: test quickstart demo format clean

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

quickstart: .venv/installed
	$(BIN)/python tools/quickstart.py

demo: .venv/installed
	$(BIN)/python tools/demo.py

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .hypothesis
