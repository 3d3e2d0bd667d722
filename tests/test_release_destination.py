"""The Release destination against the sandbox, and against servers that do what the sandbox would not."""

import base64
import itertools
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from relay.contract.calendar import KIND, check, identify
from relay.destinations import Destination, Limits, NoAnswer, stopwatch
from relay.destinations.answers import MAX_MESSAGE
from relay.destinations.release import MAX_LIST, ReleaseDestination, Unit, as_posted
from relay.dispatch.deliver import deliver
from relay.dispatch.health import Outcome
from relay.dispatch.policy import Delivered, Failed, Misdirected, NotSent, Refused, TooMany, judge
from relay.dispatch.quota import Quota
from relay.model import Answer, Claim, Event, EventStatus, Translated
from relay.outbox import Outbox, claims, views
from relay.outbox.migrations import migrate
from relay.sandbox.release import BLACKOUT, HOLIDAY
from relay.sandbox.server import Sandbox, running_sandbox
from tests.outboxes import store
from tests.test_compass_destination import Server, answering, drip, http, serving

PASSWORD = "very-secret=7A11"
SHORT = Limits(connect=0.5, write=0.6, total=0.8)
QUOTA = Quota(1000, 60_000)
START, END = 1_413_384_452_000, 1_413_394_452_000
OWN_TYPE = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
FREEZE: dict[str, Any] = {"name": "Freeze", "startDate": START, "endDate": END, "type": {"id": BLACKOUT}}
SHOWN: dict[str, Any] = {**FREEZE, "id": "e1", "description": "", "type": {"id": BLACKOUT, "name": "Blackout"}}


def claim(body: dict[str, Any] | None = None, *, repeat: bool = False) -> Claim:
    return Claim(
        event=1,
        attempt=1,
        token="lease",
        destination="release",
        type=KIND,
        component=None,
        body=FREEZE if body is None else body,
        number=1,
        failures=0,
        claimed_at=0,
        lease_until=30_000,
        trigger="auto",
        repeat=repeat,
    )


def release(url: str, *, unit: Unit = "ms", limits: Limits = SHORT) -> ReleaseDestination:
    return ReleaseDestination(url=url, user="admin", password=SecretStr(PASSWORD), unit=unit, limits=limits)


def send(destination: Destination, body: dict[str, Any] | None = None, *, repeat: bool = False) -> Answer:
    return destination.send(claim(body, repeat=repeat), age=stopwatch())


def exchange(*answers: bytes, repeat: bool = False) -> tuple[Answer, list[str]]:
    """The answer to one claim, and the requests it took, where a server answers each request with the next of these."""
    with serving(answering(*answers)) as server:
        answer = send(release(server.url), repeat=repeat)
    return answer, [first.split("?")[0] for first, _, _ in server.requests]


def shows(*events: Any, status: int = 200, **headers: str) -> bytes:
    """A list of events as an answer."""
    return http(status, json.dumps(events).encode(), Content_Type="application/json", **headers)


def created(**changes: Any) -> bytes:
    return http(201, json.dumps({**SHOWN, **changes}).encode(), Content_Type="application/json")


POST, GET = "POST /events/", "GET /events/"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with running_sandbox() as running:
        yield running


# --- the request


def test_a_request_is_what_the_contract_asks_for() -> None:
    with serving(answering(created())) as server:
        answer = send(release(server.url + "/"), {**FREEZE, "description": ""})
    assert (answer.status, answer.error, answer.message) == (201, None, "is there as e1")
    [(first, headers, body)] = server.requests
    assert first == "POST /events/?format=list HTTP/1.1"
    assert headers["authorization"] == f"Basic {base64.b64encode(f'admin:{PASSWORD}'.encode()).decode()}"
    assert headers["content-type"] == headers["accept"] == "application/json"
    assert "cookie" not in headers
    assert json.loads(body) == {**FREEZE, "description": ""}


