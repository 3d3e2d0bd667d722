"""A web process: one thread with an event loop at the door, and a few threads behind it.

Webhooks are taken in by the loop's thread, each in a greenlet: they are short, and a switch between threads would
cost as much as reading one. Only the transaction that stores them, a batch at a time, is run by a thread aside, so
that the loop goes on while the disk or the database is waited for. So is everything that takes longer than a webhook:
`/events/`, `/metrics`, `/readyz`.

Nothing is monkey-patched: the loop's thread waits for nothing but its sockets and the locks that are handed out here.
"""

import os
import select
import signal
import sys
from collections.abc import Callable
from contextvars import copy_context
from functools import partial, wraps
from typing import Any, TypeVar

import gevent
from flask import Flask
from gevent import socket
from gevent.lock import Semaphore
from gevent.threadpool import ThreadPool
from gunicorn.workers.ggevent import GeventWorker

from relay.outbox import Outbox
from relay.outbox.append import Appender

T = TypeVar("T")

SWITCH = 0.0005
"""Seconds after which a thread that computes lets another one on; Python's own 5 ms are longer than a webhook takes."""

QUICK = frozenset({"webhooks.take", "health.healthz"})
"""The endpoints that the loop's thread answers itself."""


class Worker(GeventWorker):  # type: ignore[misc]
    """gunicorn's worker with a loop, but for its patching of the standard library."""

    sockets: list[Any]

    def patch(self) -> None:
        """Let the loop wait for the listening sockets, and leave everything else as it is."""
        self.sockets = [socket.socket(one.FAMILY, socket.SOCK_STREAM, fileno=one.sock.detach()) for one in self.sockets]

    def notify(self) -> None:
        """Tell gunicorn that we live, every second; and end with whoever delivers what we take in."""
        super().notify()
        lifeline = self.app.lifeline
        if lifeline is not None and select.select([lifeline], [], [], 0)[0]:
            os.kill(self.ppid, signal.SIGTERM)


class Aside:
    """The threads of one web process. Make it after the fork, in the loop's thread."""

    def __init__(self, threads: int) -> None:
        """`threads` run what takes longer than a webhook; one more stores webhooks."""
        sys.setswitchinterval(SWITCH)
        self._threads = ThreadPool(threads)
        self._store = ThreadPool(1)

    def appender(self, outbox: Outbox) -> Appender:
        """Stores webhooks aside, while the loop's thread reads the next ones."""
        return Appender(
            outbox, held=partial(Semaphore, 0), aside=partial(_run, self._store), others_first=partial(gevent.sleep, 0)
        )

    def all_but_quick(self, app: Flask) -> None:
        """Have the endpoints that are not QUICK answered aside."""
        views: dict[str, Callable[..., Any]] = app.view_functions
        views.update({name: self._aside(view) for name, view in views.items() if name not in QUICK})

    def _aside(self, view: Callable[..., T]) -> Callable[..., T]:
        @wraps(view)
        def run(**arguments: Any) -> T:
            # With the request, which is the context's.
            return _run(self._threads, partial(copy_context().run, view, **arguments))

        return run


def _run(threads: ThreadPool, work: Callable[[], T]) -> T:
    """Run it in one of these threads; what it raises is raised here."""

    def tried() -> tuple[T | None, Exception | None]:
        # gevent would write about what is raised to standard error, as if nobody took care of it.
        try:
            return work(), None
        except Exception as error:  # noqa: BLE001 - whatever it is, it goes where the work was wanted
            return None, error

    result, error = threads.apply(tried)
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]
