"""`python -m vault_ml` is `vault-ml`."""

from __future__ import annotations

from vault_ml.cli import main

if __name__ == "__main__":
    main()
