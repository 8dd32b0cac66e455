"""The way of one recording, from event to result message (steps 3 to 6 of the design).

Straight down: recording, frames, detections, tracks, verdict, result. The collaborators are passed
in and shared by all recordings in flight; nothing here is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

from vault_ml import __version__
from vault_ml.brokers.port import Message
from vault_ml.detector_process import DetectorProcess
from vault_ml.errors import RecordingIncomplete
from vault_ml.event import RecordingEvent
from vault_ml.failpoints import reach
from vault_ml.file_name import motion_box
from vault_ml.interest.judging import Interest
from vault_ml.interest.motion_region import apart
from vault_ml.models.prepare import PreparedModel
from vault_ml.outage import Outages
from vault_ml.result import (
    LookedAtFrame,
    ResultOptions,
    Run,
    RunModel,
    RunRecording,
    block_of,
    build_result,
    choice_of,
    message_headers,
    message_key,
)
from vault_ml.run_id import WayOfLooking, run_id
from vault_ml.scene.memory import SceneMemory
from vault_ml.sinks.port import Processed
from vault_ml.telemetry.metrics import Metrics
from vault_ml.telemetry.tracing import NO_TRACE, Trace
from vault_ml.tracking.following import follow
from vault_ml.tracking.track import Track
from vault_ml.vault.client import Opened, VaultClient
from vault_ml.vault.clients import Lease, VaultClients
from vault_ml.vault.encrypted import RecordingKeys
from vault_ml.vault.growth import Growth
from vault_ml.verdict import Rules, Verdict, judge
from vault_ml.video.decoder_pool import DecodedRecording, DecoderPool
from vault_ml.video.sampling import Sampling

_BEGUN_AGAIN = 2  # so often, when a transfer broke off, before it costs the event a try


@dataclass(slots=True)
class Progress:
    """Where one recording is now, and how long it spent where it was.

    Attributes:
        stage: the room it is in; a log line or a dead letter names it when it fails there.
        seconds: time spent per room so far.
        key: the recording's name, once the event was understood.
        trace: told of the rooms, too, once the event was understood.
    """

    stage: str = "receive"
    seconds: dict[str, float] = field(default_factory=dict)
    key: str | None = None
    trace: Trace = NO_TRACE

    @contextmanager
    def room(self, name: str) -> Iterator[None]:
        """Be in a room; the time counts also when it ends with an error."""
        self.stage = name
        with self.counted_as(name), self.trace.room(name):
            yield

    @contextmanager
    def counted_as(self, name: str) -> Iterator[None]:
        """Take the time as that room's, wherever we are: what is left to do of one gone through."""
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self.seconds[name] = self.seconds.get(name, 0.0) + spent


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """How recordings are looked at.

    Attributes:
        frames: how many frames of a recording, at most.
        sampling: which.
        frames_per_s: with `Sampling.FPS`, how many frames of each second.
        confidence_threshold, nms_threshold: as the detector has them, for the result.
        rules: what makes a recording interesting.
        interest: what of all that is seen is of interest.
        more: of what a result depends on, what the other attributes do not tell (`run_id`).
        result: what the result message holds.
        keys: of encrypted recordings.
        ranges_from_bytes: recordings from this size on are fetched by ranges; None fetches all
            recordings whole.
        rect: network inputs as small as the frames' shapes allow, instead of one square.
        runtime: what stands for the runtime in run ids; None for what really runs.
        uses_motion_region: only what touches the event's motion region counts, where it has one.
        growth_patience_s: how long a recording that is shorter than its event says may grow.
    """

    frames: int
    sampling: Sampling
    confidence_threshold: float
    nms_threshold: float
    rules: Rules
    interest: Interest
    result: ResultOptions
    frames_per_s: float | None = None
    more: tuple[tuple[str, str], ...] = ()
    keys: RecordingKeys = field(default_factory=RecordingKeys)
    ranges_from_bytes: int | None = None
    rect: bool = False
    runtime: str | None = None
    growth_patience_s: float = 300.0
    uses_motion_region: bool = False


