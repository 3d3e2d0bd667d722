"""Which lane's head goes first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.dispatch.lanes import AGED_TURN, AGEING_MS, Head, choose
from relay.model import Lane

NOW = 1_790_000_000_000


def head(rank: Lane, waited_ms: int = 0, event: int = 1) -> Head:
    return Head(event, b"entity", rank, NOW - waited_ms)


def chosen(*heads: Head, turn: int = 1, unhurried_at: int = 0, probing: bool = False) -> Head | int | None:
    return choose(heads, now=NOW, turn=turn, unhurried_at=unhurried_at, probing=probing)


def test_nothing_waits():
    assert chosen() is None


def test_the_more_urgent_lane_goes_first():
    urgent, normal, low = head(Lane.URGENT), head(Lane.NORMAL, 5000), head(Lane.LOW, 9000)
    assert chosen(low, normal, urgent) == urgent
    assert chosen(low, normal) == normal


def test_what_is_not_due_is_waited_for():
    assert chosen(head(Lane.URGENT, -700), head(Lane.LOW, -300)) == NOW + 300


def test_something_less_urgent_goes_while_the_urgent_is_not_due():
    low = head(Lane.LOW)
    assert chosen(head(Lane.URGENT, -700), low) == low


def test_at_this_pace_only_urgent_events_go():
    normal, urgent = head(Lane.NORMAL), head(Lane.URGENT)
    assert chosen(normal, unhurried_at=NOW + 600) == NOW + 600
    assert chosen(normal, urgent, unhurried_at=NOW + 600) == urgent


@pytest.mark.parametrize(
    ("waited_ms", "first"),
    [(AGEING_MS - 1, Lane.URGENT), (2 * AGEING_MS - 1, Lane.URGENT), (2 * AGEING_MS, Lane.LOW)],
)
def test_at_every_fourth_claim_ten_minutes_of_waiting_count_as_one_lane(waited_ms: int, first: Lane):
    heads = [head(Lane.URGENT), head(Lane.LOW, waited_ms)]
    for turn in range(8):
        expected = first if turn % AGED_TURN == 0 else Lane.URGENT
        got = chosen(*heads, turn=turn)
        assert isinstance(got, Head)
        assert got.rank is expected


def test_a_probe_is_what_has_waited_longest_whatever_its_lane_or_the_pace():
    low = head(Lane.LOW, 9000)
    assert chosen(head(Lane.URGENT, 100), low, unhurried_at=NOW + 600, probing=True) == low


@given(
    st.lists(st.builds(head, st.sampled_from(Lane), st.integers(-10_000, 3_000_000)), max_size=3),
    st.integers(0, 8),
    st.integers(NOW - 1000, NOW + 1000),
    st.booleans(),
)
def test_if_anything_may_go_something_goes(heads: list[Head], turn: int, unhurried_at: int, probing: bool):
    may_go = [one for one in heads if one.due_at <= NOW and (one.rank is Lane.URGENT or probing or unhurried_at <= NOW)]
    match chosen(*heads, turn=turn, unhurried_at=unhurried_at, probing=probing):
        case Head() as one:
            assert one in may_go
        case int() as until:
            assert not may_go
            assert until > NOW
        case None:
            assert not heads
