#!/usr/bin/env bash
# Writes requirements/*.txt anew: exact versions with hashes, for every platform and Python we support.
# Needs uv. Run it when pyproject.toml's dependencies change, or to take newer versions.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-uv}
compile=("$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command scripts/lock.sh)
# The larger list first: what is tested is what runs. (ministack wants one exact botocore.)
"${compile[@]}" "$@" pyproject.toml --extra all --extra dev -o requirements/dev.txt
"${compile[@]}" "$@" pyproject.toml --extra all -c requirements/dev.txt -o requirements/run.txt
# The GPU image: onnxruntime-gpu instead of onnxruntime, with NVIDIA's own packages for CUDA and cuDNN.
"${compile[@]}" "$@" pyproject.toml --extra gpu --extra kafka --extra sqs --extra rabbitmq --extra redis --extra tracing -c requirements/dev.txt -o requirements/run-gpu.txt
printf 'hatchling\neditables\nsetuptools\nwheel\n' | "${compile[@]}" "$@" - -o requirements/build.txt