def test_dates_are_sent_in_the_unit_of_the_server(sandbox: Sandbox) -> None:
    in_seconds = release(sandbox.release_url, unit="s")
    answers = [send(release(sandbox.release_url)), send(in_seconds)]
    assert [(answer.status, answer.error) for answer in answers] == [(201, None)] * 2
    dates = [(one["startDate"], one["endDate"]) for one in sandbox.calendar()]
    assert dates == [(START, END), (START // 1000, END // 1000)]
    assert send(in_seconds, repeat=True).status == 200, "it is found in the same unit"


def test_half_a_second_is_cut_off_for_a_server_that_counts_in_seconds() -> None:
    assert as_posted({**FREEZE, "startDate": START + 999}, unit="s")["startDate"] == START // 1000


def test_what_the_contract_takes_is_made_by_the_sandbox_as_it_was_sent(sandbox: Sandbox) -> None:
    event = {**FREEZE, "name": "Größe 100 % & 'mehr' <b> 🦊", "description": "zwei\nZeilen", "type": {"id": HOLIDAY}}
    assert check(event) == ()
    answer = send(release(sandbox.release_url), event)
    [made] = sandbox.calendar()
    assert (answer.status, answer.error, answer.message) == (201, None, f"is there as {made['id']}")
    assert {name: made[name] for name in event if name != "type"} | {"type": event["type"]} == event


def test_every_call_carries_credentials_and_no_cookie_so_that_writes_are_never_refused(sandbox: Sandbox) -> None:
    """The sandbox sets a session's cookies and answers 403 to writes that bring them back without the key."""
    destination = release(sandbox.release_url)
    answers = [send(destination, {**FREEZE, "name": f"Freeze {number}"}, repeat=number > 1) for number in range(4)]
    assert [answer.status for answer in answers] == [201] * 4


# --- the reply


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"endDate": END // 1000}, f"is there as e1; endDate differs: sent as {END}, shown as {END // 1000}"),
        ({"type": {"id": HOLIDAY}}, f"is there as e1; type differs: sent as {BLACKOUT}, shown as {HOLIDAY}"),
        ({"type": None}, f"is there as e1; type differs: sent as {BLACKOUT}, shown as None"),
        ({"name": "freeze"}, "is there as e1; name differs"),
        ({"description": "other"}, "is there as e1; description differs"),
    ],
)
def test_what_is_shown_otherwise_than_it_was_sent_is_told_without_quoting_texts_and_counts_as_delivered(
    changes: dict[str, Any], told: str
) -> None:
    with serving(answering(created(**{"description": "private", **changes}))) as server:
        answer = send(release(server.url), {**FREEZE, "description": "private"})
    assert (answer.status, answer.error, answer.message) == (201, "NOT_AS_SENT", told)
    assert judge(answer) == Delivered()


@pytest.mark.parametrize("type_", [OWN_TYPE, OWN_TYPE.upper(), {"id": OWN_TYPE.upper(), "name": "Migration"}])
@pytest.mark.parametrize("repeat", [False, True])
def test_a_type_is_the_same_whatever_the_case_of_its_id_and_whether_it_is_expanded(type_: Any, repeat: bool) -> None:
    shown = {**SHOWN, "type": type_}
    with serving(answering(shows(shown) if repeat else created(**shown))) as server:
        answer = send(release(server.url), {**FREEZE, "type": {"id": OWN_TYPE}}, repeat=repeat)
    assert (answer.error, len(server.requests)) == (None, 1)


def test_a_long_reply_is_read_whole() -> None:
    description = "x" * 200_000
    with serving(answering(created(description=description))) as server:
        answer = send(release(server.url), {**FREEZE, "description": description})
    assert (answer.status, answer.error) == (201, None)


def test_a_reply_of_200_and_one_in_an_array_are_understood() -> None:
    for reply in (http(200, json.dumps(SHOWN).encode()), shows(SHOWN, status=201)):
        answer, _ = exchange(reply)
        assert (answer.error, answer.message) == (None, "is there as e1")
        assert judge(answer) == Delivered()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"created"', b"{}", b"[7]", b"[" * 100_000])
