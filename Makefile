# Two commands do everything on a fresh machine with Python 3.11 or newer: `make demo` and `make test`.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?=
OUTPUT ?= demo-output

.PHONY: demo test test-gpu lint format benchmark clean

# Reads mini-MIAS (DATA=path, else ../shared/data/mini-mias, data/mini-mias, or its official home), trains, indexes,
# queries, classifies and scores held-out women; without data it runs on eight public DICOM files.
demo: $(VENV)/.demo
	$(BIN)/mammoseek demo -o $(OUTPUT) $(if $(DATA),--data "$(DATA)")

# One worker a core, one thread a worker: threads of several workers would only wait for each other.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile $(PYTEST_ARGS)

# What needs a GPU: the same answers there as on the processor, from training to search.
test-gpu: $(VENV)/.dev
	$(BIN)/python -m pytest -m gpu -rs tests $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Measures retrieval and classification by cross-validation over women, and speed, and rewrites benchmarks/results.
benchmark: $(VENV)/.dev
	$(BIN)/python -m benchmarks.cross_validation $(if $(DATA),--data "$(DATA)")
	$(BIN)/python -m benchmarks.embedding_speed $(if $(DATA),--data "$(DATA)")

# One stamp per set of dependencies; a changed pyproject.toml installs again.
$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check -e ".[demo,viewer]"
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check -e ".[dev]"
	touch $@

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "mammoseek needs Python 3.11 or newer: install it, or name it by PYTHON=..."; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "mammoseek needs Python 3.11 or newer, $(PYTHON) is older: name another by PYTHON=..."; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

clean:
	rm -rf $(VENV) $(OUTPUT) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
