"""The composition root: settings -> wired parts, by hand, in one file.

Below this file nothing knows the settings, and no part makes another.
"""

from __future__ import annotations

import gc
import hashlib
import json
import platform
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from vault_ml import __version__, failpoints, machine, settings
from vault_ml.backoff import Backoff
from vault_ml.brokers.dead_letter import DeadLetters
from vault_ml.brokers.port import Consumer, Message, Producer
from vault_ml.brokers_for import Broker, broker_for
from vault_ml.detector_process import DetectorProcess
from vault_ml.errors import (
    ConfigError,
    DetectorUnavailable,
    OutcomesUnavailable,
    SceneUnavailable,
)
from vault_ml.hub.vocabulary import HUB_WORDS
from vault_ml.inference.cpu_quota import usable_cpus
from vault_ml.inference.opening import memory_bytes
from vault_ml.interest.judging import Interest
from vault_ml.interest.zones_file import ZonesFile, read
from vault_ml.machine import Finding, Level
from vault_ml.models.prepare import ModelFiles, PreparedModel, prepare, resolve
from vault_ml.outage import Outages, Stopping
from vault_ml.outcomes.finished import FinishedRuns
from vault_ml.outcomes.opening import open_store
from vault_ml.outcomes.port import OutcomeStore
from vault_ml.pipeline import Pipeline, PipelineOptions
from vault_ml.removal import Removals
from vault_ml.result import Profile, ResultOptions
from vault_ml.runtime_for import RuntimePlan, runtime_for
from vault_ml.scene.memory import SceneMemory
from vault_ml.scene.opening import open_scenes
from vault_ml.scene.port import SceneStore
from vault_ml.settings import Settings
from vault_ml.signals import Signals, begin_again
from vault_ml.sinks.forward_hub import ForwardDetections, ForwardToHubQueue, Hub
from vault_ml.sinks.forward_media import ForwardMedia
from vault_ml.sinks.forward_metadata import ForwardMetadata
from vault_ml.sinks.port import Processed, Sink
from vault_ml.sinks.publish import Publish
from vault_ml.telemetry.health import Health
from vault_ml.telemetry.logs import Logger, RecordingLog, configure
from vault_ml.telemetry.metrics import Metrics
from vault_ml.telemetry.tracing import NoTracing, Tracing, tracing_to
from vault_ml.vault.client import VaultClient, VaultOptions
from vault_ml.vault.clients import VaultClients
from vault_ml.vault.encrypted import RecordingKeys
from vault_ml.vault.transport import TlsOptions, trust
from vault_ml.verdict import Rules, unknown_labels
from vault_ml.video.decoder_pool import DecoderPool
from vault_ml.video.limits import DecodeLimits
from vault_ml.video.sampling import Sampling
from vault_ml.web import WebServer
from vault_ml.worker import Worker, WorkerOptions

# How long a ping, and a confirmation of a publish, may take.
_PING_S = 10.0
_PUBLISH_S = 30.0
# While a dependency is away its step is tried at least this often, so that work goes on within
# ten seconds after it is back.
_OUTAGE_CAP_S = 8.0
# Below this a second request costs more than the bytes it saves.
_RANGES_FROM_BYTES = 1024 * 1024
# Of a recording of half a minute, for an estimate of memory.
_TYPICAL_BYTES = 16 * 1024 * 1024


