# Everything here needs Python 3.11 or later with venv, nothing else.
PYTHON ?= python3
VENV = .venv
LOWEST = .venv-lowest
BIN = $(VENV)/bin
UV = $(BIN)/python -m uv
INSTALL = $(UV) pip install --quiet --python
# What tensorflow-datasets brings; the newest don't say that they need a protobuf that TensorFlow 2.19 can't have, and NumPy 2.
OF_THEIR_TIME = 'tensorflow-metadata>=1.16,<1.18' 'pyarrow>=19,<20'
# Bytecode is kept, whatever the shell says: else each of some fifty processes compiles TensorFlow anew, for ten seconds.
export PYTHONDONTWRITEBYTECODE =
# A process whose tests are done takes some of another's: so neighbours, which share what they build, stay together.
PYTEST = python -m pytest -n auto --maxprocesses 4 --dist worksteal
PROMISED = quick or promise

.PHONY: demo check lint test test-all test-lowest coverage docs clean

demo: $(VENV)/installed
	$(BIN)/anogan demo -o demo --overwrite

# While working: a minute or two, in an environment without what the other tests need.
check: lint
	$(BIN)/$(PYTEST) -m quick

lint: $(VENV)/installed-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check anogan_tf benchmarks tests export
	$(BIN)/python -m mypy

# Before a change is handed in: whatever the README promises.
test: $(VENV)/installed-dev
	$(BIN)/$(PYTEST) -m '$(PROMISED)'

# All there is, on the newest versions that there are.
test-all: $(VENV)/installed-dev
	$(BIN)/$(PYTEST)

# What depends on versions, on the lowest that setup.cfg allows; without Beam and the documentation, which ask for newer ones.
test-lowest: $(LOWEST)/installed
	$(LOWEST)/bin/$(PYTEST) -m '$(PROMISED) or versions'

coverage: $(VENV)/installed-dev
	$(BIN)/$(PYTEST) --cov --cov-report=term:skip-covered --cov-report=html

docs: $(VENV)/installed-dev
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build

# uv installs in seconds what takes pip minutes, and knows what the lowest versions are.
$(VENV)/bin/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/installed: setup.cfg pyproject.toml | $(VENV)/bin/uv
	$(INSTALL) $(VENV) -e .
	touch $@

$(VENV)/installed-check: setup.cfg pyproject.toml | $(VENV)/bin/uv
	$(INSTALL) $(VENV) -e '.[check]'
	touch $@ $(VENV)/installed

$(VENV)/installed-dev: setup.cfg pyproject.toml | $(VENV)/bin/uv
	$(INSTALL) $(VENV) -e '.[dev]'
	$(INSTALL) $(VENV) --no-deps tensorflow-serving-api
	touch $@ $(VENV)/installed $(VENV)/installed-check

$(LOWEST)/installed: setup.cfg pyproject.toml | $(VENV)/bin/uv
	$(UV) venv --quiet --clear --python $(BIN)/python $(LOWEST)
	$(INSTALL) $(LOWEST) --resolution lowest-direct -e '.[test]' $(OF_THEIR_TIME)
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) demo build docs/_build htmlcov .coverage *.egg-info
