# make demo   set up and certify a bundled network on real images
# make test   set up and run the tests, the linter and the type checker
# make docs   set up and build the documentation as a site, in docs/_build/html
# make coverage   set up and say what the tests cover, which takes twice as long as they do
# make nightly   set up and run the random tests at length, which takes hours

PYTHON ?= python3
BIN := .venv/bin
# most modules of what is installed are never imported: those that are get compiled then
INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
CHECKED := src tests training benchmarks docs/conf.py docs/figures.py docs/screenshots.py

# tests start many processes, each of which would compile every module anew
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test docs coverage nightly clean

demo: .venv/demo
	$(BIN)/krelax demo

test: .venv/test
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/mypy >.venv/mypy.txt 2>&1 & \
	$(BIN)/python -m krelax.lanes.ready && $(BIN)/pytest --numprocesses 2 --dist worksteal; tests=$$?; \
	wait $$!; types=$$?; cat .venv/mypy.txt; exit $$((tests + types))

docs: .venv/docs
	mkdir -p docs/_build/extra
	$(BIN)/krelax explore --export docs/_build/extra/explorer.html
	$(BIN)/sphinx-build --fail-on-warning --keep-going -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

coverage: .venv/test
	$(BIN)/coverage erase
	rm -rf .venv/compiled  # kernels are compiled once more, where what writes machine code is measured
	NUMBA_CACHE_DIR=$(CURDIR)/.venv/compiled $(BIN)/coverage run -m krelax.lanes.ready
	$(BIN)/python -m krelax.lanes.ready
	$(BIN)/coverage run -m pytest --numprocesses 2 --dist worksteal
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage json --quiet -o .venv/coverage.json
	$(BIN)/python -m tests.covered .venv/coverage.json

nightly: .venv/test
	$(BIN)/python benchmarks/baseline.py
	$(BIN)/pytest --numprocesses 2 --dist worksteal -m slow
	$(BIN)/python -m tests.fuzz.bounds --count 100000
	$(BIN)/python -W ignore -m tests.fuzz.nightly --graphs 20000 --mutations 20000 --executions 5000 --functions 5000 --reals 5000 --coupled 5000
	$(BIN)/python -m tests.crossings.everything
	$(BIN)/python -m tests.certificate.agreement 5000 100000

.venv/demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) -e .
	touch $@

.venv/test: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) -e '.[test]'
	touch $@ .venv/demo

.venv/docs: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) -e '.[docs]'
	touch $@ .venv/demo

clean:
	rm -rf .venv docs/_build
