"""`relay demo`: everything on this machine, to be looked at.

A sandbox in place of Compass, the real `relay serve` as a process of its own on a SQLite file, and one signed
webhook of every source, taken from the examples beside the mapping files.
"""

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from relay.destinations.webhook import post_webhook
from relay.errors import Fault, RelayError
from relay.mapping import load_mappings
from relay.mapping.compiled import Mapping
from relay.mapping.document import read_document
from relay.sandbox.compass import Effect, SeenRequest
from relay.sandbox.server import Sandbox, running_sandbox
from relay.settings import BUNDLED, environment

PATIENCE = 30.0
"""Seconds that each step may take before the demo gives up."""

SECRET = "demo-secret"  # noqa: S105 - it signs the demo's own webhooks and nothing else


class DemoFailed(RelayError):  # noqa: N818
    """The demo did not come to its end."""


@dataclass(frozen=True)
class Sample:
    """One webhook to post."""

    mapping: Mapping
    about: str
    headers: dict[str, str]
    body: bytes


def run_demo(console: Console, *, once: bool) -> bool:
    """Show the whole road once; without `once`, stay and show what else arrives until interrupted.

    True when everything that was posted arrived. Raises DemoFailed when a part does not start.
    """
    mappings = load_mappings(BUNDLED, environ={})
    samples = [sample for mapping in mappings.values() for sample in _sample(mapping)]
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<44}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
    )
    with (
        tempfile.TemporaryDirectory(prefix="relay-demo-") as folder,
        running_sandbox() as sandbox,
        Progress(*columns, console=console) as progress,
    ):
        step = progress.add_task("starting the relay", total=len(samples) + 2)
        with _relay(mappings, sandbox, Path(folder)) as url:
            progress.advance(step)
            receipts = []
            for sample in samples:
                progress.update(step, description=f"{sample.mapping.source}: {sample.about[:40]}")
                receipts.append(_post(url, sample))
                progress.advance(step)
            progress.update(step, description="waiting for Compass")
            arrived = _await(sandbox, sum(len(receipt["events"]) for receipt in receipts))
            progress.update(step, advance=1, description="done" if arrived else "not everything arrived")
            progress.stop()
            console.print(_posted(samples, receipts))
            console.print(_arrived(sandbox))
            if not once:
                _stay(console, url, sandbox, samples)
    return arrived


def _sample(mapping: Mapping) -> Iterator[Sample]:
    """The example of the source that is marked for the demo."""
    for path in sorted((BUNDLED / "examples" / mapping.source).glob("*.yaml")):
        document = read_document(path)
        if isinstance(document, Fault):
            raise DemoFailed(str(document))
        data = document.data
        if data.get("demo"):
            headers = {name: str(value) for name, value in data.get("headers", {}).items()}
            yield Sample(mapping, data.get("about", path.stem), headers, json.dumps(data["body"]).encode())


@contextmanager
def _relay(mappings: dict[str, Mapping], sandbox: Sandbox, folder: Path) -> Iterator[str]:
    """A real `relay serve` on a free port, delivering to the sandbox; ended with SIGTERM."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = folder / "relay.log"
    kept = {name: value for name, value in environment().items() if name in ("PATH", "HOME", "LANG", "PYTHONPATH")}
    environ = {
        **kept,
        **{mapping.secret: SECRET for mapping in mappings.values()},
        "DATABASE_URL": f"sqlite:///{folder / 'relay.db'}",
        "PORT": str(port),
        "WEB_CONCURRENCY": "1",
        "RELAY_MAPPINGS": str(BUNDLED),
        "COMPASS_URL": sandbox.url,
        "COMPASS_CLOUD_ID": "demo",
        "COMPASS_EMAIL": "demo@example.com",
        "COMPASS_API_TOKEN": "demo-token",
    }
    with log.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "relay", "serve"], env=environ, stdout=written, stderr=written
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _await_ready(url, process, log)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()


def _await_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), urlopen(f"{url}/readyz", timeout=1):  # noqa: S310 - our own process, on loopback
            return
        time.sleep(0.05)
    raise DemoFailed(f"the relay did not start:\n{log.read_text(errors='replace')}")


def _post(url: str, sample: Sample) -> Any:
    answer = post_webhook(
        f"{url}/webhooks/{sample.mapping.source}",
        scheme=sample.mapping.scheme,
        secret=SECRET,
        body=sample.body,
        headers=sample.headers,
    )
    if answer.status_code != 202:  # noqa: PLR2004 - what the relay says when it has stored a webhook
        raise DemoFailed(f"{sample.mapping.source}: the relay answered {answer.status_code}: {answer.text}")
    return answer.json()


def _await(sandbox: Sandbox, wanted: int) -> bool:
    deadline = time.monotonic() + PATIENCE
    while len(_taken(sandbox)) < wanted:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return wanted > 0


def _taken(sandbox: Sandbox) -> list[SeenRequest]:
    return [request for request in sandbox.requests() if request.effect is Effect.STORED]


def _posted(samples: list[Sample], receipts: list[Any]) -> Table:
    table = _table("source", "answer", "rule", "events", title="Posted to the relay, signed")
    for sample, receipt in zip(samples, receipts, strict=True):
        made = ", ".join(event["type"] for event in receipt["events"])
        table.add_row(sample.mapping.source, f"202 {receipt['status']}", receipt["rule"], made)
    return table


def _arrived(sandbox: Sandbox) -> Table:
    table = _table("event", "state", "what Compass shows", title="Arrived in Compass")
    for shown in sandbox.events():
        fields = next(iter(shown.event.values()))
        title = fields.get("displayName") or fields.get("pullRequestProperties", {}).get("pullRequestUrl", shown.entity)
        table.add_row(shown.kind, shown.state or "", title)
    return table


def _table(*columns: str, title: str) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column != columns[-1])
    return table


def _stay(console: Console, url: str, sandbox: Sandbox, samples: list[Sample]) -> None:
    """Tell how to post more, and show what arrives."""
    first = samples[0].mapping
    console.print(
        f"\nThe relay listens on [bold]{url}[/], the sandbox in place of Compass on [bold]{sandbox.url}[/].\n"
        f"Post a webhook of your own, signed as its vendor would:\n\n"
        f"  {first.secret}={SECRET} relay send {first.source} body.json --to {url}\n\n"
        f"Look at what Compass got: {sandbox.url}/sandbox/requests and {sandbox.url}/sandbox/events\n"
        f"Ctrl-C ends it. What arrives from now on:",
        highlight=False,
        soft_wrap=True,
    )
    seen = len(sandbox.requests())
    with suppress(KeyboardInterrupt):
        while True:
            for request in sandbox.requests()[seen:]:
                seen += 1
                what = f"{request.kind} {request.entity} {request.state or ''}"
                console.print(f"  {what} → {request.status} {request.effect}")
            time.sleep(0.1)