def test_created_is_believed_though_the_reply_does_not_show_the_event(body: bytes) -> None:
    answer, _ = exchange(http(201, body))
    assert (answer.status, answer.error) == (201, "NOT_COMPARED")
    assert judge(answer) == Delivered()


@pytest.mark.parametrize("reply", [http(200), http(200, b"{}"), http(202, b"{}"), http(204)])
def test_another_success_without_the_event_proves_nothing(reply: bytes) -> None:
    answer, _ = exchange(reply)
    assert (answer.status, answer.error) == (None, NoAnswer.UNREADABLE)
    verdict = judge(answer)
    assert isinstance(verdict, Failed)
    assert verdict.may_have_arrived


@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (http(401), Misdirected),
        (http(403, b"not yours"), Misdirected),
        (http(404), Misdirected),
        (http(405), Misdirected),
        (http(302, Location="/login"), Misdirected),
        (http(200, b"<html><title>Log in</title>"), Misdirected),
        (http(201, b"<html><title>Log in</title>"), Misdirected),
        (http(429, Retry_After="7"), TooMany),
        (http(408), Failed),
        (http(500), Failed),
        (http(503, b"<html>"), Failed),
    ],
)
def test_an_answer_that_says_nothing_about_the_event_means_the_same_to_a_look_and_to_a_post(
    reply: bytes, verdict: type, repeat: bool
) -> None:
    answer, requests = exchange(reply, repeat=repeat)
    assert isinstance(judge(answer), verdict), answer
    assert requests == [f"{GET if repeat else POST}"]


@pytest.mark.parametrize("repeat", [False, True])
def test_a_server_that_asks_for_time_is_given_it(repeat: bool) -> None:
    answer, _ = exchange(http(503, Retry_After="9"), repeat=repeat)
    assert (answer.status, answer.retry_after) == (503, 9)


def test_a_refused_event_is_a_dead_letter_with_what_the_server_said() -> None:
    answer, _ = exchange(http(400, b"endDate:\nis before startDate"))
    assert (answer.status, answer.error, answer.message) == (400, None, "endDate: is before startDate")
    assert isinstance(judge(answer), Refused)


def test_an_unknown_type_is_refused_by_the_sandbox(sandbox: Sandbox) -> None:
    answer = send(release(sandbox.release_url), {**FREEZE, "type": {"id": "00000000-0000-1100-0000-0000000000ff"}})
    assert answer.status == 400
    assert isinstance(judge(answer), Refused)


def test_wrong_credentials_and_a_wrong_url_are_told_with_what_to_do(sandbox: Sandbox) -> None:
    nobody = ReleaseDestination(url=sandbox.release_url, user="", password=SecretStr(""), limits=SHORT)
    wrong_credentials, wrong_url = judge(send(nobody)), judge(send(release(sandbox.url)))
    assert isinstance(wrong_credentials, Misdirected)
    assert "password right?" in wrong_credentials.reason
    assert isinstance(wrong_url, Misdirected)
    assert "is the URL right?" in wrong_url.reason
    plain, _ = exchange(http(404, b"Not Found"))
    assert judge(plain) == Misdirected(
        "answered 404: NO_CALENDAR: Not Found: is RELEASE_URL the base of the server, without /events/?"
    )


# --- looking before posting again


def test_an_event_that_is_sent_for_the_first_time_is_not_looked_for(sandbox: Sandbox) -> None:
    send(release(sandbox.release_url))
    assert [one.method for one in sandbox.calls()] == ["POST"]


def test_a_repeat_finds_the_event_whose_answer_was_lost_and_does_not_post_it_again(sandbox: Sandbox) -> None:
    destination = release(sandbox.release_url)
    sandbox.fail({"drop": "after"})
    assert send(destination).status is None
    [made] = sandbox.calendar()
    answer = send(destination, repeat=True)
    assert (answer.status, answer.error, answer.message) == (200, None, f"was there as {made['id']}")
    assert judge(answer) == Delivered()
    assert sandbox.calendar() == [made]


