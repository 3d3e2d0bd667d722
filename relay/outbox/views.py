"""The questions that people ask of the outbox: what came, what became of it, where is it now.

All of them stay quick with millions of rows stored. What waits or needs a person is found by partial indexes
that hold nothing else; what is long settled is only counted among the latest `RECENT` rows; lists go from
the newest backwards, a page at a time.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from relay.dispatch.health import State
from relay.errors import NotFound
from relay.model import Coalesce, EventStatus, Lane, WebhookStatus
from relay.outbox import Outbox, standing
from relay.outbox.tables import attempts, events, webhooks

RECENT = 10_000
"""Among how many of the newest rows settled webhooks and events are counted."""

LOOK_BACK = 100_000
"""Among how many of the newest events those of one entity are looked for: no index has all of them."""

HOUR_MS = 3600 * 1000

KINDS = 50
"""How many keys or reasons are listed, the most frequent first."""


@dataclass(frozen=True)
class WebhookCount:
    """How many webhooks of a source became this."""

    source: str
    status: WebhookStatus
    count: int


@dataclass(frozen=True)
class EventCount:
    """How many events for a destination are in this state."""

    destination: str
    status: EventStatus
    lane: Lane
    count: int
    oldest_at: int
    """When the first of them was stored."""


@dataclass(frozen=True)
class HeldCount:
    """How many events are dead or unrouted for one reason."""

    destination: str
    status: EventStatus
    key: str | None
    """The key that no component is listed for; None for a dead letter, or where the event source is missing."""
    reason: str | None
    """Why, in the destination's words; None where `key` says it."""
    count: int


@dataclass(frozen=True)
class AttemptCount:
    """How many requests of the last hour ended like this."""

    outcome: str | None
    """None while no answer has come."""
    count: int


@dataclass(frozen=True)
class DestinationView:
    """How a destination stands."""

    name: str
    paused: bool
    state: State
    reason: str | None
    since: int | None
    """Since when it is in this state."""
    wait_until: int | None
    """No request before then; None when nothing holds it back."""
    slots_held: int
    """How many slots of its quota are in use now."""
    attempts: tuple[AttemptCount, ...]
    """The last hour's requests."""


@dataclass(frozen=True)
class StatusView:
    """Where everything stands."""

    now: int
    """When this was true."""
    recent_since: int | None
    """When the oldest of the webhooks came that `webhooks` counts; None when there are none."""
    webhooks: tuple[WebhookCount, ...]
    """The newest RECENT webhooks."""
    open_webhooks: Mapping[WebhookStatus, int]
    """How many are kept as `unmatched` and `failed`, counted up to RECENT each."""
    events: tuple[EventCount, ...]
    """All that are pending, sending, unrouted or dead; of the settled ones, those among the newest RECENT."""
    held: tuple[HeldCount, ...]
    """Why events are dead or unrouted, the most frequent reasons first."""
    destinations: tuple[DestinationView, ...]


@dataclass(frozen=True)
class WebhookView:
    """One webhook, in a list."""

    id: int
    source: str
    received_at: int
    status: WebhookStatus
    rule: str | None
    field: str | None
    """The field of the rule that failed."""
    reason: str | None
    """Why it was ignored or failed."""
    mapping: str
    """The digest of the mapping file that translated it."""


@dataclass(frozen=True)
class EventView:
    """One event, in a list."""

    id: int
    webhook: int | None
    created_at: int
    destination: str
    type: str
    component: str | None
    unrouted: str | None
    """The key that no component is listed for."""
    state: str | None
    source_order: int
    status: EventStatus
    lane: Lane
    coalesce: Coalesce
    due_at: int
    """Not sent before then."""
    trigger: str
    failures: int
    number: int | None
    """The number it is, or was, sent with."""
    successor: int | None
    """The newer event that made it unnecessary."""
    reason: str | None
    settled_at: int | None


@dataclass(frozen=True)
class AttemptView:
    """One request for an event."""

    id: int
    trigger: str
    claimed_at: int
    answered_at: int | None
    outcome: str | None
    status: int | None
    error: str | None
    message: str | None
    took_ms: int | None


@dataclass(frozen=True)
class WebhookDetail:
    """One webhook with what became of it; its body is asked for by itself: `webhook_body`."""

    webhook: WebhookView
    headers: Mapping[str, str]
    size: int
    """Of the body, in bytes."""
    events: tuple[EventView, ...]


@dataclass(frozen=True)
class EventDetail:
    """One event with everything that was tried."""

    event: EventView
    body: Mapping[str, Any]
    attempts: tuple[AttemptView, ...]


