"""HTTP as it goes over the wire, of a real `relay serve`: what clients and proxies other than ours might send."""

import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import gevent
import gevent.event
import pytest

from relay.signature import sign
from relay.web.worker import Deadlines
from tests.running import SECRET, Process, environment, eventually, free_port, serving
from tests.test_processes import MAPPING, _incident


@pytest.fixture(scope="module")
def relay(tmp_path_factory) -> Iterator[tuple[Process, int]]:
    folder = tmp_path_factory.mktemp("wire")
    env = environment(
        f"sqlite:///{folder}/relay.db",
        compass_url="http://127.0.0.1:9",
        port=free_port(),
        RELAY_DISPATCHER="off",
        RELAY_TRUSTED_PROXIES="1",
    )
    with serving(env, folder / "relay.log") as started:
        yield started, int(env["PORT"])


@pytest.fixture
def client(relay) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", relay[1]), timeout=30) as connection:
        yield connection


def webhook(number: int) -> bytes:
    body = _incident(number)
    head = (
        "POST /webhooks/pagerduty HTTP/1.1",
        "Host: relay.example",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"{MAPPING.scheme.header}: {sign(MAPPING.scheme, body=body, secret=SECRET)}",
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def answer(client: socket.socket) -> tuple[str, dict[str, str], bytes]:
    """The next answer on this connection: its status, its headers, its body."""
    with client.makefile("rb", buffering=0) as stream:
        status = stream.readline().decode().strip()
        headers = {}
        while line := stream.readline().decode().strip():
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        body = b""
        while len(body) < int(headers.get("content-length", 0)):
            body += stream.read(int(headers["content-length"]) - len(body)) or pytest.fail("it broke off")
    return status, headers, body


def closed(client: socket.socket) -> bool:
    return client.recv(1) == b""


def test_an_answer_is_complete_and_the_connection_stays(client):
    client.sendall(webhook(1))
    status, headers, body = answer(client)
    assert status == "HTTP/1.1 202 ACCEPTED"
    assert json.loads(body)["status"] == "translated"
    assert headers["content-type"] == "application/json"
    assert headers["connection"] == "keep-alive"
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", headers["date"])
    assert headers["x-request-id"]
    client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer(client)[0] == "HTTP/1.1 200 OK"


def test_requests_that_come_at_once_are_answered_one_after_the_other(client):
    client.sendall(webhook(2) + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + webhook(3))
    assert [answer(client)[0] for _ in range(3)] == [
        "HTTP/1.1 202 ACCEPTED",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 202 ACCEPTED",
    ]


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /healthz HTTP/1.0\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ],
    ids=["HTTP/1.0", "close"],
)
def test_who_wants_no_more_is_told_and_left(client, request_):
    client.sendall(request_)
    assert answer(client)[1]["connection"] == "close"
    assert closed(client)


def test_of_the_old_http_a_connection_is_kept_that_is_asked_for(client):
    for _ in range(2):
        client.sendall(b"GET /healthz HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n")
        assert answer(client)[1]["connection"] == "keep-alive"


