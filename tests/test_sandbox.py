"""The sandbox Compass over real HTTP: every row of the contract, and every way it goes wrong on purpose."""

import itertools
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from relay.contract import KINDS, Field, Value, fields_of
from relay.contract.identity import identify
from relay.destinations import stopwatch
from relay.destinations.compass import CompassDestination
from relay.dispatch.quota import Quota
from relay.errors import ConfigError
from relay.model import Claim
from relay.sandbox.compass import Compass, Effect, SandboxConfig, Submission, Verdict, examine
from relay.sandbox.server import Sandbox, running_sandbox
from relay.sandbox.sources import read_sources
from relay.sandbox.web import EVENTS_PATH

WHO = ("relay@example.com", "token")


def minimal(field: Field, name: str = "x") -> Any:
    """A valid value with nothing but what is required."""
    match field.value:
        case Value.OBJECT:
            return {key: minimal(one, key) for key, one in (field.members or {}).items() if one.required}
        case Value.DATE:
            return "2026-10-01T10:00:00Z"
        case Value.INTEGER:
            return 5
        case Value.NUMBER:
            return 1.5
    return field.enum[0] if field.enum else "https://example.com/1" if field.url else name


def event(kind: str = "incident", **changes: Any) -> dict[str, Any]:
    return {kind: {**minimal(fields_of(kind)), **changes}}


def incident(number: int = 5, *, id: str = "P1", **changes: Any) -> dict[str, Any]:  # noqa: A002 - Compass's word
    properties = {"id": id, "state": "OPEN", "startTime": "2026-10-01T10:00:00Z"}
    return event(updateSequenceNumber=number, incidentProperties=properties, **changes)


def pull_request(date: str) -> dict[str, Any]:
    return event("pullRequest", lastUpdated=date)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with running_sandbox(rng=random.Random(1)) as running:
        yield running


def post(
    to: Sandbox,
    what: Any,
    *,
    user: tuple[str, str] | None = WHO,
    component: str | None = None,
    timeout: float = 10,
) -> requests.Response:
    """One request as the relay makes them."""
    body = {"cloudId": "cloud", "event": what} | ({} if component is None else {"componentId": component})
    return requests.post(
        to.url + EVENTS_PATH, json=body, auth=user or _Nobody(), timeout=timeout, allow_redirects=False
    )


def post_raw(to: Sandbox, body: bytes | str, **headers: str) -> requests.Response:
    headers = {"Content-Type": "application/json", **headers}
    return requests.post(to.url + EVENTS_PATH, data=body, auth=WHO, headers=headers, timeout=10)


