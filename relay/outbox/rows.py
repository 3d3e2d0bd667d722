"""Webhooks and events as the tables have them, and the statements that store a batch of them.

All that can be made before a transaction is made before it (`Rows`); within it the driver's own cursor runs plain
statements (`Statements`), because this is the hot path.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from relay.as_json import as_json
from relay.errors import StoreUnavailable
from relay.model import (
    Arrival,
    Event,
    EventStatus,
    Failed,
    Ignored,
    Receipt,
    StoredEvent,
    Translated,
    Translation,
    Unmatched,
    WebhookStatus,
)
from relay.outbox import Cursor
from relay.outbox.tables import digest


@dataclass(frozen=True)
class Rows:
    """An arrival as the tables have it."""

    webhook: Mapping[str, Any]
    events: tuple[Mapping[str, Any], ...]
    """But for the id of their webhook, which is not known yet."""

    @classmethod
    def of(cls, arrival: Arrival) -> "Rows":
        """Make them before there is a transaction: while one writes, everybody else waits."""
        translation, now = arrival.translation, arrival.received_at
        events = translation.events if isinstance(translation, Translated) else ()
        return cls(webhook_row(arrival), tuple({"now": now, **event_row(event)} for event in events))


class _Insert:
    """An INSERT into a table whose ids grow: of one row by the names of its values, or of several that bring ids."""

    def __init__(self, table: str, columns: Sequence[str], *, renamed: Mapping[str, str], otherwise: str = "") -> None:
        """`renamed` has the columns that are not named as their values in a row; `otherwise` is the end."""
        self.table, self._columns, self._otherwise = table, ", ".join(columns), otherwise
        self._names = [renamed.get(column, column) for column in columns]
        self.values = itemgetter(*self._names)
        """A row's values, in the order of the columns."""
        self._several: dict[int, str] = {}

    def one(self) -> str:
        values = ", ".join(f":{name}" for name in self._names)
        return f"INSERT INTO {self.table} ({self._columns}) VALUES ({values}) {self._otherwise}"  # noqa: S608 - names of ours

    def several(self, count: int) -> str:
        """So many rows, each with its id first."""
        if count not in self._several:
            values = ", ".join([f"(?{', ?' * len(self._names)})"] * count)
            self._several[count] = f"INSERT INTO {self.table} (id, {self._columns}) VALUES {values} {self._otherwise}"  # noqa: S608 - names of ours
        return self._several[count]


_WEBHOOKS = _Insert(
    "webhooks",
    ("source", "received_at", "dedupe", "status", "rule", "reason", "field", "mapping", "headers", "body"),
    renamed={},
    otherwise="ON CONFLICT (source, dedupe) DO NOTHING",
)

_EVENTS = _Insert(
    "events",
    (
        *("webhook_id", "created_at", "due_at", "destination", "type", "component", "unrouted", "body", "entity"),
        *("state", "source_order", "terminal", "event_source", "lane", "rank", "coalesce", "status"),
    ),
    renamed={"webhook_id": "webhook", "created_at": "now", "due_at": "now", "rank": "lane"},
)

INSERT_EVENT = _EVENTS.one()

AT_ONCE = 50
"""The most rows of one statement: SQLite has to prepare it, and remembers it."""


def last_id(table: str) -> str:
    """SQLite's own reckoning, as an expression: no id that was ever given is given again."""
    return (
        f"max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = '{table}'), 0), "  # noqa: S608 - a table of ours
        f"coalesce((SELECT max(id) FROM {table}), 0))"
    )


_LAST_IDS = f"SELECT {last_id('webhooks')}, {last_id('events')}"

_TRANSLATE_AGAIN = """
UPDATE webhooks
SET status = :status, rule = :rule, reason = :reason, field = :field, mapping = :mapping
WHERE source = :source AND dedupe = :dedupe AND status IN ('failed', 'unmatched')
RETURNING id
"""

_FIRST = "SELECT id, status, rule FROM webhooks WHERE source = :source AND dedupe = :dedupe"

_ITS_EVENTS = "SELECT id, type FROM events WHERE webhook_id = :webhook ORDER BY id"


