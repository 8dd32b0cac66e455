"""Whatever a message is, SQS takes its envelope and gives it back unchanged."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("boto3")

from vault_ml.brokers.port import Message
from vault_ml.brokers.sqs.envelope import from_sqs, to_sqs

if TYPE_CHECKING:
    from vault_ml.brokers.sqs.envelope import Envelope

# Source: AWS, SQS API Reference, SendMessage; written down apart from the code under test.
ALLOWED = re.compile("[\x09\x0a\x0d\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")
GROUP = re.compile(r"""[A-Za-z0-9!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]{1,128}""")
NAME = re.compile(r"[A-Za-z0-9_\-.]{1,256}")

texts = st.text(st.characters(codec="utf-8"), max_size=30)
bodies = st.one_of(st.binary(max_size=200), texts.map(str.encode))
keys = st.one_of(st.none(), st.binary(max_size=200), st.text("abc-.~ ").map(str.encode))
names = st.one_of(
    texts,
    st.text("abAB_-.", min_size=1, max_size=8),
    st.sampled_from(
        ["vault-ml.body", "vault-ml.key", "vault-ml.headers", "AWS.trace", "amazon.x",
         "vault-ml-run-id", "vault-ml-dead-lettered-at"]
    ),
)  # fmt: skip
messages = st.builds(Message, bodies, keys, st.dictionaries(names, texts, max_size=14))


def received(envelope: Envelope) -> Any:
    """What ReceiveMessage makes of an envelope."""
    about = {"ApproximateReceiveCount": "1"}
    if "MessageGroupId" in envelope:
        about["MessageGroupId"] = envelope["MessageGroupId"]
    return {
        "Body": envelope["MessageBody"],
        "MessageAttributes": envelope.get("MessageAttributes", {}),
        "Attributes": about,
    }


@given(messages, st.booleans())
def test_every_message_comes_back_unchanged(message: Message, fifo: bool) -> None:
    back = from_sqs(received(to_sqs(message, fifo=fifo)))
    assert (back.body, back.key) == (message.body, message.key)
    assert dict(back.headers) == dict(message.headers)


@given(messages, st.booleans())
def test_every_envelope_is_one_that_aws_takes(message: Message, fifo: bool) -> None:
    envelope = to_sqs(message, fifo=fifo)
    assert ALLOWED.fullmatch(envelope["MessageBody"])
    attributes = envelope.get("MessageAttributes", {})
    assert len(attributes) <= 10
    for name, value in attributes.items():
        assert NAME.fullmatch(name)
        assert not name.lower().startswith(("aws.", "amazon."))
        assert ".." not in name
        assert name.strip(".") == name
        if value["DataType"] == "String":
            assert ALLOWED.fullmatch(value["StringValue"])
        else:
            assert value["DataType"] == "Binary"
            assert value["BinaryValue"]
    if fifo:
        assert GROUP.fullmatch(envelope["MessageGroupId"])
        assert GROUP.fullmatch(envelope["MessageDeduplicationId"])
    else:
        assert not {"MessageGroupId", "MessageDeduplicationId"} & envelope.keys()


@given(bodies, st.binary(min_size=1, max_size=200))
def test_messages_of_one_key_are_one_group_and_others_are_not(body: bytes, key: bytes) -> None:
    def group(of: bytes | None) -> str:
        return to_sqs(Message(body, of), fifo=True)["MessageGroupId"]

    assert group(key) == group(key)
    assert group(key) != group(key + b"x")
    assert group(None) != group(None)
    assert group(group(None).encode()) != group(None)
