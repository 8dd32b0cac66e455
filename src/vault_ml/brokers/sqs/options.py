"""What an operator may say about SQS. Credentials are AWS's own matter: variables, files, roles."""

from __future__ import annotations

from dataclasses import dataclass

# AWS hides a message this long at most, counted from its receipt, however often that is extended.
LONGEST_HIDDEN_S = 43_200


@dataclass(frozen=True, slots=True)
class SqsOptions:
    """How to reach the service and how long to hold what we work on.

    Attributes:
        endpoint_url: of another service than AWS itself; empty takes boto3's own choice.
        region: of the queues; empty takes boto3's own choice, or that of a queue's URL.
        visibility_s: how long a message is hidden from others, extended while it is in our hands.
            A worker that dies holds its messages this long.
        long_poll_s: how long a request for messages waits while we have nothing to do.
    """

    endpoint_url: str = ""
    region: str = ""
    visibility_s: int = 120
    long_poll_s: int = 20

    @property
    def where(self) -> str:
        """Names the service in a sentence."""
        if self.endpoint_url:
            return f"SQS at {self.endpoint_url}"
        return f"SQS in {self.region}" if self.region else "SQS"
