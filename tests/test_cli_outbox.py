"""The commands that show and repeat what is stored, on a real outbox."""

import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from relay.cli import relay as command
from relay.errors import NotFound
from relay.intake import receive
from relay.model import Receipt
from relay.outbox import Outbox, machine_clock
from relay.outbox.migrations import migrate
from relay.runtime import assemble, load
from relay.signature import Scheme, sign
from tests.running import environment

BROKEN = """
source: acme
verify: {hmac: sha256, header: X-Acme, secret: ACME_WEBHOOK_SECRET}
dedupe: ${ .id }
rules:
  - name: note
    when: {.kind: note}
    component: ${ component(.service) }
    event:
      custom:
        displayName: ${ .name | ascii_upcase }
        description: a note
        url: https://acme.example/notes/1
        externalEventSourceId: notes
        lastUpdated: ${ .at }
        updateSequenceNumber: ${ .at }
        customEventProperties: {id: "${ .id }", icon: INFO}
"""
MENDED = BROKEN.replace(".name | ascii_upcase", ".title")


class Relay:
    """One relay's folder, database and environment."""

    def __init__(self, folder: Path) -> None:
        self.mappings = folder / "mappings"
        self.mappings.mkdir()
        self.write(BROKEN)
        self.environ = environment(
            f"sqlite:///{folder}/relay.db",
            compass_url="http://127.0.0.1:1",
            port=0,
            RELAY_MAPPINGS=str(self.mappings),
            ACME_WEBHOOK_SECRET="s",
        )
        outbox = Outbox(self.environ["DATABASE_URL"])
        migrate(outbox)
        outbox.close()

    def write(self, text: str, name: str = "acme.yaml") -> None:
        (self.mappings / name).write_text(text)

    def receive(self, **body: object) -> int:
        raw = json.dumps(body).encode()
        headers = {"content-type": "application/json", "x-acme": sign(Scheme("X-Acme", "{hex}"), body=raw, secret="s")}
        relay = assemble(*load(self.environ, delivers=True))
        receipt = receive(relay.intake, source="acme", headers=headers, raw=raw, now=machine_clock())
        relay.outbox.close()
        assert isinstance(receipt, Receipt)
        return receipt.webhook

    def run(self, *arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(command, arguments, env=self.environ)
        if code == 0 and result.exception is not None:
            raise result.exception
        assert result.exit_code == code, result.output
        return str(result.stdout)

    def json(self, *arguments: str) -> object:
        return json.loads(self.run(*arguments, "--json"))


@pytest.fixture
def relay(tmp_path: Path) -> Relay:
    return Relay(tmp_path)


NOTE = {"kind": "note", "id": "n1", "title": "A [bold]note", "at": "2026-10-01T10:00:00Z", "service": "checkout"}


def test_a_failed_webhook_is_translated_again_once_the_mapping_is_mended(relay):
    webhook = relay.receive(**NOTE)
    (listed,) = relay.json("webhooks", "--status", "failed")
    assert (listed["id"], listed["rule"], listed["field"]) == (webhook, "note", "event.custom.displayName")
    relay.write(MENDED)
    (dry,) = relay.json("replay", "webhooks", "--failed", "--dry-run")
    assert (dry["status"], dry["events"]) == ("translated", [])
    assert relay.json("events") == []
    (done,) = relay.json("replay", "webhooks", "--failed")
    assert done["status"] == "translated"
    (event,) = relay.json("events", "--status", "pending")
    assert event["id"] == done["events"][0]
    assert relay.json("webhooks", "--status", "failed") == []


def test_resending_a_failed_webhook_in_the_tool_does_the_same(relay):
    first = relay.receive(**NOTE)
    relay.write(MENDED)
    assert relay.receive(**NOTE) == first
    (listed,) = relay.json("webhooks")
    assert listed["status"] == "translated"
    assert len(relay.json("events")) == 1


def test_an_unmatched_webhook_is_translated_once_there_is_a_rule(relay):
    relay.receive(kind="memo", id="m1", title="T", at=NOTE["at"])
    relay.write(MENDED.replace("kind: note", "kind: [note, memo]"))
    (done,) = relay.json("replay", "webhooks", "--unmatched")
    assert done["status"] == "translated"


def test_an_unrouted_event_is_released_once_its_key_is_listed(relay):
    relay.write(MENDED)
    relay.write("acme: {}\n", "components.yaml")
    relay.receive(**NOTE)
    (held,) = relay.json("status")["held"]
    assert (held["status"], held["key"], held["count"]) == ("unrouted", "checkout", 1)
    (kept,) = relay.json("replay", "events", "--unrouted")
    assert kept["outcome"] == "kept"
    relay.write("acme: {checkout: 'ari:checkout'}\n", "components.yaml")
    (done,) = relay.json("replay", "events", "--unrouted")
    assert done["outcome"] == "routed"
    (event,) = relay.json("events", "--status", "pending")
    assert event["component"] == "ari:checkout"


def test_one_webhook_and_one_event_are_shown_whole(relay):
    relay.write(MENDED)
    webhook = relay.receive(**NOTE)
    shown = relay.json("webhooks", "show", str(webhook))
    assert shown["webhook"]["status"] == "translated"
    (event,) = shown["events"]
    assert json.loads(relay.run("webhooks", "show", str(webhook), "--body")) == NOTE
    detail = relay.json("events", "show", str(event["id"]))
    assert detail["body"]["custom"]["displayName"] == NOTE["title"]
    assert detail["attempts"] == []


@pytest.mark.parametrize("arguments", [("webhooks", "show", "77"), ("events", "show", "77"), ("pause", "nowhere")])
def test_what_is_not_there_is_said(relay, arguments):
    with pytest.raises(NotFound, match=arguments[-1]):
        relay.run(*arguments)


def test_tables_show_what_came_from_outside_as_it_is(relay):
    """Neither markup nor a terminal's control sequences in a title are obeyed."""
    relay.write(MENDED)
    relay.receive(**{**NOTE, "service": "\x1b[31mred", "title": "x"})
    relay.write("acme: {}\n", "components.yaml")
    relay.receive(**{**NOTE, "id": "n2", "service": "[bold]\x1b[31mred"})
    text = relay.run("events") + relay.run("status")
    assert "\x1b" not in text
    assert "[bold]" in text


def test_pause_and_resume_show_in_the_status(relay):
    relay.run("pause", "compass")
    (compass,) = relay.json("status")["destinations"]
    assert compass["paused"] is True
    assert "paused by hand" in relay.run("status")
    relay.run("resume", "compass")
    (compass,) = relay.json("status")["destinations"]
    assert compass["paused"] is False


def test_the_status_tells_how_many_requests_wait_and_when_they_are_sent(relay):
    relay.write(MENDED)
    for number in range(3):
        relay.receive(**{**NOTE, "id": f"n{number}"})
    relay.run("pause", "compass")
    relay.run("resume", "compass")
    forecast = relay.json("status")["forecasts"]["compass"]
    assert (forecast["waiting"], forecast["requests"]) == (3, 3)
    assert "3 requests" in relay.run("status")


def test_lists_are_paged_from_the_newest_backwards(relay):
    relay.write(MENDED)
    ids = [relay.receive(**{**NOTE, "id": f"n{number}"}) for number in range(5)]
    first = relay.json("webhooks", "--limit", "2")
    second = relay.json("webhooks", "--limit", "2", "--before", str(first[-1]["id"]))
    assert [one["id"] for one in first + second] == ids[:0:-1]


def test_replay_wants_to_know_which(relay):
    relay.run("replay", "events", code=2)
    relay.run("replay", "events", "1", "--dead", code=2)


def test_prune_leaves_what_is_undelivered(relay):
    relay.write(MENDED)
    relay.receive(**NOTE)
    relay.run("prune", "--days", "1")
    assert len(relay.json("webhooks")) == 1


MANY = """
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 50000)
"""
DEAD = """
INSERT INTO events (created_at, destination, type, body, entity, source_order, lane, rank, coalesce, status, due_at)
SELECT 1, 'compass', 'custom', '{}', 'entity ' || n, n, 1, 1, 'transitions', 'dead', 1 FROM numbers
"""
OLD = """
INSERT INTO webhooks (source, received_at, status, mapping, headers, body)
SELECT 'acme', 1, 'ignored', 'm', '{}', 'x' FROM numbers
"""


@pytest.mark.parametrize(
    ("rows", "arguments", "progress", "left"),
    [
        (
            DEAD,
            ("replay", "events", "--dead", "--json"),
            b"of 50000 done",
            "SELECT count(*) FROM events WHERE status = 'dead'",
        ),
        (OLD, ("prune",), b"deleted", "SELECT count(*) FROM webhooks"),
    ],
)
def test_long_work_shows_its_progress_and_can_be_interrupted(relay, tmp_path, rows, arguments, progress, left):
    database = sqlite3.connect(tmp_path / "relay.db", isolation_level=None)
    database.execute(MANY + rows)
    screen, theirs = pty.openpty()
    shown, interrupted = b"", False
    with (tmp_path / "out").open("wb") as out:
        command = [sys.executable, "-m", "relay", *arguments]
        running = subprocess.Popen(command, env={**relay.environ, "TERM": "xterm"}, stdout=out, stderr=theirs)
    os.close(theirs)
    while True:
        try:
            shown += os.read(screen, 1000)
        except OSError:  # Linux's way to say that nobody writes there any more
            break
        if progress in shown and not interrupted:
            running.send_signal(signal.SIGINT)
            interrupted = True
    assert running.wait(30) == 130, shown
    assert b"interrupted" in shown
    [(kept,)] = database.execute(left)
    assert 0 < kept < 50_000
    if "--json" in arguments:
        # What was under way at that very moment may be done and not be told.
        told = json.loads((tmp_path / "out").read_bytes())
        assert len(told) in {50_000 - kept, 50_000 - kept - 1}
    os.close(screen)
    database.close()


def test_the_configuration_is_shown_with_secrets_masked(relay):
    relay.environ["DATABASE_URL"] = "postgres://relay:very-secret@db.example/relay"
    text = relay.run("config") + json.dumps(relay.json("config"))
    assert relay.environ["COMPASS_API_TOKEN"] not in text
    assert "very-secret" not in text
    assert "relay@example.com" in text
