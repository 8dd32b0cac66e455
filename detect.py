#!/usr/bin/env python3
"""Start the worker, as `python detect.py` did in the original; the same as `vault-ml run`."""

from __future__ import annotations

import sys

from vault_ml.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
