#!/usr/bin/env bash
# Sets up everything and runs every check and test; says what was skipped and why.
#   REQUIRE_SHARED=1         a test whose data in ../shared is missing fails instead of skipping
#   REQUIRE_BROKERS=kafka    a test whose broker cannot be started fails instead of skipping
set -euo pipefail
cd "$(dirname "$0")"
scripts/setup.sh dev
exec make --no-print-directory check test test-connected
