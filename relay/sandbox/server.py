"""The sandbox as a running server: in a thread of the calling process, or in the foreground."""

import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from relay.sandbox.compass import Compass, SandboxConfig, SeenRequest, ShownEvent
from relay.sandbox.faults import FAULTS, Standing
from relay.sandbox.release import Calendar, ReleaseConfig
from relay.sandbox.release_web import BASE, KEY, Call, ReleaseServer
from relay.sandbox.web import create_app

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment  # a module for type checkers only


def steady_clock() -> Callable[[], int]:
    """Milliseconds since 1970 that never go back and never jump, whatever becomes of the machine's clock."""
    offset = time.time_ns() - time.monotonic_ns()
    return lambda: (time.monotonic_ns() + offset) // 1_000_000


class Sandbox:
    """A running stand-in for Compass, and for a Release server."""

    def __init__(self, url: str, compass: Compass, release: ReleaseServer, faults: Standing) -> None:
        self.url = url
        """The site's base, for the setting COMPASS_URL."""
        self.release_url = url + BASE
        """The Release server's base, for the setting RELEASE_URL."""
        self._compass = compass
        self._release = release
        self._faults = faults

    def requests(self) -> list[SeenRequest]:
        """Every request, in the order of arrival."""
        return self._compass.requests()

    def events(self) -> list[ShownEvent]:
        """What Compass would show: the latest of each entity."""
        return self._compass.events()

    def calendar(self) -> list[dict[str, Any]]:
        """Every event in Release's calendar, as the server shows it, in the order of creation."""
        return self._release.shown()

    def calls(self) -> list[Call]:
        """Every request to the Release server, in the order of the answers."""
        return list(self._release.calls)

    def fail(self, *faults: Mapping[str, Any]) -> None:
        """Go wrong on purpose: see `relay.sandbox.faults.Fault` for what can be told.

        Raises pydantic's ValidationError for an instruction that is none.
        """
        self._faults.add(FAULTS.validate_python(list(faults)))

    def behave(self) -> None:
        """Drop the faults that are left."""
        self._faults.clear()

    def reset(self) -> None:
        """Forget the requests, the events, the calendar, the quota used and the faults."""
        self._faults.clear()
        self._compass.reset()
        self._release.reset()


@contextmanager
def running_sandbox(
    config: SandboxConfig | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    release: ReleaseConfig | None = None,
    clock: Callable[[], int] | None = None,
    rng: random.Random | None = None,
) -> Iterator[Sandbox]:
    """Run a sandbox in a thread of this process; port 0 takes a free one. Raises OSError when the port is taken."""
    sandbox, server = _bound(
        config or SandboxConfig(), release or ReleaseConfig(), host=host, port=port, clock=clock, rng=rng
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="sandbox")
    thread.start()
    try:
        yield sandbox
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def serve(
    config: SandboxConfig,
    *,
    host: str = "127.0.0.1",
    port: int = 8081,
    release: ReleaseConfig | None = None,
    ready: Callable[[str], None] = lambda _url: None,
) -> None:
    """Run a sandbox until the process is interrupted. `ready` is called with its URL once it answers.

    Raises OSError when the port is taken.
    """
    sandbox, server = _bound(config, release or ReleaseConfig(), host=host, port=port)
    ready(sandbox.url)
    try:
        server.serve_forever()
    finally:
        server.server_close()


def _bound(
    config: SandboxConfig,
    release: ReleaseConfig,
    *,
    host: str,
    port: int,
    clock: Callable[[], int] | None = None,
    rng: random.Random | None = None,
) -> tuple[Sandbox, BaseWSGIServer]:
    clock = clock or steady_clock()
    compass = Compass(config, clock=clock)
    calendar = Calendar(release, clock=clock, new_id=lambda: str(uuid.uuid4()))
    faults = Standing(rng or random.Random())  # noqa: S311 - faults need no secrets
    played = ReleaseServer(calendar, faults, clock=clock, keep=release.keep)
    app = create_app(compass, played, faults)
    # Bound here, because werkzeug would end the process where the port is taken.
    with socket.create_server((host, port), backlog=128) as bound:
        port = bound.getsockname()[1]
        server = make_server(host, port, app, threaded=True, request_handler=_QuietHandler, fd=bound.fileno())
    return Sandbox(f"http://{host}:{port}", compass, played, faults), server


class _QuietHandler(WSGIRequestHandler):
    """`GET /sandbox/requests` is the log."""

    def make_environ(self) -> "WSGIEnvironment":
        """Hand on the session's key as well: werkzeug drops headers with an underscore."""
        environ = super().make_environ()
        if (key := self.headers.get(KEY)) is not None:
            environ[f"HTTP_{KEY}"] = key
        return environ

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""
