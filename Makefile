# `make install`, `make test`, `make quickstart` and `make demo` install what they need into .venv on first use.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install test quickstart demo api format clean

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

install: .venv/installed
	@echo "run '. .venv/bin/activate', then 'wsol --help'"

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

quickstart: .venv/installed
	$(BIN)/python tools/quickstart.py

demo: .venv/installed
	$(BIN)/python tools/demo.py

# a reference of all public names, from their docstrings
api: .venv/installed
	$(BIN)/python docs/api_reference.py build/api
	@echo "open build/api/index.html"

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .hypothesis
