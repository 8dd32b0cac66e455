"""`python -m vault_ml.probe`: what a container's health check runs. 0 when the worker is alive.

Nothing but the standard library: it runs every few seconds, beside the work.
"""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Mapping

_ANSWER_WITHIN_S = 4.0
_DEFAULT_ADDRESS = "127.0.0.1:8080"
_ANY = frozenset({"0.0.0.0", "::", "*", ""})  # noqa: S104  # compared with, not listened on


def ask(address: str, path: str = "/healthz") -> tuple[int, str]:
    """Ask a worker's page.

    Args:
        address: WEB_ADDRESS, `host:port`; an address of all interfaces is asked on loopback.
        path: the page.

    Returns:
        HTTP status and body.

    Raises:
        OSError, http.client.HTTPException: nothing answers, or not in HTTP.
        ValueError: it is no address.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    connection = http.client.HTTPConnection(
        "127.0.0.1" if host in _ANY else host, int(port), timeout=_ANSWER_WITHIN_S
    )
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(65536).decode("utf-8", "replace").strip()
    finally:
        connection.close()


def main(environ: Mapping[str, str]) -> int:
    """Say what the worker says of itself; 0 when it is alive, or has no page to ask."""
    address = environ.get("WEB_ADDRESS", "").strip() or _DEFAULT_ADDRESS
    if address.lower() == "off":
        print("WEB_ADDRESS=off: there is no page to ask")  # noqa: T201
        return 0
    try:
        status, body = ask(address)
    except (OSError, http.client.HTTPException, ValueError) as error:
        print(f"no answer at {address}: {type(error).__name__}")  # noqa: T201
        return 1
    print(body)  # noqa: T201
    return 0 if status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main(os.environ))
