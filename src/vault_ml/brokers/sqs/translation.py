"""Errors of boto3 -> ours, in one table.

Nothing of the service's own text is passed on: it may repeat a key id or a signed request.
"""

from __future__ import annotations

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    InvalidRegionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from botocore.parsers import ResponseParserError

from vault_ml.errors import BrokerUnavailable, ConfigError, CredentialsRejected, VaultMLError

# ValueError: of an address that is none.
FOREIGN = (BotoCoreError, ClientError, ResponseParserError, ValueError)

_NO_QUEUE = {"QueueDoesNotExist", "NonExistentQueue"}
_REFUSED = {
    "InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch",
    "InvalidAccessKeyId", "InvalidSignatureException", "IncompleteSignature",
    "MissingAuthenticationToken", "MissingAuthenticationTokenException", "AuthFailure",
    "InvalidSecurity", "NotAuthorized", "OptInRequired",
}  # fmt: skip
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_MAY_NOT = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "Forbidden"}
_THROTTLED = {
    "RequestThrottled", "Throttling", "ThrottlingException", "TooManyRequestsException",
    "KmsThrottled", "OverLimit", "SlowDown", "RequestLimitExceeded",
}  # fmt: skip
# A receipt that is worth nothing any more: expired, deleted, or the message went to another.
LEASE_GONE = {
    "ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue", "InvalidIdFormat",
}  # fmt: skip


def code_of(error: Exception) -> str:
    """The service's short name of an error, such as `QueueDoesNotExist`; empty for others."""
    if not isinstance(error, ClientError):
        return ""
    detail = error.response.get("Error", {})
    code = str(detail.get("QueryErrorCode") or detail.get("Code", ""))
    return code.rpartition(".")[2].rpartition("#")[2]


def is_no_queue(error: Exception) -> bool:
    """True when the service says that there is no such queue."""
    return code_of(error) in _NO_QUEUE


def no_sqs(where: str) -> BrokerUnavailable:
    """For an answer that boto3 takes for a good one, though nothing of SQS is in it.

    boto3 reads the greeting page of any web server as a success without content. A result that
    was "sent" to such a page would be lost.
    """
    return BrokerUnavailable(f"{where} answers, but not as SQS does; check SQS_ENDPOINT_URL.")


def translated(error: Exception, where: str, operation: str, queue: str) -> VaultMLError:
    """Our error for one of boto3's.

    Args:
        error: one of `FOREIGN`.
        where: names the service.
        operation: of the API, such as `SendMessage`; the IAM action has the same name.
        queue: the queue it was about.
    """
    if isinstance(error, ClientError):
        return _of_answer(error, where, operation, queue)
    if isinstance(error, BotoCoreError):
        return _of_library(error, where)
    if isinstance(error, ResponseParserError):
        return no_sqs(where)
    return ConfigError(f"{where} is no address that can be called; check SQS_ENDPOINT_URL.")


def _of_answer(error: ClientError, where: str, operation: str, queue: str) -> VaultMLError:
    code = code_of(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _REFUSED:
        return CredentialsRejected(
            f"{where} does not know our credentials ({code}); check AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or the role of this machine or pod."
        )
    if code in _EXPIRED:
        return CredentialsRejected(
            f"{where} says that our credentials have expired ({code}); renew AWS_SESSION_TOKEN "
            "and its keys, or use a role, and check this machine's clock."
        )
    if code in _MAY_NOT:
        return CredentialsRejected(
            f"{where} does not allow us sqs:{operation} on {queue!r}; add it to our IAM policy, "
            "or to the queue's own."
        )
    if code in _NO_QUEUE:
        return ConfigError(f"{where} has no queue {queue!r}; check its name, region and account.")
    if code.startswith("Kms") and code not in _THROTTLED:
        return ConfigError(
            f"{where} cannot use the key that {queue!r} is encrypted with ({code}); allow us "
            "kms:Decrypt and kms:GenerateDataKey on it."
        )
    if code in _THROTTLED or status == 429:
        return BrokerUnavailable(f"{where} asks us to be slower ({code}).")
    if not status or status >= 500 or code.startswith("Internal"):
        return BrokerUnavailable(f"{where} has trouble of its own ({code or status}).")
    return ConfigError(
        f"{where} refuses {operation} on {queue!r} ({code or status}); is it SQS that answers "
        "there, and is the queue in this region?"
    )


def _of_library(error: BotoCoreError, where: str) -> VaultMLError:
    match error:
        case NoRegionError():
            return ConfigError("AWS_REGION is not set; set it to the region of the queues.")
        case InvalidRegionError():
            return ConfigError("AWS_REGION is no region; set it to one such as eu-west-1.")
        case ProfileNotFound():
            return ConfigError("AWS_PROFILE names a profile that AWS's configuration has not.")
        case PartialCredentialsError():
            return CredentialsRejected(
                "AWS credentials are incomplete; set both AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY."
            )
        case NoCredentialsError():
            return CredentialsRejected(
                "No AWS credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "or give this machine or pod a role."
            )
        case UnauthorizedSSOTokenError() | TokenRetrievalError():
            return CredentialsRejected("The AWS login of this machine has expired; log in again.")
        case CredentialRetrievalError():
            return BrokerUnavailable("AWS's credential service does not answer us.")
        case SSLError():
            return BrokerUnavailable(
                f"{where} came to no TLS session with us; is the address https, and its authority "
                "known? AWS_CA_BUNDLE names one."
            )
        case ProxyConnectionError():
            return BrokerUnavailable(f"The proxy on the way to {where} does not answer.")
        case EndpointConnectionError():
            return BrokerUnavailable(
                f"{where} cannot be reached; is it running, and are SQS_ENDPOINT_URL and "
                "AWS_REGION right?"
            )
        case ConnectTimeoutError() | ReadTimeoutError():
            return BrokerUnavailable(f"{where} does not answer in time; is a firewall between us?")
    return BrokerUnavailable(f"{where} does not answer ({type(error).__name__}).")
