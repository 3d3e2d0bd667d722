"""`/events/`: events that scripts and CI jobs post, one or an array of them, and what became of any event.

The form is that of the create call of UrbanCode Release, so that its clients feel at home:
https://www.ibm.com/docs/en/devops-release/6.1.2?topic=resource-create-event-elements-from-json-input .
"""

import hashlib
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlencode

import structlog
from flask import Blueprint, Response, g, jsonify, request
from werkzeug.exceptions import RequestEntityTooLarge

from relay.contract import DESTINATION, KINDS, calendar
from relay.direct import entity_of, name_of, read
from relay.errors import (
    BadParameter,
    BodyTooLarge,
    KeyReused,
    NotFound,
    RequestError,
    StoreUnavailable,
    UnsupportedMediaType,
)
from relay.intake import read_json
from relay.model import EventStatus
from relay.outbox import claims, direct, machine_clock, views
from relay.outbox.direct import Answered, Element, Key
from relay.outbox.tables import digest
from relay.runtime import Relay, destination_names
from relay.web.admin import admit

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

MAX_BODY = 16 * 1024 * 1024
"""Bytes of a body: ten thousand events of more than a kilobyte and a half. A larger RELAY_MAX_BODY counts here too."""

LONGEST_KEY = 255

PAGE, LARGEST_PAGE = 50, 1000


def blueprint(relay: Relay) -> Blueprint:
    """The endpoints, for this relay."""
    events = Blueprint("events", __name__)

    @events.before_request
    def come_in() -> None:
        admit(request, relay.settings.admin_token)
        if request.method == "POST":
            # Here, because the endpoint may run in another thread than the one that has the connection.
            g.began = time.perf_counter()
            with _refusals_told():
                g.raw = _raw(max(MAX_BODY, relay.settings.max_body))

    @events.post("/events/")
    def take() -> Response:
        with _refusals_told():
            body = _json(g.raw)
            elements, repeated = _stored(relay, body)
        took_ms = round((time.perf_counter() - g.began) * 1000, 1)
        log.info(
            "events.received", events=len(elements), repeated=repeated, took_ms=took_ms, remote=request.remote_addr
        )
        answer = _told(elements, several=isinstance(body, list))
        answer.status_code = 201
        if not isinstance(body, list):
            answer.headers["Location"] = f"/events/{elements[0].event.id}"
        if repeated:
            answer.headers["Idempotent-Replayed"] = "true"
        answer.headers.update(_forecast(relay, elements))
        return answer

    @events.get("/events/")
    def listed() -> Response:
        limit = _number("limit", PAGE, least=1, most=LARGEST_PAGE)
        found = views.list_events(
            relay.outbox,
            status=_status(),
            type=_type(),
            entity=_entities(relay),
            limit=limit,
            before=_number("before", None, least=1, most=2**63 - 1),
        )
        answer = _told(_with_ids(relay, [view.id for view in found]), several=True)
        if len(found) == limit:
            following = urlencode({**request.args.to_dict(), "before": found[-1].id})
            answer.headers["Link"] = f'</events/?{following}>; rel="next"'
        return answer

    @events.get("/events/<int:event>")
    def shown(event: int) -> Response:
        found = _with_ids(relay, [event]) if event < 2**63 else ()
        if not found:
            raise NotFound(f"there is no event {event}; perhaps it was pruned")
        return _told(found, several=False, attempts=views.show_event(relay.outbox, event).attempts)

    return events


@contextmanager
def _refusals_told() -> Iterator[None]:
    """Write a line of the log for what was posted and is not stored."""
    try:
        yield
    except (RequestError, StoreUnavailable) as error:
        code = error.code if isinstance(error, RequestError) else "store_unavailable"
        log.warning("events.refused", status=code, remote=request.remote_addr)
        raise


def _raw(limit: int) -> bytes:
    """The body as it was sent. Raises BodyTooLarge."""
    too_large = BodyTooLarge(f"the body is larger than {limit} bytes; send the array in parts")
    # One byte more, so that a body in chunks is seen to be too long, not wrong.
    request.max_content_length = limit + 1
    try:
        raw = request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise too_large from None
    if len(raw) > limit:
        raise too_large
    return raw


def _json(raw: bytes) -> Any:
    """The body's JSON value. Raises UnsupportedMediaType, MalformedBody."""
    if not request.is_json:
        raise UnsupportedMediaType(f"Content-Type must be application/json, not {request.mimetype[:80] or 'missing'}")
    return read_json(raw)[1]


def _stored(relay: Relay, body: Any) -> tuple[tuple[Element, ...], bool]:
    """The events of the body once they are stored, and whether they had been stored before."""
    now, key = machine_clock(), _key(body)
    answered = None if key is None else direct.recall(relay.outbox, key)
    if answered is None:
        elements = read(body, calendars=relay.calendars, now=now)
        stored = direct.append(relay.outbox, elements, now=now, key=key)
        if not isinstance(stored, Answered):
            return stored, False
        answered = stored
    if not answered.same:
        raise KeyReused("this Idempotency-Key came with another body before; choose a new one for each request")
    return _with_ids(relay, answered.events), True


