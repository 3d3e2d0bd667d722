"""How a destination fares, and what a verdict means in view of that: whose trouble is it? Pure.

A destination in trouble gets one request at a time, a probe, with a different event each time, and nothing
that happens meanwhile counts against an event. Everything else is the event's own affair, so that an event
that cannot be delivered never holds up another one.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random

from relay.dispatch.policy import (
    MINUTE,
    SCHEDULE,
    SECOND,
    Delivered,
    Failed,
    Forbidden,
    Misdirected,
    NoEventSource,
    NotSent,
    Refused,
    TooMany,
    Verdict,
    retry_ms,
    spread,
)

FORBIDDEN_LIMIT = 3
"""Three different events that are forbidden, and nothing delivered between them: it is the credentials."""

SOON = 1 * SECOND


class State(StrEnum):
    """How a destination fares."""

    OPEN = "open"
    """It takes events, as far as we know."""
    LIMITED = "limited"
    """It said 429: a pause, then all goes on."""
    BLOCKED = "blocked"
    """It refuses our credentials, or our URL is wrong: a person must act. Probed every 1 to 15 minutes."""
    DOWN = "down"
    """It does not answer. Probed every 5 seconds to every minute."""


@dataclass(frozen=True)
class Health:
    """What is remembered of a destination between two answers."""

    state: State = State.OPEN
    reason: str | None = None
    """Why it is not open."""
    since: int | None = None
    """Since when it is in this state."""
    wait_until: int = 0
    """No request before then."""
    probes: int = 0
    """How many probes in a row have failed."""
    failing: int | None = None
    """The event that failed last, with no answer of another kind since."""
    forbidden: tuple[int, ...] = ()
    """The events that were forbidden since something was delivered; dead letters, unless it turns out to be
    the destination's trouble."""

    @property
    def probing(self) -> bool:
        """True when only one request at a time may go out."""
        return self.state in (State.BLOCKED, State.DOWN)


@dataclass(frozen=True)
class Done:
    """The event was delivered."""


@dataclass(frozen=True)
class Again:
    """The event waits until `due_at`; behind all that wait already, if that is now."""

    due_at: int
    counted: bool
    """True when the event's own schedule goes on by one step."""
    reason: str


@dataclass(frozen=True)
class Dead:
    """The event is a dead letter."""

    reason: str


@dataclass(frozen=True)
class Unrouted:
    """The event is held back, with all that wait for the same event source."""

    reason: str


@dataclass(frozen=True)
class Sent:
    """What is known about one attempt when its verdict is weighed."""

    event: int
    failures: int
    """How many attempts have failed on the event's own account before."""
    probe: bool


@dataclass(frozen=True)
class Outcome:
    """What becomes of the event and of the destination."""

    event: Done | Again | Dead | Unrouted
    health: Health
    word: str
    """For the log: delivered, retry, dead, unrouted, limited, blocked, down or late."""
    revived: tuple[int, ...] = ()
    """Dead letters that go back to the waiting events: what killed them was the destination's trouble."""


def weigh(  # noqa: PLR0911 - one line for each verdict
    verdict: Verdict, sent: Sent, health: Health, *, window_ms: int, now: int, rng: Random
) -> Outcome:
    """What becomes of an event and of its destination after this verdict. Total."""
    match verdict:
        case Delivered():
            return Outcome(Done(), replace(_answering(health, now), forbidden=()), "delivered")
        case Refused(reason, hint):
            return Outcome(Dead(f"{reason} ({hint})"), _answering(health, now), "dead")
        case NoEventSource(reason):
            return Outcome(Unrouted(reason), _answering(health, now), "unrouted")
        case NotSent(reason):
            return Outcome(Again(now + SOON, counted=False, reason=reason), health, "late")
        case TooMany(reason, wait_ms):
            until = now + (window_ms if wait_ms is None else wait_ms)
            limited = _enter(State.LIMITED, reason, replace(health, failing=None, probes=0), until, now)
            return Outcome(Again(now, counted=False, reason=reason), limited, "limited")
        case Misdirected(reason):
            return _blocked(reason, sent, health, now, rng)
        case Forbidden():
            return _forbidden(verdict, sent, health, now, rng)
        case Failed():
            return _failed(verdict, sent, health, now, rng)


