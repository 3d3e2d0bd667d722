"""The direct intake's side of the outbox: many events in one transaction, and what was answered to which key.

A script posts thousands of events at once, seldom. So here the rows go to the database in bulk, and nobody shares
a commit with anybody. What is posted again under one key is answered with the same events.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from relay.model import Arrival, Coalesce, Event, EventStatus, Lane, Translated
from relay.outbox import Outbox
from relay.outbox.rows import event_row, last_id, webhook_row
from relay.outbox.tables import events, webhooks
from relay.outbox.views import EVENT, EventView, as_view

AT_ONCE = 500
"""How many ids are asked for in one question: databases limit the values of a statement."""


@dataclass(frozen=True)
class Key:
    """What a sender calls a request, so that it may repeat it."""

    name: bytes
    """16-byte digest of its Idempotency-Key."""
    body: bytes
    """16-byte digest of the body's JSON."""


@dataclass(frozen=True)
class Element:
    """An event as it is shown to scripts."""

    event: EventView
    body: Mapping[str, Any]
    others: tuple[int, ...] = ()
    """The ids of the events that the same webhook, or the same calendar event, became as well."""
    posted: Any = None
    """The calendar event that was posted, where this is the first of the events that it became."""


@dataclass(frozen=True)
class Answered:
    """A request by this name was answered before."""

    events: tuple[int, ...]
    """The ids that its elements were answered with, in their order."""
    same: bool
    """False when it had another body."""


def append(
    outbox: Outbox, elements: Sequence[Event | Arrival], *, now: int, key: Key | None = None
) -> tuple[Element, ...] | Answered:
    """Store all of it in one transaction; it is on the disk when this returns, with one element for each given.

    An Event is stored alone; an Arrival, whose translation has events, is kept as a webhook with them, and the first
    of them stands for it. A key that is known already stores nothing. Raises StoreUnavailable.
    """
    # All that takes time comes before the transaction, for which other writers have to wait, or after it.
    kept = [webhook_row(one) for one in elements if isinstance(one, Arrival)]
    made = [_events(one) for one in elements]
    rows = [[_row(event, now) for event in several] for several in made]
    with outbox.write() as connection:
        if key is not None and (before := _keep_key(connection, key, now)) is not None:
            return before
        parents = iter(_insert(outbox, connection, webhooks, kept))
        for one, several in zip(elements, rows, strict=True):
            parent = next(parents) if isinstance(one, Arrival) else None
            for row in several:
                row["webhook_id"] = parent
        _insert(outbox, connection, events, [row for several in rows for row in several])
        if key is not None:
            answer = json.dumps([several[0]["id"] for several in rows])
            connection.execute(_KEEP_ANSWER, {"key": key.name, "events": answer})
    outbox.on_commit()
    return tuple(
        Element(
            event=_view(several[0]),
            body=its_events[0].body,
            others=tuple(row["id"] for row in several[1:]),
            posted=json.loads(one.raw) if isinstance(one, Arrival) else None,
        )
        for one, several, its_events in zip(elements, rows, made, strict=True)
    )


def recall(outbox: Outbox, key: Key) -> Answered | None:
    """What was answered to this key, if anything. Raises StoreUnavailable."""
    with outbox.read() as connection:
        return _answered(connection, key)


def with_ids(outbox: Outbox, ids: Sequence[int], *, calendars: str | None = None) -> tuple[Element, ...]:
    """The events of these ids, in this order, but for those that are not there.

    `calendars` is the source whose webhooks are calendar events. Raises StoreUnavailable.
    """
    found: dict[int, Element] = {}
    with outbox.read() as connection:
        for start in range(0, len(ids), AT_ONCE):
            found |= _elements(connection, ids[start : start + AT_ONCE], calendars)
    return tuple(found[one] for one in ids if one in found)


def _elements(connection: sa.Connection, ids: Sequence[int], calendars: str | None) -> dict[int, Element]:
    question = sa.select(*EVENT, events.c.body).where(events.c.id.in_(ids))
    rows = connection.execute(question).mappings().all()
    parents = [row["webhook"] for row in rows if row["webhook"] is not None]
    siblings = _siblings(connection, parents)
    bodies = _bodies(connection, parents, calendars)
    found = {}
    for row in rows:
        line = siblings.get(row["webhook"], [row["id"]])
        found[row["id"]] = Element(
            event=as_view(row),
            body=json.loads(row["body"]),
            others=tuple(one for one in line if one != row["id"]),
            posted=bodies.get(row["webhook"]) if row["id"] == line[0] else None,
        )
    return found


