"""The destination's quota: so many requests in any window of so long, never one more, hardly one less.

Why it is never more. Every request needs a slot, taken under a lock that all claims of the destination share.
A slot is held from the claim until one window, and a margin, after the request's end: the answer, or the
lease's end where none came. Suppose one request more than the limit reached the destination within one window
of its own clock, and look at the one of them that was claimed last, at c. It arrived at c or later. Each of
the others arrived less than a window before that, or after it, and ended no sooner than it arrived; so its
slot is held beyond c. It was taken before c. So at c all slots were held, and the claim cannot have happened.

What this rests on:
- a request reaches the destination between its claim and its end. A lease outlasts the latest moment of
  writing and the total deadline of a request together (`relay.destinations.Limits`), nothing is retried or
  redirected below us, and where no answer came the end is the lease's end;
- within one window the outbox's clock and the destination's differ by less than the margin. A clock that
  steps is noticed before the next claim (`relay.dispatch.steady`), and everybody pauses;
- everybody who spends this quota shares this outbox. Somebody else with the same token shows as a 429.
Processes may come, go and crash as they like: the slots are rows of the database.

Why hardly less: a slot is out of use for the window, the margin and one answer's time, so with 100 in 60 s
and answers after 0.2 s, 98.8 in 60 s are sent while a backlog lasts.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

MARGIN = 120
"""The margin for clocks that run unevenly is this part of a window."""

_QUOTA = re.compile(r"(?P<limit>[1-9]\d{0,5})/(?P<seconds>\d{1,5}(?:\.\d{1,3})?)s?")


@dataclass(frozen=True)
class Quota:
    """At most `limit` requests in any `window_ms` milliseconds."""

    limit: int
    window_ms: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """A quota written as `100/60s`: requests per seconds.

        Raises ValueError with a remedy.
        """
        match = _QUOTA.fullmatch(text.strip())
        if match is None or not float(match["seconds"]):
            raise ValueError(f"{text!r} is not a quota; write requests per seconds, as 100/60s")
        return cls(int(match["limit"]), round(float(match["seconds"]) * 1000))

    def __str__(self) -> str:
        seconds = f"{self.window_ms / 1000:.3f}".rstrip("0").rstrip(".")
        return f"{self.limit}/{seconds}s"

    @property
    def margin_ms(self) -> int:
        """How much longer than a window a slot is held, for clocks that run unevenly."""
        return -(-self.window_ms // MARGIN)

    @property
    def hold_ms(self) -> int:
        """How long a slot is held after its request's end."""
        return self.window_ms + self.margin_ms

    def free_at(self, held: Sequence[int], now: int) -> int:
        """When the next slot can be taken: `now`, or later if as many as the limit are held.

        `held` are the moments until which slots are held, in order.
        """
        beyond = len(held) - self.limit
        return now if beyond < 0 else held[beyond]

    def pace_ms(self, held: Sequence[int], now: int) -> int:
        """How long one claim that is not urgent keeps away from the one before it.

        Nothing while more than half the slots are free. Then the fastest even pace at which the free slots,
        and those that are given back on the way, never run out. So an urgent event finds a slot at once or
        very soon: where the quota is used in full, one is given back every `window / limit`. And it is used in
        full all the same, because at that pace the last free slot is taken as the next one is given back.
        """
        if 2 * len(held) < self.limit:
            return 0
        free = self.limit - len(held)
        # A request under way counts as though its answer came now.
        back = (min(until - now, self.hold_ms) for until in held)
        slowest = max(wait / max(1, free + nth) for nth, wait in enumerate(back, start=1))
        # Without the margin: the slots keep the bound, the pace need not.
        return int(slowest * self.window_ms / self.hold_ms)

    def drained_at(self, requests: int, held: Sequence[int], now: int) -> int:
        """When the last of so many requests can be sent, if each is answered at once."""
        if requests < 1:
            return now
        free = max(0, self.limit - len(held))
        slots = [now] * free + [max(now, until) for until in held[-(self.limit - free) :]]
        rounds, nth = divmod(requests - 1, self.limit)
        return sorted(slots)[nth] + rounds * self.hold_ms
