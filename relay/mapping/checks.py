"""What can be known of a mapping before any webhook comes: the contract's fields, and rules never reached."""

from collections.abc import Iterable, Iterator
from collections.abc import Mapping as Members
from typing import Any

from relay.contract import KINDS, Field, calendar, fields_of
from relay.errors import Fault
from relay.mapping.document import Document, Place


def sound_parts(data: Any, broken: Iterable[Place]) -> dict[str, Any] | None:
    """A file's parts that keep to the schema, with stand-ins for the others, so that their faults are told as well.

    `broken` are the places that break it. None when too little is left to look at.
    """
    # A broken rule is one whole part; so is everything that stands at the top.
    wrong = {place[:2] if place[:1] == ("rules",) else place[:1] for place in broken}
    if not isinstance(data, dict) or not isinstance(data.get("rules"), list) or wrong & {("rules",), ("define",)}:
        return None
    sound = {name: part for name, part in data.items() if (name,) not in wrong}
    if ("tables",) in wrong and isinstance(data["tables"], dict):
        sound["tables"] = {name: {} for name in data["tables"]}
    if "source" not in sound:
        sound.pop("settings", None)  # their names depend on it
    stand_ins = {"source": "x", "verify": {"hmac": "sha256", "header": "x", "secret": "X"}}
    rules = [
        {"name": "", "when": f"{index} == null", "ignore": "?"} if ("rules", index) in wrong else rule
        for index, rule in enumerate(data["rules"])
    ]
    return {**stand_ins, **sound, "rules": rules}


def check_event(document: Document, place: Place, kind: str, fields: Members[str, Any], *, to: str) -> list[Fault]:
    """Unknown kinds and fields, missing required ones, and literals outside the contract's enumerations.

    `to` is the name of the event's destination.
    """
    place = (*place, kind)
    if to == calendar.DESTINATION:
        if kind != calendar.KIND:
            return [document.fault(place, f"is no kind of event that {to} takes; it takes {calendar.KIND}")]
        return list(_check_field(document, place, calendar.FIELDS, fields))
    if kind == calendar.KIND:
        return [document.fault(place, f"needs `to: {calendar.DESTINATION}`; Compass has no such kind of event")]
    if kind not in KINDS:
        return [document.fault(place, f"is no kind of Compass event; the kinds are {', '.join(KINDS)}")]
    return list(_check_field(document, place, fields_of(kind), fields))


def _check_field(document: Document, place: Place, field: Field, node: Any) -> Iterator[Fault]:
    if isinstance(node, str) and "${" in node:  # what it gives is seen when a webhook comes
        return
    if field.members is not None:
        yield from _check_members(document, place, field.members, node)
    elif isinstance(node, (dict, list)):
        yield document.fault(place, "must be one value")
    elif node is None and field.required:
        yield document.fault(place, "is required by the contract, and null leaves it out")
    elif node is not None and field.enum and node not in field.enum:
        yield document.fault(place, f"{node!r} is none of the contract's words: {', '.join(field.enum)}")


def _check_members(document: Document, place: Place, members: Members[str, Field], node: Any) -> Iterator[Fault]:
    if not isinstance(node, dict):
        yield document.fault(place, "must be an object with the contract's fields")
        return
    for name, member in members.items():
        if name not in node and member.required:
            yield document.fault((*place, name), "is required by the contract")
    for name, value in node.items():
        if name in members:
            yield from _check_field(document, (*place, name), members[name], value)
        else:
            yield document.fault((*place, name), f"is no field of the contract; here it has {', '.join(members)}")


def covers(earlier: Any, later: Any) -> bool:
    """Whether everything that the later condition matches is matched by the earlier one already."""
    if earlier is None:
        return True
    if isinstance(earlier, str) or later is None or isinstance(later, str):
        return isinstance(earlier, str) and isinstance(later, str) and earlier.strip() == later.strip()
    return all(path in later and _values(later[path]) <= _values(wanted) for path, wanted in earlier.items())


def _values(wanted: Any) -> set[tuple[str, Any]]:
    # JSON's true is not its 1, though Python's is.
    listed = wanted if isinstance(wanted, list) else [wanted]
    return {(type(value).__name__ if isinstance(value, bool) else "", value) for value in listed}
