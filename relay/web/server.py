"""gunicorn, and the application that it serves.

The mapping files are read once, before there are several processes. Each web process opens the outbox after
the fork and, unless RELAY_DISPATCHER is off, delivers as well.
"""

import gc
import logging
import signal
import threading
import time
from collections.abc import Callable
from collections.abc import Mapping as Members
from types import FrameType
from typing import Any

import structlog
from flask import Flask
from gunicorn import glogging
from gunicorn.app.base import BaseApplication

from relay.dispatch.loop import Dispatcher
from relay.mapping.compiled import Mapping
from relay.outbox import CONNECTIONS
from relay.outbox.calls import Caller
from relay.runtime import Relay, assemble, dispatcher
from relay.settings import Settings
from relay.web import create_app

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

GRACE = 25
"""Seconds to finish what is on its way: platforms kill 30 s after SIGTERM; a request to Compass lives 20 s at most."""


def serve(settings: Settings, mappings: Members[str, Mapping]) -> None:
    """Run gunicorn in this process, with web processes of its own, until it is told to stop; then exit."""
    # What is there by now is shared with the web processes, and no collection of garbage looks at it again.
    gc.collect()
    gc.freeze()
    _Server(settings, mappings).run()


class _Server(BaseApplication):  # type: ignore[misc]
    """gunicorn, set up by our settings alone."""

    def __init__(self, settings: Settings, mappings: Members[str, Mapping]) -> None:
        self._settings, self._mappings = settings, mappings
        super().__init__()

    def load_config(self) -> None:
        """Tell gunicorn what is not as it would be by itself."""
        options = {
            "bind": f"0.0.0.0:{self._settings.port}",
            "workers": self._settings.web_concurrency,
            "threads": self._settings.threads,
            "worker_class": "gthread",
            # PagerDuty waits 5 s and Bitbucket 10 s for an answer; a process that hangs longer than this starts anew.
            "timeout": 30,
            "graceful_timeout": GRACE,
            "keepalive": 5,
            # Our own limit on bodies is RELAY_MAX_BODY; these are for lines that no vendor sends.
            "limit_request_line": 4094,
            "limit_request_fields": 60,
            "control_socket_disable": True,
            "logger_class": Lines,
            "post_worker_init": post_worker_init,
            "worker_exit": worker_exit,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Make the application of one web process; called after the fork."""
        # Whoever does not deliver needs one connection less.
        connections = CONNECTIONS if self._settings.dispatcher == "on" else CONNECTIONS - 1
        relay = assemble(self._settings, self._mappings, connections=connections)
        app = create_app(relay)
        app.extensions["relay"] = relay
        return app


class Lines(glogging.Logger):  # type: ignore[misc]
    """gunicorn's own words go where ours go. It writes no line for each request: `webhook.received` is that line."""

    def setup(self, cfg: Any) -> None:
        """Keep gunicorn from handlers of its own; its lines travel up to the relay's."""
        self.cfg = cfg
        self.loglevel = logging.INFO
        self.error_log.propagate = True

    def access(self, *_: Any) -> None:
        """Nothing."""


def post_worker_init(worker: Any) -> None:
    """The process is ready: begin to deliver, and stop at the first SIGTERM, while requests are still answered."""
    relay: Relay = worker.wsgi.extensions["relay"]
    worker.relay, worker.dispatcher, worker.caller, worker.stopping = relay, None, None, None
    relay.counting.start()
    if relay.settings.dispatcher == "on":
        worker.dispatcher = dispatcher(relay)
        worker.dispatcher.start()
    elif not relay.outbox.sqlite:
        worker.caller = Caller(relay.outbox)
        worker.caller.start()
    _on_sigterm(worker, worker.dispatcher)


def worker_exit(_server: Any, worker: Any) -> None:
    """The last thing in a process: what is on its way is finished, leases are given back."""
    if getattr(worker, "stopping", None) is not None:
        worker.stopping.join(GRACE)
    elif getattr(worker, "dispatcher", None) is not None:
        worker.dispatcher.stop(GRACE)
    if getattr(worker, "caller", None) is not None:
        worker.caller.stop()
    if getattr(worker, "relay", None) is not None:
        worker.relay.counting.stop()
        worker.relay.outbox.close()


def _on_sigterm(worker: Any, delivering: Dispatcher | None) -> None:
    before: Callable[[int, FrameType | None], Any] = signal.getsignal(signal.SIGTERM)  # type: ignore[assignment]

    def stop(number: int, frame: FrameType | None) -> None:
        before(number, frame)
        # In threads: a signal handler may have interrupted whoever holds the lock that these need.
        if delivering is not None and worker.stopping is None:
            worker.stopping = threading.Thread(target=delivering.stop, args=(GRACE,), name="stop", daemon=True)
            worker.stopping.start()
        threading.Thread(target=_nudge, args=(worker,), name="nudge", daemon=True).start()

    signal.signal(signal.SIGTERM, stop)


def _nudge(worker: Any) -> None:
    """Let the closing process drop the idle connections that clients keep open.

    gthread (gunicorn 26) otherwise sleeps for the whole grace period while there is one.
    """
    while worker.nr_conns > 0:
        worker.method_queue.defer(_expire, worker)
        time.sleep(0.1)


def _expire(worker: Any) -> None:
    for connection in worker.keepalived_conns:
        connection.timeout = 0