def work(environ: Mapping[str, str]) -> None:
    """Be the worker until SIGTERM or SIGINT, then drain; a second signal exits at once.

    SIGHUP drains as well, and then begins from scratch with what is set by then (`signals`).

    Raises:
        ConfigError: something must be changed before this can work.
        DetectorUnavailable: detector or decoders failed three times in a row. What was in flight
            has been given back; a start from scratch, by whoever watches over us, may help.
    """
    chosen = settings.load(environ)
    log = configure(chosen.log_format, chosen.log_level)
    for notice in settings.notices(environ):
        log.warning("settings_noticed", reason=notice)
    if places := environ.get("VAULT_ML_FAILPOINTS"):
        failpoints.arm(places)
        log.warning("failpoints_armed", reason="a test means to end this worker", places=places)
    stop = threading.Event()
    signals = Signals(stop, lambda: _try_settings(environ, chosen), log)
    signals.listen()
    metrics, health = Metrics(), Health()
    watchdog = _Watchdog(stop, log)
    with ExitStack() as stack:
        if chosen.web_host_port is not None:
            web = WebServer(*chosen.web_host_port, health=health, metrics=metrics)
            stack.callback(web.stop)
            web.start()
            log.info("web_started", address=web.url)
        worker = _wire(chosen, stack, watchdog, log, metrics, health)
        if worker is not None:
            # What is there now stays to the end: no collection need look through it, nor the exit,
            # which takes a quarter of a second less.
            gc.freeze()
            worker.run()
    if signals.begins_again:
        log.info("worker_reloading")
        begin_again()
    log.info("worker_stopped")
    if watchdog.reason is not None:
        raise DetectorUnavailable(f"given up after three failures in a row: {watchdog.reason}")


class _Watchdog:
    """Ends the worker when its children fail again and again."""

    def __init__(self, stop: threading.Event, log: Logger) -> None:
        self.stop = stop
        self.reason: str | None = None
        self._log = log

    def bark(self, reason: str) -> None:
        """Stop, once; what is in flight is given back."""
        if not self.stop.is_set():
            self.reason = reason
            self._log.error("children_hopeless", reason=reason)
            self.stop.set()


def _wire(
    chosen: Settings,
    stack: ExitStack,
    watchdog: _Watchdog,
    log: Logger,
    metrics: Metrics,
    health: Health,
) -> Worker | None:
    """Start everything: model, detector and decoders, Vault, broker. None when stopped."""
    stop = watchdog.stop
    recording_log = RecordingLog(chosen.log_format, log, publishes=chosen.queue_target is not None)
    tracing = _tracing(chosen)
    stack.callback(tracing.close)
    plan = _runtime(chosen, _model(chosen, log, recording_log), log)
    model = plan.model
    detector = _detector(chosen, plan)
    stack.callback(detector.close)
    detector.on_restart = lambda reason: _detector_lost(reason, log, metrics)
    detector.on_hopeless = watchdog.bark
    detector.on_batch = metrics.batch
    concurrency = _concurrency(chosen, log)
    decoders = DecoderPool(
        _decoder_count(concurrency),
        DecodeLimits(
            max_seconds=chosen.decode_timeout_s, max_memory_bytes=int(chosen.decode_memory_bytes)
        ),
        on_restart=lambda reason: _decoder_lost(reason, log, metrics),
        on_hopeless=watchdog.bark,
    )
    stack.callback(decoders.close)
    with ThreadPoolExecutor(1) as beside:
        # Either loads libraries for up to a second, in a process of its own.
        decoders_started = beside.submit(decoders.start)
        detector.start()
    decoders_started.result()
    runs = {
        "model": model.name,
        "runtime": detector.info.runtime,
        "device": detector.info.device,
        "precision": detector.info.precision,
    }
    metrics.runs(version=__version__, **runs)
    log.info("detector_started", **runs)
    _tell_of_jail(decoders, log)

    vaults = _vaults(chosen, stack)
    finished = _finished(chosen, stack, metrics, log)
    broker = broker_for(chosen, log)
    producer = broker.producer()
    stack.callback(producer.close, _PING_S)
    gate = _Gate()
    outages = Outages(
        backoff=Backoff(min(1.0, chosen.retry_backoff_s), _OUTAGE_CAP_S),
        stop=stop,
        on_pause=gate.pause,
        on_resume=gate.resume,
        log=log,
    )
    health.watch_outages(outages.reasons)
    metrics.watch(health.unready_reasons, outages.reasons)
    try:
        if vaults.own is not None:
            own = vaults.own
            outages.patiently("vault", lambda: _at_start(own.ping))
        outages.patiently("broker", lambda: _at_start(lambda: producer.ping(_PING_S)))
        outages.patiently("broker", lambda: _at_start(broker.check))
    except Stopping:
        return None
    except _Refused as refused:
        raise refused.error from None
    consumer = broker.consumer(concurrency)
    stack.callback(consumer.close, _PING_S)
    gate.consumer = consumer
    metrics.watch_queue(consumer.lag)
    health.watch("detector", detector.ping)
    if vaults.own is not None:
        health.watch("vault", vaults.own.ping)
    health.watch("broker", lambda: consumer.ping(_PING_S))
    scene = _scene(chosen, stack, log)
    removals = Removals(vaults, outages, on_removed=metrics.removed, log=log)
    return Worker(
        consumer,
        Pipeline(
            vaults,
            decoders,
            detector,
            model,
            outages,
            _pipeline_options(chosen, _interest(chosen, model.labels), plan),
            metrics=metrics,
            scene=scene,
        ),
        [
            *_sinks(chosen, producer, vaults, with_settlement=broker.is_transactional),
            *_hub_sinks(chosen, stack),
        ],
        DeadLetters(
            producer,
            chosen.dead_letter_queue,
            queue=chosen.queue_name,
            host=platform.node(),
            version=__version__,
            timeout_s=_PUBLISH_S,
            with_settlement=broker.is_transactional,
        ),
        removals,
        outages,
        WorkerOptions(
            concurrency=concurrency,
            max_attempts=chosen.retry_max_attempts,
            retry=Backoff(chosen.retry_backoff_s, chosen.retry_backoff_max_s),
            drain_s=chosen.drain_timeout_s,
            remove=chosen.remove_after_processed,
            remove_forwarded=chosen.remove_after_forward_queued,
        ),
        stop=stop,
        metrics=metrics,
        health=health,
        log=log,
        recording_log=recording_log,
        finished=finished,
        settles_with=_settles_with(chosen, broker),
        tracing=tracing,
    )


