"""kill -9 among 200 events: every event has its result, nothing was removed before it."""

from __future__ import annotations

import pytest

from conftest import shared_file
from e2e.stand import Stand, recording_name, wait_for

EVENTS = 200


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_event_has_its_result_and_no_recording_went_before_it(
    stand: Stand, small_model: str
) -> None:
    results = stand.reader(stand.target)
    letters = stand.reader(f"{stand.queue}.dlq")
    clip = shared_file("video/one_person_5s_768x432_10fps.mp4").read_bytes()
    keys = {stand.store(recording_name(n), clip) for n in range(EVENTS)}
    variables = {
        "MODEL": small_model,
        "REMOVE_AFTER_PROCESSED": "true",
        "NUMBER_OF_PREDICTIONS": "1",
        "KAFKA_OPTIONS": "session.timeout.ms=6000",
    }
    kills = 0
    worker = stand.worker("worker-0", **variables)
    for share in (0.25, 0.5, 0.75):
        wait_for(
            lambda share=share: len(results.keys()) >= EVENTS * share,  # type: ignore[misc]
            120,
            f"{share:.0%} of the results; {worker.output()[-3000:]}",
        )
        worker.kill()
        kills += 1
        # Whatever is gone from the Vault now was published before: nothing runs any more, so
        # what the reader does not have yet is at most on its way.
        gone = {key for key in keys if not stand.vault.has(key)}
        wait_for(lambda gone=gone: gone <= results.keys(), 20, "removed, but no result")  # type: ignore[misc]
        worker = stand.worker(f"worker-{kills}", **variables)
    wait_for(lambda: results.keys() == keys, 200, worker.output()[-3000:])
    assert worker.stop() == 0
    assert letters.messages == []
    # A crash between settling and removing leaves a recording too many, never one too few.
    left = sum(stand.vault.has(key) for key in keys)
    assert left <= kills * 20, "more left than was in flight"

    # A redelivered event comes to the same result, to the letter.
    bodies: dict[str, set[bytes]] = {}
    for message in results.messages:
        bodies.setdefault(message.headers["vault-ml-run-id"], set()).add(message.body)
    assert len(bodies) == EVENTS
    assert all(len(variants) == 1 for variants in bodies.values())
    repeated = len(results.messages) - EVENTS
    assert repeated <= kills * 20, "more repeated than was in flight"