def _events(one: Event | Arrival) -> tuple[Event, ...]:
    match one:
        case Event():
            return (one,)
        case Arrival(translation=Translated(events=several)) if several:
            return several
    raise ValueError("an element without an event cannot be stored")


def _row(event: Event, now: int) -> dict[str, Any]:
    columns = event_row(event)
    return {**columns, "rank": columns["lane"], "created_at": now, "due_at": now}


def _view(row: Mapping[str, Any]) -> EventView:
    """The event as it stands right after it was stored."""
    return EventView(
        id=row["id"],
        webhook=row["webhook_id"],
        created_at=row["created_at"],
        destination=row["destination"],
        type=row["type"],
        component=row["component"],
        unrouted=row["unrouted"],
        state=row["state"],
        source_order=row["source_order"],
        status=EventStatus(row["status"]),
        lane=Lane(row["lane"]),
        coalesce=Coalesce(row["coalesce"]),
        due_at=row["due_at"],
        trigger="auto",
        failures=0,
        number=None,
        successor=None,
        reason=None,
        settled_at=None,
    )


def _insert(
    outbox: Outbox, connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]
) -> Sequence[int]:
    """Insert the rows in their order; gives them ids, which grow in that order, and returns these.

    Other writers wait meanwhile, so the ids are taken beforehand and the rows go to the driver as they are: to have
    each row return its own, through SQLAlchemy, takes several times as long.
    """
    if not rows:
        return ()
    if outbox.sqlite:  # nobody else can insert meanwhile
        last = connection.scalar(sa.text(f"SELECT {last_id(table.name)}"))
        ids: Sequence[int] = range(last + 1, last + 1 + len(rows))
    else:
        ids = sorted(connection.scalars(_NEXT_IDS, {"table": table.name, "count": len(rows)}))
    for row, number in zip(rows, ids, strict=True):
        row["id"] = number
    names = rows[0].keys()
    values = ", ".join(f":{name}" if outbox.sqlite else f"%({name})s" for name in names)
    statement = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({values})"  # noqa: S608 - names of ours
    connection.exec_driver_sql(statement, rows)
    return ids


def _keep_key(connection: sa.Connection, key: Key, now: int) -> Answered | None:
    """Take the key, or say what it was answered with before."""
    taken = connection.execute(_KEEP_KEY, {"key": key.name, "body": key.body, "now": now}).rowcount
    return None if taken else _answered(connection, key)


def _answered(connection: sa.Connection, key: Key) -> Answered | None:
    row = connection.execute(_ANSWER, {"key": key.name}).one_or_none()
    return None if row is None else Answered(tuple(json.loads(row.events)), same=bytes(row.body) == key.body)


def _siblings(connection: sa.Connection, parents: Sequence[int]) -> dict[int, list[int]]:
    """The events of each of these webhooks, in their order."""
    found: dict[int, list[int]] = {}
    for row in connection.execute(_CHILDREN, {"webhooks": parents}) if parents else ():
        found.setdefault(row.webhook_id, []).append(row.id)
    return found


def _bodies(connection: sa.Connection, parents: Sequence[int], source: str | None) -> dict[int, Any]:
    """The JSON of those of these webhooks that came from the source."""
    if not parents or source is None:
        return {}
    return {
        row.id: json.loads(bytes(row.body))
        for row in connection.execute(_BODIES, {"webhooks": parents, "source": source})
    }


_NEXT_IDS = sa.text("SELECT nextval(pg_get_serial_sequence(:table, 'id')) FROM generate_series(1, :count)")

_KEEP_KEY = sa.text("""
INSERT INTO submissions (key, body, created_at, events) VALUES (:key, :body, :now, '[]')
ON CONFLICT (key) DO NOTHING
""")

_KEEP_ANSWER = sa.text("UPDATE submissions SET events = :events WHERE key = :key")

_ANSWER = sa.text("SELECT body, events FROM submissions WHERE key = :key")

_BODIES = sa.text("SELECT id, body FROM webhooks WHERE id IN :webhooks AND source = :source").bindparams(
    sa.bindparam("webhooks", expanding=True)
)

_CHILDREN = sa.text("SELECT id, webhook_id FROM events WHERE webhook_id IN :webhooks ORDER BY id").bindparams(
    sa.bindparam("webhooks", expanding=True)
)
