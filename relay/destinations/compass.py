"""Compass: one event per request to its REST resource.

The contract: https://developer.atlassian.com/cloud/compass/rest/v2/api-group-events/ . Success is a 202 that
only says that processing has begun. Errors are `{"errors": [{"type", "message"}]}`, where everything may be
null; gateways in front of it answer in text or HTML.
"""

import json
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pydantic import SecretStr

from relay.destinations import Limits
from relay.destinations.answers import answered, elsewhere, tidy
from relay.destinations.transport import Reply, Silence, Transport
from relay.model import Answer, Claim

PATH = "/gateway/api/compass/v1/events"


class CompassDestination:
    """Compass, as seen by the dispatcher. Safe to be called from several threads."""

    name = "compass"

    def __init__(self, *, url: str, cloud_id: str, email: str, token: SecretStr, limits: Limits | None = None) -> None:
        """`url` is the site's base, as `https://acme.atlassian.net`."""
        self._url = url.rstrip("/") + PATH
        self._cloud_id = cloud_id
        # Encoded here, because requests would encode text as Latin-1.
        basic = b64encode(f"{email}:{token.get_secret_value()}".encode()).decode()
        self._transport = Transport(authorization=f"Basic {basic}", limits=limits or Limits())
        # What an answer must not carry into logs and screens, should somebody echo it.
        self._secrets = (SecretStr(basic), token)

    def __repr__(self) -> str:
        return f"CompassDestination({self._url!r})"

    def send(self, claim: Claim, *, age: Callable[[], float]) -> Answer:
        """Send the claimed event once. See `Destination.send`."""
        began = time.monotonic()
        outcome = self._transport.request("POST", self._url, body=request_body(claim, cloud_id=self._cloud_id), age=age)
        took_ms = round((time.monotonic() - began) * 1000)
        match outcome:
            case Silence(why, message):
                return Answer(None, error=why, message=tidy(message, secrets=self._secrets), took_ms=took_ms)
            case Reply() as reply:
                kind, told = _complaint(reply)
                answer = answered(reply, error=kind, message=told, secrets=self._secrets, now=time.time())
                return replace(answer, took_ms=took_ms)

    def close(self) -> None:
        """Give the idle connections back."""
        self._transport.close()


def request_body(claim: Claim, *, cloud_id: str) -> bytes:
    """The request's JSON, with the number that orders the updates of an entity.

    A pullRequest has no such number; Compass orders it by its `lastUpdated`.
    """
    event = {
        kind: {**fields, "updateSequenceNumber": claim.number} if "updateSequenceNumber" in fields else fields
        for kind, fields in claim.body.items()
    }
    document: dict[str, Any] = {"cloudId": cloud_id, "event": event}
    if claim.component is not None:
        document["componentId"] = claim.component
    return json.dumps(document, separators=(",", ":")).encode()


def _complaint(reply: Reply) -> tuple[str | None, str | None]:
    """The error's type and a message for people, as far as the answer has them."""
    if (told := elsewhere(reply)) is not None:
        return None, told
    if reply.status in range(200, 300):
        return None, None
    text = reply.body.decode("utf-8", "replace")
    return _envelope(text) or (None, text)


def _envelope(text: str) -> tuple[str | None, str] | None:
    """The first type and all messages of an error in JSON; None when it is not one."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    match document:
        case {"errors": [*errors]}:
            told = [error for error in errors if isinstance(error, dict)]
            types = [error["type"] for error in told if isinstance(error.get("type"), str)]
            messages = [error["message"] for error in told if isinstance(error.get("message"), str)]
            return next(iter(types), None), "; ".join(messages)
        case {"message": str(message)}:
            return None, message
    return None
