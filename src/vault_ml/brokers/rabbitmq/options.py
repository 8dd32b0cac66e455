"""What an operator may say about RabbitMQ, and the connection parameters that come of it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

import pika

from vault_ml.brokers.amqp_addresses import Address, parse_addresses
from vault_ml.errors import ConfigError

# How long a node may take to accept a connection, and to log us in.
_SOCKET_S = 3.0
_STACK_S = 6.0


@dataclass(frozen=True, slots=True)
class RabbitOptions:
    """How to reach RabbitMQ, who we are, and how patient it is.

    Attributes:
        host: `RABBITMQ_HOST`: `host`, `host:port` or `amqp(s)://host:port/vhost`, several
            separated by commas.
        username, password: the login. The password never shows in a repr.
        vhost: the virtual host; empty takes the one in `host`, or `/`.
        exchange: what results are published to; empty is the default exchange.
        dead_letter: the queue that a queue of ours hands its dead letters to.
        ca_file: certificates of the authorities that sign the server's, PEM; empty takes the
            machine's.
        heartbeat_s: offered to the broker; a dead peer is noticed within two of them.
        ack_timeout_s: the broker's `consumer_timeout`, seconds.
        delivery_limit: how often the broker delivers one message; 0 is without end, None unknown:
            then it is what the broker's version does by default.
        management_url: the management API, `http(s)://host:port`; empty asks nothing.

    Raises:
        ConfigError: the values contradict each other.
    """

    host: str
    username: str = "guest"
    password: str = field(default="guest", repr=False)
    vhost: str = ""
    exchange: str = ""
    dead_letter: str = ""
    ca_file: str = ""
    heartbeat_s: int = 30
    ack_timeout_s: float = 1800.0
    delivery_limit: int | None = None
    management_url: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot work, before anything connects."""
        in_address = self.addresses[0].vhost
        if self.vhost and in_address is not None and in_address != self.vhost:
            raise ConfigError(
                f"RABBITMQ_VHOST is {self.vhost!r}, but RABBITMQ_HOST ends with /{in_address}; "
                "name the virtual host once."
            )
        if self.ca_file and not Path(self.ca_file).is_file():
            raise ConfigError(f"RABBITMQ_CA_FILE: there is no file {self.ca_file}.")

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The nodes, in the order they are tried.

        Raises:
            ConfigError: RABBITMQ_HOST holds none.
        """
        try:
            return parse_addresses(self.host)
        except ValueError as error:
            raise ConfigError(f"RABBITMQ_HOST {error}.") from error

    @property
    def virtual_host(self) -> str:
        """The virtual host in force."""
        return self.vhost or self.addresses[0].vhost or "/"

    @property
    def where(self) -> str:
        """Names the broker in a sentence; holds no credential."""
        nodes = ",".join(str(address) for address in self.addresses)
        return f"RabbitMQ at {nodes}"

    def parameters(self, address: Address) -> pika.ConnectionParameters:
        """What pika needs to connect to one node, once.

        Raises:
            ConfigError: the certificates in `ca_file` cannot be read.
        """
        return pika.ConnectionParameters(
            host=address.host,
            port=address.port,
            virtual_host=self.virtual_host,
            # Sent as they are, in the login; they are never part of a URL.
            credentials=pika.PlainCredentials(self.username, self.password),
            ssl_options=self._tls(address) if address.tls else None,
            heartbeat=self.heartbeat_s,
            connection_attempts=1,
            socket_timeout=_SOCKET_S,
            stack_timeout=_STACK_S,
            blocked_connection_timeout=None,
            client_properties={"connection_name": "vault-ml", "product": "vault-ml"},
        )

    def _tls(self, address: Address) -> pika.SSLOptions:
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"RABBITMQ_CA_FILE: {self.ca_file} is not a file of certificates in PEM."
            ) from error
        return pika.SSLOptions(context, address.host)
