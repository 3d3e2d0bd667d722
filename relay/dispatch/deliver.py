"""`deliver`, the second verb of the product: one event goes from the outbox to its destination."""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from random import Random
from typing import Any

import structlog

from relay.destinations import Destination, TakesSeveral, stopwatch
from relay.dispatch.health import Again, Outcome
from relay.dispatch.policy import Verdict, judge
from relay.dispatch.quota import Quota
from relay.dispatch.steady import Steady
from relay.errors import StoreUnavailable
from relay.model import Answer, Claim
from relay.outbox import Outbox, claims

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

GATHER = 1.0
"""Seconds that may go into claiming what goes along in one request."""

SETTLE_PAUSE = 0.5
"""Seconds between two tries to write an outcome down."""

_NO_TURN = nullcontext()


def deliver(
    outbox: Outbox,
    destination: Destination,
    *,
    quota: Quota,
    rng: Random,
    steady: Steady | None = None,
    turn: AbstractContextManager[object] = _NO_TURN,
    claimed: Callable[[], bool] = lambda: True,
) -> tuple[Outcome, ...] | claims.Wait:
    """Send what is next: claim it, send it, judge the answer, settle.

    One event as a rule; several, where the destination takes them in one request. Answers what became of each, or
    what there is to wait for. `turn` is held while the outbox is asked; `claimed` is called as soon as there is a
    claim; when it says no, the claim is given back unsent. Raises StoreUnavailable.
    """

    def next_claim() -> Claim | claims.Wait:
        with turn:
            return claims.claim(outbox, destination.name, quota=quota, token=secrets.token_hex(8), steady=steady)

    def give_back(claim: Claim) -> None:
        with turn:
            claims.release(outbox, claim)

    age = stopwatch()
    claim = next_claim()
    if isinstance(claim, claims.Wait):
        return claim
    if not claimed():
        give_back(claim)
        return claims.Wait(until=None, why=claims.Why.PAUSED, now=claim.claimed_at)
    if isinstance(destination, TakesSeveral) and not claim.repeat:
        batch = [claim, *_going_along(destination, next_claim, give_back, age)]
        answers = destination.send_several(batch, age=age)
    else:
        batch = [claim]
        answers = [destination.send(claim, age=age)]
    outcomes = []
    for one, answer in zip(batch, answers, strict=True):
        outcome = _settle(outbox, one, answer, judge(answer), quota=quota, rng=rng, turn=turn, age=age)
        log.info("attempt", **_line(one, answer, outcome))
        outcomes.append(outcome)
    return tuple(outcomes)


def _going_along(
    destination: TakesSeveral,
    next_claim: Callable[[], Claim | claims.Wait],
    give_back: Callable[[Claim], None],
    age: Callable[[], float],
) -> Iterator[Claim]:
    """What else may go in the same request: all that waits, but nothing that may be there already.

    A store that refuses meanwhile ends the gathering, and what is claimed goes.
    """
    with suppress(StoreUnavailable):
        for _ in range(destination.most - 1):
            further = next_claim() if age() < GATHER else None
            if not isinstance(further, Claim):
                return
            if further.repeat:
                give_back(further)
                return
            yield further


def _settle(
    outbox: Outbox,
    claim: Claim,
    answer: Answer,
    verdict: Verdict,
    *,
    quota: Quota,
    rng: Random,
    turn: AbstractContextManager[object],
    age: Callable[[], float],
) -> Outcome:
    """Settle, however long the store refuses, until the lease is lost anyway."""
    while True:
        try:
            with turn:
                return claims.settle(outbox, claim, answer, verdict, quota=quota, rng=rng)
        except StoreUnavailable:
            if age() * 1000 > claims.LEASE_MS:
                raise
            time.sleep(SETTLE_PAUSE)


def _line(claim: Claim, answer: Answer, outcome: Outcome) -> dict[str, Any]:
    """All about one attempt in one line of the log: from these lines the service can be run."""
    again = outcome.event if isinstance(outcome.event, Again) else None
    return {
        "destination": claim.destination,
        "outcome": outcome.word,
        "status": answer.status,
        "error": answer.error,
        "reason": answer.message,
        "event_id": claim.event,
        "attempt_id": claim.attempt,
        "type": claim.type,
        "component": claim.component,
        "number": claim.number,
        "trigger": claim.trigger,
        "failures": claim.failures + int(again is not None and again.counted),
        "due_at": None if again is None else again.due_at,
        "waited_ms": claim.waited_ms,
        "took_ms": answer.took_ms,
        "state": outcome.health.state.value,
    }
