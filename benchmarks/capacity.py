"""The figures of docs/capacity.md: what a webhook and a delivery cost, in processor time, database and space.

    python -m benchmarks.capacity [--seconds 4] [--deliveries 1500]

All figures are to be read beside the yardstick's of the same session: this machine is rarely alone with itself.
"""

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from random import SystemRandom

import sqlalchemy as sa

from benchmarks import machine, servers, webhooks
from benchmarks.door import MOST_PER_SECOND, wrk
from relay.dispatch.policy import Delivered
from relay.dispatch.quota import Quota
from relay.model import Answer, Claim
from relay.outbox import Outbox, claims

PLENTY = Quota(1_000_000, 60_000)
"""Of the quota nothing is felt: what is measured is how fast claims are made."""

HELD = Quota(100, 60_000)


def main() -> None:
    """Measure and print, one line for each figure."""
    given = _arguments()
    with ExitStack() as session:
        scratch = Path(session.enter_context(tempfile.TemporaryDirectory(prefix="relay-capacity-")))
        posts = scratch / "webhooks"
        webhooks.write(posts, MOST_PER_SECOND * (1 + given.seconds))
        postgresql = servers.PostgreSQL()
        session.callback(postgresql.close)
        _say(f"one fdatasync takes {machine.fdatasync_ms(scratch):.2f} ms; load {machine.load():.1f}")
        bare = scratch / "bare"
        bare.mkdir()
        with servers.yardstick(bare) as server:
            before = server.usage().cpu
            result = wrk(server.url, posts, seconds=given.seconds, connections=16, skip=0)
            each = (server.usage().cpu - before) / result["answered"] * 1e6
            rate = result["answered"] / (result["took"] / 1e6)
            _say(f"the yardstick, a bare Flask view in 2 processes: {rate:,.0f}/s; CPU each {each:.0f} µs")
        for processes in (1, 2):
            folder = scratch / f"sqlite-{processes}"
            folder.mkdir()
            url = f"sqlite:///{folder}/relay.db"
            _door("SQLite", processes, url, folder, posts, given=given, postgresql=None)
            _deliveries("SQLite", url, given.deliveries, postgresql=None) if processes == 1 else None
            folder = scratch / f"postgresql-{processes}"
            folder.mkdir()
            with postgresql.database() as url:
                _door("PostgreSQL", processes, url, folder, posts, given=given, postgresql=postgresql)
                _deliveries("PostgreSQL", url, given.deliveries, postgresql=postgresql) if processes == 1 else None


def _door(
    name: str,
    processes: int,
    url: str,
    folder: Path,
    posts: Path,
    *,
    given: argparse.Namespace,
    postgresql: servers.PostgreSQL | None,
) -> None:
    """Webhooks come as fast as they are taken in; nothing is delivered."""
    with servers.relay(folder, url, WEB_CONCURRENCY=str(processes)) as (address, pid):
        wrk(address, posts, seconds=1, connections=16, skip=0)
        before, theirs, bytes_before, rows = _used(pid), _used_by(postgresql), _bytes(url), _rows(url)
        result = wrk(address, posts, seconds=given.seconds, connections=16, skip=MOST_PER_SECOND)
        time.sleep(0.3)  # what was on its way when wrk hung up
        stored = _rows(url) - rows
        ours = (_used(pid) - before) / stored * 1e6
        database = (_used_by(postgresql) - theirs) / stored * 1e6
        _say(
            f"{name}, {processes} web process(es): {stored / (result['took'] / 1e6):,.0f} webhooks/s, "
            f"p50 {result['p50'] / 1000:.1f} ms, p99 {result['p99'] / 1000:.1f} ms; "
            f"CPU per webhook: relay {ours:.0f} µs, PostgreSQL {database:.0f} µs; "
            f"{(_bytes(url) - bytes_before) / stored:,.0f} bytes stored per webhook; "
            f"memory {machine.usage(pid).memory / 2**20:.0f} MB"
        )


def _deliveries(name: str, url: str, count: int, *, postgresql: servers.PostgreSQL | None) -> None:
    """One process claims and settles one event after the other; nothing is sent."""
    outbox, rng = Outbox(url), SystemRandom()
    for about, quota in (("a backlog, no quota", PLENTY), ("a quota of 100, looking only", HELD)):
        theirs, ours, began, done = _used_by(postgresql), time.process_time(), time.monotonic(), 0
        for number in range(count):
            claim = claims.claim(outbox, "compass", quota=quota, token=f"{about} {number}")
            if isinstance(claim, Claim):
                claims.settle(outbox, claim, Answer(202), Delivered(), quota=quota, rng=rng)
            done += 1
        took, ours = time.monotonic() - began, time.process_time() - ours
        _say(
            f"{name}, deliveries ({about}): {done / took:,.0f}/s; CPU each: relay {ours / done * 1e6:.0f} µs, "
            f"PostgreSQL {(_used_by(postgresql) - theirs) / done * 1e6:.0f} µs"
        )
    outbox.close()


def _used(pid: int) -> float:
    return machine.usage(pid).cpu


def _used_by(postgresql: servers.PostgreSQL | None) -> float:
    return 0.0 if postgresql is None else machine.usage(postgresql.pid).cpu


def _rows(url: str) -> int:
    return _ask(url, "SELECT count(*) FROM webhooks")


def _bytes(url: str) -> int:
    if url.startswith("sqlite"):
        return _ask(url, "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
    tables = ("webhooks", "events", "attempts", "entities")
    return _ask(url, "SELECT " + " + ".join(f"pg_total_relation_size('{table}')" for table in tables))


def _ask(url: str, question: str) -> int:
    outbox = Outbox(url)
    with outbox.read() as connection:
        answer = int(connection.scalar(sa.text(question)) or 0)
    outbox.close()
    return answer


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=4, help="how long webhooks are posted each time")
    parser.add_argument("--deliveries", type=int, default=1500, help="how many events are claimed and settled")
    return parser.parse_args()


if __name__ == "__main__":
    main()
