"""What Compass does with a request, as far as its documentation tells; nothing of HTTP is in here.

https://developer.atlassian.com/cloud/compass/rest/v2/api-group-events/ . Where that is silent, the sandbox is the
stricter one, so that our mistakes are found here: fields it does not know and titles over 255 characters are
refused, and every request with the right credentials uses up quota, a refused or dropped one too, as long as
there is some.
What it cannot know it assumes: an event belongs to its component, so one with the same id for another component
is another event; and an event source must be known even where a component is named.
"""

import json
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import SecretStr

from relay.contract import check
from relay.dispatch.quota import Quota

Source = tuple[str, str]
"""An event source: `externalEventSourceId` and kind."""

DOCUMENTED_QUOTA = Quota(100, 60_000)
"""100 requests per user and minute."""


@dataclass(frozen=True)
class SandboxConfig:
    """How strict the sandbox is."""

    email: str | None = None
    """The only email it takes; None: any that is not empty."""
    token: SecretStr | None = None
    """The only API token it takes; None: any that is not empty."""
    quota: Quota = DOCUMENTED_QUOTA
    """Requests of one user in a rolling window; the rest is answered 429 and not counted."""
    sources: frozenset[Source] | None = None
    """The event sources that there are; the rest is answered 404. None: all there could be."""
    keep: int = 100_000
    """How many requests, and how many events, are remembered; the oldest are forgotten."""


class Effect(StrEnum):
    """What a request did."""

    STORED = "stored"
    """Compass shows it now."""
    IGNORED = "ignored"
    """Answered like one that is stored, but not newer than what Compass has, so nothing changed."""
    REFUSED = "refused"
    """Not taken."""


@dataclass(frozen=True)
class Complaint:
    """One error of an answer, in Compass's words."""

    type: str
    message: str


@dataclass(frozen=True)
class Verdict:
    """The answer to a request."""

    status: int
    effect: Effect
    complaints: tuple[Complaint, ...] = ()


@dataclass(frozen=True)
class Submission:
    """A request that is valid: one event, and where it belongs."""

    kind: str
    source: str | None
    """Its `externalEventSourceId`; None for a pullRequest."""
    entity: str
    """The id of what it is about, for people."""
    identity: tuple[Any, ...]
    """What a later event must have in common with it to take its place."""
    state: str | None
    component: str | None
    number: int
    """What orders the updates: the `updateSequenceNumber`, or a pullRequest's `lastUpdated` in milliseconds."""
    event: Mapping[str, Any]


@dataclass(frozen=True)
class SeenRequest:
    """One request as the sandbox saw it, in the order of arrival."""

    at: int
    """When it arrived, in milliseconds on the sandbox's own clock, which never goes back."""
    user: str | None
    """Whose quota it used; None without the right credentials."""
    status: int | None
    """What was answered; None when the connection was dropped instead."""
    effect: Effect
    error: str | None = None
    """The type of the first error."""
    faulty: bool = False
    """True when the sandbox went wrong on purpose."""
    kind: str | None = None
    entity: str | None = None
    state: str | None = None
    source: str | None = None
    component: str | None = None
    number: int | None = None


@dataclass(frozen=True)
class ShownEvent:
    """The latest of an entity, as Compass would show it."""

    at: int
    kind: str
    entity: str
    state: str | None
    component: str | None
    number: int
    updates: int
    """How many requests took effect to make it so."""
    event: Mapping[str, Any]


class Compass:
    """The state behind the sandbox. Safe to be used from several threads."""

    def __init__(self, config: SandboxConfig, *, clock: Callable[[], int]) -> None:
        """`clock` tells milliseconds and must not go back."""
        self._config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._requests: deque[SeenRequest] = deque(maxlen=config.keep)
        self._events: OrderedDict[tuple[Any, ...], ShownEvent] = OrderedDict()
        # Who used up quota and when, within the last window; and how often each.
        self._recent: deque[tuple[int, str]] = deque()
        self._spent: Counter[str] = Counter()

    def knows(self, email: str | None, token: str | None) -> bool:
        """Whether these credentials are taken."""
        only = self._config
        return (
            bool(email and token)
            and only.email in {None, email}
            and (only.token is None or only.token.get_secret_value() == token)
        )

    def receive(
        self,
        user: str | None,
        asked: Submission | Verdict,
        *,
        instead: Verdict | None = None,
        answered: bool = True,
    ) -> Verdict:
        """Take a request that has arrived now, and write it down. `asked` is what `examine` made of it.

        `user` is None for one without the right credentials; `instead` is what a fault answers; `answered` is
        False when the answer will not reach the sender.
        """
        with self._lock:
            now = self._clock()
            verdict = self._judge(user, asked, instead, now)
            seen = SeenRequest(
                at=now,
                user=user,
                status=verdict.status if answered else None,
                effect=verdict.effect,
                error=verdict.complaints[0].type if verdict.complaints else None,
                faulty=instead is not None or not answered,
            )
            if isinstance(asked, Submission):
                seen = replace(
                    seen,
                    kind=asked.kind,
                    entity=asked.entity,
                    state=asked.state,
                    source=asked.source,
                    component=asked.component,
                    number=asked.number,
                )
            self._requests.append(seen)
            return verdict

    def requests(self) -> list[SeenRequest]:
        """Every request that is remembered, in the order of arrival."""
        with self._lock:
            return list(self._requests)

    def events(self) -> list[ShownEvent]:
        """What Compass would show: the latest of each entity, the one that changed last at the end."""
        with self._lock:
            return list(self._events.values())

    def reset(self) -> None:
        """Forget everything, used quota included."""
        with self._lock:
            for memory in (self._requests, self._events, self._recent, self._spent):
                memory.clear()

    def _judge(self, user: str | None, asked: Submission | Verdict, instead: Verdict | None, now: int) -> Verdict:
        if user is not None and not self._spend(user, now):
            return Verdict(429, Effect.REFUSED)  # before any fault, so that none hides it
        if instead is not None:
            return instead
        if user is None:
            return Verdict(401, Effect.REFUSED)
        if isinstance(asked, Verdict):
            return asked
        sources = self._config.sources
        if sources is not None and asked.source is not None and (asked.source, asked.kind) not in sources:
            missing = Complaint("EVENT_SOURCE_NOT_FOUND", f"no {asked.kind} event source {asked.source!r}")
            return Verdict(404, Effect.REFUSED, (missing,))
        return Verdict(202, self._store(asked, now))

    def _spend(self, user: str, now: int) -> bool:
        """Use up one request of the user's quota; False when there is none left."""
        while self._recent and self._recent[0][0] <= now - self._config.quota.window_ms:
            _, spender = self._recent.popleft()
            self._spent[spender] -= 1
            if not self._spent[spender]:
                del self._spent[spender]
        if self._spent[user] >= self._config.quota.limit:
            return False
        self._spent[user] += 1
        self._recent.append((now, user))
        return True

    def _store(self, asked: Submission, now: int) -> Effect:
        known = self._events.get(asked.identity)
        if known is not None and asked.number <= known.number:
            return Effect.IGNORED
        self._events[asked.identity] = ShownEvent(
            at=now,
            kind=asked.kind,
            entity=asked.entity,
            state=asked.state,
            component=asked.component,
            number=asked.number,
            updates=1 if known is None else known.updates + 1,
            event=asked.event,
        )
        self._events.move_to_end(asked.identity)
        if len(self._events) > self._config.keep:
            self._events.popitem(last=False)
        return Effect.STORED


