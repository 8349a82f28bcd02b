# make gifs | make lab | make page | make speedrun | make test: each sets up everything it needs first.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := $(shell sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements.lock)

.PHONY: setup gifs lab pictures page speedrun test lint clean

setup: .venv/stamp

# All by hash, and torch first: of several builds of one release (for the CPU, for CUDA) pip's configuration chooses,
# but pip that checks hashes prefers one whose hash an index states. The last step but one adds what that torch itself
# asks for, such as CUDA's packages, which the lock leaves out.
.venv/stamp: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "tinyddpm needs Python 3.10 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	rm -rf .venv/torch && $(PIP) download --quiet --no-deps --dest .venv/torch $(TORCH)
	$(PIP) hash .venv/torch/*.whl | grep -o 'sha256:.*' | grep -qFf - requirements.lock || \
	    { echo "requirements.lock does not know this build of torch: $$(ls .venv/torch); add its hash there"; exit 1; }
	$(PIP) install --quiet --no-deps .venv/torch/*.whl
	$(PIP) install --quiet --no-deps --require-hashes -r requirements.lock
	$(PIP) install --quiet $(TORCH)
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	rm -rf .venv/torch
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

# 60 seconds of one core, three times, and the judge: see SPEEDRUN.md.
speedrun: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/speedrun.py

pictures: setup
	PYTHONPATH=chapters $(BIN)/python docs/pictures.py

clean:
	rm -rf .venv gifs site
