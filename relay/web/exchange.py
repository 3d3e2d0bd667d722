"""A request and its answer on the wire: gunicorn reads requests, and here they become WSGI's, and answers are sent.

gunicorn's own way there gives the same, and takes twice as long: it makes anew for every request what is the same for
all of them, and sends an answer in two pieces.
"""

import sys
import time
from collections.abc import Callable, Sequence
from email.utils import formatdate
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes

_NAMED_APART = {"CONTENT-TYPE": "CONTENT_TYPE", "CONTENT-LENGTH": "CONTENT_LENGTH"}


def environ_of(request: Any, *, client: tuple[Any, ...], server: tuple[Any, ...]) -> dict[str, Any]:
    """What WSGI says of gunicorn's request, but for the body; `client` and `server` are addresses and ports.

    gunicorn has refused every header whose name could be taken for another one's.
    """
    path = request.path
    environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1") if "%" in path else path,
        "QUERY_STRING": request.query,
        "RAW_URI": request.uri,
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{request.version[0]}.{request.version[1]}",
        "REMOTE_ADDR": client[0],
        "REMOTE_PORT": str(client[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.scheme,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    for name, value in request.headers:
        key = _NAMED_APART.get(name) or "HTTP_" + name.replace("-", "_")
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ


class Answer:
    """What a WSGI application answers. Flask has refused whatever would break out of a header."""

    def __init__(self) -> None:
        self._status = ""
        self._headers: Sequence[tuple[str, str]] = ()
        self._begun: list[bytes] = []

    def start(self, status: str, headers: Sequence[tuple[str, str]], _error: Any = None) -> Callable[[bytes], object]:
        """WSGI's start_response. Nothing is sent yet, so that it may be called again."""
        self._status, self._headers = status, headers
        self._begun.clear()
        return self._begun.append

    def written(self, body: bytes, *, last: bool) -> bytes:
        """All of it, as it goes over the wire. Behind the last one the connection is closed."""
        body = b"".join([*self._begun, body])
        head = [f"HTTP/1.1 {self._status}", f"Date: {_date(int(time.time()))}"]
        head += [f"{name}: {value}" for name, value in self._headers]
        if body and not any(name == "Content-Length" for name, _ in self._headers):
            head += [f"Content-Length: {len(body)}"]
        head += ["Connection: close" if last else "Connection: keep-alive", "\r\n"]
        return "\r\n".join(head).encode("latin-1") + body


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
