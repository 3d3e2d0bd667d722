"""Notices when a clock steps: the slots of the quota and the leases are moments on the outbox's clock."""

import time
from collections.abc import Callable
from dataclasses import dataclass

UNEVEN = 1000
"""Two good clocks drift apart by less than this part of the time that goes by."""


# On Linux the time a machine sleeps counts too, as it does for the outbox's clock.
_UPTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def uptime() -> int:
    """Milliseconds since the machine started."""
    return time.clock_gettime_ns(_UPTIME) // 1_000_000


@dataclass(frozen=True)
class Reading:
    """The time, and whether the clock can be believed."""

    now: int
    stepped_ms: int = 0
    """How far the clock has jumped since the last reading, at least; negative for backwards, 0 for not."""


class Steady:
    """Compares the outbox's clock with one that never steps. One for each thread that claims."""

    def __init__(self, tolerance_ms: int, *, timer: Callable[[], int] = uptime) -> None:
        self._tolerance = tolerance_ms
        self._timer = timer
        # The distance between the two clocks lies between these, as of the last reading.
        self._least = self._most = 0
        self._read_at: int | None = None

    def read(self, clock: Callable[[], int]) -> Reading:
        """Read the clock, which may take its time; both edges of that time are known."""
        before = self._timer()
        now = clock()
        after = self._timer()
        least, most = now - after, now - before
        stepped = 0
        if self._read_at is not None:
            tolerance = self._tolerance + (after - self._read_at) // UNEVEN
            if least > self._most + tolerance:
                stepped = least - self._most
            elif most < self._least - tolerance:
                stepped = most - self._least
        self._least, self._most, self._read_at = least, most, after
        return Reading(now, stepped)
