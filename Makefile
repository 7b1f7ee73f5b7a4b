# carspotter: `make demo` and `make test` work on a fresh clone, with nothing but Python 3.11 and up.
PYTHON ?= python3
DATA ?= $(firstword $(wildcard $(CARSPOTTER_DATA) ../shared/stanford-cars))
PHOTO ?=
PORT ?= 8000

DEMO := .venv-demo
TEST := .venv-test

.DEFAULT_GOAL := help
.PHONY: help demo demo-data test check format clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

demo: $(if $(PHOTO),$(DEMO)/ready,$(DEMO)/serves) ## serve the page at http://127.0.0.1:8000/, or name the car on PHOTO=some.jpg
ifneq ($(PHOTO),)
	@$(DEMO)/bin/carspotter identify "$(PHOTO)"
else
	@$(DEMO)/bin/carspotter serve --port $(PORT) --log-level warning
endif

demo-data: $(DEMO)/reads-data ## name the cars on some pictures of the data set in DATA
	@test -n "$(DATA)" || { echo "no data set: make demo-data DATA=stanford-cars" >&2; false; }
	@$(DEMO)/bin/python scripts/demo.py "$(DATA)"

test: $(TEST)/ready ## lint, types and all tests, as CI runs them
	@$(MAKE) --no-print-directory check
	$(TEST)/bin/pytest -n auto --dist loadfile

check: $(TEST)/ready ## lint, types and architecture alone
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/mypy
	$(TEST)/bin/lint-imports

format: $(TEST)/ready ## bring the code into shape
	$(TEST)/bin/ruff check --fix .
	$(TEST)/bin/ruff format .

clean: ## remove the virtual environments and caches
	rm -rf .venv-demo .venv-test .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# pip that reads dependency groups came with 25.1.
$(DEMO)/ready: pyproject.toml
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/pip install -q --disable-pip-version-check -U 'pip>=25.1'
	$(DEMO)/bin/pip install -q -e .
	@touch $@

$(DEMO)/serves: $(DEMO)/ready
	$(DEMO)/bin/pip install -q -e '.[serve]'
	@touch $@

$(DEMO)/reads-data: $(DEMO)/ready
	$(DEMO)/bin/pip install -q --group demo
	@touch $@

$(TEST)/ready: pyproject.toml
	$(PYTHON) -m venv $(TEST)
	$(TEST)/bin/pip install -q --disable-pip-version-check -U 'pip>=25.1'
	$(TEST)/bin/pip install -q -e '.[serve,train,track,ray]' --group dev
	@touch $@
