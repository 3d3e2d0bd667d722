"""What can be known of a mapping before any webhook comes: the contract's fields, and rules never reached."""

from collections.abc import Iterator
from collections.abc import Mapping as Members
from typing import Any

from relay.contract import KINDS, Field, fields_of
from relay.errors import Fault
from relay.mapping.document import Document, Place


def check_event(document: Document, place: Place, kind: str, fields: Members[str, Any]) -> list[Fault]:
    """Unknown kinds and fields, missing required ones, and literals outside the contract's enumerations."""
    if kind not in KINDS:
        return [document.fault((*place, kind), f"is no kind of Compass event; the kinds are {', '.join(KINDS)}")]
    return list(_check_field(document, (*place, kind), fields_of(kind), fields))


def _check_field(document: Document, place: Place, field: Field, node: Any) -> Iterator[Fault]:
    if field.members is not None:
        if not isinstance(node, dict):
            if not (isinstance(node, str) and "${" in node):  # an expression may give the whole object
                yield document.fault(place, "must be an object with the contract's fields")
            return
        for name, member in field.members.items():
            if name not in node and member.required:
                yield document.fault((*place, name), "is required by the contract")
        for name, value in node.items():
            if name in field.members:
                yield from _check_field(document, (*place, name), field.members[name], value)
            else:
                known = ", ".join(field.members)
                yield document.fault((*place, name), f"is no field of the contract; here it has {known}")
    elif isinstance(node, (dict, list)):
        yield document.fault(place, "must be one value")
    elif field.enum and isinstance(node, str) and "${" not in node and node not in field.enum:
        yield document.fault(place, f"{node!r} is none of the contract's words: {', '.join(field.enum)}")


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
