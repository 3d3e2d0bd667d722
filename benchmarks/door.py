"""`make bench`: how fast the door is, beside a bare Flask view, all measured in turns in one session.

    python -m benchmarks.door [--rounds 5] [--seconds 4] [--peers]

Every round starts every server anew, on an empty database, warms it up for a second and posts distinct signed
webhooks for some seconds. What counts are the ratios of one round, and of those the median: on a shared machine
the figures themselves say little. Checks that no more and no less is stored than was answered 202.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from benchmarks import chart, machine, servers, webhooks
from benchmarks.servers import Server

HERE = Path(__file__).parent
RESULTS = HERE / "results"
YARDSTICK, SQLITE, POSTGRESQL, NODE_RED = "bare Flask view", "relay, SQLite", "relay, PostgreSQL", "Node-RED, journal"
WARM_UP = 1
MOST_PER_SECOND = 5_000
"""More than the relay takes on two cores; the file of distinct webhooks is as long as that asks for."""


@dataclass(frozen=True)
class Run:
    """What one server did in one round. Times in milliseconds."""

    server: str
    rate: float
    """Answers 202 per second."""
    p50: float
    p99: float
    max: float
    refused: int
    """Answers that were not 2xx, and connections that broke."""
    cpu_us: float
    """Processor time of the server per webhook, in microseconds."""
    switches: float
    """Context switches of the server per webhook."""
    memory_mb: float
    stored: int | None
    answered: int | None
    """How often it answered 202, warm-up included, by its own count; None where it keeps none."""


def main() -> None:
    """Measure, print, and write the table and the plot."""
    given = _arguments()
    begin: dict[str, Callable[[Path], AbstractContextManager[Server]]] = {
        YARDSTICK: servers.yardstick,
        SQLITE: servers.relay_on_sqlite,
    }
    with ExitStack() as session:
        scratch = Path(session.enter_context(tempfile.TemporaryDirectory(prefix="relay-bench-")))
        if not given.sqlite_only:
            postgresql = servers.PostgreSQL()
            session.callback(postgresql.close)
            begin[POSTGRESQL] = partial(servers.relay_on_postgresql, server=postgresql)
        if given.peers:
            begin[NODE_RED] = servers.node_red
        posts = scratch / "webhooks"
        webhooks.write(posts, MOST_PER_SECOND * (WARM_UP + given.seconds))
        flush = machine.fdatasync_ms(scratch)
        runs: list[Run] = []
        for number in range(given.rounds):
            # Nobody always comes first.
            names = list(begin)[number % len(begin) :] + list(begin)[: number % len(begin)]
            for name in names:
                folder = scratch / f"{number}-{len(runs)}"
                folder.mkdir()
                with begin[name](folder) as server:
                    runs.append(measure(name, server, folder, posts, given=given))
                _say(f"round {number + 1}: {_line(runs[-1])}")
    _report(runs, flush_ms=flush, given=given)


def measure(name: str, server: Server, folder: Path, posts: Path, *, given: argparse.Namespace) -> Run:
    """One server's turn."""
    seconds, connections = given.seconds, given.connections
    warm = wrk(server.url, posts, seconds=WARM_UP, connections=connections, skip=0)
    before = server.usage()
    result = wrk(server.url, posts, seconds=seconds, connections=connections, skip=MOST_PER_SECOND * WARM_UP)
    after = server.usage()
    time.sleep(0.2)  # what was on its way when wrk hung up
    counted = _answered(folder) if name in {SQLITE, POSTGRESQL} else None
    stored = server.stored() if server.stored else None
    run = Run(
        server=name,
        rate=(result["answered"] - result["refused"]) / (result["took"] / 1e6),
        p50=result["p50"] / 1000,
        p99=result["p99"] / 1000,
        max=result["max"] / 1000,
        refused=result["refused"] + result["broken"] + warm["refused"] + warm["broken"],
        cpu_us=(after.cpu - before.cpu) / result["answered"] * 1e6,
        switches=(after.switches - before.switches) / result["answered"],
        memory_mb=after.memory / 2**20,
        stored=stored,
        answered=counted,
    )
    if stored is not None:
        _check(run, seen=warm["answered"] + result["answered"] - run.refused, connections=connections)
    return run


