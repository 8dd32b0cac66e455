"""`python -m vault_ml.demo.feed`: an embedded Vault beside a worker, fed with clips for ever.

What docker-compose.yaml runs to show a worker on a Kafka of its own. The Vault listens on loopback
only, so this shares its network with the worker.
"""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from vault_ml import settings
from vault_ml.brokers_for import broker_for
from vault_ml.demo.clips import sample_clips
from vault_ml.demo.show import announce, upload
from vault_ml.demo.vault_server import EmbeddedVault
from vault_ml.errors import BrokerUnavailable
from vault_ml.telemetry.logs import configure
from vault_ml.vault.client import VaultClient

_EVERY_S = 10.0
_PING_S = 10.0


def feed(environ: Mapping[str, str], stop: threading.Event) -> None:
    """Upload a clip every ten seconds until `stop` is set.

    The settings are the worker's: its broker and queue, and of VAULT_API_URL the port and the keys.

    Raises:
        ConfigError: a setting is missing, or there are no clips.
    """
    chosen = settings.load(environ)
    log = configure(chosen.log_format, chosen.log_level)
    access_key, secret_key = chosen.vault_access_key, chosen.vault_secret_key
    assert access_key is not None
    assert secret_key is not None
    keys = access_key.get_secret_value(), secret_key.get_secret_value()
    clips = sample_clips(None)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vault-ml-feed-")))
        producer = broker_for(chosen, log).producer()
        stack.callback(producer.close, _PING_S)
        while not stop.is_set():
            try:
                producer.ping(_PING_S)
                break
            except BrokerUnavailable as error:
                log.info("feed_waiting", reason=str(error))
                stop.wait(1.0)
        vault = EmbeddedVault(
            folder,
            *keys,
            port=_port(chosen.vault_api_url or ""),
            on_event=announce(producer, chosen.queue_name),
        )
        stack.enter_context(vault)
        client = stack.enter_context(VaultClient(vault.url, *keys))
        log.info("feed_started", address=vault.url, clips=len(clips))
        for number, clip in enumerate(itertools.cycle(clips)):
            if stop.is_set():
                return
            key = upload(client, clip, number)
            log.info("clip_uploaded", key=key)
            stop.wait(_EVERY_S)


def _port(url: str) -> int:
    return int(url.rstrip("/").rpartition(":")[2])


def main() -> None:
    """Feed until SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    feed(os.environ, stop)


if __name__ == "__main__":
    main()
