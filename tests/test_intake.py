"""A request becomes a durable webhook with its events, or a typed refusal that leaves nothing behind."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import (
    MalformedBody,
    RequestError,
    SecretMissing,
    SignatureError,
    StoreUnavailable,
    UnknownSource,
    UnsupportedMediaType,
)
from relay.intake import Intake, receive, secrets_of
from relay.intake import TestPing as Ping  # pytest takes what begins with Test for tests
from relay.mapping.compiled import Mapping
from relay.model import Arrival, Receipt, WebhookStatus
from relay.outbox import Outbox
from relay.outbox.append import Appender
from relay.outbox.migrations import migrate
from relay.signature import sign
from tests.mapping_files import HEAD, flag, good

MAPPING = f"""{HEAD.replace("_SECRET}", '_SECRET, unsigned_when: {$headers."x-kind": ping}}')}
dedupe: ${{ $headers["x-id"] // .delivery }}
rules:
  - name: flag
    when:
      $headers["x-kind"]: [flag, null]
    event: {flag("${ .id }")}
  - name: quiet
    when:
      $headers["x-kind"]: quiet
    ignore: quiet by ${{ .by }}
"""


@pytest.fixture(scope="module")
def mapping() -> Mapping:
    return good(MAPPING)


@dataclass
class Desk:
    """An intake with a real store behind it, and what is in that store."""

    intake: Intake
    outbox: Outbox

    def take(self, body: Any, *, raw: bytes | None = None, signed: bool = True, **headers: str) -> Any:
        """Hand in a webhook of `acme` as its sender would; underscores in headers stand for hyphens."""
        raw = json.dumps(body).encode() if raw is None else raw
        sent = {"content-type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
        if signed:
            sent["x-acme-signature"] = sign(self.intake.mappings["acme"].scheme, body=raw, secret="s2")
        return receive(self.intake, source="acme", headers=sent, raw=raw, now=7)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with self.outbox.read() as connection:
            return [tuple(row) for row in connection.execute(sa.text(sql))]


@pytest.fixture
def desk(mapping: Mapping, tmp_path: Path) -> Iterator[Desk]:
    outbox = Outbox(f"sqlite:///{tmp_path}/relay.db")
    migrate(outbox)
    yield Desk(Intake({"acme": mapping}, {"acme": ("s1", "s2")}, frozenset(), Appender(outbox).append), outbox)
    outbox.close()


def test_a_webhook_and_its_events_are_stored_as_they_came(desk):
    raw = b'{"id" : "dark-mode"}\n'
    receipt = desk.take(None, raw=raw, x_kind="flag", x_id="d1", cookie="c", authorization="a")
    assert (receipt.status, receipt.rule, receipt.duplicate) == (WebhookStatus.TRANSLATED, "flag", False)
    assert [event.type for event in receipt.events] == ["flag"]
    ((source, received, status, rule, headers, body, digest),) = desk.rows(
        "SELECT source, received_at, status, rule, headers, body, mapping FROM webhooks"
    )
    assert (source, received, status, rule, body) == ("acme", 7, "translated", "flag", raw)
    assert json.loads(headers) == {"x-kind": "flag", "x-id": "d1"}
    assert digest == desk.intake.mappings["acme"].digest
    ((stored,),) = desk.rows("SELECT body FROM events")
    assert json.loads(stored)["flag"]["flagProperties"] == {"id": "dark-mode"}


STATUSES: list[tuple[Any, str | None, str, str | None, str | None]] = [
    ({"id": 1}, "flag", "translated", "flag", None),
    ({"by": "Ada"}, "quiet", "ignored", "quiet", "quiet by Ada"),
    ({}, "other", "unmatched", None, None),
    ({"id": None}, "flag", "failed", "flag", "is required"),
    (["no object"], "flag", "failed", "flag", 'Cannot index array with string ("id")'),
    ("text", None, "failed", "flag", 'Cannot index string with string ("id")'),
    (None, None, "failed", "flag", "is required"),
]


@pytest.mark.parametrize(("body", "kind", "status", "rule", "reason"), STATUSES)
def test_every_authentic_webhook_is_kept_whatever_becomes_of_it(desk, body, kind, status, rule, reason):
    receipt = desk.take(body, **({} if kind is None else {"x_kind": kind}))
    assert (receipt.status, receipt.rule) == (status, rule)
    assert desk.rows("SELECT status, rule, reason FROM webhooks") == [(status, rule, reason)]
    assert desk.rows("SELECT count(*) FROM events") == [(1 if status == "translated" else 0,)]


def test_the_same_delivery_is_stored_once(desk):
    first = desk.take({"id": 1, "delivery": "d1"})
    again = desk.take({"id": 1, "delivery": "d1"})
    other = desk.take({"id": 1, "delivery": "d2"})
    assert (again.webhook, again.events, again.duplicate) == (first.webhook, first.events, True)
    assert other.webhook != first.webhook
    assert desk.rows("SELECT count(*) FROM webhooks") == [(2,)]


@pytest.mark.parametrize("delivery", [None, ""])
def test_without_a_key_nothing_is_a_duplicate(desk, delivery):
    ids = {desk.take({"id": 1, "delivery": delivery}).webhook for _ in range(2)}
    assert len(ids) == 2


# -- refusals, in their order ----------------------------------------------------------------------

REFUSALS: list[tuple[type[Exception], Callable[[dict[str, Any]], None], str]] = [
    (UnknownSource, lambda request: request.update(source="nobody"), "no mapping file is for the source 'nobody'"),
    (
        SecretMissing,
        lambda request: request.update(secrets={}),
        "ACME_WEBHOOK_SECRET is not set, so nothing from 'acme' can be verified",
    ),
    (
        SignatureError,
        lambda request: request["headers"].update({"x-acme-signature": "00" * 32}),
        "the signature is missing or does not match the body",
    ),
    (
        UnsupportedMediaType,
        lambda request: request["headers"].update({"content-type": "text/plain"}),
        "Content-Type must be application/json, not text/plain",
    ),
    (MalformedBody, lambda _: None, "the body is not one JSON value: Expecting value: line 1 column 1 (char 0)"),
]
"""From the first thing that is looked at to the last; each makes the request worse in its way."""


@pytest.mark.parametrize("number", range(len(REFUSALS)))
def test_of_several_things_that_are_wrong_the_first_in_order_is_told(mapping, number):
    raw = b"no json"
    headers = {"content-type": "application/json", "x-acme-signature": sign(mapping.scheme, body=raw, secret="s")}
    request: dict[str, Any] = {"source": "acme", "secrets": {"acme": ("s",)}, "headers": headers}
    for _, spoil, _ in REFUSALS[number:]:
        spoil(request)
    stored: list[Arrival] = []
    intake = Intake({"acme": mapping}, request["secrets"], frozenset(), stored.append)  # type: ignore[arg-type]
    refusal, _, message = REFUSALS[number]
    with pytest.raises(refusal) as raised:
        receive(intake, source=request["source"], headers=headers, raw=raw, now=7)
    assert str(raised.value) == message
    assert stored == []


MEDIA_TYPES = {
    "application/json": True,
    "application/json; charset=utf-8": True,
    "Application/JSON;charset=UTF-8": True,
    " application/json ": True,
    "application/vnd.acme+json": True,
    "application/cloudevents+json; charset=utf-8": True,
    "": False,
    "text/json": False,
    "text/plain": False,
    "application/jsonp": False,
    "application/x-www-form-urlencoded": False,
    "multipart/form-data; boundary=application/json": False,
    "application/xml, application/json": False,
}


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_a_body_must_say_that_it_is_json(desk, media_type):
    if MEDIA_TYPES[media_type]:
        assert desk.take({"id": 1}, **{"content-type": media_type}).status == "translated"
    else:
        with pytest.raises(UnsupportedMediaType, match="Content-Type must be application/json, not "):
            desk.take({"id": 1}, **{"content-type": media_type})


def test_a_refused_request_leaves_nothing_behind(desk):
    for attempt in (
        lambda: desk.take({"id": 1}, signed=False),
        lambda: desk.take(None, raw=b"{"),
        lambda: desk.take(None, raw=b'"\xff"'),
        lambda: desk.take(None, raw=b"[" * 5000),
        lambda: desk.take({"id": 1}, **{"content-type": "text/plain"}),
        lambda: desk.take({"id": 1}, signed=False, x_acme_signature="v1=00"),
    ):
        with pytest.raises(RequestError):
            attempt()
    assert desk.rows("SELECT count(*) FROM webhooks") == [(0,)]
    assert desk.rows("SELECT count(*) FROM events") == [(0,)]


def test_when_the_store_refuses_so_does_the_intake(mapping):
    def store(_: Arrival) -> Receipt:
        raise StoreUnavailable("the disk is full")

    intake = Intake({"acme": mapping}, {}, frozenset({"acme"}), store)
    with pytest.raises(StoreUnavailable):
        receive(intake, source="acme", headers={"content-type": "application/json"}, raw=b"{}", now=7)


# -- without a signature ---------------------------------------------------------------------------


def test_a_source_that_the_operator_trusts_needs_no_signature_and_no_secret(desk, mapping):
    intake = Intake({"acme": mapping}, {}, frozenset({"acme"}), desk.intake.store)
    assert Desk(intake, desk.outbox).take({"id": 1}, signed=False).status == "translated"


def test_a_test_button_is_answered_and_leaves_nothing_behind(desk):
    assert desk.take({"test": True}, signed=False, x_kind="ping") == Ping()
    assert desk.rows("SELECT count(*) FROM webhooks") == [(0,)]


@pytest.mark.parametrize("raw", [b"", b"{", b'"\xff"', b"[" * 5000, b"NaN"])
def test_a_test_button_that_sends_no_json_is_only_unsigned(desk, raw):
    with pytest.raises(SignatureError):
        desk.take(None, raw=raw, signed=False, x_kind="ping")


def test_a_test_button_that_signs_wrongly_is_refused(desk):
    with pytest.raises(SignatureError):
        desk.take({"test": True}, signed=False, x_kind="ping", x_acme_signature="00" * 32)
    with pytest.raises(SignatureError):
        desk.take({"test": True}, signed=False, x_kind="ping", x_acme_signature="")


def test_a_test_button_that_signs_is_a_webhook(desk):
    assert desk.take({"test": True}, x_kind="ping").status == "unmatched"


def test_without_a_secret_even_a_test_button_is_our_own_mistake(mapping):
    with pytest.raises(SecretMissing):
        receive(
            Intake({"acme": mapping}, {}, frozenset(), lambda _: pytest.fail("stored")),
            source="acme",
            headers={"content-type": "application/json", "x-kind": "ping"},
            raw=b"{}",
            now=7,
        )


UNSIGNED_WHEN = {
    "'.test'": False,  # it gives what is no condition: only true lets a request pass
    "'.test == 1'": True,
    "'true, true'": False,
    "empty": False,
    "error": False,
    "'.test[0]'": False,
    "'.test as $x | $x == 1'": True,
    "{.test: 1}": True,
}


@pytest.mark.parametrize("condition", UNSIGNED_WHEN)
def test_only_a_condition_that_is_plainly_true_lets_a_request_pass(condition):
    head = HEAD.replace("_SECRET}", f"_SECRET, unsigned_when: {condition}}}")
    mapping = good(f"{head}rules: [{{name: r, ignore: x}}]")
    assert mapping.lets_pass_unsigned({}, '{"test": 1}') is UNSIGNED_WHEN[condition]


# -- whatever comes --------------------------------------------------------------------------------


def test_secrets_are_found_under_the_names_that_the_files_give(mapping):
    environ = {"ACME_WEBHOOK_SECRET": " a, b ,,", "OTHER": "c"}
    assert secrets_of({"acme": mapping}, environ) == {"acme": ("a", "b")}
    assert secrets_of({"acme": mapping}, {}) == {"acme": ()}


HEADERS = st.dictionaries(
    st.sampled_from(["content-type", "x-kind", "x-id", "x-acme-signature", "cookie"]),
    st.one_of(st.sampled_from(["application/json", "flag", "ping", "quiet"]), st.text(max_size=5)),
)
BODIES = st.one_of(
    st.binary(max_size=30), st.sampled_from([b'{"id": "a"}', b'{"id": "\\ud800", "delivery": "\\u0000"}', b"1e5"])
)


@settings(deadline=None)
@given(headers=HEADERS, raw=BODIES, signed=st.booleans(), trusted=st.booleans())
def test_any_request_is_stored_or_answered_or_refused_with_a_name(mapping, headers, raw, signed, trusted):
    if signed:
        headers["x-acme-signature"] = sign(mapping.scheme, body=raw, secret="s")
    stored: list[Arrival] = []

    def store(arrival: Arrival) -> Receipt:
        stored.append(arrival)
        return Receipt(1, arrival.translation.status, None, ())

    intake = Intake({"acme": mapping}, {"acme": ("s",)}, frozenset({"acme"} if trusted else ()), store)
    try:
        taken = receive(intake, source="acme", headers=headers, raw=raw, now=7)
    except RequestError:
        assert stored == []
        return
    assert len(stored) == (0 if isinstance(taken, Ping) else 1)
    for arrival in stored:
        assert arrival.raw == raw
        assert set(arrival.headers) <= {"x-kind", "x-id"}
        assert arrival.dedupe is None or len(arrival.dedupe) == 16
