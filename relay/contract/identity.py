"""What a Compass event is about: its entity, the entity's state after it, and its place among the updates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Any

from relay.contract.fitting import epoch_ms


@dataclass(frozen=True)
class Identity:
    """An event's place in the life of one entity."""

    entity: str
    """What Compass overwrites when it sees it again; the component is part of it."""
    state: str | None
    """None for the kinds that have no state (custom, push)."""
    order: int
    """Later updates have larger numbers; milliseconds as a rule."""
    terminal: bool
    """True when normally nothing follows this state."""


def identify(event: Mapping[str, Any], *, component: str | None = None) -> Identity:
    """The identity of a valid event (see `relay.contract.check`), as the contract of Compass describes it.

    https://developer.atlassian.com/cloud/compass/rest/v2/api-group-events/ says of builds that another event
    with the same pipeline id overwrites; for the other kinds their `id` is taken to do so.
    """
    ((kind, fields),) = event.items()
    properties = fields[_PROPERTIES.get(kind, f"{kind}Properties")]
    source = fields.get("externalEventSourceId")
    match kind:
        case "build":
            parts = [source, properties["pipeline"]["pipelineId"]]
        case "deployment":
            pipeline, environment = properties["pipeline"]["pipelineId"], properties["environment"]["environmentId"]
            parts = [source, pipeline, environment, int(properties["sequenceNumber"])]
        case "pullRequest":
            parts = [properties["repoUrl"], properties["id"]]
        case _:
            parts = [source, properties["id"]]
    state = next((properties[name] for name in ("state", "status", "stage") if properties.get(name)), None)
    if kind == "flag" and state is not None:
        state = state.lower()  # Compass reads the words of a flag in any case
    # JSON Schema takes 5.0 for an integer, and a year 0 that Python does not have.
    order = epoch_ms(fields["lastUpdated"]) or 0 if kind == "pullRequest" else int(fields["updateSequenceNumber"])
    return Identity(
        entity=_as_text([kind, *parts, component]),
        state=state,
        order=order,
        terminal=state in _TERMINAL.get(kind, ()),
    )


def _as_text(parts: Sequence[str | int | None]) -> str:
    """The parts as a JSON list, which keeps them apart, whatever characters they hold.

    Put together here, because an encoder takes several times as long for a list as for its texts.
    """
    return f"[{', '.join([encode_basestring(part) if isinstance(part, str) else _plain(part) for part in parts])}]"


def _plain(part: int | None) -> str:
    return "null" if part is None else str(part)


# The vendor's names are irregular.
_PROPERTIES = {"custom": "customEventProperties", "push": "pushEventProperties"}

_TERMINAL = {
    "deployment": {"SUCCESSFUL", "CANCELLED", "FAILED", "ROLLED_BACK"},
    "build": {"SUCCESSFUL", "CANCELLED", "FAILED", "ERROR", "TIMED_OUT"},
    "incident": {"RESOLVED", "DELETED"},
    "flag": {"deleted"},
    "alert": {"CLOSED"},
    "lifecycle": {"END_OF_LIFE"},
    "pullRequest": {"MERGED", "REJECTED"},
    "vulnerability": {"REMEDIATED", "DECLINED"},
}
