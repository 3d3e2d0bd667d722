"""What an UrbanCode Release server does with its calendar, as far as is documented; nothing of HTTP is in here.

https://www.ibm.com/docs/en/devops-release/6.1.2?topic=resource-create-event-elements-from-json-input and the general
conventions, https://www.ibm.com/docs/SS4GCC_6.2.5/com.ibm.urelease.doc/topics/rest_api_ref_conventions.html . Where
those are silent, the sandbox chooses, and is the stricter one rather:

- name, startDate, endDate and type are required, an end is not before its start, and a type is one of the two that
  are documented; an array with an element that is refused is refused as a whole;
- dates are kept as they come, whatever unit they are in; `isOneDay` and `releases` are the server's own;
- what an update leaves out stays as it is, and its `version` is ignored like all that is read-only;
- what is deleted is gone.
"""

import operator
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import SecretStr

from relay.contract import shown

BLACKOUT = "00000000-0000-1100-0000-000000000011"
HOLIDAY = "00000000-0000-1100-0000-000000000013"


@dataclass(frozen=True)
class ReleaseConfig:
    """Who is let into the Release server."""

    user: str | None = None
    """The only user it takes; None: any that is not empty."""
    password: SecretStr | None = None
    """The only password it takes; None: any that is not empty."""
    keep: int = 100_000
    """How many events, and how many calls, are remembered; the oldest are forgotten."""


@dataclass(frozen=True)
class Content:
    """What can be written of a calendar event."""

    name: str
    start: int
    end: int
    type: str
    """The id of its type."""
    description: str = ""


@dataclass(frozen=True)
class Entry:
    """One event of the calendar."""

    id: str
    content: Content
    created: int
    """When it was created, in milliseconds."""
    version: int = 0
    """How often it was updated."""


@dataclass(frozen=True)
class Refusal:
    """Why a request has no effect, with its HTTP status; which status and which words, no page tells."""

    status: int
    reason: str


@dataclass(frozen=True)
class Condition:
    """One condition of a list, as public client scripts write them."""

    field: str
    how: str
    """`like` (contains, in any case), `eq`, `ne`, `ge`, `gt`, `le` or `lt`."""
    value: str


class Calendar:
    """The calendar of a Release server. Safe to be used from several threads."""

    def __init__(self, config: ReleaseConfig, *, clock: Callable[[], int], new_id: Callable[[], str]) -> None:
        """`clock` tells milliseconds, `new_id` makes a UUID that was not made before."""
        self._config = config
        self._clock = clock
        self._new_id = new_id
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}

    def knows(self, user: str | None, password: str | None) -> bool:
        """Whether these credentials are taken."""
        only = self._config
        return (
            bool(user and password)
            and only.user in {None, user}
            and (only.password is None or only.password.get_secret_value() == password)
        )

    def create(self, given: Any) -> Entry | list[Entry] | Refusal:
        """One event of an object; several, in order, of an array."""
        with self._lock:
            several = _each(given, self._create)
            return several if isinstance(several, Refusal) else self._keep(given, several)

    def update(self, identifier: str, given: Any) -> Entry | Refusal:
        """Change one event; an id in the object itself is not looked at."""
        with self._lock:
            entry = self._changed(identifier, given)
            if isinstance(entry, Entry):
                self._entries[identifier] = entry
            return entry

    def update_several(self, given: Any) -> list[Entry] | Refusal:
        """Change the event of each object's id."""
        with self._lock:
            if not isinstance(given, list):
                return Refusal(400, "the body must be an array, or the path end in an id")
            changed = _each(given, lambda element: self._changed(_reference(element), element))
            if isinstance(changed, list):
                self._entries.update({entry.id: entry for entry in changed})
            return changed

    def delete(self, given: Sequence[Any]) -> Refusal | None:
        """Delete the events of these ids, or objects with ids."""
        with self._lock:
            found = _each(given, lambda element: self._entry(_reference(element)))
            if isinstance(found, Refusal):
                return found
            for entry in found:
                self._entries.pop(entry.id, None)
            return None

    def one(self, identifier: str) -> Entry | Refusal:
        """The event of this id."""
        with self._lock:
            return self._entry(identifier)

    def entries(
        self, conditions: Iterable[Condition] = (), *, order: str = "", descending: bool = False
    ) -> list[Entry] | Refusal:
        """The events that meet every condition, in the order of their creation or of a field."""
        found = self.all()
        for condition in conditions:
            test = _test(condition)
            if isinstance(test, Refusal):
                return test
            found = [entry for entry in found if test(entry)]
        if order and order not in _FILTERED:
            return Refusal(400, f"orderField: {order[:60]!r} is no field to order by")
        return sorted(found, key=_FILTERED[order], reverse=descending) if order else found

    def all(self) -> list[Entry]:
        """Every event, in the order of creation."""
        with self._lock:
            return list(self._entries.values())

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()

    def _create(self, element: Any) -> Entry | Refusal:
        content = _content(element, None)
        return content if isinstance(content, Refusal) else Entry(self._new_id(), content, self._clock())

    def _keep(self, given: Any, several: list[Entry]) -> Entry | list[Entry]:
        self._entries.update({entry.id: entry for entry in several})
        for identifier in list(self._entries)[: -self._config.keep]:
            del self._entries[identifier]
        return several if isinstance(given, list) else several[0]

    def _changed(self, identifier: str, element: Any) -> Entry | Refusal:
        known = self._entry(identifier)
        if isinstance(known, Refusal):
            return known
        content = _content(element, known.content)
        return content if isinstance(content, Refusal) else replace(known, content=content, version=known.version + 1)

    def _entry(self, identifier: str) -> Entry | Refusal:
        return self._entries.get(identifier) or Refusal(404, f"there is no event {identifier[:60]!r}")


