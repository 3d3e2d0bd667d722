"""A webhook and its mapping make a Translation: events that fit the contract, or the reason why there are none."""

import hashlib
from collections.abc import Iterator
from collections.abc import Mapping as Members
from typing import Any

from relay.contract import DESTINATION, Problem, calendar, check
from relay.contract.fitting import fit
from relay.contract.identity import identify
from relay.mapping.compiled import Made, Mapping, Reading, Rule
from relay.model import Coalesce, Event, Failed, Ignored, Lane, Translated, Translation, Unmatched, Webhook


def translate(webhook: Webhook, mapping: Mapping) -> tuple[Translation, str | None]:
    """What becomes of the webhook, and its dedupe key (None where the sender gives none). Never raises."""
    try:
        reading = mapping.read(webhook)
    except ValueError as error:  # jq reads what Python's JSON does, short of surprises: say so, keep the webhook
        return Failed("", "", f"jq cannot read the body: {error}"[:300]), None
    return _translation(reading), reading.dedupe


def _translation(reading: Reading) -> Translation:
    rule = reading.rule
    if rule is None:
        return Unmatched()
    if (complaint := reading.complaint) is not None:
        return Failed(rule.name, complaint.field, complaint.reason)
    if reading.ignored is not None:
        return Ignored(rule.name, reading.ignored)
    events: list[Event] = []
    for made in reading.made:
        match _events(made, rule):
            case Failed() as failed:
                return failed
            case several:
                events += several
    return Translated(rule.name, tuple(events))


def compass_event(
    body: Members[str, Any],
    *,
    component: str | None,
    lane: Lane = Lane.NORMAL,
    coalesce: Coalesce = Coalesce.TRANSITIONS,
    unrouted: str | None = None,
) -> Event | tuple[Problem, ...]:
    """The event for Compass that `{"incident": {...}}` is, or everything that keeps it from being one."""
    if problems := check(body):
        return problems
    ((kind, fields),) = body.items()
    identity = identify(body, component=component)
    return Event(
        type=kind,
        destination=DESTINATION,
        component=component,
        body=body,
        entity=identity.entity,
        state=identity.state,
        order=identity.order,
        terminal=identity.terminal,
        event_source=fields.get("externalEventSourceId"),
        lane=lane,
        coalesce=coalesce,
        unrouted=unrouted,
    )


def calendar_event(
    body: Members[str, Any], *, lane: Lane = Lane.NORMAL, coalesce: Coalesce = Coalesce.TRANSITIONS
) -> Event | tuple[Problem, ...]:
    """The event for a Release calendar that `{"name", "startDate", ...}` is, or what keeps it from being one."""
    if problems := calendar.check(body):
        return problems
    identity = calendar.identify(body)
    return Event(
        type=calendar.KIND,
        destination=calendar.DESTINATION,
        component=None,
        body=body,
        entity=identity.entity,
        state=identity.state,
        order=identity.order,
        terminal=identity.terminal,
        lane=lane,
        coalesce=coalesce,
    )


def _events(made: Made, rule: Rule) -> list[Event] | Failed:
    """One event for each component it belongs to."""
    # A Compass event's body begins with its kind, a calendar's does not.
    place = made.output.place if made.output.to == DESTINATION else f"{made.output.place}.{made.output.kind}"
    events = []
    for event in _candidates(made, rule):
        if not isinstance(event, Event):
            first = event[0]
            return Failed(rule.name, f"{place}{first.pointer.replace('/', '.')}", first.reason)
        events.append(event)
    return events


def _candidates(made: Made, rule: Rule) -> Iterator[Event | tuple[Problem, ...]]:
    kind = made.output.kind
    if made.output.to == calendar.DESTINATION:
        yield calendar_event(calendar.fit(made.fields), lane=rule.lane, coalesce=rule.coalesce)
        return
    fields = fit(kind, made.fields)
    components: tuple[str | None, ...] = made.components or (None,)
    unrouted = (made.key or "?")[:300] if rule.routed and not made.components else None
    for component in components:
        body = {kind: _own_source(fields, component) if len(components) > 1 else fields}
        yield compass_event(body, component=component, lane=rule.lane, coalesce=rule.coalesce, unrouted=unrouted)


def _own_source(fields: dict[str, Any], component: str | None) -> dict[str, Any]:
    """The fields with an event source of this component alone.

    An event source delivers to every component it is attached to, so an event for several components needs one each.
    """
    if component is None or "externalEventSourceId" not in fields:
        return fields
    suffix = hashlib.blake2b(component.encode(), digest_size=4).hexdigest()
    return {**fields, "externalEventSourceId": f"{fields['externalEventSourceId']}#{suffix}"}
