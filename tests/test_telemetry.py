"""Logs that can be searched and never tell a secret; metrics that are right for any number of processes."""

import io
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from relay.telemetry import (
    DestinationGauges,
    configure_logging,
    count_attempt,
    count_webhook,
    counted,
    counter_metrics,
    outbox_metrics,
    render,
)

SECRET = 's3cr3t-änd-"quoted"'

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()  # pytest's own would be closed by the set-up
    yield
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def lines() -> Lines:
    """Set up JSON logging; the call gives the lines so far."""
    stream = io.StringIO()
    configure_logging(json=True, secrets=[SECRET, "short"], stream=stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def log() -> Any:
    return structlog.get_logger()


# --- lines


def test_a_line_is_json_with_its_word_level_and_time(lines: Lines) -> None:
    log().info("attempt", status=202, message="Compass took it")
    [line] = lines()
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line == {"level": "info", "event": "attempt", "status": 202, "message": "Compass took it"}


def test_what_is_bound_to_the_request_is_on_its_lines(lines: Lines) -> None:
    with structlog.contextvars.bound_contextvars(request="r-1"):
        log().info("webhook.received")
    assert lines()[0]["request"] == "r-1"


def test_an_exception_is_told_without_its_local_variables(lines: Lines) -> None:
    def fail() -> None:
        hidden = "x" * 3 + "local"
        raise ValueError(f"wrong {len(hidden)}")

    try:
        fail()
    except ValueError:
        log().exception("attempt.failed")
    [line] = lines()
    assert "ValueError: wrong 8" in line["exception"]
    assert "xxxlocal" not in line["exception"]


def test_libraries_lines_are_ours() -> None:
    logger = logging.getLogger("gunicorn.error")
    logger.addHandler(logging.StreamHandler(sys.stdout))
    logger.propagate = False
    stream = io.StringIO()
    configure_logging(json=True, secrets=[SECRET], stream=stream)
    logger.warning("worker %s says %s", 7, SECRET)
    line = json.loads(stream.getvalue())
    assert line.pop("timestamp")
    assert line == {
        "level": "warning",
        "event": "library",
        "logger": "gunicorn.error",
        "message": "worker 7 says ***",
    }


def test_warnings_are_lines(lines: Lines) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)  # inside pytest's own handling of warnings
        warnings.warn("mind the gap", stacklevel=1)
    assert "mind the gap" in lines()[-1]["message"]


def test_lines_below_the_level_are_left_out() -> None:
    stream = io.StringIO()
    configure_logging(json=True, level="warning", stream=stream)
    log().info("quiet")
    logging.getLogger("alembic").info("quiet")
    log().warning("loud")
    logging.getLogger("alembic").warning("loud")
    assert [json.loads(line)["level"] for line in stream.getvalue().splitlines()] == ["warning", "warning"]


def test_a_second_set_up_replaces_the_first(lines: Lines) -> None:
    stream = io.StringIO()
    configure_logging(json=True, stream=stream)
    log().info("one")
    logging.getLogger("x").warning("two")
    assert lines() == []
    assert len(stream.getvalue().splitlines()) == 2


def test_people_at_a_terminal_read_text() -> None:
    stream = io.StringIO()
    configure_logging(json=False, secrets=[SECRET], stream=stream)
    log().info("attempt", status=202, token="abc", note=SECRET)
    text = stream.getvalue()
    assert "attempt" in text
    assert "status=202" in text
    assert "abc" not in text
    assert SECRET not in text
    assert "\x1b" not in text, "colours are for terminals"


def test_a_terminal_gets_colours() -> None:
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        configure_logging(json=False, stream=terminal)
        log().info("attempt")
        assert b"\x1b[" in screen.read(1000)


# --- secrets and bodies


@pytest.mark.parametrize(
    "key",
    ["token", "COMPASS_API_TOKEN", "secret", "password", "Authorization", "x-hub-signature", "Cookie", "api_key"],
)
def test_a_value_is_masked_when_its_key_sounds_like_a_secret(lines: Lines, key: str) -> None:
    log().info("x", **{key: "abc"}, headers={key: "abc"}, several=[{key: "abc"}])
    [line] = lines()
    assert line[key] == line["headers"][key] == line["several"][0][key] == "***"


@pytest.mark.parametrize("key", ["body", "raw", "Body"])
@pytest.mark.parametrize("value", ["{}", b"{}", {"incident": 1}])
def test_bodies_are_refused(lines: Lines, key: str, value: Any) -> None:
    log().info("x", **{key: value}, inner={key: value}, bytes_are=b"12345")
    [line] = lines()
    assert line[key] == line["inner"][key] == "(left out)"
    assert line["bytes_are"] == "(5 bytes)"


def test_a_known_secret_is_masked_wherever_it_turns_up(lines: Lines) -> None:
    class Odd:
        def __str__(self) -> str:
            return f"Odd({SECRET})"

    try:
        int(SECRET)
    except ValueError as error:
        log().exception(f"x {SECRET}", a=f"<{SECRET}>", b=[SECRET], c={SECRET: 1}, d=Odd(), e=error)
    [line] = lines()
    assert SECRET not in str(line)
    assert json.dumps(SECRET)[1:-1] not in json.dumps(line)
    assert line["d"] == "Odd(***)"


