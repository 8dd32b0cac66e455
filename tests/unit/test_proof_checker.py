"""The judge of the proof, judged: histories made by hand, each with one thing wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from proof.checker import KINDS, Expected, check, expectations
from proof.history import Duty, Event, Fault, History, Letter, Result, VaultCall
from proof.plan import draw
from vault_ml.failpoints import NAMES

DUTY = Duty(
    removes=True,
    removes_forwarded=True,
    forwards_media=True,
    forwards_metadata=True,
    object_threshold=1,
    max_attempts=4,
)


def result(key: str, count: int = 1, at: float = 10.0) -> Result:
    return Result(key, f"run-{key}", f"run-{key}", f"body-{key}", count, at)


def letter(sha: str, error: str = "MalformedEvent", attempts: int = 1) -> Letter:
    return Letter(sha, error, "parse", attempts, "because", 10.0)


def calls(key: str, *, forwards: bool) -> list[VaultCall]:
    """What the Vault is asked about a recording that goes well."""
    asked = ["sign", *(["forward_media", "forward_metadata"] if forwards else []), "remove"]
    return [VaultCall(11.0 + n, what, key, 200) for n, what in enumerate(asked)]


def good() -> History:
    """Two recordings, one of them forwarded, and every kind of poison; nothing is wrong."""
    return History(
        system="kafka",
        version="1",
        seed="0",
        duty=DUTY,
        events=[
            Event("sha-a", "a"),
            Event("sha-b", "b"),
            Event("sha-x", None, ("MalformedEvent",)),
            Event("sha-y", "y", ("UndecodableRecording",)),
            Event("sha-z", "z", ("RecordingNotFound",), retries=True, is_missing=True),
        ],
        results=[result("a"), result("b", count=0), result("a")],
        letters=[
            letter("sha-x"),
            letter("sha-y", "UndecodableRecording"),
            letter("sha-z", "RecordingNotFound", attempts=4),
        ],
        calls=[
            *calls("a", forwards=True),
            *calls("b", forwards=False),
            *[VaultCall(11.0, "blob", "z", 404) for _ in range(4)],
        ],
        present=["y"],
        is_settled=True,
        exits=[0, 0],
    )


EXPECTED = {
    "a": Expected("run-a", "body-a", 1),
    "b": Expected("run-b", "body-b", 0),
}


def to_hub(history: History) -> None:
    """As if the one that is forwarded went to Hub as well, as it must."""
    history.duty = replace(DUTY, forwards_hub=True)
    history.calls[:0] = [
        VaultCall(10.5, what, "a", 200) for what in ("forward_hub", "forward_detections")
    ]


def test_recording_that_hub_has_may_go() -> None:
    history = good()
    to_hub(history)
    assert check(history, EXPECTED) == []


def test_empty_history_has_nothing_wrong() -> None:
    empty = History("kafka", "1", "0", DUTY, is_settled=True)
    assert check(empty, {}) == []


def test_history_in_which_all_was_kept_has_no_finding() -> None:
    assert check(good(), EXPECTED) == []


def without_result(history: History) -> None:
    history.results = [result for result in history.results if result.key != "b"]
    history.calls = [call for call in history.calls if call.key != "b"]
    history.present.append("b")


def no_outcome(history: History) -> None:
    without_result(history)


def no_outcome_and_waiting(history: History) -> None:
    without_result(history)
    history.backlog, history.is_settled = ["sha-b"], False


def no_outcome_and_unsettled(history: History) -> None:
    without_result(history)
    history.is_settled = False


def poison_without_letter(history: History) -> None:
    history.letters = history.letters[1:]


def done_and_waiting(history: History) -> None:
    history.backlog, history.is_settled = ["sha-a"], False


def something_left(history: History) -> None:
    history.is_settled = False


def removed_without_result(history: History) -> None:
    history.results = [result for result in history.results if result.key != "b"]


def removed_before_result(history: History) -> None:
    history.results = [replace(result, sent_at=20.0) for result in history.results]


def gone_unasked(history: History) -> None:
    history.calls = [call for call in history.calls if call.key != "b"]


def removed_without_being_told(history: History) -> None:
    history.duty = replace(DUTY, removes=False)


def removed_while_forward_is_queued(history: History) -> None:
    history.duty = replace(DUTY, removes_forwarded=False)


def removed_before_forward(history: History) -> None:
    of_a = [call for call in history.calls if call.key == "a"]
    history.calls = [of_a[3], *of_a[:3], *[c for c in history.calls if c.key != "a"]]


def removed_after_refused_forward(history: History) -> None:
    history.calls = [
        replace(call, status=500) if call.what == "forward_media" else call
        for call in history.calls
    ]


def removed_before_metadata(history: History) -> None:
    late = VaultCall(30.0, "forward_metadata", "a", 200)
    history.calls = [c for c in history.calls if c.what != "forward_metadata"] + [late]


def removed_before_hub_had_it(history: History) -> None:
    to_hub(history)
    removal = next(c for c in history.calls if c.what == "remove" and c.key == "a")
    history.calls = [removal, *(c for c in history.calls if c is not removal)]


def removed_before_hub_had_the_detections(history: History) -> None:
    to_hub(history)
    history.calls = [c for c in history.calls if c.what != "forward_detections"]


def never_forwarded_to_hub(history: History) -> None:
    history.duty = replace(DUTY, forwards_hub=True, removes=False)
    history.calls = [call for call in history.calls if call.what != "remove"]
    history.present += ["a", "b"]


def poison_removed(history: History) -> None:
    history.calls.append(VaultCall(20.0, "remove", "y", 200))
    history.present = []


def two_run_ids(history: History) -> None:
    history.results.append(replace(result("a"), run_id="other", inner_run_id="other"))


def two_contents(history: History) -> None:
    history.results.append(replace(result("a"), body_sha="other"))


def header_and_body_differ(history: History) -> None:
    history.results[0] = replace(history.results[0], run_id="other")


def other_result(history: History) -> None:
    history.results = [replace(result, body_sha="other") for result in history.results]


def result_of_nothing(history: History) -> None:
    history.results.append(result("q", count=0))


def result_of_poison(history: History) -> None:
    history.results.append(result("y", count=0))


def unknown_to_the_run_without_faults(history: History) -> None:
    history.events.append(Event("sha-n", "n"))
    history.results.append(result("n", count=0))
    history.present.append("n")


def letter_of_good_event(history: History) -> None:
    history.letters.append(letter("sha-a", "VaultUnavailable"))


def late_copy_on_kafka(history: History) -> None:
    history.letters.append(letter("sha-a", "RecordingNotFound", 4))


def altered_letter(history: History) -> None:
    history.letters.append(letter("sha-altered"))


def other_error(history: History) -> None:
    history.letters[0] = letter("sha-x", "UndecodableRecording")


def given_up_too_soon(history: History) -> None:
    history.letters[2] = letter("sha-z", "RecordingNotFound", attempts=2)


def tried_too_often(history: History) -> None:
    history.calls += [VaultCall(12.0, "blob", "z", 404) for _ in range(4)]


def forward_missing(history: History) -> None:
    history.calls = [call for call in history.calls if call.what not in {"forward_media", "remove"}]
    history.present += ["a", "b"]


def forward_of_nothing_seen(history: History) -> None:
    history.calls.insert(0, VaultCall(9.0, "forward_media", "b", 200))


def repeated_in_transactions(history: History) -> None:
    history.duty = replace(DUTY, transactions=True)


def bad_exit(history: History) -> None:
    history.exits.append(1)


WRONG: list[tuple[Callable[[History], None], str]] = [
    (no_outcome, "lost"),
    (poison_without_letter, "lost"),
    (no_outcome_and_waiting, "stuck"),
    (no_outcome_and_unsettled, "stuck"),
    (done_and_waiting, "unsettled"),
    (something_left, "unsettled"),
    (removed_without_result, "removed too early"),
    (removed_before_result, "removed too early"),
    (gone_unasked, "removed too early"),
    (removed_without_being_told, "removed too early"),
    (removed_while_forward_is_queued, "removed too early"),
    (removed_before_forward, "removed too early"),
    (removed_after_refused_forward, "removed too early"),
    (removed_before_metadata, "removed too early"),
    (removed_before_hub_had_it, "removed too early"),
    (removed_before_hub_had_the_detections, "removed too early"),
    (never_forwarded_to_hub, "not forwarded"),
    (poison_removed, "removed too early"),
    (two_run_ids, "differing duplicates"),
    (two_contents, "differing duplicates"),
    (header_and_body_differ, "differing duplicates"),
    (other_result, "wrong result"),
    (result_of_nothing, "wrong result"),
    (result_of_poison, "wrong result"),
    (unknown_to_the_run_without_faults, "wrong result"),
    (letter_of_good_event, "unexpected dead letter"),
    (late_copy_on_kafka, "unexpected dead letter"),
    (altered_letter, "wrong dead letter"),
    (other_error, "wrong dead letter"),
    (given_up_too_soon, "wrong dead letter"),
    (tried_too_often, "attempts lost"),
    (forward_missing, "not forwarded"),
    (forward_of_nothing_seen, "forwarded without cause"),
    (repeated_in_transactions, "repeated in spite of transactions"),
    (bad_exit, "bad exit"),
]


@pytest.mark.parametrize(("damage", "kind"), WRONG, ids=[damage.__name__ for damage, _ in WRONG])
def test_each_broken_promise_is_found(damage: Callable[[History], None], kind: str) -> None:
    history = good()
    damage(history)
    assert kind in {finding.kind for finding in check(history, EXPECTED)}


def test_every_kind_of_finding_is_tried_above() -> None:
    assert {kind for _, kind in WRONG} == set(KINDS)


def test_copy_of_an_event_after_the_removal_may_become_a_letter() -> None:
    history = good()
    history.letters.append(letter("sha-a", "RecordingNotFound", 4))
    history.events[0] = replace(history.events[0], copies=2)
    assert check(history, EXPECTED) == []
    history.events[0] = replace(history.events[0], copies=1)
    history.system = "rabbitmq"  # may deliver what was acknowledged
    assert check(history, EXPECTED) == []
    history.present.append("a")  # but then it would have been looked at
    history.calls = [call for call in history.calls if call.what != "remove"]
    history.present.append("b")
    assert [f.kind for f in check(history, EXPECTED)] == ["unexpected dead letter"]


def test_faults_explain_uncounted_tries_but_not_endless_ones() -> None:
    history = good()
    history.faults = [Fault(1.0, "kill"), Fault(2.0, "failpoint retry.before")]
    history.calls += [VaultCall(12.0, "blob", "z", 404) for _ in range(2)]
    assert check(history, EXPECTED) == []
    history.calls.append(VaultCall(12.0, "blob", "z", 404))
    assert [f.kind for f in check(history, EXPECTED)] == ["attempts lost"]


def test_run_without_faults_says_what_is_expected() -> None:
    history = good()
    history.results.pop()  # the repeated one
    assert expectations(history) == EXPECTED


def test_run_without_faults_must_be_without_fault() -> None:
    repeated = good()
    with pytest.raises(ValueError, match="not without fault"):
        expectations(repeated)
    troubled = good()
    troubled.results.pop()
    troubled.faults = [Fault(1.0, "kill")]
    with pytest.raises(ValueError, match="not without fault"):
        expectations(troubled)
    broken = good()
    broken.results.pop()
    broken.letters.pop()
    with pytest.raises(ValueError, match="not without fault"):
        expectations(broken)


def test_history_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    history = good()
    history.faults = [Fault(1.0, "vault refuses", seconds=2.5)]
    history.save(tmp_path / "deep" / "seed.json.gz")
    assert History.load(tmp_path / "deep" / "seed.json.gz") == history


def test_a_seed_gives_the_same_plan_every_time() -> None:
    assert draw(7, 200, ("broker killed",)) == draw(7, 200, ("broker killed",))
    assert draw(7, 200, ("broker killed",)) != draw(8, 200, ("broker killed",))


def test_fifty_seeds_kill_at_every_place_and_bring_every_trouble() -> None:
    plans = [draw(number, 200, ("broker killed", "broker freezes")) for number in range(50)]
    places = {armed.partition("=")[0] for plan in plans for armed in plan.failpoints}
    assert places == set(NAMES)
    kinds = {act.kind for plan in plans for act in plan.acts}
    assert kinds >= {
        "kill", "freeze", "leave", "join", "vault refuses", "vault resets", "vault errs",
        "vault hangs", "broker killed", "broker freezes", "hub refuses", "hub errs",
    }  # fmt: skip
    assert any(plan.copies for plan in plans)
    assert all(plan.poison for plan in plans)
    assert any(plan.duty.remembers for plan in plans)
    assert not any(plan.duty.transactions for plan in plans)
    assert any(draw(n, 200, (), has_transactions=True).duty.transactions for n in range(3))
    assert any(plan.duty.removes and plan.duty.forwards_metadata for plan in plans)
