# Two commands do all: `make demo` and `make test`.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin
OUT ?= out/demo
SAMPLES ?= data/samples
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: help setup weights demo test test-slow check chromium postgresql serve clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: .venv/.installed  ## .venv with the pinned packages

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' \
		|| { echo "Studiolo needs Python 3.11 or 3.12; say which: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install -q -c constraints.txt -e '.[embedded,s3,faces,postgresql,dev]'
	@touch $@

weights: setup  ## fetch and verify the embedded models
	$(BIN)/python -m jobs models pull --suite embedded

demo: weights  ## sample albums in, ranked portraits and a gallery out
	$(BIN)/python -m jobs samples --out $(SAMPLES) --people 3
	@$(BIN)/python -m jobs studio --albums $(SAMPLES) --out $(OUT) --styles studio,black-and-white,warm-film --per-style 2; \
	code=$$?; \
	if [ $$code -eq 3 ]; then echo "The job ends with 3: see who failed above; of these, nothing-usable holds no usable photo on purpose."; \
	elif [ $$code -ne 0 ]; then exit $$code; fi

.PHONY: test-weights
test-weights: weights
	$(BIN)/python -m jobs models pull saliency-vit random-face

test: test-weights  ## the tests, offline
	$(BIN)/python -m pytest

chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || { \
		SUDO=$$( [ "$$(id -u)" = 0 ] || echo sudo ); \
		$$SUDO apt-get update -q && $$SUDO apt-get install -yq --no-install-recommends chromium; }

postgresql:
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { \
		SUDO=$$( [ "$$(id -u)" = 0 ] || echo sudo ); \
		$$SUDO apt-get update -q && $$SUDO apt-get install -yq --no-install-recommends postgresql; }

ENDPOINT_FAULTS := tests/slow/test_endpoint_faults.py

test-slow: test-weights chromium postgresql  ## kills, load, browser and PostgreSQL
	@# The faults of the whole endpoint are mostly waited for, so they run beside the others.
	@log=$$(mktemp); $(BIN)/python -m pytest -m slow $(ENDPOINT_FAULTS) >$$log 2>&1 & endpoint=$$!; \
	$(BIN)/python -m pytest -m slow --ignore=$(ENDPOINT_FAULTS); code=$$?; \
	wait $$endpoint || code=1; cat $$log; rm $$log; exit $$code

check: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

serve: weights  ## the HTTP endpoint on this machine, with a trainer; Ctrl-C ends both
	@exec $(BIN)/python -m jobs serve

clean:  ## remove what the targets made
	rm -rf .venv out data/samples .mypy_cache .ruff_cache .pytest_cache
