# `make demo`, `make test` and `make lint` need Python 3.11 or later with venv, nothing else.
PYTHON ?= python3
VENV = .venv
LOWEST = .venv-lowest
BIN = $(VENV)/bin
PIP = python -m pip install --quiet --disable-pip-version-check
PYTEST = python -m pytest -n auto --maxprocesses 4 --dist loadfile

.PHONY: demo test test-lowest lint coverage docs clean

demo: $(VENV)/installed
	$(BIN)/anogan demo -o demo --overwrite

# On the newest versions that there are.
test: $(VENV)/installed-dev
	$(BIN)/$(PYTEST)

# On the lowest that setup.cfg allows, with what is optional but for Beam and the documentation, which ask for newer ones.
test-lowest: $(LOWEST)/installed
	$(LOWEST)/bin/$(PYTEST)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check anogan_tf tests export
	$(BIN)/python -m mypy anogan_tf

coverage: $(VENV)/installed-dev
	$(BIN)/$(PYTEST) --cov --cov-report=term:skip-covered --cov-report=html

docs: $(VENV)/installed-dev
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/$(PIP) -e .
	touch $@

$(VENV)/installed-dev: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/$(PIP) -e '.[dev]'
	$(BIN)/$(PIP) --no-deps tensorflow-serving-api
	touch $@ $(VENV)/installed

# uv, since pip has no word for the lowest versions.
$(LOWEST)/installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/$(PIP) uv
	$(BIN)/python -m uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	$(BIN)/python -m uv pip install --quiet --python $(LOWEST) --resolution lowest-direct -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) demo build docs/_build htmlcov .coverage *.egg-info
