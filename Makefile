# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
OUTPUT ?= quickstart-output
# Everything else is locked. torch is named here, because its builds differ from machine to machine (see CONTRIBUTING.md).
# An exact version takes a CPU build where one is offered; an open range pulls several GB of CUDA.
TORCH  ?= torch==2.13.0
# What `make lock`, `make test-newest` and `make test-oldest` resolve with.
UV     ?= uv==0.13.9

LOCK    := ifguide/requirements/lock.txt
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
PIP     := $(BIN)/python -m pip --disable-pip-version-check --no-input
EXACTLY := --quiet --no-deps --require-hashes --no-build-isolation --use-pep517
RESOLVE := .venv-lock/bin/uv pip compile --quiet pyproject.toml --all-extras --group locked --no-emit-package torch
# What builds the packages that come as source only (deepspeed is one), and what torch depends on beside nvidia's.
FIRST   := setuptools wheel packaging filelock fsspec jinja2 markupsafe mpmath networkx numpy sympy typing-extensions

# `make lock UPGRADE=` leaves what is locked as it is, and adds or removes what pyproject.toml now names or no longer.
UPGRADE ?= --upgrade

.PHONY: demo site test lint types check install lock test-newest test-oldest versions clean

demo: install          ## real text -> mask -> guided model -> report, on a CPU, in minutes
	$(BIN)/ifguide quickstart --output $(OUTPUT)

site: install          ## the documentation, in site/; it asks no other machine for anything
	$(BIN)/python -m ifguide.verbs.reference > docs/verbs.md
	$(BIN)/python -m mkdocs build --strict

test: install          ## the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

check: lint types test

versions: install      ## Python, and every package with its version
	@$(BIN)/python --version
	@$(PIP) list --format=freeze

install: $(STAMP)

# torch first: deepspeed looks at it while it is built. deepspeed without compiled operators. Nothing is built with
# tools that are not locked. The package itself is installed editable, and brings no dependencies of its own.
$(STAMP): pyproject.toml Makefile $(LOCK)
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed, this is " + sys.version.split()[0] + "; name another with PYTHON=...") if sys.version_info < (3, 10) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m ifguide.requirements.lock $(FIRST) > $(VENV)/first.txt
	$(PIP) install $(EXACTLY) -r $(VENV)/first.txt
	$(PIP) install --quiet $(TORCH)
	DS_BUILD_OPS=0 $(PIP) install $(EXACTLY) -r $(LOCK)
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	touch $(STAMP)

# The newest of everything that pyproject.toml allows, for every Python from 3.10, with the hashes of the public index.
# Files and settings of this machine's pip and uv are left out, so that the lock names no other place.
lock: .venv-lock/bin/uv
	env --unset=UV_INDEX --unset=UV_INDEX_URL --unset=UV_DEFAULT_INDEX --unset=UV_EXTRA_INDEX_URL --unset=UV_FIND_LINKS \
	  DS_BUILD_OPS=0 $(RESOLVE) $(UPGRADE) --universal --python-version 3.10 --generate-hashes --annotation-style line \
	  --custom-compile-command "make lock    (tested.json beside this file says what was tried on which Python)" --output-file $(LOCK)

# The newest and the oldest of what pyproject.toml allows, each in an environment of its own, and the whole suite there.
# Oldest: of each package that pyproject.toml names the lowest version that it allows, of all others the newest that
# fits. torch is the one that TORCH names in both: pyproject.toml allows no other minor version.
test-newest: .venv-lock/bin/uv
	$(MAKE) --no-print-directory test-resolved VENV=.venv-newest RESOLUTION=highest

test-oldest: .venv-lock/bin/uv
	$(MAKE) --no-print-directory test-resolved VENV=.venv-oldest RESOLUTION=lowest-direct

.PHONY: test-resolved install-resolved
test-resolved: install-resolved
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

install-resolved:
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	DS_BUILD_OPS=0 $(RESOLVE) --resolution $(RESOLUTION) --python $(BIN)/python --generate-hashes --no-annotate --no-header --output-file $(VENV)/lock.txt
	$(BIN)/python -m ifguide.requirements.lock --from $(VENV)/lock.txt $(FIRST) > $(VENV)/first.txt
	$(PIP) install $(EXACTLY) -r $(VENV)/first.txt
	$(PIP) install --quiet $(TORCH)
	DS_BUILD_OPS=0 $(PIP) install $(EXACTLY) -r $(VENV)/lock.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	$(PIP) list --format=freeze

.venv-lock/bin/uv: Makefile
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check $(UV)
	touch $@

clean:
	rm -rf $(VENV) .venv-lock .venv-newest .venv-oldest $(OUTPUT) .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info site
