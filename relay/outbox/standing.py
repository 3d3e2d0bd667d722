"""One row for each destination: how it fares, and the lock under which everything about it is decided."""

import json
from dataclasses import dataclass, field

import sqlalchemy as sa

from relay.dispatch.health import Health, State
from relay.outbox import Outbox


@dataclass(frozen=True)
class Standing:
    """How a destination stands."""

    name: str
    paused: bool = False
    """Somebody holds it by hand."""
    health: Health = field(default_factory=Health)
    frozen_until: int = 0
    """Nothing is sent before then, because the clock has stepped."""
    claims: int = 0
    """How many claims there were."""
    paced_at: int = 0
    """When the last event that was not urgent was claimed."""


@dataclass(frozen=True)
class Frozen:
    """What a step of the clock makes of the moments that are stored; all on the clock after the step."""

    now: int
    was: int
    """What the clock would show if it had not stepped."""
    until: int
    """The pause's end, and the latest moment until which the slot of an answered request can be held."""
    lease_until: int
    """The end of the leases under way."""
    held_until: int
    """The end of the slots without an answer, and the latest moment until which any slot can be held."""


def lock(connection: sa.Connection, outbox: Outbox, name: str) -> Standing:
    """Take the destination's lock for the rest of the transaction, and say how it stands."""
    # On SQLite whoever may write is alone already.
    select = _STANDING if outbox.sqlite else _STANDING_LOCKED
    row = connection.execute(select, {"name": name}).one_or_none()
    if row is None:
        connection.execute(_NEW, {"name": name})
        row = connection.execute(select, {"name": name}).one()
    return _standing(row)


def look(connection: sa.Connection, name: str) -> Standing:
    """How the destination stands, without the lock; open when nothing was ever sent there."""
    row = connection.execute(_STANDING, {"name": name}).one_or_none()
    return Standing(name) if row is None else _standing(row)


def remember(connection: sa.Connection, name: str, health: Health) -> None:
    """Write down how the destination fares."""
    values = {
        "name": name,
        "state": health.state.value,
        "reason": health.reason,
        "since": health.since,
        "wait_until": health.wait_until,
        "probes": health.probes,
        "failing": health.failing,
        "forbidden": json.dumps(health.forbidden),
    }
    connection.execute(_REMEMBER, values)


def count_claim(connection: sa.Connection, name: str, *, paced_at: int) -> None:
    """One claim more."""
    connection.execute(_COUNT, {"name": name, "paced_at": paced_at})


def pause(connection: sa.Connection, name: str) -> None:
    """Hold the destination by hand."""
    connection.execute(_PAUSE, {"name": name})


def resume(connection: sa.Connection, name: str) -> None:
    """Let go; and do not wait for the next probe, if it is in trouble."""
    connection.execute(_RESUME, {"name": name})


def freeze(connection: sa.Connection, name: str, frozen: Frozen, *, backwards: bool) -> None:
    """Pause after a step of the clock, and bring the moments that are stored to reason.

    After a step forwards the slots of requests that may still be on their way would be given back too early;
    after one backwards everything that waits for a moment would wait too long.
    """
    moments = {
        "name": name,
        "now": frozen.now,
        "was": frozen.was,
        "until": frozen.until,
        "lease_until": frozen.lease_until,
        "held_until": frozen.held_until,
    }
    for statement in (_FREEZE, _HOLD_SLOTS, _CUT_SLOTS, _LEASES, *([_DUE] if backwards else [])):
        connection.execute(statement, moments)


def _standing(row: sa.Row[tuple[object, ...]]) -> Standing:
    health = Health(
        state=State(row.state),
        reason=row.reason,
        since=row.since,
        wait_until=row.wait_until,
        probes=row.probes,
        failing=row.failing,
        forbidden=tuple(json.loads(row.forbidden)),
    )
    return Standing(row.name, bool(row.paused), health, row.frozen_until, row.claims, row.paced_at)


_SELECT = """
SELECT name, paused, state, reason, since, wait_until, frozen_until, probes, failing, forbidden, claims,
       paced_at
FROM destinations WHERE name = :name
"""
_STANDING = sa.text(_SELECT)
_STANDING_LOCKED = sa.text(_SELECT + "FOR UPDATE")

_NEW = sa.text("INSERT INTO destinations (name) VALUES (:name) ON CONFLICT (name) DO NOTHING")

_REMEMBER = sa.text("""
UPDATE destinations
SET state = :state, reason = :reason, since = :since, wait_until = :wait_until, probes = :probes,
    failing = :failing, forbidden = :forbidden
WHERE name = :name
""")

_COUNT = sa.text("""
UPDATE destinations SET claims = claims + 1, paced_at = :paced_at WHERE name = :name
""")

_PAUSE = sa.text("UPDATE destinations SET paused = 1 WHERE name = :name")

_RESUME = sa.text("""
UPDATE destinations
SET paused = 0, wait_until = CASE WHEN state IN ('blocked', 'down') THEN 0 ELSE wait_until END
WHERE name = :name
""")

_FREEZE = sa.text("""
UPDATE destinations
SET frozen_until = :until, paced_at = 0,
    wait_until = CASE WHEN wait_until > :until THEN :until ELSE wait_until END
WHERE name = :name
""")

_HOLD_SLOTS = sa.text("""
UPDATE attempts SET held_until = :held_until
WHERE destination = :name AND held_until > :was AND status IS NULL
""")

_CUT_SLOTS = sa.text("""
UPDATE attempts SET held_until = CASE WHEN status IS NULL THEN :held_until ELSE :until END
WHERE destination = :name AND held_until > :until AND (status IS NOT NULL OR held_until > :held_until)
""")

_LEASES = sa.text("""
UPDATE events SET lease_until = :lease_until WHERE destination = :name AND status = 'sending'
""")

_DUE = sa.text("""
UPDATE events SET due_at = :now WHERE destination = :name AND status = 'pending' AND due_at > :now
""")
