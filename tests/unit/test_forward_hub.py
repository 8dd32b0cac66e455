from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import pytest

from scripted_http import ScriptedServer, reply
from vault_ml.brokers.port import Message
from vault_ml.errors import RecordingRefused, SinkUnavailable
from vault_ml.event import parse
from vault_ml.sinks.forward_hub import ForwardDetections, ForwardToHubQueue, Hub
from vault_ml.sinks.port import Processed
from vault_ml.verdict import Verdict

KEY = "canary-cloud-key"


def processed(block: Mapping[str, Any] | None, *, is_interesting: bool = True) -> Processed:
    event = parse(b'{"source": "s", "payload": {"key": "u/a.mp4"}}')
    verdict = Verdict(1, "objects in one frame >= 1", is_interesting)
    message = Message(b'{"operation": "classify"}', None, {})
    return Processed(event, (), verdict, message, "run-1", {}, 0, None, block)


def test_the_result_and_the_detections_are_posted_with_the_key() -> None:
    take = reply(200, b"{}")
    with ScriptedServer({"POST /api/queue": take, "POST /api/detections": take}) as server:
        hub = Hub(f"{server.url}/api/", KEY)
        for sink in (ForwardToHubQueue(hub, "/queue"), ForwardDetections(hub, "/detections")):
            one = processed({"task": "detection", "tracks": []})
            assert sink.wants(one)
            sink.send(one)
        hub.close()
        asked = server.asks
    assert [(ask.method, ask.path) for ask in asked] == [
        ("POST", "/api/queue"),
        ("POST", "/api/detections"),
    ]
    assert {ask.headers["x-kerberos-cloud-key"] for ask in asked} == {KEY}
    assert json.loads(asked[0].body) == {"message": {"operation": "classify"}}
    assert json.loads(asked[1].body) == {
        "mediaKey": "u/a.mp4", "task": "detection", "tracks": [],
    }  # fmt: skip


def test_only_what_is_interesting_and_shows_something_is_posted() -> None:
    hub = cast("Hub", None)
    assert not ForwardToHubQueue(hub, "/").wants(processed({}, is_interesting=False))
    assert not ForwardDetections(hub, "/").wants(processed(None))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, SinkUnavailable),
        (403, SinkUnavailable),
        (429, SinkUnavailable),
        (503, SinkUnavailable),
        (302, RecordingRefused),
        (404, RecordingRefused),
        (400, RecordingRefused),
    ],
)
def test_nothing_but_success_is_a_confirmation(status: int, error: type[Exception]) -> None:
    with ScriptedServer({"POST /queue": reply(status, KEY.encode())}) as server:
        hub = Hub(server.url, KEY)
        with pytest.raises(error) as said:
            hub.post("/queue", b"{}")
        hub.close()
    assert KEY not in str(said.value)


def test_a_hub_that_is_away_is_waited_for() -> None:
    hub = Hub("http://127.0.0.1:9", KEY)
    with pytest.raises(SinkUnavailable, match="does not answer"):
        hub.post("/queue", b"{}")
    hub.close()
