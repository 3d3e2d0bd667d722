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
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial, wraps
from typing import Any, TypeVar

import gevent
from flask import Flask
from gevent import socket
from gevent.lock import Semaphore
from gevent.threadpool import ThreadPool
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.workers.ggevent import GeventWorker

from relay.outbox import Outbox
from relay.outbox.append import Appender

T = TypeVar("T")

SWITCH = 0.0005
"""Seconds after which a thread that computes lets another one on; Python's own 5 ms are longer than a webhook takes."""

BODY_WITHIN = 20.0
"""Seconds from a request's headers to the end of its body. No sender of webhooks waits so long for its answer."""

LINGER = 2.0
"""Seconds in which what nobody read of a body is read away, so that the sender gets to see its answer."""

PIECE = 16_384
"""Bytes of a body after which others have their turn, however fast it comes."""

TURN = 0.000_001
"""Seconds to sleep for that. With 0 the loop would come back fifty times before it looks at any other connection."""

QUICK = frozenset({"webhooks.take", "health.healthz"})
"""The endpoints that the loop's thread answers itself."""


class Worker(GeventWorker):  # type: ignore[misc]
    """gunicorn's worker with a loop, but for its patching of the standard library."""

    sockets: list[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reading: dict[gevent.Greenlet, float] = {}

    def patch(self) -> None:
        """Let the loop wait for the listening sockets, and leave everything else as it is."""
        self.sockets = [socket.socket(one.FAMILY, socket.SOCK_STREAM, fileno=one.sock.detach()) for one in self.sockets]

    def notify(self) -> None:
        """Tell gunicorn that we live, every second; give slow bodies up; and end with whoever delivers."""
        super().notify()
        for greenlet, deadline in list(self._reading.items()):
            if time.monotonic() > deadline:
                greenlet.kill(TimeoutError(f"the body did not come within {BODY_WITHIN:.0f} s"), block=False)
        lifeline = self.app.lifeline
        if lifeline is not None and select.select([lifeline], [], [], 0)[0]:
            os.kill(self.ppid, signal.SIGTERM)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection; nobody who does not read its answers holds us for long."""
        client.settimeout(BODY_WITHIN)
        super(GeventWorker, self).handle(listener, client, addr)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Serve one request. A connection whose body does not end soon behind the answer is closed."""
        body = req.body = _Input(req.body.reader, self._reading)
        try:
            super().handle_request(listener_name, req, sock, addr)
        finally:
            ended = body.finish()
        if not ended:
            raise StopIteration


class _Input(Body):  # type: ignore[misc]
    """A request's body, read in pieces, so that neither a fast sender nor a slow one holds others up."""

    def __init__(self, reader: Any, reading: dict[gevent.Greenlet, float]) -> None:
        super().__init__(reader)
        self._reading = reading
        self._deadline = time.monotonic() + BODY_WITHIN
        self._at_once = 0

    def read(self, size: int | None = None) -> bytes:
        """So many bytes, or all. Raises OSError when the sender is gone, or too slow."""
        wanted = self.getsize(size)
        pieces: list[bytes] = []
        me = gevent.getcurrent()
        self._reading[me] = self._deadline
        try:
            while wanted > 0 and (piece := self.reader.read(min(PIECE, wanted))):
                pieces.append(piece)
                wanted -= len(piece)
                self._at_once += len(piece)
                if self._at_once >= PIECE:
                    self._at_once = 0
                    gevent.sleep(TURN)
        finally:
            del self._reading[me]
        return b"".join(pieces)

    def finish(self) -> bool:
        """Read away what is left, for a little while; False when there is more."""
        if not self._ended():
            with gevent.Timeout(LINGER, False), suppress(Exception):
                while self.reader.read(PIECE):
                    gevent.sleep(TURN)
        return self._ended()

    def _ended(self) -> bool:
        match self.reader:
            case LengthReader(length=left):
                return bool(left == 0)
            case ChunkedReader(parser=parser):
                return parser is None
        return True


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
