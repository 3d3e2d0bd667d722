"""Which of an entity's waiting events is sent next, and which are superseded and by what. Pure.

The order of an entity's events is the source's own; at the same moment a final state comes last, then what
arrived later. What comes before the newest that was sent is stale. Of the rest, an event is left out in
favour of the next one as its rule's `coalesce` allows, so that a run of one state is sent as its newest and
every change of state is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from relay.model import Coalesce, Lane

GIVES_WAY = 2
"""After so many failures an event lets the newer ones of its entity pass."""


class Place(NamedTuple):
    """An event's place in the order of its entity's events."""

    order: int
    """The source's own."""
    terminal: bool
    """A final state comes last among those of one moment."""
    event: int
    """The event's id: arrival decides the rest."""


@dataclass(frozen=True)
class Waiting:
    """One event that waits for its turn."""

    place: Place
    state: str | None
    coalesce: Coalesce
    lane: Lane
    failures: int
    due_at: int

    @property
    def event(self) -> int:
        """The event's id."""
        return self.place.event


@dataclass(frozen=True)
class Newest:
    """The newest event of an entity that was delivered, or sent and never answered."""

    place: Place
    state: str | None


@dataclass(frozen=True)
class Superseded:
    """An event that is not sent, and the newer one that makes it unnecessary."""

    event: int
    successor: int


@dataclass(frozen=True)
class Plan:
    """What to do with an entity's waiting events; those in neither field wait for another turn."""

    next: Waiting | None = None
    """The one to send next, perhaps not yet due; None when nothing waits."""
    rank: Lane = Lane.LOW
    """The lane in which it queues: that of the most urgent one behind it, or the one below that if nothing that
    waits changes the entity's state. So in a storm of updates what begins and what is over goes first."""
    superseded: tuple[Superseded, ...] = ()
    raised: Mapping[int, Lane] = field(default_factory=dict)
    """Events that stand for a more urgent one that was left out, and their lane from now on."""


def plan(waiting: Sequence[Waiting], newest: Newest | None) -> Plan:
    """Decide about an entity of which nothing is on its way.

    `waiting` is in order of place and may be the beginning of a longer row.
    """
    superseded: list[Superseded] = []
    raised: dict[int, Lane] = {}
    kept: list[Waiting] = []
    for one in reversed(waiting):
        if newest is not None and one.place < newest.place:
            superseded.append(Superseded(one.event, newest.place.event))
        elif kept and _may_be_left_out(one, following := kept[-1]):
            superseded.append(Superseded(one.event, following.event))
            if one.lane < following.lane:
                raised[following.event] = one.lane
                kept[-1] = replace(following, lane=one.lane)
        else:
            kept.append(one)
    kept.reverse()
    willing = (one for one in kept if one.failures < GIVES_WAY)
    chosen = next(willing, kept[-1] if kept else None)
    return Plan(chosen, _rank(kept, newest), tuple(superseded), raised)


def number_for(*, order: int, fixed: int | None, last: int | None) -> int:
    """The number to send an event with, greater than all that its entity's other events were sent with.

    A retry keeps its number, so that a destination that took the event already ignores it; unless another
    event of the entity was sent in between.
    """
    if last is None:
        return order if fixed is None else fixed
    return last if fixed == last else max(order, last + 1)


def _rank(kept: Sequence[Waiting], newest: Newest | None) -> Lane:
    lane = min((one.lane for one in kept), default=Lane.LOW)
    state = None if newest is None else newest.state
    changes = state is None or any(one.state != state for one in kept)
    return lane if changes else Lane(min(lane + 1, Lane.LOW))


def _may_be_left_out(one: Waiting, following: Waiting) -> bool:
    match one.coalesce:
        case Coalesce.TRANSITIONS:
            return one.state == following.state
        case Coalesce.LATEST:
            return True
        case Coalesce.OFF:
            return False
