from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from vault_ml.probe import ask, main


@contextmanager
def worker_page(status: int) -> Iterator[int]:
    """The port of a server that answers every request with `status`."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.path.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)], ids=["alive", "stalled"])
def test_says_whether_the_worker_is_alive(status: int, code: int) -> None:
    with worker_page(status) as port:
        assert main({"WEB_ADDRESS": f"127.0.0.1:{port}"}) == code


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "*", ""])
def test_asks_an_address_of_all_interfaces_on_loopback(host: str) -> None:
    with worker_page(200) as port:
        assert ask(f"{host}:{port}") == (200, "/healthz")


def test_a_worker_that_does_not_answer_is_not_alive(capsys: pytest.CaptureFixture[str]) -> None:
    with worker_page(200) as port:
        pass
    assert main({"WEB_ADDRESS": f"127.0.0.1:{port}"}) == 1
    assert "no answer" in capsys.readouterr().out
    assert main({"WEB_ADDRESS": "nonsense"}) == 1


def test_there_is_nothing_to_ask_where_the_page_is_off() -> None:
    assert main({"WEB_ADDRESS": "off"}) == 0
