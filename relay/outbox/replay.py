"""Send events again, translate webhooks again.

Each item is a small transaction of its own and is told of when it is done, so that a command can show its
progress and be interrupted at any moment without harm: what was told is done, the rest is as it was.
"""

import json
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import sqlalchemy as sa

from relay.errors import RelayError
from relay.model import Event, EventStatus, Translated, Translation, WebhookStatus
from relay.outbox import Outbox, standing
from relay.outbox.rows import INSERT_EVENT, event_row, translation_row


class Outcome(StrEnum):
    """What became of one item of a replay; in a dry run, what would become of it."""

    QUEUED = "queued"
    """The event waits to be sent."""
    ROUTED = "routed"
    """The event has a component now: its webhook was translated again, and other events take its place."""
    TRANSLATED = "translated"
    """The webhook was translated again; its status says as what."""
    STALE = "stale"
    """Not sent: the destination would ignore it, because a newer event of its entity was sent."""
    KEPT = "kept"
    """Left as it is; the reason says why."""
    MISSING = "missing"
    """There is nothing by this id."""


@dataclass(frozen=True)
class Replayed:
    """What became of one event or webhook."""

    id: int
    outcome: Outcome
    reason: str | None = None
    """Why it is left as it is; or, for a webhook, what the new translation says against it."""
    status: WebhookStatus | None = None
    """A webhook's status after being translated again."""
    events: tuple[int, ...] = ()
    """The new events that wait to be sent; empty in a dry run."""


@dataclass(frozen=True)
class StoredWebhook:
    """A webhook as it came, to be translated again."""

    id: int
    source: str
    headers: Mapping[str, str]
    raw: bytes


@dataclass(frozen=True)
class Retranslation:
    """What a webhook becomes with the mappings of today."""

    translation: Translation
    mapping: str
    """The digest of the mapping file."""


class Replays(Iterator[Replayed]):
    """What becomes of one item after the other, each done when it is told; `length_hint` says how many are left.

    Those that have changed meanwhile, so that they are no longer asked for, are passed over.
    """

    def __init__(self, ids: Iterable[int], replay: Callable[[int], Replayed | None]) -> None:
        self._ids = deque(ids)
        self._replay = replay

    def __next__(self) -> Replayed:
        """Replay the next one."""
        while self._ids:
            if (replayed := self._replay(self._ids.popleft())) is not None:
                return replayed
        raise StopIteration

    def __length_hint__(self) -> int:
        """How many are left, at most."""
        return len(self._ids)


Translate = Callable[[StoredWebhook], Retranslation]
"""Translates a webhook with the mappings of today; may raise RelayError, when its source has none any more."""


def replay_events(
    outbox: Outbox,
    which: Collection[int] | Literal[EventStatus.DEAD, EventStatus.UNROUTED],
    *,
    translate: Translate,
    dry_run: bool = False,
) -> Replays:
    """Send events again: those of the given ids, or all that are dead or unrouted; the oldest first.

    They start anew, due now and with no failures counted. A dead letter keeps its number, so that a destination
    that took it after all ignores it; an event that was delivered gets a new one, so that it counts once more.
    What the destination would ignore is told so and left alone. An event without a component is translated
    again with its webhook, for which a component may be listed by now.

    Raises StoreUnavailable.
    """

    def replay(event: int) -> Replayed | None:
        return _replay_event(outbox, event, which, translate, dry_run=dry_run)

    return Replays(_ids(outbox, which, _EVENT_IDS), replay)


def replay_webhooks(
    outbox: Outbox,
    which: Collection[int] | Literal[WebhookStatus.FAILED, WebhookStatus.UNMATCHED],
    *,
    translate: Translate,
    dry_run: bool = False,
) -> Replays:
    """Translate webhooks again under their ids: the given ones, or all that failed or were unmatched.

    A webhook that has events already is left as it is, so that nothing is sent twice: replay its events.

    Raises StoreUnavailable.
    """

    def replay(webhook: int) -> Replayed | None:
        return _replay_webhook(outbox, webhook, which, translate, dry_run=dry_run)

    return Replays(_ids(outbox, which, _WEBHOOK_IDS), replay)


def _ids(outbox: Outbox, which: Collection[int] | EventStatus | WebhookStatus, question: str) -> list[int]:
    if not isinstance(which, EventStatus | WebhookStatus):
        return sorted(set(which))
    with outbox.read() as connection:
        return list(connection.scalars(sa.text(question), {"status": which.value}))


