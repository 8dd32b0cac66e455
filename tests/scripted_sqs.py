"""An SQS that says on each operation what a test wants: errors, nothing, nonsense."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from scripted_http import Ask, Line, Route, ScriptedServer, head

Answer = Callable[[dict[str, Any]], "tuple[int, dict[str, Any]]"]
"""What is asked -> status and body."""


def ok(**body: Any) -> Answer:
    return lambda asked: (200, body)


def refusing(code: str, status: int = 400, text: str = "canary-of-the-service") -> Answer:
    return lambda asked: (status, {"__type": f"com.amazonaws.sqs#{code}", "message": text})


def all_done(asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """A batch of which every entry went through."""
    return 200, {"Successful": [{"Id": entry["Id"]} for entry in asked["Entries"]]}


def all_failed(code: str, *, sender: bool = True) -> Answer:
    """A batch of which no entry did."""
    return lambda asked: (
        200,
        {
            "Successful": [],
            "Failed": [
                {"Id": entry["Id"], "Code": code, "SenderFault": sender, "Message": "canary"}
                for entry in asked["Entries"]
            ],
        },
    )


def in_turn(*answers: Answer) -> Answer:
    """The first time the first, and so on; the last one for ever."""
    left = list(answers)
    return lambda asked: (left.pop(0) if len(left) > 1 else left[0])(asked)


def message(body: str = "{}", *, receives: int = 1, message_id: str = "m-1") -> dict[str, Any]:
    return {
        "MessageId": message_id,
        "ReceiptHandle": f"receipt-{uuid.uuid4().hex}",
        "Body": body,
        "Attributes": {
            "ApproximateReceiveCount": str(receives),
            "ApproximateFirstReceiveTimestamp": "1700000000000",
        },
    }


class ScriptedSqs(ScriptedServer):
    """Has one queue, `q`, with nothing in it, until a test says otherwise."""

    def __init__(self, answers: Mapping[str, Answer | Route] | None = None) -> None:
        super().__init__({"POST /": self._answer})
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Any] = {
            "GetQueueUrl": ok(QueueUrl="http://elsewhere.invalid/000000000000/q"),
            "GetQueueAttributes": ok(Attributes={}),
            "ReceiveMessage": ok(),
            "SendMessage": ok(MessageId="m-1"),
            "DeleteMessageBatch": all_done,
            "ChangeMessageVisibilityBatch": all_done,
            **(answers or {}),
        }

    def count(self, operation: str) -> int:
        return sum(name == operation for name, _ in self.asked)

    def visibilities(self) -> list[int]:
        """Every visibility that was asked for, in order."""
        return [
            entry["VisibilityTimeout"]
            for name, asked in self.asked
            if name == "ChangeMessageVisibilityBatch"
            for entry in asked["Entries"]
        ]

    def _answer(self, ask: Ask, line: Line) -> None:
        operation = ask.headers.get("x-amz-target", "").rpartition(".")[2]
        asked = json.loads(ask.body or b"{}")
        self.asked.append((operation, asked))
        answer = self.answers[operation]
        if getattr(answer, "is_route", False):
            answer(ask, line)
            return
        status, body = answer(asked)
        if operation == "ReceiveMessage" and not body.get("Messages"):
            line.wait(min(asked.get("WaitTimeSeconds", 0), 0.05))
        content = json.dumps(body).encode()
        named = {"Content-Length": str(len(content)), "Content-Type": "application/x-amz-json-1.0"}
        line.send(head(status, named) + content)


def as_route(route: Route) -> Route:
    """An answer that is not JSON: writes to the socket itself."""

    def wrapped(ask: Ask, line: Line) -> None:
        route(ask, line)

    wrapped.is_route = True  # type: ignore[attr-defined]  # a mark of ours
    return wrapped
