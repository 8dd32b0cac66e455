"""What every test may use: the shared data, a clean environment, and an eye on secrets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from canaries import pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport", "shared_file"]

# A busy machine makes examples slow; a slow example is no wrong one.
settings.register_profile("vault-ml", deadline=None)
settings.load_profile("vault-ml")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared_file(relative: str) -> Path:
    """A file of the shared data; skips where it is absent, fails where it must be there."""
    path = SHARED / "data" / relative
    if not path.exists():
        reason = f"../shared/data/{relative} is not here"
        if os.environ.get("REQUIRE_SHARED") == "1":
            pytest.fail(f"{reason}, and REQUIRE_SHARED=1")
        pytest.skip(reason)
    return path


# What the worker reads from the environment. A developer's own variables must not steer a test.
_PREFIXES = (
    "QUEUE_", "KAFKA_", "RABBITMQ_", "OUTCOMES", "SQS_", "AWS_", "VAULT_", "STORAGE_", "KERBEROS_",
    "TARGET_QUEUE", "NUMBER_OF", "MAX_NUMBER", "FORWARDING_", "REMOVE_", "MOVE_", "MIN_",
    "MODEL", "CONFIDENCE_", "NMS_", "FRAME_", "PRECISION", "INPUT_SHAPE", "RUNTIME", "WORKER_",
    "RESULT_", "WEB_", "LOG_", "MESSAGE_", "RECORDING_", "RETRY_", "PRESET",
    "STATIC_", "ZONES", "HUB_",
    "ALLOWED_", "CLASSIFICATION_",
)  # fmt: skip


# Where the brokers of the `connected` tests are.
_OF_TESTS = ("KAFKA_TEST_", "RABBITMQ_TEST_", "SQS_TEST_")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the product leaks from the machine into a test."""
    for name in list(os.environ):
        if name.startswith(_PREFIXES) and not name.startswith(_OF_TESTS):
            monkeypatch.delenv(name)
    return
