"""The sandbox's UrbanCode Release server over real HTTP: what is documented of its calendar, and its traps."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from relay.sandbox.release import BLACKOUT, HOLIDAY, Calendar, Entry, Refusal, ReleaseConfig
from relay.sandbox.server import Sandbox, running_sandbox

WHO = ("admin", "secret")
START, END = 1_413_384_452_000, 1_413_394_452_000
FREEZE = {"name": "Freeze", "startDate": START, "endDate": END, "type": {"id": BLACKOUT}}
FIELDS = {
    "id",
    "name",
    "description",
    "startDate",
    "endDate",
    "type",
    "isOneDay",
    "releases",
    "version",
    "dateCreated",
}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with running_sandbox() as running:
        yield running


class Nobody(requests.auth.AuthBase):
    """No credentials, not even those of a .netrc."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def call(
    sandbox: Sandbox,
    method: str,
    path: str = "",
    given: Any = None,
    *,
    auth: tuple[str, str] | Nobody = WHO,
    **more: Any,
) -> requests.Response:
    """One request to the events of the Release server, with JSON unless `given` is None."""
    body = {} if given is None else {"json": given}
    return requests.request(
        method,
        f"{sandbox.release_url}/events/{path}",
        auth=auth,
        timeout=10,
        allow_redirects=False,
        **body,
        **more,
    )


def names(sandbox: Sandbox) -> list[str]:
    return [one["name"] for one in sandbox.calendar()]


# --- create


def test_an_object_makes_one_event_and_its_place_is_the_location(sandbox: Sandbox) -> None:
    answer = call(sandbox, "POST", given=FREEZE | {"description": "Nothing goes live"})
    made = answer.json()
    assert answer.status_code == 201
    assert set(made) == FIELDS
    assert {name: made[name] for name in ("name", "description", "startDate", "endDate", "isOneDay", "releases")} == {
        "name": "Freeze",
        "description": "Nothing goes live",
        "startDate": START,
        "endDate": END,
        "isOneDay": False,
        "releases": [],
    }
    assert str(uuid.UUID(made["id"])) == made["id"]
    assert answer.headers["Location"] == f"{sandbox.release_url}/events/{made['id']}"
    assert requests.get(answer.headers["Location"], auth=WHO, timeout=10).json() == made


def test_an_array_makes_several_and_answers_in_its_order_without_a_location(sandbox: Sandbox) -> None:
    answer = call(sandbox, "POST", given=[FREEZE | {"name": name} for name in "CAB"])
    assert answer.status_code == 201
    assert [one["name"] for one in answer.json()] == ["C", "A", "B"]
    assert "Location" not in answer.headers
    assert names(sandbox) == ["C", "A", "B"]


@pytest.mark.parametrize("several", [[], [FREEZE]])
def test_a_short_array_is_answered_with_an_array(sandbox: Sandbox, several: list[Any]) -> None:
    answer = call(sandbox, "POST", given=several)
    assert (answer.status_code, len(answer.json())) == (201, len(several))


def test_the_same_request_twice_makes_two_events(sandbox: Sandbox) -> None:
    first, second = (call(sandbox, "POST", given=FREEZE).json() for _ in range(2))
    assert first["id"] != second["id"]
    assert names(sandbox) == ["Freeze", "Freeze"]


@pytest.mark.parametrize(
    ("type_", "name", "color"), [(BLACKOUT, "Blackout", "#808080"), (HOLIDAY, "Holiday", "#ffd700")]
)
def test_the_type_is_named_by_its_id_and_shown_whole(sandbox: Sandbox, type_: str, name: str, color: str) -> None:
    for reference in ({"id": type_}, type_, {"id": type_, "name": "Something else"}):
        shown = call(sandbox, "POST", given=FREEZE | {"type": reference}).json()["type"]
        assert set(shown) == {"id", "name", "description", "color", "order", "ghostedDate", "version", "dateCreated"}
        assert (shown["id"], shown["name"], shown["color"], shown["ghostedDate"]) == (type_, name, color, 0)


def test_an_event_that_starts_when_it_ends_is_of_one_day(sandbox: Sandbox) -> None:
    assert call(sandbox, "POST", given=FREEZE | {"endDate": START}).json()["isOneDay"] is True


