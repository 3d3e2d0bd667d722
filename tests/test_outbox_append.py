"""Intake's side of the outbox: durable, once, together, and nobody suffers from his neighbour."""

import ctypes
import dataclasses
import itertools
import json
import os
import resource
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from relay.errors import SettingsError, StoreUnavailable
from relay.model import (
    Arrival,
    Coalesce,
    Event,
    Failed,
    Ignored,
    Lane,
    Receipt,
    StoredEvent,
    Translated,
    Translation,
    Unmatched,
    WebhookStatus,
)
from relay.outbox import STORE_TIMEOUT, Outbox, database_url
from relay.outbox.append import Appender
from relay.outbox.migrations import migrate
from relay.outbox.tables import digest, events, webhooks

NOW = 1_700_000_000_000

OPEN = Event(
    type="incident",
    destination="compass",
    component="ari:cloud:compass:1:component/2",
    body={"incident": {"displayName": "Queue is full", "incidentProperties": {"state": "OPEN"}}},
    entity="pagerduty/P1",
    state="OPEN",
    order=NOW - 500,
    event_source="pagerduty",
    lane=Lane.URGENT,
)
RESOLVED = dataclasses.replace(OPEN, state="RESOLVED", order=NOW - 400, terminal=True, coalesce=Coalesce.LATEST)

# A number that neither database has room for.
POISON = Translated("incident", (dataclasses.replace(OPEN, order=2**70),))


def arrival(translation: Translation | None = None, *, key: str | None = None, source: str = "pagerduty") -> Arrival:
    return Arrival(
        source=source,
        received_at=NOW,
        dedupe=None if key is None else digest(key),
        headers={"content-type": "application/json"},
        raw=b'{"event": {"id": "1"}}',
        mapping="m1",
        translation=translation or Translated("incident", (OPEN,)),
    )


def rows(outbox: Outbox, table: sa.Table) -> list[dict[str, Any]]:
    with outbox.read() as connection:
        found = connection.execute(sa.select(table).order_by(table.c.id)).mappings()
        return [dict(row) for row in found]


@pytest.fixture
def append(outbox: Outbox) -> Appender:
    return Appender(outbox)


def test_a_webhook_is_kept_raw_with_what_became_of_it(append: Appender, outbox: Outbox) -> None:
    append.append(arrival(key="k"))
    (row,) = rows(outbox, webhooks)
    assert row.pop("id") == 1
    assert json.loads(row.pop("headers")) == {"content-type": "application/json"}
    assert row == {
        "source": "pagerduty",
        "received_at": NOW,
        "dedupe": digest("k"),
        "status": "translated",
        "rule": "incident",
        "reason": None,
        "field": None,
        "mapping": "m1",
        "body": b'{"event": {"id": "1"}}',
    }


def test_its_events_wait_to_be_sent_now(append: Appender, outbox: Outbox) -> None:
    receipt = append.append(arrival(Translated("incident", (OPEN, RESOLVED))))
    first, second = rows(outbox, events)
    assert receipt == Receipt(
        webhook=1,
        status=WebhookStatus.TRANSLATED,
        rule="incident",
        events=(StoredEvent(first["id"], "incident"), StoredEvent(second["id"], "incident")),
    )
    assert json.loads(first["body"]) == OPEN.body
    assert {name: first[name] for name in ("webhook_id", "created_at", "due_at", "status", "ready")} == {
        "webhook_id": receipt.webhook,
        "created_at": NOW,
        "due_at": NOW,
        "status": "pending",
        "ready": 1,
    }
    assert [
        (row["component"], row["state"], row["source_order"], row["terminal"], row["lane"], row["coalesce"])
        for row in (first, second)
    ] == [
        (OPEN.component, "OPEN", NOW - 500, 0, 0, "transitions"),
        (OPEN.component, "RESOLVED", NOW - 400, 1, 0, "latest"),
    ]
    assert first["entity"] == second["entity"] == digest("compass", "pagerduty/P1")
    assert first["event_source"] == digest("incident", "pagerduty")
    assert (first["number"], first["failures"], first["trigger"], first["lease"]) == (None, 0, "auto", None)