def status(outbox: Outbox) -> StatusView:
    """Where everything stands. Raises StoreUnavailable."""
    with outbox.read() as connection:
        now = outbox.now(connection)
        counted = connection.execute(_WEBHOOKS, {"recent": RECENT}).all()
        found = connection.execute(_EVENTS, {"recent": RECENT})
        counts = [EventCount(d, EventStatus(s), Lane(lane), n, at) for d, s, lane, n, at in found]
        known = set(connection.scalars(_DESTINATIONS)) | {one.destination for one in counts}
        return StatusView(
            now=now,
            recent_since=min((row.oldest_at for row in counted), default=None),
            webhooks=tuple(WebhookCount(row.source, WebhookStatus(row.status), row.found) for row in counted),
            open_webhooks={one: _at_most(connection, one) for one in _TO_BE_MENDED},
            events=tuple(counts),
            held=tuple(
                HeldCount(row.destination, EventStatus(row.status), row.unrouted, row.reason, row.found)
                for row in connection.execute(_HELD, {"kinds": KINDS})
            ),
            destinations=tuple(_destination(connection, name, now) for name in sorted(known)),
        )


def list_webhooks(
    outbox: Outbox,
    *,
    status: WebhookStatus | None = None,
    source: str | None = None,
    limit: int = 50,
    before: int | None = None,
) -> tuple[WebhookView, ...]:
    """The newest webhooks, latest first; `before` is the last id of the page before. Raises StoreUnavailable."""
    question = sa.select(*_WEBHOOK).order_by(webhooks.c.id.desc()).limit(limit)
    if status is not None:
        question = question.where(*_exactly(webhooks, status))
    if source is not None:
        # Not the bare column, for which the index on deliveries would be read and all of the source sorted.
        question = question.where(webhooks.c.source.concat("") == source)
    if before is not None:
        question = question.where(webhooks.c.id < before)
    with outbox.read() as connection:
        return tuple(_webhook(row) for row in connection.execute(question).mappings())


def show_webhook(outbox: Outbox, webhook: int) -> WebhookDetail:
    """One webhook and its events. Raises NotFound, StoreUnavailable."""
    question = sa.select(*_WEBHOOK, webhooks.c.headers, sa.func.length(webhooks.c.body).label("size")).where(
        webhooks.c.id == webhook
    )
    its_events = sa.select(*EVENT).where(events.c.webhook_id == webhook).order_by(events.c.id)
    with outbox.read() as connection:
        row = _one(connection, question, f"webhook {webhook}")
        found = tuple(as_view(event) for event in connection.execute(its_events).mappings())
    return WebhookDetail(_webhook(row), json.loads(row["headers"]), row["size"], found)


def webhook_body(outbox: Outbox, webhook: int) -> bytes:
    """The body as it was received and signed. Raises NotFound, StoreUnavailable."""
    question = sa.select(webhooks.c.body).where(webhooks.c.id == webhook)
    with outbox.read() as connection:
        return bytes(_one(connection, question, f"webhook {webhook}")["body"])


def list_events(
    outbox: Outbox,
    *,
    status: EventStatus | None = None,
    destination: str | None = None,
    type: str | None = None,  # noqa: A002 - the word that people type
    entity: Collection[bytes] = (),
    limit: int = 50,
    before: int | None = None,
) -> tuple[EventView, ...]:
    """The newest events, latest first; `before` is the last id of the page before. Raises StoreUnavailable.

    `entity` has digests of entities, looked for among the newest LOOK_BACK events.
    """
    # What is open by a sum, which no index has: else SQLite walks through all that is settled to save the sorting.
    newest = events.c.id + 0 if status in {EventStatus.PENDING, EventStatus.SENDING} else events.c.id
    question = sa.select(*EVENT).order_by(newest.desc()).limit(limit)
    if status is not None:
        question = question.where(*_exactly(events, status))
    if destination is not None:
        question = question.where(events.c.destination == destination)
    if type is not None:
        question = question.where(events.c.type == type)
    if entity:
        oldest = sa.select(sa.func.max(events.c.id) - LOOK_BACK).scalar_subquery()
        question = question.where(events.c.entity.in_(entity), events.c.id > oldest)
    if before is not None:
        question = question.where(events.c.id < before)
    with outbox.read() as connection:
        return tuple(as_view(row) for row in connection.execute(question).mappings())


def show_event(outbox: Outbox, event: int) -> EventDetail:
    """One event and every attempt to send it. Raises NotFound, StoreUnavailable."""
    question = sa.select(*EVENT, events.c.body).where(events.c.id == event)
    tried = sa.select(*_ATTEMPT).where(attempts.c.event_id == event).order_by(attempts.c.id)
    with outbox.read() as connection:
        row = _one(connection, question, f"event {event}")
        tries = tuple(AttemptView(**attempt) for attempt in connection.execute(tried).mappings())
        return EventDetail(as_view(row), json.loads(row["body"]), tries)


