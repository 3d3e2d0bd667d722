"""`python -m benchmarks.flat [memory|stored|translate]`: what must not grow.

stored     intake with a million webhooks in the database, beside intake with none, in turns
memory     the relay's memory while it takes webhooks in, a tenth at a time
translate  the time of a translation, beside the length of the body
"""

import argparse
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks import door, servers, webhooks
from benchmarks.servers import Server
from relay.intake import read_json
from relay.mapping import load_mappings
from relay.model import Webhook
from relay.outbox import Outbox
from relay.outbox.migrations import migrate
from relay.translate import translate

POOL = 5_000
"""Bodies to post; each is posted more than once, with a delivery's id of its own."""

FILL = """
INSERT INTO webhooks (source, received_at, dedupe, status, rule, mapping, headers, body)
WITH RECURSIVE count (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < :most)
SELECT 'pagerduty', 1700000000000 + n, randomblob(16), 'translated', 'incident', 'm', '{}', randomblob(200) FROM count;

INSERT INTO events (webhook_id, created_at, due_at, destination, type, body, entity, state, source_order, lane, rank,
                    coalesce, status, settled_at)
SELECT id, received_at, received_at, 'compass', 'incident', '{}', randomblob(16), 'OPEN', received_at, 0, 0,
       'transitions', 'delivered', received_at FROM webhooks;

INSERT INTO attempts (event_id, destination, trigger, claimed_at, held_until, answered_at, outcome, status)
SELECT id, 'compass', 'auto', created_at, created_at, created_at, 'delivered', 202 FROM events;

INSERT INTO entities (destination, entity, source_order, terminal, number, state, event_id, touched_at)
SELECT 'compass', entity, source_order, 0, source_order, 'OPEN', id, source_order FROM events;
"""


def main() -> None:
    """Measure what is asked for, or all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["stored", "memory", "translate"])
    parser.add_argument("--webhooks", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    given = parser.parse_args()
    if given.what in {None, "translate"}:
        _translate()
    if given.what in {None, "stored"}:
        _stored(given.webhooks, rounds=given.rounds, seconds=given.seconds)
    if given.what in {None, "memory"}:
        _memory(given.webhooks)


def _stored(count: int, *, rounds: int, seconds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as name:
        scratch = Path(name)
        posts = scratch / "webhooks"
        webhooks.write(posts, POOL)
        full = scratch / "full.db"
        _fill(full, count)
        print(f"{count:,} webhooks stored: {full.stat().st_size / 2**20:,.0f} MB")
        ratios = []
        for number in range(rounds):
            rates = []
            for database in (scratch / f"{number}.db", full):
                with _serving(scratch / f"{number}-{database.stem}", database) as server:
                    door.wrk(server.url, posts, seconds=1, connections=16, skip=0, fresh=True)
                    done = door.wrk(server.url, posts, seconds=seconds, connections=16, skip=0, fresh=True)
                rates.append((done["answered"] - done["refused"]) / done["took"] * 1e6)
            ratios.append(rates[1] / rates[0])
            print(f"round {number + 1}: empty {rates[0]:,.0f}/s, full {rates[1]:,.0f}/s, ratio {ratios[-1]:.2f}")
        reached = statistics.median(ratios)
        print(f"full ÷ empty: {reached:.2f} (goal: at least 0.90) {'reached' if reached >= 0.9 else 'NOT REACHED'}")


def _memory(count: int) -> None:
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as name:
        scratch = Path(name)
        posts = scratch / "webhooks"
        webhooks.write(posts, POOL)
        with _serving(scratch / "memory", scratch / "memory.db") as server:
            taken, told = 0, 0
            while taken < count:
                done = door.wrk(server.url, posts, seconds=10, connections=16, skip=0, fresh=True)
                taken += done["answered"] - done["refused"]
                if taken >= told:
                    print(f"{taken:9,} webhooks: {server.usage().memory / 2**20:.1f} MB", flush=True)
                    told = taken + count // 10


def _translate() -> None:
    mapping = load_mappings(servers.ROOT / "mappings", environ={})[webhooks.SOURCE]
    print("| body | µs of CPU | µs per KB |\n| ---: | ---: | ---: |")
    for several in (0, 10, 100, 1_000, 5_000):
        body = webhooks.webhook(2)
        body["event"]["data"]["assignees"] *= 1 + several
        raw = json.dumps(body).encode()
        text, parsed = read_json(raw)
        hook = Webhook(webhooks.SOURCE, {}, raw, text, parsed)
        best = float("inf")
        for _ in range(7):
            began = time.thread_time_ns()
            times = max(1, 1_000_000 // len(raw))
            for _ in range(times):
                read_json(raw)
                translate(hook, mapping)
            best = min(best, (time.thread_time_ns() - began) / times / 1000)
        print(f"| {len(raw) / 1024:,.0f} KB | {best:,.0f} | {best / len(raw) * 1024:.1f} |")


def _fill(path: Path, count: int) -> None:
    outbox = Outbox(f"sqlite:///{path}")
    migrate(outbox)
    outbox.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -500000")
        connection.execute("BEGIN")
        for statement in FILL.split(";"):
            connection.execute(statement, {"most": count} if ":most" in statement else {})
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def _serving(folder: Path, database: Path) -> Iterator[Server]:
    folder.mkdir()
    with servers.relay(folder, f"sqlite:///{database}") as (url, pid):
        yield Server(url, (pid,), None)


if __name__ == "__main__":
    main()
