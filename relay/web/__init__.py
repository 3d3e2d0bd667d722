"""The web side: a thin edge around `intake.receive`, and what platforms and monitoring ask for."""

from http import HTTPStatus

import structlog
from flask import Flask, Response, jsonify
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix

from relay.errors import NotFound, RequestError, SecretMissing, StoreUnavailable, Unauthorized
from relay.runtime import Relay
from relay.web import events, health, webhooks
from relay.web.admin import CHALLENGE
from relay.web.application import Application
from relay.web.request_ids import NamedRequests

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

RETRY_STORE = 5
"""Seconds after which a sender may try again when the store did not answer."""

RETRY_SECRET = 60
"""Seconds after which a sender may try again when its secret is not set here."""


def create_app(relay: Relay) -> Flask:
    """The WSGI application around one process's relay."""
    app = Application("relay")
    # One byte more than is taken: a body in chunks is cut off here, and must be seen to be too long, not wrong.
    app.config["MAX_CONTENT_LENGTH"] = relay.settings.max_body + 1
    # No redirections: a sender of webhooks follows none, and they would name a host that anybody may have made up.
    app.url_map.strict_slashes = app.url_map.merge_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.register_blueprint(webhooks.blueprint(relay))
    app.register_blueprint(events.blueprint(relay))
    app.register_blueprint(health.blueprint(relay))
    app.register_error_handler(RequestError, _refused)
    app.register_error_handler(StoreUnavailable, _unavailable)
    app.register_error_handler(NotFound, _not_found)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _fault)
    app.wsgi_app = NamedRequests(app.wsgi_app)  # type: ignore[method-assign]
    hops = relay.settings.hops
    if hops:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops, x_port=hops)  # type: ignore[method-assign]
    return app


def failure(status: int, code: str, message: str, *, retry_after: int | None = None) -> Response:
    """The one shape of every error."""
    answer = jsonify(error={"code": code, "message": message})
    answer.status_code = status
    if retry_after is not None:
        answer.headers["Retry-After"] = str(retry_after)
    return answer


def _refused(error: RequestError) -> Response:
    answer = failure(
        error.status, error.code, str(error), retry_after=RETRY_SECRET if isinstance(error, SecretMissing) else None
    )
    if isinstance(error, Unauthorized):
        answer.headers["WWW-Authenticate"] = CHALLENGE
    return answer


def _unavailable(error: StoreUnavailable) -> Response:
    log.error("store.unavailable", reason=str(error))
    return failure(503, "store_unavailable", "the outbox cannot store now; try again", retry_after=RETRY_STORE)


def _not_found(error: NotFound) -> Response:
    return failure(404, "not_found", str(error))


def _http(error: HTTPException) -> Response:
    status = error.code or 500
    code = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}.get(status)
    answer = failure(status, code or HTTPStatus(status).name.lower(), error.description or HTTPStatus(status).phrase)
    # Werkzeug knows headers that belong to the answer, as Allow.
    answer.headers.extend((name, value) for name, value in error.get_headers() if name == "Allow")
    return answer


def _fault(error: Exception) -> Response:
    log.error("web.fault", exc_info=error)
    return failure(500, "internal", "something went wrong here; it is in the relay's log")
