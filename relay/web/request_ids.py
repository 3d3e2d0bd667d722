"""Every request has a name, by which its log lines are found: the platform's own, or one that is made here."""

import re
from collections.abc import Iterable
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from structlog.contextvars import bind_contextvars

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

HEADER = "X-Request-ID"
"""What Heroku's router sends along: https://devcenter.heroku.com/articles/http-request-id."""

_HARMLESS = re.compile(r"[\w.:+/=@-]{1,200}", re.ASCII)


class NamedRequests:
    """Puts `request_id` on every log line of a request, and `X-Request-ID` on its answer.

    A name that could not stand in a log or a header, or is longer than 200 characters, is replaced. This stands
    around Flask, whose own hooks for it would cost every webhook four times as much.
    """

    def __init__(self, app: "WSGIApplication") -> None:
        self._app = app

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer one request."""
        given = environ.get("HTTP_X_REQUEST_ID", "")
        name = given if _HARMLESS.fullmatch(given) else token_hex(16)
        # Until the thread's next request: what the server says of this one afterwards belongs to it, too.
        bind_contextvars(request_id=name)

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, [*headers, (HEADER, name)], exc_info)

        return self._app(environ, start)