class _Nobody(requests.auth.AuthBase):
    """No credentials, not even those of a .netrc."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def effects(sandbox: Sandbox) -> list[Effect]:
    return [one.effect for one in sandbox.requests()]


# --- what is taken


@pytest.mark.parametrize("kind", KINDS)
def test_a_valid_event_of_every_kind_is_answered_202_without_a_body_and_shown(sandbox: Sandbox, kind: str) -> None:
    answer = post(sandbox, event(kind), component="ari:1")
    assert (answer.status_code, answer.content) == (202, b"")
    assert "Content-Type" not in answer.headers
    [shown] = requests.get(f"{sandbox.url}/sandbox/events", timeout=10).json()
    assert shown["event"] == event(kind)
    assert (shown["kind"], shown["component"], shown["updates"]) == (kind, "ari:1", 1)


def test_a_request_is_told_with_what_it_was_about(sandbox: Sandbox) -> None:
    before = time.time_ns() // 1_000_000
    post(sandbox, incident(7), component="ari:1")
    [seen] = requests.get(f"{sandbox.url}/sandbox/requests", timeout=10).json()
    assert before - 1 <= seen.pop("at") <= time.time_ns() // 1_000_000 + 1
    assert seen == {
        "user": "relay@example.com",
        "status": 202,
        "effect": "stored",
        "error": None,
        "faulty": False,
        "kind": "incident",
        "entity": "P1",
        "state": "OPEN",
        "source": "externalEventSourceId",
        "component": "ari:1",
        "number": 7,
    }


@pytest.mark.parametrize(
    ("kind", "state"),
    [("build", "IN_PROGRESS"), ("pullRequest", "CREATED"), ("lifecycle", "PRE_RELEASE"), ("push", None)],
)
def test_the_state_of_an_entity_is_told_whatever_its_kind_calls_it(
    sandbox: Sandbox, kind: str, state: str | None
) -> None:
    post(sandbox, event(kind))
    assert [one.state for one in sandbox.requests()] == [one.state for one in sandbox.events()] == [state]


def test_what_changed_last_is_shown_last(sandbox: Sandbox) -> None:
    for number, name in ((1, "P1"), (2, "P2"), (3, "P1")):
        post(sandbox, incident(number, id=name))
    assert [one.entity for one in sandbox.events()] == ["P2", "P1"]


def test_kinds_that_are_null_count_as_absent(sandbox: Sandbox) -> None:
    assert post(sandbox, incident() | {"build": None}).status_code == 202


def test_the_destination_of_the_relay_and_the_sandbox_understand_each_other(sandbox: Sandbox) -> None:
    destination = CompassDestination(url=sandbox.url, cloud_id="c", email="relay@example.com", token=SecretStr("t"))
    claim = Claim(
        event=1,
        attempt=1,
        token="lease",
        destination="compass",
        type="incident",
        component="ari:1",
        body=incident(5),
        number=6,
        failures=0,
        claimed_at=0,
        lease_until=30_000,
        trigger="auto",
    )
    taken = destination.send(claim, age=stopwatch())
    sandbox.fail({"retry_after": 7})
    limited = destination.send(claim, age=stopwatch())
    sandbox.fail({"status": 403, "html": True})
    strange = destination.send(claim, age=stopwatch())
    sandbox.fail({"type": "STORE_CONFLICT_EXCEPTION"})
    refused = destination.send(claim, age=stopwatch())
    destination.close()
    assert (taken.status, limited.status, limited.retry_after) == (202, 429, 7)
    assert (strange.status, strange.html) == (403, True)
    assert (refused.status, refused.error) == (400, "STORE_CONFLICT_EXCEPTION")
    assert [one.number for one in sandbox.events()] == [6]


# --- what is refused


def test_without_credentials_nothing_is_taken(sandbox: Sandbox) -> None:
    for answer in (
        post(sandbox, incident(), user=None),
        post(sandbox, incident(), user=("", "")),
        post(sandbox, incident(), user=("somebody", "")),
        requests.post(sandbox.url + EVENTS_PATH, headers={"Authorization": "Bearer x"}, auth=_Nobody(), timeout=10),
        requests.post(sandbox.url + EVENTS_PATH, headers={"Authorization": "Basic §"}, auth=_Nobody(), timeout=10),
    ):
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert {(one.user, one.status, one.effect) for one in sandbox.requests()} == {(None, 401, Effect.REFUSED)}
    assert sandbox.events() == []


def test_with_credentials_set_only_those_are_taken() -> None:
    with running_sandbox(SandboxConfig(email="a@example.com", token=SecretStr("right"))) as sandbox:
        users = [("a@example.com", "right"), ("a@example.com", "wrong"), ("b@example.com", "right")]
        assert [post(sandbox, incident(), user=user).status_code for user in users] == [202, 401, 401]


def test_another_content_type_is_answered_415(sandbox: Sandbox) -> None:
    answer = post_raw(sandbox, json.dumps({"cloudId": "c", "event": incident()}), **{"Content-Type": "text/plain"})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"[]", b'"text"', b"{} {}", b'{"cloudId": NaN}', b"[" * 100_000, b'{"a": 1' + b"0" * 5000],
    ids=["nothing", "half", "no UTF-8", "array", "text", "two", "NaN", "deep", "long number"],
)
def test_a_body_that_is_no_json_object_is_answered_400(sandbox: Sandbox, body: bytes) -> None:
    answer = post_raw(sandbox, body)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["type"] == "FORMAT_INVALID"


WITHOUT_PROPERTIES = {name: value for name, value in event("alert")["alert"].items() if name != "alertProperties"}


def changed(**changes: Any) -> dict[str, Any]:
    """The body of a request with these members; those that are None are left out."""
    body = {"cloudId": "cloud", "event": incident(), **changes}
    return {name: value for name, value in body.items() if value is not None}


@pytest.mark.parametrize(
    ("type_", "place", "body"),
    [
        ("FIELD_MISSING", "/cloudId", changed(cloudId=None)),
        ("CLOUD_ID_INVALID", "/cloudId", changed(cloudId="")),
        ("CLOUD_ID_INVALID", "/cloudId", changed(cloudId=7)),
        ("COMPONENT_ARI_INVALID", "/componentId", changed(componentId="")),
        ("ARGUMENT_INVALID", "/colour", changed(colour="red")),
        ("FIELD_MISSING", "/event", changed(event=None)),
        ("FORMAT_INVALID", "/event", changed(event=[])),
        ("ONE_OF_DIRECTIVE_VALIDATION_ERROR", "/event", changed(event={})),
        ("ONE_OF_DIRECTIVE_VALIDATION_ERROR", "/event", changed(event=incident() | event("build"))),
        ("ARGUMENT_INVALID", "/event", changed(event={"accident": {}})),
        ("FIELD_MISSING", "/event/alert/alertProperties", changed(event={"alert": WITHOUT_PROPERTIES})),
        ("FORMAT_INVALID", "/event/incident/url", changed(event=incident(url="example.com"))),
        ("FORMAT_INVALID", "/event/incident/lastUpdated", changed(event=incident(lastUpdated="yesterday"))),
        ("FORMAT_INVALID", "/event/incident/description", changed(event=incident(description=""))),
        ("CONSTRAINT_VIOLATION", "/event/incident/displayName", changed(event=incident(displayName="x" * 256))),
        ("CONSTRAINT_VIOLATION", "/event/incident/updateSequenceNumber", changed(event=incident(2**63))),
    ],
)
def test_what_breaks_the_contract_is_answered_400_with_its_type_and_place(
    sandbox: Sandbox, type_: str, place: str, body: dict[str, Any]
) -> None:
    answer = post_raw(sandbox, json.dumps(body))
    assert answer.status_code == 400
    [error] = answer.json()["errors"]
    assert error["type"] == type_
    assert error["message"].startswith(f"{place}: ")
    [seen] = sandbox.requests()
    assert (seen.status, seen.effect, seen.error) == (400, Effect.REFUSED, type_)
    assert sandbox.events() == []


def test_every_error_is_told_at_once(sandbox: Sandbox) -> None:
    answer = post(sandbox, incident(url="x", lastUpdated="y"), component="")
    assert len(answer.json()["errors"]) == 3


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
almost_requests = st.fixed_dictionaries(
    {},
    optional={
        "cloudId": json_values,
        "componentId": json_values,
        "event": st.dictionaries(st.sampled_from(KINDS), json_values, max_size=2),
    },
)


@given(body=st.binary() | (json_values | almost_requests).map(json.dumps).map(str.encode))
def test_any_body_is_either_a_submission_or_refused_with_reasons(body: bytes) -> None:
    match examine(body):
        case Submission():
            pass
        case Verdict(400, Effect.REFUSED, complaints):
            assert complaints
            assert all(one.type and one.message for one in complaints)
        case other:
            pytest.fail(f"{other} is neither")


@pytest.mark.parametrize(
    ("date", "number"),
    [
        ("2026-10-01t10:00:00.123456789z", 1_790_848_800_123),
        ("2016-12-31T23:59:60Z", 1_483_228_799_000),  # Python's calendar has no leap seconds
        ("0000-01-01T00:00:00Z", -(2**63)),  # and no year 0
    ],
)
def test_every_valid_date_has_its_place_in_the_order(date: str, number: int) -> None:
    submission = examine(json.dumps({"cloudId": "c", "event": pull_request(date)}).encode())
    assert isinstance(submission, Submission)
    assert submission.number == number


def test_an_event_source_that_was_not_named_is_answered_404() -> None:
    sources = frozenset({("externalEventSourceId", "incident")})
    with running_sandbox(SandboxConfig(sources=sources)) as sandbox:
        known = post(sandbox, incident())
        another_id = post(sandbox, incident(externalEventSourceId="other"))
        another_kind = post(sandbox, event("build"))
        without_any = post(sandbox, pull_request("2026-10-01T10:00:00Z"))
    assert [one.status_code for one in (known, another_id, another_kind, without_any)] == [202, 404, 404, 202]
    assert another_id.json()["errors"][0]["type"] == "EVENT_SOURCE_NOT_FOUND"


# --- order


def test_what_is_not_newer_is_ignored_behind_a_202(sandbox: Sandbox) -> None:
    answers = [post(sandbox, incident(number)).status_code for number in (5, 5, 4, 6)]
    assert answers == [202] * 4
    assert effects(sandbox) == [Effect.STORED, Effect.IGNORED, Effect.IGNORED, Effect.STORED]
    [shown] = sandbox.events()
    assert (shown.number, shown.updates) == (6, 2)


def test_pull_requests_are_ordered_by_the_moment_of_their_last_update(sandbox: Sandbox) -> None:
    for date in ("2026-10-01T10:00:00Z", "2026-10-01T11:00:00+02:00", "2026-10-01T10:00:00.001Z"):
        assert post(sandbox, pull_request(date)).status_code == 202
    assert effects(sandbox) == [Effect.STORED, Effect.IGNORED, Effect.STORED]


def test_another_id_source_component_or_kind_is_another_entity(sandbox: Sandbox) -> None:
    post(sandbox, incident())
    post(sandbox, incident(id="P2"))
    post(sandbox, incident(externalEventSourceId="other"))
    post(sandbox, incident(), component="ari:1")
    post(sandbox, event("alert", alertProperties={"id": "P1"}))
    assert effects(sandbox) == [Effect.STORED] * 5


def test_a_deployment_is_known_by_its_pipeline_environment_and_sequence(sandbox: Sandbox) -> None:
    original = event("deployment")
    post(sandbox, original)
    for place, value in (
        (("sequenceNumber",), 6),
        (("pipeline", "pipelineId"), "b"),
        (("environment", "environmentId"), "c"),
    ):
        other = json.loads(json.dumps(original))
        inner = other["deployment"]["deploymentProperties"]
        for name in place[:-1]:
            inner = inner[name]
        inner[place[-1]] = value
        post(sandbox, other)
    post(sandbox, original)
    assert effects(sandbox) == [Effect.STORED] * 4 + [Effect.IGNORED]


IDS = ["a", 'a", "a']  # few, so that they are often equal; and one that a careless join would take for two
DATES = ["2026-10-01T10:00:00Z", "2026-10-01T12:00:00+02:00", "2026-10-01T10:00:00.001Z", "2026-10-01T09:00:00.9Z"]


def filled(field: Field) -> st.SearchStrategy[Any]:
    """Valid values that are often alike."""
    match field.value:
        case Value.OBJECT:
            members = {name: filled(one) for name, one in (field.members or {}).items() if one.required}
            return st.fixed_dictionaries(members)
        case Value.DATE:
            return st.sampled_from(DATES)
        case Value.INTEGER:
            return st.integers(1, 3)
    links = ["https://example.com/a", "https://example.com/b"]
    return st.sampled_from(field.enum or (links if field.url else IDS))


placed_events = st.tuples(
    st.sampled_from(KINDS).flatmap(lambda kind: st.fixed_dictionaries({kind: filled(fields_of(kind))})),
    st.sampled_from([None, IDS[0]]),
)


@given(one=placed_events, other=placed_events, same_kind=st.data())
def test_the_relay_and_compass_agree_on_what_is_one_entity_and_which_update_is_newer(
    one: tuple[dict[str, Any], str | None], other: tuple[dict[str, Any], str | None], same_kind: st.DataObject
) -> None:
    (kind,) = one[0]
    if same_kind.draw(st.booleans()):
        other = ({kind: same_kind.draw(filled(fields_of(kind)))}, other[1])
    seen, known = [], []
    for body, component in (one, other):
        submission = examine(json.dumps({"cloudId": "c", "event": body, "componentId": component}).encode())
        assert isinstance(submission, Submission)
        seen.append(submission)
        known.append(identify(body, component=component))
    assert (seen[0].identity == seen[1].identity) == (known[0].entity == known[1].entity)
    assert (seen[0].number > seen[1].number) == (known[0].order > known[1].order)


# --- quota


class Clock:
    """Milliseconds that stand still unless told."""

    now = 1_000_000

    def __call__(self) -> int:
        """The time."""
        return self.now


def test_the_quota_is_each_users_own_in_a_rolling_window_and_a_429_uses_none_up() -> None:
    clock = Clock()
    with running_sandbox(SandboxConfig(quota=Quota(2, 60_000)), clock=clock) as sandbox:

        def status(user: str = "a") -> int:
            return post(sandbox, incident(), user=(user, "t")).status_code

        assert status() == 202
        clock.now += 40_000
        assert [status(), status(), status("b")] == [202, 429, 202]
        clock.now += 19_999
        assert status() == 429
        clock.now += 1  # one window after the first
        assert [status(), status()] == [202, 429]
        clock.now += 40_000  # one window after the second; the 429s before do not count
        assert status() == 202


def test_a_429_has_neither_body_nor_retry_after() -> None:
    with running_sandbox(SandboxConfig(quota=Quota(1, 60_000))) as sandbox:
        post(sandbox, incident())
        answer = post(sandbox, incident(6))
    assert (answer.status_code, answer.content) == (429, b"")
    assert "Retry-After" not in answer.headers
    assert [one.number for one in sandbox.events()] == [5]


def test_concurrent_requests_get_exactly_the_quota_and_are_told_in_order() -> None:
    with running_sandbox(SandboxConfig(quota=Quota(20, 60_000))) as sandbox, ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(lambda number: post(sandbox, incident(number)).status_code, range(60)))
    assert (statuses.count(202), statuses.count(429)) == (20, 40)
    arrivals = [one.at for one in sandbox.requests()]
    assert len(arrivals) == 60
    assert arrivals == sorted(arrivals)


def test_threads_that_arrive_at_once_are_taken_one_by_one_and_told_in_their_order() -> None:
    ticks = itertools.count()

    def clock() -> int:
        now = next(ticks)
        time.sleep(now % 3 / 1000)  # so that threads overtake each other where nothing keeps them apart
        return now

    compass = Compass(SandboxConfig(quota=Quota(20, 60_000)), clock=clock)
    with ThreadPoolExecutor(4) as threads:
        verdicts = list(threads.map(lambda _: compass.receive("a", Verdict(400, Effect.REFUSED)), range(60)))
    assert [one.status for one in verdicts].count(400) == 20
    assert [one.at for one in compass.requests()] == list(range(60))


@given(
    arrivals=st.lists(st.tuples(st.integers(0, 40), st.sampled_from("ab")), max_size=60),
    limit=st.integers(1, 4),
)
def test_a_request_is_refused_exactly_when_the_window_before_it_is_full(
    arrivals: list[tuple[int, str]], limit: int
) -> None:
    clock = Clock()
    compass = Compass(SandboxConfig(quota=Quota(limit, 100)), clock=clock)
    taken: list[tuple[int, str]] = []
    for wait, user in arrivals:
        clock.now += wait
        before = sum(other == user and at > clock.now - 100 for at, other in taken)
        verdict = compass.receive(user, Verdict(400, Effect.REFUSED))
        assert verdict.status == (429 if before >= limit else 400)
        if verdict.status != 429:
            taken.append((clock.now, user))


def test_refused_requests_use_quota_up_too_and_no_fault_hides_that_it_is_used_up() -> None:
    with running_sandbox(SandboxConfig(quota=Quota(2, 60_000))) as sandbox:
        sandbox.fail({"status": 500, "times": 5})
        assert [post(sandbox, incident()).status_code for _ in range(3)] == [500, 500, 429]


# --- faults


@pytest.mark.parametrize(
    ("fault", "status", "headers", "body"),
    [
        ({"status": 500}, 500, {}, b"INTERNAL_SERVER_ERROR"),
        ({"status": 400, "type": "COMPONENT_NOT_FOUND"}, 400, {}, b"COMPONENT_NOT_FOUND"),
        ({"type": "STORE_CONFLICT_EXCEPTION"}, 400, {}, b"STORE_CONFLICT_EXCEPTION"),
        ({"status": 401}, 401, {"WWW-Authenticate": 'Basic realm="Compass"'}, b"Unauthorized"),
        ({"status": 403}, 403, {}, b"Forbidden"),
        ({"status": 429, "retry_after": 5}, 429, {"Retry-After": "5"}, b""),
        ({"status": 503, "retry_after": 5}, 503, {"Retry-After": "5"}, b"INTERNAL_SERVER_ERROR"),
        ({"html": True}, 200, {"Content-Type": "text/html; charset=utf-8"}, b"<!DOCTYPE html>"),
        ({"html": True, "status": 403}, 403, {"Content-Type": "text/html; charset=utf-8"}, b"<!DOCTYPE html>"),
        ({"redirect": "https://id.example.com/login"}, 302, {"Location": "https://id.example.com/login"}, b""),
        ({"status": 202}, 202, {}, b""),
    ],
)
def test_a_fault_answers_instead_of_compass_once(
    sandbox: Sandbox, fault: dict[str, Any], status: int, headers: Mapping[str, str], body: bytes
) -> None:
    sandbox.fail(fault)
    answer = post(sandbox, incident())
    assert answer.status_code == status
    assert headers.items() <= dict(answer.headers).items()
    assert body in answer.content
    assert bool(body) == bool(answer.content)
    [seen] = sandbox.requests()
    assert (seen.status, seen.effect, seen.faulty, seen.entity) == (status, Effect.REFUSED, True, "P1")
    assert post(sandbox, incident()).status_code == 202
    assert len(sandbox.events()) == 1


def test_a_delayed_answer_comes_late_but_the_event_has_long_taken_effect(sandbox: Sandbox) -> None:
    sandbox.fail({"delay_ms": 400})
    with ThreadPoolExecutor(1) as thread:
        began = time.monotonic()
        answer = thread.submit(post, sandbox, incident())
        while not sandbox.events():
            assert time.monotonic() < began + 0.3
            time.sleep(0.01)
        assert answer.result().status_code == 202
    assert time.monotonic() >= began + 0.4


def test_a_request_that_is_held_arrives_late(sandbox: Sandbox) -> None:
    sandbox.fail({"hold_ms": 300})
    with ThreadPoolExecutor(1) as thread:
        held = thread.submit(post, sandbox, incident(5))
        time.sleep(0.1)
        post(sandbox, incident(6))
        assert held.result().status_code == 202
    assert [(one.number, one.effect) for one in sandbox.requests()] == [(6, Effect.STORED), (5, Effect.IGNORED)]


@pytest.mark.parametrize(
    ("fault", "effect"),
    [
        ({"drop": "before"}, Effect.REFUSED),
        ({"drop": "after"}, Effect.STORED),
        ({"drop": "after", "status": 500}, Effect.STORED),
    ],
)
def test_a_dropped_connection_gives_no_answer_whether_the_event_took_effect_or_not(
    sandbox: Sandbox, fault: dict[str, Any], effect: Effect, capfd: pytest.CaptureFixture[str]
) -> None:
    sandbox.fail(fault)
    with pytest.raises(requests.ConnectionError):
        post(sandbox, incident())
    [seen] = sandbox.requests()
    assert (seen.status, seen.effect, seen.faulty, seen.number) == (None, effect, True, 5)
    assert len(sandbox.events()) == (effect is Effect.STORED)
    assert post(sandbox, incident(6)).status_code == 202
    assert capfd.readouterr() == ("", "")


def test_faults_strike_only_what_they_are_meant_for(sandbox: Sandbox) -> None:
    sandbox.fail({"status": 501, "kind": "build"}, {"status": 502, "entity": "P2"}, {"status": 503, "source": "s"})
    struck = [event("build"), incident(id="P2"), incident(externalEventSourceId="s")]
    statuses = [post(sandbox, one).status_code for one in (incident(), *struck, *struck)]
    assert statuses == [202, 501, 502, 503, 202, 202, 202]


def test_a_fault_strikes_as_often_as_it_was_told_and_the_first_that_fits_goes_first(sandbox: Sandbox) -> None:
    sandbox.fail({"status": 500, "times": 2}, {"status": 502})
    assert [post(sandbox, incident()).status_code for _ in range(4)] == [500, 500, 502, 202]


def test_a_fault_with_a_probability_strikes_a_share_of_the_requests_without_end(sandbox: Sandbox) -> None:
    sandbox.fail({"status": 500, "probability": 0.5})
    statuses = [post(sandbox, incident()).status_code for _ in range(40)]
    assert 8 < statuses.count(500) < 32


def test_a_delay_does_not_keep_other_requests_waiting(sandbox: Sandbox) -> None:
    sandbox.fail({"delay_ms": 500})
    with ThreadPoolExecutor(1) as thread:
        slow = thread.submit(post, sandbox, incident(5))
        while not sandbox.requests():
            time.sleep(0.01)
        began = time.monotonic()
        post(sandbox, incident(6))
        assert time.monotonic() - began < 0.3
        slow.result()


def test_faults_are_told_shown_and_taken_back_over_http(sandbox: Sandbox) -> None:
    url = f"{sandbox.url}/sandbox/faults"
    told = requests.post(url, json=[{"status": 500, "times": 3}, {"drop": "after", "probability": 0.1}], timeout=10)
    assert told.status_code == 201
    post(sandbox, incident())
    left = requests.get(url, timeout=10).json()
    assert left == [{"status": 500, "times": 2}, {"drop": "after", "probability": 0.1, "times": None}]
    assert requests.delete(url, timeout=10).status_code == 204
    assert requests.get(url, timeout=10).json() == []
    assert post(sandbox, incident()).status_code == 202


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"{}",
        b'[{"staus": 500}]',
        b'[{"status": 500}, {"status": "500"}]',
        b'[{"drop": "never"}]',
        b'[{"times": 0}]',
        b'[{"probability": 0}]',
    ],
)
def test_an_instruction_that_is_none_is_answered_400_and_nothing_is_told(sandbox: Sandbox, told: bytes) -> None:
    answer = requests.post(f"{sandbox.url}/sandbox/faults", data=told, timeout=10)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["message"]
    assert requests.get(f"{sandbox.url}/sandbox/faults", timeout=10).json() == []


def test_an_instruction_that_is_none_is_an_error_in_the_same_process(sandbox: Sandbox) -> None:
    with pytest.raises(ValidationError, match="staus"):
        sandbox.fail({"staus": 500})


# --- the sandbox itself


def test_reset_forgets_everything_quota_and_faults_included() -> None:
    with running_sandbox(SandboxConfig(quota=Quota(1, 60_000))) as sandbox:
        post(sandbox, incident())
        sandbox.fail({"status": 500})
        assert requests.post(f"{sandbox.url}/sandbox/reset", timeout=10).status_code == 204
        assert (sandbox.requests(), sandbox.events()) == ([], [])
        assert post(sandbox, incident()).status_code == 202
        assert effects(sandbox) == [Effect.STORED]


def test_only_so_much_is_remembered() -> None:
    with running_sandbox(SandboxConfig(keep=3)) as sandbox:
        for number in range(5):
            post(sandbox, incident(number, id=f"P{number}"))
        assert [one.number for one in sandbox.requests()] == [2, 3, 4]
        assert [one.number for one in sandbox.events()] == [2, 3, 4]


def test_a_port_that_is_taken_is_an_error_of_the_caller(sandbox: Sandbox) -> None:
    port = int(sandbox.url.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"), running_sandbox(port=port):
        pass


def test_a_sandbox_that_ends_gives_its_port_back() -> None:
    with running_sandbox() as first:
        port = int(first.url.rpartition(":")[2])
        post(first, incident())
    with running_sandbox(port=port) as second:
        assert post(second, incident()).status_code == 202


def test_it_runs_in_the_foreground_without_a_word_until_it_is_interrupted() -> None:
    program = (
        "import functools; from relay.sandbox.compass import SandboxConfig; from relay.sandbox.server import serve;"
        "serve(SandboxConfig(), port=0, ready=functools.partial(print, flush=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        url = process.stdout.readline().strip()
        assert requests.get(f"{url}/sandbox/events", timeout=10).json() == []
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


# --- the file of event sources


@pytest.mark.parametrize(
    "text",
    [
        "- {externalEventSourceId: a, eventType: INCIDENT}\n- externalEventSourceId: b\n  eventType: PULL_REQUEST\n",
        (
            '[{"externalEventSourceId": "a", "eventType": "INCIDENT"},'
            ' {"externalEventSourceId": "b", "eventType": "PULL_REQUEST"}]'
        ),
    ],
    ids=["YAML", "JSON"],
)
def test_event_sources_are_read_from_yaml_or_json(tmp_path: Path, text: str) -> None:
    file = tmp_path / "sources.yaml"
    file.write_text(text)
    assert read_sources(file) == {("a", "incident"), ("b", "pullRequest")}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "should be a valid list"),
        ("[", "is not YAML"),
        ("- {externalEventSourceId: a}", r"\[0\].eventType: Field required"),
        ("- {externalEventSourceId: 7, eventType: BUILD}", r"\[0\].externalEventSourceId: "),
        ("- {externalEventSourceId: a, eventType: build}", r"\[0\].eventType: 'build' is none of DEPLOYMENT, BUILD"),
        ("- {externalEventSourceId: a, eventType: BUILD, colour: red}", r"\[0\].colour: "),
    ],
)
def test_a_file_of_event_sources_that_is_wrong_says_where(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "sources.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_sources(file)


def test_a_file_of_event_sources_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        read_sources(tmp_path / "none.yaml")
