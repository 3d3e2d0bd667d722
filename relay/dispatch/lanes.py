"""Which of the waiting events goes first. Pure.

Only the head of each lane is looked at, so that the choice costs the same however many wait.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from relay.dispatch.policy import MINUTE
from relay.model import Lane

AGEING_MS = 10 * MINUTE
"""What has waited so long moves up one lane, and after as long again another one."""

AGED_TURN = 4
"""Every so many claims, age counts. If it always did, a long backlog would soon be as urgent as an incident,
and go before it because it came earlier; if it never did, a stream of urgent events could starve the rest."""


@dataclass(frozen=True)
class Head:
    """The event of a lane that is due first."""

    event: int
    entity: bytes
    rank: Lane
    """The lane in which it queues."""
    due_at: int


def choose(heads: Sequence[Head], *, now: int, turn: int, unhurried_at: int, probing: bool) -> Head | int | None:
    """The head to claim now; or else when to look again; or None when nothing waits.

    `turn` counts the claims; before `unhurried_at` only urgent events may go (see `Quota.pace_ms`). A probe
    is whatever has waited longest, so that no event is the probe twice while others wait.
    """
    if probing:
        unhurried_at = now
    may_go = [head for head in heads if _from(head, unhurried_at) <= now]
    if not may_go:
        return min((_from(head, unhurried_at) for head in heads), default=None)
    if probing:
        return min(may_go, key=lambda head: (head.due_at, head.event))
    if turn % AGED_TURN == 0:
        return min(may_go, key=lambda head: (_aged(head, now), head.due_at, head.event))
    return min(may_go, key=lambda head: head.rank)


def _from(head: Head, unhurried_at: int) -> int:
    return head.due_at if head.rank is Lane.URGENT else max(head.due_at, unhurried_at)


def _aged(head: Head, now: int) -> int:
    return max(Lane.URGENT, head.rank - (now - head.due_at) // AGEING_MS)
