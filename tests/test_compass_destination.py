"""The Compass destination against real servers on the loopback, friendly ones and nasty ones."""

import base64
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from relay.destinations import Destination, Limits, NoAnswer, stopwatch
from relay.destinations.answers import MAX_MESSAGE
from relay.destinations.compass import CompassDestination, request_body
from relay.destinations.transport import MAX_BODY
from relay.model import Answer, Claim

TOKEN = "ATATT3xFfGF0-very-secret=7A11"
SHORT = Limits(connect=0.5, write=0.6, total=0.8)
INCIDENT = {"incident": {"displayName": "Checkout", "updateSequenceNumber": 5, "incidentProperties": {"id": "P1"}}}


def claim(
    body: dict[str, Any] | None = None, *, component: str | None = None, number: int = 1_790_848_800_001
) -> Claim:
    return Claim(
        event=1,
        attempt=1,
        token="lease",
        destination="compass",
        type="incident",
        component=component,
        body=INCIDENT if body is None else body,
        number=number,
        failures=0,
        claimed_at=0,
        lease_until=30_000,
        trigger="auto",
    )


@dataclass
class Server:
    """A server on 127.0.0.1 that hands each connection to `handle` and writes down what it read."""

    handle: Callable[["Server", socket.socket], None]
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    connections: list[socket.socket] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                connection.settimeout(10)
                self.connections.append(connection)
                threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            self.handle(self, connection)
        self.closed.set()

    def read(self, connection: socket.socket) -> bool:
        """Read one whole request; False at the end of the connection."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return False
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            body += connection.recv(65536)
        self.requests.append((first, headers, body))
        return True


@contextmanager
def serving(handle: Callable[[Server, socket.socket], None]) -> Iterator[Server]:
    server = Server(handle)
    try:
        yield server
    finally:
        server.listener.shutdown(socket.SHUT_RDWR)
        server.listener.close()
        for connection in server.connections:
            connection.close()


def answering(*answers: bytes) -> Callable[[Server, socket.socket], None]:
    """Handle connections by answering each request with the next of these bytes, the last one for ever."""

    def handle(server: Server, connection: socket.socket) -> None:
        while server.read(connection):
            connection.sendall(answers[min(len(server.requests), len(answers)) - 1])

    return handle


def http(status: int, body: bytes = b"", /, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


ACCEPTED = http(202)


def compass(url: str, limits: Limits = SHORT) -> CompassDestination:
    return CompassDestination(
        url=url, cloud_id="cloud-1", email="relay@example.com", token=SecretStr(TOKEN), limits=limits
    )


def exchange(handle: Callable[[Server, socket.socket], None], *, limits: Limits = SHORT) -> Answer:
    """The answer to one claim sent to a server that behaves like this."""
    with serving(handle) as server:
        return send(compass(server.url, limits))


def send(destination: Destination, **changes: Any) -> Answer:
    return destination.send(claim(**changes), age=stopwatch())


# --- the request


def test_a_request_is_what_the_contract_asks_for() -> None:
    with serving(answering(ACCEPTED)) as server:
        answer = send(compass(server.url + "/"), component="ari:cloud:compass:c:component/x/y")
    assert (answer.status, answer.error, answer.message, answer.html) == (202, None, None, False)
    [(first, headers, body)] = server.requests
    assert first == "POST /gateway/api/compass/v1/events HTTP/1.1"
    credentials = base64.b64encode(f"relay@example.com:{TOKEN}".encode()).decode()
    assert headers["authorization"] == f"Basic {credentials}"
    assert headers["content-type"] == headers["accept"] == "application/json"
    assert headers["user-agent"].startswith("compass-relay/")
    assert json.loads(body) == {
        "cloudId": "cloud-1",
        "componentId": "ari:cloud:compass:c:component/x/y",
        "event": {"incident": INCIDENT["incident"] | {"updateSequenceNumber": 1_790_848_800_001}},
    }


def test_without_a_component_the_request_names_none() -> None:
    assert "componentId" not in json.loads(request_body(claim(), cloud_id="c"))


def test_a_pull_request_gets_no_number() -> None:
    body = {"pullRequest": {"lastUpdated": "2026-10-01T10:00:00Z", "pullRequestProperties": {"id": "1"}}}
    assert json.loads(request_body(claim(body), cloud_id="c"))["event"] == body


def test_credentials_beyond_latin_1_are_sent_as_utf8() -> None:
    with serving(answering(ACCEPTED)) as server:
        destination = CompassDestination(
            url=server.url, cloud_id="c", email="zoë@例.jp", token=SecretStr("ключ"), limits=SHORT
        )
        assert send(destination).status == 202
    [(_, headers, _)] = server.requests
    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")).decode() == "zoë@例.jp:ключ"


def test_nothing_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy: the request goes straight to the server."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert exchange(answering(ACCEPTED)).status == 202


# --- the connection


def test_two_sends_share_one_connection() -> None:
    with serving(answering(ACCEPTED)) as server:
        destination = compass(server.url)
        assert [send(destination).status for _ in range(2)] == [202, 202]
    assert (len(server.connections), len(server.requests)) == (1, 2)


def test_an_answer_in_chunks_is_read_and_its_connection_kept() -> None:
    chunked = (
        b"HTTP/1.1 400 X\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'1a\r\n{"errors":[{"type":"ODD","\r\n12\r\nmessage":"late"}]}\r\n0\r\n\r\n'
    )
    with serving(answering(chunked, ACCEPTED)) as server:
        destination = compass(server.url)
        first, second = send(destination), send(destination)
    assert (first.error, first.message, second.status) == ("ODD", "late", 202)
    assert len(server.connections) == 1


def test_a_connection_that_the_server_closed_while_idle_is_replaced() -> None:
    def once(server: Server, connection: socket.socket) -> None:
        if server.read(connection):
            connection.sendall(ACCEPTED)

    with serving(once) as server:
        destination = compass(server.url)
        assert send(destination).status == 202
        assert server.closed.wait(1)
        assert send(destination).status == 202
    assert (len(server.connections), len(server.requests)) == (2, 2)


def test_a_request_whose_connection_breaks_is_not_sent_again() -> None:
    """The server closes an idle connection just when it is used again: one request, one failure."""

    def second_breaks(server: Server, connection: socket.socket) -> None:
        while server.read(connection) and len(server.requests) != 2:
            connection.sendall(ACCEPTED)

    with serving(second_breaks) as server:
        destination = compass(server.url)
        assert send(destination).status == 202
        answer = send(destination)
        time.sleep(0.1)
    assert (answer.status, answer.error) == (None, NoAnswer.CONNECTION)
    assert len(server.requests) == 2


def test_a_server_that_closes_before_reading_is_a_failed_connection() -> None:
    answer = exchange(lambda _server, connection: connection.close())
    assert (answer.status, answer.error) == (None, "connection")


def test_sixteen_threads_send_at_once_and_all_are_answered() -> None:
    with serving(answering(ACCEPTED)) as server:
        destination = compass(server.url, Limits())
        answers: list[Answer] = []
        threads = [threading.Thread(target=lambda: answers.append(send(destination))) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [answer.status for answer in answers] == [202] * 16
    assert len(server.requests) == 16


def test_cookies_are_neither_kept_nor_sent() -> None:
    with serving(answering(http(202, Set_Cookie="session=1; Path=/"))) as server:
        destination = compass(server.url)
        send(destination)
        send(destination)
    assert all("cookie" not in headers for _, headers, _ in server.requests)


# --- time


def drip(before: bytes) -> Callable[[Server, socket.socket], None]:
    """Answer one byte at a time, for ever."""

    def handle(server: Server, connection: socket.socket) -> None:
        server.read(connection)
        connection.sendall(before)
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)

    return handle


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 202 ", b"HTTP/1.1 202 X\r\nX-Long: "])
def test_a_dripping_answer_is_cut_off_at_the_deadline(before: bytes) -> None:
    began = time.monotonic()
    with serving(drip(before)) as server:
        answer = send(compass(server.url))
        took = time.monotonic() - began
        assert server.closed.wait(1), "the connection was not closed"
    assert (answer.status, answer.error) == (None, NoAnswer.TIMEOUT)
    assert SHORT.total <= took < SHORT.total + 0.5
    assert answer.took_ms >= SHORT.total * 1000


@pytest.mark.parametrize("head", [b"Connection: close\r\n\r\n", b"Content-Length: 9999\r\n\r\n"])
def test_a_status_counts_even_when_its_body_never_ends(head: bytes) -> None:
    with serving(drip(b"HTTP/1.1 202 X\r\n" + head)) as server:
        answer = send(compass(server.url))
        assert server.closed.wait(1), "the connection was not closed"
    assert (answer.status, answer.error) == (202, None)


def test_a_server_that_says_nothing_is_a_timeout() -> None:
    def silent(server: Server, connection: socket.socket) -> None:
        server.read(connection)
        connection.recv(1)

    answer = exchange(silent)
    assert (answer.status, answer.error) == (None, "timeout")


def test_a_server_that_does_not_read_is_a_timeout() -> None:
    """The request is larger than the kernel's buffers, so writing it blocks."""

    def deaf(server: Server, _connection: socket.socket) -> None:
        server.closed.wait(5)

    body = {"incident": {"description": "x" * 20_000_000}}
    with serving(deaf) as server:
        answer = send(compass(server.url), body=body)
        server.closed.set()
    assert (answer.status, answer.error) == (None, "timeout")