def _tracing(chosen: Settings) -> Tracing:
    endpoint = chosen.otel_exporter_otlp_endpoint
    return NoTracing() if endpoint is None else tracing_to(endpoint, version=__version__)


def _scene(chosen: Settings, stack: ExitStack, log: Logger) -> SceneMemory | None:
    """The memory of what stands at the cameras, where one is set."""
    if chosen.static_memory is None:
        return None
    store = _scene_store(chosen)
    stack.callback(store.close)
    try:
        store.ping()
    except SceneUnavailable as error:
        log.warning("scene_away", reason=f"{error} Work begins without.")
    return SceneMemory(store, log=log)


def _scene_store(chosen: Settings) -> SceneStore:
    password = chosen.static_memory_password
    return open_scenes(
        chosen.static_memory or "",
        username=chosen.static_memory_username or "",
        password=password.get_secret_value() if password else "",
        max_age_s=chosen.static_memory_max_age_s,
    )


def _finished(
    chosen: Settings, stack: ExitStack, metrics: Metrics, log: Logger
) -> FinishedRuns | None:
    """The memory of finished runs, where one is set. One that is away is no reason to wait."""
    if chosen.outcomes is None:
        return None
    store = _outcome_store(chosen)
    stack.callback(store.close)
    try:
        store.ping()
    except OutcomesUnavailable as error:
        log.warning("outcomes_away", reason=f"{error} Work begins without.")
    return FinishedRuns(store, _steps(chosen), on_failure=metrics.outcome_failure, log=log)


def _outcome_store(chosen: Settings) -> OutcomeStore:
    password = chosen.outcomes_password
    return open_store(
        chosen.outcomes or "",
        username=chosen.outcomes_username or "",
        password=password.get_secret_value() if password else "",
        max_age_s=chosen.outcomes_max_age_s,
        max_count=chosen.outcomes_max_count,
    )


def _steps(chosen: Settings) -> frozenset[str]:
    """What is done with a result, and where it goes; with more of it, a run is not finished."""
    steps = []
    if chosen.queue_target is not None:
        steps.append(f"publish {chosen.queue_target}")
    if chosen.forwarding_media:
        steps.append("forward_media")
    if chosen.forwarding_metadata:
        method, path = chosen.forward_metadata_method, chosen.forward_metadata_path
        steps.append(f"forward_metadata {method} {path}")
    if chosen.forwarding_hub:
        steps.append(f"forward_hub {chosen.hub_queue_path}")
    if chosen.forwarding_detections:
        steps.append(f"forward_detections {chosen.hub_detections_path}")
    return frozenset(steps)