def _replay_event(
    outbox: Outbox, event: int, which: Collection[int] | EventStatus, translate: Translate, *, dry_run: bool
) -> Replayed | None:
    """One event; None when it is no longer one of those asked for."""
    by_status = isinstance(which, EventStatus)
    with outbox.read() as connection:
        seen = connection.execute(_EVENT, {"event": event}).one_or_none()
        if seen is None:
            return None if by_status else Replayed(event, Outcome.MISSING)
        stored = _stored(connection, seen.webhook_id) if _lacks_component(seen) else None
    fresh = None if stored is None else _translated(stored, translate)
    with outbox.read() if dry_run else outbox.write() as connection:
        if not dry_run:
            standing.lock(connection, outbox, seen.destination)
        row = connection.execute(_EVENT, {"event": event}).one_or_none()
        if row is None or (by_status and row.status != which):
            return None
        if _lacks_component(row):
            replayed = _route(connection, outbox, row, fresh, dry_run=dry_run)
        else:
            replayed = _send_again(connection, outbox, row, dry_run=dry_run)
    if not dry_run and replayed.outcome in (Outcome.QUEUED, Outcome.ROUTED):
        outbox.on_commit()
    return replayed


def _lacks_component(event: sa.Row[Any]) -> bool:
    return event.status == EventStatus.UNROUTED and event.unrouted is not None


def _send_again(connection: sa.Connection, outbox: Outbox, event: sa.Row[Any], *, dry_run: bool) -> Replayed:
    here = {"event": event.id}
    if event.status == EventStatus.SENDING:
        return Replayed(event.id, Outcome.KEPT, "it is on its way now")
    if event.status == EventStatus.SUPERSEDED and event.unrouted is not None:
        return Replayed(event.id, Outcome.KEPT, f"event {event.successor_id}, which has a component, took its place")
    if (newer := connection.scalar(_SENT_SINCE, here)) is not None:
        reason = f"the destination would ignore it: event {newer} of the same entity is newer and was sent"
        return Replayed(event.id, Outcome.STALE, reason)
    if event.status == EventStatus.SUPERSEDED and (newer := connection.scalar(_WAITS_BEHIND, here)) is not None:
        return Replayed(event.id, Outcome.KEPT, f"event {newer} of the same entity is newer and will be sent")
    if not dry_run:
        connection.execute(_SEND_AGAIN, {**here, "now": outbox.now(connection)})
    return Replayed(event.id, Outcome.QUEUED)


def _route(
    connection: sa.Connection, outbox: Outbox, event: sa.Row[Any], fresh: Retranslation | str | None, *, dry_run: bool
) -> Replayed:
    """Put the events that have a component by now in the place of all of the webhook's that had none."""
    match fresh:
        case Retranslation(translation=Translated(rule=rule, events=events), mapping=mapping):
            unlisted = {one.unrouted for one in events}
            routed = [one for one in events if one.unrouted is None]
        case Retranslation(translation=other):
            return Replayed(event.id, Outcome.KEPT, f"its webhook would be {other.status} now")
        case str() as fault:
            return Replayed(event.id, Outcome.KEPT, fault)
        case None:
            unlisted, routed = {event.unrouted}, []
    if event.unrouted in unlisted:
        return Replayed(event.id, Outcome.KEPT, f"no component is listed for {event.unrouted}")
    if not routed:
        return Replayed(event.id, Outcome.KEPT, "its webhook makes no such event any more")
    if dry_run:
        return Replayed(event.id, Outcome.ROUTED)
    now, webhook = outbox.now(connection), event.webhook_id
    stored = connection.execute(_ITS_EVENTS, {"webhook": webhook}).all()
    there = {_identity(one._asdict()): one.id for one in stored if one.unrouted is None}
    new = {identity: one for one in routed if (identity := _identity(event_row(one))) not in there}
    there |= {identity: _insert(connection, webhook, one, now) for identity, one in new.items()}
    for one in stored:
        if _lacks_component(one) and one.unrouted not in unlisted:
            successor = there[_identity(event_row(routed[0]))]
            connection.execute(_TAKE_PLACE, {"event": one.id, "successor": successor, "now": now})
    connection.execute(_TRANSLATED_BY, {"webhook": webhook, "rule": rule, "mapping": mapping})
    return Replayed(event.id, Outcome.ROUTED, events=tuple(there[identity] for identity in new))


