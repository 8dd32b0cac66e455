"""The demo: the main job on real clips, with every part real and on this machine.

An embedded Kafka and an embedded Vault stand in for the operator's; the clips are uploaded as an
Agent uploads them; the worker is the ordinary `vault-ml run` in a process of its own.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vault_ml import event as events
from vault_ml.annotate import annotate_boxes, to_jpeg
from vault_ml.brokers.kafka import KafkaConsumer, KafkaOptions, KafkaProducer
from vault_ml.brokers.port import Message, Producer
from vault_ml.demo.clips import Clip
from vault_ml.demo.kafka_server import EmbeddedKafka
from vault_ml.demo.vault_server import EmbeddedVault
from vault_ml.demo.worker_process import WorkerProcess
from vault_ml.errors import UnavailableError, VaultMLError
from vault_ml.result import message_key
from vault_ml.telemetry.logs import Logger
from vault_ml.vault.client import VaultClient
from vault_ml.video.decoder_pool import DecoderPool
from vault_ml.video.limits import DecodeLimits
from vault_ml.video.sampling import Sampling

QUEUE, TARGET, DEAD_LETTERS = "ml-queue", "ml-results", "ml-queue.dlq"
_READY_S = 120.0
_RESULT_S = 120.0
# The size of the pictures that are decoded for people; the network's own size plays no part.
_ANY_NET_WH = (416, 416)


@dataclass(frozen=True, slots=True)
class Seen:
    """A result as it came off the target topic.

    Attributes:
        clip: what was uploaded.
        body: the result message.
        document: the same, decoded.
        pictures: annotated pictures that were written.
    """

    clip: Clip
    body: bytes
    document: dict[str, Any]
    pictures: tuple[Path, ...]


class Show:
    """The running demo."""

    def __init__(
        self,
        vault: EmbeddedVault,
        client: VaultClient,
        worker: WorkerProcess,
        results: KafkaConsumer,
        decoders: DecoderPool,
        pictures: Path | None,
        send: Callable[[bytes], None],
    ) -> None:
        """Use started parts; `stage` makes them."""
        self.vault = vault
        self.worker = worker
        self._send = send
        self._client = client
        self._results = results
        self._decoders = decoders
        self._pictures = pictures
        self._uploaded: dict[str, Clip] = {}

    def upload(self, clip: Clip) -> str:
        """Store a clip in the Vault, as an Agent does, and return its key."""
        now = time.time()
        key = key_of(clip, len(self._uploaded), now)
        self._uploaded[key] = clip  # before the result can come
        return upload(self._client, clip, len(self._uploaded) - 1, now)

    def announce(self, key: str) -> None:
        """Send the event of a stored clip once more."""
        self._send(self.vault.event(key))

    def next_result(self, timeout_s: float) -> Seen | None:
        """The next result off the target topic; None when none comes in time.

        Raises:
            VaultMLError: the worker ended.
        """
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            delivery = self._results.receive(min(0.5, left_s))
            if delivery is None:
                if not self.worker.is_alive():
                    raise VaultMLError("the worker ended; see its log above")
                continue
            delivery.ack()
            body = delivery.message.body
            document = json.loads(body)
            key = str(document["payload"]["key"])
            # Somebody may upload a clip of their own to the embedded Vault.
            clip = self._uploaded.get(key, Clip(key.rsplit("/", 1)[-1], Path(key)))
            return Seen(clip, body, document, self._draw(clip, document))
        return None

    def results_of(self, clips: Sequence[Clip]) -> Iterator[Seen]:
        """Upload the clips and yield a result for each, in the order they come.

        Raises:
            UnavailableError: a result does not come.
        """
        for clip in clips:
            self.upload(clip)
        for number in range(len(clips)):
            seen = self.next_result(_RESULT_S)
            if seen is None:
                raise UnavailableError(
                    f"{len(clips) - number} of {len(clips)} results did not come within "
                    f"{_RESULT_S:g} s; the worker's log above says why"
                )
            yield seen

    def _draw(self, clip: Clip, document: dict[str, Any]) -> tuple[Path, ...]:
        """Write a picture per frame with objects: decoded here anew, boxes from the message."""
        if self._pictures is None or not clip.path.is_file():
            return ()
        data = document["data"]
        run = data["run"]
        by_frame = {frame: at for at, frame in enumerate(run["frames"])}
        written = []
        fd = os.open(clip.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with self._decoders.decode(
                fd, frames=5, sampling=Sampling.KEYFRAME, net_wh=_ANY_NET_WH, keep_pictures=True
            ) as decoded:
                for frame in decoded.frames:
                    at = by_frame.get(frame.index)
                    if at is None:
                        continue
                    picture = annotate_boxes(
                        decoded.picture(frame.index),
                        data["boxes"][at],
                        data["labels"][at],
                        data["probabilities"][at],
                    )
                    path = self._pictures / f"{clip.camera}_{frame.timestamp_s:05.1f}s.jpg"
                    path.write_bytes(to_jpeg(picture))
                    written.append(path)
        finally:
            os.close(fd)
        return tuple(written)


@contextmanager
def stage(
    *,
    model: str | None,
    pictures: Path | None,
    log: Logger,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Show]:
    """Start everything and end it again; the folder of the embedded Vault goes with it.

    Args:
        model: as MODEL.
        pictures: where annotated pictures go; made. None writes none.
        log: of the embedded parts' clients.
        variables: more settings of the worker.

    Raises:
        VaultMLError: a part does not start; the sentence says which and why.
    """
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
    access_key, secret_key = secrets.token_urlsafe(12), secrets.token_urlsafe(24)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vault-ml-demo-")))
        kafka = stack.enter_context(EmbeddedKafka())
        for topic in (QUEUE, TARGET, DEAD_LETTERS):
            kafka.create_topic(topic)
        producer = KafkaProducer(KafkaOptions(kafka.bootstrap, "vault-ml-demo"), log=log)
        stack.callback(producer.close, 5.0)
        send = announce(producer, QUEUE)
        vault = EmbeddedVault(folder, access_key, secret_key, on_event=send)
        stack.enter_context(vault)
        worker = stack.enter_context(
            WorkerProcess(
                {
                    "QUEUE_SYSTEM": "KAFKA",
                    "QUEUE_NAME": QUEUE,
                    "QUEUE_TARGET": TARGET,
                    "KAFKA_BROKER": kafka.bootstrap,
                    "KAFKA_GROUP": "vault-ml-demo",
                    "VAULT_API_URL": vault.url,
                    "VAULT_ACCESS_KEY": access_key,
                    "VAULT_SECRET_KEY": secret_key,
                    "NUMBER_OF_PREDICTIONS": "5",
                    **(variables or {}),
                    **({"MODEL": model} if model else {}),
                }
            )
        )
        results = KafkaConsumer(
            KafkaOptions(kafka.bootstrap, "vault-ml-demo-viewer"), TARGET, log=log
        )
        stack.callback(results.close, 5.0)
        decoders = DecoderPool(1, DecodeLimits())
        stack.callback(decoders.close)
        client = stack.enter_context(VaultClient(vault.url, access_key, secret_key))
        worker.wait_until_ready(_READY_S)
        yield Show(vault, client, worker, results, decoders, pictures, send)


def key_of(clip: Clip, number: int, now: float) -> str:
    """The name that an Agent gives: time, milliseconds, camera, motion region, changes, length."""
    return f"demo/{int(now)}_3-{int(now * 1000) % 1000:03d}_{clip.camera}_0-0-0-0_-1_{number}.mp4"


def upload(client: VaultClient, clip: Clip, number: int, now: float | None = None) -> str:
    """Store a clip in the Vault, as an Agent does, and return its key."""
    now = time.time() if now is None else now
    key = key_of(clip, number, now)
    client.upload(
        clip.path, key, device=clip.camera, directory="demo", timestamp_ms=int(now * 1000)
    )
    return key


def announce(producer: Producer, queue: str) -> Callable[[bytes], None]:
    """What the Vault's Kafka integration does after an upload: the event goes to `queue`."""

    def on_event(body: bytes) -> None:
        key = message_key(events.parse(body), None)
        producer.publish(queue, Message(body, key), timeout_s=10.0)

    return on_event