def _answering(health: Health, now: int) -> Health:
    """It answered, and the answer was about the event: whatever was wrong, it is over."""
    if health.state is State.LIMITED and now < health.wait_until:
        return replace(health, failing=None)
    return Health(forbidden=health.forbidden)


def _enter(state: State, reason: str, health: Health, wait_until: int, now: int) -> Health:
    since = health.since if health.state is state else now
    until = max(health.wait_until, wait_until)
    return replace(health, state=state, reason=reason, since=since, wait_until=until)


def _forbidden(verdict: Forbidden, sent: Sent, health: Health, now: int, rng: Random) -> Outcome:
    forbidden = (*(event for event in health.forbidden if event != sent.event), sent.event)
    if health.state is State.BLOCKED:
        return _blocked(verdict.reason, sent, health, now, rng)
    if len(forbidden) < FORBIDDEN_LIMIT:
        dead = Dead(f"{verdict.reason} ({verdict.hint})")
        return Outcome(dead, replace(_answering(health, now), forbidden=forbidden), "dead")
    others = tuple(event for event in forbidden if event != sent.event)
    blocked = _blocked(f"{verdict.reason} ({verdict.hint})", sent, health, now, rng)
    return replace(blocked, health=replace(blocked.health, forbidden=()), revived=others)


def _blocked(reason: str, sent: Sent, health: Health, now: int, rng: Random) -> Outcome:
    if health.state is State.BLOCKED and not sent.probe:
        # It was under way when the destination was blocked, and tells nothing new.
        again = Again(now, counted=False, reason=reason)
        return Outcome(again, health, "blocked")
    probes = health.probes + 1 if health.state is State.BLOCKED else 0
    until = now + spread(min(MINUTE * 2 ** min(probes, 10), 15 * MINUTE), rng)
    blocked = _enter(State.BLOCKED, reason, replace(health, failing=None, probes=probes), until, now)
    return Outcome(Again(now, counted=False, reason=reason), blocked, "blocked")


def _failed(verdict: Failed, sent: Sent, health: Health, now: int, rng: Random) -> Outcome:
    if health.probing and not sent.probe:
        # It was under way when the trouble began, and tells nothing new.
        again = Again(now, counted=False, reason=verdict.reason)
        return Outcome(again, health, health.state.value)
    if health.state is State.BLOCKED:
        return _blocked(health.reason or verdict.reason, sent, health, now, rng)
    alone = health.failing in (None, sent.event)
    if health.state is State.DOWN or not alone:
        probes = health.probes + 1 if health.state is State.DOWN else 0
        wait = min(5 * SECOND * 2 ** min(probes, 10), MINUTE)
        until = now + max(spread(wait, rng), verdict.not_before_ms)
        down = _enter(State.DOWN, verdict.reason, replace(health, failing=None, probes=probes), until, now)
        return Outcome(Again(now, counted=False, reason=verdict.reason), down, "down")
    if sent.failures < len(SCHEDULE):
        due_at = now + max(retry_ms(sent.failures + 1, rng), verdict.not_before_ms)
        again = Again(due_at, counted=True, reason=verdict.reason)
        return Outcome(again, replace(health, failing=sent.event), "retry")
    if health.failing == sent.event:
        # Nothing else was answered since its last attempt: a quiet weekend with the destination down.
        again = Again(now + retry_ms(sent.failures, rng), counted=False, reason=verdict.reason)
        return Outcome(again, health, "retry")
    reason = f"{verdict.reason}; {sent.failures + 1} attempts"
    return Outcome(Dead(reason), replace(health, failing=sent.event), "dead")
