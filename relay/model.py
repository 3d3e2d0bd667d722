"""What flows through the relay and what it stores, as frozen records.

Times are integers: milliseconds since 1970-01-01 UTC. Nothing here reads a clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any


class WebhookStatus(StrEnum):
    """What became of a received webhook."""

    TRANSLATED = "translated"
    """A rule made events of it (or an empty list of them)."""
    IGNORED = "ignored"
    """A rule says that it makes no event, and why."""
    UNMATCHED = "unmatched"
    """No rule speaks of it; kept, so that one can be written."""
    FAILED = "failed"
    """A rule matched, but its translation or the contract check failed; kept for a replay."""


class EventStatus(StrEnum):
    """Where an event is on its way to the destination."""

    PENDING = "pending"
    """Waits to be sent, or to be sent again."""
    SENDING = "sending"
    """Leased to a dispatcher that is sending it now."""
    DELIVERED = "delivered"
    """The destination took it."""
    SUPERSEDED = "superseded"
    """A newer event of the same entity made it unnecessary."""
    UNROUTED = "unrouted"
    """Kept but not sent: no component, or no event source, is known for it."""
    DEAD = "dead"
    """The destination refused it for good, or all retries are used up."""


class Lane(IntEnum):
    """A rule's priority: which events go first when many wait."""

    URGENT = 0
    NORMAL = 1
    LOW = 2


class Coalesce(StrEnum):
    """What may be left out when several events of one entity wait."""

    TRANSITIONS = "transitions"
    """Each run of one state is sent as its newest event; every change of state is kept."""
    LATEST = "latest"
    """Only the newest event is sent."""
    OFF = "off"
    """Every event is sent."""


@dataclass(frozen=True)
class Webhook:
    """One authentic, well-formed request of a source."""

    source: str
    headers: Mapping[str, str]
    """Names in lower case."""
    raw: bytes
    """The body as received; what was signed."""
    text: str
    """The body as strict JSON text: valid UTF-8, no lone surrogates."""
    body: Any
    """The body, parsed."""


@dataclass(frozen=True)
class Event:
    """One event for one component, ready to be stored and sent."""

    type: str
    """The kind, as the destination names it: `incident`, `flag`, `pullRequest` ..."""
    destination: str
    """The destination's name: `compass`."""
    component: str | None
    """The Compass component id, or None to send without one."""
    body: Mapping[str, Any]
    """The event as the destination takes it: `{"incident": {...}}`."""
    entity: str
    """What the event is about (component included): updates of one entity are sent in order."""
    state: str | None
    """The entity's state after this event, where the kind has one."""
    order: int
    """The source's own order of the entity's updates, usually the update's time in milliseconds."""
    terminal: bool = False
    """True when normally nothing follows that state (RESOLVED, MERGED ...): it wins a tie in `order`."""
    event_source: str | None = None
    """The `externalEventSourceId`; None for the kinds that have none."""
    lane: Lane = Lane.NORMAL
    coalesce: Coalesce = Coalesce.TRANSITIONS
    unrouted: str | None = None
    """The key that no component is listed for; such an event is kept, never sent."""


@dataclass(frozen=True)
class Translated:
    """A rule matched and made these events."""

    rule: str
    events: tuple[Event, ...]
    status = WebhookStatus.TRANSLATED


@dataclass(frozen=True)
class Ignored:
    """A rule says that this webhook makes no event."""

    rule: str
    reason: str
    status = WebhookStatus.IGNORED


@dataclass(frozen=True)
class Unmatched:
    """No rule matched."""

    status = WebhookStatus.UNMATCHED


@dataclass(frozen=True)
class Failed:
    """A rule matched, but could not make a valid event of this webhook."""

    rule: str
    field: str
    """The field of the rule, as `event.incident.url`; or `when`, `component`, `for_each`."""
    reason: str
    status = WebhookStatus.FAILED


Translation = Translated | Ignored | Unmatched | Failed


@dataclass(frozen=True)
class Arrival:
    """A webhook with its translation: what intake hands to the outbox."""

    source: str
    received_at: int
    dedupe: bytes | None
    """16-byte digest of the delivery's key; None where the sender gives none."""
    headers: Mapping[str, str]
    """Only those worth keeping; never a signature or a credential."""
    raw: bytes
    mapping: str
    """Digest of the mapping file that translated it."""
    translation: Translation


@dataclass(frozen=True)
class StoredEvent:
    """An event's id and kind, as answered to the sender."""

    id: int
    type: str


@dataclass(frozen=True)
class Receipt:
    """What the outbox answers once an arrival is durable."""

    webhook: int
    status: WebhookStatus
    rule: str | None
    events: tuple[StoredEvent, ...]
    duplicate: bool = False
    """True when this delivery had been stored before; the rest is the first receipt."""


@dataclass(frozen=True)
class Claim:
    """An event leased to a dispatcher, with the slot of the quota that its request uses."""

    event: int
    attempt: int
    """The id of the `attempts` row, which is the slot."""
    token: str
    """The lease's token; `settle` compares it."""
    destination: str
    type: str
    component: str | None
    body: Mapping[str, Any]
    number: int
    """The `updateSequenceNumber` to send; fixed at the first claim."""
    failures: int
    """How many attempts have already failed on the event's own account."""
    claimed_at: int
    lease_until: int
    trigger: str
    """`auto`, `replay` or `probe`."""
    waited_ms: int = 0
    """How long the event waited from its arrival to this claim."""
    repeat: bool = False
    """True when this event, or another one of its entity, was claimed before: the destination may have it already."""


@dataclass(frozen=True)
class Answer:
    """What came back for one request to a destination."""

    status: int | None
    """The HTTP status; None when no answer came."""
    error: str | None = None
    """The destination's error type (`FORMAT_INVALID`), or the kind of failure (`timeout`, `connection`)."""
    message: str | None = None
    """The destination's message, shortened; never a credential."""
    retry_after: float | None = None
    """Seconds, from a `Retry-After` header."""
    html: bool = False
    """True when the body is a page of HTML: a sign of a wrong URL or a login page."""
    took_ms: int = 0
