# Two commands on a fresh machine do everything: `make demo` and `make test`.
# Everything is installed into .venv; ONCE=1 lets the demo end by itself.

PYTHON ?= python3
# A machine with an NVIDIA GPU gets vLLM for it, any other the build for CPUs. `make demo GPU=` takes the CPU all the same, and so
# do the tests.
GPU := $(shell nvidia-smi -L >/dev/null 2>&1 && echo yes)
VENV := .venv$(if $(GPU),-gpu)
BIN := $(VENV)/bin
ENGINE := $(if $(GPU),engine,engine-cpu)
DEMO_CATALOG := deploy/catalogs/$(if $(GPU),gpu-demo,cpu-demo).yaml

# How long `make fuzz` takes.
SECONDS ?= 3600

# constraints.txt pins all that CI tests, which is the CPU build.
PIP := $(BIN)/python -m pip install --quiet $(if $(GPU),,--constraint constraints.txt)

.PHONY: help demo check test test-full manifests bench bench-path bench-beside bench-affinity bench-images train fuzz lock clean debian-tools linux

help:
	@echo 'make demo       install, serve two small models, and talk with them (ONCE=1: then end)'
	@echo 'make test       install, and run every test on the real stack'
	@echo 'make check      the tests that need no engine, the linters and the types: before every commit'
	@echo 'make test-full  the demo, then every test, also those of many minutes each'
	@echo 'make bench      what the gateway costs, beside nginx and vllm-router, and with its cache (25 minutes; wants two quiet cores)'
	@echo 'make bench-path what the gateway adds on the path to a real engine, while `fovea up` runs (two minutes; wants two quiet cores)'
	@echo 'make bench-beside  what a short request waits for beside streams, while `fovea up` runs (a minute)'
	@echo 'make bench-affinity  what it is worth that an image'"'"'s questions meet one replica, while `fovea up loadtest/two_replicas.yaml` runs'
	@echo 'make bench-images  what images cost the gateway, and what shrinking them saves an engine (five minutes)'
	@echo 'make train      train the demo models anew, into build/trained (two hours on two cores; goes on where it was ended)'
	@echo 'make fuzz       an hour of random bodies against the full parser (SECONDS=60: a minute)'
	@echo 'make manifests  write what is made from the chart and the code: its schema, its table of values, and k8s/'
	@echo 'make lock       write the versions of .venv into constraints.txt'

demo: linux $(VENV)/.demo
	$(BIN)/python -m deploy.demo.conversation --catalog $(DEMO_CATALOG) $(if $(ONCE),--once)

check: DEBIAN := redis-server
check: $(VENV)/.dev debian-tools
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest tests/unit tests/integration
	$(BIN)/pytest tests/chart

test: DEBIAN := curl wrk redis-server
test: linux debian-tools
	$(MAKE) GPU= all-tests

.PHONY: all-tests
all-tests: $(VENV)/.demo check build/json-schema-test-suite
	$(BIN)/pytest tests/images tests/engine
	$(BIN)/pytest tests/pods
	$(BIN)/pytest tests/e2e

test-full:
	$(MAKE) demo ONCE=1
	$(MAKE) test
	$(MAKE) GPU= long-tests

.PHONY: long-tests
long-tests: $(VENV)/.demo $(VENV)/.dev
	$(BIN)/pytest tests/full

# Tests hold the files to it: after a change of the chart, the catalog's types or the settings.
manifests: $(VENV)/.dev
	$(BIN)/python -m deploy.chart.schema
	$(BIN)/python -m deploy.chart.readme
	$(BIN)/python -m deploy.chart.plain

# Into a virtual environment of its own: nothing of it is wanted elsewhere, and Ray and vLLM are not wanted here.
BENCH := .venv-bench
bench: DEBIAN := nginx wrk redis-server
bench: linux debian-tools
	$(MAKE) VENV=$(BENCH) GPU= $(BENCH)/.bench
	$(BENCH)/bin/python -m loadtest.overhead $(BENCH_OPTIONS)

