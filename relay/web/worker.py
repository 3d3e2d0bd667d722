"""A web process: one thread with an event loop at the door, and a few threads behind it.

Webhooks are taken in by the loop's thread, each in a greenlet: they are short, and a switch between threads would
cost as much as reading one. Only the transaction that stores them, a batch at a time, is run by a thread aside, so
that the loop goes on while the disk or the database is waited for. So is everything that takes longer than a webhook:
`/events/`, `/metrics`, `/readyz`.

Nothing is monkey-patched: the loop's thread waits for nothing but its sockets and the locks that are handed out here.
"""

import errno
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial, wraps
from queue import SimpleQueue
from typing import Any, TypeVar

import gevent
from flask import Flask
from gevent import socket
from gevent.hub import Waiter, get_hub
from gevent.threadpool import ThreadPool
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.errors import NoMoreData
from gunicorn.workers.ggevent import GeventWorker

from relay.outbox import STORE_TIMEOUT, Outbox
from relay.outbox.append import Appender
from relay.web.exchange import Answer, environ_of

T = TypeVar("T")

SWITCH = 0.0005
"""Seconds after which a thread that computes lets another one on; Python's own 5 ms are longer than a webhook takes."""

BODY_WITHIN = 20.0
"""Seconds from a request's headers to the end of its body. No sender of webhooks waits so long for its answer."""

ANSWER_WITHIN = 20.0
"""Seconds in which a client takes its answer."""

LINGER = 2.0
"""Seconds in which what nobody read of a body is read away, so that the sender gets to see its answer."""

PIECE = 16_384
"""Bytes of a body after which others have their turn, however fast it comes."""

TURN = 0.000_001
"""Seconds to sleep to let others go on. With 0 the loop comes back fifty times before it looks at any connection."""

MOST_AT_ONCE = 8
"""Requests of one connection after which others have their turn, however fast they come."""

QUICK = frozenset({"webhooks.take", "health.healthz"})
"""The endpoints that the loop's thread answers itself."""


