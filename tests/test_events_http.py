"""`/events/` over real HTTP: what scripts post, what they are told, and what has become of it when all is done."""

import base64
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from werkzeug.serving import make_server

from relay.contract import KINDS
from relay.direct import MOST
from relay.errors import ConfigError
from relay.outbox import Outbox
from relay.outbox.migrations import migrate
from relay.runtime import Relay, assemble, dispatcher, load
from relay.sandbox.release import BLACKOUT, HOLIDAY
from relay.sandbox.server import Sandbox, running_sandbox
from relay.signature import Scheme, sign
from relay.web import create_app
from relay.web.events import MAX_BODY
from tests.compass_events import least, whole
from tests.mapping_files import acme
from tests.running import ROOT, environment, eventually, free_port, serving

TOKEN = "admin-token-of-the-tests"
CI = ("ci", TOKEN)
RELEASE_FILE = (ROOT / "mappings" / "release.yaml").read_text(encoding="utf-8")
DOCS = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
FREEZE = {"name": "Freeze", "startDate": 1_797_746_400_000, "endDate": 1_798_351_200_000, "type": {"id": BLACKOUT}}
BACKWARDS = {**FREEZE, "endDate": 1_797_746_399_999}
CHRISTMAS = {"name": "Christmas", "startDate": 1_798_156_800_000, "endDate": 1_798_156_800_000, "type": {"id": HOLIDAY}}
RELEASE = {"RELEASE_USER": "admin", "RELEASE_PASSWORD": "release-password-of-the-tests"}


@dataclass(frozen=True)
class Site:
    """A relay behind a real server."""

    url: str
    relay: Relay
    database: Path

    def post(self, body: Any, query: str = "", **more: Any) -> requests.Response:
        return requests.post(f"{self.url}/events/{query}", json=body, timeout=60, **{"auth": CI, **more})

    def get(self, path: str = "", **asked: str | int) -> requests.Response:
        return requests.get(f"{self.url}/events/{path}", params=asked, auth=CI, timeout=60)

    def stored(self) -> int:
        """How many rows a request may have left behind."""
        with sqlite3.connect(self.database) as connection:
            tables = ("events", "webhooks", "submissions")
            return sum(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables)  # noqa: S608


def folder_with(folder: Path, text: str) -> Path:
    """A folder with this mapping file alone, which takes less time to read than all that come with the relay."""
    folder.mkdir(exist_ok=True)
    (folder / "a.yaml").write_text(text, encoding="utf-8")
    return folder


@contextmanager
def site(folder: Path, *, compass_url: str = "http://127.0.0.1:1", **more: str) -> Iterator[Site]:
    folder.mkdir(exist_ok=True)
    database = folder / "relay.db"
    own = {"RELAY_ADMIN_TOKEN": TOKEN, "RELAY_MAPPINGS": str(folder_with(folder / "mappings", RELEASE_FILE)), **more}
    outbox = Outbox(f"sqlite:///{database}")
    migrate(outbox)
    outbox.close()
    environ = environment(f"sqlite:///{database}", compass_url=compass_url, port=0, **own)
    relay = assemble(*load(environ, delivers=True))
    server = make_server("127.0.0.1", 0, create_app(relay), threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield Site(f"http://127.0.0.1:{server.port}", relay, database)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        relay.outbox.close()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    """A relay that delivers nothing, and knows no Release server."""
    with site(tmp_path / "site") as running:
        yield running


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with running_sandbox() as running:
        yield running


def custom(number: int) -> dict[str, Any]:
    body = least("custom")
    body["custom"] |= {"displayName": f"event {number}"}
    body["custom"]["customEventProperties"]["id"] = f"c{number}"
    return body


def error_of(answer: requests.Response) -> tuple[str, str]:
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message"}
    return body["error"]["code"], body["error"]["message"]


# --- who may come in


def basic(user: bytes, password: bytes) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(user + b':' + password).decode()}"}


