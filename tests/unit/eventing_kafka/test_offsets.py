"""What may be committed of a partition, against a model that remembers every offset."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from eventing_kafka.offsets import AHEAD_MAX, METADATA_MAX, Offsets


class OffsetsMachine(RuleBasedStateMachine):
    """Records arrive with gaps, are settled in any order; a crash goes back to what was committed."""

    def __init__(self) -> None:
        super().__init__()
        self.offsets = Offsets(100)
        self.next = 100
        self.log: list[int] = []  # every record of the partition
        self.unsettled: set[int] = set()
        self.settled: set[int] = set()
        self.committed = (100, "")
        self.settled_at_commit: set[int] = set()

    @rule(gap=st.integers(0, 3), count=st.integers(1, 5))
    def arrive(self, gap: int, count: int) -> None:
        self.next += gap
        for _ in range(count):
            self.log.append(self.next)
            assert self.offsets.arrived(self.next)
            self.unsettled.add(self.next)
            self.next += 1

    @precondition(lambda self: self.unsettled)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(self.unsettled)))
        self.unsettled.discard(offset)
        self.settled.add(offset)
        self.offsets.settle(offset)

    @precondition(lambda self: self.log)
    @rule(data=st.data())
    def comes_again(self, data: st.DataObject) -> None:
        assert not self.offsets.arrived(data.draw(st.sampled_from(self.log)))

    @rule()
    def commit(self) -> None:
        self.committed = (self.offsets.position, self.offsets.metadata())
        self.settled_at_commit = set(self.settled)

    @rule()
    def crash(self) -> None:
        """Everything is read again from the commit: what it says settled is not given again, all else is."""
        self.offsets = Offsets(*self.committed)
        again = {offset for offset in self.log if offset >= self.committed[0] and self.offsets.arrived(offset)}
        assert again == set(self.log) - self.settled_at_commit
        self.unsettled, self.settled = again, set(self.settled_at_commit)

    @rule(ahead=st.integers(1, 8))
    def retention(self, ahead: int) -> None:
        """The broker drops the oldest; what was handed out of it may still be settled."""
        first = min(self.offsets.position + ahead, self.next)
        self.offsets.skip_to(first)
        self.log = [offset for offset in self.log if offset >= first]
        self.settled |= {offset for offset in self.unsettled if offset < first}
        self.unsettled -= self.settled
        self.commit()

    @invariant()
    def never_passes_an_unsettled_one(self) -> None:
        assert all(offset >= self.offsets.position for offset in self.unsettled)
        assert len(self.offsets.metadata()) <= METADATA_MAX

    @invariant()
    def is_nowhere_behind(self) -> None:
        """The position is as high as it may be, and what is left counts what is not settled."""
        if self.unsettled:
            assert self.offsets.position == min(self.unsettled)
            assert self.next - self.offsets.position - self.offsets.settled_beyond >= len(self.unsettled)
        else:
            assert self.offsets.position >= max(self.settled, default=0)


TestOffsets = OffsetsMachine.TestCase
TestOffsets.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.sets(st.integers(1, AHEAD_MAX - 1)))
def test_all_that_may_be_settled_ahead_fits_the_metadata(ahead: set[int]) -> None:
    offsets = Offsets(5)
    for offset in range(5, 5 + AHEAD_MAX):
        assert offsets.arrived(offset)
    for offset in ahead:
        offsets.settle(5 + offset)
    text = offsets.metadata()
    assert len(text) <= METADATA_MAX
    read = Offsets(5, text)
    assert {offset for offset in range(5, 5 + AHEAD_MAX) if not read.arrived(offset)} == {5 + offset for offset in ahead}


def test_what_is_too_much_for_the_metadata_is_left_out_from_the_far_end() -> None:
    offsets = Offsets(0)
    for offset in range(40_000):
        offsets.arrived(offset)
        if offset:
            offsets.settle(offset)
    text = offsets.metadata()
    assert len(text) <= METADATA_MAX
    again = Offsets(0, text)
    assert again.arrived(0)
    assert not any(again.arrived(offset) for offset in range(1, 24_000))


def test_metadata_of_somebody_else_says_nothing() -> None:
    for text in ("", "hello", "1:", "1:?!", "2:AAAA", '{"v":1}'):
        offsets = Offsets(3, text)
        assert (offsets.position, offsets.settled_beyond) == (3, 0)
