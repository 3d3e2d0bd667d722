"""Intake's side of the outbox: a webhook and its events are on the disk before `append` returns.

Concurrent requests share a commit, because a commit costs a flush of the disk and its rows next to nothing.
The first request that comes leads: it waits for the turn to write, takes along everybody who has come
meanwhile, commits, wakes them with their receipts and passes the lead on to the next who waits. Requests may be
threads, or greenlets of one thread: how they wait, and where a transaction is run, is the caller's to say.
"""

import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

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
from relay.outbox import STORE_TIMEOUT, Cursor, Outbox
from relay.outbox.tables import digest

BATCH = 100
"""The most webhooks in one commit."""


class Lock(Protocol):
    """What a request waits on: a lock of `threading`, or a semaphore that lets other greenlets go on."""

    def acquire(self, *, timeout: float = ...) -> bool:
        """Wait until it is free, and take it."""

    def release(self) -> None:
        """Let go of it."""


Outcome = Receipt | StoreUnavailable
Stored = Sequence[tuple["_Ticket", Outcome]]


def _here(transaction: Callable[[], Stored]) -> Stored:
    return transaction()


def _nobody() -> None:
    pass


def _held() -> Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


class Appender:
    """Stores arrivals for all requests of one process."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        held: Callable[[], Lock] = _held,
        aside: Callable[[Callable[[], Stored]], Stored] = _here,
        others_first: Callable[[], None] = _nobody,
    ) -> None:
        """How the requests of this process live together.

        `held` makes a lock that is held, for a request to wait on; `aside` runs a transaction, of which there is one
        at a time; `others_first` lets those requests go on that can.
        """
        self._outbox = outbox
        self._held, self._aside, self._others_first = held, aside, others_first
        self._sql = _Sql(sqlite=outbox.sqlite)
        self._mutex = threading.Lock()
        # The leader is its first; whoever is taken into a batch leaves it.
        self._waiting: deque[_Ticket] = deque()
        self._led = False

    def append(self, arrival: Arrival) -> Receipt:
        """Store a webhook with its events, and answer once both are durable.

        A delivery that is stored already answers with its first receipt, `duplicate` set; was it `failed` or
        `unmatched`, the new translation takes the place of the old one and the receipt is a new one.

        Raises StoreUnavailable when that takes longer than STORE_TIMEOUT or the database refuses. The arrival
        may be stored all the same then: the sender tries again, and dedupe recognises it.
        """
        ticket = _Ticket(_Rows.of(arrival), self._held())
        with self._mutex:
            self._waiting.append(ticket)
            ticket.leads, self._led = not self._led, True
        if not ticket.leads:
            ticket.woken.acquire(timeout=STORE_TIMEOUT)
        if ticket.leads:
            self._lead(ticket)
        elif ticket.outcome is None:
            self._withdraw(ticket)
        match ticket.outcome:
            case Receipt() as receipt:
                return receipt
            case StoreUnavailable() as refusal:
                raise refusal
            case None:
                raise StoreUnavailable(f"the outbox did not store within {STORE_TIMEOUT:.0f} s")

    def _lead(self, own: "_Ticket") -> None:
        try:
            # As long as more come at once, they come along: the commit costs them nothing.
            before = 0
            while before < len(self._waiting) < BATCH:
                before = len(self._waiting)
                self._others_first()
            stored = self._aside(lambda: self._commit(own))
            for ticket, outcome in stored:
                ticket.settle(outcome)
            if any(isinstance(outcome, Receipt) and outcome.events for _, outcome in stored):
                self._outbox.on_commit()
        finally:
            self._withdraw(own)

    def _commit(self, own: "_Ticket") -> Stored:
        """What became of everybody who waits, in one transaction; of the leader alone, if there is none."""
        batch: list[_Ticket] = []
        try:
            with self._outbox.write_plainly(timeout=own.left()) as cursor:
                batch = self._take()
                outcomes = self._sql.store(cursor, [one.rows for one in batch])
        except StoreUnavailable as refusal:
            if not batch:
                return [(own, refusal)]
            outcomes = self._one_by_one(batch)
        except Exception:  # noqa: BLE001 - whatever the driver thinks of one row, the other rows are good
            outcomes = self._one_by_one(batch)
        return list(zip(batch, outcomes, strict=True))

    def _one_by_one(self, batch: Sequence["_Ticket"]) -> list[Outcome]:
        """Each in a transaction of its own: one bad row harms nobody."""
        outcomes: list[Outcome] = []
        for ticket in batch:
            try:
                with self._outbox.write_plainly(timeout=ticket.left()) as cursor:
                    stored = self._sql.store(cursor, [ticket.rows])
            except StoreUnavailable as refusal:
                outcomes.append(refusal)
            except Exception as error:  # noqa: BLE001 - a value that the driver cannot pass on, say
                outcomes.append(StoreUnavailable(f"the outbox cannot store this webhook: {error}"))
            else:
                outcomes += stored
        return outcomes

    def _take(self) -> list["_Ticket"]:
        with self._mutex:
            return [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]

    def _withdraw(self, ticket: "_Ticket") -> None:
        """Leave the queue, if still in it; a leader passes the lead on."""
        with self._mutex:
            with suppress(ValueError):
                self._waiting.remove(ticket)
            if not ticket.leads:
                return
            if self._waiting:
                self._waiting[0].promote()
            else:
                self._led = False


class _Ticket:
    """One request's place in the queue."""

    __slots__ = ("deadline", "leads", "outcome", "rows", "woken")

    def __init__(self, rows: "_Rows", woken: Lock) -> None:
        self.rows = rows
        self.deadline = time.monotonic() + STORE_TIMEOUT
        self.leads = False
        self.outcome: Outcome | None = None
        # A bare lock, held until somebody wakes us: lighter than an Event.
        self.woken = woken

    def left(self) -> float:
        return self.deadline - time.monotonic()

    def promote(self) -> None:
        self.leads = True
        self.woken.release()

    def settle(self, outcome: Outcome) -> None:
        self.outcome = outcome
        if not self.leads:
            self.woken.release()


