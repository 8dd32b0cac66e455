"""Amazon SQS, and what speaks its protocol, through boto3.

`options` is the configuration, `clients` makes boto3's clients and `translation` their errors
ours, `connection` says how the service is doing, `queues` finds and makes queues, `envelope` is
what a message looks like in SQS, `leases` keeps what is in our hands invisible to others,
`consumer` and `producer` are the two halves of the port.

Raises:
    ConfigError: on import, when boto3 is not installed.
"""

from __future__ import annotations

from vault_ml.errors import ConfigError

try:
    import boto3 as _boto3
except ImportError as error:
    raise ConfigError(
        "QUEUE_SYSTEM=SQS needs the package boto3: pip install 'vault-ml[sqs]'"
    ) from error

from vault_ml.brokers.sqs.consumer import SqsConsumer
from vault_ml.brokers.sqs.options import SqsOptions
from vault_ml.brokers.sqs.producer import SqsProducer

__all__ = ["SqsConsumer", "SqsOptions", "SqsProducer"]

BOTO3_VERSION: str = _boto3.__version__
