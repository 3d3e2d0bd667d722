"""Which of an entity's waiting events is sent next, and which are superseded and by what. Pure.

The order of an entity's events is the source's own; at the same moment a final state comes last, then what
arrived later. What comes before the newest that was sent is stale. Of the rest, an event is left out in
favour of the next one as its rule's `coalesce` allows, so that a run of one state is sent as its newest and
every change of state is kept.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
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


def plan(waiting: Sequence[Waiting], newest: Newest | None) -> Plan:
    """Decide about an entity of which nothing is on its way.

    `waiting` is in order of place and may be the beginning of a longer row.
    """
    superseded: list[Superseded] = []
    fresh: list[Waiting] = []
    for one in waiting:
        if newest is not None and one.place < newest.place:
            superseded.append(Superseded(one.event, newest.place.event))
        else:
            fresh.append(one)
    chosen: Waiting | None = None
    for run in _runs(fresh):
        superseded += [Superseded(one.event, run[-1].event) for one in run[:-1]]
        if chosen is None or chosen.failures >= GIVES_WAY:
            chosen = run[-1]
    return Plan(chosen, _rank(fresh, newest), tuple(superseded))


def number_for(*, order: int, fixed: int | None, last: int | None) -> int:
    """The number to send an event with, greater than all that its entity's other events were sent with.

    A retry keeps its number, so that a destination that took the event already ignores it; unless another
    event of the entity was sent in between.
    """
    if last is None:
        return order if fixed is None else fixed
    return last if fixed == last else max(order, last + 1)


def _runs(waiting: Iterable[Waiting]) -> Iterator[list[Waiting]]:
    """Neighbours of which only the last one has to be sent."""
    run: list[Waiting] = []
    for one in waiting:
        if run and not _may_be_left_out(run[-1], one):
            yield run
            run = []
        run.append(one)
    if run:
        yield run


def _rank(fresh: Sequence[Waiting], newest: Newest | None) -> Lane:
    lane = min((one.lane for one in fresh), default=Lane.LOW)
    state = None if newest is None else newest.state
    changes = state is None or any(one.state != state for one in fresh)
    return lane if changes else Lane(min(lane + 1, Lane.LOW))


def _may_be_left_out(one: Waiting, following: Waiting) -> bool:
    match one.coalesce:
        case Coalesce.TRANSITIONS:
            return one.state == following.state
        case Coalesce.LATEST:
            return True
        case Coalesce.OFF:
            return False
