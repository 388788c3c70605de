# Two commands for a fresh clone: `make quickstart` and `make test`. Each makes its own environment
# under .venv/ with pip, and uses it again the next time. Variables: PYTHON, the interpreter to
# make environments with; TORCH, what pip is asked for where PyTorch is wanted; BACKENDS, what to
# test; PEERS_BACKEND, where `make test-peers` runs; PYTEST_FLAGS, such as `-n 0 -k costs`.

PYTHON ?= python3
TORCH ?= torch==2.13.0
BACKENDS ?= tensorflow jax torch
PEERS_BACKEND ?= $(word $(shell expr $$(date +%j) % 3 + 1),tensorflow jax torch)
PYTEST_FLAGS ?= -n auto --dist loadgroup --no-loadscope-reorder
PIP_FLAGS ?= --quiet --disable-pip-version-check

# Quiet logs; and one thread a process in the tests, of which there is one for each core: torch with
# spinning threads on busy cores is many times slower.
export TF_CPP_MIN_LOG_LEVEL ?= 3
test test-slow test-keras-faults test-peers test-xla test-without-tensorflow: export OMP_NUM_THREADS ?= 1

.DELETE_ON_ERROR:
.PHONY: quickstart test test-slow test-keras-faults test-peers test-xla test-without-tensorflow lint notebooks docs links dist clean help \
  check-python

help:
	@echo "make quickstart               a demo: a trained model, its tokens, fine-tuning, a SavedModel"
	@echo "make test                     the tests, on each of: $(BACKENDS)"
	@echo "make test-slow                thorough proofs: processes that share a training, runs that are killed"
	@echo "make test-keras-faults        faults of Keras that the package works around; one that fails is fixed"
	@echo "make test-peers               comparisons with timm, transformers and others, today on: $(PEERS_BACKEND)"
	@echo "make test-xla                 the conformance suite on jax, compiled as for users"
	@echo "make test-without-tensorflow  models build and train on jax and torch alone"
	@echo "make lint                     ruff, mypy and the word list of tests/prose.py"
	@echo "make notebooks                run the notebooks anew; NOTEBOOKS=tokens for one of them"
	@echo "make docs                     the documentation, in site/html/; make links checks its addresses"
	@echo "make dist                     wheel and source archive, the wheel tried on: $(BACKENDS)"
	@echo "make clean                    remove the environments and what the quickstart made"

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed. Install it, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "Python's venv module is missing. On Debian and Ubuntu: apt install python3-venv"; exit 1; }

# Makes the environment of $@. $(1) lists the arguments of each run of pip, in quotes.
define install
	@echo "Making the environment $(@D) (a few minutes, once) ..."
	@$(PYTHON) -m venv --clear $(@D)
	@for wanted in $(1); do echo "Installing $$wanted ..."; \
	  $(@D)/bin/python -m pip install $(PIP_FLAGS) $$wanted || { \
	  echo "pip could not install $$wanted: see its message above, check the network, and run make again."; \
	  exit 1; }; done
	@touch $@
endef

# PyTorch comes first, so that what TORCH names is what the package finds.
QUICKSTART := --editable=.[tensorflow,cli,plot]
TEST := --editable=.[tensorflow,jax,torch,dev]
NO_TENSORFLOW := --editable=.[jax,torch,dev]
# Without dependencies, because some replace PyTorch or add a second TensorFlow.
PEERS := --editable=.[formats] flax grain huggingface_hub kagglehub kagglesdk regex sentencepiece sphinx tokenizers
PEERS_ALONE := keras-core keras-cv==0.9.0 keras-hub keras-nlp tensorflow-serving-api tensorflow-text timm torchvision \
  transformers tritonclient
DOCS := --editable=.[tensorflow,jax,torch,dev,docs]

.venv/quickstart/ready: pyproject.toml | check-python
	$(call install,"$(QUICKSTART)")

.venv/test/ready: pyproject.toml | check-python
	$(call install,"$(TORCH)" "$(TEST)")