class Headers(requests.auth.AuthBase):
    """These headers and no others, not even those of a .netrc."""

    def __init__(self, headers: dict[str, Any]) -> None:
        self._headers = headers

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self._headers)
        return request


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {TOKEN}"},
        {"Authorization": f"bearer   {TOKEN} "},
        basic(b"anybody", TOKEN.encode()),
        basic(b"", TOKEN.encode()),
    ],
)
def test_the_token_comes_as_a_bearer_token_or_as_anybodys_password(here: Site, headers: dict[str, str]) -> None:
    assert here.post(custom(1), auth=Headers(headers)).status_code == 201
    assert requests.get(f"{here.url}/events", auth=Headers(headers), timeout=10).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Digest {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": "Basic ==="},
        {"Authorization": "Basic \xfc\xfc"},
        basic(b"ci", b"wrong"),
        basic(TOKEN.encode(), b""),
        basic(b"ci", b"\xff\xfe"),
        basic(b"ci", "pässword".encode()),
    ],
)
def test_no_token_or_another_one_is_a_401_and_stores_nothing(here: Site, headers: dict[str, str]) -> None:
    for answer in (
        here.post(custom(1), auth=Headers(headers)),
        requests.get(f"{here.url}/events/", auth=Headers(headers), timeout=10),
        requests.get(f"{here.url}/events/1", auth=Headers(headers), timeout=10),
    ):
        assert (answer.status_code, error_of(answer)[0]) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")
        assert TOKEN not in answer.text
    assert here.stored() == 0


def test_without_a_token_of_its_own_the_relay_is_closed_and_says_what_to_set(tmp_path: Path) -> None:
    with site(tmp_path / "closed", RELAY_ADMIN_TOKEN=" ") as closed:
        for answer in (closed.post(custom(1)), closed.get(), closed.post(custom(1), auth=("", ""))):
            assert (answer.status_code, error_of(answer)[0]) == (403, "admin_token_not_set")
            assert "RELAY_ADMIN_TOKEN" in answer.text


# --- post


def test_an_object_is_answered_with_one_object_and_its_place(here: Site) -> None:
    answer = here.post({**whole("incident"), "componentId": "ari:1"})
    assert answer.status_code == 201
    told = answer.json()
    assert answer.headers["Location"] == f"/events/{told['id']}"
    assert told["name"] == "Checkout errors"
    assert told["event"] == whole("incident")
    assert told["componentId"] == "ari:1"
    delivery = told["delivery"]
    assert (delivery["destination"], delivery["type"], delivery["status"]) == ("compass", "incident", "pending")
    shown = requests.get(f"{here.url}{answer.headers['Location']}", auth=CI, timeout=10)
    assert shown.json() == {**told, "delivery": {**delivery, "attempts": []}}


def test_an_array_is_answered_with_an_array_in_its_order(here: Site) -> None:
    bodies = [least(kind) for kind in KINDS]
    answer = here.post(bodies)
    assert answer.status_code == 201
    assert "Location" not in answer.headers
    told = answer.json()
    assert [element["event"] for element in told] == bodies
    assert [element["id"] for element in told] == sorted(element["id"] for element in told)
    assert isinstance(here.post([custom(1)]).json(), list)


def test_events_without_the_last_slash_is_the_same(here: Site) -> None:
    answer = requests.post(f"{here.url}/events", json=custom(1), auth=CI, timeout=10, allow_redirects=False)
    assert answer.status_code == 201


@pytest.mark.parametrize("query", ["", "?format=detail", "?format=list", "?format=else", "?format="])
def test_every_format_but_name_is_detail(here: Site, query: str) -> None:
    told = here.post(custom(1), query).json()
    assert set(told) == {"id", "name", "event", "componentId", "dateCreated", "delivery", "others"}


def test_the_format_name_is_id_and_name(here: Site) -> None:
    assert here.post([custom(1), FREEZE], "?format=name").json() == [
        {"id": 1, "name": "event 1"},
        {"id": 2, "name": "Freeze"},
    ]
    assert here.get("1", format="name").json() == {"id": 1, "name": "event 1"}


def test_the_forecast_stands_in_the_headers(here: Site) -> None:
    first = here.post([custom(number) for number in range(150)])
    assert first.headers["X-Relay-Forecast-Requests"] == "150"
    # A hundred at once, fifty after a window.
    assert 55 <= int(first.headers["X-Relay-Forecast-Seconds"]) <= 65
    second = here.post(custom(1))
    assert second.headers["X-Relay-Forecast-Requests"] == "150", "it supersedes the other one of its entity"


# --- what is repeated


