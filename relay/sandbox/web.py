"""The sandbox over HTTP: the one request that Compass takes, and a few to look inside and to break it.

The Release server has a module of its own, `release_web`.
"""

import socket
import time
from collections.abc import Mapping
from typing import Any

from flask import Flask, Response, jsonify, request
from pydantic import ValidationError

from relay.sandbox.compass import Compass, Complaint, Effect, Submission, Verdict, examine
from relay.sandbox.faults import FAULTS, PAGE, Fault, Standing
from relay.sandbox.release_web import ReleaseServer

EVENTS_PATH = "/gateway/api/compass/v1/events"


def create_app(compass: Compass, release: ReleaseServer, faults: Standing) -> Flask:
    """Serve these two, with these faults. Dropping connections needs werkzeug's own server (see `server`)."""
    app = Flask("relay.sandbox")
    release.register(app)

    @app.post(EVENTS_PATH)
    def send_event() -> Response:
        asked = _asked()
        fault = faults.strike(asked if isinstance(asked, Submission) else None)
        time.sleep(fault.hold_ms / 1000)
        verdict = compass.receive(_user(compass), asked, instead=_instead(fault), answered=fault.drop is None)
        time.sleep(fault.delay_ms / 1000)
        if fault.drop is not None:
            # What is written to it now fails, which the server takes for a sender that has gone away.
            request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return _response(verdict, fault)

    @app.get("/sandbox/requests")
    def requests() -> Response:
        return jsonify(compass.requests())

    @app.get("/sandbox/events")
    def events() -> Response:
        return jsonify(compass.events())

    @app.get("/sandbox/faults")
    def standing() -> Response:
        return jsonify([{**fault.model_dump(exclude_unset=True), "times": left} for fault, left in faults.left()])

    @app.post("/sandbox/faults")
    def fail() -> tuple[Response, int]:
        try:
            faults.add(FAULTS.validate_json(request.get_data()))
        except ValidationError as error:
            wrong = [
                {"type": "FORMAT_INVALID", "message": f"{'/'.join(map(str, one['loc']))}: {one['msg']}"}
                for one in error.errors(include_url=False)
            ]
            return jsonify(errors=wrong), 400
        return standing(), 201

    @app.delete("/sandbox/faults")
    def behave() -> tuple[str, int]:
        faults.clear()
        return "", 204

    @app.post("/sandbox/reset")
    def reset() -> tuple[str, int]:
        faults.clear()
        compass.reset()
        release.reset()
        return "", 204

    return app


def _asked() -> Submission | Verdict:
    if not request.is_json:
        complaint = Complaint("FORMAT_INVALID", "the content type must be application/json")
        return Verdict(415, Effect.REFUSED, (complaint,))
    return examine(request.get_data())


def _user(compass: Compass) -> str | None:
    """The sender by the email of its Basic credentials; None where they are missing or wrong."""
    try:
        given = request.authorization
    except ValueError:  # werkzeug stumbles over Basic credentials that are not ASCII
        return None
    if given is None or given.type != "basic" or not compass.knows(given.username, given.password):
        return None
    return given.username


def _instead(fault: Fault) -> Verdict | None:
    """What the fault answers instead of Compass, or None when Compass looks at the request."""
    if fault.drop == "before":
        return Verdict(503, Effect.REFUSED)  # which nobody will see
    status = fault.answers
    if fault.drop == "after" or status is None:
        return None
    if status < 400 or status in {401, 403, 429} or fault.html:  # noqa: PLR2004 - HTTP's own numbers
        return Verdict(status, Effect.REFUSED)
    type_ = fault.type or ("INTERNAL_SERVER_ERROR" if status >= 500 else "ARGUMENT_INVALID")  # noqa: PLR2004
    return Verdict(status, Effect.REFUSED, (Complaint(type_, "the sandbox was told to answer so"),))


def _response(verdict: Verdict, fault: Fault) -> Response:
    headers: dict[str, str] = {}
    if fault.retry_after is not None:
        headers["Retry-After"] = str(fault.retry_after)
    if fault.redirect is not None:
        headers["Location"] = fault.redirect
    if fault.html:
        return Response(PAGE, verdict.status, headers, mimetype="text/html")
    body = _body(verdict)
    if verdict.status == 401:  # noqa: PLR2004
        headers["WWW-Authenticate"] = 'Basic realm="Compass"'
    if body is None:
        answer = Response(None, verdict.status, headers)
        del answer.headers["Content-Type"]
        return answer
    answer = jsonify(body)
    answer.status_code = verdict.status
    answer.headers.update(headers)
    return answer


def _body(verdict: Verdict) -> Mapping[str, Any] | None:
    """The body of an answer: errors, or the gateway's own; documented as none for 202 and 429."""
    if verdict.complaints:
        return {"errors": [{"type": one.type, "message": one.message} for one in verdict.complaints]}
    match verdict.status:
        case 401:
            return {"code": 401, "message": "Unauthorized"}
        case 403:
            return {"code": 403, "message": "Forbidden"}
    return None