def _identity(columns: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes two events of one webhook the same."""
    return tuple(columns[name] for name in ("destination", "type", "entity", "state", "source_order"))


def _insert(connection: sa.Connection, webhook: int, event: Event, now: int) -> int:
    values = {"webhook": webhook, "now": now, **event_row(event)}
    return int(connection.execute(_INSERT_EVENT, values).scalar_one())


def _replay_webhook(
    outbox: Outbox, webhook: int, which: Collection[int] | WebhookStatus, translate: Translate, *, dry_run: bool
) -> Replayed | None:
    """One webhook; None when it is no longer one of those asked for."""
    by_status = isinstance(which, WebhookStatus)
    with outbox.read() as connection:
        stored = _stored(connection, webhook)
        status = connection.scalar(_STATUS, {"webhook": webhook})
        has_events = connection.scalar(_HAS_EVENTS, {"webhook": webhook})
    if stored is None or (by_status and status != which):
        return None if by_status else Replayed(webhook, Outcome.MISSING)
    if has_events:
        return Replayed(webhook, Outcome.KEPT, "it has its events already; replay those", WebhookStatus(status))
    fresh = _translated(stored, translate)
    if isinstance(fresh, str):
        return Replayed(webhook, Outcome.KEPT, fresh, WebhookStatus(status))
    row = translation_row(fresh.translation)
    events = fresh.translation.events if isinstance(fresh.translation, Translated) else ()
    new: tuple[int, ...] = ()
    if not dry_run:
        with outbox.write() as connection:
            here = {**row, "webhook": webhook, "was": status, "mapping": fresh.mapping}
            if connection.execute(_TRANSLATE_AGAIN, here).rowcount == 0:
                return Replayed(webhook, Outcome.KEPT, "somebody else has just translated it again")
            now = outbox.now(connection)
            new = tuple(_insert(connection, webhook, event, now) for event in events)
        if new:
            outbox.on_commit()
    return Replayed(webhook, Outcome.TRANSLATED, row["reason"], fresh.translation.status, new)


def _stored(connection: sa.Connection, webhook: int | None) -> StoredWebhook | None:
    row = connection.execute(_WEBHOOK, {"webhook": webhook}).one_or_none()
    if row is None:
        return None
    return StoredWebhook(row.id, row.source, json.loads(row.headers), bytes(row.body))


def _translated(stored: StoredWebhook, translate: Translate) -> Retranslation | str:
    """The new translation, or why there is none."""
    try:
        return translate(stored)
    except RelayError as error:
        return str(error)


_EVENT_IDS = """
SELECT id FROM events WHERE status IN ('dead', 'unrouted') AND status = :status ORDER BY id
"""

_WEBHOOK_IDS = """
SELECT id FROM webhooks WHERE status IN ('unmatched', 'failed') AND status = :status ORDER BY id
"""

_WEBHOOK = sa.text("SELECT id, source, headers, body FROM webhooks WHERE id = :webhook")

_STATUS = sa.text("SELECT status FROM webhooks WHERE id = :webhook")

_HAS_EVENTS = sa.text("SELECT id FROM events WHERE webhook_id = :webhook LIMIT 1")

_EVENT = sa.text("""
SELECT id, webhook_id, destination, status, unrouted, successor_id FROM events WHERE id = :event
""")

_ITS_EVENTS = sa.text("""
SELECT id, destination, type, entity, state, source_order, status, unrouted
FROM events WHERE webhook_id = :webhook ORDER BY id
""")

_SENT_SINCE = sa.text("""
SELECT n.event_id FROM events e
JOIN entities n ON n.destination = e.destination AND n.entity = e.entity AND n.event_id IS NOT NULL
WHERE e.id = :event AND (e.source_order, e.terminal, e.id) < (n.source_order, n.terminal, n.event_id)
""")

_WAITS_BEHIND = sa.text("""
SELECT o.id FROM events e JOIN events o ON o.destination = e.destination AND o.entity = e.entity
WHERE e.id = :event AND o.status = 'pending'
  AND (e.source_order, e.terminal, e.id) < (o.source_order, o.terminal, o.id)
UNION ALL
SELECT o.id FROM events e JOIN events o ON o.destination = e.destination AND o.entity = e.entity
WHERE e.id = :event AND o.status = 'sending'
  AND (e.source_order, e.terminal, e.id) < (o.source_order, o.terminal, o.id)
LIMIT 1
""")

_SEND_AGAIN = sa.text("""
UPDATE events
SET status = 'pending', ready = 1, rank = lane, due_at = :now, trigger = 'replay', failures = 0, reason = NULL,
    successor_id = NULL, settled_at = NULL, number = CASE WHEN status = 'delivered' THEN NULL ELSE number END
WHERE id = :event
""")

_INSERT_EVENT = sa.text(f"{INSERT_EVENT} RETURNING id")

_TAKE_PLACE = sa.text("""
UPDATE events SET status = 'superseded', successor_id = :successor, settled_at = :now WHERE id = :event
""")

_TRANSLATED_BY = sa.text("UPDATE webhooks SET rule = :rule, mapping = :mapping WHERE id = :webhook")

_TRANSLATE_AGAIN = sa.text("""
UPDATE webhooks SET status = :status, rule = :rule, reason = :reason, field = :field, mapping = :mapping
WHERE id = :webhook AND status = :was AND NOT EXISTS (SELECT 1 FROM events WHERE webhook_id = :webhook)
""")
