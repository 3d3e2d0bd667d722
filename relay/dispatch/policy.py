"""What an answer means by itself, the schedule of retries, and what people should do about a refusal. Pure.

`health` weighs the verdict in view of what the destination answered before.
"""

import math
from dataclasses import dataclass
from random import Random

from relay.model import Answer

SECOND = 1000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

SCHEDULE = (
    5 * SECOND,
    30 * SECOND,
    2 * MINUTE,
    10 * MINUTE,
    30 * MINUTE,
    1 * HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    24 * HOUR,
)
"""How long an event waits after its first, second ... failure; after the last one it is a dead letter."""

JITTER = 0.2
"""Waits are spread by this part, up and down, so that what failed together is not sent together again."""

LONGEST_RETRY_AFTER = 1 * HOUR
"""A destination's `Retry-After` is believed up to here."""


@dataclass(frozen=True)
class Delivered:
    """The destination took the event."""


@dataclass(frozen=True)
class Failed:
    """No answer, or none that says anything about the event: to be tried again."""

    reason: str
    may_have_arrived: bool
    """True when no answer came, so that the destination may have taken the event all the same."""
    not_before_ms: int = 0
    """The destination asked for so much time."""


@dataclass(frozen=True)
class NotSent:
    """Nothing was written to the destination; nobody's fault but our own slowness."""

    reason: str


@dataclass(frozen=True)
class Refused:
    """The destination will never take this event."""

    reason: str
    hint: str


@dataclass(frozen=True)
class NoEventSource:
    """The destination does not know the event's source."""

    reason: str


@dataclass(frozen=True)
class Forbidden:
    """The event may not be sent: its own trouble, or the credentials', if others fare alike."""

    reason: str
    hint: str


@dataclass(frozen=True)
class TooMany:
    """Somebody else spends the same quota."""

    reason: str
    wait_ms: int | None
    """As the destination asked; None when it did not say."""


@dataclass(frozen=True)
class Misdirected:
    """Our credentials or our URL are wrong; the event has nothing to do with it."""

    reason: str


Verdict = Delivered | Failed | NotSent | Refused | NoEventSource | Forbidden | TooMany | Misdirected


def judge(answer: Answer) -> Verdict:  # noqa: C901, PLR0911, PLR0912 - a table, read from the top
    """What this answer means for the event, or for the destination. Total: every answer has a meaning.

    The statuses and error types are Compass's: https://developer.atlassian.com/cloud/compass/swagger.v3.json
    and https://developer.atlassian.com/cloud/compass/error-handling/error-types/ (types stay, messages may
    change).
    """
    status, reason = answer.status, _reason(answer)
    if status is None:
        return NotSent(reason) if answer.error == "late" else Failed(reason, may_have_arrived=True)
    asked_ms = None if answer.retry_after is None else _bounded(answer.retry_after)
    again = Failed(reason, may_have_arrived=False, not_before_ms=asked_ms or 0)
    match status // 100, status:
        case 4, 429:
            return TooMany(reason, asked_ms)
        case 4, 408:
            return again
        case 4, _ if answer.error in _PASSING:
            return again
        case 2 | 3 | 4, _ if answer.html:
            return Misdirected(f"answered {status} with a page of HTML: is the URL right?")
        case 2, _:
            return Delivered()
        case 3, _:
            return Misdirected(f"answered {status}, a redirect, which is not followed: is the URL right?")
        case 4, 401:
            return Misdirected(f"{reason}: are the account and its token or password right?")
        case 4, _ if answer.error in _MISDIRECTED:
            return Misdirected(f"{reason}: {_HINTS[answer.error]}")
        case 4, 403:
            return Forbidden(reason, _hint(answer))
        case 4, 404 if answer.error not in _HINTS:
            return NoEventSource(reason)
        case 4, _:
            return Refused(reason, _hint(answer))
        case _:
            return again


def retry_ms(failures: int, rng: Random) -> int:
    """How long an event waits after so many failures (at least one)."""
    return spread(SCHEDULE[min(failures, len(SCHEDULE)) - 1], rng)


def spread(wait_ms: int, rng: Random) -> int:
    """A wait with its jitter."""
    return round(wait_ms * rng.uniform(1 - JITTER, 1 + JITTER))


# Error types behind which a later attempt may succeed, whatever the status says.
_PASSING = frozenset({"STORE_CONFLICT_EXCEPTION", "INTERNAL_SERVER_ERROR"})

# Error types that every event would get.
_MISDIRECTED = frozenset({"CLOUD_ID_INVALID", "COMPASS_NOT_AVAILABLE", "NO_CALENDAR", "NO_PERMISSION"})

_HINTS = {
    "ARGUMENT_INVALID": "a value does not fit: see the message, mend the mapping, then replay the webhook",
    "CLOUD_ID_INVALID": "is COMPASS_CLOUD_ID the id of the site in COMPASS_URL?",
    "COMPASS_NOT_AVAILABLE": "has the site in COMPASS_URL a Compass?",
    "COMPONENT_ARI_INVALID": "the component id is not one; copy it from Compass into components.yaml",
    "COMPONENT_NOT_FOUND": "the component is gone; mend components.yaml, then replay the webhook",
    "CONSTRAINT_VIOLATION": "a value breaks a rule of Compass: see the message, mend the mapping",
    "FIELD_CANNOT_BE_NULL": "the mapping leaves out a field that Compass wants: see the message",
    "FIELD_MISSING": "the mapping leaves out a field that Compass wants: see the message",
    "FORMAT_INVALID": "a field does not have the form that Compass wants: see the message, mend the mapping",
    "NO_CALENDAR": "is RELEASE_URL the base of the server, without /events/?",
    "NO_PERMISSION": "may the account edit events in the calendar?",
    "ONE_OF_DIRECTIVE_VALIDATION_ERROR": "an event must be of exactly one kind; mend the mapping",
    "PERMISSION_DENIED": "may the owner of the API token edit this component in Compass?",
}

_HINTS_BY_STATUS = {
    403: "may the owner of the API token edit this component in Compass?",
    404: "the component or its event source does not exist in Compass",
    413: "the event is too large; let the mapping cut its texts",
}


def _hint(answer: Answer) -> str:
    status = answer.status or 0
    by_status = _HINTS_BY_STATUS.get(status, "see the message; mend the mapping, then replay the webhook")
    return _HINTS.get(answer.error or "", by_status)


def _reason(answer: Answer) -> str:
    head = answer.error or "no answer" if answer.status is None else f"answered {answer.status}"
    error = answer.error if answer.status is not None else None
    return ": ".join(part for part in (head, error, answer.message) if part)


def _bounded(seconds: float) -> int:
    """Milliseconds, at least a second, whatever a header can hold: negative, infinite, not a number."""
    return SECOND if math.isnan(seconds) else int(min(max(seconds * SECOND, SECOND), LONGEST_RETRY_AFTER))
