"""Real processes of the relay, for tests: started, waited for, ended by their own process id."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import requests

from relay.mapping.compiled import Mapping as SourceMapping
from relay.signature import sign

ROOT = Path(__file__).parents[1]
SECRET = "a-secret-of-the-tests"
PATIENCE = 90.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def environment(database_url: str, *, compass_url: str, port: int, **more: str) -> dict[str, str]:
    """A complete environment for `relay serve`, without anything of the machine's own."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "DATABASE_URL": database_url,
        "PORT": str(port),
        "WEB_CONCURRENCY": "1",
        "RELAY_MAPPINGS": str(ROOT / "mappings"),
        "COMPASS_URL": compass_url,
        "COMPASS_CLOUD_ID": "cloud-1",
        "COMPASS_EMAIL": "relay@example.com",
        "COMPASS_API_TOKEN": "compass-token-of-the-tests",
        "PAGERDUTY_WEBHOOK_SECRET": SECRET,
        "LAUNCHDARKLY_WEBHOOK_SECRET": SECRET,
        "BITBUCKET_WEBHOOK_SECRET": SECRET,
        "BITBUCKET_SERVER_WEBHOOK_SECRET": SECRET,
        **more,
    }


@dataclass
class Process:
    """A process of the relay, with its own process group, so that its children end with it."""

    popen: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """SIGKILL, to the process and its children at once: what a power cut leaves behind."""
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(PATIENCE)

    def terminate(self) -> int:
        """SIGTERM to the process itself, as a platform does; its exit code."""
        self.popen.terminate()
        return self.popen.wait(PATIENCE)

    def printed(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


@contextmanager
def process(*arguments: str, env: Mapping[str, str], log: Path, cwd: Path | None = None) -> Iterator[Process]:
    """`relay <arguments>` as a process; killed at the end if it still runs."""
    with command([sys.executable, "-m", "relay", *arguments], env=env, log=log, cwd=cwd) as started:
        yield started


@contextmanager
def command(argv: Sequence[str], *, env: Mapping[str, str], log: Path, cwd: Path | None = None) -> Iterator[Process]:
    """Any command as a process; killed at the end, with its children, if it still runs."""
    with log.open("ab") as written:
        popen = subprocess.Popen(
            argv,
            env=dict(env),
            stdout=written,
            stderr=written,
            cwd=cwd or log.parent,
            start_new_session=True,
        )
    started = Process(popen, log)
    try:
        yield started
    finally:
        started.kill()


def wait_ready(url: str, started: Process) -> None:
    """Until GET answers 200."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and started.popen.poll() is None:
        with suppress(HTTPError, OSError), urlopen(url, timeout=1):
            return
        time.sleep(0.03)
    raise AssertionError(f"{url} never answered:\n{started.printed()}")


@contextmanager
def serving(env: Mapping[str, str], log: Path) -> Iterator[Process]:
    """A real `relay serve` that is ready."""
    with process("serve", env=env, log=log) as started:
        wait_ready(f"http://127.0.0.1:{env['PORT']}/readyz", started)
        yield started


def post(url: str, mapping: SourceMapping, body: bytes, headers: Mapping[str, str]) -> requests.Response:
    """Post a webhook, signed as its vendor would."""
    signed = {mapping.scheme.header: sign(mapping.scheme, body=body, secret=SECRET)}
    return requests.post(
        f"{url}/webhooks/{mapping.source}",
        data=body,
        headers={"Content-Type": "application/json", **headers, **signed},
        timeout=PATIENCE,
    )


def eventually(holds: object, *, within: float = PATIENCE) -> None:
    """Wait until a condition, a function, holds."""
    assert callable(holds)
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.02)
