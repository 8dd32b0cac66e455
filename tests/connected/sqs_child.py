"""A consumer in a process of its own, to be killed: `sqs_child.py ENDPOINT QUEUE VISIBILITY_S`."""

from __future__ import annotations

import sys
import time

from vault_ml.brokers.sqs import SqsConsumer, SqsOptions
from vault_ml.telemetry.logs import configure


def main(endpoint: str, queue: str, visibility_s: str) -> None:
    options = SqsOptions(endpoint, "us-east-1", int(visibility_s))
    consumer = SqsConsumer(options, queue, log=configure("json", "INFO"))
    while (delivery := consumer.receive(1)) is None:
        pass
    print(delivery.id, flush=True)
    time.sleep(600)


main(*sys.argv[1:])
