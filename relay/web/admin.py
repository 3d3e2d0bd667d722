"""What is for the operator only: behind RELAY_ADMIN_TOKEN, closed while that is not set."""

import hashlib
import hmac

from flask import Request
from pydantic import SecretStr

from relay.errors import AdminClosed, Unauthorized

CHALLENGE = 'Basic realm="relay", charset="UTF-8", Bearer realm="relay"'
"""For `WWW-Authenticate`, beside a 401."""


def admit(request: Request, token: SecretStr | None) -> None:
    """Let in who brings the token, as a Bearer token or as the password of any user.

    Raises AdminClosed when no token is set, Unauthorized when none comes or another one.
    """
    if token is None:
        raise AdminClosed("this is for the operator only, and closed until RELAY_ADMIN_TOKEN is set")
    given = _given(request)
    if given is None or not hmac.compare_digest(_digest(given), _digest(token.get_secret_value())):
        raise Unauthorized("RELAY_ADMIN_TOKEN must come as a Bearer token, or as the password of Basic credentials")


def _given(request: Request) -> str | None:
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":  # whatever characters the token has
        return credentials.strip()
    try:
        return None if request.authorization is None else request.authorization.password
    except ValueError:  # werkzeug stumbles over Basic credentials that are not ASCII
        return None


def _digest(text: str) -> bytes:
    """Of one length, so that not even that is told by the time a comparison takes."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
