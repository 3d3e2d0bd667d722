"""The relay as the real processes that a platform starts, kills and starts again."""

import fcntl
import json
import os
import random
import re
import signal
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from relay.mapping import load_mappings
from tests.running import ROOT, SECRET, environment, eventually, free_port, post, process, serving, wait_ready

MAPPING = load_mappings(ROOT / "mappings", environ={})["pagerduty"]


def _incident(number: int) -> bytes:
    at = f"2026-10-01T10:{number // 60 % 60:02d}:{number % 60:02d}.{number % 1000:03d}Z"
    data = {
        "id": f"P{number:05d}",
        "type": "incident",
        "html_url": f"https://acme.pagerduty.com/incidents/P{number:05d}",
        "number": number,
        "status": "triggered",
        "title": f"Checkout slow ({number})",
        "created_at": at,
        "service": {"id": "PSVC01", "summary": "checkout"},
    }
    event = {"id": f"01E{number}", "event_type": "incident.triggered", "occurred_at": at, "data": data}
    return json.dumps({"event": event}).encode()


@contextmanager
def _sandbox(tmp_path: Path, *arguments: str):
    port = free_port()
    log = tmp_path / "sandbox.log"
    with process(
        "sandbox", "--port", str(port), *arguments, env=environment("", compass_url="", port=0), log=log
    ) as sandbox:
        url = f"http://127.0.0.1:{port}"
        wait_ready(f"{url}/sandbox/requests", sandbox)
        yield url


@pytest.fixture
def sandbox(tmp_path: Path):
    with _sandbox(tmp_path, "--quota", "100000/60s") as url:
        yield url


@pytest.fixture
def env(tmp_path: Path, sandbox: str) -> dict[str, str]:
    return environment(
        f"sqlite:///{tmp_path}/relay.db", compass_url=sandbox, port=free_port(), COMPASS_QUOTA="100000/60s"
    )


def _url(env: dict[str, str]) -> str:
    return f"http://127.0.0.1:{env['PORT']}"


def _arrived(sandbox: str) -> set[str]:
    seen = requests.get(f"{sandbox}/sandbox/requests", timeout=10).json()
    return {request["entity"] for request in seen if request["effect"] == "stored"}


def _take(env: dict[str, str], number: int) -> bool:
    try:
        return post(_url(env), MAPPING, _incident(number), {}).status_code == 202
    except requests.RequestException:
        return False  # killed before the answer: nothing was promised


def test_every_webhook_answered_202_reaches_compass_though_the_relay_is_killed(tmp_path, env, sandbox):
    rng = random.Random(1)
    promised: set[str] = set()
    for round_number in range(4):
        numbers = range(round_number * 100, round_number * 100 + 100)
        with serving(env, tmp_path / "relay.log") as relay, ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda number: (number, _take(env, number)), numbers)
            time.sleep(rng.uniform(0.05, 0.4))
            relay.kill()
            promised |= {f"P{number:05d}" for number, taken in answers if taken}
    assert len(promised) > 20
    with serving(env, tmp_path / "relay.log"):
        # What was on its way when it was killed is tried again once its lease of 30 s has ended.
        eventually(lambda: promised <= _arrived(sandbox), within=60)


@pytest.mark.parametrize("everybody", [False, True], ids=["the process", "all of its processes, as Heroku does"])
def test_sigterm_finishes_what_is_on_its_way_and_the_next_process_goes_on_at_once(tmp_path, env, sandbox, everybody):
    requests.post(f"{sandbox}/sandbox/faults", json=[{"delay_ms": 1500, "times": 1}], timeout=10)
    with serving(env, tmp_path / "relay.log") as relay:
        assert _take(env, 1)
        time.sleep(0.4)
        began = time.monotonic()
        if everybody:
            os.killpg(relay.popen.pid, signal.SIGTERM)
        assert relay.terminate() == 0
        assert time.monotonic() - began < 25
    assert _arrived(sandbox) == {"P00001"}
    with serving(env, tmp_path / "relay.log"):
        assert _take(env, 2)
        eventually(lambda: "P00002" in _arrived(sandbox))
    seen = requests.get(f"{sandbox}/sandbox/requests", timeout=10).json()
    assert len(seen) == 2, "nothing was sent twice"


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _answers(env: dict[str, str]) -> bool:
    try:
        return requests.get(f"{_url(env)}/healthz", timeout=5).status_code == 200
    except requests.RequestException:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are looked up where Linux tells them")
