"""An entity's events in the outbox: which one is next, which was the newest, which numbers were given out.

The event that is to be sent next is `ready`; those behind it are not, so that a claim never wades through
them. New events come in ready, and the first claim that meets one puts its entity in order.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from relay.dispatch.lanes import Head
from relay.dispatch.plan import Newest, Place, Plan, Waiting, number_for, plan
from relay.model import Coalesce, Lane
from relay.outbox import Outbox

BATCH = 500
"""How many of an entity's waiting events are looked at together."""

SOON_MS = 1000
"""So much later an entity is looked at again of which somebody else holds an event."""


@dataclass(frozen=True)
class Ahead:
    """How much waits for a destination."""

    waiting: int
    """Events."""
    requests: int
    """Requests that they come to, after superseding."""
    later: int
    """Of these, how many are not due yet."""


def heads(connection: sa.Connection, outbox: Outbox, destination: str) -> list[Head]:
    """The event of each lane that is due first, but for those that somebody else's transaction holds."""
    question = _HEAD if outbox.sqlite else _FREE_HEAD
    lanes = ({"destination": destination, "rank": rank.value} for rank in Lane)
    rows = (connection.execute(question, lane).one_or_none() for lane in lanes)
    return [Head(row.id, row.entity, Lane(row.rank), row.due_at) for row in rows if row is not None]


def hold(connection: sa.Connection, outbox: Outbox, destination: str, entity: bytes) -> bool:
    """Lock an entity's waiting events; False when somebody else's transaction holds one of them.

    Nothing of ours does: all that changes events which wait takes the destination's lock first. A person who
    mends rows by hand may, for hours, and nothing but that entity shall wait for it. Only the first BATCH are
    looked at. What is settled meanwhile waits, and is tried again, until its lease is lost: so for half a
    minute a destination may be slow, if one of the entity's events was on its way.
    """
    if outbox.sqlite:
        return True  # Whoever may write is alone.
    return bool(connection.scalar(_HOLD, {"destination": destination, "entity": entity, "batch": BATCH}))


def put_off(connection: sa.Connection, head: Head, now: int) -> None:
    """Look at it again a little later, and at others first."""
    connection.execute(_PUT_OFF, {"event": head.event, "due_at": now + SOON_MS})


def arrange(connection: sa.Connection, destination: str, entity: bytes, now: int) -> Plan:
    """Put an entity's waiting events in order: what is left out is superseded, one is ready, the rest wait.

    There is no next one while one of them is on its way.
    """
    here = {"destination": destination, "entity": entity}
    if connection.scalar(_ON_ITS_WAY, here) is not None:
        connection.execute(_PARK, {**here, "event": 0})
        return Plan()
    row = connection.execute(_NEWEST, here).one_or_none()
    newest = None if row is None else Newest(_place(row), row.state)
    while True:
        rows = connection.execute(_WAITING, {**here, "batch": BATCH}).all()
        waiting = [_waiting(row) for row in rows]
        decided = plan(waiting, newest)
        if decided.superseded:
            left_out = [{"event": one.event, "successor": one.successor, "now": now} for one in decided.superseded]
            connection.execute(_SUPERSEDE, left_out)
        if decided.raised:
            raised = [{"event": event, "lane": lane.value} for event, lane in decided.raised.items()]
            connection.execute(_RAISE, raised)
        undecided = decided.next is None or decided.next.event == waiting[-1].event
        if not (undecided and decided.superseded and len(waiting) == BATCH):
            break
    if decided.next is not None:
        ready = {**here, "event": decided.next.event, "rank": decided.rank.value}
        settled = {decided.next.event, *(one.event for one in decided.superseded)}
        others = [{"event": row.id} for row in rows if row.ready and row.id not in settled]
        if len(rows) == BATCH:
            connection.execute(_PARK, ready)
        elif others:
            # Only what was looked at: what another process stores meanwhile may be one to go first.
            connection.execute(_PARK_ONE, others)
        connection.execute(_READY, ready)
    return decided


def take_number(connection: sa.Connection, destination: str, entity: bytes, event: int, now: int) -> int:
    """The number to send an event with: the one it has, or a new one that is greater than all before."""
    here = {"destination": destination, "entity": entity}
    row = connection.execute(_NUMBERED, {"event": event}).one()
    last = connection.scalar(_LAST_NUMBER, here)
    number = number_for(order=row.source_order, fixed=row.number, last=last)
    connection.execute(_KEEP_NUMBER, {**here, "number": number, "now": now})
    return number


def move_on(connection: sa.Connection, event: int, now: int) -> None:
    """The event was delivered, or perhaps was: nothing older of its entity is sent from now on."""
    connection.execute(_MOVE_ON, {"event": event, "now": now})


def look_ahead(connection: sa.Connection, destination: str, now: int) -> Ahead:
    """What waits for a destination, and what it comes to. Its cost grows with what waits: some 10 µs for each."""
    row = connection.execute(_LOOK_AHEAD, {"destination": destination, "now": now}).one()
    return Ahead(row.waiting, row.requests, row.later)


def _place(row: sa.Row[tuple[object, ...]]) -> Place:
    return Place(row.source_order, bool(row.terminal), row.id)


