"""The contract of Compass events: what a valid event is, and which fields each kind has.

The facts stand in `event.schema.json`, taken from https://developer.atlassian.com/cloud/compass/swagger.v3.json .
This module checks events against it and shows it as a tree of fields; `fitting` turns mapped values into what it
asks for, `identity` says what an event is about.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from typing import Any

from jsonschema_rs import Draft202012Validator, ValidationError
from jsonschema_rs import ValidationErrorKind as Rule

SCHEMA: dict[str, Any] = json.loads(
    resources.files("relay.contract").joinpath("event.schema.json").read_text(encoding="utf-8")
)

DESTINATION = "compass"
"""The destination whose contract this is."""

KINDS: tuple[str, ...] = tuple(SCHEMA["properties"])
"""The ten kinds of event, as Compass names them."""


class Value(StrEnum):
    """What kind of value a field takes."""

    OBJECT = "object"
    TEXT = "text"
    DATE = "date"
    INTEGER = "integer"
    NUMBER = "number"


@dataclass(frozen=True)
class Field:
    """One field of the contract, with the fields below it."""

    value: Value
    required: bool
    enum: tuple[str, ...] = ()
    """The words it takes; empty when any text will do."""
    limit: int | None = None
    """The most characters."""
    url: bool = False
    members: Mapping[str, "Field"] | None = None


@dataclass(frozen=True)
class Problem:
    """One way in which an event breaks the contract."""

    pointer: str
    """JSON pointer to the field, there or missing: `/incident/incidentProperties/state`; empty for the whole."""
    reason: str
    """What a person reads after the field's name: `is required`, `must be a date as ...`."""
    rule: str = ""
    """The rule that is broken, in JSON Schema's words (`required` ...), or `oneKind`; empty for what is no JSON."""


def check(event: Any) -> tuple[Problem, ...]:
    """Everything about this event that Compass would not take; () for a valid one. Any value may be given."""
    found = problems(event, _VALIDATOR)
    if isinstance(event, dict) and len(event) != 1 and any(problem.rule for problem in found):
        reason = f"must hold exactly one kind of event ({', '.join(KINDS)}), but holds {len(event)}"
        return (Problem("", reason, "oneKind"),)
    return found


def problems(event: Any, validator: Draft202012Validator) -> tuple[Problem, ...]:
    """Everything about this event that the validator's schema refuses, in the order of the places."""
    try:
        if validator.is_valid(event):
            return ()
        found = [_problem(error) for error in validator.iter_errors(event)]
    except ValueError as error:  # a lone surrogate, a name that is no text, nesting beyond all reason
        return (Problem("", f"cannot be written as JSON: {error}"[:300]),)
    told = {(problem.pointer, problem.reason): problem for problem in found}
    return tuple(told[key] for key in sorted(told))


def fields_of(kind: str) -> Field:
    """The kind's fields, as a tree. Raises KeyError for a kind that is not in KINDS."""
    return _FIELDS[kind]


def field_of(schema: Mapping[str, Any], *, required: bool) -> Field:
    """The field that this part of a JSON Schema describes, with the fields below it."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    types = schema.get("type", "string")
    if "properties" in schema:
        members = {
            name: field_of(member, required=name in schema.get("required", ()))
            for name, member in schema["properties"].items()
        }
        return Field(Value.OBJECT, required, members=members)
    if schema.get("format") == "date-time":
        return Field(Value.DATE, required)
    if "integer" in types:
        return Field(Value.INTEGER, required)
    if "number" in types:
        return Field(Value.NUMBER, required)
    words = tuple(word for word in schema.get("enum", ()) if word is not None)
    return Field(Value.TEXT, required, words, schema.get("maxLength"), url=schema.get("format") == "uri")


def shown(value: Any) -> str:
    """A value as a person may read it: as JSON, and no more of it than fits into a line of a list."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:59]}…"  # noqa: PLR2004 - as much as that


def _problem(error: ValidationError) -> Problem:
    """One broken rule in a person's words, which quote no more than a few characters of the event."""
    pointer = "".join(f"/{escaped(part)}" for part in error.instance_path)
    match error.kind:
        case Rule.Required(property=name):
            pointer, reason = f"{pointer}/{escaped(name)}", "is required"
        case Rule.AdditionalProperties(unexpected=names):
            reason = f"has what the contract does not know: {', '.join(name[:60] for name in sorted(names)[:5])}"
        case Rule.Enum(options=words):
            reason = f"must be one of {', '.join(map(shown, words))}, not {shown(error.instance)}"
        case Rule.Type(types=types):
            reason = f"must be of type {' or '.join(types)}, not {shown(error.instance)}"
        case Rule.Format() | Rule.Pattern() | Rule.MinLength():
            reason = _unfit(str(error.instance), date=getattr(error.kind, "format", None) == "date-time")
        case Rule.MaxLength(limit=limit):
            reason = f"must have at most {limit} characters, not {len(str(error.instance))}"
        case _:
            reason = error.message[:300]
    return Problem(pointer, reason, error.kind.name)


def _unfit(text: str, *, date: bool) -> str:
    if date:
        return f"must be a date as 2026-01-31T10:00:00Z, not {shown(text)}"
    return f"must be an absolute URL (https://…), not {shown(text)}" if text.strip() else "must not be empty"


def escaped(part: str | int) -> str:
    """A name as a part of a JSON pointer."""
    return str(part).replace("~", "~0").replace("/", "~1")


_VALIDATOR = Draft202012Validator(SCHEMA, validate_formats=True)
_FIELDS = {kind: field_of(SCHEMA["properties"][kind], required=True) for kind in KINDS}
