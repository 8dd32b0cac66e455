"""Kerberos Vault: the protocol and its client."""

from __future__ import annotations