class Pipeline:
    """Looks at recordings, any number of threads at once."""

    def __init__(
        self,
        vaults: VaultClients,
        decoders: DecoderPool,
        detector: DetectorProcess,
        model: PreparedModel,
        outages: Outages,
        options: PipelineOptions,
        *,
        metrics: Metrics,
        scene: SceneMemory | None = None,
    ) -> None:
        """Wire it; the collaborators are started by whoever made them.

        `scene` remembers what stands at the cameras; None knows nothing of earlier recordings.
        """
        self._scene = scene
        self._vaults = vaults
        self._decoders = decoders
        self._detector = detector
        self._model = model
        self._outages = outages
        self._options = options
        self._metrics = metrics
        self._growth = Growth(options.growth_patience_s)

    def run_id(self, event: RecordingEvent) -> str:
        """The id of the run that `process` would make; known before anything is fetched."""
        return run_id(event.key, event.source, self._way_of_looking())

    def process(self, event: RecordingEvent, message: Message, progress: Progress) -> Processed:
        """Look at the event's recording.

        Args:
            event: what is asked.
            message: the message it came in, for its key and headers.
            progress: told where we are.

        Raises:
            RetryableError, PoisonError: this recording's trouble.
            Stopping: the worker stops while a dependency is away.
        """
        with self._vaults.lease(event.storage) as lease:
            # 3 fetch, 4 decode: together, because a recording may be fetched as it is decoded
            decoded, recording = self._outages.patiently(
                "vault",
                lambda: lease.run(lambda vault: self._decode_whole(vault, lease, event, progress)),
                probe=lease.vault.ping if lease.is_own else None,
            )
        # 5 detect
        with decoded:
            reach("decode.after")
            looked_at = self._detect(decoded, progress)
            with progress.counted_as("decode"):  # the pictures' memory goes back, page by page
                decoded.close()
        # 6 judge
        with progress.room("judge"):
            verdict = self._judge(event, looked_at)
            return self._result(event, message, recording, looked_at, verdict, progress)

    def _decode_whole(
        self, vault: VaultClient, lease: Lease, event: RecordingEvent, progress: Progress
    ) -> tuple[DecodedRecording, _Fetched]:
        """Begin again at once when the transfer broke off: that is the way's trouble.

        Only what breaks off again and again costs the event a try; where the broker counts every
        delivery as one, an event may have no other left.
        """
        for _ in range(_BEGUN_AGAIN):
            try:
                return self._decode(vault, lease, event, progress)
            except RecordingIncomplete as error:
                if not error.is_broken_off:
                    raise
        return self._decode(vault, lease, event, progress)

    def _decode(
        self, vault: VaultClient, lease: Lease, event: RecordingEvent, progress: Progress
    ) -> tuple[DecodedRecording, _Fetched]:
        with ExitStack() as stack:
            with progress.room("fetch"):
                recording = self._open(vault, lease, event)
                stack.callback(recording.close)
                self._growth.check(event.key, event.source, recording.size_bytes, event.file_size)
                source = self._options.keys.unlocked(recording.source)
            reach("fetch.after")
            with progress.room("decode"):
                decoded = self._decoders.decode(
                    source,
                    frames=self._options.frames,
                    sampling=self._options.sampling,
                    frames_per_s=self._options.frames_per_s,
                    region=_motion_box(event),
                    net_wh=self._model.net_wh,
                    placing=self._model.placing,
                    rect=self._options.rect,
                )
            self._metrics.fetched(recording.fetched_bytes, recording.size_bytes)
            with progress.counted_as("fetch"):  # the digest of all that was asked for
                return decoded, _Fetched.of(recording)

    def _open(self, vault: VaultClient, lease: Lease, event: RecordingEvent) -> Opened:
        ranges_from_bytes = self._options.ranges_from_bytes
        fetch: Callable[..., Opened] = vault.fetch
        if ranges_from_bytes is not None:
            fetch = partial(vault.open, ranges_from_bytes=ranges_from_bytes)
        return fetch(
            event.key,
            lease.provider or event.source,
            signed_url=event.signed_url,
            secondary_providers=event.secondary_providers,
        )

    def _detect(self, decoded: DecodedRecording, progress: Progress) -> _LookedAt:
        with progress.room("detect"):
            seen = self._outages.patiently(
                "detector", lambda: self._detector.detect(decoded.shared, decoded.frames)
            )
            reach("detect.after")
        with progress.room("track"):
            # While the pictures are there: objects are told apart by their colours, too.
            followed = follow(decoded.frames, seen)
        return _LookedAt(
            decoded.frames[0].size_wh,
            decoded.frames[0].letterbox.net_wh,
            tuple(
                LookedAtFrame(
                    frame.index, frame.timestamp_s, detections, frame.number, ids, frame.why
                )
                for frame, detections, ids in zip(decoded.frames, seen, followed.ids, strict=True)
            ),
            followed.tracks,
            is_partial=decoded.partial,
            seconds_covered=decoded.duration_s,
            left_out=decoded.left_out,
        )

    def _judge(self, event: RecordingEvent, looked_at: _LookedAt) -> Verdict:
        seen = [frame.detections for frame in looked_at.frames]
        interest, size_wh = self._options.interest, looked_at.size_wh
        known = self._scene.known(event, looked_at.tracks, size_wh) if self._scene else {}
        return judge(
            seen,
            looked_at.tracks,
            [interest.reasons(event.camera, each, size_wh) for each in seen],
            self._options.rules,
            frame_wh=size_wh,
            known=known,
            elsewhere=(
                apart(event.motion_region, looked_at.tracks, size_wh)
                if self._options.uses_motion_region
                else None
            ),
        )

    def _result(
        self,
        event: RecordingEvent,
        message: Message,
        recording: _Fetched,
        looked_at: _LookedAt,
        verdict: Verdict,
        progress: Progress,
    ) -> Processed:
        options, info = self._options, self._detector.info
        identity = self.run_id(event)
        run = Run(
            id=identity,
            version=__version__,
            count=verdict.count,
            rule=verdict.rule,
            is_interesting=verdict.is_interesting,
            model=RunModel(self._model.name, self._model.sha256),
            confidence_threshold=options.confidence_threshold,
            nms_threshold=options.nms_threshold,
            runtime=info.runtime,
            device=info.device,
            precision=info.precision,
            sampling=str(options.sampling),
            choice=choice_of(looked_at.frames, looked_at.left_out),
            recording=RunRecording(
                bytes_fetched=recording.fetched_bytes,
                size_bytes=recording.size_bytes,
                sha256=recording.sha256,
                ranges=list(recording.ranges),
                width=looked_at.size_wh[0],
                height=looked_at.size_wh[1],
                partial=looked_at.is_partial,
                seconds_covered=looked_at.seconds_covered,
            ),
        )
        block = block_of(looked_at.frames, run, verdict.tracks, looked_at.input_wh)
        result = build_result(
            event, looked_at.frames, run, options.result, tracks=verdict.tracks, block=block
        )
        return Processed(
            event=event,
            frames=looked_at.frames,
            verdict=verdict,
            message=Message(
                result.body,
                message_key(event, message.key),
                message_headers(
                    identity, __version__, {**message.headers, **progress.trace.headers}
                ),
            ),
            run_id=identity,
            seconds=progress.seconds,
            bytes_fetched=recording.fetched_bytes,
            left_out=result.left_out,
            block=block,
        )

    def _way_of_looking(self) -> WayOfLooking:
        options, info = self._options, self._detector.info
        allowed = options.interest.allowed
        return WayOfLooking(
            model_sha256=self._model.sha256,
            runtime=options.runtime or info.runtime,
            precision=info.precision,
            input_shape="rect" if options.rect else "square",
            number_of_predictions=options.frames,
            frame_sampling=str(options.sampling),
            confidence_threshold=options.confidence_threshold,
            nms_threshold=options.nms_threshold,
            object_threshold=options.rules.threshold,
            allowed_labels=None if allowed is None else tuple(sorted(allowed)),
            profile=str(options.result.profile),
            extras=options.result.extras,
            more=options.more,
        )


@dataclass(frozen=True, slots=True)
class _Fetched:
    fetched_bytes: int
    size_bytes: int
    sha256: str
    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, recording: Opened) -> _Fetched:
        return cls(
            recording.fetched_bytes, recording.size_bytes, recording.sha256, recording.ranges
        )


@dataclass(frozen=True, slots=True)
class _LookedAt:
    size_wh: tuple[int, int]
    input_wh: tuple[int, int]
    frames: tuple[LookedAtFrame, ...]
    tracks: tuple[Track, ...]
    is_partial: bool
    seconds_covered: float | None
    left_out: tuple[tuple[float, float], ...]


def _motion_box(event: RecordingEvent) -> tuple[int, int, int, int] | None:
    return None if event.file_name is None else motion_box(event.file_name.region)
