# make demo       renders out/demo.mp4 from the portrait and the speech in the package
# make assistant  opens a page where a face says at once what one types or speaks
# make test       runs the tests
# make lint       checks style and types
#
# PYTHON       the interpreter, 3.11 or newer
# TORCH_INDEX  where torch comes from. The default has builds for CPUs, without gigabytes of CUDA libraries;
#              where it cannot be reached, and with TORCH_INDEX= (a machine with a GPU), torch comes from pip's
#              own index.

PYTHON ?= python3
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

VENV := .venv
PIP := $(VENV)/bin/python -m pip
TORCH := $(shell sed -n 's/^ *"\(torch==[^"]*\)",$$/\1/p' pyproject.toml)
ASSETS := src/atldiff/assets

.PHONY: demo assistant test lint

demo: $(VENV)/.installed
	@mkdir -p out
	$(VENV)/bin/atldiff generate --portrait $(ASSETS)/portrait.jpg --speech $(ASSETS)/speech.flac -o out/demo.mp4
	@echo "The video is in $(CURDIR)/out/demo.mp4"

assistant: $(VENV)/.installed-assistant
	$(VENV)/bin/atldiff studio --page live

test: $(VENV)/.installed-dev
	PYTHONDONTWRITEBYTECODE= $(VENV)/bin/python -m pytest -n auto --maxprocesses 4

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/pyright

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11; name another one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Any build of the pinned version will do, so the second pip takes the one that the first has brought.
$(VENV)/.torch: $(VENV)/bin/python
	@test -z "$(TORCH_INDEX)" || \
		$(PIP) install --quiet --no-deps --timeout 10 --retries 0 --index-url "$(TORCH_INDEX)" "$(TORCH)" \
			2>/dev/null || \
		echo "$(TORCH) is not to be had from $(TORCH_INDEX); taking it from pip's own index"
	@touch $@

$(VENV)/.installed: pyproject.toml | $(VENV)/.torch
	$(PIP) install --quiet -e .
	@touch $@

$(VENV)/.installed-assistant: pyproject.toml | $(VENV)/.torch
	$(PIP) install --quiet -e '.[serve,tts,webrtc]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.torch
	$(PIP) install --quiet -e '.[dev]'
	@touch $@ $(VENV)/.installed
