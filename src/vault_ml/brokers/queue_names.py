"""What may be the name of a queue: SQS takes a name or a URL, and is strict about both."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

FIFO = ".fifo"
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.fifo)?")
_LONGEST = 80  # characters, `.fifo` included; AWS, CreateQueue


def is_url(queue: str) -> bool:
    """True for a queue that is given by its URL.

    >>> is_url("https://sqs.eu-west-1.amazonaws.com/123456789012/ml-queue")
    True
    >>> is_url("ml-queue")
    False
    """
    return queue.lower().startswith(("http://", "https://"))


def sqs_name(queue: str) -> str:
    """The name of a queue that is given by its name or its URL.

    >>> sqs_name("https://sqs.eu-west-1.amazonaws.com/123456789012/ml-queue.fifo")
    'ml-queue.fifo'
    """
    return urlsplit(queue).path.rstrip("/").rpartition("/")[2] if is_url(queue) else queue


def is_fifo(queue: str) -> bool:
    """True for a queue in strict order; AWS tells them by the end of their name."""
    return sqs_name(queue).endswith(FIFO)


def sqs_problem(queue: str) -> str | None:
    """Why this cannot be an SQS queue, to follow the name of a variable; None when it can.

    >>> sqs_problem("ml.results")
    'must be letters, digits, - and _, at most 80 of them, with .fifo at the end for a FIFO queue'
    """
    if is_url(queue):
        parts = urlsplit(queue)
        if "@" in parts.netloc or parts.query or parts.fragment:
            return "must be the plain URL of the queue, without user, ? or #"
    name = sqs_name(queue)
    if len(name) > _LONGEST or not _NAME.fullmatch(name):
        return (
            f"must be letters, digits, - and _, at most {_LONGEST} of them, with {FIFO} at the "
            "end for a FIFO queue"
        )
    return None
