"""Every error the relay raises on purpose.

RelayError
├── ConfigError            the relay cannot start as it is set up (exit 78); carries every fault at once
│   ├── SettingsError      the environment
│   └── MappingError       the folder of mapping files
├── RequestError           a request that is not taken in; knows its HTTP status
│   ├── UnknownSource          404
│   ├── BodyTooLarge           413
│   ├── SignatureError         401
│   ├── SecretMissing          503
│   ├── UnsupportedMediaType   415
│   ├── MalformedBody          400
│   ├── AdminClosed            403
│   ├── Unauthorized           401
│   ├── InvalidEvents          422
│   ├── TooManyEvents          413
│   ├── KeyReused              422
│   └── BadParameter           400
├── StoreUnavailable       the outbox cannot store now (503, Retry-After)
└── NotFound               a command or a request names something that is not there

Expected outcomes (an unmatched webhook, a refused event) are values, not errors: see `model`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class RelayError(Exception):
    """Something went wrong that the relay has a name for."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong in a configuration file or in the environment."""

    where: str
    """The file or the variable, as the person typed it."""
    reason: str
    """What is wrong and what to do about it."""
    line: int | None = None
    """Line in the file, counted from 1."""
    path: str = ""
    """The place inside the file, as `rules[0].event.incident.url`."""

    def __str__(self) -> str:
        """Read as `file:line: path: reason`, which editors turn into links."""
        place = self.where if self.line is None else f"{self.where}:{self.line}"
        return ": ".join(part for part in (place, self.path, self.reason) if part)


class ConfigError(RelayError):
    """The relay is not set up right; every fault is listed."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))


class SettingsError(ConfigError):
    """The environment does not hold the settings the relay needs."""


class MappingError(ConfigError):
    """The folder of mapping files is not valid."""


class RequestError(RelayError):
    """A request that the relay does not take in."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "bad_request"


class UnknownSource(RequestError):  # noqa: N818 - an answer with a name, like HTTP's own "Not Found"
    """No mapping file has this source."""

    status = 404
    code = "unknown_source"


class BodyTooLarge(RequestError):  # noqa: N818
    """The body is larger than RELAY_MAX_BODY."""

    status = 413
    code = "body_too_large"


class SignatureError(RequestError):
    """The signature is missing or does not fit the body.

    The message for the sender is always the same; `reason` tells the operator more and goes to the log only.
    """

    status = 401
    code = "bad_signature"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__("the signature is missing or does not match the body")


class SecretMissing(RequestError):  # noqa: N818
    """The source's secret is not set, so nothing it sends can be verified."""

    status = 503
    code = "secret_missing"


class UnsupportedMediaType(RequestError):  # noqa: N818
    """The body does not say that it is JSON."""

    status = 415
    code = "unsupported_media_type"


class MalformedBody(RequestError):  # noqa: N818
    """The body is not one JSON value that the relay can read."""

    status = 400
    code = "malformed_body"


class AdminClosed(RequestError):  # noqa: N818
    """RELAY_ADMIN_TOKEN is not set, so what is for the operator only is closed."""

    status = 403
    code = "admin_token_not_set"


class Unauthorized(RequestError):  # noqa: N818
    """The admin token is missing or wrong."""

    status = 401
    code = "unauthorized"


class InvalidEvents(RequestError):  # noqa: N818
    """Events that were posted directly break a contract, or have nowhere to go; none of them is stored."""

    status = 422
    code = "invalid_event"


class TooManyEvents(RequestError):  # noqa: N818
    """An array has more events than one request may."""

    status = 413
    code = "too_many_events"


class KeyReused(RequestError):  # noqa: N818
    """An Idempotency-Key came with another body before."""

    status = 422
    code = "idempotency_key_reused"


class BadParameter(RequestError):  # noqa: N818
    """A parameter or a header of the request cannot be read."""

    status = 400
    code = "bad_parameter"


class StoreUnavailable(RelayError):  # noqa: N818
    """The outbox cannot store or answer now; the sender should try again."""


class NotFound(RelayError):  # noqa: N818
    """Nothing by this id or name."""
