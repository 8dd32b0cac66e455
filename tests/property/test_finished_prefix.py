"""The finished prefix against a model that is too simple to be wrong."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vault_ml.brokers.offsets import FinishedPrefix


class PrefixMachine(RuleBasedStateMachine):
    """Receives with gaps, finishes in any order; the model keeps two plain lists."""

    def __init__(self) -> None:
        super().__init__()
        self.prefix = FinishedPrefix()
        self.received: list[int] = []
        self.done: set[int] = set()
        self.next = 0
        self.highest_position = -1

    @initialize(start=st.integers(0, 2**40))
    def begin_anywhere(self, start: int) -> None:
        self.next = start

    @rule(gap=st.sampled_from([0, 0, 0, 1, 7, 1000]))
    def receive(self, gap: int) -> None:
        offset = self.next + gap
        self.prefix.receive(offset)
        self.received.append(offset)
        self.next = offset + 1

    @precondition(lambda self: len(self.done) < len(self.received))
    @rule(data=st.data())
    def finish_any(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from([o for o in self.received if o not in self.done]))
        self.prefix.finish(offset)
        self.done.add(offset)

    @precondition(lambda self: self.done)
    @rule(data=st.data())
    def finishing_twice_is_refused(self, data: st.DataObject) -> None:
        with pytest.raises(ValueError, match="not in our hands"):
            self.prefix.finish(data.draw(st.sampled_from(sorted(self.done))))

    @rule(back=st.integers(1, 50))
    def offsets_never_go_back(self, back: int) -> None:
        if self.received:
            with pytest.raises(ValueError, match="came after"):
                self.prefix.receive(self.received[-1] + 1 - back)

    @invariant()
    def nothing_unfinished_is_below_the_position(self) -> None:
        position = self.prefix.position
        if not self.received:
            assert position is None
            return
        assert position is not None
        assert all(o in self.done for o in self.received if o < position)
        assert position >= self.highest_position
        self.highest_position = position

    @invariant()
    def the_position_is_as_far_as_it_can_be(self) -> None:
        expected = self.received[0] if self.received else None
        for offset in self.received:
            if offset not in self.done:
                break
            expected = offset + 1
        assert self.prefix.position == expected

    @invariant()
    def the_window_is_what_a_crash_would_bring_back(self) -> None:
        position = self.prefix.position or 0
        assert self.prefix.window == len([o for o in self.received if o >= position])

    @invariant()
    def exactly_the_open_ones_are_unfinished(self) -> None:
        for offset in self.received:
            assert self.prefix.is_unfinished(offset) == (offset not in self.done)
        assert not self.prefix.is_unfinished(self.next)


TestFinishedPrefix = PrefixMachine.TestCase
TestFinishedPrefix.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_negative_offset_is_refused() -> None:
    with pytest.raises(ValueError, match="offset -1"):
        FinishedPrefix().receive(-1)


def test_an_offset_never_received_cannot_finish() -> None:
    with pytest.raises(ValueError, match="offset 3 is not in our hands"):
        FinishedPrefix().finish(3)