def test_a_repeat_whose_event_never_arrived_posts_it(sandbox: Sandbox) -> None:
    destination = release(sandbox.release_url)
    sandbox.fail({"drop": "before"})
    assert send(destination).status is None
    assert send(destination, repeat=True).status == 201
    assert [one.method for one in sandbox.calls()] == ["POST", "GET", "POST"]
    assert len(sandbox.calendar()) == 1


@pytest.mark.parametrize(
    "name",
    ["Größe 100 %", "a & b = c + d?", "100_%", "'; --", "🦊" * 200, "x" * 255, " spaces ", "\\", "a\nb"],
)
def test_an_event_is_found_whatever_its_name_is(sandbox: Sandbox, name: str) -> None:
    destination = release(sandbox.release_url)
    assert send(destination, {**FREEZE, "name": name}).status == 201
    assert send(destination, {**FREEZE, "name": name}, repeat=True).status == 200


def test_a_name_that_no_address_can_hold_stops_nobody(sandbox: Sandbox) -> None:
    """The contract refuses half a surrogate pair; should one get here all the same, it is sent."""
    assert send(release(sandbox.release_url), {**FREEZE, "name": "\ud83d"}, repeat=True).status == 201


@pytest.mark.parametrize(
    "other", [{"name": "Freezer"}, {"startDate": START - 1}, {"endDate": END + 1}, {"type": {"id": HOLIDAY}}]
)
def test_another_event_is_not_taken_for_it(sandbox: Sandbox, other: dict[str, Any]) -> None:
    destination = release(sandbox.release_url)
    send(destination, {**FREEZE, **other})
    assert send(destination, repeat=True).status == 201
    assert len(sandbox.calendar()) == 2


def test_one_that_differs_in_its_description_only_is_taken_for_it_and_told(sandbox: Sandbox) -> None:
    destination = release(sandbox.release_url)
    send(destination, {**FREEZE, "description": "old"})
    answer = send(destination, {**FREEZE, "description": "new"}, repeat=True)
    assert (answer.status, answer.error) == (200, "NOT_AS_SENT")
    assert len(sandbox.calendar()) == 1


def test_the_list_is_asked_for_the_name_alone() -> None:
    with serving(answering(shows(), created())) as server:
        send(release(server.url), {**FREEZE, "name": "A & B"}, repeat=True)
    assert server.requests[0][0] == (
        "GET /events/?format=list&filterFields=name&filterType_name=like&filterClass_name=String"
        "&filterValue_name=A+%26+B HTTP/1.1"
    )


def test_a_server_that_does_not_filter_is_searched_all_the_same() -> None:
    """Larger than any other answer that is read."""
    others = [{**SHOWN, "id": str(number), "name": f"Other {number}"} for number in range(2000)]
    assert len(json.dumps(others)) > 200_000
    answer, requests = exchange(shows(*others, SHOWN), repeat=True)
    assert (answer.message, requests) == ("was there as e1", [GET])


@pytest.mark.parametrize(
    "reply",
    [
        http(400, b"no such filter"),
        http(200, b"[{"),
        http(200, b'{"items": []}'),
        http(204),
        shows(Content_Range="items 0-0/7"),
        shows({**SHOWN, "name": "Other"}, Content_Range="items 0-0/2"),
        http(200, b"[" + b" " * MAX_LIST + b"]"),
    ],
    ids=["400", "half", "object", "204", "more", "one of two", "too large"],
)
def test_when_the_list_cannot_be_read_to_its_end_nothing_is_posted_and_the_event_stays_alive(reply: bytes) -> None:
    with serving(answering(reply)) as server:
        answer = send(release(server.url, limits=Limits()), repeat=True)
    assert (answer.status, answer.error) == (None, NoAnswer.UNREADABLE)
    assert answer.message is not None
    assert answer.message.startswith("cannot see whether the event is there")
    assert isinstance(judge(answer), Failed)
    assert [first.split("?")[0] for first, _, _ in server.requests] == [GET]


