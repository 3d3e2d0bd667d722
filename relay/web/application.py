"""Flask, less what no endpoint of the relay has: sessions, routes by host, answers that are still being made."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response
from flask.sessions import NullSession, SessionInterface
from werkzeug.routing import MapAdapter

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

ROUTES = 100
"""The most paths whose endpoints are remembered."""


class _NoSessions(SessionInterface):
    """Nobody has one; so all have the same."""

    _none = NullSession()

    def open_session(self, _app: Flask, _request: Request) -> NullSession:
        return self._none


class _Routes(MapAdapter):
    """What finds the endpoint for a request; for a path and a method that have had one, without looking for it."""

    found: OrderedDict[tuple[str, str], tuple[Any, Mapping[str, Any]]]

    def match(self, *arguments: Any, **named: Any) -> Any:
        """The rule and the values in the path, as Flask asks for them. Raises an HTTPException."""
        if arguments or named != {"return_rule": True}:
            return super().match(*arguments, **named)
        key = self.path_info, self.default_method
        if key not in self.found:
            answer = super().match(return_rule=True)
            if len(self.found) == ROUTES:
                self.found.popitem(last=False)
            self.found[key] = answer
        rule, values = self.found[key]
        return rule, dict(values)


class Application(Flask):
    """A Flask whose requests cost half: it does not ask each of them for a session, a host and a way."""

    session_interface = _NoSessions()

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._found: OrderedDict[tuple[str, str], tuple[Any, Mapping[str, Any]]] = OrderedDict()

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """What finds the endpoint for a request: by its path and its method."""
        if request is None:
            return None
        environ = request.environ
        routes = _Routes(
            self.url_map,
            server_name="",  # nothing is sent elsewhere
            script_name=environ["SCRIPT_NAME"],
            subdomain="",
            url_scheme=environ["wsgi.url_scheme"],
            path_info=request.path,
            default_method=request.method,
            query_args=environ["QUERY_STRING"],
        )
        routes.found = self._found
        return routes


class Complete(Response):
    """An answer to a POST of which all is known: its body, and so its length."""

    def __call__(self, _environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer, without another look at what it might be for other methods and statuses."""
        start_response(self.status, list(self.headers))
        body: Any = self.response
        return body  # type: ignore[no-any-return]