def test_dates_are_kept_as_they_come_whatever_unit_was_meant(sandbox: Sandbox) -> None:
    made = call(sandbox, "POST", given=FREEZE | {"startDate": START // 1000, "endDate": END // 1000}).json()
    assert (made["startDate"], made["endDate"]) == (START // 1000, END // 1000)
    assert made["dateCreated"] > START


def test_what_is_read_only_or_unknown_is_ignored_in_silence(sandbox: Sandbox) -> None:
    ignored = {"id": "mine", "version": 9, "dateCreated": 1, "isOneDay": True, "releases": [1], "colour": "red"}
    made = call(sandbox, "POST", given=FREEZE | ignored)
    assert made.status_code == 201
    assert "colour" not in made.json()
    assert {name: made.json()[name] for name in ("version", "isOneDay", "releases")} == {
        "version": 0,
        "isOneDay": False,
        "releases": [],
    }
    assert made.json()["id"] != "mine"
    assert made.json()["dateCreated"] > START


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"name": None}, "name: must be a text"),
        ({"name": " "}, "name: must be a text"),
        ({"description": 5}, "description: must be a text"),
        ({"startDate": "2014-10-15"}, "startDate: must be an integer"),
        ({"startDate": True}, "startDate: must be an integer"),
        ({"endDate": START - 1}, "endDate: is before startDate"),
        ({"type": {"id": "00000000-0000-1100-0000-000000000012"}}, "type: must be the id of an event type"),
        ({"type": None}, "type: must be the id of an event type"),
    ],
)
def test_what_is_wrong_with_an_event_is_told_and_nothing_is_made(
    sandbox: Sandbox, wrong: dict[str, Any], told: str
) -> None:
    answer = call(sandbox, "POST", given=FREEZE | wrong)
    assert answer.status_code == 400
    assert answer.text.startswith(told)
    assert names(sandbox) == []


@pytest.mark.parametrize("name", FREEZE)
def test_a_member_that_is_missing_is_named(sandbox: Sandbox, name: str) -> None:
    answer = call(sandbox, "POST", given={key: value for key, value in FREEZE.items() if key != name})
    assert (answer.status_code, answer.text) == (400, f"{name}: is required")


def test_an_array_with_a_wrong_element_is_refused_as_a_whole_and_says_which_it_is(sandbox: Sandbox) -> None:
    elements: list[Any] = [FREEZE | {"startDate": "x"}, [], None]
    for wrong in elements:
        answer = call(sandbox, "POST", given=[FREEZE, wrong])
        assert answer.status_code == 400
        assert answer.text.startswith("[1].")
    assert names(sandbox) == []


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"{} {}", b"[" * 100_000])
def test_a_body_that_is_no_json_is_answered_400(sandbox: Sandbox, body: bytes) -> None:
    answer = call(sandbox, "POST", data=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


def test_json_must_be_named_and_taken(sandbox: Sandbox) -> None:
    assert call(sandbox, "POST", data=json.dumps(FREEZE), headers={"Content-Type": "text/plain"}).status_code == 415
    assert call(sandbox, "POST", given=FREEZE, headers={"Accept": "text/html"}).status_code == 406
    assert call(sandbox, "GET", headers={"Accept": "text/html"}).status_code == 406
    assert call(sandbox, "GET", "?json", headers={"Accept": "text/html"}).json() == []
    assert names(sandbox) == []


# --- formats


@pytest.mark.parametrize("form", ["", "?format=detail", "?format=list", "?format=colourful", "?format="])
def test_any_format_but_name_is_the_whole_event(sandbox: Sandbox, form: str) -> None:
    made = call(sandbox, "POST", form, given=FREEZE).json()
    several = call(sandbox, "POST", form, given=[FREEZE]).json()
    changed = call(sandbox, "PUT", made["id"] + form, given={}).json()
    shown = call(sandbox, "GET", made["id"] + form).json()
    listed = call(sandbox, "GET", form).json()
    assert set(made) == set(several[0]) == set(changed) == set(shown) == set(listed[0]) == FIELDS


def test_the_format_name_is_only_the_id_and_the_name(sandbox: Sandbox) -> None:
    made = call(sandbox, "POST", "?format=name", given=FREEZE)
    assert made.json() == {"id": made.json()["id"], "name": "Freeze"}
    assert made.headers["Location"].endswith(made.json()["id"])
    assert call(sandbox, "POST", "?format=name", given=[FREEZE]).json()[0].keys() == {"id", "name"}
    assert call(sandbox, "PUT", made.json()["id"] + "?format=name", given={}).json() == made.json()
    assert call(sandbox, "GET", made.json()["id"] + "?format=name").json() == made.json()
    assert call(sandbox, "GET", "?format=name").json()[0] == made.json()
    assert call(sandbox, "GET", "name").json()[0] == made.json()


# --- read


def test_the_list_says_how_long_it_is(sandbox: Sandbox) -> None:
    empty = call(sandbox, "GET")
    assert (empty.json(), empty.headers["Content-Range"]) == ([], "items */0")
    call(sandbox, "POST", given=[FREEZE] * 3)
    listed = call(sandbox, "GET")
    assert (len(listed.json()), listed.headers["Content-Range"]) == (3, "items 0-2/3")


def condition(field: str, how: str, class_: str, value: str) -> str:
    return f"filterFields={field}&filterType_{field}={how}&filterClass_{field}={class_}&filterValue_{field}={value}"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (condition("name", "like", "String", "freeze"), ["Freeze", "freezer"]),
        (condition("name", "eq", "String", "Freeze"), ["Freeze"]),
        (condition("startDate", "ge", "Long", "2"), ["freezer", "May"]),
        (
            condition("startDate", "lt", "Long", "3") + "&" + condition("name", "like", "String", "z"),
            ["Freeze", "freezer"],
        ),
        ("orderField=name&sortType=asc", ["Freeze", "May", "freezer"]),
        ("orderField=startDate&sortType=desc", ["May", "freezer", "Freeze"]),
    ],
)
def test_the_list_is_filtered_and_ordered_as_client_scripts_ask(sandbox: Sandbox, query: str, found: list[str]) -> None:
    for start, name in enumerate(["Freeze", "freezer", "May"], start=1):
        call(sandbox, "POST", given=FREEZE | {"name": name, "startDate": start})
    listed = call(sandbox, "GET", f"?format=list&{query}")
    assert [one["name"] for one in listed.json()] == found
    assert listed.headers["Content-Range"] == f"items 0-{len(found) - 1}/{len(found)}"


