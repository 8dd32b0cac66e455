#!/usr/bin/env bash
# Sets up everything and shows the main job on real recordings: no container, no account.
# Words after it go to `vault-ml demo`, for example: ./run-demo.sh --once --json
set -euo pipefail
cd "$(dirname "$0")"
scripts/setup.sh run
exec .venv/bin/vault-ml demo "$@"