_TO_BE_MENDED = (WebhookStatus.UNMATCHED, WebhookStatus.FAILED)
_HELD_BACK = (EventStatus.DEAD, EventStatus.UNROUTED)

_WEBHOOK = tuple(webhooks.c[name] for name in WebhookView.__dataclass_fields__)
EVENT = tuple(
    events.c[f"{name}_id"].label(name) if name in {"webhook", "successor"} else events.c[name]
    for name in EventView.__dataclass_fields__
)
_ATTEMPT = tuple(attempts.c[name] for name in AttemptView.__dataclass_fields__)


def _webhook(row: sa.RowMapping) -> WebhookView:
    values = {name: row[name] for name in WebhookView.__dataclass_fields__}
    return WebhookView(**{**values, "status": WebhookStatus(row["status"])})


def as_view(row: sa.RowMapping) -> EventView:
    """The event of a row that has the columns EVENT."""
    values = {name: row[name] for name in EventView.__dataclass_fields__}
    words = {"status": EventStatus(row["status"]), "lane": Lane(row["lane"]), "coalesce": Coalesce(row["coalesce"])}
    return EventView(**{**values, **words})


def _one(connection: sa.Connection, question: sa.Select[Any], what: str) -> sa.RowMapping:
    row = connection.execute(question).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no {what}; perhaps it was pruned")
    return row


def _exactly(table: sa.Table, status: WebhookStatus | EventStatus) -> Iterator[sa.ColumnElement[bool]]:
    """The condition on a status, in the words of the partial index for it: else the index is not used."""
    for words in (_TO_BE_MENDED, _HELD_BACK):
        if status in words:
            yield table.c.status.in_([sa.literal_column(f"'{word.value}'", sa.Text) for word in words])
    yield table.c.status == sa.literal_column(f"'{status.value}'", sa.Text)


def _at_most(connection: sa.Connection, status: WebhookStatus) -> int:
    some = sa.select(webhooks.c.id).where(*_exactly(webhooks, status)).limit(RECENT).subquery()
    return connection.scalar(sa.select(sa.func.count()).select_from(some)) or 0


def _destination(connection: sa.Connection, name: str, now: int) -> DestinationView:
    here = standing.look(connection, name)
    moment = {"name": name, "now": now, "since": now - HOUR_MS}
    wait_until = max(here.health.wait_until, here.frozen_until)
    return DestinationView(
        name=name,
        paused=here.paused,
        state=here.health.state,
        reason=here.health.reason,
        since=here.health.since,
        wait_until=wait_until if wait_until > now else None,
        slots_held=connection.scalar(_SLOTS, moment) or 0,
        attempts=tuple(AttemptCount(row.outcome, row.found) for row in connection.execute(_ATTEMPTS, moment)),
    )


_WEBHOOKS = sa.text("""
SELECT source, status, count(*) AS found, min(received_at) AS oldest_at
FROM (SELECT source, status, received_at FROM webhooks ORDER BY id DESC LIMIT :recent) AS newest
GROUP BY source, status ORDER BY source, status
""")

# One part for each partial index, and one for the newest rows.
_EVENTS = sa.text("""
SELECT destination, status, lane, count(*) AS found, min(created_at) AS oldest_at
FROM events WHERE status = 'pending' GROUP BY destination, status, lane
UNION ALL
SELECT destination, status, lane, count(*), min(created_at)
FROM events WHERE status = 'sending' GROUP BY destination, status, lane
UNION ALL
SELECT destination, status, lane, count(*), min(created_at)
FROM events WHERE status IN ('dead', 'unrouted') GROUP BY destination, status, lane
UNION ALL
SELECT destination, status, lane, count(*), min(created_at)
FROM (SELECT destination, status, lane, created_at FROM events ORDER BY id DESC LIMIT :recent) AS newest
WHERE status IN ('delivered', 'superseded')
GROUP BY destination, status, lane
ORDER BY destination, status, lane
""")

_HELD = sa.text("""
SELECT destination, status, unrouted, CASE WHEN unrouted IS NULL THEN reason END AS reason, count(*) AS found
FROM events WHERE status IN ('dead', 'unrouted')
GROUP BY destination, status, unrouted, CASE WHEN unrouted IS NULL THEN reason END
ORDER BY found DESC, destination, status, unrouted, reason
LIMIT :kinds
""")

_DESTINATIONS = sa.text("SELECT name FROM destinations")

_SLOTS = sa.text("SELECT count(*) FROM attempts WHERE destination = :name AND held_until > :now")

# A slot is held beyond its claim, so the index on `held_until` finds all of them, and few more.
_ATTEMPTS = sa.text("""
SELECT outcome, count(*) AS found FROM attempts
WHERE destination = :name AND held_until > :since AND claimed_at > :since
GROUP BY outcome ORDER BY outcome
""")
