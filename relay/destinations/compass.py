"""Compass: one event per request to its REST resource.

The contract: https://developer.atlassian.com/cloud/compass/rest/v2/api-group-events/ . Success is a 202 that
only says that processing has begun. Errors are `{"errors": [{"type", "message"}]}`, where everything may be
null; gateways in front of it answer in text or HTML.
"""

import html
import json
import re
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from pydantic import SecretStr

from relay.destinations import Limits
from relay.destinations.transport import Reply, Silence, Transport
from relay.model import Answer, Claim

PATH = "/gateway/api/compass/v1/events"

MAX_MESSAGE = 300
"""Characters of an answer's message that are kept."""

MAX_RETRY_AFTER = 86_400.0
"""Seconds; whatever is longer is a mistake of the other side."""


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
                return Answer(None, error=why, message=self._tidy(message), took_ms=took_ms)
            case Reply() as reply:
                kind, told = _complaint(reply)
                return Answer(
                    reply.status,
                    error=self._tidy(kind),
                    message=self._tidy(told),
                    retry_after=_retry_after(reply.headers, now=time.time()),
                    html=_is_html(reply),
                    took_ms=took_ms,
                )

    def close(self) -> None:
        """Give the idle connections back."""
        self._transport.close()

    def _tidy(self, text: str | None) -> str | None:
        """The text on one line, shortened, printable, without our credentials; None when nothing is left."""
        if text is None:
            return None
        for secret in self._secrets:
            if secret:
                text = text.replace(secret.get_secret_value(), "***")
        text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
        return (text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…") or None


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
    text = reply.body.decode("utf-8", "replace")
    if _is_html(reply):
        title = re.search(r"<title[^>]*>(.*?)</title", text, re.IGNORECASE | re.DOTALL)
        return None, "a page of HTML" + (f": {html.unescape(title[1])}" if title else "")
    if reply.status in range(200, 300):
        return None, None
    if reply.status in range(300, 400):
        # Without its query, which on the way to a login page may hold a secret.
        return None, f"a redirect to {reply.headers.get('Location', 'nowhere').split('?')[0]}"
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


def _is_html(reply: Reply) -> bool:
    start = reply.body[:1024].lstrip().lower()
    return reply.headers.get("Content-Type", "").lower().startswith("text/html") or start.startswith(
        (b"<!doctype html", b"<html")
    )


def _retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds to wait, from a number or a date (RFC 9110, 10.2.3); None when there is neither.

    A date is compared with the answer's own `Date`, so that our clock need not agree with theirs.
    """
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
        return min(float(value), MAX_RETRY_AFTER)
    if (until := _epoch(value)) is None:
        return None
    sent = _epoch(headers.get("Date", ""))
    return min(max(until - (now if sent is None else sent), 0.0), MAX_RETRY_AFTER)


def _epoch(date: str) -> float | None:
    try:
        parsed = parsedate_to_datetime(date)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
