"""What the other tests of the pure rooms only pass through."""

from __future__ import annotations

from vault_ml.brokers.offsets import FinishedPrefix
from vault_ml.errors import RetryableError
from vault_ml.vault.addresses import Origins


def test_unfinished_counts_what_was_received_and_not_finished() -> None:
    prefix = FinishedPrefix()
    for offset in (3, 4, 5):
        prefix.receive(offset)
    prefix.finish(4)
    assert (prefix.unfinished, prefix.window) == (2, 3)


def test_retryable_error_tells_how_long_to_be_patient() -> None:
    error = RetryableError("not yet", patience_s=60.0, max_attempts=2)
    assert (str(error), error.patience_s, error.max_attempts) == ("not yet", 60.0, 2)


def test_origins_are_written_as_they_are_set() -> None:
    for text in ("*", "https://*.example.com", "https://vault.example.com"):
        assert str(Origins.parse([text])) == text
    assert str(Origins.parse([])) == "none"
