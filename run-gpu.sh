#!/usr/bin/env bash
# Builds the image for an NVIDIA GPU and runs the worker in it: ./run-gpu.sh
# Settings: the variables of this shell, or a file of them, ENV_FILE=worker.env ./run-gpu.sh
# With words after it, these run instead of the worker: ./run-gpu.sh demo --once
exec "$(dirname "$0")/docker/build-and-run.sh" gpu "$@"
