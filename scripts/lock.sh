#!/usr/bin/env bash
# Writes requirements/*.txt anew: exact versions with hashes, for every platform and Python we support.
# Needs uv. Run it when pyproject.toml's dependencies change, or to take newer versions.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-uv}
compile=("$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command scripts/lock.sh)
"${compile[@]}" "$@" pyproject.toml --extra all -o requirements/run.txt
"${compile[@]}" "$@" pyproject.toml --extra all --extra dev -c requirements/run.txt -o requirements/dev.txt
printf 'hatchling\neditables\nsetuptools\nwheel\n' | "${compile[@]}" "$@" - -o requirements/build.txt