@pytest.mark.parametrize("header", ["items 0-0/1", "items */1", "items 0-0/*", "nonsense"])
def test_a_list_that_is_whole_is_believed(header: str) -> None:
    other = {**SHOWN, "name": "Other"}
    answer, requests = exchange(shows(other, Content_Range=header), created(), repeat=True)
    assert (answer.status, requests) == (201, [GET, POST])


# --- time


def held(*seconds: float) -> Callable[[Server, socket.socket], None]:
    """Answer each request so many seconds late: an empty list to a look, and `created` to a post."""

    def handle(server: Server, connection: socket.socket) -> None:
        while server.read(connection):
            time.sleep(seconds[len(server.requests) - 1])
            connection.sendall(shows() if server.requests[-1][0].startswith("GET") else created())

    return handle


@pytest.mark.parametrize("handle", [held(1, 0), drip(b"HTTP/1.1 200 ")], ids=["silent", "dripping"])
def test_a_look_that_hangs_is_given_up_and_nothing_is_posted(handle: Callable[[Server, socket.socket], None]) -> None:
    began = time.monotonic()
    with serving(handle) as server:
        answer = send(release(server.url), repeat=True)
        took = time.monotonic() - began
    assert (answer.status, answer.error) == (None, NoAnswer.TIMEOUT)
    assert 0.4 * SHORT.total <= took < 0.4 * SHORT.total + 0.3
    assert answer.took_ms >= 0.4 * SHORT.total * 1000
    assert len(server.requests) == 1


def test_a_look_and_a_post_together_take_no_longer_than_one_request_may() -> None:
    limits = Limits(connect=2, write=5, total=5)
    began = time.monotonic()
    with serving(held(0.5, 7)) as server:
        answer = send(release(server.url, limits=limits), repeat=True)
        took = time.monotonic() - began
    assert (answer.status, answer.error) == (None, NoAnswer.TIMEOUT)
    assert limits.total <= took < limits.total + 0.35
    assert len(server.requests) == 2


def test_without_a_look_a_post_has_all_the_time() -> None:
    with serving(held(0.6)) as server:
        assert send(release(server.url)).status == 201


def test_nothing_is_posted_when_looking_took_so_long_that_the_claim_is_too_old() -> None:
    ages = iter([0.0, 0.0, SHORT.write + 0.01])
    with serving(held(0, 0)) as server:
        answer = release(server.url).send(claim(repeat=True), age=lambda: next(ages, SHORT.write + 0.01))
    assert answer.error == NoAnswer.LATE
    assert isinstance(judge(answer), NotSent)
    assert len(server.requests) == 1


# --- what must not be seen


def test_neither_password_nor_authorization_is_told_however_they_are_echoed() -> None:
    basic = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
    for repeat in (False, True):
        for reply in (
            http(401, f"{basic} is not {PASSWORD}".encode()),
            http(400, f"{basic} is not {PASSWORD}".encode()),
            created(id=f"{PASSWORD} {basic}"),
        ):
            answer, _ = exchange(reply, repeat=repeat)
            assert PASSWORD not in repr(answer)
            assert basic not in repr(answer)


def test_the_password_is_not_in_the_destinations_repr() -> None:
    destination = release("http://127.0.0.1:1")
    assert PASSWORD not in repr(destination)
    assert PASSWORD not in repr(vars(destination))


def test_a_long_message_is_cut_and_read_in_no_time() -> None:
    began = time.monotonic()
    answer, _ = exchange(http(400, b"<title" * 50_000))
    assert answer.message is not None
    assert len(answer.message) == MAX_MESSAGE
    assert time.monotonic() - began < 1


def test_nobody_at_home_is_a_failed_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for repeat in (False, True):
        answer = send(release(f"http://127.0.0.1:{port}"), repeat=repeat)
        assert (answer.status, answer.error) == (None, NoAnswer.CONNECTION)


