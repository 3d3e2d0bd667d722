"""What scripts post: one JSON body becomes events, or the reasons why it does not.

A body is one event or an array of them. An event is a Compass event of one of the ten kinds, with the id of its
component beside it, or a calendar event of UrbanCode Release. A calendar event goes to the Release server, if there is
one, and through the mapping file that is for them into Compass.

Values are fitted to the contract as those of a mapping file are, and then checked: dates may have any form.
"""

import json
from collections.abc import Iterator
from collections.abc import Mapping as Members
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from relay.contract import KINDS, Problem, calendar, escaped, shown
from relay.contract.fitting import fit
from relay.contract.identity import identify
from relay.errors import InvalidEvents, TooManyEvents
from relay.mapping.compiled import Mapping
from relay.model import Arrival, Event, Failed, Ignored, Translated, Webhook
from relay.translate import calendar_event, compass_event, translate

MOST = 10_000
"""Events in one array."""

TOLD = 10
"""Problems that are told of one body."""

RECEIVED_AT = "x-relay-received-at"
"""The header by which a mapping file knows when a calendar event was taken."""


@dataclass(frozen=True)
class Calendars:
    """Where calendar events go."""

    server: bool
    """There is a Release server to send them to."""
    mapping: Mapping | None
    """The mapping file that makes Compass events of them."""


def read(body: Any, *, calendars: Calendars, now: int) -> tuple[Event | Arrival, ...]:
    """What is to be stored for each event of the body, in their order.

    A calendar event that a mapping file translates is an Arrival; it brings along its event for the Release server.
    `now` is in milliseconds. Raises TooManyEvents, and InvalidEvents, which tells the index of each element and the
    JSON pointer in it.
    """
    several = body if isinstance(body, list) else [body]
    if not several:
        raise InvalidEvents("the array holds no event")
    if len(several) > MOST:
        raise TooManyEvents(f"the array holds {len(several)} events; {MOST} are the most, so send it in parts")
    elements: list[Event | Arrival] = []
    told: list[str] = []
    for index, element in enumerate(several):
        made = _element(element, calendars, now)
        if isinstance(made, Event | Arrival):
            elements.append(made)
        else:
            place = f"element {index}" if isinstance(body, list) else ""
            told += [": ".join(part for part in (place, one.pointer, one.reason) if part) for one in made]
    if told:
        more = [f"and {len(told) - TOLD} more"] if len(told) > TOLD else []
        raise InvalidEvents("; ".join(told[:TOLD] + more))
    return tuple(elements)


def entity_of(kind: str, body: Members[str, Any], component: str | None) -> str:
    """What a valid event is about, as people may ask for it."""
    return calendar.identify(body).entity if kind == calendar.KIND else identify(body, component=component).entity


def name_of(kind: str, body: Members[str, Any]) -> str:
    """What a valid event is called."""
    if kind == calendar.KIND:
        return str(body["name"])
    fields = body[kind]
    return str(fields["displayName"] if "displayName" in fields else fields["pullRequestProperties"]["pullRequestUrl"])


def _element(element: Any, calendars: Calendars, now: int) -> Event | Arrival | tuple[Problem, ...]:
    if not isinstance(element, dict):
        return (Problem("", f"must be an event, as an object, not {shown(element)}"),)
    if element.keys() & _CALENDAR_FIELDS and not element.keys() & _KINDS:
        event = calendar_event(calendar.fit(element))
        return _sent_on(event, calendars, now) if isinstance(event, Event) else event
    if unknown := sorted(element.keys() - _KINDS - {"componentId"}):
        reason = f"is no kind of event; the kinds are {', '.join(KINDS)}"
        return tuple(Problem(f"/{escaped(name[:60])}", reason) for name in unknown[:3])
    component = element.get("componentId")
    if component is not None and (not isinstance(component, str) or not component.strip()):
        return (Problem("/componentId", f"must be a component's id, not {shown(component)}"),)
    return compass_event(dict(_kinds(element)), component=component)


def _kinds(element: Members[str, Any]) -> Iterator[tuple[str, Any]]:
    """The kinds of event that the element holds, fitted; one that is null is not there."""
    for kind, fields in element.items():
        if kind in _KINDS and fields is not None:
            yield kind, fit(kind, fields) if isinstance(fields, dict) else fields


def _sent_on(event: Event, calendars: Calendars, now: int) -> Event | Arrival | tuple[Problem, ...]:
    """A calendar event with what becomes of it in Compass."""
    to_server = (event,) if calendars.server else ()
    mapping = calendars.mapping
    if mapping is None:
        return event if calendars.server else (Problem("", _NOWHERE),)
    headers = mapping.kept({RECEIVED_AT: datetime.fromtimestamp(now / 1000, UTC).isoformat(timespec="milliseconds")})
    text = json.dumps(event.body)
    translation, _ = translate(Webhook(mapping.source, headers, text.encode(), text, event.body), mapping)
    match translation:
        case Translated(rule, events) if events:
            whole = Translated(rule, (*to_server, *events))
            return Arrival(mapping.source, now, None, headers, text.encode(), mapping.digest, whole)
        case Failed(rule, field, reason):
            return (Problem("", f"{mapping.source}, rule '{rule}': {field}: {reason}"),)
        case Ignored(rule, reason) if not calendars.server:
            return (Problem("", f"goes nowhere: RELEASE_URL is not set, and the rule '{rule}' ignores it: {reason}"),)
        case _ if not calendars.server:
            return (Problem("", f"goes nowhere: RELEASE_URL is not set, and no rule of {mapping.source} is for it"),)
    return event


_KINDS = frozenset(KINDS)
_CALENDAR_FIELDS = frozenset({"name", "startDate", "endDate", "type"})
_NOWHERE = (
    "is a calendar event, which goes nowhere here: set RELEASE_URL, or have a mapping file with `direct: calendar`"
)