def test_an_event_without_a_component_is_kept_and_not_sent(append: Appender, outbox: Outbox) -> None:
    unrouted = dataclasses.replace(OPEN, unrouted="service-9", component=None, event_source=None)
    append.append(arrival(Translated("incident", (unrouted,))))
    (row,) = rows(outbox, events)
    assert (row["status"], row["unrouted"], row["event_source"]) == ("unrouted", "service-9", None)


@pytest.mark.parametrize(
    ("translation", "stored"),
    [
        (Ignored("ping", "test ping"), ("ignored", "ping", None, "test ping")),
        (Unmatched(), ("unmatched", None, None, None)),
        (
            Failed("incident", "event.incident.url", "is no URL"),
            ("failed", "incident", "event.incident.url", "is no URL"),
        ),
    ],
)
def test_a_webhook_without_events_says_why(
    append: Appender, outbox: Outbox, translation: Translation, stored: tuple[str | None, ...]
) -> None:
    receipt = append.append(arrival(translation))
    (row,) = rows(outbox, webhooks)
    assert (row["status"], row["rule"], row["field"], row["reason"]) == stored
    assert (receipt.status, receipt.rule, receipt.events, receipt.duplicate) == (*stored[:2], (), False)


def test_a_duplicate_gets_the_first_receipt(append: Appender, outbox: Outbox) -> None:
    first = append.append(arrival(key="k"))
    again = append.append(arrival(Unmatched(), key="k"))
    assert again == dataclasses.replace(first, duplicate=True)
    assert len(rows(outbox, webhooks)) == len(rows(outbox, events)) == 1


def test_the_same_key_of_another_source_is_no_duplicate(append: Appender) -> None:
    first = append.append(arrival(key="k"))
    other = append.append(arrival(key="k", source="bitbucket"))
    assert not other.duplicate
    assert other.webhook != first.webhook


def test_without_a_key_nothing_is_a_duplicate(append: Appender, outbox: Outbox) -> None:
    assert not append.append(arrival()).duplicate
    assert not append.append(arrival()).duplicate
    assert len(rows(outbox, events)) == 2


@pytest.mark.parametrize("was", [Failed("incident", "when", "broken"), Unmatched()])
def test_a_duplicate_of_what_failed_is_translated_again_under_its_id(
    append: Appender, outbox: Outbox, was: Translation
) -> None:
    first = append.append(arrival(was, key="k"))
    mended = dataclasses.replace(arrival(key="k"), mapping="m2", received_at=NOW + 9)
    second = append.append(mended)
    assert (second.webhook, second.status, second.duplicate) == (first.webhook, WebhookStatus.TRANSLATED, False)
    (row,) = rows(outbox, webhooks)
    assert (row["status"], row["rule"], row["field"], row["reason"]) == ("translated", "incident", None, None)
    assert (row["mapping"], row["received_at"]) == ("m2", NOW)
    (event,) = rows(outbox, events)
    assert (event["id"], event["webhook_id"], event["due_at"]) == (second.events[0].id, first.webhook, NOW + 9)
    assert append.append(mended) == dataclasses.replace(second, duplicate=True)


def test_text_that_a_database_would_refuse_is_made_plain(append: Appender, outbox: Outbox) -> None:
    event = dataclasses.replace(
        OPEN, body={"incident": {"displayName": "a\0b\ud800"}}, entity="\0\udfff", state="\0", unrouted="k\0\ud800"
    )
    append.append(arrival(Translated("incident", (event,))))
    append.append(arrival(Failed("incident", "when", "a\0b\ud800é")))
    (row,) = rows(outbox, events)
    assert json.loads(row["body"]) == event.body
    assert (row["state"], row["unrouted"]) == ("\ufffd", "k\ufffd?")
    assert rows(outbox, webhooks)[1]["reason"] == "a\ufffdb?é"


def test_whoever_dispatches_here_is_told_of_new_events_and_of_nothing_else(append: Appender, outbox: Outbox) -> None:
    told: list[int] = []
    outbox.on_commit = lambda: told.append(len(rows(outbox, events)))
    append.append(arrival(Unmatched()))
    assert told == []
    append.append(arrival())
    assert told == [1], "told after the commit, when the event can be seen"


# Together


