"""Every request has a name, by which its log lines are found: the platform's own, or one that is made here."""

import re
from uuid import uuid4

from flask import Flask, Response, request
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars

HEADER = "X-Request-ID"
"""What Heroku's router sends along: https://devcenter.heroku.com/articles/http-request-id."""

_HARMLESS = re.compile(r"[\w.:+/=@-]{1,200}", re.ASCII)


def name_requests(app: Flask) -> None:
    """Put `request_id` on every log line of a request, and `X-Request-ID` on its answer.

    A name that could not stand in a log or a header, or is longer than 200 characters, is replaced.
    """

    @app.before_request
    def begin() -> None:
        given = request.headers.get(HEADER, "")
        bind_contextvars(request_id=given if _HARMLESS.fullmatch(given) else uuid4().hex)

    @app.after_request
    def tell(answer: Response) -> Response:
        answer.headers[HEADER] = get_contextvars()["request_id"]
        return answer

    @app.teardown_request
    def end(_error: BaseException | None) -> None:
        # The thread goes on to another request.
        clear_contextvars()
