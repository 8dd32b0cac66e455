#!/usr/bin/env bash
# Builds the image for a CPU and runs the worker in it: ./run-cpu.sh
# Settings: the variables of this shell, or a file of them, ENV_FILE=worker.env ./run-cpu.sh
# With words after it, these run instead of the worker: ./run-cpu.sh demo --once
exec "$(dirname "$0")/docker/build-and-run.sh" cpu "$@"