def test_a_repeated_post_is_answered_with_the_same_events(here: Site) -> None:
    headers = {"Idempotency-Key": "nightly-1"}
    first = here.post([custom(1), FREEZE, custom(2)], headers=headers)
    stored = here.stored()
    again = here.post([custom(1), FREEZE, custom(2)], headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert here.stored() == stored
    assert here.post([custom(1), FREEZE, custom(2)]).json() != first.json(), "without a key it is posted again"


def test_a_repeated_object_has_its_place_again(here: Site) -> None:
    headers = {"Idempotency-Key": "one"}
    first, again = here.post(custom(1), headers=headers), here.post(custom(1), headers=headers)
    assert again.headers["Location"] == first.headers["Location"]
    assert again.json() == first.json()


def test_the_same_json_in_other_bytes_is_the_same_request(here: Site) -> None:
    headers = {"Idempotency-Key": "one", "Content-Type": "application/json"}
    spaced = json.dumps(custom(1), indent=4, sort_keys=True)
    first = here.post(custom(1), headers=headers)
    again = requests.post(f"{here.url}/events/", data=spaced, headers=headers, auth=CI, timeout=10)
    assert again.json()["id"] == first.json()["id"]


def test_the_same_key_with_another_body_is_refused(here: Site) -> None:
    headers = {"Idempotency-Key": "one"}
    here.post(custom(1), headers=headers)
    stored = here.stored()
    answer = here.post(custom(2), headers=headers)
    assert (answer.status_code, error_of(answer)[0]) == (422, "idempotency_key_reused")
    assert here.stored() == stored


def test_a_key_whose_request_was_refused_may_be_used_again(here: Site) -> None:
    headers = {"Idempotency-Key": "one"}
    assert here.post([custom(1), {}], headers=headers).status_code == 422
    assert here.post([custom(1)], headers=headers).status_code == 201


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_that_is_none_is_refused(here: Site, key: str) -> None:
    answer = here.post(custom(1), headers={"Idempotency-Key": key})
    assert (answer.status_code, error_of(answer)[0]) == (400, "bad_parameter")
    assert here.stored() == 0


# --- bad input


def _incident(**properties: Any) -> dict[str, Any]:
    body = least("incident")
    body["incident"]["incidentProperties"] |= properties
    return body


@pytest.mark.parametrize(
    ("body", "status", "code", "told"),
    [
        (b"", 400, "malformed_body", "not one JSON value"),
        (b"{", 400, "malformed_body", "not one JSON value"),
        (b"{} {}", 400, "malformed_body", "not one JSON value"),
        (b"\xff", 400, "malformed_body", "not UTF-8"),
        (b"[" * 1000, 400, "malformed_body", ""),
        ([], 422, "invalid_event", "the array holds no event"),
        ("text", 422, "invalid_event", 'must be an event, as an object, not "text"'),
        ([custom(1), [custom(2)]], 422, "invalid_event", "element 1: must be an event"),
        ([custom(1), _incident(state="BAD")], 422, "invalid_event", "element 1: /incident/incidentProperties/state: "),
        ([{**least("flag"), **least("push")}], 422, "invalid_event", "element 0: must hold exactly one kind"),
        ([custom(1), {"outage": {}}], 422, "invalid_event", "element 1: /outage: is no kind of event"),
        (_incident(startTime="soon"), 422, "invalid_event", "/incident/incidentProperties/startTime: must be a date"),
        ([custom(1), {**FREEZE, "endDate": 1}], 422, "invalid_event", "element 1: /endDate: must"),
        (
            [BACKWARDS],
            422,
            "invalid_event",
            "element 0: /endDate: must not be before",
        ),
        ([{"push": {}}] * (MOST + 1), 413, "too_many_events", "10001 events; 10000 are the most"),
    ],
)
def test_bad_input_is_one_error_with_its_place_and_stores_nothing(
    here: Site, body: Any, status: int, code: str, told: str
) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
    answer = requests.post(f"{here.url}/events/", data=raw, headers=headers, auth=CI, timeout=30)
    assert (answer.status_code, error_of(answer)[0]) == (status, code)
    assert told in error_of(answer)[1]
    assert here.stored() == 0


def test_what_does_not_say_that_it_is_json_is_a_415(here: Site) -> None:
    answer = requests.post(f"{here.url}/events/", data={"a": "b"}, auth=CI, timeout=10)
    assert (answer.status_code, error_of(answer)[0]) == (415, "unsupported_media_type")


def test_events_have_a_limit_of_their_own_beside_that_of_webhooks(tmp_path: Path) -> None:
    with site(tmp_path / "small", RELAY_MAX_BODY="2048") as small:
        assert small.post([custom(number) for number in range(50)]).status_code == 201
        raw = b" " * (MAX_BODY + 1)
        headers = {"Content-Type": "application/json"}
        answer = requests.post(f"{small.url}/events/", data=raw, headers=headers, auth=CI, timeout=30)
        assert (answer.status_code, error_of(answer)[0]) == (413, "body_too_large")


@pytest.mark.parametrize(("method", "path"), [("PUT", ""), ("DELETE", ""), ("DELETE", "1"), ("POST", "1")])
def test_what_cannot_be_done_is_a_405_in_the_same_form(here: Site, method: str, path: str) -> None:
    answer = requests.request(method, f"{here.url}/events/{path}", auth=CI, json={}, timeout=10)
    assert (answer.status_code, error_of(answer)[0]) == (405, "method_not_allowed")


# --- ask


@pytest.mark.parametrize("path", ["7", "0", "99999999999999999999", "x", "-1"])
def test_what_is_not_there_is_a_404(here: Site, path: str) -> None:
    answer = here.get(path)
    assert (answer.status_code, error_of(answer)[0]) == (404, "not_found")


def test_the_list_is_newest_first_and_goes_on_where_its_link_says(here: Site) -> None:
    ids = [element["id"] for element in here.post([custom(number) for number in range(7)], "?format=name").json()]
    seen: list[int] = []
    pages = 0
    following = "/events/?limit=3&format=name&type=custom"
    while following:
        answer = requests.get(f"{here.url}{following}", auth=CI, timeout=10)
        seen += [element["id"] for element in answer.json()]
        assert all(set(element) == {"id", "name"} for element in answer.json())
        following = answer.links["next"]["url"] if "next" in answer.links else ""
        pages += 1
    assert seen == ids[::-1]
    assert pages == 3


def test_the_list_is_narrowed_by_type_status_and_entity(here: Site) -> None:
    here.post([custom(1), least("flag"), custom(2), custom(1), {**custom(1), "componentId": "ari:1"}])
    assert [element["id"] for element in here.get(type="flag").json()] == [2]
    assert [element["id"] for element in here.get(status="pending").json()] == [5, 4, 3, 2, 1]
    assert here.get(status="dead").json() == []
    entity = here.get("1").json()["delivery"]["entity"]
    assert entity == '["custom", "source-1", "c1", null]'
    for asked in (entity, '["custom","source-1","c1",null]'):
        assert [element["id"] for element in here.get(entity=asked).json()] == [4, 1]
    assert [element["id"] for element in here.get(entity='["custom","source-1","c1","ari:1"]').json()] == [5]
    assert here.get(entity="[" * 100_00).json() == []


@pytest.mark.parametrize(
    "asked",
    [
        {"status": "late"},
        {"type": "outage"},
        {"limit": "0"},
        {"limit": "1001"},
        {"limit": "many"},
        {"before": "-1"},
        {"before": "9" * 5000},
        {"before": str(2**63)},
        {"limit": "\N{SUPERSCRIPT TWO}"},
    ],
)
def test_a_parameter_that_cannot_be_read_is_a_400_that_names_it(here: Site, asked: dict[str, str]) -> None:
    answer = here.get(**asked)
    assert (answer.status_code, error_of(answer)[0]) == (400, "bad_parameter")
    assert next(iter(asked)) in error_of(answer)[1]


def test_an_event_that_no_component_is_listed_for_says_so(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "mappings", RELEASE_FILE)
    (folder / "components.yaml").write_text("release: {holiday: [ari:1, ari:2]}\n")
    with site(tmp_path / "site", RELAY_MAPPINGS=str(folder)) as here:
        blackout, holiday = here.post([FREEZE, CHRISTMAS]).json()
        assert (blackout["delivery"]["status"], blackout["others"]) == ("unrouted", [])
        assert blackout["delivery"]["reason"] == "no component is listed for blackout"
        assert holiday["delivery"]["status"] == "pending"
        assert [holiday["componentId"], here.get(str(holiday["others"][0])).json()["componentId"]] == ["ari:1", "ari:2"]


def test_a_calendar_event_that_goes_nowhere_is_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "mappings", acme("- {name: x, ignore: x}"))
    with site(tmp_path / "site", RELAY_MAPPINGS=str(folder)) as here:
        answer = here.post(FREEZE)
        assert (answer.status_code, error_of(answer)[0]) == (422, "invalid_event")
        assert "set RELEASE_URL" in error_of(answer)[1]
        assert here.stored() == 0