def as_shown(entry: Entry, *, by_name: bool) -> dict[str, Any]:
    """An event as the server shows it: as `detail` and `list`, which are the same, or as `name`."""
    content = entry.content
    if by_name:
        return {"id": entry.id, "name": content.name}
    return {
        "id": entry.id,
        "name": content.name,
        "description": content.description,
        "startDate": content.start,
        "endDate": content.end,
        "type": _TYPES[content.type],
        "isOneDay": content.start == content.end,
        "releases": [],
        "version": entry.version,
        "dateCreated": entry.created,
    }


def _each(given: Any, made: Callable[[Any], Entry | Refusal]) -> list[Entry] | Refusal:
    """What is made of each element, or of the one object; or why one of them is refused."""
    entries = []
    for place, element in enumerate(given if isinstance(given, list) else [given]):
        match made(element):
            case Refusal(status, reason):
                return Refusal(status, f"[{place}].{reason}" if isinstance(given, list) else reason)
            case Entry() as entry:
                entries.append(entry)
    return entries


def _content(element: Any, known: Content | None) -> Content | Refusal:
    """What an object says, over what is known. What cannot be written is ignored, as documented, in silence."""
    if not isinstance(element, dict):
        return Refusal(400, f"{shown(element)} is no object")
    said: dict[str, Any] = {} if known is None else vars(known)
    for name, (attribute, read, wanted) in _WRITABLE.items():
        if name in element:
            value = read(element[name])
            if value is None:
                return Refusal(400, f"{name}: must be {wanted}, not {shown(element[name])}")
            said = {**said, attribute: value}
    missing = [name for name, (attribute, *_) in _WRITABLE.items() if attribute not in said and name != "description"]
    if missing:
        return Refusal(400, f"{missing[0]}: is required")
    if said["end"] < said["start"]:
        return Refusal(400, "endDate: is before startDate")
    return Content(**said)


def _reference(value: Any) -> str:
    """The id in a reference, which is an object with an id or the id alone."""
    identifier = value.get("id") if isinstance(value, dict) else value
    return identifier if isinstance(identifier, str) else ""


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _description(value: Any) -> str | None:
    return "" if value is None else value if isinstance(value, str) else None


def _date(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None


def _type(value: Any) -> str | None:
    identifier = _reference(value).lower()
    return identifier if identifier in _TYPES else None


def _test(condition: Condition) -> Callable[[Entry], bool] | Refusal:
    """Whether an entry meets the condition."""
    read = _FILTERED.get(condition.field)
    if read is None:
        return Refusal(400, f"filterFields: {condition.field[:60]!r} is no field to filter by")
    numeric = condition.field in _NUMBERS
    if condition.how == "like" and not numeric:
        return lambda entry: condition.value.lower() in str(read(entry)).lower()
    compare = _COMPARISONS.get(condition.how)
    if compare is None:
        return Refusal(400, f"filterType_{condition.field}: {condition.how[:60]!r} is no comparison")
    try:
        value = int(condition.value) if numeric else condition.value
    except ValueError:
        return Refusal(400, f"filterValue_{condition.field}: {condition.value[:60]!r} is no number")
    return lambda entry: bool(compare(read(entry), value))


_WRITABLE: Mapping[str, tuple[str, Callable[[Any], Any], str]] = {
    "name": ("name", _name, "a text"),
    "description": ("description", _description, "a text"),
    "startDate": ("start", _date, "an integer"),
    "endDate": ("end", _date, "an integer"),
    "type": ("type", _type, "the id of an event type"),
}

_FILTERED: Mapping[str, Callable[[Entry], Any]] = {
    "id": lambda entry: entry.id,
    "name": lambda entry: entry.content.name,
    "description": lambda entry: entry.content.description,
    "startDate": lambda entry: entry.content.start,
    "endDate": lambda entry: entry.content.end,
    "dateCreated": lambda entry: entry.created,
}
_NUMBERS = frozenset({"startDate", "endDate", "dateCreated"})

_COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    name: getattr(operator, name) for name in ("eq", "ne", "ge", "gt", "le", "lt")
}

# The two that the documentation shows; their order in the list is not known.
_TYPES: Mapping[str, Mapping[str, Any]] = {
    identifier: {
        "id": identifier,
        "name": name,
        "description": description,
        "color": color,
        "order": order,
        "ghostedDate": 0,
        "version": 0,
        "dateCreated": 0,
    }
    for order, (identifier, name, color, description) in enumerate(
        (
            (BLACKOUT, "Blackout", "#808080", "No production deployments in this period"),
            (HOLIDAY, "Holiday", "#ffd700", "Company holiday"),
        )
    )
}
