"""Every error this package raises on purpose, and what the worker does about each.

VaultMLError
├── ConfigError               us: stop with one sentence, exit 2
│   ├── ModelError
│   └── CredentialsRejected
├── UnavailableError          a dependency is away: pause receiving, burn no attempt
│   ├── VaultUnavailable
│   ├── BrokerUnavailable
│   ├── SinkUnavailable
│   ├── DetectorUnavailable
│   ├── OutcomesUnavailable   the exception: work goes on without (ADR 10)
│   └── SceneUnavailable      the same: work goes on without
├── RetryableError            this event, later, with capped attempts
│   ├── RecordingNotFound
│   ├── RecordingIncomplete
│   ├── RecordingEncrypted
│   ├── SignedUrlExpired
│   └── DecoderFailed
└── PoisonError               this event will never work: dead letter now
    ├── MalformedEvent
    ├── UndecodableRecording
    ├── RecordingTooLarge
    ├── RecordingRefused
    ├── AddressRefused
    └── MessageTooLarge

The docstring of a class is its default message, so every error has a sentence a person can read.
Foreign exceptions become one of these at the adapter that meets them, with `raise ... from`.
Anything else is a bug: it is logged with a traceback, retried once, then dead-lettered.
"""

from __future__ import annotations


class VaultMLError(Exception):
    """Something went wrong in vault-ml."""

    def __init__(self, message: str | None = None) -> None:
        """Use `message`, or the first line of the class docstring when there is none."""
        doc = (type(self).__doc__ or "").strip()
        super().__init__(message or doc.split("\n", 1)[0])


class ConfigError(VaultMLError):
    """The configuration cannot work; change it and start again."""


class ModelError(ConfigError):
    """The model cannot be loaded."""


class CredentialsRejected(ConfigError):
    """The other side rejected our credentials."""


class UnavailableError(VaultMLError):
    """A dependency is away; receiving pauses until it is back."""

    def __init__(self, message: str | None = None, *, retry_after_s: float | None = None) -> None:
        """Keep the other side's wish for when to come back, where it gave one (seconds)."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class VaultUnavailable(UnavailableError):
    """Kerberos Vault does not answer."""


class BrokerUnavailable(UnavailableError):
    """The broker does not answer."""


class SinkUnavailable(UnavailableError):
    """The place that results are forwarded to does not answer."""


class DetectorUnavailable(UnavailableError):
    """The detector process died or is stuck; it is being replaced."""


class OutcomesUnavailable(UnavailableError):
    """The store of finished runs does not answer; work goes on without it."""


class SceneUnavailable(UnavailableError):
    """The memory of what stands at the cameras does not answer; work goes on without it."""


class RetryableError(VaultMLError):
    """This event failed for now; it is tried again later."""

    def __init__(
        self,
        message: str | None = None,
        *,
        patience_s: float = 0.0,
        max_attempts: int | None = None,
    ) -> None:
        """Say how long to try.

        Args:
            message: a sentence.
            patience_s: until the event is this old, a try burns no attempt: waiting may be all it
                takes.
            max_attempts: tries that make sense, where that is fewer than usual.
        """
        super().__init__(message)
        self.patience_s = patience_s
        self.max_attempts = max_attempts


class RecordingNotFound(RetryableError):
    """Kerberos Vault does not have this recording (yet)."""


class RecordingIncomplete(RetryableError):
    """The recording arrived cut off."""

    def __init__(
        self,
        message: str | None = None,
        *,
        patience_s: float = 0.0,
        max_attempts: int | None = None,
        is_broken_off: bool = False,
    ) -> None:
        """`is_broken_off` says that its transfer ended too early, and not the recording."""
        super().__init__(message, patience_s=patience_s, max_attempts=max_attempts)
        self.is_broken_off = is_broken_off


class RecordingEncrypted(RetryableError):
    """The recording is encrypted and no key of RECORDING_KEYS fits."""


class SignedUrlExpired(RetryableError):
    """The signed URL of the recording has expired."""


class DecoderFailed(RetryableError):
    """The decoder process died or was killed while it worked on this recording."""


class PoisonError(VaultMLError):
    """This event can never be processed."""


class MalformedEvent(PoisonError):
    """The event is not one that Kerberos Vault sends."""


class UndecodableRecording(PoisonError):
    """No frame of this recording can be decoded."""


class RecordingTooLarge(PoisonError):
    """The recording exceeds a limit."""


class RecordingRefused(PoisonError):
    """Kerberos Vault knows our credentials but refuses this recording to us."""


class AddressRefused(PoisonError):
    """The event names an address that will not be called."""


class MessageTooLarge(PoisonError):
    """The broker refuses a message of this size."""
