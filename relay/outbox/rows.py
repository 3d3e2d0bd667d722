"""Webhooks and events as the tables have them, and the statements that store a batch of them.

All that can be made before a transaction is made before it (`Rows`); within it the driver's own cursor runs plain
statements (`Statements`), because this is the hot path.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


_INSERT_WEBHOOK = """
INSERT INTO webhooks (source, received_at, dedupe, status, rule, reason, field, mapping, headers, body)
VALUES (:source, :received_at, :dedupe, :status, :rule, :reason, :field, :mapping, :headers, :body)
ON CONFLICT (source, dedupe) DO NOTHING
"""

_TRANSLATE_AGAIN = """
UPDATE webhooks
SET status = :status, rule = :rule, reason = :reason, field = :field, mapping = :mapping
WHERE source = :source AND dedupe = :dedupe AND status IN ('failed', 'unmatched')
RETURNING id
"""

_FIRST = "SELECT id, status, rule FROM webhooks WHERE source = :source AND dedupe = :dedupe"

_ITS_EVENTS = "SELECT id, type FROM events WHERE webhook_id = :webhook ORDER BY id"

INSERT_EVENT = """
INSERT INTO events (
    webhook_id, created_at, due_at, destination, type, component, unrouted, body, entity, state, source_order,
    terminal, event_source, lane, rank, coalesce, status
) VALUES (
    :webhook, :now, :now, :destination, :type, :component, :unrouted, :body, :entity, :state, :source_order,
    :terminal, :event_source, :lane, :lane, :coalesce, :status
)
"""


class Statements:
    """The hot path's statements, in the words of one driver: plain, because they are then prepared once."""

    def __init__(self, *, sqlite: bool) -> None:
        def spelled(sql: str) -> str:
            return sql if sqlite else re.sub(r":(\w+)", r"%(\1)s", sql)

        # SQLite's driver knows the new id by itself, at half the cost of asking for it.
        self._returning = not sqlite
        returning = "RETURNING id" if self._returning else ""
        self._insert_webhook = spelled(_INSERT_WEBHOOK + returning)
        self._insert_event = spelled(INSERT_EVENT + returning)
        self._translate_again = spelled(_TRANSLATE_AGAIN)
        self._first = spelled(_FIRST)
        self._its_events = spelled(_ITS_EVENTS)

    def store(self, cursor: Cursor, batch: Sequence[Rows]) -> list[Receipt]:
        """Store several arrivals in the transaction at hand; receipts in the order of the arrivals.

        All webhooks, then all events: PostgreSQL is asked a few times for a batch, however far away it is, and of
        whatever it consists.
        """
        # In one order for everybody: two processes with the same duplicates never wait for each other.
        order = sorted(
            range(len(batch)), key=lambda at: (batch[at].webhook["source"], batch[at].webhook["dedupe"] or b"")
        )
        rows = [batch[at].webhook for at in order]
        ids = dict(zip(order, self._insert(cursor, self._insert_webhook, rows), strict=True))
        known = [at for at in order if ids[at] is None]
        again = self._ask(cursor, self._translate_again, [batch[at].webhook for at in known])
        ids |= {at: found[0][0] for at, found in zip(known, again, strict=True) if found}
        fresh = [{"webhook": ids[at], **row} for at in order if ids[at] is not None for row in batch[at].events]
        events: dict[Any, list[StoredEvent]] = {}
        for row, event in zip(fresh, self._insert(cursor, self._insert_event, fresh), strict=True):
            assert event is not None  # noqa: S101 - only a webhook can be there already
            events.setdefault(row["webhook"], []).append(StoredEvent(event, row["type"]))
        first = self._first_receipts(cursor, {at: batch[at].webhook for at in known if ids[at] is None})
        return [
            first[at] if webhook is None else _receipt(batch[at], webhook, events)
            for at, webhook in sorted(ids.items())
        ]

    def _insert(self, cursor: Cursor, sql: str, rows: Sequence[Mapping[str, Any]]) -> list[int | None]:
        """The new rows' ids; None for those that are there already."""
        if self._returning:
            return [found[0][0] if found else None for found in self._ask(cursor, sql, rows)]
        ids = []
        for row in rows:
            cursor.execute(sql, row)
            ids.append(cursor.lastrowid if cursor.rowcount else None)
        return ids

    def _ask(self, cursor: Cursor, sql: str, rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
        """The answers to one statement for each of these rows: PostgreSQL is asked once."""
        if not rows:
            return []
        if self._returning:
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
        "headers": json.dumps(dict(arrival.headers)) if arrival.headers else "{}",
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
        "body": json.dumps(event.body),
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
