"""The quota as arithmetic; that it holds is shown by the state machine and by real processes."""

import bisect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.dispatch.quota import Quota

COMPASS = Quota(limit=100, window_ms=60_000)


@pytest.mark.parametrize(
    ("text", "limit", "window_ms"),
    [("100/60s", 100, 60_000), (" 5/1s ", 5, 1000), ("3/0.5s", 3, 500), ("1000/3600", 1000, 3_600_000)],
)
def test_a_quota_is_written_as_requests_per_seconds(text: str, limit: int, window_ms: int):
    assert Quota.parse(text) == Quota(limit, window_ms)


@pytest.mark.parametrize(
    "text",
    ["", "100", "100/", "/60s", "0/60s", "-1/60s", "100/0s", "100/0.000s", "100/1m", "1e3/60s", "100/60s/2", "٣/60s"],
)
def test_anything_else_is_refused_with_a_remedy(text: str):
    with pytest.raises(ValueError, match="as 100/60s"):
        Quota.parse(text)


@given(st.integers(1, 999_999), st.integers(1, 99_999_999))
def test_a_quota_reads_back_as_it_was_written(limit: int, window_ms: int):
    quota = Quota(limit, window_ms)
    assert Quota.parse(str(quota)) == quota


def test_a_slot_is_held_for_a_window_and_a_margin():
    assert COMPASS.hold_ms == 60_500
    assert Quota(1, 1).hold_ms == 2


@given(st.lists(st.integers(1, 100), max_size=30), st.integers(1, 10))
def test_a_slot_is_free_as_soon_as_less_than_the_limit_are_held(held: list[int], limit: int):
    quota, held = Quota(limit, 1000), sorted(held)
    at = quota.free_at(held, now=0)
    assert sum(until > at for until in held) < limit
    assert at == 0 or sum(until > at - 1 for until in held) >= limit


@given(st.lists(st.integers(1, 90_000), max_size=100))
def test_nothing_is_paced_while_more_than_half_the_slots_are_free(held: list[int]):
    pace = COMPASS.pace_ms(sorted(held), now=0)
    assert (pace == 0) == (len(held) < 50)


@given(st.lists(st.integers(1, 90_500), min_size=50, max_size=100))
def test_at_that_pace_the_slots_never_run_out_for_long(held: list[int]):
    """Claims at an even pace from now on: whenever the slots run out, the next one is almost free."""
    held = sorted(min(until, COMPASS.hold_ms) for until in held)
    pace = COMPASS.pace_ms(held, now=0) + 1
    free = 100 - len(held)
    for nth, given_back in enumerate(held, start=1):
        # But for the margin, which the pace leaves to the slots.
        assert given_back / pace <= (free + nth) * COMPASS.hold_ms / COMPASS.window_ms


def _steady_state(took_ms: int, minutes: int) -> tuple[list[int], int]:
    """A backlog that is not urgent, alone: the moments of its claims, and the longest time without a free slot."""
    now, last, without = 0, -(10**9), 0
    claims: list[int] = []
    held: list[int] = []
    while now < minutes * 60_000:
        held = held[bisect.bisect_right(held, now) :]
        free_at = COMPASS.free_at(held, now)
        if free_at > now:
            without = max(without, free_at - now)
            now = free_at
            continue
        at = last + COMPASS.pace_ms(held, now)
        if at > now:
            now = at
            continue
        claims.append(now)
        last = now
        bisect.insort(held, now + took_ms + COMPASS.hold_ms)
    return claims, without


@pytest.mark.parametrize("took_ms", [0, 200, 500])
def test_a_backlog_uses_the_quota_in_full_and_an_urgent_event_soon_finds_a_slot(took_ms: int):
    claims, without = _steady_state(took_ms, minutes=10)
    assert len(claims) >= 0.98 * 10 * 100
    assert without <= 1300  # twice 60 s / 100, right after a burst; then half of that
    assert all(later - claim > 60_000 for claim, later in zip(claims, claims[100:], strict=False))


@given(st.integers(0, 500), st.lists(st.integers(1, 60_500), max_size=100))
def test_the_forecast_is_when_the_slots_allow_the_last_request(requests: int, held: list[int]):
    held = sorted(held)
    drained_at = COMPASS.drained_at(requests, held, now=0)
    now, sent = 0, 0
    while sent < requests:
        held = [until for until in held if until > now]
        if (at := COMPASS.free_at(held, now)) > now:
            now = at
            continue
        sent += 1
        bisect.insort(held, now + COMPASS.hold_ms)
    assert drained_at == now
