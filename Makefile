# make help lists the targets. Needs Python 3.11 to 3.13 and make; a C++ compiler makes it fast.
# Everything is installed into .venv, as requirements/ says: versions and the hashes of their files.
PYTHON ?= python3
# Where pip looks for torch, if not where it looks for the rest: PyTorch's own index has CPU builds.
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/bash
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Tests run in two processes on two cores: one thread each is faster than two.
TEST_ENVIRONMENT := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
TEST_OPTIONS ?= -n 2 --dist worksteal -q

# A lock names all that is needed, so pip has nothing to look for; and nothing but wheels is taken.
LOCKED := install -q --no-deps --require-hashes --only-binary=:all: -r
TORCH := install -q --only-binary=:all: $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -r requirements/torch.txt
OURSELVES := install -q --no-deps --no-build-isolation

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-paddle check fuzz lint types layers format wheel test-wheel smoke bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

setup: $(VENV)/.run ## create .venv with what the package needs

# What `make quickstart` needs, and nothing else.
$(VENV)/.run: pyproject.toml setup.py requirements/run.txt requirements/torch.txt $(wildcard src/zhbert/*/*.cpp src/zhbert/*.h src/zhbert/*/*.h)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else f"Python {v[0]}.{v[1]} found; 3.11 to 3.13 is needed: make PYTHON=python3.11 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): 0.1 GB to download, and torch (0.2 GB for CPUs; 3 GB with CUDA)"
	@$(BIN)/python -m pip $(LOCKED) requirements/run.txt
	@$(BIN)/python -m pip $(TORCH)
	@$(BIN)/python -m pip $(OURSELVES) -e .
	@touch $@

# The same environment with the linters and the libraries that the tests compare with.
$(VENV)/.test: $(VENV)/.run requirements/test.txt
	@echo "installing into $(VENV) what the tests compare with: 0.6 GB to download"
	@$(BIN)/python -m pip $(LOCKED) requirements/test.txt
	@touch $@

.transformers4/.ready: requirements/transformers4.txt $(VENV)/.run
	@rm -rf .transformers4
	@$(BIN)/python -m pip $(LOCKED) requirements/transformers4.txt --target .transformers4
	@touch $@

# An environment of its own: PaddleNLP wants older libraries than the tests' other oracles.
.paddle/.ready: requirements/paddle.txt $(VENV)/.run
	@echo "installing into .paddle what the folders for Paddle are opened with: 0.4 GB to download"
	@rm -rf .paddle
	@$(PYTHON) -m venv .paddle
	@.paddle/bin/python -m pip $(LOCKED) requirements/paddle.txt
	@touch $@

# What is missing is said before anything is installed.
$(foreach text,$(TEXT),$(if $(wildcard $(text)),,$(error TEXT=$(text): no such file or folder)))

quickstart: $(VENV)/.run ## the model in the box learns your text: make quickstart [TEXT=my.txt] [FROM=mini|scratch|MODEL] [OPTIONS=...]
	@$(BIN)/zhbert quickstart $(TEXT) --from $(or $(FROM),zhbert-mini) --out runs/quickstart --overwrite $(OPTIONS)

test: $(VENV)/.test .transformers4/.ready ## all tests
	$(TEST_ENVIRONMENT) $(BIN)/pytest $(TEST_OPTIONS) tests src

ifeq ($(shell uname -sm),Linux aarch64)
test-paddle:
	@echo "no PaddlePaddle is built for Linux on ARM: nothing was tested"
else
test-paddle: $(VENV)/.test .paddle/.ready ## real PaddlePaddle, PaddleNLP and PaddleHub open what is written, and the reverse
	$(TEST_ENVIRONMENT) ZHBERT_PADDLE=$(CURDIR)/.paddle $(BIN)/pytest -q -n 2 --dist loadscope tests/paddle tests/test_formats.py -k "paddle or real"
endif

check: lint types layers test ## everything that must pass: format, lint, types, layers, tests

# What it finds is printed with the variables that find it again; a reader's name is a part of it.
fuzz: $(VENV)/.test ## damage files for every reader: make fuzz [READER=zip] [NUMBER=2500] [TEXTS=1000000] [SEED=0] [FIRST=0]
	$(TEST_ENVIRONMENT) FUZZ_NUMBER=$(or $(NUMBER),2500) FUZZ_TEXTS=$(or $(TEXTS),1000000) FUZZ_SEED=$(SEED) FUZZ_FIRST=$(FIRST) $(BIN)/pytest $(TEST_OPTIONS) tests/fuzz -k "$(or $(READER),test)"

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.test
	$(BIN)/mypy

layers: $(VENV)/.test
	$(BIN)/lint-imports

format: $(VENV)/.test ## format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: $(VENV)/.test ## build dist/*.whl
	@rm -rf build dist
	$(BIN)/python -m build --wheel --no-isolation -q

# A second environment that sees the first one's libraries, but not this source tree.
test-wheel: wheel .transformers4/.ready ## the tests (or TESTS="tests/jobs ...") against the installed wheel, the source tree out of the way
	@rm -rf build/wheel-test && mkdir -p build/wheel-test
	@$(PYTHON) -m venv build/wheel-test/venv
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$(echo build/wheel-test/venv/lib/python*/site-packages)/libraries.pth
	@build/wheel-test/venv/bin/python -m pip install -q --no-deps --force-reinstall dist/*.whl
	@cp -r tests tools docs requirements pyproject.toml LICENSE *.md build/wheel-test/
	cd build/wheel-test && $(TEST_ENVIRONMENT) ZHBERT_TRANSFORMERS4=$(CURDIR)/.transformers4 ZHBERT_WHEEL=1 venv/bin/python -m pytest $(TEST_OPTIONS) --ignore=tests/fuzz $(or $(TESTS),tests)

# The whole way on two sentences, by `pip install .` as a user does it: with the newest of everything
# that pyproject.toml allows (the torch of requirements/torch.txt, if not TORCH=torch), and the oldest.
TORCH_WANTED = $(or $(TORCH),-r requirements/torch.txt)
smoke: ## install with the newest and the oldest libraries, and go the whole way with each
	@rm -rf build/newest build/oldest build/lib* build/bdist*
	@$(PYTHON) -m venv build/newest && $(PYTHON) -m venv build/oldest
	@echo "the newest of everything"
	@build/newest/bin/python -m pip install -q --only-binary=:all: $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH_WANTED)
	@build/newest/bin/python -m pip install -q --prefer-binary .
	build/newest/bin/python tools/smoke.py
	@echo "the oldest of everything"
	@build/oldest/bin/python -m pip $(LOCKED) requirements/oldest.txt
	@build/oldest/bin/python -m pip $(TORCH)
	@build/oldest/bin/python -m pip $(OURSELVES) .
	build/oldest/bin/python tools/smoke.py

bench: $(VENV)/.test ## the benchmarks beside their peers (needs ZHBERT_DATA; half an hour)
	@for script in tokenizer prepare loader collator train_step "finetune train" "finetune predict" "finetune span" "embed sentences" "embed passages" "embed stream" "embed train" "embed search" engines; do set -- $$script; $(BIN)/python benchmarks/$$1.py $$2 || exit 1; done

clean: ## remove what was built, not runs/
	rm -rf $(VENV) .transformers4 .paddle build dist src/*.egg-info src/zhbert/*/*.so