@pytest.mark.parametrize(
    "query",
    [
        "filterFields=colour",
        "filterFields=name&filterType_name=resembles",
        "filterFields=startDate&filterType_startDate=like&filterValue_startDate=1",
        "filterFields=startDate&filterType_startDate=ge&filterValue_startDate=May",
        "orderField=colour",
    ],
)
def test_a_filter_that_cannot_be_understood_is_answered_400(sandbox: Sandbox, query: str) -> None:
    assert call(sandbox, "GET", f"?{query}").status_code == 400


def test_an_event_that_is_not_there_is_answered_404_whatever_is_asked_of_it(sandbox: Sandbox) -> None:
    for method, body in (("GET", None), ("PUT", {}), ("DELETE", None)):
        assert call(sandbox, method, str(uuid.uuid4()), body).status_code == 404


# --- update


def test_an_update_changes_what_it_holds_and_leaves_the_rest(sandbox: Sandbox) -> None:
    made = call(sandbox, "POST", given=FREEZE).json()
    answer = call(sandbox, "PUT", made["id"], given={"name": "Thaw", "type": {"id": HOLIDAY}})
    changed = answer.json()
    assert answer.status_code == 200
    assert (changed["name"], changed["type"]["name"], changed["version"]) == ("Thaw", "Holiday", 1)
    same = ("id", "startDate", "endDate", "dateCreated")
    assert [changed[name] for name in same] == [made[name] for name in same]
    assert call(sandbox, "GET", made["id"]).json() == changed


def test_the_id_in_the_url_wins(sandbox: Sandbox) -> None:
    first, second = call(sandbox, "POST", given=[FREEZE, FREEZE | {"name": "Other"}]).json()
    changed = call(sandbox, "PUT", first["id"], given=second | {"name": "Changed"}).json()
    assert changed["id"] == first["id"]
    assert names(sandbox) == ["Changed", "Other"]


def test_an_array_updates_several_in_its_order_or_none(sandbox: Sandbox) -> None:
    first, second = call(sandbox, "POST", given=[FREEZE, FREEZE]).json()
    answer = call(sandbox, "PUT", given=[{"id": second["id"], "name": "B"}, {"id": first["id"], "name": "A"}])
    assert (answer.status_code, [one["name"] for one in answer.json()]) == (200, ["B", "A"])
    refused = call(sandbox, "PUT", given=[{"id": first["id"], "name": "C"}, {"id": second["id"], "endDate": 0}])
    assert (refused.status_code, refused.text) == (400, "[1].endDate: is before startDate")
    unknown = call(sandbox, "PUT", given=[{"id": first["id"], "name": "C"}, {"name": "C"}])
    assert unknown.status_code == 404
    assert call(sandbox, "PUT", given={"id": first["id"], "name": "C"}).status_code == 400
    assert names(sandbox) == ["A", "B"]


