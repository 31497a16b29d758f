# Two commands: `make demo` and `make test`. Each makes .venv if there is none; plain pip is enough, uv is faster.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
# Processes that may not keep their bytecode compile torch anew at each start.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: demo test test-slow verify bench lint format clean

# Reinstalled when the dependencies change.
$(INSTALLED): pyproject.toml constraints.txt
	@if command -v uv >/dev/null 2>&1; then \
		test -d .venv || uv venv --quiet --python $(PYTHON) .venv; \
		uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'; \
	else \
		test -d .venv || $(PYTHON) -m venv .venv; \
		$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'; \
	fi
	@touch $@

demo: $(INSTALLED)
	$(BIN)/python train.py experiment=demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile

verify: $(INSTALLED)
	$(BIN)/python -m pytest -m verify

bench: $(INSTALLED)
	$(BIN)/python benchmarks/run_all.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
