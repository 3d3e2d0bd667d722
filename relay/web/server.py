"""gunicorn, and the application that it serves.

The mapping files are read once, before there are several processes. Each web process opens the outbox after the
fork. Delivery is another process's work (see `relay.web.beside`): it would have to share the interpreter with the
door, and the door is in a hurry.
"""

import gc
import logging
import sys
from collections.abc import Callable
from collections.abc import Mapping as Members
from pathlib import Path
from typing import Any, NoReturn

import structlog
from flask import Flask
from gunicorn import glogging
from gunicorn.app.base import BaseApplication

from relay.mapping.compiled import Mapping
from relay.outbox.calls import Caller
from relay.runtime import Relay, assemble
from relay.settings import Settings
from relay.web import create_app
from relay.web.worker import Aside, Deadlines, Worker

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

GRACE = 25
"""Seconds to finish what is on its way: platforms kill 30 s after SIGTERM; a request to Compass lives 20 s at most."""


def serve(
    settings: Settings,
    mappings: Members[str, Mapping],
    *,
    stored: Callable[[], None] | None = None,
    lifeline: int | None = None,
) -> NoReturn:
    """Run gunicorn in this process, with web processes of its own, until it is told to stop; then exit.

    `stored` is called after every commit that stored something to send. `lifeline` is a descriptor that becomes
    readable when whoever delivers is gone: then there is no use in going on.
    """
    share_memory()
    _Server(settings, mappings, stored, lifeline).run()
    sys.exit()


def share_memory() -> None:
    """Before a fork: what is there by now stays common, because no collection of garbage looks at it again."""
    gc.collect()
    gc.freeze()


class _Server(BaseApplication):  # type: ignore[misc]
    """gunicorn, set up by our settings alone."""

    def __init__(
        self,
        settings: Settings,
        mappings: Members[str, Mapping],
        stored: Callable[[], None] | None,
        lifeline: int | None,
    ) -> None:
        self._settings, self._mappings, self._stored = settings, mappings, stored
        self.lifeline, self.deadlines = lifeline, Deadlines()
        super().__init__()

    def load_config(self) -> None:
        """Tell gunicorn what is not as it would be by itself."""
        options = {
            "bind": f"0.0.0.0:{self._settings.port}",
            "workers": self._settings.web_concurrency,
            "worker_class": Worker,
            # Each may hold a body of RELAY_MAX_BODY.
            "worker_connections": 200,
            # Where a busy disk does not hold the heartbeat up.
            "worker_tmp_dir": "/dev/shm" if Path("/dev/shm").is_dir() else None,  # noqa: S108 - gunicorn makes its own
            # PagerDuty waits 5 s and Bitbucket 10 s for an answer; a process that hangs longer than this starts anew.
            "timeout": 30,
            "graceful_timeout": GRACE,
            "keepalive": 5,
            # Our own limit on bodies is RELAY_MAX_BODY; these are for lines that no vendor sends.
            "limit_request_line": 4094,
            "limit_request_fields": 60,
            # What proxies say is read by werkzeug's ProxyFix, as RELAY_TRUSTED_PROXIES has it; never by gunicorn.
            "secure_scheme_headers": {},
            "forwarder_headers": "",
            "forwarded_allow_ips": "*",
            "control_socket_disable": True,
            "logger_class": Lines,
            "post_worker_init": post_worker_init,
            "worker_exit": worker_exit,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Make the application of one web process; called after the fork."""
        aside = Aside(self._settings.threads, self.deadlines)
        relay = assemble(self._settings, self._mappings, appender=aside.appender)
        if self._stored is not None:
            relay.outbox.on_commit = self._stored
        app = create_app(relay)
        aside.all_but_quick(app)
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
    """The process is ready: count, and call the dispatchers of other machines, if none is here."""
    relay: Relay = worker.wsgi.extensions["relay"]
    worker.relay, worker.caller = relay, None
    relay.counting.start()
    if relay.settings.dispatcher == "off" and not relay.outbox.sqlite:
        worker.caller = Caller(relay.outbox)
        worker.caller.start()


def worker_exit(_server: Any, worker: Any) -> None:
    """The last thing in a process: what was counted is kept."""
    if getattr(worker, "caller", None) is not None:
        worker.caller.stop()
    if getattr(worker, "relay", None) is not None:
        worker.relay.counting.stop()
        worker.relay.outbox.close()