@pytest.fixture
def together(outbox: Outbox, database_url: str) -> Iterator["Together"]:
    blocker = Outbox(database_url)
    yield Together(outbox, blocker)
    blocker.close()


class Together:
    """Keep the store busy until everybody waits in the queue, then let them go at once."""

    def __init__(self, outbox: Outbox, blocker: Outbox) -> None:
        self._blocker = blocker
        self._append = Appender(outbox)
        # On SQLite the leader waits for its turn and takes everybody along; on PostgreSQL it has taken itself.
        self._leaders = 1 if outbox.sqlite else 0

    def append(self, *arrivals: Arrival) -> list[Receipt | StoreUnavailable]:
        """What each of these requests got, in their order."""
        with ThreadPoolExecutor(1 + len(arrivals)) as threads:
            with self._blocker.write() as connection:
                if not self._blocker.sqlite:
                    connection.execute(sa.text("LOCK TABLE webhooks IN ACCESS EXCLUSIVE MODE"))
                leader = threads.submit(self._outcome, arrival(Unmatched(), source="leader"))
                while not self._append._led:
                    time.sleep(0.001)
                time.sleep(0.05)
                futures = [threads.submit(self._outcome, one) for one in arrivals]
                while len(self._append._waiting) < self._leaders + len(arrivals):
                    time.sleep(0.001)
            assert isinstance(leader.result(), Receipt)
            return [future.result() for future in futures]

    def _outcome(self, one: Arrival) -> Receipt | StoreUnavailable:
        try:
            return self._append.append(one)
        except StoreUnavailable as refusal:
            return refusal


def stored(outbox: Outbox) -> dict[bytes, int]:
    """The webhooks by their keys, without the leader's."""
    return {row["dedupe"]: row["id"] for row in rows(outbox, webhooks) if row["source"] != "leader"}


def test_requests_that_come_at_once_share_a_commit(together: Together, outbox: Outbox) -> None:
    commits: list[sa.Connection] = []
    sa.event.listen(outbox.engine, "commit", commits.append)
    receipts = together.append(*(arrival(key=str(number)) for number in range(32)))
    assert len(commits) <= 2, "one for whoever came first, one for all the others"
    assert stored(outbox) == {
        digest(str(number)): receipt.webhook for number, receipt in enumerate(receipts) if isinstance(receipt, Receipt)
    }
    assert len(rows(outbox, events)) == 32


def test_32_threads_of_many_requests_each_get_their_own_receipts(append: Appender, outbox: Outbox) -> None:
    def requests(thread: int) -> list[tuple[str, int]]:
        keys = [f"{thread}/{number}" for number in range(20)]
        return [(key, append.append(arrival(key=key)).webhook) for key in keys]

    with ThreadPoolExecutor(32) as threads:
        told = dict(itertools.chain.from_iterable(threads.map(requests, range(32))))
    assert stored(outbox) == {digest(key): webhook for key, webhook in told.items()}
    assert len(told) == 640


def test_two_duplicates_in_one_commit_are_one_webhook(together: Together, outbox: Outbox) -> None:
    receipts = together.append(arrival(key="k"), arrival(key="k"), arrival(key="k"))
    duplicates = [receipt.duplicate for receipt in receipts if isinstance(receipt, Receipt)]
    assert sorted(duplicates) == [False, True, True]
    assert len(stored(outbox)) == len(rows(outbox, events)) == 1


def test_a_row_that_the_database_refuses_harms_nobody(together: Together, outbox: Outbox) -> None:
    outcomes = together.append(arrival(key="a"), arrival(POISON, key="poison"), arrival(key="b"))
    assert [type(outcome) for outcome in outcomes] == [Receipt, StoreUnavailable, Receipt]
    assert set(stored(outbox)) == {digest("a"), digest("b")}
    assert len(rows(outbox, events)) == 2


def test_after_a_refusal_the_next_request_is_stored(append: Appender, outbox: Outbox) -> None:
    with pytest.raises(StoreUnavailable):
        append.append(arrival(POISON))
    append.append(arrival())
    assert len(rows(outbox, webhooks)) == 1


# Not able to store