class Statements:
    """The hot path's statements, in the words of one driver: plain, because they are then prepared once."""

    def __init__(self, *, sqlite: bool) -> None:
        def spelled(sql: str) -> str:
            return sql if sqlite else re.sub(r":(\w+)", r"%(\1)s", sql)

        self._sqlite = sqlite
        self._inserts = {one: spelled(f"{one.one()} RETURNING id") for one in (_WEBHOOKS, _EVENTS)}
        self._translate_again = spelled(_TRANSLATE_AGAIN)
        self._first = spelled(_FIRST)
        self._its_events = spelled(_ITS_EVENTS)

    def store(self, cursor: Cursor, batch: Sequence[Rows]) -> list[Receipt]:
        """Store several arrivals in the transaction at hand; receipts in the order of the arrivals.

        All webhooks, then all events. PostgreSQL is asked a few times for a batch, however far away it is, and of
        whatever it consists; to SQLite all rows go in one statement, because around each of them the thread may have
        to wait for the interpreter. Nobody else inserts meanwhile, so the ids are taken beforehand.
        """
        last = cursor.execute(_LAST_IDS).fetchone() if self._sqlite else (0, 0)
        # In one order for everybody: two processes with the same duplicates never wait for each other.
        order = sorted(
            range(len(batch)), key=lambda at: (batch[at].webhook["source"], batch[at].webhook["dedupe"] or b"")
        )
        rows = [batch[at].webhook for at in order]
        ids = dict(zip(order, self._insert(cursor, _WEBHOOKS, rows, last[0]), strict=True))
        known = [at for at in order if ids[at] is None]
        again = self._ask(cursor, self._translate_again, [batch[at].webhook for at in known])
        ids |= {at: found[0][0] for at, found in zip(known, again, strict=True) if found}
        fresh = [{"webhook": ids[at], **row} for at in order if ids[at] is not None for row in batch[at].events]
        events: dict[Any, list[StoredEvent]] = {}
        for row, event in zip(fresh, self._insert(cursor, _EVENTS, fresh, last[1]), strict=True):
            assert event is not None  # noqa: S101 - only a webhook can be there already
            events.setdefault(row["webhook"], []).append(StoredEvent(event, row["type"]))
        first = self._first_receipts(cursor, {at: batch[at].webhook for at in known if ids[at] is None})
        return [
            first[at] if webhook is None else _receipt(batch[at], webhook, events)
            for at, webhook in sorted(ids.items())
        ]

    def _insert(
        self, cursor: Cursor, insert: _Insert, rows: Sequence[Mapping[str, Any]], last: int
    ) -> Sequence[int | None]:
        """The new rows' ids; None for those that are there already."""
        if not self._sqlite:
            return [found[0][0] if found else None for found in self._ask(cursor, self._inserts[insert], rows)]
        ids = range(last + 1, last + 1 + len(rows))
        numbered, stored = list(zip(ids, rows, strict=True)), 0
        for start in range(0, len(rows), AT_ONCE):
            some = numbered[start : start + AT_ONCE]
            values = [value for number, row in some for value in (number, *insert.values(row))]
            stored += cursor.execute(insert.several(len(some)), values).rowcount
        if stored == len(rows):
            return ids
        there = {number for (number,) in cursor.execute(f"SELECT id FROM {insert.table} WHERE id > ?", (last,))}  # noqa: S608 - a table of ours
        return [number if number in there else None for number in ids]

    def _ask(self, cursor: Cursor, sql: str, rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
        """The answers to one statement for each of these rows: PostgreSQL is asked once."""
        if not rows:
            return []
        if not self._sqlite:
            cursor.executemany(sql, rows, returning=True)
            return [list(result.fetchall()) for result in cursor.results()]
        return [list(cursor.execute(sql, row).fetchall()) for row in rows]

    def _first_receipts(self, cursor: Cursor, rows: Mapping[int, Mapping[str, Any]]) -> dict[int, Receipt]:
        """What was answered to the first deliveries of these webhooks."""
        found = self._ask(cursor, self._first, list(rows.values()))
        if not all(found):
            raise StoreUnavailable("a webhook's first delivery was pruned at this very moment")
        events = self._ask(cursor, self._its_events, [{"webhook": first[0][0]} for first in found])
        return {
            at: Receipt(
                webhook, WebhookStatus(status), rule, tuple(StoredEvent(*event) for event in its_own), duplicate=True
            )
            for at, ((webhook, status, rule),), its_own in zip(rows, found, events, strict=True)
        }


def _receipt(rows: Rows, webhook: int, events: Mapping[int, Sequence[StoredEvent]]) -> Receipt:
    its_own = tuple(events.get(webhook, ())) if rows.events else ()
    return Receipt(webhook, WebhookStatus(rows.webhook["status"]), rows.webhook["rule"], its_own)


def webhook_row(arrival: Arrival) -> dict[str, Any]:
    """The columns of an arrival, but for its events."""
    return {
        "source": arrival.source,
        "received_at": arrival.received_at,
        "dedupe": arrival.dedupe,
        "headers": as_json(dict(arrival.headers)) if arrival.headers else "{}",
        "body": arrival.raw,
        "mapping": arrival.mapping,
        **translation_row(arrival.translation),
    }


def translation_row(translation: Translation) -> dict[str, Any]:
    """The columns that say what became of a webhook."""
    rule: str | None = None
    field: str | None = None
    reason: str | None = None
    match translation:
        case Translated():
            rule = translation.rule
        case Ignored():
            rule, reason = translation.rule, translation.reason
        case Failed():
            rule, field, reason = translation.rule, translation.field, translation.reason
        case Unmatched():
            pass
    return {
        "status": translation.status.value,
        "rule": plain(rule),
        "reason": plain(reason),
        "field": plain(field),
    }


def event_row(event: Event) -> dict[str, Any]:
    """The columns of a new event, but for its webhook and its time."""
    return {
        "destination": event.destination,
        "type": event.type,
        "component": plain(event.component),
        "unrouted": plain(event.unrouted),
        "body": as_json(event.body),
        "entity": digest(event.destination, event.entity),
        "state": plain(event.state),
        "source_order": event.order,
        "terminal": int(event.terminal),
        "event_source": None if event.event_source is None else digest(event.type, event.event_source),
        "lane": int(event.lane),
        "coalesce": event.coalesce.value,
        "status": (EventStatus.PENDING if event.unrouted is None else EventStatus.UNROUTED).value,
    }


def plain(text: str | None) -> str | None:
    """Text as both databases take it: PostgreSQL refuses NUL, and both refuse half a surrogate pair."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
