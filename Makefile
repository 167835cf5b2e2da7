# Two commands do all: `make demo` and `make test`.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin
OUT ?= out/demo
SAMPLES ?= data/samples
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: help setup weights demo test test-slow check audit chromium postgresql serve clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: .venv/.installed  ## .venv with the pinned packages

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' \
		|| { echo "Studiolo needs Python 3.11 or 3.12; say which: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install -q -c constraints.txt -e '.[embedded,s3,faces,datasets,postgresql,dev]'
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

# One process waits a good part of its time, for Ray, for processes that start and for what is killed to come back, so the
# tests run in several at once. The output of all but the first of them comes when they are done.
PYTEST := $(BIN)/python -m tests.to_the_end
at_the_end = log=$$(mktemp); { $(1); } >$$log 2>&1; code=$$?; cat $$log; rm $$log; exit $$code

JOBS := tests/jobs tests/test_serve_app.py
ACTORS := tests/actors
PIPELINES := tests/pipelines
# They send signals to their own process, which has ended with SIGSEGV when a cluster of Ray's was in it.
SIGNALS := tests/jobs/test_serve.py tests/jobs/test_trainer.py

# No test of theirs may take longer; of the slow ones some may, see pyproject.toml.
tests-of-parts tests-of-jobs: PYTEST += -o faulthandler_timeout=1300
tests-of-workers: PYTEST += -o faulthandler_timeout=660

test: test-weights  ## the tests, offline
	@$(MAKE) --no-print-directory -k -j3 tests-of-parts tests-of-jobs tests-of-workers

.PHONY: tests-of-parts tests-of-jobs tests-of-workers
tests-of-parts:
	$(PYTEST) $(patsubst %,--ignore=%,$(JOBS) $(ACTORS) $(PIPELINES))
tests-of-jobs:
	@$(call at_the_end,$(PYTEST) $(JOBS) $(SIGNALS:%=--ignore=%))
tests-of-workers:
	@$(call at_the_end,all=0; for some in "$(SIGNALS)" $(ACTORS) $(PIPELINES); do $(PYTEST) $$some || all=1; done; (exit $$all))

chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || { \
		SUDO=$$( [ "$$(id -u)" = 0 ] || echo sudo ); \
		$$SUDO apt-get update -q && $$SUDO apt-get install -yq --no-install-recommends chromium; }

postgresql:
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { \
		SUDO=$$( [ "$$(id -u)" = 0 ] || echo sudo ); \
		$$SUDO apt-get update -q && $$SUDO apt-get install -yq --no-install-recommends postgresql; }

# It looks at the memory of the whole machine: nothing runs beside it.
MEMORY := tests/slow/test_memory_monitor.py
ENDPOINT := tests/slow/test_endpoint_faults.py
# They are compared with one undisturbed job.
STUDIO := tests/slow/test_studio_killed.py tests/slow/test_studio_store_fails.py

test-slow: test-weights chromium postgresql  ## kills, load, browser and PostgreSQL
	@$(PYTEST) -m slow $(MEMORY); code=$$?; \
	$(MAKE) --no-print-directory -k -j2 slow-tests slow-tests-of-studio slow-tests-of-endpoint || code=1; exit $$code

.PHONY: slow-tests slow-tests-of-studio slow-tests-of-endpoint
slow-tests:
	$(PYTEST) -m slow $(patsubst %,--ignore=%,$(MEMORY) $(STUDIO) $(ENDPOINT))
slow-tests-of-studio:
	@$(call at_the_end,$(PYTEST) -m slow $(STUDIO))
slow-tests-of-endpoint:
	@$(call at_the_end,$(PYTEST) -m slow $(ENDPOINT))

check: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Not among the pins: it is a tool for who looks after them, and needs a network that reaches PyPI's or OSV's interface.
AUDIT ?= --vulnerability-service pypi
audit: setup  ## known vulnerabilities of the pinned packages
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/pip install -q pip-audit
	.venv/audit/bin/pip-audit --no-deps --disable-pip --requirement constraints.txt $(AUDIT)

serve: weights  ## the HTTP endpoint on this machine, with a trainer; Ctrl-C ends both
	@exec $(BIN)/python -m jobs serve

clean:  ## remove what the targets made
	rm -rf .venv out data/samples .mypy_cache .ruff_cache .pytest_cache