@pytest.mark.parametrize("character", [*map(chr, range(128)), "\N{LINE SEPARATOR}", "\N{GRINNING FACE}", "\ud800"])
def test_a_secret_is_masked_however_its_characters_are_written(character: str) -> None:
    secret = f"abc{character}defg"
    written = io.StringIO()
    configure_logging(json=True, secrets=[secret], stream=written)
    log().info("x", plain=f"<{secret}>", beside=f"\N{SNOWMAN}{secret}", inner=[secret])
    line = json.loads(written.getvalue())
    assert (line["plain"], line["beside"], line["inner"]) == ("<***>", "\N{SNOWMAN}***", ["***"])


def test_very_short_secrets_do_not_make_the_log_unreadable(lines: Lines) -> None:
    log().info("short", note="a short note")
    assert lines()[0]["note"] == "a short note"


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.just(SECRET)),
    lambda inner: st.one_of(
        st.lists(inner), st.dictionaries(st.one_of(st.text(), st.just(SECRET), st.integers()), inner)
    ),
)


@settings(max_examples=50)
@given(value=anything, key=st.text().filter(lambda key: key not in ("event", "self")))
def test_anything_at_all_becomes_one_line_without_the_secret(value: Any, key: str) -> None:
    stream = io.StringIO()
    configure_logging(json=True, secrets=[SECRET], stream=stream)
    log().info("x", **{key: value})
    [line] = stream.getvalue().splitlines()
    assert json.loads(line)["event"] == "x"
    assert SECRET not in line
    assert json.dumps(SECRET)[1:-1] not in line


def test_a_structure_without_end_is_cut(lines: Lines) -> None:
    loop: list[Any] = []
    loop.append(loop)
    log().info("x", loop=loop)
    assert lines()[0]["event"] == "x"


# --- a log that cannot be written fails nothing


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("trouble", ["closed", "full"])
def test_logging_to_a_broken_stream_is_silent(as_json: bool, trouble: str, capfd: pytest.CaptureFixture[str]) -> None:
    with suppress(OSError), Path("/dev/full").open("w") as stream:
        configure_logging(json=as_json, stream=stream)
        if trouble == "closed":
            stream.close()
        log().info("attempt")
        logging.getLogger("alembic").warning("hm")
    assert capfd.readouterr() == ("", "")


def test_a_stream_that_only_takes_ascii_gets_the_line_escaped() -> None:
    raw = io.BytesIO()
    configure_logging(json=False, stream=io.TextIOWrapper(raw, encoding="ascii"))
    log().info("attempt", note="zoë")
    assert b"zo\\xeb" in raw.getvalue()


# --- metrics


def samples(text: bytes) -> dict[str, float]:
    """Values by `name{label=value,...}`."""
    return {
        sample.name + ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_what_is_counted_is_told_by_source_destination_and_outcome() -> None:
    before = counted()
    count_webhook(source="acme", status="translated", seconds=0.004)
    count_webhook(source="acme", status="translated", seconds=0.2)
    count_attempt(destination="compass", outcome="delivered")
    grown = {series: value - before.get(series, 0.0) for series, value in counted().items()}
    told = samples(render(counter_metrics(grown)))
    assert told["relay_webhooks_totalsource=acme,status=translated"] == 2
    assert told["relay_attempts_totaldestination=compass,outcome=delivered"] == 1
    assert told["relay_intake_seconds_count"] == 2
    assert told["relay_intake_seconds_bucketle=0.005"] == 1
    assert told["relay_intake_seconds_bucketle=+Inf"] == 2
    assert told["relay_intake_seconds_sum"] == pytest.approx(0.204)


def test_every_bucket_is_told_before_anything_is_counted() -> None:
    text = render(counter_metrics({})).decode()
    assert len(re.findall(r"^relay_intake_seconds_bucket.* 0\.0$", text, re.MULTILINE)) == 13
    assert "# TYPE relay_webhooks_total counter" in text


def test_what_a_later_release_no_longer_counts_is_not_told() -> None:
    totals = {("relay_forgotten_total", "{}"): 3.0, ("relay_webhooks_total", '{"source": "a", "status": "b"}'): 4.0}
    told = samples(render(counter_metrics(totals)))
    assert told["relay_webhooks_totalsource=a,status=b"] == 4
    assert not any("forgotten" in name for name in told)


def test_unknown_sources_share_one_label() -> None:
    for _ in range(3):
        count_webhook(source=None, status="unknown_source", seconds=0.001)
    sources = [labels for name, labels in counted() if "webhooks" in name and "unknown_source" in labels]
    assert sources == ['{"source": "(unknown)", "status": "unknown_source"}']


GAUGES = DestinationGauges(
    state="down",
    states=("open", "paused", "down"),
    events={("pending", "urgent"): 3, ("dead", "low"): 1},
    oldest_pending_seconds=12.5,
    slots_held=40,
    slots_free=60,
    forecast_requests=2,
    forecast_seconds=1.2,
)


def test_the_outbox_is_told_by_destination() -> None:
    told = samples(render(outbox_metrics({"compass": GAUGES})))
    assert {
        name: value for name, value in told.items() if "destination=compass" in name and "attempts" not in name
    } == {
        "relay_eventsdestination=compass,lane=urgent,status=pending": 3,
        "relay_eventsdestination=compass,lane=low,status=dead": 1,
        "relay_oldest_pending_secondsdestination=compass": 12.5,
        "relay_quota_slotsdestination=compass,state=held": 40,
        "relay_quota_slotsdestination=compass,state=free": 60,
        "relay_destination_statedestination=compass,state=open": 0,
        "relay_destination_statedestination=compass,state=paused": 0,
        "relay_destination_statedestination=compass,state=down": 1,
        "relay_forecast_requestsdestination=compass": 2,
        "relay_forecast_secondsdestination=compass": 1.2,
    }
