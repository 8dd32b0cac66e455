# The front door for developers. `make help` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: help setup demo check format test test-fast test-connected golden proof fuzz bench bench-loops bench-engines bench-decoding bench-start bench-worker bench-tracking bench-sampling bench-transactions docs build lock

help: ## List what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 22

setup: ## Make .venv with everything in it
	@scripts/setup.sh dev

demo: ## The main job on real recordings, on this machine
	@./run-demo.sh

check: setup ## Format, lint, types, layers, spelling, generated documents
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/python scripts/generate_docs.py --check

format: setup ## Put the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: setup ## Every test that needs no broker of its own, with coverage
	$(BIN)/coverage erase
	$(PYTEST) -m 'not connected' -n 2 --dist worksteal --cov --cov-report=
	$(BIN)/coverage report --fail-under=80
	$(BIN)/coverage report --fail-under=100 --include='$(PURE_ROOMS)'

# Rooms without clock, file, network, thread or log (ARCHITECTURE.md): tested without doubles.
PURE_ROOMS := */vault_ml/errors.py,*/vault_ml/event.py,*/vault_ml/geometry.py,*/vault_ml/detection.py,*/vault_ml/vault/protocol.py,*/vault_ml/vault/addresses.py,*/vault_ml/video/frame.py,*/vault_ml/video/sampling.py,*/vault_ml/video/adaptive.py,*/vault_ml/yolo/*.py,*/vault_ml/detector.py,*/vault_ml/agreement.py,*/vault_ml/tracking/*.py,*/vault_ml/interest/*.py,*/vault_ml/scene/standing.py,*/vault_ml/scene/recall.py,*/vault_ml/hub/*.py,*/vault_ml/verdict.py,*/vault_ml/sizing.py,*/vault_ml/result.py,*/vault_ml/run_id.py,*/vault_ml/brokers/offsets.py

test-fast: setup ## The tests that take less than a minute together
	$(PYTEST) -m 'not slow and not connected' -q

# Most of these tests wait, so the brokers stand side by side, each lane with a server of its own
# (tests/connected/conftest.py). Without `-n` they stand one after the other.
CONNECTED ?= tests/connected
test-connected: setup ## Tests against real brokers, which it starts and stops (Kafka: Java 17 and Maven; RabbitMQ: Debian's package)
	$(PYTEST) -m connected -n 4 --dist loadgroup $(CONNECTED)

golden: setup ## Write the golden files anew; read the difference before you commit it
	UPDATE_GOLDEN=1 $(PYTEST) tests/golden -q

proof: setup ## Faults from seeds against real brokers; LONG=1 is the long run that writes PROOF.md
	cd tests && ../$(BIN)/python -m proof $(if $(LONG),--long)

fuzz: setup ## Ten thousand damaged recordings: frames or a reason, never a death or a hang
	PYTHONPATH=tests $(BIN)/python -m fuzz.campaign --count 10000

# The figures of docs/reference/performance.md, as JSON too; on two processors two hours.
BENCH := build/bench
BENCHMARK := PYTHONPATH=tests $(BIN)/python -m benchmarks
# YOLOv3-608 is measured with random weights: speed does not depend on them. Only its .cfg is needed.
YOLOV3_CFG ?= $(wildcard ../shared/data/models/yolov3-tiny/yolov3.cfg)
bench: bench-loops bench-engines bench-decoding bench-start bench-worker bench-tracking ## All of speed, side by side: about two hours on two processors

bench-loops: setup ## Ours against the loops that everybody writes first, on six kinds of clips
	mkdir -p $(BENCH)
	$(BENCHMARK) --json $(BENCH)/tiny.json
	$(if $(YOLOV3_CFG),$(BENCHMARK) --quick --random --model $(YOLOV3_CFG) --json $(BENCH)/yolov3.json)
	$(BENCHMARK).chart $(BENCH)/*.json > docs/images/bench.svg

bench-engines: setup ## The network alone, beside every combination of runtime and threads, and darknet in C
	$(BENCHMARK).engines
	$(if $(YOLOV3_CFG),$(BENCHMARK).engines --random --model $(YOLOV3_CFG) --seconds 8)

bench-decoding: setup ## Five frames of a recording, against OpenCV reading all
	$(BENCHMARK).decoding

bench-start: setup ## Start, stop, and what a recording costs besides fetching, decoding and the network
	$(BENCHMARK).start

bench-tracking: setup ## What following 50 objects costs per frame, beside a plain IoU tracker
	$(BENCHMARK).tracking

bench-worker: setup ## How much of what the processors could do the worker does, and whether its memory grows
	$(BENCHMARK).worker
	$(if $(YOLOV3_CFG),$(BENCHMARK).worker --random --model $(YOLOV3_CFG) --seconds 60)
	$(BENCHMARK).memory

bench-sampling: setup ## How many brief events are seen with so many frames
	$(BENCHMARK).sampling

bench-transactions: setup ## What KAFKA_TRANSACTIONS costs, on Apache Kafka (Java 17 and Maven)
	$(BENCHMARK).transactions

docs: setup ## Write the generated documents anew
	$(BIN)/python scripts/generate_docs.py

build: setup ## The wheel and the source archive, into dist/
	$(BIN)/python -m build --no-isolation

lock: ## Write requirements/*.txt anew (needs uv)
	scripts/lock.sh
