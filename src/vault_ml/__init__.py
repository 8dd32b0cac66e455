"""vault-ml looks at recordings stored in Kerberos Vault and says what it saw.

The rooms of this package are the way of one recording; ARCHITECTURE.md draws it.
"""

from __future__ import annotations

__version__ = "0.1.0"
