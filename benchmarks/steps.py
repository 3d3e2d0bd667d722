"""`python -m benchmarks.steps`: where the time of one webhook goes, step by step, in one thread.

A step is measured by leaving it out: the whole road of a webhook through a web process is run again and again, each
time with one step less, and the difference is what the step costs among all the others. Alone in a loop most steps take
half of that, because the processor then has nothing else to remember. Processor time, not the clock's, and the best of
several runs: what others do on this machine matters least so. Only the client and the kernel's part are missing: the
bytes of a request are there when they are read.
"""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from flask import Flask
from gunicorn.config import Config

from benchmarks import webhooks, yardstick
from relay import intake, telemetry
from relay.model import Arrival, Receipt, StoredEvent, Translated, WebhookStatus
from relay.outbox import Outbox
from relay.outbox.migrations import migrate
from relay.outbox.rows import Rows, Statements
from relay.runtime import Relay, assemble, load
from relay.signature import Verified
from relay.web import create_app
from relay.web import webhooks as endpoint
from relay.web.worker import Deadlines, Worker

ROUNDS, EACH = 7, 400
BATCH = 8
"""Webhooks in one commit: what comes together where 16 connections are served by two processes."""


def main() -> None:
    """Measure and print the table."""
    posts = webhooks.signed(range(10_000_000))
    with tempfile.TemporaryDirectory() as folder, _relay(Path(folder)) as relay:
        rows = list(_steps(relay, posts))
        bare, wire = _cost(yardstick.app, posts), _cost(_nothing, posts)
    print("| step | µs of CPU per webhook |\n| --- | ---: |")
    for name, micros in rows:
        print(f"| {name} | {micros:.0f} |")
    print(f"| of this, the wire: what there is without an application | {wire:.0f} |")
    print(f"| (a bare Flask view in the same process that reads the body and answers) | {bare:.0f} |")


def _steps(relay: Relay, posts: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, float]]:
    waiting: list[Rows] = []
    statements = Statements(sqlite=True)
    receipt = Receipt(1, WebhookStatus.TRANSLATED, "incident", (StoredEvent(1, "incident"),))

    def kept(arrival: Arrival) -> Receipt:
        waiting.append(Rows.of(arrival))
        return receipt

    def commit() -> None:
        with relay.outbox.write_plainly() as cursor:
            statements.store(cursor, waiting)
        waiting.clear()

    def app(store: Callable[[Arrival], Receipt]) -> Flask:
        return create_app(replace(relay, intake=replace(relay.intake, store=store)))

    whole = _cost(app(kept), posts, commit)
    yield "all of it, with a commit for eight", whole
    bare_app = app(lambda _: receipt)
    rest = _cost(bare_app, posts)
    yield "store: rows, statements, an eighth of a commit", whole - rest
    nothing = Translated("incident", ()), "key"
    for name, owner, function, instead in (
        ("translate: read, fit to the contract, check", intake, "translate", lambda *_: nothing),
        ("parse the body strictly", intake, "read_json", lambda _: ("", {})),
        ("verify the signature", intake, "verify", lambda *_, body, **__: Verified(body, 0)),
        ("log line", endpoint, "_log", lambda *_: None),
        ("counters", endpoint, "count_webhook", lambda **_: None),
    ):
        setattr(owner, function, instead)
        less = _cost(bare_app, posts)
        yield name, rest - less
        rest = less
    yield "what is left: the wire, Flask, headers, the answer", rest


def _cost(app: Any, posts: Iterator[tuple[str, bytes]], commit: Callable[[], None] | None = None) -> float:
    """Microseconds of this thread's processor time per webhook; `commit` comes behind every eighth."""
    worker, best = _worker(app), float("inf")
    for _ in range(ROUNDS):
        client = _Client([_request(*next(posts)) for _ in range(EACH)], commit)
        began = time.thread_time_ns()
        worker.handle(_Listener(), client, ("127.0.0.1", 40_000))
        best = min(best, (time.thread_time_ns() - began) / EACH / 1000)
        if client.answered != EACH:
            raise RuntimeError(f"{client.answered} of {EACH} were answered 202")
    return best


def _request(signature: str, body: bytes) -> bytes:
    """As it comes over the wire."""
    head = (
        f"POST /webhooks/{webhooks.SOURCE} HTTP/1.1",
        "Host: localhost:8080",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"{webhooks.SCHEME.header}: {signature}",
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


class _Client:
    """Sends requests one after the other and reads the answers, without a network."""

    def __init__(self, requests: list[bytes], commit: Callable[[], None] | None) -> None:
        self._requests, self._commit = iter(requests), commit
        self.answered = 0

    def recv(self, _size: int) -> bytes:
        if self._commit is not None and self.answered and self.answered % BATCH == 0:
            self._commit()
        return next(self._requests, b"")

    def send(self, answer: bytes) -> int:
        self.answered += answer.startswith(b"HTTP/1.1 202 ")
        return len(answer)

    def setblocking(self, _flag: int) -> None: ...

    def settimeout(self, _seconds: float | None) -> None: ...

    def close(self) -> None: ...


class _Listener:
    def getsockname(self) -> tuple[str, int]:
        return "0.0.0.0", 8080  # noqa: S104 - nobody listens


def _worker(app: Any) -> Worker:
    """A web process's worker as it is once it serves, in this process."""
    worker = Worker.__new__(Worker)  # what it does when it begins would change this process
    worker.cfg, worker.log, worker.wsgi, worker.alive = Config(), logging.getLogger(__name__), app, True
    worker.cfg.set("http_parser", "fast")
    worker.prepare(Deadlines())
    return worker


def _nothing(_environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
    start_response("202 ACCEPTED", [("Content-Type", "application/json"), ("Content-Length", "2")])
    return [b"{}"]


@contextmanager
def _relay(folder: Path) -> Iterator[Relay]:
    outbox = Outbox(f"sqlite:///{folder}/relay.db")
    migrate(outbox)
    outbox.close()
    environ = {
        "DATABASE_URL": f"sqlite:///{folder}/relay.db",
        "RELAY_DISPATCHER": "off",
        "PAGERDUTY_WEBHOOK_SECRET": webhooks.SECRET,
    }
    with (folder / "log").open("w") as log:
        relay = assemble(*load(environ, delivers=False))
        telemetry.configure_logging(json=True, secrets=[webhooks.SECRET], stream=log)
        yield relay
        relay.outbox.close()


if __name__ == "__main__":
    main()
