"""`python -m benchmarks.steps`: where the time of one webhook goes, step by step, in one thread.

A step is measured by leaving it out: the whole road of a webhook through Flask is run again and again, each time with
one step less, and the difference is what the step costs among all the others. Alone in a loop most steps take half of
that, because the processor then has nothing else to remember. Processor time, not the clock's, and the best of several
runs: what others do on this machine matters least so. The server's own work, gunicorn's, is not in it.
"""

import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from flask import Flask

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

ROUNDS, EACH = 7, 400
BATCH = 8
"""Webhooks in one commit: what comes together where 16 connections are served by two processes."""


def main() -> None:
    """Measure and print the table."""
    posts = webhooks.signed(range(10_000_000))
    with tempfile.TemporaryDirectory() as folder, _relay(Path(folder)) as relay:
        rows = list(_steps(relay, posts))
        bare = _cost(yardstick.app, posts)
    print("| step | µs of CPU per webhook |\n| --- | ---: |")
    for name, micros in rows:
        print(f"| {name} | {micros:.0f} |")
    print(f"| (a bare Flask view that reads the body and answers) | {bare:.0f} |")


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
    yield "what is left: Flask, headers, the answer", rest


def _cost(app: Flask, posts: Iterator[tuple[str, bytes]], commit: Callable[[], None] | None = None) -> float:
    """Microseconds of this thread's processor time per webhook; `commit` comes behind every eighth."""
    best = float("inf")
    for _ in range(ROUNDS):
        environs = [_environ(*next(posts)) for _ in range(EACH)]
        began = time.thread_time_ns()
        for number, environ in enumerate(environs, start=1):
            _request(app, environ)
            if commit is not None and number % BATCH == 0:
                commit()
        best = min(best, (time.thread_time_ns() - began) / EACH / 1000)
    return best


def _request(app: Flask, environ: dict[str, object]) -> None:
    """As gunicorn calls it."""
    answered: list[str] = []
    body = app(environ, lambda status, _headers, _error=None: answered.append(status))  # type: ignore[arg-type]
    told = b"".join(body)
    if not answered[0].startswith("202"):
        raise RuntimeError(told)


def _environ(signature: str, body: bytes) -> dict[str, object]:
    return {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": f"/webhooks/{webhooks.SOURCE}",
        "QUERY_STRING": "",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "HTTP_X_PAGERDUTY_SIGNATURE": signature,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }


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
