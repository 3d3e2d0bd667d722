"""The sandbox's UrbanCode Release server over HTTP, below a path of its own.

Who may come in, as https://www.ibm.com/support/knowledgecenter/SS4GCC_6.1.1/com.ibm.urelease.doc/topics/rest_api_ref_authenticating.html
has it: Basic credentials, or the session that an earlier answer's cookies began. A write in a session must carry the
session's key as a header as well; without it the sandbox answers 403, even to the right credentials, because that is
what a client must expect that keeps cookies unawares.
"""

import json
import secrets
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Flask, Response, g, jsonify, request

from relay.sandbox.faults import PAGE, Fault, Standing
from relay.sandbox.release import Calendar, Condition, Entry, Refusal, as_shown

BASE = "/release"
"""Where the server is on the sandbox; what RELEASE_URL ends in."""

SESSION, KEY = "JSESSIONID", "UCR_SESSION_KEY"
"""The session's cookie; and its key, which comes as a cookie and goes back as a header."""

WRITES = frozenset({"POST", "PUT", "DELETE"})


@dataclass(frozen=True)
class Call:
    """One request to the Release server, in the order in which they were answered."""

    at: int
    """When it arrived, in milliseconds."""
    method: str
    path: str
    """With the query, as it was sent."""
    status: int | None
    """What was answered; None when the connection was dropped instead."""
    faulty: bool
    """True when the sandbox went wrong on purpose."""


@dataclass(frozen=True)
class Aim:
    """What a fault may be meant for: a request that writes calendar events."""

    entity: str
    """The name of the event, or of the first one."""
    kind: str = "calendar"
    source: str | None = None


class Sessions:
    """Who came in with credentials, and need not again."""

    def __init__(self, keep: int = 10_000) -> None:
        """`keep` sessions are remembered."""
        self._keep = keep
        self._lock = threading.Lock()
        self._keys: OrderedDict[str, str] = OrderedDict()

    def begin(self) -> tuple[str, str]:
        """A new session and its key."""
        session, key = secrets.token_hex(16), secrets.token_hex(16)
        with self._lock:
            self._keys[session] = key
            while len(self._keys) > self._keep:
                self._keys.popitem(last=False)
        return session, key

    def key(self, session: str | None) -> str | None:
        """The key of a session; None for one that there is not."""
        with self._lock:
            return None if session is None else self._keys.get(session)


