# Everything runs from .venv, which `make install` builds from requirements.lock; a fresh machine needs python3 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements.lock
PEERS := .venv-peers
FRAMEWORKS := .venv-frameworks
RAW ?=
# Where bytecode may not be written, each of the hundreds of processes that tests start compiles our packages again.
UNHINDERED := PYTHONDONTWRITEBYTECODE=
# One more than two cores have room for: tests wait, for servers, clocks and disks, a sixth of the time.
TEST_PROCESSES ?= 3

.DEFAULT_GOAL := help
.PHONY: help install demo gallery test test-frameworks schemathesis proofs check bench bench-service bench-transfer bench-reading bench-end-to-end bench-training bench-peers format lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed  ## make .venv: locked dependencies and both distributions, editable

$(VENV)/.installed: $(LOCK) pyproject.toml dataset_handlers/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "python3 cannot make virtual environments; on Debian: apt-get install python3-venv"; exit 1; }
	@awk '/^uv==/ { own = 1 } own { print; if (!/\\$$/) exit }' $(LOCK) > $(VENV)/uv.txt  # the lock's own lines for uv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $(VENV)/uv.txt
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes --requirement $(LOCK)
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable . --editable ./dataset_handlers
	@touch $@

demo: install  ## serve, request, train, show: two datasets from start to finish (RAW=DIR uses your own raw data)
	$(BIN)/python -m examples.demo $(if $(RAW),--raw-root $(RAW))

test: install  ## run every test, but for those of PyTorch, JAX and MLflow
	$(UNHINDERED) $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

test-frameworks: $(FRAMEWORKS)/.installed  ## run the tests that need PyTorch, JAX or MLflow, which `make test` skips (gigabytes)
	$(FRAMEWORKS)/bin/python -m pytest -n 2 --dist loadfile tests/client/test_torch_reader.py tests/client/test_keras_reader.py tests/client/test_readers_agree.py tests/e2e/test_stream_torch.py tests/e2e/test_stream_docs.py tests/training/test_models.py tests/training/test_models_references.py tests/training/test_models_torch_weights.py tests/training/test_models_encoders.py tests/training/test_losses_reference.py tests/training/test_metrics_reference.py tests/training/test_ranks.py tests/training/test_trackers.py
	for backend in torch jax; do KERAS_BACKEND=$$backend $(FRAMEWORKS)/bin/python -m pytest tests/training/test_trainer.py tests/training/test_data.py || exit 1; done

# The lock first, then whatever torch, JAX and MLflow add to it; they would be gigabytes of everybody's .venv.
# PySODMetrics without what it wants: its bound on NumPy is below the lock, which works all the same.
$(FRAMEWORKS)/.installed: $(LOCK) pyproject.toml dataset_handlers/pyproject.toml
	$(PYTHON) -m venv $(FRAMEWORKS)
	$(FRAMEWORKS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $(LOCK)
	$(FRAMEWORKS)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 keras jax torchmetrics mlflow
	$(FRAMEWORKS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps pysodmetrics
	$(FRAMEWORKS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . --editable ./dataset_handlers
	@touch $@

schemathesis: install  ## fuzz the whole API by its OpenAPI document: 10,000 cases or more (CASES=N for another number)
	$(BIN)/python -m tests.server.fuzzing --cases $(or $(CASES),10000)

proofs: install  ## break the server and the client, and break in, in all ways we know; hours on two cores (POINTS=N kills, CASES=N)
	@status=0; \
	$(BIN)/python -m tests.proofs faults --points $(or $(POINTS),200) --report docs/reports/faults.md || status=1; \
	$(BIN)/python -m tests.proofs client --points $(or $(POINTS),100) --report docs/reports/client.md || status=1; \
	$(BIN)/python -m tests.proofs intrusion --cases $(or $(CASES),10000) --report docs/reports/intrusion.md || status=1; \
	exit $$status

check: install  ## what CI checks besides the tests: formatting, lint, types, layering
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

gallery: install  ## contact sheets of every handler, for the docs (RAW=DIR: of your own raw data, in demo-output/gallery)
	$(BIN)/python -m examples.gallery $(if $(RAW),--raw-root $(RAW))

bench: install  ## measure preparation; RAW=DIR holds COCO folders; against the peers, too, after `make bench-peers`
	$(BIN)/python -m benchmarks.preparation --raw-root $(or $(RAW),$(error RAW=DIR is needed)) $(if $(wildcard $(PEERS)/.installed),--peers $(PEERS)/bin/python)

bench-service: install  ## measure the server: cached requests, 2,000 sockets, downloads against nginx, 100,000 datasets
	$(BIN)/python -m benchmarks.service

bench-transfer: install  ## measure downloads: against curl, over an emulated link (as root), and through faults
	$(BIN)/python -m benchmarks.transfer

bench-reading: install  ## measure the readers; RAW=DIR holds COCO folders; against the peers, too, after `make bench-peers`
	$(BIN)/python -m benchmarks.reading --raw-root $(or $(RAW),$(error RAW=DIR is needed)) $(if $(wildcard $(PEERS)/.installed),--peers $(PEERS)/bin/python) $(if $(TORCH),--torch $(TORCH))

bench-end-to-end: install  ## measure what comes first: a batch, a trained epoch, the client itself; RAW=DIR holds COCO folders
	$(BIN)/python -m benchmarks.end_to_end $(if $(RAW),--raw-root $(RAW))

bench-training: install  ## measure steps of training; against PyTorch, too, with TORCH=PYTHON that has it; RAW=DIR: waiting for data
	$(BIN)/python -m benchmarks.training $(if $(TORCH),--torch $(TORCH)) $(if $(RAW),--raw-root $(RAW))

bench-peers: $(PEERS)/.installed  ## make .venv-peers with the projects we compare with (gigabytes)

# torch first and by pip: the peers need any CPU build of it.
$(PEERS)/.installed: benchmarks/peers/requirements.txt | install
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement benchmarks/peers/requirements.txt
	@touch $@

format: install  ## format and fix what can be fixed by machine
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: install  ## resolve all dependencies again, hashes and no addresses
	cd dataset_handlers && ../$(BIN)/uv pip compile --quiet --upgrade $(COMPILE) pyproject.toml --output-file requirements.lock
	$(BIN)/uv pip compile --quiet --upgrade $(COMPILE) --constraint dataset_handlers/requirements.lock --extra dev --no-emit-package dataset-handlers pyproject.toml --output-file $(LOCK)

COMPILE := --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links

clean:  ## remove what can be made again
	rm -rf $(VENV) $(PEERS) $(FRAMEWORKS) build dataset_handlers/build *.egg-info dataset_handlers/*.egg-info .mypy_cache .ruff_cache .pytest_cache
