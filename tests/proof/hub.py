"""A Hub that takes results and detections, and remembers when it took what."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from proof.history import VaultCall

CLOUD_KEY = "a-key-for-hub"
_ROUTES = {"/queue": "forward_hub", "/detections": "forward_detections"}


class EmbeddedHub:
    """Listens on the loopback interface; what it took is in `calls`, in the order it came."""

    def __init__(self) -> None:
        """Start it."""
        self.calls: list[VaultCall] = []
        calls = self.calls

        class Handler(_Handler):
            def took(self, call: VaultCall) -> None:
                calls.append(call)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30.0

    def took(self, call: VaultCall) -> None:
        raise NotImplementedError

    def do_POST(self) -> None:
        what = _ROUTES.get(self.path, "other")
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = str(body["mediaKey"] if what == "forward_detections" else _key_of(body))
        status = 200 if self.headers["X-Kerberos-Cloud-Key"] == CLOUD_KEY else 401
        self.took(VaultCall(time.time(), what, key, status))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:  # the way here broke
            self.close_connection = True
        except (ValueError, TypeError, KeyError):  # half a request; nothing was taken
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _key_of(body: dict[str, Any]) -> Any:
    return body["message"]["payload"]["key"]