def test_who_delivers_and_who_takes_in_end_with_each_other_however_one_of_them_dies(tmp_path, env):
    with serving(env, tmp_path / "relay.log") as relay:
        (gunicorn,) = _children(relay.popen.pid)
        os.kill(gunicorn, signal.SIGKILL)
        assert relay.popen.wait(30) != 0, "a platform starts it again"
    with serving(env, tmp_path / "relay.log") as relay:
        relay.popen.kill()  # the one that delivers, alone
        eventually(lambda: not _answers(env), within=30)


@contextmanager
def _held(env: dict[str, str]) -> Iterator[None]:
    """Somebody else has the turn to write to the SQLite file, and keeps it."""
    with Path(env["DATABASE_URL"].removeprefix("sqlite:///") + ".lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_while_nothing_can_be_stored_the_process_lives_and_says_503(tmp_path, env):
    with serving({**env, "RELAY_DISPATCHER": "off"}, tmp_path / "relay.log"), ThreadPoolExecutor(4) as pool:
        with _held(env):
            waiting = [pool.submit(post, _url(env), MAPPING, _incident(number), {}) for number in range(4)]
            time.sleep(0.3)
            assert _answers(env)
            assert not any(one.done() for one in waiting), "and nobody was told anything yet"
            refused = [one.result() for one in waiting]
        assert {one.status_code for one in refused} == {503}
        assert all(int(one.headers["Retry-After"]) > 0 for one in refused)
        assert _take(env, 9)


def test_webhooks_are_taken_in_while_ten_thousand_events_are(tmp_path, env):
    env = {**env, "RELAY_ADMIN_TOKEN": "token-of-the-tests", "RELAY_DISPATCHER": "off"}
    many = [_custom(number) for number in range(10_000)]
    with serving(env, tmp_path / "relay.log"), ThreadPoolExecutor(1) as pool:
        posted = pool.submit(
            requests.post,
            f"{_url(env)}/events/?format=name",
            json=many,
            auth=("ci", env["RELAY_ADMIN_TOKEN"]),
            timeout=60,
        )
        meanwhile = 0
        while not posted.done():
            assert _take(env, meanwhile)
            meanwhile += 1
        assert posted.result().status_code == 201
        assert meanwhile > 5, "in one process"


def _custom(number: int) -> dict[str, object]:
    at = "2026-10-01T10:00:00Z"
    fields = {"displayName": f"event {number}", "description": "d", "url": "https://acme.example/", "lastUpdated": at}
    about = {"id": f"e{number}", "icon": "INFO"}
    return {
        "custom": {**fields, "externalEventSourceId": "s", "updateSequenceNumber": 1, "customEventProperties": about}
    }


def _begin(env: dict[str, str], source: str, *, length: int) -> socket.socket:
    """A connection on which a body of this length was announced."""
    client = socket.create_connection(("127.0.0.1", int(env["PORT"])), timeout=10)
    client.sendall(f"POST /webhooks/{source} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())
    return client


def test_a_flood_that_nobody_reads_holds_nobody_up_and_is_cut_off(tmp_path, env):
    with (
        serving(env, tmp_path / "relay.log"),
        _begin(env, "unknown", length=10**12) as client,
        ThreadPoolExecutor(1) as pool,
    ):

        def flood() -> None:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                client.sendall(bytes(1_000_000))

        flooding, meanwhile = pool.submit(flood), 0
        while not flooding.done():
            assert _answers(env)
            meanwhile += 1
        assert isinstance(flooding.exception(), OSError), "cut off"
        assert meanwhile > 3


def test_a_body_in_the_smallest_chunks_holds_nobody_up(tmp_path, env):
    with serving(env, tmp_path / "relay.log"), ThreadPoolExecutor(1) as pool:

        def send() -> bytes:
            with socket.create_connection(("127.0.0.1", int(env["PORT"])), timeout=60) as client:
                client.sendall(b"POST /webhooks/pagerduty HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
                client.sendall(b"1\r\n1\r\n" * 1_000_000 + b"0\r\n\r\n")
                return client.recv(100)

        sending, meanwhile = pool.submit(send), 0
        while not sending.done():
            assert _answers(env)
            meanwhile += 1
        assert sending.result().startswith(b"HTTP/1.1 401 ")
        assert meanwhile > 10


def test_a_body_that_breaks_off_is_the_senders_affair(tmp_path, env):
    with serving(env, tmp_path / "relay.log") as relay:
        with _begin(env, MAPPING.source, length=100) as client:
            client.sendall(b"{")
            client.shutdown(socket.SHUT_WR)
            assert client.recv(100).startswith(b"HTTP/1.1 400 ")
        with _begin(env, MAPPING.source, length=100) as client:
            client.sendall(b"{")
            time.sleep(0.2)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset, not closed
        eventually(lambda: relay.printed().count('"malformed_body"') == 2)
        assert "web.fault" not in relay.printed()


@pytest.mark.long
def test_a_body_that_stops_coming_is_given_up_and_does_not_hold_the_end_up(tmp_path, env):
    with serving(env, tmp_path / "relay.log") as relay:
        with _begin(env, MAPPING.source, length=100) as client:
            client.settimeout(60)
            client.sendall(b"{")
            assert client.recv(100).startswith(b"HTTP/1.1 400 ")
        with _begin(env, MAPPING.source, length=100) as client:
            began = time.monotonic()
            assert relay.terminate() == 0
            assert time.monotonic() - began < 25


def test_an_open_idle_connection_does_not_hold_the_end_up(tmp_path, env):
    with serving(env, tmp_path / "relay.log") as relay, requests.Session() as client:
        assert client.get(f"{_url(env)}/healthz", timeout=10).status_code == 200
        began = time.monotonic()
        assert relay.terminate() == 0
        assert time.monotonic() - began < 12  # gunicorn by itself would wait 25 s


def test_a_web_process_that_only_takes_in_leaves_the_delivery_to_the_worker(tmp_path, env, sandbox):
    env = {**env, "RELAY_DISPATCHER": "off"}
    with serving(env, tmp_path / "relay.log"):
        assert _take(env, 1)
        time.sleep(0.5)
        assert _arrived(sandbox) == set()
        with process("worker", env=env, log=tmp_path / "worker.log") as worker:
            eventually(lambda: _arrived(sandbox) == {"P00001"})
            assert worker.terminate() == 0


def test_a_body_in_chunks_is_bounded(tmp_path, env):
    env = {**env, "RELAY_MAX_BODY": "2048"}
    with serving(env, tmp_path / "relay.log"):
        url = f"{_url(env)}/webhooks/{MAPPING.source}"
        answer = requests.post(url, data=(b"x" * 500 for _ in range(20)), timeout=10)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
        assert requests.get(f"{_url(env)}/healthz", timeout=10).status_code == 200


def test_logs_are_json_with_a_stable_word_and_never_a_secret_or_a_body(tmp_path, env, sandbox):
    with serving(env, tmp_path / "relay.log") as relay:
        assert _take(env, 1)
        requests.post(f"{_url(env)}/webhooks/{MAPPING.source}", data=_incident(2), timeout=10)
        eventually(lambda: _arrived(sandbox) == {"P00001"})
        relay.terminate()
        lines = relay.printed().splitlines()
    words = {json.loads(line)["event"] for line in lines}
    assert {"start", "webhook.received", "webhook.refused", "attempt", "dispatcher.started"} <= words
    attempt = next(json.loads(line) for line in lines if '"attempt"' in line)
    assert {"destination", "outcome", "status", "event_id", "attempt_id", "took_ms", "trigger"} <= set(attempt)
    text = "\n".join(lines)
    for hidden in (SECRET, env["COMPASS_API_TOKEN"], "Checkout slow"):
        assert hidden not in text


@pytest.mark.parametrize(
    ("more", "believed"),
    [({}, "127.0.0.1"), ({"RELAY_TRUSTED_PROXIES": "1"}, "203.0.113.9"), ({"DYNO": "web.1"}, "203.0.113.9")],
)
def test_what_proxies_say_is_believed_as_far_as_is_set_and_no_further(tmp_path, env, more, believed):
    said = {
        "X-Forwarded-For": "198.51.100.7, 203.0.113.9",
        "X-Forwarded-Proto": "https",
        "Forwarded": "for=198.51.100.8",
    }
    with serving({**env, **more}, tmp_path / "relay.log") as relay:
        requests.post(f"{_url(env)}/webhooks/unknown", headers=said, timeout=10)
        eventually(lambda: '"webhook.refused"' in relay.printed())
        (line,) = [json.loads(line) for line in relay.printed().splitlines() if '"webhook.refused"' in line]
        assert line["remote"] == believed


def test_metrics_add_up_over_web_processes(tmp_path, env):
    env = {**env, "WEB_CONCURRENCY": "2"}
    with serving(env, tmp_path / "relay.log"):
        for number in range(30):
            assert _take(env, number)
        told = re.compile(r'relay_webhooks_total\{source="pagerduty",status="translated"\} 30\.0')
        eventually(lambda: told.search(requests.get(f"{_url(env)}/metrics", timeout=10).text), within=10)


def test_settings_that_are_missing_or_wrong_are_all_named_and_the_exit_code_is_78(tmp_path):
    folder = tmp_path / "mappings"
    folder.mkdir()
    (folder / "acme.yaml").write_text("source: acme\nrules: []\n")
    env = environment("", compass_url="not a url", port=0, RELAY_MAPPINGS=str(folder), RELAY_THREADS="many")
    del env["COMPASS_EMAIL"]
    env["COMPASS_QUOTA"] = "lots"
    with process("serve", env=env, log=tmp_path / "log") as relay:
        assert relay.popen.wait(30) == 78
        said = relay.printed()
    for name in ("COMPASS_EMAIL", "COMPASS_URL", "COMPASS_QUOTA", "RELAY_THREADS", "acme.yaml:1", "acme.yaml:2"):
        assert name in said
    assert env["COMPASS_API_TOKEN"] not in said


def test_the_demo_ends_with_0_when_everything_arrived(tmp_path):
    env = {"PATH": environment("", compass_url="", port=0)["PATH"], "HOME": "/"}
    with process("demo", "--once", env=env, log=tmp_path / "log") as demo:
        assert demo.popen.wait(60) == 0, demo.printed()
        said = demo.printed()
    for source in load_mappings(ROOT / "mappings", environ={}):
        assert source in said
    assert "Arrived in Compass" in said


def test_the_demo_stays_until_it_is_interrupted(tmp_path):
    env = {"PATH": environment("", compass_url="", port=0)["PATH"], "HOME": "/"}
    with process("demo", env=env, log=tmp_path / "log") as demo:
        eventually(lambda: "Ctrl-C ends it" in demo.printed(), within=60)
        assert demo.popen.poll() is None
        demo.popen.send_signal(signal.SIGINT)
        assert demo.popen.wait(40) == 0