.venv/no-tensorflow/ready: pyproject.toml | check-python
	$(call install,"$(TORCH)" "$(NO_TENSORFLOW)")

.venv/peers/ready: pyproject.toml | check-python
	$(call install,"$(TORCH)" "$(TEST)" "$(PEERS)" "--no-deps $(PEERS_ALONE)")

.venv/docs/ready: pyproject.toml | check-python
	$(call install,"$(TORCH)" "$(DOCS)")

quickstart: .venv/quickstart/ready
	@KERAS_BACKEND=tensorflow .venv/quickstart/bin/keras-tokenlearner quickstart

test: .venv/test/ready
	@set -e; for backend in $(BACKENDS); do echo "== tests on $$backend"; \
	  KERAS_BACKEND=$$backend .venv/test/bin/python -m pytest --backends "$(BACKENDS)" \
	    $(PYTEST_FLAGS); done

test-slow: .venv/test/ready
	@set -e; for backend in $(BACKENDS); do echo "== slow tests on $$backend"; \
	  KERAS_BACKEND=$$backend .venv/test/bin/python -m pytest -m slow -n 0; done

test-keras-faults: .venv/test/ready
	@set -e; for backend in $(BACKENDS); do echo "== faults of Keras on $$backend"; \
	  KERAS_BACKEND=$$backend .venv/test/bin/python -m pytest -m nightly -n 0; done

test-peers: .venv/peers/ready
	@echo "== tests against other libraries, on $(PEERS_BACKEND)"
	@KERAS_BACKEND=$(PEERS_BACKEND) .venv/peers/bin/python -m pytest -m peers $(PYTEST_FLAGS)

# tests/conftest.py lowers XLA's optimization in all other tests.
test-xla: .venv/test/ready
	@echo "== conformance on jax with XLA's default optimization"
	@KERAS_BACKEND=jax XLA_FLAGS= .venv/test/bin/python -m pytest $(PYTEST_FLAGS) tests/test_conformance.py

test-without-tensorflow: .venv/no-tensorflow/ready
	@set -e; for backend in jax torch; do echo "== without TensorFlow, on $$backend"; \
	  KERAS_BACKEND=$$backend .venv/no-tensorflow/bin/python -m pytest tests/test_without_tensorflow.py; done

lint: .venv/test/ready
	@.venv/test/bin/ruff check . && .venv/test/bin/ruff format --check . && .venv/test/bin/mypy
	@.venv/test/bin/python -m tests.prose

notebooks: .venv/docs/ready
	@.venv/docs/bin/python notebooks/make.py $(NOTEBOOKS)

# A warning is an error; so are links between pages that lead nowhere.
docs: .venv/docs/ready
	@rm -rf site docs/api
	@KERAS_BACKEND=torch .venv/docs/bin/python -m sphinx -c docs --fail-on-warning --quiet . site/html
	@echo "See site/html/index.html, or: python3 -m http.server --directory site/html"

# Those inside the site are checked by `docs`, above.
links: docs
	@if .venv/docs/bin/python -c 'import socket; socket.getaddrinfo("github.com", 443)' 2>/dev/null; then \
	  KERAS_BACKEND=torch .venv/docs/bin/python -m sphinx -c docs -b linkcheck --quiet . site/links; \
	else echo "No network: the links inside the site are right, the addresses outside were not asked."; fi

dist: .venv/test/ready
	@rm -rf build dist && .venv/test/bin/python -m build
	@$(PYTHON) -m venv --clear .venv/wheel
	@.venv/wheel/bin/python -m pip install $(PIP_FLAGS) $(TORCH) "$$(ls dist/*.whl)[tensorflow,jax,torch,cli]"
	@set -e; cd .venv/wheel; for backend in $(BACKENDS); do echo "== the wheel on $$backend"; \
	  KERAS_BACKEND=$$backend bin/python ../../tests/wheel.py && bin/keras-tokenlearner models 'vit_*'; done

clean:
	rm -rf .venv quickstart build dist site docs/api