class ReleaseServer:
    """A Release server: a calendar, who may write to it, and what goes wrong with it on purpose."""

    def __init__(self, calendar: Calendar, faults: Standing, *, clock: Callable[[], int], keep: int) -> None:
        """`clock` tells milliseconds; `keep` calls are remembered."""
        self.calendar = calendar
        self.calls: deque[Call] = deque(maxlen=keep)
        """Every request, in the order of the answers."""
        self._faults = faults
        self._clock = clock
        self._sessions = Sessions()

    def register(self, app: Flask) -> None:
        """Serve the calendar below BASE, and what people may look at beside it."""
        site = Blueprint("release", __name__, url_prefix=BASE)
        site.before_request(self._come_in)
        site.after_request(self._go_out)
        for method, path, view in (
            ("POST", "/events/", self._create),
            ("GET", "/events/", self._several),
            ("PUT", "/events/", self._update_several),
            ("DELETE", "/events/", self._delete_several),
            ("GET", "/events/name", self._several),
            ("GET", "/events/<identifier>", self._one),
            ("PUT", "/events/<identifier>", self._update),
            ("DELETE", "/events/<identifier>", self._delete),
        ):
            site.add_url_rule(path, f"{method} {path}".replace(".", ""), view, methods=[method])
        app.register_blueprint(site)
        app.add_url_rule("/sandbox/calendar", view_func=lambda: jsonify(self.shown()), endpoint="calendar")
        app.add_url_rule("/sandbox/calls", view_func=lambda: jsonify(list(self.calls)), endpoint="calls")

    def shown(self) -> list[dict[str, Any]]:
        """Every event in the calendar, in the order of creation."""
        return [as_shown(entry, by_name=False) for entry in self.calendar.all()]

    def reset(self) -> None:
        """Forget the calendar and the calls."""
        self.calendar.clear()
        self.calls.clear()

    def _come_in(self) -> Response | None:
        g.arrived = self._clock()
        g.given = _given()
        g.fault = self._faults.strike(_aim(g.given))
        time.sleep(g.fault.hold_ms / 1000)
        if g.fault.drop == "before":
            return Response(status=503)  # which nobody will see
        if g.fault.answers is not None and g.fault.drop is None:
            return _wrong_on_purpose(g.fault)
        return _refused(self._objection())

    def _go_out(self, response: Response) -> Response:
        time.sleep(g.fault.delay_ms / 1000)
        dropped = g.fault.drop is not None
        status = None if dropped else response.status_code
        path = request.full_path.removesuffix("?")
        self.calls.append(Call(g.arrived, request.method, path, status, dropped or g.fault.answers is not None))
        if dropped:
            # What is written to it now fails, which the server takes for a sender that has gone away.
            request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        elif response.status_code < 300 and self._sessions.key(request.cookies.get(SESSION)) is None:  # noqa: PLR2004
            for name, value in zip((SESSION, KEY), self._sessions.begin(), strict=True):
                response.set_cookie(name, value, path=BASE)
        return response

    def _objection(self) -> Refusal | None:
        """What is wrong with a request before its content is looked at."""
        session = request.cookies.get(SESSION)
        key = self._sessions.key(session)
        in_session = key is not None and "Authorization" not in request.headers
        if not in_session and not self._knows_sender():
            return Refusal(401, "who are you?")
        if request.method in WRITES and session is not None and (key is None or request.headers.get(KEY) != key):
            return Refusal(403, f"a write in a session needs the header {KEY}")
        if not (request.accept_mimetypes.accept_json or (request.method == "GET" and "json" in request.args)):
            return Refusal(406, "the header Accept must take application/json")
        return g.given if isinstance(g.given, Refusal) else None

    def _knows_sender(self) -> bool:
        try:
            given = request.authorization
        except ValueError:  # werkzeug stumbles over Basic credentials that are not ASCII
            return False
        return given is not None and given.type == "basic" and self.calendar.knows(given.username, given.password)

    def _create(self) -> Response:
        return _told(self.calendar.create(g.given), status=201)

    def _several(self) -> Response:
        """The list, filtered and ordered as client scripts ask for it, with its length in `Content-Range`."""
        asked = request.args
        conditions = [
            Condition(name, asked.get(f"filterType_{name}", ""), asked.get(f"filterValue_{name}", ""))
            for name in asked.getlist("filterFields")
        ]
        descending = asked.get("sortType") == "desc"
        found = self.calendar.entries(conditions, order=asked.get("orderField", ""), descending=descending)
        response = _told(found)
        if not isinstance(found, Refusal):
            response.headers["Content-Range"] = f"items 0-{len(found) - 1}/{len(found)}" if found else "items */0"
        return response

    def _one(self, identifier: str) -> Response:
        return _told(self.calendar.one(identifier))

    def _update(self, identifier: str) -> Response:
        return _told(self.calendar.update(identifier, g.given))

    def _update_several(self) -> Response:
        return _told(self.calendar.update_several(g.given))

    def _delete(self, identifier: str) -> Response:
        return _refused(self.calendar.delete([identifier])) or Response(status=200)

    def _delete_several(self) -> Response:
        if not isinstance(g.given, list):
            return _plain(Refusal(400, "the body must be an array of events or of ids"))
        return _refused(self.calendar.delete(g.given)) or Response(status=200)


def _given() -> Any:
    """The body's JSON; a Refusal for what is none, and None for a request without a body."""
    if request.method not in WRITES or (request.method == "DELETE" and request.view_args):
        return None
    if not request.is_json:
        return Refusal(415, "the content type must be application/json")
    try:
        return json.loads(request.get_data().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return Refusal(400, f"the body is no JSON: {error}")


def _aim(given: Any) -> Aim | None:
    first = given[0] if isinstance(given, list) and given else given
    return Aim(str(first.get("name"))) if isinstance(first, dict) else None


def _told(result: Entry | Sequence[Entry] | Refusal, *, status: int = 200) -> Response:
    """One event as an object, several as an array; a new one with its place."""
    brief = request.args.get("format") == "name" or request.path.endswith("/name")
    match result:
        case Refusal():
            return _plain(result)
        case Entry():
            response = jsonify(as_shown(result, by_name=brief))
            if status == 201:  # noqa: PLR2004 - Created
                response.headers["Location"] = f"{request.host_url.rstrip('/')}{BASE}/events/{result.id}"
        case several:
            response = jsonify([as_shown(entry, by_name=brief) for entry in several])
    response.status_code = status
    return response


def _refused(refusal: Refusal | None) -> Response | None:
    return None if refusal is None else _plain(refusal)


def _plain(refusal: Refusal) -> Response:
    """No form of an error is documented; so it is a text, to which nobody can get used."""
    response = Response(refusal.reason.encode("utf-8", "replace"), refusal.status, mimetype="text/plain")
    if refusal.status == 401:  # noqa: PLR2004
        response.headers["WWW-Authenticate"] = 'Basic realm="Release"'
    return response


def _wrong_on_purpose(fault: Fault) -> Response:
    page = Response(PAGE, mimetype="text/html") if fault.html else Response("the sandbox was told to answer so")
    page.status_code = fault.answers or 200
    if fault.retry_after is not None:
        page.headers["Retry-After"] = str(fault.retry_after)
    if fault.redirect is not None:
        page.headers["Location"] = fault.redirect
    return page
