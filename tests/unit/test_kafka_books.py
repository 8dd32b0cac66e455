"""The books of a partition: attempts in the commit's text, offers, confirmations."""

from __future__ import annotations

from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault_ml.brokers.kafka.attempts import METADATA_LIMIT_BYTES, Attempt, decode, encode
from vault_ml.brokers.kafka.partition import Partition, Settling

attempts_by_offset = st.dictionaries(
    st.integers(0, 2**63 - 1),
    st.builds(Attempt, st.integers(1, 10**6), st.integers(0, 2**33).map(float)),
    max_size=300,
)


def test_no_attempts_are_no_text() -> None:
    assert encode({}) == ""
    assert decode("") == {}
    assert decode(None) == {}


@given(attempts_by_offset)
def test_the_text_fits_and_tells_no_more_than_was_counted(attempts: dict[int, Attempt]) -> None:
    text = encode(attempts)
    assert len(text.encode()) <= METADATA_LIMIT_BYTES
    assert text.isascii()
    assert decode(text).items() <= attempts.items()


@given(attempts_by_offset.filter(lambda attempts: len(attempts) <= 60))
def test_what_fits_comes_back_whole(attempts: dict[int, Attempt]) -> None:
    assert decode(encode(attempts)) == attempts


def test_the_highest_counts_are_kept_when_there_is_no_room() -> None:
    attempts = {offset: Attempt(1 + offset % 5, 1.0) for offset in range(1000)}
    kept = decode(encode(attempts))
    assert 100 < len(kept) < 1000
    assert min(attempt.number for attempt in kept.values()) >= 4
    assert encode({1: Attempt(2, 1.0)}, limit_bytes=0) == ""


@pytest.mark.parametrize(
    "text",
    ["not JSON", "[]", "{}", '{"vault-ml":[]}', '{"vault-ml":{"x":[1,2]}}', "[" * 5000, '"text"',
     '{"vault-ml":{"1":[1]}}', '{"vault-ml":{"1":null}}', '{"vault-ml":{"1":[1e999,0]}}'],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_a_strange_text_is_no_attempts(text: str) -> None:
    assert decode(text) == {}


def acked() -> Settling:
    return Settling(Future())


def test_nothing_received_is_nothing_to_commit() -> None:
    assert Partition("q", 0, '{"vault-ml":{"7":[2,1]}}').offer() is None


def test_what_is_received_and_not_finished_is_not_offered() -> None:
    partition = Partition("q", 0)
    partition.receive(5)
    assert partition.offer() is None


def test_a_count_is_offered_without_moving() -> None:
    partition = Partition("q", 0)
    partition.receive(5)
    partition.set_attempt(5, Attempt(2, 9.0))
    assert partition.offer() == (5, '{"vault-ml":{"5":[2,9]}}')
    assert partition.confirm(5) == []
    assert partition.offer() is None, "it is committed"


def test_a_confirmed_commit_settles_what_it_passed_and_is_not_offered_again() -> None:
    partition = Partition("q", 0)
    futures = {offset: acked() for offset in (5, 6, 9)}
    for offset in (5, 6, 9, 10):
        partition.receive(offset)
    partition.finish(6, futures[6])
    partition.finish(9, futures[9])
    assert partition.offer() is None
    partition.finish(5, futures[5])
    assert partition.offer() == (10, "")
    assert partition.offer() == (10, ""), "offered until it is confirmed"
    assert partition.confirm(10) == [futures[5].future, futures[6].future, futures[9].future]
    assert partition.offer() is None
    assert partition.window == 1


def test_a_late_confirmation_settles_only_what_it_passed() -> None:
    partition = Partition("q", 0)
    one, two = acked(), acked()
    partition.receive(1)
    partition.receive(2)
    partition.finish(1, one)
    assert partition.offer() == (2, "")
    partition.finish(2, two)
    assert partition.offer() == (3, "")
    assert partition.confirm(2) == [one.future]
    assert partition.offer() == (3, ""), "still to be confirmed"
    assert partition.confirm(3) == [two.future]


def test_counts_of_the_last_owner_go_on_and_old_ones_are_dropped() -> None:
    text = encode({3: Attempt(4, 1.0), 7: Attempt(2, 5.0), 8: Attempt(3, 6.0)})
    partition = Partition("q", 0, text)
    partition.receive(7)
    assert partition.attempt(7, now=99.0) == Attempt(2, 5.0)
    assert partition.attempt(9, now=99.0) == Attempt(1, 99.0)
    partition.finish(7, acked())
    assert partition.offer() == (8, encode({8: Attempt(3, 6.0)}))


def test_what_is_lost_is_given_back_unsettled() -> None:
    partition = Partition("q", 3)
    settling = acked()
    partition.receive(1)
    partition.finish(1, settling)
    assert partition.lose() == [settling.future]
    assert partition.is_lost
    assert partition.lose() == []
    assert partition.name(1) == "q[3]@1"


def test_a_log_that_was_cut_off_is_noticed() -> None:
    partition = Partition("q", 0)
    assert not partition.goes_back(0)
    partition.receive(5)
    assert partition.goes_back(5)
    assert partition.goes_back(2)
    assert not partition.goes_back(6)