def test_the_door_for_signed_calendar_events_is_closed_without_a_secret(here: Site) -> None:
    answer = requests.post(f"{here.url}/webhooks/release", json=FREEZE, timeout=10)
    assert (answer.status_code, error_of(answer)[0]) == (503, "secret_missing")


# --- the same shape as a Release server's


def shape(answer: requests.Response) -> dict[str, Any]:
    """What a client of the Release server may rely on.

    Not the type of an id, which is a UUID there and a number here, nor what only that server can know of an event.
    """
    told = answer.json()
    several = told if isinstance(told, list) else [told]
    sent = ("name", "description", "startDate", "endDate")
    return {
        "status": answer.status_code,
        "content type": answer.headers["Content-Type"].partition(";")[0],
        "location": answer.headers.get("Location", "").endswith(f"/events/{several[0]['id']}"),
        "array": isinstance(told, list),
        "elements": [{name: element[name] for name in sent if name in element} for element in several],
        "types": [element["type"]["id"] for element in several if "type" in element],
        "created": [isinstance(element["dateCreated"], int) for element in several if "dateCreated" in element],
        "brief": [set(element) == {"id", "name"} for element in several],
    }


@pytest.mark.parametrize("query", ["", "?format=detail", "?format=list", "?format=name", "?format=else"])
@pytest.mark.parametrize("body", [FREEZE, [FREEZE], [CHRISTMAS, {**FREEZE, "description": "quiet"}, FREEZE]])
def test_the_relay_answers_in_the_shape_of_a_release_server(
    here: Site, sandbox: Sandbox, query: str, body: Any
) -> None:
    theirs = requests.post(f"{sandbox.release_url}/events/{query}", json=body, auth=("a", "b"), timeout=10)
    assert shape(here.post(body, query)) == shape(theirs)


