# `make up` and `make test` are all a newcomer needs; each sets itself up first. `make` alone lists the rest.
.DEFAULT_GOAL := help
.PHONY: help setup up down test test-unit check fmt bench fresh lock docs
BIN := .venv/bin
# Where this is set, every process and every test run would compile our modules anew: seconds each.
export PYTHONDONTWRITEBYTECODE :=

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1#\2/p' $(MAKEFILE_LIST) | awk -F'#' '{ printf "%-16s %s\n", $$1, $$2 }'

setup: ## make .venv and fetch the programs of the stack; PYTHON=... chooses the Python
	@sh deploy/local/setup.sh

up: setup ## start the whole local stack, and return when all of it is ready
	@$(BIN)/backstay up --detach

down: ## stop the local stack
	@if [ -x $(BIN)/backstay ]; then $(BIN)/backstay down; else echo "Nothing runs: this checkout was never set up."; fi

test: test-unit ## run every test: units, then the real suite, stack and browser; ARGS=... goes to pytest
	@$(BIN)/pytest -m "stack or suite or browser" $(ARGS)

test-unit: setup ## run the fast tests only, on every core
	@$(BIN)/pytest -m "not stack and not suite and not browser" --numprocesses=auto $(ARGS)

check: setup ## lint, format, types, and which package may import which
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fmt: setup ## mend what can be mended by machine
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: setup ## measure: requests a second, start time, memory, processor time
	@$(BIN)/python -m control_plane.local.bench

fresh: ## prove set-up, `make up` and `make test` on a bare Debian, as root and as a user; ARGS="--as user --until setup"
	@python3 deploy/local/fresh.py $(ARGS)

lock: setup ## pin what pyproject.toml asks for in requirements.txt; ARGS=--upgrade takes newer versions
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --custom-compile-command "make lock" --group checks --group setup \
		--output-file requirements.txt $(ARGS) pyproject.toml

docs: setup ## write the pages that are made from code: docs/settings.md
	@$(BIN)/python -m docs.settings > docs/settings.md