def _with_ids(relay: Relay, ids: Sequence[int]) -> tuple[Element, ...]:
    mapping = relay.calendars.mapping
    return direct.with_ids(relay.outbox, ids, calendars=None if mapping is None else mapping.source)


def _key(body: Any) -> Key | None:
    """What the sender calls this request, if it has a name."""
    given = request.headers.get("Idempotency-Key")
    if given is None:
        return None
    if not 0 < len(given) <= LONGEST_KEY:
        raise BadParameter(f"an Idempotency-Key has 1 to {LONGEST_KEY} characters")
    canonical = json.dumps(body, sort_keys=True).encode()
    return Key(digest("Idempotency-Key", given), hashlib.blake2b(canonical, digest_size=16).digest())


def _told(
    elements: Sequence[Element], *, several: bool, attempts: Iterable[views.AttemptView] | None = None
) -> Response:
    """The events in the format that was asked for; one that is not known means `detail`, which `list` equals."""
    told = [_as_name(one) if request.args.get("format") == "name" else _as_detail(one) for one in elements]
    if attempts is not None and "delivery" in told[0]:
        told[0]["delivery"]["attempts"] = [vars(attempt) for attempt in attempts]
    return jsonify(told if several else told[0])


def _as_name(element: Element) -> dict[str, Any]:
    posted = _calendar_event(element)
    name = name_of(element.event.type, element.body) if posted is None else posted["name"]
    return {"id": element.event.id, "name": name}


def _as_detail(element: Element) -> dict[str, Any]:
    """An event with its delivery. A calendar event has its own members beside, as Release shows them."""
    event, body, posted = element.event, element.body, _calendar_event(element)
    own = {} if posted is None else {"description": "", **posted}
    return {
        **_as_name(element),
        **own,
        "event": body,
        "componentId": event.component,
        "dateCreated": event.created_at,
        "delivery": {
            "destination": event.destination,
            "type": event.type,
            "entity": entity_of(event.type, body, event.component),
            "state": event.state,
            "status": event.status.value,
            "reason": event.reason or (f"no component is listed for {event.unrouted}" if event.unrouted else None),
            "failures": event.failures,
            "dueAt": event.due_at if event.status is EventStatus.PENDING else None,
            "settledAt": event.settled_at,
            "supersededBy": event.successor,
            "webhook": event.webhook,
        },
        "others": list(element.others),
    }


def _calendar_event(element: Element) -> Mapping[str, Any] | None:
    """The calendar event that this is, or that became this."""
    if element.event.type == calendar.KIND:
        return element.body
    # A webhook of the same source, as it was signed and sent, may be anything.
    return None if element.posted is None or calendar.check(element.posted) else dict(element.posted)


def _forecast(relay: Relay, elements: Iterable[Element]) -> Mapping[str, str]:
    """How many requests wait at the destinations of these events, and for how long at their quotas, as headers."""
    names = {element.event.destination for element in elements}
    if any(element.others for element in elements):
        names.add(DESTINATION)
    ahead = []
    with suppress(StoreUnavailable):  # the events are stored, and that is what the answer is about
        now = machine_clock()
        ahead = [claims.forecast(relay.outbox, name, quota=relay.settings.quota(name)) for name in names]
    headers = {"X-Relay-Forecast-Requests": str(sum(one.requests for one in ahead))} if ahead else {}
    drained = [one.drained_at for one in ahead if one.drained_at is not None]
    if ahead and len(drained) == len(ahead):
        headers["X-Relay-Forecast-Seconds"] = str(max(0, round((max(drained) - now) / 1000)))
    return headers


def _status() -> EventStatus | None:
    given = request.args.get("status")
    words = [status.value for status in EventStatus]
    if given is not None and given not in words:
        raise BadParameter(f"status: must be one of {', '.join(words)}")
    return None if given is None else EventStatus(given)


def _type() -> str | None:
    given = request.args.get("type")
    if given is not None and given not in (*KINDS, calendar.KIND):
        raise BadParameter(f"type: must be one of {', '.join((*KINDS, calendar.KIND))}")
    return given


def _entities(relay: Relay) -> list[bytes]:
    """The entity that is asked for, as each destination may know it."""
    given = request.args.get("entity")
    if given is None:
        return []
    with suppress(ValueError, RecursionError):  # however its JSON is spaced
        given = json.dumps(json.loads(given), ensure_ascii=False)
    return [digest(name, given) for name in destination_names(relay.settings)]


def _number(name: str, default: int | None, *, least: int, most: int) -> Any:
    given = request.args.get(name)
    if given is None:
        return default
    if not (re.fullmatch("[0-9]{1,19}", given) and least <= int(given) <= most):
        raise BadParameter(f"{name}: must be a number from {least} to {most}")
    return int(given)