def examine(raw: bytes) -> Submission | Verdict:
    """Read the body of a request: what it submits, or why it is refused. Never raises."""
    try:
        request = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return _refused(Complaint("FORMAT_INVALID", f"not a JSON document: {error}"))
    request = _without_nulls(request)
    if complaints := _complaints(request):
        return _refused(*complaints)
    event = request["event"]
    ((kind, fields),) = event.items()
    source = fields.get("externalEventSourceId")
    component = request.get("componentId")
    ids = _ids(kind, fields)
    properties = fields[_properties(kind)]
    return Submission(
        kind=kind,
        source=source,
        entity="/".join(map(str, ids)),
        identity=(kind, source, component, *ids),
        state=properties.get("state") or properties.get("status") or properties.get("stage"),
        component=component,
        number=_milliseconds(fields["lastUpdated"]) if kind == "pullRequest" else fields["updateSequenceNumber"],
        event=event,
    )


def _refused(*complaints: Complaint) -> Verdict:
    return Verdict(400, Effect.REFUSED, complaints)


def _without_nulls(request: Any) -> Any:
    """The request without the kinds that are null: Compass reads those as absent."""
    match request:
        case {"event": dict(event), **rest}:
            return {**rest, "event": {kind: fields for kind, fields in event.items() if fields is not None}}
    return request


def _complaints(request: Any) -> list[Complaint]:
    """Everything that is wrong with the JSON of a request."""
    if not isinstance(request, dict):
        return [Complaint("FORMAT_INVALID", "the body must be an object")]
    complaints = [
        Complaint("FIELD_MISSING", f"/{name}: is required") for name in ("cloudId", "event") if name not in request
    ]
    for name, type_ in (("cloudId", "CLOUD_ID_INVALID"), ("componentId", "COMPONENT_ARI_INVALID")):
        value = request.get(name, "unknown")
        if not (isinstance(value, str) and value) and not (value is None and name == "componentId"):
            complaints.append(Complaint(type_, f"/{name}: must be a text"))
    if "event" in request:
        complaints += [
            Complaint(_TYPES.get(problem.rule, "FORMAT_INVALID"), f"/event{problem.pointer}: {problem.reason}")
            for problem in check(request["event"])
        ]
    unknown = sorted(request.keys() - {"cloudId", "event", "componentId"})
    return complaints + [Complaint("ARGUMENT_INVALID", f"/{name}: no such field") for name in unknown]


# The contract's rules in Compass's words; the rest is FORMAT_INVALID.
# https://developer.atlassian.com/cloud/compass/error-handling/error-types/
_TYPES = {
    "oneKind": "ONE_OF_DIRECTIVE_VALIDATION_ERROR",
    "required": "FIELD_MISSING",
    "additionalProperties": "ARGUMENT_INVALID",
    "maxLength": "CONSTRAINT_VIOLATION",
    "minimum": "CONSTRAINT_VIOLATION",
    "maximum": "CONSTRAINT_VIOLATION",
}


def _properties(kind: str) -> str:
    return f"{kind}EventProperties" if kind in {"custom", "push"} else f"{kind}Properties"


def _ids(kind: str, fields: Mapping[str, Any]) -> tuple[Any, ...]:
    properties = fields[_properties(kind)]
    if kind == "build":
        return (properties["pipeline"]["pipelineId"],)
    if kind == "deployment":
        pipeline, environment = properties["pipeline"], properties["environment"]
        return (pipeline["pipelineId"], environment["environmentId"], properties["sequenceNumber"])
    if kind == "pullRequest":
        return (properties["repoUrl"], properties["id"])
    return (properties["id"],)


def _milliseconds(date: str) -> int:
    """A valid RFC 3339 date; those that Python's calendar does not have (a leap second, year 0) to the nearest."""
    try:
        moment = datetime.fromisoformat(date.upper().replace(":60", ":59"))
    except ValueError:
        return -(2**63)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