def test_a_head_has_the_headers_of_a_get_and_no_body(client):
    client.sendall(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    time.sleep(0.5)
    head, _, rest = client.recv(65_536).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert rest.startswith(b"HTTP/1.1 200 OK\r\n"), "no body between the two"
    length = re.search(rb"Content-Length: (\d+)", head)
    assert length
    assert len(rest.partition(b"\r\n\r\n")[2]) == int(length[1]) > 0


def test_who_asks_before_sending_a_body_is_told_to_go_on(client):
    head, _, body = webhook(4).partition(b"\r\n\r\n")
    client.sendall(head + b"\r\nExpect: 100-continue\r\n\r\n")
    assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.sendall(body)
    assert answer(client)[0] == "HTTP/1.1 202 ACCEPTED"


def test_a_body_that_comes_byte_by_byte_is_read(client):
    whole = webhook(5)
    for at in range(0, len(whole), 7):
        client.sendall(whole[at : at + 7])
    assert answer(client)[0] == "HTTP/1.1 202 ACCEPTED"


def test_a_path_may_be_written_in_any_way(client):
    client.sendall(webhook(6).replace(b"/webhooks/pagerduty ", b"/webhooks/p%61gerduty?x=%20 ", 1))
    assert answer(client)[0] == "HTTP/1.1 202 ACCEPTED"


@pytest.mark.parametrize(
    ("path", "status"),
    [("/nothing", 404), ("/webhooks//pagerduty", 404), ("/webhooks/%ff%fe", 404), ("/webhooks/%2e%2e%2fhealthz", 404)],
)
def test_a_path_that_is_none_of_ours_is_refused(client, path, status):
    client.sendall(f"POST {path} HTTP/1.1\r\nHost: relay.example\r\nContent-Length: 0\r\n\r\n".encode())
    told, headers, _ = answer(client)
    assert told.startswith(f"HTTP/1.1 {status} ")
    assert "location" not in headers


def _said(relay: tuple[Process, int], client: socket.socket, *headers: str) -> Any:
    name = f"wire-{time.monotonic_ns()}"
    lines = [
        f"POST /webhooks/unknown-{name} HTTP/1.1",
        "Host: x",
        "Content-Length: 0",
        f"X-Request-ID: {name}",
        *headers,
    ]
    client.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
    assert answer(client)[1]["x-request-id"] == name
    eventually(lambda: f'"request_id":"{name}"' in relay[0].printed())
    (line,) = [line for line in relay[0].printed().splitlines() if f'"request_id":"{name}"' in line]
    return json.loads(line)


def test_a_header_that_comes_twice_is_one_list(relay, client):
    line = _said(relay, client, "X-Forwarded-For: 198.51.100.7", "X-Forwarded-For: 203.0.113.9")
    assert line["remote"] == "203.0.113.9", "of two hops one is believed, the last"


def test_a_header_with_an_underscore_is_not_taken_for_another_one(relay, client):
    assert _said(relay, client, "X_Forwarded_For: 203.0.113.9")["remote"] == "127.0.0.1"


@pytest.mark.parametrize(
    "request_",
    [
        b"nothing\r\n\r\n",
        b"POST /webhooks/pagerduty HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /webhooks/pagerduty HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"POST /webhooks/pagerduty HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    ],
)
def test_what_two_readers_might_read_in_two_ways_is_refused(client, request_):
    client.sendall(request_)
    assert client.recv(100).startswith(b"HTTP/1.1 400 ")


def test_a_connection_on_which_nothing_comes_is_closed(relay):
    with socket.create_connection(("127.0.0.1", relay[1]), timeout=30) as idle:
        assert closed(idle)
    with socket.create_connection(("127.0.0.1", relay[1]), timeout=30) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert closed(slow), "before its headers are there"


@pytest.mark.long
def test_an_answer_that_nobody_takes_is_given_up(relay, client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(60)
    request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    with pytest.raises(OSError, match=r"reset|Broken pipe"):
        client.sendall(request * 1_000_000)
    assert relay[0].popen.poll() is None


def test_what_follows_a_body_that_cannot_be_read_is_no_request(client):
    chunked = b"POST /webhooks/pagerduty HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    client.sendall(chunked + b"zz\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    status, headers, _ = answer(client)
    assert (status, headers["connection"]) == ("HTTP/1.1 400 BAD REQUEST", "close")
    assert closed(client)


@pytest.mark.long
@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked\r\n\r\n1000\r\n", "Content-Length: 100\r\n\r\n"])
def test_what_follows_a_body_that_came_too_late_is_no_request(client, framing):
    client.settimeout(60)
    client.sendall(f"POST /webhooks/pagerduty HTTP/1.1\r\nHost: x\r\n{framing}".encode() + b"x" * 50)
    status, headers, _ = answer(client)
    assert (status, headers["connection"]) == ("HTTP/1.1 400 BAD REQUEST", "close")
    with suppress(OSError):
        client.sendall(b"x" * 50 + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert closed(client)


def test_one_connection_that_never_pauses_holds_nobody_up(relay, client):
    with socket.create_connection(("127.0.0.1", relay[1]), timeout=30) as other, ThreadPoolExecutor(1) as pool:

        def flood() -> int:
            answered = 0
            while not done:
                client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
                answered += client.recv(1_000_000).count(b"200 OK")
            return answered

        done: list[int] = []
        flooding = pool.submit(flood)
        try:
            for _ in range(20):
                other.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                assert answer(other)[0] == "HTTP/1.1 200 OK"
        finally:
            done.append(1)
        assert flooding.result() > 0


@pytest.mark.long
def test_who_asks_to_go_on_and_never_reads_is_given_up(relay):
    head = b"POST /webhooks/unknown HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(60)
        client.connect(("127.0.0.1", relay[1]))
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            client.sendall(head * 1_000_000)


def test_a_deadline_ends_the_wait_that_it_was_set_for_and_no_other():
    deadlines, first, second = Deadlines(), gevent.event.Event(), gevent.event.Event()

    def wait() -> str:
        deadlines.until(time.monotonic() - 1, ValueError)
        first.wait()
        deadlines.met()
        second.wait()
        return "both came"

    waiting = gevent.spawn(wait)
    gevent.sleep(0)
    first.set()  # it comes in the very turn in which it is given up
    deadlines.look()
    gevent.sleep(0.01)
    second.set()
    assert waiting.get(timeout=10) == "both came"


def test_a_deadline_that_has_passed_ends_its_wait():
    deadlines = Deadlines()

    def wait() -> None:
        deadlines.until(time.monotonic() - 1, ValueError)
        try:
            gevent.event.Event().wait()
        finally:
            deadlines.met()

    waiting = gevent.spawn(wait)
    gevent.sleep(0)
    deadlines.look()
    with pytest.raises(ValueError, match=r"^$"):
        waiting.get(timeout=10)
