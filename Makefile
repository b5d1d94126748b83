.DEFAULT_GOAL := help
.PHONY: help install up demo test fuzz-stream check coverage fix lock clean

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

help: ## Print this message
	@awk -F ':.*## ' '/^[a-z%-]+:.*## /{printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY) ## Make .venv ready, start nothing

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "butterbase needs Python 3.11 or newer; set PYTHON=python3.x")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet "$$(grep -o '^uv==[^ ]*' requirements.lock)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

up: install ## Start everything (ARGS="--port 54321"); Ctrl-C stops it
	@$(BIN)/butterbase up $(ARGS)

demo: install ## Run the main job end to end, step by step
	@$(BIN)/butterbase demo $(ARGS)

test: install ## Run the tests (ARGS="-k rest")
	$(BIN)/pytest -n auto $(ARGS)

fuzz-stream: install ## Kill the stream 100 times; compare 2,000 random policies with SELECT (SEED=7)
	@seed=$${SEED:-$$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')}; echo "SEED=$$seed"; \
	BUTTERBASE_FUZZ_SEED=$$seed BUTTERBASE_FUZZ_ROUNDS=100 \
		$(BIN)/pytest -n 0 -s tests/scenarios/test_stream_killed.py $(ARGS) && \
	BUTTERBASE_FUZZ_ROUNDS=20 \
		$(BIN)/pytest -n 0 -s tests/scenarios/test_stuck_projection.py $(ARGS) && \
	BUTTERBASE_FUZZ_SEED=$$seed BUTTERBASE_FUZZ_ROUNDS=2000 \
		$(BIN)/pytest -n 0 -s tests/realtime/changes/test_oracle.py $(ARGS)

check: install ## What CI runs: lint, format, import rules, types, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/pytest -n auto $(ARGS)

coverage: install ## Run the tests, and tell which lines they leave out
	$(BIN)/pytest -n auto --cov --cov-report=term:skip-covered $(ARGS)

bench-%: install ## Run bench/NAME.py, e.g. make bench-rest (ARGS="--json out.json")
	$(BIN)/python bench/$*.py $(ARGS)

fix: install ## Format and apply safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: install ## Resolve requirements.lock anew
	$(BIN)/uv pip compile --quiet pyproject.toml --all-extras --group bench --group dev --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--upgrade --custom-compile-command "make lock" --output-file requirements.lock

clean: ## Remove .venv (the data in .butterbase stays)
	rm -rf .venv
