"""A queue on each broker, and the variables that bring the product there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from connected.apache_kafka_system import ApacheKafkaSystem
from connected.gate import Gate
from connected.rabbitmq_system import RabbitSystem
from connected.sqs_system import REGION, SqsSystem
from contract.browser_contract import BrowserSystem
from vault_ml.brokers.dead_letter import dead_letter_name

EVERY_BROKER = ("KAFKA", "SQS", "SQS FIFO", "RABBITMQ")


@dataclass
class Office:
    """A queue, its dead letters, and how to get there."""

    system: BrowserSystem
    queue: str
    kind: str
    variables: dict[str, str]
    keeps_order: bool

    @property
    def dead(self) -> str:
        return dead_letter_name(self.queue, self.kind)


def office_of(name: str, request: pytest.FixtureRequest) -> Office:
    """An office on one of `EVERY_BROKER`."""
    make: dict[str, Callable[[], Office]] = {
        "KAFKA": lambda: kafka_office(request.getfixturevalue("kafka_system")),
        "SQS": lambda: sqs_office(request.getfixturevalue("sqs_system")),
        "SQS FIFO": lambda: sqs_office(request.getfixturevalue("sqs_fifo_system")),
        "RABBITMQ": lambda: rabbit_office(request.getfixturevalue("rabbit_system")),
    }
    return make[name]()


def kafka_office(system: ApacheKafkaSystem) -> Office:
    options = system.options()
    variables = {
        "KAFKA_BROKER": options.brokers,
        "KAFKA_SECURITY": options.security,
        "KAFKA_MECHANISM": options.mechanism,
        "KAFKA_USERNAME": options.username,
        "KAFKA_PASSWORD": options.password,
        "KAFKA_OPTIONS": json.dumps(dict(options.extra)) if options.extra else "",
    }
    return Office(system, system.new_queue(), "KAFKA", variables, keeps_order=True)


def sqs_office(system: SqsSystem) -> Office:
    credentials = {name: text for name, text in os.environ.items() if name.startswith("AWS_")}
    variables = {**credentials, "SQS_ENDPOINT_URL": system.endpoint, "AWS_REGION": REGION}
    return Office(system, system.new_queue(), "SQS", variables, keeps_order=False)


def rabbit_office(system: RabbitSystem) -> Office:
    options = system.options()
    variables = {
        "RABBITMQ_HOST": options.host,
        "RABBITMQ_USERNAME": options.username,
        "RABBITMQ_PASSWORD": options.password,
        "RABBITMQ_VHOST": options.vhost,
    }
    return Office(system, system.new_queue(), "RABBITMQ", variables, keeps_order=True)


@dataclass
class Door:
    """Between the worker under test and its broker: shut, there is an outage."""

    shut: Callable[[], None]
    open: Callable[[], None]
    close: Callable[[], None] = lambda: None


def door_of(office: Office) -> Door:
    """An outage for the asking; `office.variables` lead through it.

    Kafka tells its clients its own address, so there it is the server that is killed.
    """
    system = office.system
    if isinstance(system, RabbitSystem):
        host, _, port = system.address.host.rpartition(":")
        if host != "127.0.0.1":
            pytest.skip("RABBITMQ_TEST_HOST names a broker that is not on this machine")
        gate = Gate(int(port))
        office.variables["RABBITMQ_HOST"] = gate.address
        return Door(gate.shut, gate.open, gate.shut)
    if not system.can_go_down:
        pytest.skip("this broker is not ours to stop")
    return Door(system.set_down, system.set_up)
