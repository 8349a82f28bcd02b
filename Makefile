# make gifs | make lab | make page | make test: each sets up everything it needs first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup gifs lab page test lint clean

setup: .venv/stamp

# The lock is installed before the package: its torch decides which torch everything else gets.
.venv/stamp: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "tinyddpm needs Python 3.10 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

gifs: setup
	$(BIN)/tinyddpm gif --out gifs

lab: setup
	cd chapters && ../$(BIN)/jupyter lab

# A folder for any static server: docs/network.html with the network, and docs/index.html.
page: setup
	$(BIN)/python docs/export_network.py site
	@echo "Now $(BIN)/python -m http.server -d site, and open http://localhost:8000/network.html"

# One thread for each of the processes: more would only wait for each other.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadscope --nbval chapters

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy tinyddpm examples/typed_user.py

clean:
	rm -rf .venv gifs site
