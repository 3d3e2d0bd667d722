"""A step of the clock is noticed; nothing else is taken for one."""

import time

from hypothesis import given
from hypothesis import strategies as st

from relay.dispatch.steady import Reading, Steady, uptime
from relay.outbox import machine_clock


class Clocks:
    """A clock and a timer that are turned by hand; reading the clock may take its time."""

    def __init__(self) -> None:
        self.timer = 5_000
        self.offset = 1_790_000_000_000
        self.takes = (0, 0)

    def clock(self) -> int:
        self.timer += self.takes[0]
        now = self.timer + self.offset
        self.timer += self.takes[1]
        return now


def test_the_first_reading_knows_nothing():
    clocks = Clocks()
    assert Steady(250, timer=lambda: clocks.timer).read(clocks.clock) == Reading(1_790_000_005_000)


@given(
    st.lists(st.tuples(st.integers(0, 10_000_000), st.integers(0, 5000), st.integers(0, 5000), st.integers(-250, 250))),
)
def test_slow_reading_and_small_corrections_are_no_steps(readings: list[tuple[int, int, int, int]]):
    clocks = Clocks()
    steady = Steady(250, timer=lambda: clocks.timer)
    steady.read(clocks.clock)
    for passes, before, after, corrected in readings:
        clocks.timer += passes
        clocks.offset += corrected
        clocks.takes = (before, after)
        assert steady.read(clocks.clock).stepped_ms == 0


@given(st.integers(0, 60_000), st.integers(500, 10**12) | st.integers(-(10**12), -500))
def test_a_step_is_noticed_once_and_told_by_its_size(passes: int, step: int):
    clocks = Clocks()
    steady = Steady(250, timer=lambda: clocks.timer)
    steady.read(clocks.clock)
    clocks.timer += passes
    clocks.offset += step
    assert steady.read(clocks.clock) == Reading(clocks.timer + clocks.offset, step)
    assert steady.read(clocks.clock).stepped_ms == 0


def test_two_clocks_that_drift_apart_for_an_hour_are_no_step():
    clocks = Clocks()
    steady = Steady(250, timer=lambda: clocks.timer)
    steady.read(clocks.clock)
    clocks.timer += 3_600_000
    clocks.offset += 1800  # half a thousandth
    assert steady.read(clocks.clock).stepped_ms == 0


def test_the_clocks_of_this_machine_do_not_step_by_themselves():
    steady = Steady(4)
    for _ in range(200):
        assert steady.read(machine_clock).stepped_ms == 0
        time.sleep(0.001)
    assert uptime() > 0