# --- delete


def test_one_event_is_deleted_without_a_body(sandbox: Sandbox) -> None:
    first, _ = call(sandbox, "POST", given=[FREEZE, FREEZE | {"name": "Other"}]).json()
    assert call(sandbox, "DELETE", first["id"]).status_code == 200
    assert call(sandbox, "DELETE", first["id"]).status_code == 404
    assert names(sandbox) == ["Other"]


def test_several_are_deleted_by_ids_or_by_objects_all_or_none(sandbox: Sandbox) -> None:
    first, second, third, _ = call(sandbox, "POST", given=[FREEZE | {"name": name} for name in "ABCD"]).json()
    assert call(sandbox, "DELETE", given=[first["id"], second]).status_code == 200
    assert names(sandbox) == ["C", "D"]
    assert call(sandbox, "DELETE", given=[third["id"], first["id"]]).status_code == 404
    assert names(sandbox) == ["C", "D"]


def test_the_collection_is_not_deleted_by_accident(sandbox: Sandbox) -> None:
    call(sandbox, "POST", given=FREEZE)
    assert call(sandbox, "DELETE").status_code == 415
    assert call(sandbox, "DELETE", given={}).status_code == 400
    assert names(sandbox) == ["Freeze"]


# --- who may come in


def test_without_credentials_nothing_is_shown_and_nothing_taken(sandbox: Sandbox) -> None:
    strangers: list[Any] = [Nobody(), ("", ""), ("admin", "")]
    for auth in strangers:
        for method, body in (("GET", None), ("POST", FREEZE), ("PUT", []), ("DELETE", [])):
            answer = call(sandbox, method, given=body, auth=auth)
            assert (answer.status_code, answer.cookies.keys()) == (401, [])
            assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert call(sandbox, "GET", auth=Nobody(), headers={"Authorization": "Basic §"}).status_code == 401
    assert names(sandbox) == []


def test_with_credentials_set_only_those_are_taken() -> None:
    with running_sandbox(release=ReleaseConfig(user="admin", password=SecretStr("right"))) as sandbox:
        users = [("admin", "right"), ("admin", "wrong"), ("other", "right")]
        assert [call(sandbox, "GET", auth=user).status_code for user in users] == [200, 401, 401]


def test_a_client_that_keeps_cookies_must_send_the_key_with_every_write(sandbox: Sandbox) -> None:
    """The trap: with a session's cookie, the right credentials are not enough."""
    with requests.Session() as client:
        client.auth = WHO
        url = f"{sandbox.release_url}/events/"
        assert client.post(url, json=FREEZE, timeout=10).status_code == 201
        assert set(client.cookies.keys()) == {"JSESSIONID", "UCR_SESSION_KEY"}
        refused = [client.request(method, url, json=[], timeout=10) for method in ("POST", "PUT", "DELETE")]
        assert [one.status_code for one in refused] == [403] * 3
        assert client.get(url, timeout=10).status_code == 200
        wrong = client.post(url, json=FREEZE, headers={"UCR_SESSION_KEY": "wrong"}, timeout=10)
        assert wrong.status_code == 403
        key = {"UCR_SESSION_KEY": str(client.cookies["UCR_SESSION_KEY"])}
        assert client.post(url, json=FREEZE, headers=key, timeout=10).status_code == 201
        client.auth = Nobody()
        assert client.post(url, json=FREEZE, headers=key, timeout=10).status_code == 201
        assert client.get(url, timeout=10).status_code == 200
    assert len(names(sandbox)) == 3


def test_a_session_that_there_is_not_opens_nothing(sandbox: Sandbox) -> None:
    cookies = {"JSESSIONID": "made-up"}
    assert call(sandbox, "GET", auth=Nobody(), cookies=cookies).status_code == 401
    assert call(sandbox, "POST", given=FREEZE, cookies=cookies).status_code == 403
    assert call(sandbox, "POST", given=FREEZE, cookies=cookies, headers={"UCR_SESSION_KEY": ""}).status_code == 403
    assert names(sandbox) == []


# --- faults