def test_sixteen_threads_send_at_once_and_all_are_answered(sandbox: Sandbox) -> None:
    destination = release(sandbox.release_url, limits=Limits())
    answers: list[Answer] = []

    def one(number: int) -> None:
        answers.append(send(destination, {**FREEZE, "name": f"Freeze {number}"}, repeat=bool(number % 2)))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(answer.status, answer.error) for answer in answers] == [(201, None)] * 16


# --- with the outbox


def calendar_event(**changes: Any) -> Event:
    body = {**FREEZE, **changes}
    identity = identify(body)
    return Event(
        type=KIND,
        destination="release",
        component=None,
        body=body,
        entity=identity.entity,
        state=identity.state,
        order=identity.order,
    )


def claimed(outbox: Outbox, token: str) -> Claim:
    given = claims.claim(outbox, "release", quota=QUOTA, token=token)
    assert isinstance(given, Claim)
    return given


def settle(outbox: Outbox, given: Claim, answer: Answer) -> Outcome:
    return claims.settle(outbox, given, answer, judge(answer), quota=QUOTA, rng=Random(0))


def test_a_claim_is_a_repeat_once_its_event_or_an_equal_one_was_claimed(outbox: Outbox) -> None:
    store(outbox, Translated("r", (calendar_event(),)))
    first = claimed(outbox, "1")
    claims.release(outbox, first)
    again = claimed(outbox, "2")
    settle(outbox, again, Answer(201))
    store(outbox, Translated("r", (calendar_event(description="once more"),)))
    equal = claimed(outbox, "3")
    store(outbox, Translated("r", (calendar_event(name="Thaw"),)))
    other = claimed(outbox, "4")
    assert [one.repeat for one in (first, again, equal, other)] == [False, True, True, False]


class Clock:
    """The outbox's clock, turned by hand."""

    def __init__(self) -> None:
        self.now = 1_790_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def turned(tmp_path: Path, clock: Clock) -> Iterator[Outbox]:
    """An outbox whose time is `clock`."""
    outbox = Outbox(f"sqlite:///{tmp_path}/turned.db", clock=clock)
    migrate(outbox)
    yield outbox
    outbox.close()


def statuses(outbox: Outbox) -> list[EventStatus]:
    return [one.status for one in views.list_events(outbox)]


def test_an_event_whose_answer_was_lost_is_once_in_the_calendar_and_delivered(
    sandbox: Sandbox, turned: Outbox, clock: Clock
) -> None:
    destination = release(sandbox.release_url)
    store(turned, Translated("r", (calendar_event(),)))
    sandbox.fail({"drop": "after"}, {"status": 500})
    for _ in range(3):
        assert isinstance(deliver(turned, destination, quota=QUOTA, rng=Random(0)), tuple)
        clock.now += 40_000
    assert [(one.method, one.status) for one in sandbox.calls()] == [("POST", None), ("GET", 500), ("GET", 200)]
    assert len(sandbox.calendar()) == 1
    assert statuses(turned) == [EventStatus.DELIVERED]


def test_an_event_whose_dispatcher_died_is_once_in_the_calendar_and_delivered(
    sandbox: Sandbox, turned: Outbox, clock: Clock
) -> None:
    """It posted the event and was killed before it could write that down; nothing counts as a failure then."""
    destination = release(sandbox.release_url)
    store(turned, Translated("r", (calendar_event(),)))
    destination.send(claimed(turned, "killed"), age=stopwatch())
    clock.now += claims.LEASE_MS + 1
    assert isinstance(deliver(turned, destination, quota=QUOTA, rng=Random(0)), tuple)
    assert len(sandbox.calendar()) == 1
    assert statuses(turned) == [EventStatus.DELIVERED]