def _waiting(row: sa.Row[tuple[object, ...]]) -> Waiting:
    return Waiting(
        place=_place(row),
        state=row.state,
        coalesce=Coalesce(row.coalesce),
        lane=Lane(row.lane),
        failures=row.failures,
        due_at=row.due_at,
    )


_HEAD = sa.text("""
SELECT id, entity, rank, due_at FROM events
WHERE destination = :destination AND rank = :rank AND status = 'pending' AND ready = 1
ORDER BY due_at, id
LIMIT 1
""")

_FREE_HEAD = sa.text(f"{_HEAD.text} FOR UPDATE SKIP LOCKED")

_HOLD = sa.text("""
WITH free AS (
    SELECT id FROM events
    WHERE destination = :destination AND entity = :entity AND status = 'pending'
    ORDER BY source_order, terminal, id
    LIMIT :batch
    FOR UPDATE SKIP LOCKED
), waiting AS (
    SELECT id FROM events
    WHERE destination = :destination AND entity = :entity AND status = 'pending'
    ORDER BY source_order, terminal, id
    LIMIT :batch
)
SELECT NOT EXISTS (SELECT id FROM waiting EXCEPT SELECT id FROM free)
""")

_PUT_OFF = sa.text("UPDATE events SET due_at = :due_at WHERE id = :event")

_ON_ITS_WAY = sa.text("""
SELECT id FROM events WHERE destination = :destination AND entity = :entity AND status = 'sending'
""")

_NEWEST = sa.text("""
SELECT source_order, terminal, event_id AS id, state FROM entities
WHERE destination = :destination AND entity = :entity AND event_id IS NOT NULL
""")

_WAITING = sa.text("""
SELECT id, source_order, terminal, state, coalesce, lane, failures, due_at, ready FROM events
WHERE destination = :destination AND entity = :entity AND status = 'pending'
ORDER BY source_order, terminal, id
LIMIT :batch
""")

_SUPERSEDE = sa.text("""
UPDATE events SET status = 'superseded', successor_id = :successor, settled_at = :now WHERE id = :event
""")

_RAISE = sa.text("UPDATE events SET lane = :lane WHERE id = :event")

_PARK = sa.text("""
UPDATE events SET ready = 0
WHERE destination = :destination AND entity = :entity AND status = 'pending' AND ready = 1 AND id <> :event
""")

_PARK_ONE = sa.text("UPDATE events SET ready = 0 WHERE id = :event")

_READY = sa.text("""
UPDATE events SET ready = 1, rank = :rank WHERE id = :event AND (ready = 0 OR rank <> :rank)
""")

_NUMBERED = sa.text("SELECT source_order, number FROM events WHERE id = :event")

_LAST_NUMBER = sa.text("""
SELECT number FROM entities WHERE destination = :destination AND entity = :entity
""")

_KEEP_NUMBER = sa.text("""
INSERT INTO entities (destination, entity, number, touched_at)
VALUES (:destination, :entity, :number, :now)
ON CONFLICT (destination, entity) DO UPDATE SET number = excluded.number, touched_at = excluded.touched_at
""")

_MOVE_ON = sa.text("""
INSERT INTO entities (destination, entity, source_order, terminal, event_id, state, touched_at)
SELECT destination, entity, source_order, terminal, id, state, :now FROM events WHERE id = :event
ON CONFLICT (destination, entity) DO UPDATE
SET source_order = excluded.source_order, terminal = excluded.terminal, event_id = excluded.event_id,
    state = excluded.state, touched_at = excluded.touched_at
WHERE entities.event_id IS NULL
   OR (excluded.source_order, excluded.terminal, excluded.event_id)
    > (entities.source_order, entities.terminal, entities.event_id)
""")

# The same decisions as `relay.dispatch.plan`, for all entities at once.
_LOOK_AHEAD = sa.text("""
WITH fresh AS (
    SELECT e.entity, e.source_order, e.terminal, e.id, e.state, e.coalesce AS mode, e.failures, e.due_at,
           lead(e.id) OVER (PARTITION BY e.entity ORDER BY e.source_order, e.terminal, e.id) AS next_id
    FROM events e
    LEFT JOIN entities n ON n.destination = e.destination AND n.entity = e.entity
    WHERE e.destination = :destination AND e.status = 'pending'
      AND (n.event_id IS NULL OR (e.source_order, e.terminal, e.id) >= (n.source_order, n.terminal, n.event_id))
), kept AS (
    SELECT due_at, state, mode,
           lead(id) OVER line AS next_id,
           lead(state) OVER line AS next_state
    FROM fresh
    WHERE next_id IS NULL OR (failures < 2 AND mode <> 'latest')
    WINDOW line AS (PARTITION BY entity ORDER BY source_order, terminal, id)
)
SELECT (SELECT count(*) FROM events WHERE destination = :destination AND status = 'pending') AS waiting,
       count(*) AS requests,
       coalesce(sum(CASE WHEN due_at > :now THEN 1 ELSE 0 END), 0) AS later
FROM kept
WHERE next_id IS NULL OR mode = 'off'
   OR state <> next_state OR (state IS NULL) <> (next_state IS NULL)
""")