class Worker(GeventWorker):  # type: ignore[misc]
    """gunicorn's worker with a loop, but for its patching of the standard library."""

    sockets: list[Any]

    def init_process(self) -> None:
        """Start to work; called after the fork."""
        # We compute rather than wait: nobody is interrupted because something has come for us, too. A tenth of the
        # processor time is saved by it. Where there is no such policy, or it is forbidden, it goes without.
        with suppress(AttributeError, OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        self.prepare(self.app.deadlines)
        super().init_process()

    def prepare(self, deadlines: "Deadlines") -> None:
        """What is the same for all requests."""
        # gunicorn looks some twenty settings up for every request, each through several functions.
        self.cfg.__dict__.update({name: setting.get() for name, setting in self.cfg.settings.items()})
        self._deadlines = deadlines
        self._next_request = _Within(self.cfg.keepalive, deadlines, NoMoreData)
        self._sending = _Within(ANSWER_WITHIN, deadlines, _not_read)

    def patch(self) -> None:
        """Let the loop wait for the listening sockets, and leave everything else as it is."""
        self.sockets = [socket.socket(one.FAMILY, socket.SOCK_STREAM, fileno=one.sock.detach()) for one in self.sockets]

    def notify(self) -> None:
        """Tell gunicorn that we live, every second; give up whoever is slow; and end with whoever delivers."""
        super().notify()
        self._deadlines.look()
        lifeline = self.app.lifeline
        if lifeline is not None and select.select([lifeline], [], [], 0)[0]:
            os.kill(self.ppid, signal.SIGTERM)

    def timeout_ctx(self) -> "_Within":
        """How long a connection waits for its next request."""
        return self._next_request

    def _try_h2c_upgrade(self, *_: Any) -> bool:
        return False

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Serve one request. A connection whose body does not end soon behind the answer is closed."""
        body, answer = _Input(req.body.reader, self._deadlines), Answer()
        if req._expected_100_continue:  # noqa: SLF001 - gunicorn's own functions read it there, too
            self._send(sock, b"HTTP/1.1 100 Continue\r\n\r\n")
        environ = environ_of(req, client=addr, server=listener_name)
        environ["wsgi.input"] = body
        try:
            pieces = self.wsgi(environ, answer.start)
            last = req.should_close() or not self.alive or body.broken
            try:
                self._send(sock, answer.written(b"".join(pieces), last=last))
            finally:
                if hasattr(pieces, "close"):
                    pieces.close()
        except (gevent.GreenletExit, SystemExit):  # we are to end
            raise StopIteration from None
        finally:
            ended = body.finish()
        if last or not ended:
            raise StopIteration
        if req.req_number % MOST_AT_ONCE == 0:
            gevent.sleep(TURN)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what could not be read as a request."""
        with self._sending:
            super().handle_error(req, client, addr, exc)

    def _send(self, sock: Any, answer: bytes) -> None:
        with self._sending:
            sent = sock.send(answer)
            if sent < len(answer):
                sock.sendall(memoryview(answer)[sent:])


class Deadlines:
    """Until when each greenlet of a process waits. One look a second serves them all; a timer each costs more."""

    def __init__(self) -> None:
        self._waiting: dict[gevent.Greenlet, tuple[float, Callable[[], Exception]]] = {}

    def until(self, deadline: float, error: Callable[[], Exception]) -> None:
        """From now on this greenlet waits until then, by `time.monotonic()`; the error is raised in it soon after."""
        self._waiting[gevent.getcurrent()] = deadline, error

    def met(self) -> None:
        """This greenlet waits no longer."""
        self._waiting.pop(gevent.getcurrent(), None)

    def look(self) -> None:
        """Give up whoever has waited too long. To be called every second."""
        now = time.monotonic()
        for greenlet, wait in self._waiting.items():
            if now > wait[0]:
                get_hub().loop.run_callback(self._give_up, greenlet, wait)

    def _give_up(self, greenlet: gevent.Greenlet, wait: tuple[float, Callable[[], Exception]]) -> None:
        # What it waited for may have come meanwhile: then it waits for something else, or for nothing.
        if self._waiting.get(greenlet) is wait:
            greenlet.throw(wait[1]())


class _Within:
    """A block that takes no longer than so many seconds; one serves all greenlets."""

    def __init__(self, seconds: float, deadlines: Deadlines, error: Callable[[], Exception]) -> None:
        self._seconds, self._deadlines, self._error = seconds, deadlines, error

    def __enter__(self) -> None:
        self._deadlines.until(time.monotonic() + self._seconds, self._error)

    def __exit__(self, *_: object) -> None:
        self._deadlines.met()


def _too_slow() -> Exception:
    return TimeoutError(f"the body did not come within {BODY_WITHIN:.0f} s")


def _not_read() -> Exception:
    return ConnectionResetError(errno.ECONNRESET, f"the answer was not taken within {ANSWER_WITHIN:.0f} s")


class _Input(Body):  # type: ignore[misc]
    """A request's body, read in pieces, so that neither a fast sender nor a slow one holds others up."""

    def __init__(self, reader: Any, deadlines: Deadlines) -> None:
        super().__init__(reader)
        self._deadlines = deadlines
        self._deadline = time.monotonic() + BODY_WITHIN
        self._at_once = 0
        self.broken = False
        """Nobody knows any more where in the body we are, and so where the next request begins."""

    def read(self, size: int | None = None) -> bytes:
        """So many bytes, or all. Raises OSError when the sender is gone, or too slow."""
        wanted = self.getsize(size)
        pieces: list[bytes] = []
        self._deadlines.until(self._deadline, _too_slow)
        try:
            while wanted > 0 and (piece := self.reader.read(min(PIECE, wanted))):
                pieces.append(piece)
                wanted -= len(piece)
                self._at_once += len(piece)
                if self._at_once >= PIECE:
                    self._at_once = 0
                    gevent.sleep(TURN)
        except BaseException:
            self.broken = True
            raise
        finally:
            self._deadlines.met()
        return b"".join(pieces)

    def finish(self) -> bool:
        """Read away what is left, for a little while; False when there is more, or may be."""
        if self.broken:
            return False
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

    def __init__(self, threads: int, deadlines: Deadlines) -> None:
        """`threads` run what takes longer than a webhook; one more stores webhooks."""
        sys.setswitchinterval(SWITCH)
        self._threads = ThreadPool(threads)
        self._store = _Thread()
        self._deadlines = deadlines

    def appender(self, outbox: Outbox) -> Appender:
        """Stores webhooks aside, while the loop's thread reads the next ones."""
        return Appender(
            outbox,
            held=partial(_Held, self._deadlines),
            aside=self._store.run,
            others_first=partial(gevent.sleep, TURN),
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


class _Held:
    """A lock that is held, for one greenlet to wait on; with a deadline among the others instead of a timer."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._waiter = Waiter()

    def acquire(self, *, timeout: float = STORE_TIMEOUT) -> bool:
        """Wait until it is released; False when it is not within so many seconds, or one more."""
        self._deadlines.until(time.monotonic() + timeout, TimeoutError)
        try:
            self._waiter.get()
        except TimeoutError:
            return False
        finally:
            self._deadlines.met()
        return True

    def release(self) -> None:
        """Let the greenlet go on, soon."""
        get_hub().loop.run_callback(self._waiter.switch, None)


class _Thread:
    """A thread that does one thing after the other for greenlets of this one, which wait for it meanwhile."""

    def __init__(self) -> None:
        self._loop = get_hub().loop
        self._waiting: SimpleQueue[tuple[Callable[[], Any], Waiter]] = SimpleQueue()
        threading.Thread(target=self._serve, name="store", daemon=True).start()

    def run(self, work: Callable[[], T]) -> T:
        """What it gives; what it raises is raised here."""
        waiter = Waiter()
        self._waiting.put((work, waiter))
        outcome: tuple[T | None, Exception | None] = waiter.get()
        return _given(outcome)

    def _serve(self) -> None:
        while True:
            work, waiter = self._waiting.get()
            self._loop.run_callback_threadsafe(waiter.switch, _tried(work))


def _run(threads: ThreadPool, work: Callable[[], T]) -> T:
    """Run it in one of these threads; what it raises is raised here."""
    # gevent would write about what is raised to standard error, as if nobody took care of it.
    outcome: tuple[T | None, Exception | None] = threads.apply(partial(_tried, work))
    return _given(outcome)


def _tried(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return work(), None
    except Exception as error:  # noqa: BLE001 - whatever it is, it goes where the work was wanted
        return None, error


def _given(outcome: tuple[T | None, Exception | None]) -> T:
    result, error = outcome
    if error is not None:
        raise error
    return result  # type: ignore[return-value]
