# make help lists the targets. Needs Python 3.11 to 3.13, make and a C++ compiler; nothing else:
# everything is installed into .venv, in the versions that constraints.txt pins.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/bash
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Tests run in two processes on two cores: one thread each is faster than two.
TEST_ENVIRONMENT := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
TEST_OPTIONS ?= -n 2 --dist worksteal -q

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test check lint types layers format wheel test-wheel bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

setup: $(VENV)/.ready ## create .venv with everything in it

$(VENV)/.ready: pyproject.toml setup.py constraints.txt $(wildcard src/zhbert/*/*.cpp)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else f"Python {v[0]}.{v[1]} found; 3.11 to 3.13 is needed: make PYTHON=python3.11 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (the first time takes a minute or more)"
	@$(BIN)/pip install -q -c constraints.txt setuptools wheel
	@$(BIN)/pip install -q -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

.transformers4/.ready: tests/transformers4.txt $(VENV)/.ready
	@rm -rf .transformers4
	@$(BIN)/pip install -q --no-deps --target .transformers4 -r tests/transformers4.txt
	@touch $@

quickstart: $(VENV)/.ready ## text to a trained model in minutes: make quickstart [TEXT=my.txt]
	@$(BIN)/zhbert quickstart $(TEXT) --out runs/quickstart --overwrite

test: $(VENV)/.ready .transformers4/.ready ## all tests
	$(TEST_ENVIRONMENT) $(BIN)/pytest $(TEST_OPTIONS) tests src

check: lint types layers test ## everything that must pass: format, lint, types, layers, tests

lint: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.ready
	$(BIN)/mypy

layers: $(VENV)/.ready
	$(BIN)/lint-imports

format: $(VENV)/.ready ## format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: $(VENV)/.ready ## build dist/*.whl
	@rm -rf build dist
	$(BIN)/python -m build --wheel --no-isolation -q

# A second environment that sees the first one's libraries, but not this source tree.
test-wheel: wheel .transformers4/.ready ## the tests against the installed wheel, the source tree out of the way
	@rm -rf build/wheel-test && mkdir -p build/wheel-test
	@$(PYTHON) -m venv build/wheel-test/venv
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$(echo build/wheel-test/venv/lib/python*/site-packages)/libraries.pth
	@build/wheel-test/venv/bin/pip install -q --no-deps --force-reinstall dist/*.whl
	@cp -r tests tools docs pyproject.toml LICENSE *.md build/wheel-test/
	cd build/wheel-test && $(TEST_ENVIRONMENT) ZHBERT_TRANSFORMERS4=$(CURDIR)/.transformers4 ZHBERT_WHEEL=1 venv/bin/python -m pytest $(TEST_OPTIONS) tests

bench: $(VENV)/.ready ## the benchmarks beside their peers (needs ZHBERT_DATA; half an hour)
	@for script in tokenizer prepare loader train_step "finetune train" "finetune predict" "finetune span"; do set -- $$script; $(BIN)/python benchmarks/$$1.py $$2 || exit 1; done

clean: ## remove what was built, not runs/
	rm -rf $(VENV) .transformers4 build dist src/*.egg-info src/zhbert/*/*.so
