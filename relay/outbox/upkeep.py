"""Keep the outbox small: delete what is settled and old, and give the space back.

In small steps, each a transaction of its own, so that webhooks come in meanwhile and a person may interrupt it.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from relay.outbox import Outbox

PAGES = 200
"""How many pages of a SQLite file are given back in one transaction."""


def prune(outbox: Outbox, *, before: int, step: int = 200) -> Iterator[int]:
    """Delete what was received before that moment and is settled; yields how much each step deleted.

    Webhooks are counted, and events that came without one. A webhook goes with its events and their attempts, when
    all of them are delivered or superseded. Whatever is undelivered stays, however old: what waits to be sent, and
    what waits for a person (dead, unrouted). So does an attempt whose slot of the quota is still held. What is known
    of an entity (the newest that was sent) goes when nothing of it was sent since, and nothing undelivered is left of
    it that would then pass for new.

    On SQLite the file gets smaller. Raises StoreUnavailable.
    """
    yield from _prune_webhooks(outbox, before, step)
    # The keys first: a key that is known has its events.
    with _step(outbox) as connection:
        connection.execute(_DELETE_SUBMISSIONS, {"before": before})
    yield from _prune_direct(outbox, before, step)
    _forget_entities(outbox, before, step)
    if outbox.sqlite:
        _give_space_back(outbox)


def _prune_webhooks(outbox: Outbox, before: int, step: int) -> Iterator[int]:
    """In the order of ids, which is the order of arrival but for a few that came at the same time."""
    after = 0
    while True:
        here = {"after": after, "step": step, "before": before}
        with outbox.read() as connection:
            window = connection.execute(_WINDOW, here).all()
            here["now"] = outbox.now(connection)
        if not any(row.received_at < before for row in window):
            break
        with _step(outbox) as connection:
            here["last"] = after = window[-1].id
            settled = connection.scalars(_SETTLED, here).all()
            deleted = _delete(connection, settled) if settled else 0
        yield deleted


def _prune_direct(outbox: Outbox, before: int, step: int) -> Iterator[int]:
    """Events that came without a webhook, each by itself."""
    after = 0
    while True:
        here = {"after": after, "step": step, "before": before}
        with outbox.read() as connection:
            window = connection.execute(_DIRECT_WINDOW, here).all()
        if not any(row.created_at < before for row in window):
            break
        with _step(outbox) as connection:
            here |= {"last": window[-1].id, "now": outbox.now(connection)}
            gone = connection.scalars(_DELETE_DIRECT, here).all()
            if gone:
                connection.execute(_DELETE_ATTEMPTS, {"events": gone})
        after = window[-1].id
        yield len(gone)


def _delete(connection: sa.Connection, settled: Sequence[int]) -> int:
    """Delete webhooks with all that is theirs; but for those of which an event was just queued again."""
    gone = connection.scalars(_DELETE_EVENTS, {"webhooks": settled}).all()
    if gone:
        connection.execute(_DELETE_ATTEMPTS, {"events": gone})
    return connection.execute(_DELETE_WEBHOOKS, {"webhooks": settled}).rowcount


def _forget_entities(outbox: Outbox, before: int, step: int) -> None:
    here: dict[str, Any] = {"destination": "", "entity": b"", "step": step, "before": before}
    while True:
        with outbox.read() as connection:
            window = connection.execute(_ENTITIES, here).all()
        if not window:
            break
        old = [{"destination": row.destination, "entity": row.entity, "before": before} for row in window if row.old]
        if old:
            with _step(outbox) as connection:
                connection.execute(_FORGET, old)
        here |= {"destination": window[-1].destination, "entity": window[-1].entity}


def _give_space_back(outbox: Outbox) -> None:
    while True:
        with _step(outbox) as connection:
            free = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
            for _ in range(min(free, PAGES)):
                # One page at a time: Python's driver stops this pragma after its first step.
                connection.exec_driver_sql("PRAGMA incremental_vacuum(1)")
        if free <= PAGES:
            break


@contextmanager
def _step(outbox: Outbox) -> Iterator[sa.Connection]:
    """One small transaction, then a pause as long as it took: what comes in goes first."""
    began = time.monotonic()
    with outbox.write() as connection:
        yield connection
    time.sleep(time.monotonic() - began)


_WINDOW = sa.text("SELECT id, received_at FROM webhooks WHERE id > :after ORDER BY id LIMIT :step")

_SETTLED = sa.text("""
SELECT id FROM webhooks w
WHERE id > :after AND id <= :last AND received_at < :before
  AND NOT EXISTS (SELECT 1 FROM events e WHERE e.webhook_id = w.id AND e.status NOT IN ('delivered', 'superseded'))
  AND NOT EXISTS (
      SELECT 1 FROM events e JOIN attempts a ON a.event_id = e.id WHERE e.webhook_id = w.id AND a.held_until > :now
  )
""")

_DELETE_EVENTS = sa.text("""
DELETE FROM events WHERE webhook_id IN :webhooks AND status IN ('delivered', 'superseded') RETURNING id
""").bindparams(sa.bindparam("webhooks", expanding=True))

_DELETE_SUBMISSIONS = sa.text("DELETE FROM submissions WHERE created_at < :before")

_DIRECT_WINDOW = sa.text("""
SELECT id, created_at FROM events WHERE webhook_id IS NULL AND id > :after ORDER BY id LIMIT :step
""")

_DELETE_DIRECT = sa.text("""
DELETE FROM events
WHERE webhook_id IS NULL AND id > :after AND id <= :last AND created_at < :before
  AND status IN ('delivered', 'superseded')
  AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.event_id = events.id AND a.held_until > :now)
RETURNING id
""")

_DELETE_ATTEMPTS = sa.text("DELETE FROM attempts WHERE event_id IN :events").bindparams(
    sa.bindparam("events", expanding=True)
)

_DELETE_WEBHOOKS = sa.text("""
DELETE FROM webhooks WHERE id IN :webhooks AND NOT EXISTS (SELECT 1 FROM events WHERE webhook_id = webhooks.id)
""").bindparams(sa.bindparam("webhooks", expanding=True))

_ENTITIES = sa.text("""
SELECT destination, entity, touched_at < :before AS old FROM entities
WHERE (destination, entity) > (:destination, :entity) ORDER BY destination, entity LIMIT :step
""")

# One condition for each partial index on events that are not done with.
_FORGET = sa.text("""
DELETE FROM entities
WHERE destination = :destination AND entity = :entity AND touched_at < :before
  AND NOT EXISTS (
      SELECT 1 FROM events e WHERE e.destination = :destination AND e.entity = :entity AND e.status = 'pending'
  )
  AND NOT EXISTS (
      SELECT 1 FROM events e WHERE e.destination = :destination AND e.entity = :entity AND e.status = 'sending'
  )
  AND NOT EXISTS (
      SELECT 1 FROM events e
      WHERE e.destination = :destination AND e.entity = :entity AND e.status IN ('dead', 'unrouted')
  )
""")