def test_a_cut_request_is_reset_so_that_the_kernel_sends_nothing_more() -> None:
    """What the kernel still holds when the time is up must not arrive after it."""
    received = []

    def late_reader(server: Server, connection: socket.socket) -> None:
        server.closed.wait(5)
        with suppress(ConnectionResetError):
            while data := connection.recv(1 << 20):
                received.append(len(data))
            received.append(-1)  # an orderly end would mean that all of it had been delivered

    size = 20_000_000
    with serving(late_reader) as server:
        send(compass(server.url), body={"incident": {"description": "x" * size}})
        time.sleep(0.1)
        server.closed.set()
        time.sleep(0.2)
    assert -1 not in received
    assert sum(received) < size


def test_nothing_is_sent_when_the_claim_is_too_old() -> None:
    with serving(answering(ACCEPTED)) as server:
        answer = compass(server.url).send(claim(), age=lambda: SHORT.write + 0.01)
    assert (answer.status, answer.error) == (None, NoAnswer.LATE)
    assert server.connections == []


def test_nothing_is_written_when_connecting_took_too_long() -> None:
    """The claim grows old between the first look and the first byte; the connection is there by then."""
    ages = iter([0.0, SHORT.write + 0.01])
    with serving(answering(ACCEPTED)) as server:
        answer = compass(server.url).send(claim(), age=lambda: next(ages))
        time.sleep(0.1)
    assert (answer.status, answer.error) == (None, NoAnswer.CONNECTION)
    assert answer.message is not None
    assert "nothing was sent" in answer.message
    assert server.requests == []


