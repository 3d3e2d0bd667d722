"""`python -m benchmarks.steps`: where the time of one webhook goes, step by step, in one thread.

Processor time, not the clock's, and the best of several runs: what others do on this machine matters least so.
"""

import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import structlog
from werkzeug.test import run_wsgi_app

from benchmarks import webhooks
from relay import telemetry
from relay.intake import accept, authenticate, read_json
from relay.model import Arrival
from relay.outbox import Outbox, machine_clock
from relay.outbox.migrations import migrate
from relay.runtime import Relay, assemble, load
from relay.signature import Verified
from relay.translate import translate
from relay.web import create_app

ROUNDS, EACH = 7, 300


def main() -> None:
    """Measure and print the table."""
    sample = list(webhooks.signed(range(EACH)))
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as folder, _relay(Path(folder)) as relay:
        rows = _steps(relay, sample)
        fresh = webhooks.signed(range(EACH, 10_000_000))
        rows.append(("all of it: one request through Flask, alone", _whole(relay, fresh)))
    print("| step | µs of CPU per webhook |\n| --- | ---: |")
    for name, micros in rows:
        print(f"| {name} | {micros:.0f} |")


def _steps(relay: Relay, sample: list[tuple[str, bytes]]) -> list[tuple[str, float]]:
    mapping = relay.mappings[webhooks.SOURCE]
    header = webhooks.SCHEME.header.lower()
    headers = [{"content-type": "application/json", "host": "x", header: signature} for signature, _ in sample]
    bodies = [body for _, body in sample]
    hooks = [accept(Verified(body, 0), mapping, headers=given) for given, body in zip(headers, bodies, strict=True)]
    translations = [translate(hook, mapping) for hook in hooks]
    log = structlog.get_logger("relay.benchmark")

    def logged(_at: int) -> None:
        log.info(
            "webhook.received",
            source=webhooks.SOURCE,
            status="translated",
            webhook_id=1,
            rule="incident",
            events=1,
            took_ms=1.2,
            remote="127.0.0.1",
        )

    numbers = iter(range(10_000_000))

    def stored(at: int) -> None:
        hook, (translation, _) = hooks[at], translations[at]
        dedupe = next(numbers).to_bytes(16, "big")
        relay.intake.store(
            Arrival(hook.source, machine_clock(), dedupe, hook.headers, hook.raw, mapping.digest, translation)
        )

    def verified(at: int) -> None:
        authenticate(relay.intake, mapping, headers=headers[at], raw=bodies[at])

    return [
        ("verify the signature", _best(verified)),
        ("parse the body strictly", _best(lambda at: read_json(bodies[at]))),
        ("translate: read, fit to the contract, check", _best(lambda at: translate(hooks[at], mapping))),
        ("store, alone: one commit each", _best(stored)),
        ("log line", _best(logged)),
        ("counters", _best(lambda _: telemetry.count_webhook(source="pagerduty", status="translated", seconds=0.001))),
    ]


def _whole(relay: Relay, fresh: Iterator[tuple[str, bytes]]) -> float:
    """The WSGI application as gunicorn calls it, storing included; the server's own work is not in it."""
    app = create_app(relay)
    environs = [_environ(signature, body) for signature, body in islice(fresh, ROUNDS * EACH)]
    at = iter(environs)

    def once(_: int) -> None:
        environ = next(at)
        answer, status, _headers = run_wsgi_app(app, environ)
        if not status.startswith("202"):
            raise RuntimeError(b"".join(answer))

    return _best(once)


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


def _best(step: Callable[[int], object]) -> float:
    """Microseconds of this thread's processor time; the step gets the number of its webhook."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.thread_time_ns()
        for at in range(EACH):
            step(at)
        best = min(best, (time.thread_time_ns() - began) / EACH / 1000)
    return best


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