def test_a_writer_that_stays_too_long_makes_the_others_give_up_in_time(outbox: Outbox, database_url: str) -> None:
    """Leader and followers alike are refused within the time limit, and nothing of theirs is stored later."""
    other = Outbox(database_url)
    append = Appender(outbox)

    def timed(number: int) -> float:
        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            append.append(arrival(key=str(number)))
        return time.monotonic() - started

    with other.write() as connection, ThreadPoolExecutor(5) as threads:
        if not outbox.sqlite:
            connection.execute(sa.text("LOCK TABLE webhooks IN ACCESS EXCLUSIVE MODE"))
        waited = list(threads.map(timed, range(5)))
    other.close()
    assert max(waited) < STORE_TIMEOUT + 1.5
    assert append.append(arrival(key="later")).webhook
    assert [row["dedupe"] for row in rows(outbox, webhooks)] == [digest("later")]


def test_threads_that_wait_for_each_other_s_duplicates_never_block_for_good(outbox: Outbox, database_url: str) -> None:
    """Two processes with the same deliveries in opposite order: each key is stored once, and nobody waits long."""
    keys = [str(number) for number in range(40)]
    processes = [Outbox(database_url) for _ in range(2)]

    def deliver(which: int) -> list[Receipt]:
        append = Appender(processes[which])
        with ThreadPoolExecutor(8) as threads:
            ordered = keys if which == 0 else keys[::-1]
            return list(threads.map(lambda key: append.append(arrival(key=key)), ordered))

    with ThreadPoolExecutor(2) as threads:
        receipts = list(itertools.chain.from_iterable(threads.map(deliver, range(2))))
    for process in processes:
        process.close()
    assert len(rows(outbox, webhooks)) == 40
    assert sum(receipt.duplicate for receipt in receipts) == 40


# The processes are real


APPEND = """
import sys
from relay.model import Arrival, Unmatched
from relay.outbox import Outbox
from relay.outbox.append import Appender
from relay.outbox.tables import digest

append = Appender(Outbox(sys.argv[1]))
for number in range(int(sys.argv[3])):
    key = digest(f"{sys.argv[2]}/{number}")
    receipt = append.append(Arrival("pagerduty", number, key, {}, b"x" * 1000, "m1", Unmatched()))
    print(receipt.webhook, flush=True)
"""


def appending(url: str, name: str, number: int, **settings: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", APPEND, url, name, str(number)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )


def test_two_processes_append_at_once(outbox: Outbox, database_url: str) -> None:
    processes = [appending(database_url, name, 100) for name in ("a", "b")]
    told = [process.communicate(timeout=60) for process in processes]
    receipts = [int(line) for out, _ in told for line in out.split()]
    assert [process.returncode for process in processes] == [0, 0], told
    assert len(receipts) == 200
    assert sorted(receipts) == [row["id"] for row in rows(outbox, webhooks)]


def test_what_was_answered_survives_kill_9(outbox: Outbox, database_url: str) -> None:
    told: set[int] = set()
    for killed in (1, 2, 3):
        process = appending(database_url, f"process {killed}", 1_000_000)
        assert process.stdout is not None
        told |= {int(process.stdout.readline()) for _ in range(50)}
        process.kill()
        # Its last line may be cut off in the middle.
        told |= {int(line) for line in process.communicate(timeout=60)[0].splitlines()[:-1]}
        assert {row["id"] for row in rows(outbox, webhooks)} >= told


# SQLite's own ways to fail


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(f"sqlite:///{tmp_path}/relay.db")
    migrate(outbox)
    yield outbox
    outbox.close()


def test_sqlite_flushes_every_commit_and_gives_space_back(sqlite: Outbox) -> None:
    with sqlite.write() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "auto_vacuum", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "auto_vacuum": 2, "foreign_keys": 1}


def test_ids_go_on_behind_the_last_even_where_sqlite_has_lost_count(sqlite: Outbox) -> None:
    append = Appender(sqlite)
    first = append.append(arrival(key="1"))
    with sqlite.write() as connection:
        connection.exec_driver_sql("DELETE FROM sqlite_sequence")
    second = append.append(arrival(key="2"))
    assert (second.webhook, second.events[0].id) == (first.webhook + 1, first.events[0].id + 1)
    with sqlite.write() as connection:
        connection.exec_driver_sql("DELETE FROM events")
        connection.exec_driver_sql("DELETE FROM webhooks")
    third = append.append(arrival(key="3"))
    assert (third.webhook, third.events[0].id) == (second.webhook + 1, second.events[0].id + 1), "no id comes twice"


