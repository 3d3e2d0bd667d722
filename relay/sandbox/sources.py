"""The file that names the event sources there are, for a sandbox that answers 404 for all others."""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from relay.contract import KINDS
from relay.errors import ConfigError, Fault
from relay.sandbox.compass import Source


class _Listed(BaseModel):
    """One event source, in the words of Compass's GraphQL operation `createEventSource`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    externalEventSourceId: str = Field(min_length=1)  # noqa: N815 - Compass's word
    eventType: str  # noqa: N815


_LIST = TypeAdapter(list[_Listed])

# Compass names a kind twice: `pullRequest` in an event, `PULL_REQUEST` as an event type.
_KINDS = {"PULL_REQUEST" if kind == "pullRequest" else kind.upper(): kind for kind in KINDS}


def read_sources(path: Path) -> frozenset[Source]:
    """The event sources of a YAML or JSON file: a list of `{"externalEventSourceId": ..., "eventType": ...}`.

    The event types are INCIDENT, FLAG, PULL_REQUEST and so on. Raises ConfigError with every fault of the file.
    """
    try:
        listed = _LIST.validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError([Fault(str(path), f"cannot be read: {error.strerror}")]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError([Fault(str(path), f"is not YAML: {error}")]) from error
    except ValidationError as error:
        raise ConfigError([Fault(str(path), one["msg"], path=_place(one["loc"])) for one in error.errors()]) from error
    unknown = [
        Fault(str(path), f"{one.eventType!r} is none of {', '.join(_KINDS)}", path=f"[{number}].eventType")
        for number, one in enumerate(listed)
        if one.eventType not in _KINDS
    ]
    if unknown:
        raise ConfigError(unknown)
    return frozenset((one.externalEventSourceId, _KINDS[one.eventType]) for one in listed)


def _place(path: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
