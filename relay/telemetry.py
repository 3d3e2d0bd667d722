"""Logs and metrics: what the relay tells the people who run it.

Every log line has an `event`, a stable word to search for (`attempt`, `webhook.received`); a sentence for
people goes under `message`. No line carries a secret or a body, whatever the caller hands in.

Counters and histograms are kept by each process and added up in the database (`relay.counting`); what is said
of the outbox is read from there when somebody asks. So both are right for any number of processes and machines,
whichever of them answers.
"""

import functools
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TextIO, cast

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.samples import Sample
from structlog.typing import EventDict, Processor, WrappedLogger

from relay.as_json import as_json

# --- logs

MASK = "***"

SHORTEST_SECRET = 6
"""Characters. Masking shorter values would make the log unreadable and protect nothing."""

_HIDDEN = re.compile(r"token|secret|password|authorization|signature|cookie|credential|api_?key", re.IGNORECASE)
_REFUSED = frozenset({"body", "raw"})
_DEEPEST = 6

_LIBRARIES = ("gunicorn.error", "gunicorn.access", "werkzeug", "alembic", "py.warnings")


def configure_logging(
    *, json: bool, level: str = "info", secrets: Iterable[str] = (), stream: TextIO | None = None
) -> None:
    """Write logs, ours and those of the libraries, to `stream` (stderr): JSON lines, or text for a terminal.

    `secrets` are the values that must never be seen, wherever they turn up. May be called again.
    """
    output = cast("TextIO", _Output(stream or sys.stderr))
    writer = structlog.WriteLogger(output)
    redactor = _Redactor(secrets)
    finish: list[Processor] = [structlog.processors.format_exc_info, redactor.line if json else redactor]
    if not json:
        finish.append(
            structlog.dev.ConsoleRenderer(
                colors=output.isatty(),
                sort_keys=False,
                # Rich's would print the local variables: bodies and secrets.
                exception_formatter=structlog.dev.plain_traceback,
            )
        )
    structlog.configure(
        processors=[_completed, *finish],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.processors.add_log_level, _library_line, _completed],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *finish],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(capture=True)
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    # It tells of every connection which kind of database it talks to.
    logging.getLogger("alembic").setLevel(logging.WARNING)


class _Output:
    """A stream on which writing never fails: a full disk or a closed pipe fails nothing else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            self.write(text.encode("ascii", "backslashreplace").decode())
        except (OSError, ValueError):
            pass

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()


def _completed(_logger: WrappedLogger, method: str, line: EventDict) -> EventDict:
    """The line with its time, its level and what is bound to the request, in the order in which people read it."""
    second, millisecond = divmod(time.time_ns() // 1_000_000, 1000)
    return {
        "timestamp": f"{_until_the_second(second)}.{millisecond:03}Z",
        "level": line.pop("level", method),
        "event": line.pop("event", ""),
        **structlog.contextvars.get_contextvars(),
        **line,
    }


@functools.lru_cache(maxsize=1)
def _until_the_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _library_line(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """A library's line has a sentence and no word."""
    record: logging.LogRecord = line["_record"]
    line.update(event="library", logger=record.name, message=str(line["event"]).strip())
    return line


