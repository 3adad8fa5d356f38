# Two commands from a fresh clone: make demo, make test. They need Python 3.11 or newer, git, make and a C compiler.
#
#   PYTHON=python3.12             the interpreter of the environment that is made in .venv
#   TORCH=torch==2.13.0           the build of torch that is installed, if the environment has none yet
#   TORCH_INDEX=URL               the package index that it comes from, for instance
#                                 https://download.pytorch.org/whl/cpu or https://download.pytorch.org/whl/cu126
#   JOBS=2                        processes of the tests and of the mutation testing

PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
JOBS ?= 2

BIN := .venv/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --disable-pip-version-check
READY := .venv/.ready

export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1

.PHONY: install test demo check bench mutation docs clean

install: $(READY)

$(PY):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv .venv

# A torch that is there already is kept, whatever its build.
$(READY): $(PY) pyproject.toml
	$(PY) -c 'import torch' 2>/dev/null || $(PIP) install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)'
	$(PIP) install --quiet --editable '.[dev]'
	@touch $@

test: $(READY)
	$(PY) scripts/test.py --jobs $(JOBS)

check: $(READY)
	$(PY) scripts/test.py --only-lint

demo: $(READY)
	env -u OMP_NUM_THREADS -u MKL_NUM_THREADS $(BIN)/ornstein demo

bench: $(READY)
	$(PY) -m benchmarks

mutation: $(READY)
	$(PY) scripts/mutate.py --jobs $(JOBS)

docs: $(READY)
	$(PY) scripts/docs.py

clean:
	rm -rf .venv build dist demo .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