@dataclass(frozen=True)
class _Rows:
    """An arrival as the tables have it. Made by its own thread: while one writes, everybody else waits."""

    webhook: Mapping[str, Any]
    events: tuple[Mapping[str, Any], ...]
    """But for the id of their webhook, which is not known yet."""

    @classmethod
    def of(cls, arrival: Arrival) -> "_Rows":
        translation, now = arrival.translation, {"now": arrival.received_at}
        events = translation.events if isinstance(translation, Translated) else ()
        return cls(webhook_row(arrival), tuple(now | event_row(event) for event in events))


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


class _Sql:
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

    def store(self, cursor: Cursor, batch: Sequence[_Rows]) -> list[Outcome]:
        """Store several arrivals in the transaction at hand; receipts in the order of the arrivals.

        All webhooks, then all events: PostgreSQL is asked a few times for a batch, however far away it is.
        """
        # In one order for everybody: two processes with the same duplicates never wait for each other.
        order = sorted(
            range(len(batch)), key=lambda at: (batch[at].webhook["source"], batch[at].webhook["dedupe"] or b"")
        )
        found = self._insert(cursor, self._insert_webhook, [batch[at].webhook for at in order])
        webhooks = {
            at: self._again(cursor, batch[at].webhook) if webhook is None else webhook
            for at, webhook in zip(order, found, strict=True)
        }
        fresh = [{"webhook": webhooks[at], **row} for at in order if webhooks[at] for row in batch[at].events]
        ids = zip(fresh, self._insert(cursor, self._insert_event, fresh), strict=True)
        events: dict[Any, list[StoredEvent]] = {}
        for row, event in ids:
            assert event is not None  # noqa: S101 - only a webhook can be there already
            events.setdefault(row["webhook"], []).append(StoredEvent(event, row["type"]))
        return [
            self._receipt_again(cursor, rows.webhook) if webhook is None else _receipt(rows, webhook, events)
            for rows, webhook in ((rows, webhooks[at]) for at, rows in enumerate(batch))
        ]

    def _insert(self, cursor: Cursor, sql: str, rows: Sequence[Mapping[str, Any]]) -> list[int | None]:
        """The new rows' ids; None for those that are there already."""
        if not rows:
            return []
        if self._returning:
            cursor.executemany(sql, rows, returning=True)
            return [one[0] if (one := result.fetchone()) else None for result in cursor.results()]
        ids = []
        for row in rows:
            cursor.execute(sql, row)
            ids.append(cursor.lastrowid if cursor.rowcount else None)
        return ids

    def _again(self, cursor: Cursor, row: Mapping[str, Any]) -> int | None:
        """The id of a webhook that is translated anew; None when its first translation was good."""
        cursor.execute(self._translate_again, row)
        again = cursor.fetchone()
        return None if again is None else int(again[0])

    def _receipt_again(self, cursor: Cursor, row: Mapping[str, Any]) -> Receipt:
        cursor.execute(self._first, row)
        first = cursor.fetchone()
        if first is None:
            raise StoreUnavailable("the webhook's first delivery was pruned at this very moment")
        webhook, status, rule = first
        cursor.execute(self._its_events, {"webhook": webhook})
        events = tuple(StoredEvent(*event) for event in cursor.fetchall())
        return Receipt(webhook, WebhookStatus(status), rule, events, duplicate=True)


def _receipt(rows: _Rows, webhook: int, events: Mapping[int, Sequence[StoredEvent]]) -> Receipt:
    its_own = tuple(events.get(webhook, ())) if rows.events else ()
    return Receipt(webhook, WebhookStatus(rows.webhook["status"]), rows.webhook["rule"], its_own)


def webhook_row(arrival: Arrival) -> dict[str, Any]:
    """The columns of an arrival, but for its events."""
    return {
        "source": arrival.source,
        "received_at": arrival.received_at,
        "dedupe": arrival.dedupe,
        "headers": json.dumps(dict(arrival.headers)),
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
