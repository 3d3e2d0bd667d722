"""Dispatch's side of the outbox: an event is claimed with a slot of the quota, and settled once.

All of it is decided under a lock on the destination's row, so that threads, processes and machines agree. On
SQLite the turn to write is that lock. On PostgreSQL somebody else may hold a row of an event all the same, by hand:
a claim passes its entity over (SKIP LOCKED), so that it never holds up the whole destination.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random

import sqlalchemy as sa

from relay.dispatch.health import Again, Dead, Done, Outcome, Sent, Unrouted, weigh
from relay.dispatch.lanes import Head, choose
from relay.dispatch.policy import Delivered, Failed, NotSent, Verdict
from relay.dispatch.quota import Quota
from relay.dispatch.steady import Reading, Steady
from relay.model import Answer, Claim, EventStatus, Lane
from relay.outbox import Outbox, standing
from relay.outbox.entities import arrange, heads, hold, look_ahead, move_on, put_off, take_number
from relay.outbox.standing import Frozen, Standing

LEASE_MS = 30_000
"""How long an event is leased: longer than `relay.destinations.Limits` lets its request live."""

TRIES = 50
"""How many entities one claim puts in order before it lets other writers in."""


class Why(StrEnum):
    """What a claim waits for."""

    PAUSED = "paused"
    """Somebody has paused the destination."""
    TROUBLE = "trouble"
    """The destination is limited, blocked or down, or the clock has stepped."""
    PROBE = "probe"
    """The destination is in trouble, and a probe is on its way."""
    SLOT = "slot"
    """The quota is used up."""
    PACE = "pace"
    """What waits is not urgent, and may not go so soon after the one before."""
    DUE = "due"
    """Nothing waits that is due."""
    MORE = "more"
    """Nothing, but other writers should have a turn."""


@dataclass(frozen=True)
class Wait:
    """Nothing is sent before `until`; None means not before something happens."""

    until: int | None
    why: Why
    now: int
    """When that was found, on the same clock."""


@dataclass(frozen=True)
class Forecast:
    """What is still to be sent to a destination."""

    waiting: int
    """Events that wait."""
    requests: int
    """Requests that they come to, after superseding."""
    later: int
    """Of these, how many wait for a moment: to be tried again."""
    drained_at: int | None
    """When the others will have been sent at this quota; None while the destination is held or in trouble."""


def claim(outbox: Outbox, destination: str, *, quota: Quota, token: str, steady: Steady | None = None) -> Claim | Wait:
    """Lease the event that is to be sent next, together with the slot that its request uses.

    `token` must be a new one; `steady` notices when the outbox's clock steps. Raises StoreUnavailable.
    """
    with outbox.write() as connection:
        here = standing.lock(connection, outbox, destination)
        reading = _read_clock(connection, outbox, steady)
        now = reading.now
        held = _held(connection, destination, now)
        # A slot held for longer than any can be was taken before the clock was set back.
        absurd = bool(held) and held[-1] > now + LEASE_MS + quota.hold_ms + quota.margin_ms
        if reading.stepped_ms or absurd:
            frozen = Frozen(
                now=now,
                was=now - reading.stepped_ms,
                until=now + quota.hold_ms,
                lease_until=now + LEASE_MS,
                held_until=now + LEASE_MS + quota.hold_ms,
            )
            standing.freeze(connection, destination, frozen, backwards=absurd or reading.stepped_ms < 0)
            return Wait(frozen.until, Why.TROUBLE, now)
        _take_back(connection, outbox, destination, now)
        if (wait := _must_wait(connection, here, quota, held, now)) is not None:
            return wait
        pace = quota.pace_ms(held, now)
        # The clock may have gone back a little since.
        unhurried_at = here.paced_at + pace if pace else now
        for _ in range(TRIES):
            first = heads(connection, outbox, destination)
            head = choose(
                first,
                now=now,
                turn=here.claims,
                unhurried_at=unhurried_at,
                probing=here.health.probing,
            )
            if not isinstance(head, Head):
                return Wait(head, Why.PACE if any(one.due_at <= now for one in first) else Why.DUE, now)
            if not hold(connection, outbox, destination, head.entity):
                put_off(connection, head, now)
                continue
            plan = arrange(connection, destination, head.entity, now)
            if plan.next is None or plan.next.due_at > now:
                continue
            # It may rank lower than on its arrival: then perhaps something else goes first.
            if plan.rank <= head.rank or here.health.probing:
                return _lease(connection, here, plan.next.event, token=token, quota=quota, now=now)
        return Wait(now, Why.MORE, now)


def settle(outbox: Outbox, claim: Claim, answer: Answer, verdict: Verdict, *, quota: Quota, rng: Random) -> Outcome:
    """Write down what became of a claim. Raises StoreUnavailable; the same call may then be made again.

    If the lease was lost meanwhile the event is somebody else's by now, and only the attempt is completed.
    """
    with outbox.write() as connection:
        here = standing.lock(connection, outbox, claim.destination)
        now = outbox.now(connection)
        sent = Sent(claim.event, claim.failures, claim.trigger == "probe")
        outcome = weigh(verdict, sent, here.health, window_ms=quota.window_ms, now=now, rng=rng)
        held_until = _held_until(answer, verdict, quota, now)
        _complete(connection, claim, answer, word=outcome.word, now=now, held_until=held_until)
        if outcome.health != here.health:
            standing.remember(connection, claim.destination, outcome.health)
        entity = connection.scalar(_LEASED, {"event": claim.event, "token": claim.token})
        if entity is not None:
            _conclude(connection, claim, outcome, verdict, now)
            arrange(connection, claim.destination, entity, now)
        for event in outcome.revived:
            connection.execute(_REVIVE, {"event": event, "due_at": now})
        return outcome


def release(outbox: Outbox, claim: Claim) -> None:
    """Give back a claim of which nothing was sent; its slot is free at once. Raises StoreUnavailable."""
    with outbox.write() as connection:
        standing.lock(connection, outbox, claim.destination)
        now = outbox.now(connection)
        _complete(connection, claim, Answer(status=None), word="released", now=now, held_until=now)
        entity = connection.scalar(_LEASED, {"event": claim.event, "token": claim.token})
        if entity is not None:
            _back(connection, claim.event, due_at=now, counted=False, reason=None)
            arrange(connection, claim.destination, entity, now)


def pause(outbox: Outbox, destination: str) -> None:
    """Hold a destination by hand: what is on its way is finished, nothing more is sent until `resume`."""
    with outbox.write() as connection:
        standing.lock(connection, outbox, destination)
        standing.pause(connection, destination)


def resume(outbox: Outbox, destination: str) -> None:
    """Let go of a destination; one that is blocked or down is probed at once."""
    with outbox.write() as connection:
        standing.lock(connection, outbox, destination)
        standing.resume(connection, destination)


def probe_soon(outbox: Outbox, destination: str) -> None:
    """If the destination is blocked or down, do not wait for the next probe."""
    with outbox.write() as connection:
        here = standing.lock(connection, outbox, destination)
        if here.health.probing:
            standing.remember(connection, destination, replace(here.health, wait_until=0))


def forecast(outbox: Outbox, destination: str, *, quota: Quota) -> Forecast:
    """How many requests are still to be sent, and when that will be done. Raises StoreUnavailable."""
    with outbox.read() as connection:
        now = outbox.now(connection)
        here = standing.look(connection, destination)
        ahead = look_ahead(connection, destination, now)
        held = _held(connection, destination, now)
    drained_at: int | None = None
    if not (here.paused or here.health.probing):
        begin = max(now, here.health.wait_until, here.frozen_until)
        drained_at = quota.drained_at(ahead.requests - ahead.later, [at for at in held if at > begin], begin)
    return Forecast(ahead.waiting, ahead.requests, ahead.later, drained_at)


def _read_clock(connection: sa.Connection, outbox: Outbox, steady: Steady | None) -> Reading:
    def clock() -> int:
        return outbox.now(connection)

    return Reading(clock()) if steady is None else steady.read(clock)


def _held(connection: sa.Connection, destination: str, now: int) -> Sequence[int]:
    """The moments until which slots are held, in order."""
    return connection.scalars(_HELD, {"destination": destination, "now": now}).all()


def _take_back(connection: sa.Connection, outbox: Outbox, destination: str, now: int) -> None:
    """Events whose lease has ended wait again; their requests may have arrived, and keep their slots."""
    lost = _LOST if outbox.sqlite else _FREE_LOST
    for row in connection.execute(lost, {"destination": destination, "now": now}).all():
        if not hold(connection, outbox, destination, row.entity):
            continue
        connection.execute(_LOST_ATTEMPT, {"event": row.id})
        move_on(connection, row.id, now)
        _back(connection, row.id, due_at=now, counted=False, reason="no answer: the dispatcher went away")
        arrange(connection, destination, row.entity, now)


def _must_wait(connection: sa.Connection, here: Standing, quota: Quota, held: Sequence[int], now: int) -> Wait | None:
    """Why nothing at all may be sent now, whatever waits."""
    if here.paused:
        return Wait(None, Why.PAUSED, now)
    if (until := max(here.frozen_until, here.health.wait_until)) > now:
        return Wait(until, Why.TROUBLE, now)
    if (until := quota.free_at(held, now)) > now:
        return Wait(until, Why.SLOT, now)
    if here.health.probing:
        until = connection.scalar(_ON_ITS_WAY, {"destination": here.name})
        return None if until is None else Wait(until, Why.PROBE, now)
    return None


def _lease(connection: sa.Connection, here: Standing, event: int, *, token: str, quota: Quota, now: int) -> Claim:
    row = connection.execute(_EVENT, {"event": event}).one()
    number = take_number(connection, here.name, row.entity, event, now)
    paced_at = here.paced_at if row.rank == Lane.URGENT else now
    standing.count_claim(connection, here.name, paced_at=paced_at)
    trigger = "probe" if here.health.probing else row.trigger
    lease_until = now + LEASE_MS
    lease = {"event": event, "number": number, "token": token, "lease_until": lease_until}
    connection.execute(_LEASE, lease)
    slot = {
        "event": event,
        "destination": here.name,
        "trigger": trigger,
        "now": now,
        "held_until": lease_until + quota.hold_ms,
    }
    return Claim(
        event=event,
        attempt=connection.scalar(_SLOT, slot),
        token=token,
        destination=here.name,
        type=row.type,
        component=row.component,
        body=json.loads(row.body),
        number=number,
        failures=row.failures,
        claimed_at=now,
        lease_until=lease_until,
        trigger=trigger,
        waited_ms=now - row.created_at,
        repeat=bool(row.repeat),
    )


def _held_until(answer: Answer, verdict: Verdict, quota: Quota, now: int) -> int | None:
    """Until when the slot of an attempt is held that has ended now; None leaves it as it is."""
    if isinstance(verdict, NotSent):
        return now
    # Without an answer the request may still be on its way, until the lease's end.
    return None if answer.status is None else now + quota.hold_ms


def _complete(
    connection: sa.Connection, claim: Claim, answer: Answer, *, word: str, now: int, held_until: int | None
) -> None:
    values = {
        "attempt": claim.attempt,
        "now": now,
        "held_until": held_until,
        "outcome": word,
        "status": answer.status,
        "error": answer.error,
        "message": answer.message,
        "took_ms": answer.took_ms,
    }
    connection.execute(_COMPLETE, values)


def _conclude(connection: sa.Connection, claim: Claim, outcome: Outcome, verdict: Verdict, now: int) -> None:
    """What the event becomes."""
    match verdict:
        case Delivered() | Failed(may_have_arrived=True):
            move_on(connection, claim.event, now)
        case _:
            pass
    match outcome.event:
        case Done():
            _end(connection, claim.event, EventStatus.DELIVERED, None, now)
        case Again(due_at, counted, reason):
            _back(connection, claim.event, due_at=due_at, counted=counted, reason=reason)
        case Dead(reason):
            _end(connection, claim.event, EventStatus.DEAD, reason, now)
        case Unrouted(reason):
            _end(connection, claim.event, EventStatus.UNROUTED, reason, now)
            if connection.execute(_UNROUTED_TOO, {"event": claim.event, "reason": reason}).rowcount:
                # What waited behind one of them, with another event source, has nothing to wait for any more.
                connection.execute(_READY_BEHIND, {"event": claim.event})


def _end(connection: sa.Connection, event: int, status: EventStatus, reason: str | None, now: int) -> None:
    connection.execute(_END, {"event": event, "status": status.value, "reason": reason, "now": now})


def _back(connection: sa.Connection, event: int, *, due_at: int, counted: bool, reason: str | None) -> None:
    values = {"event": event, "due_at": due_at, "counted": int(counted), "reason": reason}
    connection.execute(_BACK, values)


_HELD = sa.text("""
SELECT held_until FROM attempts WHERE destination = :destination AND held_until > :now ORDER BY held_until
""")

_ON_ITS_WAY = sa.text("""
SELECT min(lease_until) FROM events WHERE destination = :destination AND status = 'sending'
""")

_EVENT = sa.text("""
SELECT e.entity, type, component, body, rank, failures, trigger, created_at,
       coalesce(e.number, n.number) IS NOT NULL AS repeat