def wrk(url: str, posts: Path, *, seconds: int, connections: int, skip: int, fresh: bool = False) -> dict[str, int]:
    """Post for some seconds; what `post.lua` says of it. A webhook is never posted twice, unless `fresh`."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(HERE / "post.lua")]
    command += [f"{url}/webhooks/{webhooks.SOURCE}", "--", str(posts), str(skip), webhooks.SCHEME.header]
    command += ["fresh"] if fresh else []
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)
    found: dict[str, int] = json.loads(done.stderr.strip().splitlines()[-1])
    return found


def _answered(folder: Path) -> int:
    """How often the relay says that it translated one, and so answered 202: it logs one line for each."""
    with (folder / "log").open("rb") as lines:
        return sum(b'"webhook.received"' in line and b'"translated"' in line for line in lines)


def _check(run: Run, *, seen: int, connections: int) -> None:
    """Stored is what was answered. wrk leaves some requests without waiting for their answer: those are stored too."""
    wrong = run.answered is not None and run.stored != run.answered
    if run.stored is None or wrong or not seen <= run.stored <= seen + 2 * connections:
        sys.exit(f"{run.server}: stored {run.stored}, answered 202 {run.answered}, of which wrk saw {seen}")


def _report(runs: Sequence[Run], *, flush_ms: float, given: argparse.Namespace) -> None:
    names = list(dict.fromkeys(run.server for run in runs))
    of = {name: [run for run in runs if run.server == name] for name in names}

    def median(name: str, value: Callable[[Run], float]) -> float:
        return statistics.median(value(run) for run in of[name])

    def ratio(name: str, other: str, value: Callable[[Run], float] = lambda run: run.rate) -> float:
        """The median of each round's own ratio."""
        return statistics.median(value(one) / value(two) for one, two in zip(of[name], of[other], strict=True))

    lines = [
        "| server | webhooks/s | of the bare view | p50 ms | p99 ms | max ms | µs of CPU each | switches each | MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {name} | {median(name, lambda run: run.rate):,.0f} | {ratio(name, YARDSTICK):.2f} "
        f"| {median(name, lambda run: run.p50):.1f} | {median(name, lambda run: run.p99):.1f} "
        f"| {max(run.max for run in of[name]):.1f} | {median(name, lambda run: run.cpu_us):.0f} "
        f"| {median(name, lambda run: run.switches):.1f} | {median(name, lambda run: run.memory_mb):.0f} |"
        for name in names
    ]
    lines += ["", f"Medians of {given.rounds} rounds of {given.seconds} s, {given.connections} connections; "]
    lines[-1] += f"max is the worst of all. One fdatasync: {flush_ms:.2f} ms. Load at the end: {machine.load():.1f}."
    lines += ["", *_goals(names, ratio, refused=sum(run.refused for run in runs))]
    text = "\n".join(lines) + "\n"
    RESULTS.mkdir(exist_ok=True)
    stem = "peers" if given.peers else "door"
    (RESULTS / f"{stem}.md").write_text(text, encoding="utf-8")
    (RESULTS / f"{stem}.json").write_text(json.dumps([asdict(run) for run in runs], indent=1) + "\n")
    rates = {name: [run.rate for run in of[name]] for name in names}
    (RESULTS / f"{stem}.svg").write_text(chart.dots("webhooks per second, each round", rates), encoding="utf-8")
    _say(f"\n{text}")


def _goals(names: Sequence[str], ratio: Callable[..., float], *, refused: int) -> list[str]:
    told = []

    def tell(what: str, reached: float, goal: float, *, at_most: bool = False) -> None:
        good = reached <= goal if at_most else reached >= goal
        bound = "at most" if at_most else "at least"
        told.append(f"- {what}: {reached:.2f} (goal: {bound} {goal:.2f}) {'reached' if good else 'NOT REACHED'}")

    tell("relay on SQLite ÷ bare Flask view, webhooks/s", ratio(SQLITE, YARDSTICK), 0.60)
    tell("relay on SQLite ÷ bare Flask view, p99", ratio(SQLITE, YARDSTICK, lambda run: run.p99), 2.0, at_most=True)
    if NODE_RED in names:
        tell("relay on SQLite ÷ Node-RED, webhooks/s", ratio(SQLITE, NODE_RED), 1.2)
    tell("answers that were not 2xx, in all rounds", refused, 0, at_most=True)
    return told


def _line(run: Run) -> str:
    return (
        f"{run.server:18} {run.rate:6.0f}/s  p50 {run.p50:5.1f}  p99 {run.p99:6.1f}  max {run.max:6.1f} ms  "
        f"{run.cpu_us:4.0f} µs CPU  {run.switches:4.1f} switches  {run.memory_mb:4.0f} MB"
    )


def _say(text: str) -> None:
    print(text, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each server in each round")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--peers", action="store_true", help="Node-RED as well")
    parser.add_argument("--sqlite-only", action="store_true", help="not on PostgreSQL")
    return parser.parse_args()


if __name__ == "__main__":
    main()
