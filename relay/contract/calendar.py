"""The contract of calendar events in UrbanCode Release: blackouts, holidays and the like.

The facts stand in `calendar.schema.json`; what can be known of them is on
https://www.ibm.com/docs/en/devops-release/6.1.2?topic=resource-create-event-elements-from-json-input . Here an event
is what is sent to create one, with its dates in milliseconds; the destination knows in which unit its server counts.
"""

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from jsonschema_rs import Draft202012Validator

from relay.contract import Field, Problem, field_of, problems, shown
from relay.contract.fitting import epoch_ms, fitter
from relay.contract.identity import Identity

DESTINATION = "release"
"""The destination whose contract this is."""

KIND = "calendar"
"""What a calendar event is called as a kind of event; Release has one kind only and calls it `event`."""

SCHEMA: dict[str, Any] = json.loads(
    resources.files("relay.contract").joinpath("calendar.schema.json").read_text(encoding="utf-8")
)

FIELDS: Field = field_of(SCHEMA, required=True)
"""The fields of a calendar event."""

DATES = ("startDate", "endDate")


def check(event: Any) -> tuple[Problem, ...]:
    """Everything about this event that cannot go into the calendar; () for a valid one. Any value may be given."""
    found = tuple(_in_words(problem, event) for problem in problems(event, _VALIDATOR))
    if not found and event["endDate"] < event["startDate"]:
        return (Problem("/endDate", "must not be before startDate", "order"),)
    return found


def fit(value: Mapping[str, Any]) -> dict[str, Any]:
    """A calendar event as the contract wants it.

    Dates in any ISO form, or in seconds or milliseconds since 1970, become milliseconds (without an offset they are
    taken as UTC); a type may be given by its id alone; texts are cut at their limit, nulls are left out, and so is
    what a server adds to the events that it shows, so that one may be copied. What cannot be fitted stays as it is,
    for `check` to name. Raises nothing.
    """
    own = {name: member for name, member in value.items() if name not in _SERVER_MADE}
    if not own.get("releases", True):
        del own["releases"]
    match own.get("type"):
        case str() as identifier:
            own["type"] = {"id": identifier}
        case {"id": identifier}:
            own["type"] = {"id": identifier}
    fitted = _FIT(own)
    if not isinstance(fitted, dict):
        return {}
    for name in DATES:
        moment = epoch_ms(fitted.get(name))
        if moment is not None:
            fitted[name] = moment
    return fitted


def identify(event: Mapping[str, Any]) -> Identity:
    """The identity of a valid calendar event.

    A server gives every event that is posted an id of its own and knows none of ours. So two events are taken for
    the same when they have the same name, type, start and end; their order is that of their arrival.
    """
    parts = [KIND, event["name"], event["type"]["id"].lower(), *(int(event[name]) for name in DATES)]
    return Identity(
        entity=json.dumps(parts, ensure_ascii=False), state=None, order=int(event["startDate"]), terminal=False
    )


def _in_words(problem: Problem, event: Any) -> Problem:
    """The problem as it is said of dates and ids."""
    match problem.pointer, problem.rule:
        case ("/startDate" | "/endDate") as pointer, "type" | "minimum" | "maximum":
            wanted, given = "a date, as 2026-01-31T10:00:00Z or in milliseconds since 1970", event[pointer[1:]]
        case "/type/id", "format":
            wanted, given = "a UUID, as 00000000-0000-1100-0000-000000000011", event["type"]["id"]
        case _:
            return problem
    return Problem(problem.pointer, f"must be {wanted}, not {shown(given)}", problem.rule)


# In what a server shows but never takes: https://www.ibm.com/docs/en/urbancode-release/6.2.5?topic=er-show-information-about-single-event-in-json-format
_SERVER_MADE = frozenset({"id", "version", "dateCreated", "isOneDay"})

_VALIDATOR = Draft202012Validator(SCHEMA, validate_formats=True)
_FIT = fitter(FIELDS)