# It asks a `fovea up` that runs already, with what that was installed with.
bench-path:
	$(BIN)/python -m loadtest.path $(BENCH_OPTIONS)

# The same.
bench-beside:
	$(BIN)/python -m loadtest.beside $(BENCH_OPTIONS)

# The same: of several replicas.
bench-affinity:
	$(BIN)/python -m loadtest.affinity $(BENCH_OPTIONS)

# With what the CPU engines are installed with: it does the engine's work on images as vLLM does.
bench-images: linux $(VENV)/.demo $(VENV)/.dev
	PYTHONPATH=deploy/cpu_torch $(BIN)/python -m loadtest.images $(BENCH_OPTIONS)

# Whoever waits for another thread leaves its core to the process that draws.
train: linux $(VENV)/.demo $(VENV)/.dev
	OMP_WAIT_POLICY=PASSIVE PYTHONPATH=deploy/cpu_torch $(BIN)/python -m deploy.demo.train build/trained $(TRAIN_OPTIONS)

# Into one of its own as well. New inputs are kept in build/fuzz, and above all one that shows a fault.
FUZZ := .venv-fuzz
fuzz:
	$(MAKE) VENV=$(FUZZ) GPU= $(FUZZ)/.fuzz
	mkdir -p build/fuzz/new
	$(FUZZ)/bin/python -m tests.fuzz -max_total_time=$(SECONDS) -max_len=4096 -timeout=10 -dict=tests/fuzz/words.dict \
	  -artifact_prefix=build/fuzz/ build/fuzz/new tests/fuzz/corpus

# The official JSON-Schema-Test-Suite comes with the sources of the library jsonschema, by their digest.
build/json-schema-test-suite: tests/engine/json_schema_suite.txt | $(VENV)/.dev
	rm -rf $@ build/json-schema-sources && mkdir -p build
	$(BIN)/python -m pip download --quiet --no-deps --no-binary jsonschema --require-hashes -r $< -d build/json-schema-sources
	mkdir $@.new && tar -xzf build/json-schema-sources/*.tar.gz -C $@.new --strip-components=3 --wildcards '*/json/tests/draft2020-12'
	mv $@.new $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Fovea needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[dev]'
	touch $@

$(VENV)/.fuzz: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[fuzz]'
	touch $@

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo 'Installing Ray and vLLM ($(ENGINE)) into $(VENV): some 4 GB, a few minutes.'
	$(if $(GPU),,$(MAKE) --no-print-directory cpu-torch)
	$(PIP) --editable '.[$(ENGINE),demo]'
	touch $@

$(VENV)/.bench: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[bench]'
	touch $@

# vLLM for CPUs wants torch's CPU build. PyPI has none for Linux: unless pip is set up to find one, PyTorch's own index has.
.PHONY: cpu-torch
cpu-torch: TORCH := $(shell grep '^torch==' constraints.txt)
cpu-torch:
	$(PIP) '$(TORCH)' 2>/dev/null || $(PIP) --no-deps --index-url https://download.pytorch.org/whl/cpu '$(TORCH)'

# DEBIAN is what the target that asks for it uses of Debian. Its /usr/sbin is not on everybody's path.
debian-tools:
	@missing=; PATH="$$PATH:/usr/sbin"; for tool in $(DEBIAN); do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	if [ -n "$$missing" ]; then \
	  command -v apt-get >/dev/null || { echo "install$$missing first: this uses them"; exit 1; }; \
	  sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  $$sudo apt-get -qq update && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y $$missing >/dev/null; \
	fi

linux:
	@[ "$$(uname -s)" = Linux ] || { echo 'The engines run on Linux. On this machine `make check` works, and so does `fovea gateway`.'; exit 1; }

lock:
	$(BIN)/python -m pip freeze --exclude-editable | grep -vE '^(pip|setuptools)==' > constraints.txt

clean:
	rm -rf .venv .venv-gpu .venv-bench .venv-fuzz build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
