"""What the tests of the outbox tell it: a webhook came, an event was sent, and this was the answer."""

from collections.abc import Sequence
from random import Random

from relay.dispatch.policy import Delivered, Refused, Verdict
from relay.dispatch.quota import Quota
from relay.model import Answer, Arrival, Claim, Event, Lane, Receipt, Translation
from relay.outbox import Outbox, claims
from relay.outbox.append import Appender

QUOTA = Quota(100, 60_000)


REFUSED = Refused("FORMAT_INVALID: url is missing", "mend the mapping")
"""A verdict that makes a dead letter."""


def event(entity: str = "P1", *, order: int = 1, lane: Lane = Lane.NORMAL, unrouted: str | None = None) -> Event:
    """An incident that is open."""
    return Event(
        type="incident",
        destination="compass",
        component=None,
        body={"incident": {"displayName": f"Incident {entity}"}},
        entity=entity,
        state="OPEN",
        order=order,
        lane=lane,
        unrouted=unrouted,
    )


def store(outbox: Outbox, translation: Translation, source: str = "pagerduty") -> Receipt:
    """A webhook came, just now, and this became of it."""
    with outbox.read() as connection:
        now = outbox.now(connection)
    return Appender(outbox).append(
        Arrival(source, now, None, {"content-type": "application/json"}, b'{"a": 1}', "m1", translation)
    )


def events_of(receipt: Receipt) -> list[int]:
    """The ids of the events it made."""
    return [one.id for one in receipt.events]


def send(outbox: Outbox, verdicts: Sequence[Verdict]) -> list[int]:
    """Send as many events as there are verdicts, and say which."""
    sent = []
    for number, verdict in enumerate(verdicts):
        claim = claims.claim(outbox, "compass", quota=QUOTA, token=f"token {number}")
        assert isinstance(claim, Claim)
        answer = Answer(status=202 if isinstance(verdict, Delivered) else 400, error="FORMAT_INVALID", took_ms=7)
        claims.settle(outbox, claim, answer, verdict, quota=QUOTA, rng=Random(0))
        sent.append(claim.event)
    return sent