@pytest.mark.parametrize(("when", "made"), [("before", []), ("after", ["Freeze"])])
def test_a_dropped_connection_gives_no_answer_whether_the_event_was_made_or_not(
    sandbox: Sandbox, when: str, made: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    sandbox.fail({"drop": when})
    with pytest.raises(requests.ConnectionError):
        call(sandbox, "POST", given=FREEZE)
    assert names(sandbox) == made
    assert [(one.method, one.status, one.faulty) for one in sandbox.calls()] == [("POST", None, True)]
    assert call(sandbox, "POST", given=FREEZE).status_code == 201
    assert capfd.readouterr() == ("", "")


def test_faults_are_meant_for_a_write_by_its_kind_and_name_and_else_for_any_request(sandbox: Sandbox) -> None:
    sandbox.fail(
        {"status": 501, "kind": "incident"}, {"status": 502, "kind": "calendar"}, {"status": 503, "entity": "B"}
    )
    assert call(sandbox, "GET").status_code == 200
    statuses = [call(sandbox, "POST", given=given).status_code for given in (FREEZE, FREEZE, [FREEZE | {"name": "B"}])]
    assert statuses == [502, 201, 503]
    sandbox.behave()
    sandbox.fail({"retry_after": 7})
    limited = call(sandbox, "GET")
    assert (limited.status_code, limited.headers["Retry-After"]) == (429, "7")
    assert names(sandbox) == ["Freeze"]


def test_a_page_a_redirect_and_a_delay_can_be_told(sandbox: Sandbox) -> None:
    sandbox.fail({"html": True}, {"redirect": "/login"}, {"delay_ms": 100, "hold_ms": 100})
    page, redirect, late = (call(sandbox, "GET") for _ in range(3))
    assert (page.status_code, page.headers["Content-Type"].split(";")[0]) == (200, "text/html")
    assert (redirect.status_code, redirect.headers["Location"]) == (302, "/login")
    assert late.status_code == 200
    assert late.elapsed.total_seconds() >= 0.2


# --- the sandbox itself


def test_the_calendar_and_the_calls_can_be_looked_at_and_are_forgotten_by_a_reset(sandbox: Sandbox) -> None:
    made = call(sandbox, "POST", "?format=list", given=FREEZE).json()
    assert requests.get(f"{sandbox.url}/sandbox/calendar", timeout=10).json() == [made] == sandbox.calendar()
    [told] = requests.get(f"{sandbox.url}/sandbox/calls", timeout=10).json()
    assert (told["method"], told["path"], told["status"], told["faulty"]) == (
        "POST",
        "/release/events/?format=list",
        201,
        False,
    )
    assert requests.post(f"{sandbox.url}/sandbox/reset", timeout=10).status_code == 204
    assert (sandbox.calendar(), sandbox.calls(), sandbox.requests()) == ([], [], [])
    call(sandbox, "POST", given=FREEZE)
    sandbox.reset()
    assert (sandbox.calendar(), sandbox.calls()) == ([], [])


def test_compass_and_release_live_side_by_side(sandbox: Sandbox) -> None:
    call(sandbox, "POST", given=FREEZE)
    assert (sandbox.requests(), sandbox.events()) == ([], [])
    assert sandbox.release_url == f"{sandbox.url}/release"


def test_only_so_much_is_remembered() -> None:
    with running_sandbox(release=ReleaseConfig(keep=3)) as sandbox:
        call(sandbox, "POST", given=[FREEZE | {"name": name} for name in "ABCDE"])
        assert names(sandbox) == ["C", "D", "E"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
almost_events = st.fixed_dictionaries(
    {},
    optional={
        "id": json_values,
        "name": st.text(),
        "description": json_values,
        "startDate": st.integers(),
        "endDate": st.integers(),
        "type": st.sampled_from([BLACKOUT, {"id": HOLIDAY}]) | json_values,
    },
)


@given(json_values | almost_events | st.lists(almost_events | json_values, max_size=3))
def test_whatever_is_posted_is_made_as_a_whole_or_refused_with_a_reason(given_: Any) -> None:
    calendar = Calendar(ReleaseConfig(), clock=lambda: 5, new_id=lambda: str(uuid.uuid4()))
    before = len(calendar.all())
    match calendar.create(given_):
        case Refusal(status, reason):
            assert status == 400
            assert reason
            assert len(calendar.all()) == before
        case Entry():
            assert isinstance(given_, dict)
        case several:
            assert isinstance(given_, list)
            assert len(several) == len(given_)
