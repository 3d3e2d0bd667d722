"""The door, over real HTTP: who is let in, and what everybody is told."""

import json
import socket
import sqlite3
import threading
from pathlib import Path

import pytest
import requests
from werkzeug.serving import make_server

from relay.outbox import Outbox
from relay.outbox.migrations import migrate
from relay.runtime import assemble, load
from relay.signature import Scheme, sign
from relay.web import create_app
from tests.running import environment

ACME = """
source: acme
verify: {hmac: sha256, header: X-Acme-Signature, format: "v1={hex}", secret: ACME_WEBHOOK_SECRET,
         unsigned_when: {'$headers["x-acme-event"]': test}}
dedupe: ${ .id }
rules:
  - name: ping
    when: {.kind: ping}
    ignore: a test of the connection
  - name: note
    when: {.kind: note}
    event:
      custom:
        displayName: ${ .title }
        description: ${ .text // "a note" }
        url: https://acme.example/notes/1
        externalEventSourceId: notes
        lastUpdated: ${ .at }
        updateSequenceNumber: ${ .at }
        customEventProperties: {id: "${ .id }", icon: INFO}
"""
OTHER = ACME.replace("acme", "other").replace("ACME", "OTHER")
SCHEME = Scheme("X-Acme-Signature", "v1={hex}")
NOTE = {"kind": "note", "id": "n1", "title": "A note", "at": "2026-10-01T10:00:00Z"}


@pytest.fixture
def mappings(tmp_path: Path) -> Path:
    folder = tmp_path / "mappings"
    folder.mkdir()
    (folder / "acme.yaml").write_text(ACME)
    (folder / "other.yaml").write_text(OTHER)
    return folder


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "relay.db"


@pytest.fixture
def url(mappings: Path, database: Path):
    """A relay behind a real server; two sources, of which one has no secret."""
    outbox = Outbox(f"sqlite:///{database}")
    migrate(outbox)
    outbox.close()
    environ = environment(
        f"sqlite:///{database}",
        compass_url="http://127.0.0.1:1",
        port=0,
        RELAY_MAPPINGS=str(mappings),
        RELAY_MAX_BODY="2048",
        ACME_WEBHOOK_SECRET="s1,s2",
    )
    relay = assemble(*load(environ, delivers=True))
    server = make_server("127.0.0.1", 0, create_app(relay), threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()
    relay.outbox.close()


def _post(url, body, *, path="/webhooks/acme", secret="s1", headers=None):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    signed = {SCHEME.header: sign(SCHEME, body=raw, secret=secret)} if secret else {}
    given = {"Content-Type": "application/json", **signed, **(headers or {})}
    return requests.post(f"{url}{path}", data=raw, headers=given, timeout=10)


def _stored(database: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(database) as connection:
        return connection.execute("SELECT source, status FROM webhooks ORDER BY id").fetchall()


def _error(answer: requests.Response) -> str:
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message"}
    assert body["error"]["message"]
    return str(body["error"]["code"])


def test_a_webhook_that_a_rule_translates_is_stored_before_it_is_answered_202(url, database):
    answer = _post(url, NOTE)
    assert answer.status_code == 202
    body = answer.json()
    assert body == {"webhook": 1, "status": "translated", "rule": "note", "events": [{"id": 1, "type": "custom"}]}
    assert _stored(database) == [("acme", "translated")]


@pytest.mark.parametrize("path", ["/webhooks/acme", "/webhooks/acme/"])
def test_a_path_works_with_and_without_its_last_slash(url, path):
    assert _post(url, NOTE, path=path).status_code == 202


def test_any_of_several_secrets_will_do(url):
    assert _post(url, NOTE, secret="s2").status_code == 202


@pytest.mark.parametrize(
    ("body", "status", "rule"),
    [
        ({"kind": "ping"}, "ignored", "ping"),
        ({"kind": "unheard-of"}, "unmatched", None),
        ([1, 2], "unmatched", None),
        ("text", "unmatched", None),
        (None, "unmatched", None),
        ({"kind": "note", "id": "n2", "title": "", "at": "2026-10-01T10:00:00Z"}, "failed", "note"),
        ({"kind": "note"}, "failed", "note"),
    ],
)
def test_every_authentic_webhook_is_answered_202_and_kept_whatever_its_status(url, database, body, status, rule):
    answer = _post(url, body)
    assert (answer.status_code, answer.json()["status"], answer.json()["rule"]) == (202, status, rule)
    assert answer.json()["events"] == []
    assert _stored(database) == [("acme", status)]


def test_a_failed_webhook_is_kept_with_rule_field_and_reason(url, database):
    _post(url, {"kind": "note", "id": "n2", "title": "T", "at": "not a date"})
    with sqlite3.connect(database) as connection:
        rule, field, reason = connection.execute("SELECT rule, field, reason FROM webhooks").fetchone()
    assert (rule, field) == ("note", "event.custom.lastUpdated")
    assert "not a date" in reason


def test_a_second_delivery_is_answered_with_the_first_receipt(url, database):
    first = _post(url, NOTE).json()
    second = _post(url, {**NOTE, "title": "Something else"})
    assert second.status_code == 202
    assert second.json() == {**first, "status": "duplicate"}
    assert len(_stored(database)) == 1


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"path": "/webhooks/nobody"}, 404, "unknown_source"),
        ({"path": "/webhooks/Acme"}, 404, "unknown_source"),
        ({"secret": None}, 401, "bad_signature"),
        ({"secret": "wrong"}, 401, "bad_signature"),
        ({"headers": {"X-Acme-Signature": "v1=zz"}}, 401, "bad_signature"),
        ({"headers": {"X-Acme-Signature": "\xff,,=v1"}}, 401, "bad_signature"),
        ({"headers": {"Content-Type": "text/plain"}}, 415, "unsupported_media_type"),
        ({"headers": {"Content-Type": "application/x-www-form-urlencoded"}}, 415, "unsupported_media_type"),
        ({"body": b"x" * 3000}, 413, "body_too_large"),
        ({"body": b""}, 400, "malformed_body"),
        ({"body": b"{"}, 400, "malformed_body"),
        ({"body": b"{} {}"}, 400, "malformed_body"),
        ({"body": b"[" * 1000 + b"]" * 1000}, 400, "malformed_body"),
        ({"body": b'{"a": "\xff"}'}, 400, "malformed_body"),
        ({"body": b'{"a": "\x00"}'}, 400, "malformed_body"),
        ({"body": b"\xef\xbb\xbf{}"}, 400, "malformed_body"),
        ({"body": "{}".encode("utf-16")}, 400, "malformed_body"),
        ({"body": b'{"a": NaN}'}, 400, "malformed_body"),
        ({"body": b'{"a": 1e999}'}, 400, "malformed_body"),
        ({"body": b'{"a": ' + b"9" * 1000 + b"}"}, 400, "malformed_body"),
        ({"path": "/webhooks/other"}, 503, "secret_missing"),
    ],
)
def test_what_is_refused_is_told_in_one_shape_and_stores_nothing(url, database, request_, status, code):
    answer = _post(url, request_.pop("body", NOTE), **request_)
    assert (answer.status_code, _error(answer)) == (status, code)
    assert _stored(database) == []
    assert ("Retry-After" in answer.headers) == (status == 503)


