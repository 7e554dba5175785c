# make demo   set up and certify a bundled network on real images
# make test   set up and run the tests, the linter and the type checker
# make nightly   what takes hours: checks of everything with everything

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test nightly clean

demo: .venv/demo
	$(BIN)/krelax demo

test: .venv/test
	$(BIN)/ruff check src tests training benchmarks docs/figures.py docs/screenshots.py
	$(BIN)/ruff format --check src tests training benchmarks docs/figures.py docs/screenshots.py
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses 2 --dist loadfile

nightly: .venv/test
	$(BIN)/python -m tests.crossings.everything

.venv/demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/test: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@ .venv/demo

clean:
	rm -rf .venv
