"""Whether SQS would take messages away before we have tried them as often as we should."""

from __future__ import annotations

from vault_ml.brokers.queue_names import sqs_name
from vault_ml.brokers.sqs.queues import Queues
from vault_ml.errors import VaultMLError
from vault_ml.telemetry.log import Log

# Receipts that are no tries: a worker that stopped, was killed, or lost its hold.
_SPARE = 5


def warn_of_redrive(queues: Queues, queue: str, max_attempts: int, log: Log) -> None:
    """Say what the queue's redrive policy means for us, where it gets in our way.

    Raises:
        BrokerUnavailable: the service does not answer.
    """
    try:
        policy = queues.redrive_policy(queue)
    except VaultMLError as error:
        log.warning(
            "redrive_policy_unknown",
            queue=queue,
            reason=f"{error} If the queue moves messages to a dead-letter queue of its own, keep "
            f"its maxReceiveCount at {max_attempts + _SPARE} or more.",
        )
        return
    if policy is None or policy.max_receives >= max_attempts + _SPARE:
        return
    name = sqs_name(queue)
    if policy.max_receives < max_attempts:
        log.warning(
            "redrive_policy_too_short",
            queue=name,
            max_receive_count=policy.max_receives,
            reason=f"SQS moves an event from {name!r} to {policy.target!r} after "
            f"{policy.max_receives} receipts, but RETRY_MAX_ATTEMPTS is {max_attempts}: an event "
            "that keeps failing goes there without a reason, and our own dead letter is never "
            f"written. Raise maxReceiveCount to {max_attempts + _SPARE} or more, or lower "
            f"RETRY_MAX_ATTEMPTS to {max(1, policy.max_receives - _SPARE)}.",
        )
    else:
        log.info(
            "redrive_policy_tight",
            queue=name,
            max_receive_count=policy.max_receives,
            reason=f"SQS counts also what a stopping worker gives back; with maxReceiveCount "
            f"{policy.max_receives} an event may reach {policy.target!r} before its "
            f"{max_attempts} tries are over. {max_attempts + _SPARE} or more is safe.",
        )
