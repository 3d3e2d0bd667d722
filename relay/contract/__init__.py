"""The contract of Compass events: what a valid event is, and which fields each kind has.

The facts stand in `event.schema.json`. This module checks events against it and shows it as a tree of fields;
`fitting` turns mapped values into what it asks for, `identity` says what an event is about.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from typing import Any

import jsonschema_rs

SCHEMA: dict[str, Any] = json.loads(
    resources.files("relay.contract").joinpath("event.schema.json").read_text(encoding="utf-8")
)

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
    """JSON pointer into the event: `/incident/incidentProperties/state`; empty for the whole."""
    reason: str


def check(event: Any) -> tuple[Problem, ...]:
    """Everything about this event that Compass would not take; () for a valid one. Any JSON value may be given."""
    if _VALIDATOR.is_valid(event):
        return ()
    if isinstance(event, dict) and len(event) != 1:
        kinds = ", ".join(KINDS)
        return (Problem("", f"must hold exactly one kind of event ({kinds}), but holds {len(event)}"),)
    problems = {
        Problem("".join(f"/{_escaped(part)}" for part in error.instance_path), _reason(error))
        for error in _VALIDATOR.iter_errors(event)
    }
    return tuple(sorted(problems, key=lambda problem: (problem.pointer, problem.reason)))


def fields_of(kind: str) -> Field:
    """The kind's fields, as a tree. Raises KeyError for a kind that is not in KINDS."""
    return _FIELDS[kind]


def _field(schema: Mapping[str, Any], *, required: bool) -> Field:
    schema = _resolved(schema)
    types = schema.get("type", "string")
    if "properties" in schema:
        members = {
            name: _field(member, required=name in schema.get("required", ()))
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
    return Field(Value.TEXT, required, words, schema.get("maxLength"), url="http" in schema.get("pattern", ""))


def _resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema behind a reference, or behind `this or null`."""
    if "anyOf" in schema:
        schema = next(one for one in schema["anyOf"] if one.get("type") != "null")
    if "$ref" in schema:
        return SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]  # type: ignore[no-any-return]
    return schema


def _reason(error: jsonschema_rs.ValidationError) -> str:
    """The library's sentence, or a plainer one where it would quote a pattern or a whole event."""
    keyword = str(error.schema_path[-1]) if error.schema_path else ""
    if keyword == "pattern":
        link = str(error.instance_path[-1]).lower().endswith("url")
        return "must be an absolute URL (https://…)" if link else "must not be blank"
    if keyword == "format":
        return f"must be a date as 2026-01-31T10:00:00Z, not {json.dumps(error.instance)[:60]}"
    if keyword == "minLength":
        return "must not be empty"
    return str(error.message)[:300]


def _escaped(part: str | int) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")


_VALIDATOR = jsonschema_rs.Draft202012Validator(SCHEMA, validate_formats=True)
_FIELDS = {kind: _field(SCHEMA["properties"][kind], required=True) for kind in KINDS}