class _Redactor:
    """Masks secrets, by key and by value, refuses bodies, and leaves only what JSON can say."""

    def __init__(self, secrets: Iterable[str]) -> None:
        # The longest first: one secret may be part of another.
        values = sorted({secret for secret in secrets if len(secret) >= SHORTEST_SECRET}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, values))) if values else None
        # The same in a line of JSON, which is written in two ways.
        written = sorted({write(secret)[1:-1] for secret in values for write in (as_json, json.dumps)}, key=len)[::-1]
        self._written = re.compile("|".join(map(re.escape, written))) if values else None

    def __call__(self, _logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
        return {
            key: self._value(value, 0) if _fate(key) == "shown" else self._field(key, value, 0)
            for key, value in line.items()
        }

    def line(self, logger: WrappedLogger, method: str, line: EventDict) -> str:
        """The same as JSON text. Most lines have nothing to be masked, and are found to have none at one look."""
        if _all_shown(tuple(line)) and _PLAIN.issuperset(map(type, line.values())):
            text = as_json(line)
            if text.isascii() and (self._written is None or not self._written.search(text)):
                return text
        return json.dumps(self(logger, method, line))

    def _field(self, key: str, value: Any, depth: int) -> Any:
        if depth > _DEEPEST or (fate := _fate(key)) == "refused":
            return "(left out)"
        if fate == "hidden" and value is not None:
            return MASK
        return self._value(value, depth)

    def _value(self, value: Any, depth: int) -> Any:
        match value:
            case str():
                return self._mask(value)
            case None | bool() | int() | float():
                return value
            case Mapping():
                return {self._mask(str(key)): self._field(str(key), item, depth + 1) for key, item in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self._field("", item, depth + 1) for item in value]
            case bytes() | bytearray() | memoryview():
                return f"({len(value)} bytes)"
            case _:
                return self._mask(str(value))

    def _mask(self, text: str) -> str:
        return self._known.sub(MASK, text) if self._known else text


_PLAIN = frozenset({str, int, float, bool, type(None)})


@functools.lru_cache(maxsize=1024)
def _all_shown(keys: tuple[str, ...]) -> bool:
    return all(_fate(key) == "shown" for key in keys)


@functools.lru_cache(maxsize=1024)
def _fate(key: str) -> str:
    if key.lower() in _REFUSED:
        return "refused"
    return "hidden" if _HIDDEN.search(key) else "shown"


# --- metrics

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

# What several processes have counted together has no time of creation.
disable_created_metrics()  # type: ignore[no-untyped-call]

_process = CollectorRegistry()

_webhooks = Counter(
    "relay_webhooks",
    "Requests to /webhooks/<source>, by what became of them.",
    ["source", "status"],
    registry=_process,
)
_intake = Histogram(
    "relay_intake_seconds",
    "From a webhook's arrival to its answer.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
    registry=_process,
)
_attempts = Counter(
    "relay_attempts",
    "Requests to destinations, by their outcome.",
    ["destination", "outcome"],
    registry=_process,
)


def count_webhook(*, source: str | None, status: str, seconds: float) -> None:
    """One request to `/webhooks/<source>` was answered after so many seconds.

    `status` is the webhook's status, `duplicate`, or an error's code. `source` is None when no mapping file
    has it: a name that a stranger thought of never becomes a label.
    """
    _webhooks_of(source or "(unknown)", status).inc()
    _intake.observe(seconds)


@functools.cache
def _webhooks_of(source: str, status: str) -> Counter:
    return _webhooks.labels(source, status)


def count_attempt(*, destination: str, outcome: str) -> None:
    """One request to a destination had this outcome."""
    _attempts.labels(destination, outcome).inc()


@dataclass(frozen=True)
class DestinationGauges:
    """What the outbox says of one destination now."""

    state: str
    """One of `states`."""
    states: Sequence[str]
    """All that there are, so that an alert can be written for one that has not come up yet."""
    events: Mapping[tuple[str, str], int]
    """How many events by (status, lane), of the statuses worth counting: those that are not done with."""
    oldest_pending_seconds: float
    """Age of the event that waits longest; 0 when none does."""
    slots_held: int
    slots_free: int
    forecast_requests: int
    """Requests still to be sent, after superseding."""
    forecast_seconds: float
    """Until they are sent, at this quota."""


def outbox_metrics(destinations: Mapping[str, DestinationGauges]) -> list[Metric]:
    """The outbox's gauges, by the destination's name; read them from the database when asked for metrics."""
    events = GaugeMetricFamily(
        "relay_events", "Events that are not done with.", labels=["destination", "status", "lane"]
    )
    oldest = GaugeMetricFamily(
        "relay_oldest_pending_seconds", "Age of the event that waits longest.", labels=["destination"]
    )
    slots = GaugeMetricFamily("relay_quota_slots", "Requests of the quota's window.", labels=["destination", "state"])
    state = GaugeMetricFamily(
        "relay_destination_state", "1 for the state that it is in.", labels=["destination", "state"]
    )
    requests = GaugeMetricFamily(
        "relay_forecast_requests", "Requests still to be sent, after superseding.", labels=["destination"]
    )
    seconds = GaugeMetricFamily(
        "relay_forecast_seconds", "Seconds until they are sent, at this quota.", labels=["destination"]
    )
    for name, gauges in destinations.items():
        for (status, lane), count in gauges.events.items():
            events.add_metric([name, status, lane], count)
        oldest.add_metric([name], gauges.oldest_pending_seconds)
        slots.add_metric([name, "held"], gauges.slots_held)
        slots.add_metric([name, "free"], gauges.slots_free)
        for known in gauges.states:
            state.add_metric([name, known], float(known == gauges.state))
        requests.add_metric([name], gauges.forecast_requests)
        seconds.add_metric([name], gauges.forecast_seconds)
    return [events, oldest, slots, state, requests, seconds]


def counted() -> dict[tuple[str, str], float]:
    """What this process has counted so far, by (sample's name, labels as JSON with sorted keys)."""
    return {
        (sample.name, json.dumps(sample.labels, sort_keys=True)): sample.value
        for family in _process.collect()
        for sample in family.samples
    }


def counter_metrics(totals: Mapping[tuple[str, str], float]) -> list[Metric]:
    """The counters and the histogram of all processes, from their totals in the shape of `counted`."""
    families = list(_process.collect())
    # Of a histogram every bucket is told, those with nothing in them, too.
    known = dict.fromkeys(((name, labels) for name, labels in counted() if "le" in json.loads(labels)), 0.0)
    samples = [Sample(name, json.loads(labels), value) for (name, labels), value in {**known, **totals}.items()]
    for family in families:
        names = {family.name + ending for ending in ("_total", "_bucket", "_count", "_sum")}
        family.samples = sorted((sample for sample in samples if sample.name in names), key=_place)
    return families


def _place(sample: Sample) -> tuple[str, list[tuple[str, str]], float]:
    labels = [(name, value) for name, value in sorted(sample.labels.items()) if name != "le"]
    return sample.name, labels, float(sample.labels.get("le", 0))


def render(metrics: Iterable[Metric]) -> bytes:
    """Metrics as Prometheus text (CONTENT_TYPE)."""
    registry = CollectorRegistry()
    registry.register(_Given(metrics))
    return generate_latest(registry)


class _Given:
    """Metrics that are there already, in the shape that a registry asks for."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self.collect: Callable[[], Iterable[Metric]] = lambda: metrics