FROM events e LEFT JOIN entities n ON n.destination = e.destination AND n.entity = e.entity
WHERE e.id = :event
""")

_LEASE = sa.text("""
UPDATE events SET status = 'sending', number = :number, lease = :token, lease_until = :lease_until
WHERE id = :event
""")

_SLOT = sa.text("""
INSERT INTO attempts (event_id, destination, trigger, claimed_at, held_until)
VALUES (:event, :destination, :trigger, :now, :held_until)
RETURNING id
""")

_LEASED = sa.text("SELECT entity FROM events WHERE id = :event AND lease = :token AND status = 'sending'")

_COMPLETE = sa.text("""
UPDATE attempts
SET answered_at = :now, outcome = :outcome, status = :status, error = :error, message = :message,
    took_ms = :took_ms, held_until = coalesce(:held_until, held_until)
WHERE id = :attempt
""")

_END = sa.text("""
UPDATE events
SET status = :status, reason = :reason, settled_at = :now, lease = NULL, lease_until = NULL
WHERE id = :event
""")

_BACK = sa.text("""
UPDATE events
SET status = 'pending', ready = 1, due_at = :due_at, failures = failures + :counted, reason = :reason,
    lease = NULL, lease_until = NULL
WHERE id = :event
""")

_UNROUTED_TOO = sa.text("""
UPDATE events SET status = 'unrouted', reason = :reason
WHERE status = 'pending'
  AND (destination, event_source) IN (SELECT destination, event_source FROM events WHERE id = :event)
""")

_READY_BEHIND = sa.text("""
UPDATE events SET ready = 1
WHERE status = 'pending' AND ready = 0 AND (destination, entity) IN (
    SELECT u.destination, u.entity
    FROM events e JOIN events u ON u.destination = e.destination AND u.event_source = e.event_source
    WHERE e.id = :event AND u.status IN ('dead', 'unrouted') AND u.status = 'unrouted'
)
""")

_REVIVE = sa.text("""
UPDATE events SET status = 'pending', ready = 1, due_at = :due_at, settled_at = NULL
WHERE id = :event AND status = 'dead'
""")

_LOST = sa.text("""
SELECT id, entity FROM events
WHERE status = 'sending' AND lease_until <= :now AND destination = :destination
""")

_FREE_LOST = sa.text(f"{_LOST.text} FOR UPDATE SKIP LOCKED")

_LOST_ATTEMPT = sa.text("UPDATE attempts SET outcome = 'lost' WHERE event_id = :event AND outcome IS NULL")
