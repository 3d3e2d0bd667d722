"""What a destination's HTTP answer says, whichever destination it is: read once, told as an `Answer`."""

import html
import re
from collections.abc import Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime

from pydantic import SecretStr

from relay.destinations.transport import Reply
from relay.model import Answer

MAX_MESSAGE = 300
"""Characters of an answer's message that are kept."""

MAX_RETRY_AFTER = 86_400.0
"""Seconds; whatever is longer is a mistake of the other side."""


def answered(
    reply: Reply, *, error: str | None, message: str | None, secrets: Sequence[SecretStr], now: float
) -> Answer:
    """The answer that this reply is, with the error and the message that the destination read in it.

    `secrets` are blotted out of both; `now` is in seconds since 1970.
    """
    return Answer(
        reply.status,
        error=tidy(error, secrets=secrets),
        message=tidy(message, secrets=secrets),
        retry_after=_retry_after(reply.headers, now=now),
        html=is_html(reply),
    )


def elsewhere(reply: Reply) -> str | None:
    """What to say of a page of HTML, or of a redirect, which both come from elsewhere; None for other replies."""
    if is_html(reply):
        head = reply.body[:8192].decode("utf-8", "replace")
        title = re.search(r"<title[^>]*>(.*?)</title", head, re.IGNORECASE | re.DOTALL)
        return "a page of HTML" + (f": {html.unescape(title[1])}" if title else "")
    if reply.status in range(300, 400):
        # Without its query, which on the way to a login page may hold a secret.
        return f"a redirect to {reply.headers.get('Location', 'nowhere').split('?')[0]}"
    return None


def is_html(reply: Reply) -> bool:
    """Whether the reply is a page for people, as a login page or a gateway's."""
    start = reply.body[:1024].lstrip().lower()
    return reply.headers.get("Content-Type", "").lower().startswith("text/html") or start.startswith(
        (b"<!doctype html", b"<html")
    )


def tidy(text: str | None, *, secrets: Sequence[SecretStr]) -> str | None:
    """The text on one line, shortened, printable, without our credentials; None when nothing is left."""
    if text is None:
        return None
    for secret in secrets:
        if secret:
            text = text.replace(secret.get_secret_value(), "***")
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return (text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…") or None


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