def test_refusals_come_in_their_order(url):
    """404 before 413 before 401 before 415 before 400."""
    bad = {"Content-Type": "text/plain", "X-Acme-Signature": "v1=00"}
    large = b"[" * 3000
    assert _post(url, large, path="/webhooks/nobody", headers=bad).status_code == 404
    assert _post(url, large, headers=bad).status_code == 413
    assert _post(url, b"[", headers=bad).status_code == 401
    assert _post(url, b"[", headers={"Content-Type": "text/plain"}).status_code == 415
    assert _post(url, b"[").status_code == 400


def test_the_sender_is_not_told_why_a_signature_is_wrong(url):
    missing, wrong = _post(url, NOTE, secret=None), _post(url, NOTE, secret="wrong")
    assert missing.json() == wrong.json()


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/JSON", "application/x+json"])
def test_json_may_be_said_in_several_ways(url, content_type):
    assert _post(url, NOTE, headers={"Content-Type": content_type}).status_code == 202


def test_a_body_of_unusual_but_valid_json_is_taken(url):
    odd = b'{"kind":"note","id":"n\\u0000\\ud83d","id":"n\\u0000\\ud83d","title":"T\\ud83d\\u0000","at":1790848800000}'
    answer = _post(url, odd)
    assert (answer.status_code, answer.json()["status"]) == (202, "translated")


def test_the_senders_test_button_is_answered_200_without_a_signature_and_stores_nothing(url, database):
    answer = _post(url, {"test": True}, secret=None, headers={"X-Acme-Event": "test"})
    assert (answer.status_code, answer.json()["status"]) == (200, "test")
    assert _stored(database) == []


def test_a_wrong_signature_is_refused_even_from_the_test_button(url):
    headers = {"X-Acme-Event": "test", "X-Acme-Signature": "v1=" + "0" * 64}
    assert _post(url, {"test": True}, headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/webhooks/acme", 405, "method_not_allowed"),
        ("PUT", "/webhooks/acme", 405, "method_not_allowed"),
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/webhooks", 404, "not_found"),
        ("POST", "/webhooks/a/b", 404, "not_found"),
        ("POST", "/healthz", 405, "method_not_allowed"),
    ],
)
def test_every_other_error_has_the_same_shape(url, method, path, status, code):
    answer = requests.request(method, f"{url}{path}", timeout=10)
    assert (answer.status_code, _error(answer)) == (status, code)


def test_health_and_readiness(url):
    assert requests.get(f"{url}/healthz", timeout=10).status_code == 200
    ready = requests.get(f"{url}/readyz", timeout=10)
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "sources": ["acme", "other"]})


def test_a_store_that_cannot_be_written_is_a_503_with_retry_after(url, database):
    blocker = sqlite3.connect(database, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        answer = _post(url, NOTE)
    finally:
        blocker.execute("ROLLBACK")
        blocker.close()
    assert (answer.status_code, _error(answer)) == (503, "store_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert _post(url, NOTE).status_code == 202


def test_not_ready_without_tables(url, database):
    with sqlite3.connect(database) as connection:
        connection.execute("DROP TABLE alembic_version")
    answer = requests.get(f"{url}/readyz", timeout=10)
    assert (answer.status_code, _error(answer)) == (503, "store_unavailable")


def test_metrics_count_webhooks_without_labels_that_strangers_choose(url):
    _post(url, NOTE)
    _post(url, NOTE, secret="wrong")
    _post(url, NOTE, path="/webhooks/made-up-by-a-stranger")
    text = requests.get(f"{url}/metrics", timeout=10).text
    assert 'relay_webhooks_total{source="acme",status="translated"}' in text
    assert 'relay_webhooks_total{source="acme",status="bad_signature"}' in text
    assert 'relay_webhooks_total{source="(unknown)",status="unknown_source"}' in text
    assert "made-up-by-a-stranger" not in text
    assert 'relay_events{destination="compass",lane="normal",status="pending"} 1.0' in text


def test_a_client_that_goes_away_in_the_middle_of_its_body_stores_nothing(url, database):
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"POST /webhooks/acme HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert requests.get(f"{url}/healthz", timeout=10).status_code == 200
    assert _stored(database) == []