class _Gate:
    """Pauses the consumer, once there is one; an outage may come before."""

    consumer: Consumer | None = None

    def pause(self) -> None:
        if self.consumer is not None:
            self.consumer.pause()

    def resume(self) -> None:
        if self.consumer is not None:
            self.consumer.resume()


class _Refused(Exception):
    """A configuration error at start, which must not be waited out."""

    def __init__(self, error: ConfigError) -> None:
        super().__init__(str(error))
        self.error = error


def _at_start(ping: Callable[[], None]) -> None:
    """Wrong credentials are an outage while running, and a reason to stop at start."""
    try:
        ping()
    except ConfigError as error:
        raise _Refused(error) from error


def _try_settings(environ: Mapping[str, str], in_force: Settings) -> None:
    """Raise a `VaultMLError` where a worker could not begin with what is set now."""
    try:
        chosen = settings.load(environ)
        # Not the check of the model: it starts a detector, and there may not be memory for two.
        _model(chosen, configure("json", "ERROR"), None)
        for name, check in checks(environ):
            if name in ("settings", "vault", "broker"):
                check()
    finally:
        configure(in_force.log_format, in_force.log_level)  # libraries speak to us again


def _model(chosen: Settings, log: Logger, recording_log: RecordingLog | None) -> PreparedModel:
    files: ModelFiles = resolve(chosen.model, chosen.model_dir, chosen.model_labels)
    for note in files.notes:
        log.info("model_chosen", reason=note)
    model = prepare(files, chosen.cache_dir, corrections=chosen.model_corrections)
    for note in model.notes:
        log.info("model_chosen", reason=note)
    for sentence in model.corrections:
        log.info("model_corrected", reason=sentence)
    _interest(chosen, model.labels)  # what the model cannot see is said before anything starts
    if recording_log is not None:
        recording_log.layer_table(model.layer_table)
    log.info(
        "model_prepared",
        model=model.name,
        sha256=model.sha256[:12],
        input=f"{model.net_wh[0]}x{model.net_wh[1]}",
        classes=len(model.labels),
        family=model.family,
    )
    return model


def _interest(chosen: Settings, labels: Sequence[str]) -> Interest:
    """What is of interest, checked against what the model can see."""
    allowed = chosen.allowed_labels
    if allowed is not None and (unknown := unknown_labels(allowed, labels)):
        raise ConfigError(
            f"ALLOWED_LABELS: {', '.join(unknown)} is not a label of {chosen.model}; "
            f"it knows {', '.join(labels)}"
        )
    if chosen.allowed_classifications is not None:
        beyond = sorted(each for each in chosen.allowed_classifications if each >= len(labels))
        if beyond:
            raise ConfigError(
                f"ALLOWED_CLASSIFICATIONS: {beyond[0]} is no class of {chosen.model}; "
                f"it has 0 to {len(labels) - 1}"
            )
        allowed = frozenset(labels[each] for each in chosen.allowed_classifications)
    if chosen.zones is None:
        return Interest(allowed)
    found = zones_file(chosen.zones, labels, chosen.confidence_threshold)
    return Interest(allowed, found.defaults, found.cameras)


def zones_file(
    path: Path, labels: Sequence[str] | None = None, least_confidence: float = 0.0
) -> ZonesFile:
    """The file at ZONES.

    Raises:
        ConfigError: it cannot be read, or is wrong; with line and field.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"ZONES: {path} cannot be read: {why}") from None
    return read(text, path.name, labels=labels, least_confidence=least_confidence)


def _runtime(chosen: Settings, model: PreparedModel, log: Logger) -> RuntimePlan:
    """What runs the model; measured at the first start on a machine."""
    plan = runtime_for(
        model,
        runtime=chosen.runtime,
        precision=chosen.number_format,
        rect=chosen.shape == "rect",
        model_dir=chosen.model_dir,
        cache_dir=chosen.cache_dir,
    )
    log.info("runtime_chosen", runtime=plan.how.engine, reason=plan.reason)
    for note in plan.notes:
        log.warning("model_doubtful", reason=note)
    return plan


def _detector(chosen: Settings, plan: RuntimePlan) -> DetectorProcess:
    return DetectorProcess(
        plan.model,
        plan.detector_options(
            confidence_threshold=chosen.confidence_threshold,
            nms_threshold=chosen.nms_threshold,
            deadline_s=chosen.detector_timeout_s,
        ),
    )


def _decoder_lost(reason: str, log: Logger, metrics: Metrics) -> None:
    log.warning("decoder_restarted", reason=reason)
    metrics.decoder_restarted()


def _tell_of_jail(decoders: DecoderPool, log: Logger) -> None:
    """Say once what holds the decoders; a jail with a hole is worth a warning."""
    jail = decoders.jail
    if jail is None:
        return
    tell = log.info if jail.is_tight else log.warning
    tell("decoder_confined", seccomp=jail.seccomp, landlock=jail.landlock, reason=jail.sentence())


def _detector_lost(reason: str, log: Logger, metrics: Metrics) -> None:
    log.warning("detector_restarted", reason=reason)
    metrics.detector_restarted()


def _decoder_count(concurrency: int) -> int:
    return min(concurrency, usable_cpus() + 1)


def _concurrency(chosen: Settings, log: Logger) -> int:
    if chosen.worker_concurrency is not None:
        return chosen.worker_concurrency
    # One recording in the network, one in a decoder per further processor, one on the wire.
    concurrency = max(3, min(16, usable_cpus() + 1))
    log.info(
        "concurrency_chosen",
        recordings=concurrency,
        reason=f"{usable_cpus()} processors by affinity and quota, plus one on the wire",
    )
    return concurrency


def _vaults(chosen: Settings, stack: ExitStack) -> VaultClients:
    """The configured Vault, where there is one, and what messages may name."""
    options = VaultOptions(
        api_prefix="" if chosen.vault_api_prefix == "none" else chosen.vault_api_prefix,
        transfer_timeout_s=chosen.recording_timeout_s,
        max_bytes=int(chosen.recording_max_bytes),
        origins=chosen.origins,
        tls=TlsOptions(chosen.vault_ca_file, chosen.vault_client_cert, chosen.vault_client_key),
    )
    trust(options.tls)  # a file that cannot be used is said now, not with the first event
    own = None
    if chosen.vault_api_url and chosen.vault_access_key and chosen.vault_secret_key:
        own = VaultClient(
            chosen.vault_api_url,
            chosen.vault_access_key.get_secret_value(),
            chosen.vault_secret_key.get_secret_value(),
            options,
        )
        stack.callback(own.close)
    vaults = VaultClients(own, options)
    stack.callback(vaults.close)
    return vaults


def _settles_with(
    chosen: Settings, broker: Broker
) -> Callable[[Processed], Sequence[tuple[str, Message]]]:
    """What a transaction publishes with an event's settlement: its result, or nothing."""
    target = chosen.queue_target
    if not broker.is_transactional or target is None:
        return lambda _processed: ()
    return lambda processed: [(target, processed.message)]


def _sinks(
    chosen: Settings, producer: Producer, vaults: VaultClients, *, with_settlement: bool
) -> list[Sink]:
    """In the order of the delivery contract: publish, forward media, forward metadata."""
    sinks: list[Sink] = []
    if chosen.queue_target is not None and not with_settlement:
        sinks.append(Publish(producer, chosen.queue_target, timeout_s=_PUBLISH_S))
    if chosen.forwarding_media:
        sinks.append(ForwardMedia(vaults))
    if chosen.forwarding_metadata:
        sinks.append(
            ForwardMetadata(
                vaults, path=chosen.forward_metadata_path, method=chosen.forward_metadata_method
            )
        )
    return sinks


def _hub_sinks(chosen: Settings, stack: ExitStack) -> list[Sink]:
    """What goes to Kerberos Hub itself, after all that goes through the Vault."""
    if chosen.hub_api_url is None or chosen.hub_cloud_key is None:
        return []
    tls = TlsOptions(chosen.vault_ca_file, chosen.vault_client_cert, chosen.vault_client_key)
    hub = Hub(chosen.hub_api_url, chosen.hub_cloud_key.get_secret_value(), tls=tls)
    stack.callback(hub.close)
    sinks: list[Sink] = []
    if chosen.forwarding_hub:
        sinks.append(ForwardToHubQueue(hub, chosen.hub_queue_path))
    if chosen.forwarding_detections:
        sinks.append(ForwardDetections(hub, chosen.hub_detections_path))
    return sinks


def _pipeline_options(chosen: Settings, interest: Interest, plan: RuntimePlan) -> PipelineOptions:
    return PipelineOptions(
        rect=plan.rect,
        runtime=plan.identity,
        frames=chosen.most_frames,
        sampling=Sampling(chosen.sampling),
        frames_per_s=chosen.frames_per_s,
        confidence_threshold=chosen.confidence_threshold,
        nms_threshold=chosen.nms_threshold,
        rules=_rules(chosen),
        interest=interest,
        more=_more(chosen, plan),
        result=ResultOptions(
            extras=chosen.result_extras,
            max_bytes=int(chosen.result_max_bytes),
            profile=Profile(chosen.profile),
            words=HUB_WORDS if chosen.hub_labels is None else chosen.hub_labels,
        ),
        keys=RecordingKeys(
            chosen.keys_of_recordings, is_worth_waiting=chosen.recording_key_missing == "retry"
        ),
        ranges_from_bytes=_ranges_from_bytes(chosen),
        growth_patience_s=chosen.recording_growth_timeout_s,
        uses_motion_region=chosen.motion_region,
    )


def _rules(chosen: Settings) -> Rules:
    return Rules(
        chosen.forwarding_object_threshold,
        chosen.move_distance,
        chosen.min_static_distance,
        chosen.min_detections,
    )


def _more(chosen: Settings, plan: RuntimePlan) -> tuple[tuple[str, str], ...]:
    """What else a result depends on, where it is used."""
    words = chosen.hub_labels if chosen.profile == "hub" else None
    return tuple(
        (name, text)
        for name, text in (
            ("quantized", plan.quantized_sha256),
            ("frames_per_s", chosen.frames_per_s and f"{chosen.frames_per_s:g}"),
            ("move_distance", chosen.move_distance and str(chosen.move_distance)),
            ("static_distance", chosen.min_static_distance and str(chosen.min_static_distance)),
            ("min_detections", chosen.min_detections > 1 and str(chosen.min_detections)),
            ("static_memory", chosen.static_memory and "on"),
            ("motion_region", chosen.motion_region and "on"),
            ("words", words is not None and json.dumps(words, sort_keys=True)),
            ("zones", chosen.zones and hashlib.sha256(chosen.zones.read_bytes()).hexdigest()),
        )
        if text
    )


def _ranges_from_bytes(chosen: Settings) -> int | None:
    """From which size on recordings are fetched by ranges; None for never."""
    if chosen.fetch == "ranges":
        return 0
    # Exact frames need whole groups of pictures: most of a recording. Adaptive ones need some.
    is_worth_it = chosen.fetch == "auto" and chosen.sampling in ("keyframe", "adaptive")
    return _RANGES_FROM_BYTES if is_worth_it else None


