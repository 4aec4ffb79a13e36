PYTHON ?= python3
BIN := .venv/bin
TORCH_FLAG := $(if $(TORCH),--torch-backend $(TORCH),)
SOURCES := meleewm schemas ingest store service training tests benchmarks

.PHONY: help setup check fix fast test demo bench lock docs ci clean

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: .venv/ok ## make .venv with everything (TORCH=cpu for a Linux machine without a GPU)

# One recipe for users, developers and CI. uv is ten times faster than pip; pip stands in where uv
# cannot reach the index (private mirrors that only pip.conf knows).
.venv/ok: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (PYTHON=...)"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "install python3-venv first (Debian: apt-get install python3-venv)"; exit 1; }
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt uv
	UV_FIND_LINKS="$${PIP_FIND_LINKS:-$$($(BIN)/pip config get global.find-links 2>/dev/null)}" \
	  $(BIN)/uv pip install -q --python $(BIN)/python $(TORCH_FLAG) \
	  -c constraints.txt --build-constraints constraints.txt -e '.[all,dev]' \
	|| $(BIN)/pip install -q -c constraints.txt -e '.[all,dev]'
	@touch $@

check: .venv/ok ## format, lint, types, import contracts
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: .venv/ok ## format and mend what can be mended by itself
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

fast: .venv/ok ## the tests that take under 5 s each
	$(BIN)/python -m pytest -q -m 'not slow'

test: .venv/ok ## the whole suite
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

demo: .venv/ok ## replays to a dreamed rollout in a few minutes (REPLAYS=dir for your own)
	$(BIN)/python -m meleewm.demo

bench: .venv/ok ## every figure of benchmarks/RESULTS.md beside its baseline
	$(BIN)/python -m benchmarks

docs: .venv/ok ## write docs/data.md and docs/cli.md anew
	$(BIN)/python -m tests.generate_docs

lock: .venv/ok ## resolve constraints.txt anew
	printf 'torch==2.13.0\n' > .venv/torch.pin
	$(BIN)/uv pip compile -q pyproject.toml --extra all --extra dev --universal --no-emit-index-url \
	  --no-emit-find-links --no-annotate --no-header -c .venv/torch.pin -o constraints.txt

ci: ## what CI runs
	bash .ci/run

clean: ## remove what the commands here made
	rm -rf .venv .cache demo runs
