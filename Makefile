# Everything runs in .venv; each target does only what is not done yet.
PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
PLUGINS := $(sort $(wildcard plugins/losslog-*))
MANIFESTS := pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo test check unit exhaustive frameworks plugin faults stress docs dist matrix bench clean

help: ## show this list
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 12

install: $(VENV)/.installed ## create .venv with everything in editable mode

$(VENV)/.installed: $(MANIFESTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt --upgrade pip
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[detection,dev]" $(addprefix -e ./,$(PLUGINS))
	$(BIN)/python -c "import pathlib; pathlib.Path('$(VENV)/.installed').touch()"

demo: install ## train a small Mask R-CNN on shapes and log it everywhere
	$(BIN)/python -m losslog demo

check: install ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy losslog
	for plugin in $(PLUGINS); do $(BIN)/mypy $$plugin/src || exit 1; done

docs: install ## the documentation, in site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

test: check unit docs plugin ## everything CI runs

unit: install
	$(BIN)/python -m pytest -q -n 3 --dist loadfile tests
	$(BIN)/python -m pytest -q -n 3 --dist loadfile $(addsuffix /tests,$(PLUGINS))

exhaustive: install ## every case of tests that `make test` takes a sample of
	LOSSLOG_TESTS=all $(BIN)/python -m pytest -q -n 2 --dist loadfile -m sampled tests

FRAMEWORKS := .venv-frameworks
EXTRAS := lightning,transformers,accelerate,mmengine,ultralytics,ignite,keras,fastai,sb3

frameworks: ## the adapters against real frameworks, in an environment of their own
	test -x $(FRAMEWORKS)/$(notdir $(BIN))/python || $(PYTHON) -m venv $(FRAMEWORKS)
	$(FRAMEWORKS)/$(notdir $(BIN))/python -m pip install -q -c constraints.txt -c constraints-frameworks.txt \
		-e ".[$(EXTRAS)]" -e ./plugins/losslog-console -e ./plugins/losslog-plateau \
		pytest pytest-timeout pytest-randomly pytest-xdist torchvision pycocotools faster-coco-eval trl datasets
	$(FRAMEWORKS)/$(notdir $(BIN))/python -m pytest -q -n 2 tests/compat/frameworks

plugin: install ## losslog new-plugin, install it, test it, train with it
	$(BIN)/python scripts/new_plugin_check.py

faults: install ## the whole fault suite
	LOSSLOG_FAULTS=full $(BIN)/python -m pytest -q tests/faults

stress: install ## every threaded test 200 times
	$(BIN)/python scripts/stress.py

dist: install ## wheels and sdists of everything, in dist/, checked
	$(BIN)/python scripts/dist.py
	$(BIN)/python scripts/check_dist.py

matrix: ## other Pythons, and the oldest packages the metadata promise (about half an hour, gigabytes of wheels)
	$(PYTHON) scripts/matrix.py

bench: install ## every benchmark, into docs/performance.md (about 12 minutes)
	$(BIN)/python -m benchmarks

clean: ## remove build products, keep .venv
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache
