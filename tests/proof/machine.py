"""The fault machine: carries out a plan on one broker, one Vault and some workers."""

from __future__ import annotations

import hashlib
import json
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from proof.history import Event, Fault, History, Letter, Result, VaultCall
from proof.hub import CLOUD_KEY, EmbeddedHub
from proof.material import Message
from proof.patience import Patience
from proof.plan import Act, Kind, Plan
from proof.queues import Queues, Raw, System
from proof.unreliable_way import Mode, UnreliableWay
from proof.workers import Workers
from vault_ml.demo.vault_server import EmbeddedVault
from vault_ml.vault import protocol

RUN = ("-m", "vault_ml", "run")
_VAULT_MODES: dict[str, Mode] = {
    "vault refuses": "refuses",
    "vault resets": "resets",
    "vault errs": "errs",
    "vault hangs": "hangs",
}
_HUB_MODES: dict[str, Mode] = {"hub refuses": "refuses", "hub errs": "errs"}
_TICK_S = 0.05
_STOP_WITHIN_S = 180.0  # who does not end by then hangs; the drain of a worker is 10 s


@dataclass(frozen=True)
class Limits:
    """How patient the machine is, in seconds in which all could run (see `patience`).

    Attributes:
        quiet_s: without any new outcome for so long, with nothing being done to the system, the
            rest is stuck.
        settle_s: after the last outcome, the broker must have nothing left within this time.
    """

    quiet_s: float = 60.0
    settle_s: float = 60.0


def run(
    system: System,
    plan: Plan,
    messages: Sequence[Message],
    model: Path,
    *,
    command: Sequence[str] = RUN,
    limits: Limits | None = None,
    keep_logs: Path | None = None,
) -> History:
    """Carry out `plan`.

    Args:
        system: the broker, running.
        plan: what to do.
        messages: the events, good ones and poison.
        model: the detector's file.
        command: what to start as a worker.
        limits: how patient to be.
        keep_logs: a folder for the workers' logs; None throws them away.
    """
    with tempfile.TemporaryDirectory(prefix="vault-ml-proof-") as folder:
        logs = keep_logs or Path(folder)
        logs.mkdir(parents=True, exist_ok=True)
        one = _Run(system, plan, messages, model, command, Path(folder), logs, limits or Limits())
        try:
            return one.carry_out()
        finally:
            one.close()


class _Run:
    def __init__(
        self,
        system: System,
        plan: Plan,
        messages: Sequence[Message],
        model: Path,
        command: Sequence[str],
        folder: Path,
        logs: Path,
        limits: Limits,
    ) -> None:
        self._system = system
        self._plan = plan
        self._messages = messages
        self._limits = limits
        self._rng = random.Random(f"machine {plan.seed}")
        self._vault = EmbeddedVault(folder / "vault", "access", "secret").start()
        self._way = UnreliableWay(plan.seed, plan.weather)
        self._way.lead_to(int(self._vault.url.rpartition(":")[2]))
        self._vault.account.url = self._way.url  # signed URLs lead through the proxy as well
        self._hub = EmbeddedHub()
        self._way_to_hub = UnreliableWay(f"hub {plan.seed}", plan.weather, to="hub")
        self._way_to_hub.lead_to(self._hub.port)
        name = f"{plan.seed}-{os.getpid()}-{time.time_ns() // 1_000_000}"
        self._queues: Queues = system.open(name, plan.lease_s, is_calm=plan.is_calm)
        self._workers = Workers(command, self._variables(model, folder), logs, plan.failpoints)
        self._faults: list[Fault] = []
        self._active: list[threading.Thread] = []
        self._crashes: list[BaseException] = []
        self._locks = {name: threading.Lock() for name in ("vault", "hub", "broker")}
        self._more = 0  # workers beyond the plan's number, by `join`
        self._shown = {"results": 0, "letters": 0}
        self._outcomes: set[str] = set()
        self._ask_again_at = 0.0
        # Ourselves and whom we started: workers, the broker, and who reads the results.
        self._patience = Patience(lambda: [os.getpid()])

    def _variables(self, model: Path, folder: Path) -> dict[str, str]:
        duty = self._plan.duty
        return {
            **self._queues.variables,
            "VAULT_API_URL": self._way.url,
            "VAULT_ACCESS_KEY": "access",
            "VAULT_SECRET_KEY": "secret",
            "MODEL": str(model),
            "RUNTIME": "onnxruntime",
            "CACHE_DIR": str(folder / "cache"),
            "NUMBER_OF_PREDICTIONS": "1",
            "WORKER_CONCURRENCY": str(self._plan.concurrency),
            "FORWARDING_MEDIA": str(duty.forwards_media).lower(),
            "FORWARDING_METADATA": str(duty.forwards_metadata).lower(),
            "FORWARDING_OBJECT_THRESHOLD": str(duty.object_threshold),
            "REMOVE_AFTER_PROCESSED": str(duty.removes).lower(),
            "REMOVE_AFTER_FORWARD_QUEUED": str(duty.removes_forwarded).lower(),
            "HUB_API_URL": self._way_to_hub.url if duty.forwards_hub else "",
            "HUB_CLOUD_KEY": CLOUD_KEY if duty.forwards_hub else "",
            "FORWARDING_HUB": str(duty.forwards_hub).lower(),
            "FORWARDING_DETECTIONS": str(duty.forwards_hub).lower(),
            "KAFKA_TRANSACTIONS": str(duty.transactions).lower(),
            "OUTCOMES": f"sqlite:{folder / 'outcomes.db'}" if duty.remembers else "",
            "RETRY_MAX_ATTEMPTS": str(duty.max_attempts),
            "RETRY_BACKOFF_S": "0.3",
            "RETRY_BACKOFF_MAX_S": "2",
            "DRAIN_TIMEOUT_S": "10",
            "WEB_ADDRESS": "off",
            "LOG_FORMAT": "json",
        }

    # --- the way of a run ------------------------------------------------------------------------

    def carry_out(self) -> History:
        started = time.monotonic()
        events = self._put()
        is_done = self._until_all_have_outcomes(events)
        # Settling must not need a stop; where it goes on until the end, the end decides.
        is_settled = self._until(self._queues.is_settled, self._limits.settle_s if is_done else 0)
        exits = self._workers.stop_all(_STOP_WITHIN_S)
        backlog = self._queues.finish()
        calls = [_call(r.at, r.method, r.path, r.key, r.status) for r in self._vault.requests]
        return History(
            system=self._system.name,
            version=self._system.version,
            seed=self._plan.seed,
            duty=self._plan.duty,
            events=events,
            results=[_result(raw) for raw in self._queues.results],
            letters=[_letter(raw) for raw in self._queues.letters],
            calls=sorted(
                [call for call in [*calls, *self._hub.calls] if call.key], key=lambda call: call.at
            ),
            faults=sorted(
                [
                    *self._faults,
                    *self._workers.faults,
                    *self._way.faults,
                    *self._way_to_hub.faults,
                    *self._queues.faults,
                ],
                key=lambda fault: fault.at,
            ),
            present=list(self._vault.keys()),
            backlog=[_sha(body) for body in backlog],
            is_settled=(is_settled or not is_done) and not backlog and self._queues.is_settled(),
            exits=exits,
            took_s=round(time.monotonic() - started, 1),
        )

    def close(self) -> None:
        self._workers.kill_all()
        for thread in self._active:
            thread.join(60)
        self._queues.close()
        self._way.close()
        self._way_to_hub.close()
        self._vault.stop()
        self._hub.close()

    def _put(self) -> list[Event]:
        """Store the recordings, put the events on the queue: mixed, some of them twice."""
        bodies, events = [], []
        for message in self._messages:
            event = message.event
            if message.recording is not None and event.key is not None:
                self._vault.put(event.key, message.recording)
            is_doubled = not event.expects and self._rng.random() < self._plan.copies
            copies = 2 if is_doubled else 1
            bodies += [message.body] * copies
            events.append(
                Event(
                    event.body_sha, event.key, event.expects, event.retries, copies,
                    event.is_missing,
                )
            )  # fmt: skip
            if is_doubled:
                self._faults.append(Fault(time.time(), "doubled event", event.key or ""))
        self._faults += [
            Fault(time.time(), f"poison {event.expects[0]}") for event in events if event.expects
        ]
        self._rng.shuffle(bodies)
        self._queues.send(bodies)
        return events

    def _until_all_have_outcomes(self, events: Sequence[Event]) -> bool:
        waiting = list(self._plan.acts)
        self._patience.renew()
        while True:
            self._workers.keep(self._plan.workers + self._more)
            if self._crashes:
                raise self._crashes[0]
            before = len(self._outcomes)
            self._look()
            self._active = [thread for thread in self._active if thread.is_alive()]
            if len(self._outcomes) != before or self._active:
                self._patience.renew()
            share = len(self._outcomes) / len(events)
            while waiting and waiting[0].after <= share and self._may_begin(waiting[0]):
                self._begin(waiting.pop(0))
            if len(self._outcomes) >= len(events) and not self._active and not waiting:
                return True
            quiet_s = self._patience.look()
            if quiet_s > self._limits.quiet_s:
                return False
            if quiet_s > self._limits.quiet_s / 4 and self._is_nothing_left():
                return False  # what has no outcome now will never have one
            time.sleep(_TICK_S)

    def _is_nothing_left(self) -> bool:
        now = time.monotonic()
        if now < self._ask_again_at:
            return False
        self._ask_again_at = now + 2.0
        return self._queues.is_settled()

    def _until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        self._patience.renew()
        while not condition():
            if self._patience.look() > timeout_s:
                return False
            self._workers.keep(self._plan.workers)
            time.sleep(0.2)
        return True

    def _look(self) -> None:
        """Which events have an outcome, by the digest of their bytes or by their key."""
        results, letters = self._queues.results, self._queues.letters
        for raw in results[self._shown["results"] :]:
            self._outcomes.add(json.loads(raw.body)["payload"]["key"])
        self._shown["results"] = len(results)
        keys = {message.event.body_sha: message.event.key for message in self._messages}
        for raw in letters[self._shown["letters"] :]:
            sha = _sha(raw.body)
            self._outcomes.add(keys.get(sha) or sha)
        self._shown["letters"] = len(letters)

    # --- acts ------------------------------------------------------------------------------------

    def _may_begin(self, act: Act) -> bool:
        """Workers that are just starting are not worth killing; the last act waits for nobody."""
        needs_worker = act.kind in {"kill", "freeze", "leave"}
        return not needs_worker or bool(self._workers.usual())

    def _begin(self, act: Act) -> None:
        thread = threading.Thread(target=self._carry_out_act, args=(act,), daemon=True)
        self._active.append(thread)
        thread.start()

    def _carry_out_act(self, act: Act) -> None:
        try:
            if act.kind in _VAULT_MODES:
                self._trouble_way("vault", self._way, _VAULT_MODES[act.kind], act)
            elif act.kind in _HUB_MODES:
                self._trouble_way("hub", self._way_to_hub, _HUB_MODES[act.kind], act)
            elif act.kind.startswith("broker"):
                self._trouble_broker(act)
            else:
                self._trouble_worker(act)
        except BaseException as error:  # noqa: BLE001  # raised again by the run
            self._crashes.append(error)

    def _note(self, kind: Kind, seconds: float = 0.0) -> None:
        self._faults.append(Fault(time.time(), kind, seconds=round(seconds, 2)))

    def _trouble_way(self, name: str, way: UnreliableWay, mode: Mode, act: Act) -> None:
        with self._locks[name]:
            self._note(act.kind, act.seconds)
            way.set_mode(mode)
            time.sleep(act.seconds)
            way.set_mode("open")

    def _trouble_broker(self, act: Act) -> None:
        with self._locks["broker"]:
            self._note(act.kind, act.seconds)
            self._system.begin(act.kind)
            try:
                time.sleep(act.seconds)
            finally:
                self._system.end(act.kind)

    def _trouble_worker(self, act: Act) -> None:
        workers = self._workers.usual()
        if act.kind == "join":
            self._note(act.kind, act.seconds)
            self._more += 1
            time.sleep(act.seconds + 2.0)  # a worker needs a moment to become a member
            self._more -= 1
            workers = self._workers.usual()
            if len(workers) > self._plan.workers:
                workers[-1].stop()
        elif workers:
            worker = self._rng.choice(workers)
            self._note(act.kind, act.seconds)
            if act.kind == "kill":
                worker.kill()
            elif act.kind == "leave":
                worker.stop()
            else:
                worker.freeze()
                time.sleep(self._plan.lease_s + act.seconds)
                if worker.process.poll() is None:
                    worker.thaw()


# --- what was seen -------------------------------------------------------------------------------


def _result(raw: Raw) -> Result:
    document = json.loads(raw.body)
    run_ = document["data"]["run"]
    return Result(
        key=document["payload"]["key"],
        run_id=raw.headers.get("vault-ml-run-id", ""),
        inner_run_id=run_["id"],
        body_sha=_sha(raw.body),
        count=run_["count"],
        sent_at=raw.sent_at,
    )


def _letter(raw: Raw) -> Letter:
    return Letter(
        body_sha=_sha(raw.body),
        error=raw.headers.get("vault-ml-error-class", ""),
        stage=raw.headers.get("vault-ml-stage", ""),
        attempts=int(raw.headers.get("vault-ml-attempts", "0")),
        reason=raw.headers.get("vault-ml-reason", ""),
        sent_at=raw.sent_at,
    )


_CALLS = {
    ("GET", protocol.STORAGE): "sign",
    ("GET", protocol.BLOB): "blob",
    ("DELETE", protocol.STORAGE): "remove",
    ("POST", protocol.FORWARD_MEDIA): "forward_media",
    ("POST", protocol.FORWARD_METADATA): "forward_metadata",
}


def _call(at: float, method: str, path: str, key: str, status: int) -> VaultCall:
    what = _CALLS.get((method, path.removeprefix("/api")), "other")
    return VaultCall(at, what, key, status)


def _sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