def checks(
    environ: Mapping[str, str], *, with_machine: bool = False
) -> Iterator[tuple[str, Callable[[], Finding]]]:
    """What `vault-ml check` and `doctor` try, in order: a name, and a function that tries it.

    Each raises a `VaultMLError` whose sentence says what is wrong and what to try. Nothing comes
    after `settings` where they are wrong.

    Args:
        environ: the environment.
        with_machine: look at the machine, too.
    """
    if with_machine:
        yield "processors", machine.processors
        yield "limits", machine.limits
    holder: list[Settings] = []

    def check_settings() -> Finding:
        holder.append(settings.load(environ))
        given = sum(row.source != "default" for row in settings.describe(holder[0], environ))
        if notices := settings.notices(environ):
            return Finding(Level.DOUBTFUL, f"{given} variables set", " ".join(notices))
        return Finding(Level.OK, f"{given} variables set, the rest at their defaults")

    yield "settings", check_settings
    if not holder:
        return
    (chosen,) = holder
    quiet = configure("json", "ERROR")
    if with_machine:
        yield "cache", lambda: machine.cache(chosen.cache_dir)
    plans: list[tuple[RuntimePlan, str]] = []

    def check_model() -> Finding:
        plan = _runtime(chosen, _model(chosen, quiet, None), quiet)
        model = plan.model
        with _detector(chosen, plan) as detector:
            detector.start()
            info = detector.info
        plans.append((plan, info.device))
        return Finding(
            Level.DOUBTFUL if plan.notes else Level.OK,
            f"{model.name} ({model.family}) at {model.net_wh[0]}x{model.net_wh[1]} "
            f"({chosen.shape}) runs on {info.device} by {info.runtime} ({info.precision}): "
            f"{plan.reason}",
            " ".join(plan.notes),
        )

    def check_vault() -> Finding:
        with ExitStack() as stack:
            vaults = _vaults(chosen, stack)
            if vaults.own is None:
                return Finding(Level.OK, f"none configured; messages may name {chosen.origins}")
            vaults.own.ping()
            # A clock that is off makes trouble nowhere else so soon.
            time = machine.clock(vaults.own.clock_ahead_s)
            sentence = f"{vaults.own.host} answers and knows our keys"
            if time.level is Level.OK:
                return Finding(Level.OK, sentence)
            return Finding(time.level, f"{sentence}, but {time.sentence}", time.advice)

    def check_broker() -> Finding:
        broker = broker_for(chosen, quiet)
        producer = broker.producer()
        try:
            producer.ping(_PING_S)
            broker.check()
        finally:
            producer.close(1.0)
        return Finding(Level.OK, f"{broker.where} answers")

    yield "model", check_model
    if with_machine:
        for plan, device in plans:
            yield "gpu", partial(machine.gpu, device)
            yield "memory", partial(_memory, chosen, plan, quiet)
        yield "decoders", lambda: _decoders(chosen)
    yield "vault", check_vault
    yield "broker", check_broker
    if chosen.outcomes is not None:
        yield "outcomes", lambda: _check_store(_outcome_store, chosen, chosen.outcomes)
    if chosen.static_memory is not None:
        yield "static memory", lambda: _check_store(_scene_store, chosen, chosen.static_memory)


def _check_store(
    open_it: Callable[[Settings], OutcomeStore | SceneStore], chosen: Settings, where: str | None
) -> Finding:
    """Whether a memory at the address `where` answers."""
    with closing(open_it(chosen)) as store:
        store.ping()
    return Finding(Level.OK, f"{where} answers")


def _memory(chosen: Settings, plan: RuntimePlan, log: Logger) -> Finding:
    in_flight = _concurrency(chosen, log)
    return machine.memory(
        in_flight=in_flight,
        decoders=_decoder_count(in_flight),
        network_bytes=memory_bytes(plan.model.onnx, plan.how),
        typical_bytes=_TYPICAL_BYTES,
    )


def _decoders(chosen: Settings) -> Finding:
    """What holds a decoder, from one that is started."""
    limits = DecodeLimits(
        max_seconds=chosen.decode_timeout_s, max_memory_bytes=int(chosen.decode_memory_bytes)
    )
    pool = DecoderPool(1, limits, on_restart=lambda _reason: None)
    try:
        pool.start()
        jail = pool.jail
    finally:
        pool.close()
    if jail is None:
        return Finding(Level.WRONG, "no decoder starts", "Run `vault-ml demo`: it says why.")
    if jail.is_tight:
        return Finding(Level.OK, jail.sentence())
    return Finding(
        Level.DOUBTFUL,
        jail.sentence(),
        "Let the container have seccomp (docker: not --security-opt seccomp=unconfined).",
    )
