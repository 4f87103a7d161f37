# `make demo` and `make test` need Python 3.11 or later with venv, nothing else.
PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin

.PHONY: demo test docs clean

demo: $(VENV)/installed
	$(BIN)/anogan demo -o demo --overwrite

test: $(VENV)/installed-test
	$(BIN)/python -m pytest

docs: $(VENV)/installed-test
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/installed-test: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps tensorflow-serving-api
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) demo build docs/_build *.egg-info