@pytest.mark.parametrize("query", ["", "?format=list", "?format=name"])
def test_the_relay_shows_one_and_lists_all_in_the_shape_of_a_release_server(
    here: Site, sandbox: Sandbox, query: str
) -> None:
    for url, who in ((here.url, CI), (sandbox.release_url, ("a", "b"))):
        requests.post(f"{url}/events/", json=FREEZE, auth=who, timeout=10)
    ours, theirs = (
        [shape(requests.get(f"{url}/events/{path}{query}", auth=who, timeout=10)) for path in (id_, "")]
        for url, who, id_ in ((here.url, CI, "1"), (sandbox.release_url, ("a", "b"), sandbox.calendar()[0]["id"]))
    )
    assert ours == theirs


# --- curl, as it is documented

CURL = re.compile(r"^curl .*?(?=\n```|\ncurl )", re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
@pytest.mark.parametrize("line", CURL.findall(DOCS), ids=lambda line: line.split("-d ")[-1][:40])
def test_every_documented_curl_line_works(here: Site, tmp_path: Path, line: str) -> None:
    (tmp_path / "event.json").write_text(json.dumps(custom(1)))
    (tmp_path / "events.json").write_text(json.dumps([custom(1), custom(2)]))
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "RELAY": here.url, "RELAY_ADMIN_TOKEN": TOKEN}
    done = subprocess.run(
        ["bash", "-c", f"{line} --silent --show-error --fail-with-body"],  # noqa: S607
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert isinstance(json.loads(done.stdout), dict | list)


def test_every_kind_has_a_documented_curl_line() -> None:
    for kind in KINDS:
        section = DOCS[DOCS.index(f"\n### {kind}\n") :]
        assert re.search(rf"^curl [^`]*'\{{\n  \"{kind}\": ", section.partition("\n### ")[2], re.MULTILINE), kind
        assert f"| `{kind}` |" in DOCS


def test_the_documented_mapping_that_sends_to_release_is_valid_and_does(tmp_path: Path) -> None:
    block = re.search(r"```yaml\n(source: acme\n.*?)```", DOCS, re.DOTALL)
    assert block is not None
    folder = folder_with(tmp_path / "mappings", block[1])
    with running_sandbox() as sandbox:
        settings = {"RELAY_MAPPINGS": str(folder), "ACME_WEBHOOK_SECRET": "s", "RELEASE_URL": sandbox.release_url}
        with site(tmp_path / "site", compass_url=sandbox.url, **settings, **RELEASE) as here, delivering(here):
            raw = json.dumps(
                {
                    "kind": "freeze",
                    "service": "shop",
                    "why": "stocktaking",
                    "from": "2026-12-20T06:00:00Z",
                    "until": "2026-12-21T06:00:00Z",
                    "announced": "2026-12-01T06:00:00Z",
                }
            ).encode()
            signed = {"X-Acme-Signature": sign(Scheme("X-Acme-Signature", "{hex}"), body=raw, secret="s")}
            answer = requests.post(
                f"{here.url}/webhooks/acme",
                data=raw,
                headers={"Content-Type": "application/json", **signed},
                timeout=10,
            )
            assert [event["type"] for event in answer.json()["events"]] == ["calendar", "custom"]
            eventually(lambda: sandbox.calendar() and sandbox.events())
            (entry,) = sandbox.calendar()
            assert (entry["name"], entry["description"]) == ("Freeze of shop", "stocktaking")
            assert entry["startDate"] == 1_797_746_400_000


def test_a_rule_that_sends_to_release_needs_a_release_server_to_start(tmp_path: Path) -> None:
    block = re.search(r"```yaml\n(source: acme\n.*?)```", DOCS, re.DOTALL)
    assert block is not None
    folder = str(folder_with(tmp_path, block[1]))
    environ = environment("sqlite:///x.db", compass_url="http://127.0.0.1:1", port=0, RELAY_MAPPINGS=folder)
    with pytest.raises(ConfigError, match=r"a\.yaml:4: the rule 'freeze' sends to release, but RELEASE_URL is not"):
        load(environ, delivers=True)


def test_a_release_server_needs_its_credentials() -> None:
    environ = environment("sqlite:///x.db", compass_url="http://127.0.0.1:1", port=0, RELEASE_URL="http://127.0.0.1:1")
    with pytest.raises(ConfigError) as caught:
        load(environ, delivers=True)
    assert [fault.where for fault in caught.value.faults] == ["RELEASE_PASSWORD", "RELEASE_USER"]


# --- delivery


@contextmanager
def delivering(here: Site) -> Iterator[None]:
    """With a dispatcher, as in a web process."""
    running = dispatcher(here.relay)
    running.start()
    try:
        yield
    finally:
        assert running.stop(25)


def test_every_kind_and_the_calendar_are_delivered_and_tell_so(tmp_path: Path, sandbox: Sandbox) -> None:
    settings = {"RELEASE_URL": sandbox.release_url, **RELEASE}
    with site(tmp_path / "site", compass_url=sandbox.url, **settings) as here, delivering(here):
        bodies = [{**whole(kind), "componentId": f"ari:{kind}"} for kind in KINDS]
        told = here.post([*bodies, FREEZE, CHRISTMAS]).json()
        ids = [element["id"] for element in told] + [other for element in told for other in element["others"]]
        assert len(ids) == len(KINDS) + 4
        eventually(lambda: all(here.get(str(id_)).json()["delivery"]["status"] == "delivered" for id_ in ids))
        assert {shown.kind for shown in sandbox.events()} == set(KINDS)
        assert [entry["name"] for entry in sandbox.calendar()] == ["Freeze", "Christmas"]
        titles = [next(iter(shown.event.values())).get("displayName") for shown in sandbox.events()]
        assert "Blackout until 2026-12-27 06:00 UTC: Freeze" in titles
        assert "Holiday on 2026-12-25: Christmas" in titles
        (attempt,) = here.get(str(ids[0])).json()["delivery"]["attempts"]
        assert (attempt["outcome"], attempt["status"]) == ("delivered", 202)


def test_what_is_posted_goes_out_at_once(tmp_path: Path, sandbox: Sandbox) -> None:
    """The dispatcher is woken; it would look by itself only every 2 s."""
    with site(tmp_path / "site", compass_url=sandbox.url) as here, delivering(here):
        took = []
        for number in range(4):
            time.sleep(0.3)
            began = time.monotonic()
            here.post(custom(number))
            eventually(lambda count=number + 1: len(sandbox.requests()) == count)
            took.append(time.monotonic() - began)
        assert sorted(took)[1] < 1


def test_updates_of_one_entity_are_ordered_and_superseded(tmp_path: Path, sandbox: Sandbox) -> None:
    bodies = []
    for order, state in enumerate(["OPEN", "OPEN", "RESOLVED", "OPEN"], start=1):
        body = _incident(state=state)
        body["incident"] |= {"updateSequenceNumber": order}
        bodies.append(body)
    with site(tmp_path / "site", compass_url=sandbox.url) as here:
        told = here.post(bodies[::-1]).json()
        with delivering(here):
            ids = [element["id"] for element in told][::-1]
            eventually(lambda: here.get(str(ids[-1])).json()["delivery"]["status"] == "delivered")
        first, second, *_ = (here.get(str(id_)).json()["delivery"] for id_ in ids)
        assert (first["status"], first["supersededBy"]) == ("superseded", ids[1])
        assert second["status"] == "delivered"
        assert [request.state for request in sandbox.requests()] == ["OPEN", "RESOLVED", "OPEN"]


# --- real processes


def whole_relay(folder: Path) -> tuple[dict[str, str], str]:
    """The environment of a relay of its own, and where its events are."""
    port = free_port()
    own = {"RELAY_ADMIN_TOKEN": TOKEN, "RELAY_MAPPINGS": str(folder_with(folder / "mappings", RELEASE_FILE))}
    env = environment(f"sqlite:///{folder}/relay.db", compass_url="http://127.0.0.1:1", port=port, **own)
    return env, f"http://127.0.0.1:{port}/events/"


def test_ten_thousand_events_survive_a_kill_right_behind_the_201(tmp_path: Path) -> None:
    env, url = whole_relay(tmp_path)
    # Nobody claims one of them before they are counted.
    env["RELAY_DISPATCHER"] = "off"
    body = json.dumps([custom(number) for number in range(10_000)]).encode()
    assert len(body) > 2 * 1_048_576, "more than a webhook may have"
    with (
        serving(env, tmp_path / "relay.log") as relay,
        requests.post(
            f"{url}?format=name",
            data=body,
            headers={"Content-Type": "application/json"},
            auth=CI,
            timeout=60,
            stream=True,
        ) as answer,
    ):
        # Before the body of the answer is read.
        relay.kill()
        assert answer.status_code == 201
        assert answer.headers["X-Relay-Forecast-Requests"] == "10000"
    with sqlite3.connect(tmp_path / "relay.db") as connection:
        rows = connection.execute("SELECT id, json_extract(body, '$.custom.displayName') FROM events ORDER BY id")
        assert [name for _, name in rows] == [f"event {number}" for number in range(10_000)]
    with serving(env, tmp_path / "relay.log"):
        newest = requests.get(f"{url}?limit=1&format=name", auth=CI, timeout=30)
        assert newest.json()[0]["name"] == "event 9999"


def test_a_body_in_chunks_is_taken_and_bounded(tmp_path: Path) -> None:
    env, url = whole_relay(tmp_path)
    headers = {"Content-Type": "application/json"}
    with serving(env, tmp_path / "relay.log"):
        raw = json.dumps(custom(1)).encode()
        answer = requests.post(url, data=iter([raw[:50], raw[50:]]), headers=headers, auth=CI, timeout=30)
        assert answer.status_code == 201
        chunk = b" " * 1_000_000
        answer = requests.post(url, data=(chunk for _ in range(17)), headers=headers, auth=CI, timeout=30)
        assert (answer.status_code, error_of(answer)[0]) == (413, "body_too_large")


def test_the_log_tells_how_many_came_and_nothing_of_what_is_in_them(tmp_path: Path) -> None:
    env, url = whole_relay(tmp_path)
    with serving(env, tmp_path / "relay.log") as relay:
        requests.post(url, json=[custom(1), FREEZE], auth=CI, timeout=30)
        requests.post(url, json=_incident(state="private-matter"), auth=CI, timeout=30)
        with socket.create_connection(("127.0.0.1", int(env["PORT"]))) as client:
            client.sendall(b"POST /events/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        relay.terminate()
        lines = [json.loads(line) for line in relay.printed().splitlines()]
    (received,) = [line for line in lines if line["event"] == "events.received"]
    assert (received["events"], received["repeated"]) == (2, False)
    assert {"invalid_event"} <= {line["status"] for line in lines if line["event"] == "events.refused"}
    for hidden in (TOKEN, "event 1", "Freeze", "private-matter"):
        assert hidden not in relay.printed()