def test_an_event_that_was_not_made_as_it_was_sent_is_delivered_and_its_attempt_says_so(turned: Outbox) -> None:
    store(turned, Translated("r", (calendar_event(),)))
    with serving(answering(created(endDate=5))) as server:
        outcome = deliver(turned, release(server.url), quota=QUOTA, rng=Random(0))
    assert isinstance(outcome, tuple)
    assert statuses(turned) == [EventStatus.DELIVERED]
    [stored] = views.list_events(turned)
    [attempt] = views.show_event(turned, stored.id).attempts
    assert attempt.error == "NOT_AS_SENT"
    assert attempt.message == f"is there as e1; endDate differs: sent as {END}, shown as 5"


def _several(outbox: Outbox, count: int, **odd: Any) -> None:
    for number in range(count):
        changes = odd if odd and number == count - 1 else {}
        store(outbox, Translated("r", (calendar_event(**{"name": f"Freeze {number}", **changes}),)))


def _drain(outbox: Outbox, destination: ReleaseDestination, clock: Clock, rounds: int) -> None:
    for _ in range(rounds):
        deliver(outbox, destination, quota=QUOTA, rng=Random(0))
        clock.now += 40_000


def test_several_that_wait_go_as_one_array(sandbox: Sandbox, turned: Outbox) -> None:
    _several(turned, 5)
    outcomes = deliver(turned, release(sandbox.release_url), quota=QUOTA, rng=Random(0))
    assert isinstance(outcomes, tuple)
    assert [outcome.word for outcome in outcomes] == ["delivered"] * 5
    assert [(one.method, one.status) for one in sandbox.calls()] == [("POST", 201)]
    assert sorted(entry["name"] for entry in sandbox.calendar()) == [f"Freeze {number}" for number in range(5)]
    assert set(statuses(turned)) == {EventStatus.DELIVERED}


def test_an_array_whose_answer_was_lost_is_in_the_calendar_once(sandbox: Sandbox, turned: Outbox, clock: Clock) -> None:
    _several(turned, 3)
    sandbox.fail({"drop": "after"})
    _drain(turned, release(sandbox.release_url), clock, 6)
    assert [one.method for one in sandbox.calls()] == ["POST", "GET", "GET", "GET"]
    assert len(sandbox.calendar()) == 3
    assert set(statuses(turned)) == {EventStatus.DELIVERED}


def test_what_is_claimed_goes_though_the_outbox_refuses_the_rest(sandbox: Sandbox, turned: Outbox) -> None:
    _several(turned, 3)
    claimed_so_far = itertools.count()

    def refuse(_c: object, _cursor: object, sql: str, *_: object) -> None:
        if "FROM destinations" in sql and next(claimed_so_far) == 3:  # the first one looks twice
            raise sqlite3.OperationalError("disk I/O error")

    sa.event.listen(turned.engine, "before_cursor_execute", refuse)
    outcomes = deliver(turned, release(sandbox.release_url), quota=QUOTA, rng=Random(0))
    sa.event.remove(turned.engine, "before_cursor_execute", refuse)
    assert isinstance(outcomes, tuple)
    assert [outcome.word for outcome in outcomes] == ["delivered"] * 2
    assert sorted(statuses(turned)) == [EventStatus.DELIVERED, EventStatus.DELIVERED, EventStatus.PENDING]


def test_one_bad_event_of_an_array_harms_no_other(sandbox: Sandbox, turned: Outbox, clock: Clock) -> None:
    _several(turned, 4, type={"id": "00000000-0000-1100-0000-00000000dead"})
    _drain(turned, release(sandbox.release_url), clock, 12)
    assert len(sandbox.calendar()) == 3
    assert sorted(statuses(turned)) == [EventStatus.DEAD, *[EventStatus.DELIVERED] * 3]


def test_a_reply_that_shows_fewer_events_than_were_posted_is_believed_of_none(turned: Outbox) -> None:
    _several(turned, 2)
    with serving(answering(http(201, b'[{"id": "e1"}]'))) as server:
        outcomes = deliver(turned, release(server.url), quota=QUOTA, rng=Random(0))
    assert isinstance(outcomes, tuple)
    assert set(statuses(turned)) == {EventStatus.PENDING}