def test_a_full_disk_is_no_crash_and_what_was_answered_is_kept(sqlite: Outbox) -> None:
    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    process = appending(str(sqlite.url), "a", 10_000, preexec_fn=small_disk)
    out, err = process.communicate(timeout=60)
    assert "StoreUnavailable: the outbox does not answer" in err
    told = [int(line) for line in out.split()]
    assert told
    assert [row["id"] for row in rows(sqlite, webhooks)] == told


def test_a_database_that_may_only_be_read_is_unavailable(sqlite: Outbox, tmp_path: Path) -> None:
    sqlite.close()
    for file in tmp_path.iterdir():
        file.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        err = appending(str(sqlite.url), "a", 1, preexec_fn=_like_anybody).communicate(timeout=60)[1]
    finally:
        tmp_path.chmod(0o755)
    assert "StoreUnavailable: the outbox" in err


def _like_anybody() -> None:
    """Root without CAP_DAC_OVERRIDE: the files' permissions count for this process too."""
    bounding_set_drop, dac_override = 24, 1
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(bounding_set_drop, dac_override)


def test_another_program_that_holds_the_file_makes_the_store_unavailable(sqlite: Outbox) -> None:
    """A backup or the sqlite3 shell does not know of our turns."""
    foreign = sqlite3.connect(str(sqlite.url.database), isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="database is locked"):
        Appender(sqlite).append(arrival())
    foreign.execute("ROLLBACK")
    foreign.close()
    assert Appender(sqlite).append(arrival()).webhook


@pytest.mark.parametrize("path", ["missing/relay.db", "relay.db"])
def test_a_database_that_is_not_there_or_empty_is_unavailable(tmp_path: Path, path: str) -> None:
    outbox = Outbox(f"sqlite:///{tmp_path}/{path}")
    with pytest.raises(StoreUnavailable):
        Appender(outbox).append(arrival())
    outbox.close()


# PostgreSQL's


def test_postgresql_flushes_every_commit_whatever_its_role_was_told(postgresql_server: str) -> None:
    careless = make_url(postgresql_server).update_query_dict({"options": "-c synchronous_commit=off"})
    outbox = Outbox(careless.render_as_string(hide_password=False))
    with outbox.write() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
    outbox.close()


@pytest.mark.parametrize("backend", ["postgresql"])
def test_connections_that_the_server_closes_are_replaced(database_url: str, outbox: Outbox) -> None:
    append = Appender(outbox)
    append.append(arrival(key="a"))
    assert len(rows(outbox, webhooks)) == 1
    with psycopg.connect(make_url(database_url).render_as_string(hide_password=False), autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    append.append(arrival(key="b"))
    assert len(rows(outbox, webhooks)) == 2


def test_a_server_that_is_not_there_is_unavailable_and_its_password_untold() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        outbox = Outbox(f"postgres://relay:secret@127.0.0.1:{port}/relay")
        with pytest.raises(StoreUnavailable, match=r"the outbox does not answer: .*refused") as refusal:
            Appender(outbox).append(arrival())
    assert "secret" not in str(refusal.value)
    outbox.close()


# DATABASE_URL


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("sqlite:///relay.db", "sqlite:///relay.db"),
        ("sqlite:////var/lib/relay.db", "sqlite:////var/lib/relay.db"),
        ("postgres://u:p@h:5433/d?sslmode=require", "postgresql+psycopg://u:p@h:5433/d?sslmode=require"),
        ("postgresql://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
        ("postgresql+psycopg2://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
    ],
)
def test_the_database_is_named_as_platforms_name_it(given: str, taken: str) -> None:
    assert database_url(given).render_as_string(hide_password=False) == taken


@pytest.mark.parametrize("given", ["", "relay.db", "sqlite://", "sqlite:///:memory:", "mysql://u:p@h/d"])
def test_a_database_that_cannot_keep_anything_is_refused_at_start(given: str) -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL: "):
        database_url(given)