def test_a_reused_connection_is_asked_for_the_time_as_well() -> None:
    with serving(answering(ACCEPTED)) as server:
        destination = compass(server.url)
        assert send(destination).status == 202
        ages = iter([0.0, SHORT.write + 0.01])
        assert destination.send(claim(), age=lambda: next(ages)).error == NoAnswer.CONNECTION
        time.sleep(0.1)
    assert len(server.requests) == 1


def test_a_name_server_that_hangs_holds_nobody_and_nothing_is_written_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Looking a name up has no time-out of its own; the request that waits for it is given up for good."""
    released = threading.Event()
    look_up = socket.getaddrinfo

    def hanging(*args: Any, **kwargs: Any) -> Any:
        released.wait(5)
        return look_up(*args, **kwargs)

    with serving(answering(ACCEPTED)) as server:
        monkeypatch.setattr(socket, "getaddrinfo", hanging)
        began = time.monotonic()
        answer = compass(server.url, Limits(connect=0.5, write=60, total=0.3)).send(claim(), age=lambda: 0)
        took = time.monotonic() - began
        released.set()
        time.sleep(0.2)
    assert (answer.status, answer.error) == (None, NoAnswer.TIMEOUT)
    assert took < 1
    assert server.requests == []


@pytest.mark.parametrize("clocks", [([0, 9], [50, 51]), ([0, 0], [50, 59]), ([0, 9], [50, 10])])
def test_a_stopwatch_believes_the_clock_that_says_more(clocks: tuple[list[float], list[float]]) -> None:
    """A suspended machine, and a clock that is set back, both leave nine seconds to be seen."""
    monotonic, wall = map(iter, clocks)
    assert stopwatch(lambda: next(monotonic), lambda: next(wall))() == 9


def test_the_limits_leave_room_for_a_lease_of_thirty_seconds() -> None:
    assert Limits().write + Limits().total <= 30
    assert Limits().connect < Limits().write


# --- answers


def test_an_error_is_told_by_type_and_message() -> None:
    body = b'{"errors":[{"type":"FORMAT_INVALID","message":"url is not valid"},{"type":"X","message":"id"}]}'
    answer = exchange(answering(http(400, body)))
    assert (answer.status, answer.error, answer.message) == (400, "FORMAT_INVALID", "url is not valid; id")


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        (b"", None, None),
        (b"{}", None, "{}"),
        (b'{"errors":null}', None, '{"errors":null}'),
        (b'{"errors":[]}', None, None),
        (b'{"errors":[null,7,"x",{}]}', None, None),
        (b'{"errors":[{"type":null,"message":null},{"type":"LATER","message":"m"}]}', "LATER", "m"),
        (b'{"errors":[{"type":7,"message":["x"]}]}', None, None),
        (b'{"code":401,"message":"Unauthorized"}', None, "Unauthorized"),
        (b"[" * 50_000, None, "[" * (MAX_MESSAGE - 1) + "…"),
        (b"1" * 10_000, None, "1" * (MAX_MESSAGE - 1) + "…"),
        (b"rate limit\r\nexceeded\x00\x1b[31m", None, "rate limit exceeded [31m"),
        (b"\xff\xfe\xfd", None, "\ufffd" * 3),
        (b'{"errors":[{"type":"T","message":"a\\ud800\\u0000b"}]}', "T", "a b"),
        (b'{"errors":[{"type":"T","message":"' + b"m" * 1000 + b'"}]}', "T", "m" * (MAX_MESSAGE - 1) + "…"),
    ],
)
def test_any_body_of_an_error_is_read_as_far_as_it_goes(body: bytes, error: str | None, message: str | None) -> None:
    answer = exchange(answering(http(400, body)))
    assert (answer.status, answer.error, answer.message, answer.html) == (400, error, message, False)


@pytest.mark.parametrize("status", [200, 401, 404, 503])
@pytest.mark.parametrize(
    "page",
    [
        http(0, b"<p>x<title>\nLog&nbsp;in </title>", Content_Type="text/html; charset=utf-8"),
        http(0, b"\n <!DOCTYPE html><html><title>Log in</title>"),
    ],
)
def test_a_page_of_html_is_noticed_under_any_status(page: bytes, status: int) -> None:
    answer = exchange(answering(page.replace(b"HTTP/1.1 0", f"HTTP/1.1 {status}".encode())))
    assert (answer.status, answer.html, answer.message) == (status, True, "a page of HTML: Log in")


def test_a_redirect_is_not_followed() -> None:
    with serving(answering(http(302, Location="/login?continue=secret"))) as server:
        answer = send(compass(server.url))
    assert (answer.status, answer.message) == (302, "a redirect to /login")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Retry_After": "7"}, 7.0),
        ({"Retry_After": "0.5"}, 0.5),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": "-3"}, None),
        ({"Retry_After": "9" * 400}, 86_400.0),
        ({"Retry_After": formatdate(1e9 + 30, usegmt=True), "Date": formatdate(1e9, usegmt=True)}, 30.0),
        ({"Retry_After": formatdate(1e9 - 30, usegmt=True), "Date": formatdate(1e9, usegmt=True)}, 0.0),
        ({"Retry_After": "Sun, 99 Nov 9999 99:99:99 GMT"}, None),
    ],
)
def test_retry_after_is_read_in_seconds_or_as_a_date(headers: dict[str, str], expected: float | None) -> None:
    assert exchange(answering(http(429, **headers))).retry_after == expected


def test_a_date_to_retry_after_counts_from_now_without_the_servers_date() -> None:
    until = formatdate(time.time() + 100, usegmt=True)
    retry_after = exchange(answering(http(429, Retry_After=until))).retry_after
    assert retry_after == pytest.approx(100, abs=5)


def test_a_huge_body_is_not_read_to_its_end() -> None:
    sent = []

    def endless(server: Server, connection: socket.socket) -> None:
        server.read(connection)
        connection.sendall(b"HTTP/1.1 500 X\r\n\r\n")
        while True:
            sent.append(connection.send(b"y" * 65536))

    with serving(endless) as server:
        answer = send(compass(server.url, Limits()))
        assert server.closed.wait(1), "the connection was not closed"
    assert answer.status == 500
    assert answer.message is not None
    assert len(answer.message) == MAX_MESSAGE
    assert sum(sent) < 500 * MAX_BODY


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff\x00\xff\r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 X\r\n" + b"X-A: 1\r\n" * 500 + b"\r\n",
        b"HTTP/1.1 200 X\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/9.9 -1 X\r\n\r\n",
    ],
)
def test_garbage_is_a_failed_connection(garbage: bytes) -> None:
    answer = exchange(answering(garbage))
    assert (answer.status, answer.error) == (None, "connection")


def test_a_refused_connection_says_so_in_plain_words() -> None:
    with serving(answering(ACCEPTED)) as server:
        pass
    answer = send(compass(server.url))
    assert (answer.status, answer.error) == (None, "connection")
    assert answer.message is not None
    assert "refused" in answer.message.lower()
    assert "HTTPConnectionPool" not in answer.message


def test_a_server_that_does_not_speak_tls_is_a_tls_failure() -> None:
    with serving(lambda _server, connection: connection.sendall(b"HTTP/1.1 400 X\r\n\r\n")) as server:
        answer = send(compass(server.url.replace("http:", "https:")))
    assert (answer.status, answer.error) == (None, "tls")


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 with its key, signed by itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", file, "-out", file], check=True, capture_output=True)
    return file


def over_tls(
    certificate: Path, handle: Callable[[Server, socket.socket], None]
) -> Callable[[Server, socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def handle_tls(server: Server, connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            handle(server, secure)

    return handle_tls


def trusting(certificate: Path, url: str, limits: Limits = SHORT) -> CompassDestination:
    destination = compass(url.replace("http:", "https:"), limits)
    destination._transport._session.verify = str(certificate)
    return destination


def test_tls_connections_are_kept_and_reused(certificate: Path) -> None:
    with serving(over_tls(certificate, answering(ACCEPTED))) as server:
        destination = trusting(certificate, server.url)
        assert [send(destination).status for _ in range(3)] == [202] * 3
    assert (len(server.connections), len(server.requests)) == (1, 3)


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 202 X\r\nX-Long: "])
def test_a_dripping_answer_over_tls_is_cut_off_at_the_deadline(certificate: Path, before: bytes) -> None:
    began = time.monotonic()
    with serving(over_tls(certificate, drip(before))) as server:
        answer = send(trusting(certificate, server.url))
        took = time.monotonic() - began
        assert server.closed.wait(1), "the connection was not closed"
    assert (answer.status, answer.error) == (None, NoAnswer.TIMEOUT)
    assert SHORT.total <= took < SHORT.total + 0.5


def test_nothing_is_written_over_tls_when_connecting_took_too_long(certificate: Path) -> None:
    ages = iter([0.0, SHORT.write + 0.01])
    with serving(over_tls(certificate, answering(ACCEPTED))) as server:
        answer = trusting(certificate, server.url).send(claim(), age=lambda: next(ages))
        assert server.closed.wait(1)
    assert (answer.status, answer.error, server.requests) == (None, NoAnswer.CONNECTION, [])


def test_a_certificate_nobody_vouches_for_is_refused_before_anything_is_written(certificate: Path) -> None:
    with serving(over_tls(certificate, answering(ACCEPTED))) as server:
        answer = send(compass(server.url.replace("http:", "https:")))
        assert server.closed.wait(1)
    assert (answer.status, answer.error, server.requests) == (None, NoAnswer.TLS, [])
    assert answer.message is not None
    assert "certificate" in answer.message


def test_a_tls_handshake_that_never_ends_is_a_timeout() -> None:
    def mute(_server: Server, connection: socket.socket) -> None:
        while connection.recv(10_000):
            pass

    with serving(mute) as server:
        answer = send(compass(server.url.replace("http:", "https:")))
    assert (answer.status, answer.error) == (None, NoAnswer.TIMEOUT)


@pytest.mark.parametrize("url", ["", "acme.atlassian.net", "ftp://x", "http://", "http://[::1", "http://x:99999"])
def test_a_wrong_url_is_an_answer_and_not_an_exception(url: str) -> None:
    answer = send(compass(url))
    assert answer.status is None
    assert answer.message


# --- secrets


def test_the_token_is_in_no_answer_even_when_it_is_echoed() -> None:
    credentials = base64.b64encode(f"relay@example.com:{TOKEN}".encode()).decode()

    def echo(server: Server, connection: socket.socket) -> None:
        server.read(connection)
        authorization = server.requests[-1][1]["authorization"]
        error = {"type": TOKEN, "message": f"{authorization} is not {TOKEN}"}
        connection.sendall(http(401, json.dumps({"errors": [error]}).encode()))

    answer = exchange(echo)
    assert answer.status == 401
    assert TOKEN not in repr(answer)
    assert credentials not in repr(answer)


def test_the_token_is_not_in_the_destinations_repr() -> None:
    destination = compass("http://127.0.0.1:1")
    assert TOKEN not in repr(destination)
    assert TOKEN not in repr(vars(destination))
