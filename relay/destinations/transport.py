"""One HTTP request to a destination: sent at most once, over within a fixed time, every outcome a value.

requests' own read time-out is per read, so a server that drips one byte a second could hold a request for
hours; and a name server, several addresses or a TLS handshake can hold it before its first byte is written.
So each request runs in a thread of its own and the caller watches it from outside: when the time is up, the
connection is cut and the caller goes on. What keeps a request from arriving later than it may:

- `_Connection.request` connects first and asks `_Exchange.begin` right before the first byte is written;
- a connection that is closed before its answer came is reset, so that the kernel throws away what it has not
  sent yet instead of trying for minutes;
- nothing is sent twice: no redirects, no retries of the adapter, no reconnecting in the middle of a request.

What this cannot see is a process that is frozen between that question and the system call behind it.
"""

import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from importlib.metadata import version
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.response import HTTPResponse

from relay.destinations import Limits, NoAnswer

MAX_BODY = 64 * 1024
"""Bytes of an answer's body that are read: enough for any error message. The rest is not waited for."""

POOL_SIZE = 64
"""Idle connections kept; a few more than a slow destination needs at the usual quota."""


@dataclass(frozen=True)
class Reply:
    """What the other side answered."""

    status: int
    headers: Mapping[str, str]
    """Looked up in any case."""
    body: bytes
    """Its beginning, MAX_BODY bytes at most; empty when the body broke off or did not come in time."""


@dataclass(frozen=True)
class Silence:
    """Why there is no answer."""

    why: NoAnswer
    message: str


class Transport:
    """Sends requests to one destination, from any number of threads.

    They share one `requests.Session`: its adapter's pool of connections is made for that, and the one thing
    that is not, the cookies, is off.
    """

    def __init__(self, *, authorization: str, limits: Limits) -> None:
        self._limits = limits
        self._session = requests.Session()
        # No proxies, no .netrc, no certificates from the environment: the settings are all there is.
        self._session.trust_env = False
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers.update(
            {
                "Authorization": authorization,
                "User-Agent": f"compass-relay/{version('compass-relay')}",
                "Accept": "application/json",
                "Accept-Encoding": "identity",  # nothing to inflate, so nothing can explode
            }
        )
        self._session.mount("http://", _Adapter(pool_maxsize=POOL_SIZE, max_retries=0))
        self._session.mount("https://", _Adapter(pool_maxsize=POOL_SIZE, max_retries=0))

    def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None = None,
        age: Callable[[], float],
        within: float | None = None,
        most: int = MAX_BODY,
    ) -> Reply | Silence:
        """Send one request, with JSON or without a body, and return what came of it.

        `age` tells the seconds since the claim: see `Limits.write`. `within` is how many seconds this may take,
        unless `Limits.total`; `most` how many bytes of the answer's body are read. Never raises.
        """
        within = self._limits.total if within is None else within
        if age() > self._limits.write:
            return Silence(NoAnswer.LATE, f"{age():.0f} s after the claim; nothing was sent")
        exchange = _Exchange(lambda: age() <= self._limits.write)
        thread = threading.Thread(
            target=self._run, args=(exchange, method, url, body, within, most), name="relay-request", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # the machine has no thread left
            return Silence(NoAnswer.INTERNAL, str(error))
        thread.join(within)
        outcome = exchange.cut() if thread.is_alive() else exchange.outcome
        return outcome or Silence(NoAnswer.TIMEOUT, f"no answer within {within:.3g} s")

    def close(self) -> None:
        """Close the idle connections."""
        self._session.close()

    def _run(self, exchange: "_Exchange", method: str, url: str, body: bytes | None, within: float, most: int) -> None:
        _current.set(exchange)
        try:
            with self._session.request(
                method,
                url,
                data=body,
                headers=None if body is None else {"Content-Type": "application/json"},
                timeout=(self._limits.connect, within),
                allow_redirects=False,
                stream=True,
            ) as response:
                # The status is the answer. Should the body break off, there is only less to show.
                exchange.outcome = Reply(response.status_code, response.headers, b"")
                exchange.outcome = Reply(response.status_code, response.headers, response.raw.read(most))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what became of this request
            exchange.outcome = exchange.outcome or _silence(error)


class _Exchange:
    """One request on its way: may it be written yet, what came of it, and how to end it from outside."""

    def __init__(self, in_time: Callable[[], bool]) -> None:
        self.outcome: Reply | Silence | None = None
        self._in_time = in_time
        self._over = False
        self._connection: _Connection | None = None
        self._socket: socket.socket | None = None

    def begin(self, connection: "_Connection") -> None:
        """Raise _TooLateError unless the request may be written to this connection now."""
        with _ownership:
            if self._over or not self._in_time():
                raise _TooLateError("connecting took too long; nothing was sent")
            connection.exchange = self
            # `connection.sock` is forgotten early when the answer says `Connection: close`.
            self._connection, self._socket = connection, connection.sock

    def cut(self) -> Reply | Silence | None:
        """Keep the request from being written, or end it where it is; what had come of it by then."""
        with _ownership:
            self._over = True
            outcome = self.outcome
            # It may have ended just now, and the connection be another request's already.
            if self._socket is not None and self._connection and self._connection.exchange is self:
                # Of the plain socket: SSLSocket's own would change what the other thread is reading with.
                with suppress(OSError):
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        return outcome


_ownership = threading.Lock()
_current: ContextVar[_Exchange] = ContextVar("exchange")


class _TooLateError(Exception):
    """The request could not be written within `Limits.write`."""


class _Connection(HTTPConnection):
    """A connection that writes no request later than it may, and leaves none behind in the kernel."""

    exchange: _Exchange | None = None
    _unanswered = False

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:  # http.client would connect only when it writes
            self.connect()
        _current.get().begin(self)
        self._unanswered = True
        super().request(*args, **kwargs)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 has it
        response = super().getresponse()
        self._unanswered = False
        return response

    def close(self) -> None:
        if self._unanswered and self.sock is not None:
            # Lingering for 0 s: closing resets the connection and drops what was not sent, see socket(7).
            with suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._unanswered = False
        super().close()


class _TLSConnection(_Connection, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}


def _silence(error: Exception) -> Silence:
    """The failure in our words, with the innermost reason that the libraries wrapped."""
    reason: BaseException = error
    while inner := reason.__cause__ or reason.__context__:
        reason = inner
    message = str(reason) or type(reason).__name__
    match error:
        case _TooLateError():
            return Silence(NoAnswer.CONNECTION, message)
        case _ if isinstance(error, requests.Timeout) or isinstance(reason, TimeoutError):
            return Silence(NoAnswer.TIMEOUT, message)
        case requests.exceptions.SSLError():
            return Silence(NoAnswer.TLS, message)
        case requests.RequestException():
            return Silence(NoAnswer.CONNECTION, message)
        case _:
            return Silence(NoAnswer.INTERNAL, f"{type(error).__name__}: {message}")
