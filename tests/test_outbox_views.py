"""What people see of the outbox is what is there, however much of it is long settled."""

import dataclasses

import pytest
import sqlalchemy as sa

from relay.dispatch.health import State
from relay.dispatch.policy import Delivered
from relay.errors import NotFound
from relay.model import (
    Claim,
    EventStatus,
    Failed,
    Ignored,
    Lane,
    Translated,
    Translation,
    Unmatched,
    WebhookStatus,
)
from relay.outbox import Outbox, claims, views
from relay.outbox.views import EventCount, HeldCount, WebhookCount
from tests.outboxes import QUOTA, REFUSED, event, events_of, send, store


def test_an_empty_outbox_has_an_empty_status(outbox: Outbox) -> None:
    seen = views.status(outbox)
    assert (seen.recent_since, seen.webhooks, seen.events, seen.held, seen.destinations) == (None, (), (), (), ())
    assert seen.open_webhooks == {WebhookStatus.UNMATCHED: 0, WebhookStatus.FAILED: 0}


def test_the_status_counts_webhooks_by_source_and_fate(outbox: Outbox) -> None:
    store(outbox, Ignored("ping", "test ping"))
    store(outbox, Unmatched())
    store(outbox, Unmatched())
    store(outbox, Failed("incident", "when", "no"), source="bitbucket")
    seen = views.status(outbox)
    assert seen.webhooks == (
        WebhookCount("bitbucket", WebhookStatus.FAILED, 1),
        WebhookCount("pagerduty", WebhookStatus.IGNORED, 1),
        WebhookCount("pagerduty", WebhookStatus.UNMATCHED, 2),
    )
    assert seen.open_webhooks == {WebhookStatus.UNMATCHED: 2, WebhookStatus.FAILED: 1}
    assert seen.recent_since is not None
    assert seen.now - 60_000 < seen.recent_since <= seen.now + 1


def test_the_status_counts_events_by_destination_state_and_lane(outbox: Outbox) -> None:
    first = store(outbox, Translated("r", (event("a", lane=Lane.URGENT), event("b"), event("c"), event("d"))))
    store(outbox, Translated("r", (event("e", unrouted="service-9"), event("f", unrouted="service-9"))))
    send(outbox, [Delivered(), REFUSED])
    seen = views.status(outbox)
    assert [(one.status, one.lane, one.count) for one in seen.events] == [
        (EventStatus.DEAD, Lane.NORMAL, 1),
        (EventStatus.DELIVERED, Lane.URGENT, 1),
        (EventStatus.PENDING, Lane.NORMAL, 2),
        (EventStatus.UNROUTED, Lane.NORMAL, 2),
    ]
    oldest = views.show_event(outbox, events_of(first)[2]).event.created_at
    assert EventCount("compass", EventStatus.PENDING, Lane.NORMAL, 2, oldest) in seen.events


def test_the_status_counts_what_is_settled_too(outbox: Outbox) -> None:
    store(outbox, Translated("r", (event(order=1), event(order=2))))
    send(outbox, [Delivered()])
    assert [(one.status, one.count) for one in views.status(outbox).events] == [
        (EventStatus.DELIVERED, 1),
        (EventStatus.SUPERSEDED, 1),
    ]


def test_the_status_says_why_events_are_held_the_most_frequent_reason_first(outbox: Outbox) -> None:
    store(outbox, Translated("r", (event("a"),)))
    send(outbox, [REFUSED])
    store(outbox, Translated("r", (event("e", unrouted="service-9"), event("f", unrouted="service-9"))))
    reason = "FORMAT_INVALID: url is missing (mend the mapping)"
    assert views.status(outbox).held == (
        HeldCount("compass", EventStatus.UNROUTED, "service-9", None, 2),
        HeldCount("compass", EventStatus.DEAD, None, reason, 1),
    )


def test_the_status_knows_each_destination_its_slots_and_the_last_hour(outbox: Outbox) -> None:
    store(outbox, Translated("r", (event("a"), event("b"), event("c"))))
    send(outbox, [Delivered(), REFUSED])
    assert isinstance(claims.claim(outbox, "compass", quota=QUOTA, token="t"), Claim)
    claims.pause(outbox, "compass")
    (compass,) = views.status(outbox).destinations
    assert (compass.name, compass.paused, compass.state, compass.reason) == ("compass", True, State.OPEN, None)
    assert compass.slots_held == 3
    assert {one.outcome: one.count for one in compass.attempts} == {"delivered": 1, "dead": 1, None: 1}


def test_a_destination_is_listed_before_anything_was_sent_there(outbox: Outbox) -> None:
    store(outbox, Translated("r", (event("a"),)))
    (compass,) = views.status(outbox).destinations
    assert (compass.name, compass.slots_held, compass.attempts, compass.wait_until) == ("compass", 0, (), None)


def test_webhooks_are_listed_newest_first_a_page_at_a_time(outbox: Outbox) -> None:
    ids = [store(outbox, Unmatched()).webhook for _ in range(5)]
    first = views.list_webhooks(outbox, limit=2)
    second = views.list_webhooks(outbox, limit=9, before=first[-1].id)
    assert [one.id for one in (*first, *second)] == ids[::-1]


@pytest.mark.parametrize("status", WebhookStatus)
def test_webhooks_are_listed_by_what_became_of_them(outbox: Outbox, status: WebhookStatus) -> None:
    every: list[Translation] = [Ignored("r", "why"), Unmatched(), Failed("r", "f", "why"), Translated("r", ())]
    for translation in every:
        store(outbox, translation)
    (listed,) = views.list_webhooks(outbox, status=status)
    assert listed.status is status


def test_webhooks_are_listed_by_source(outbox: Outbox) -> None:
    store(outbox, Unmatched())
    other = store(outbox, Failed("r", "event.url", "is no URL"), source="bitbucket")
    (listed,) = views.list_webhooks(outbox, source="bitbucket")
    assert (listed.id, listed.source, listed.rule, listed.field, listed.reason, listed.mapping) == (
        other.webhook,
        "bitbucket",
        "r",
        "event.url",
        "is no URL",
        "m1",
    )
    assert views.list_webhooks(outbox, source="nobody") == ()


def test_a_webhook_is_shown_with_its_headers_and_its_events(outbox: Outbox) -> None:
    store(outbox, Translated("r", (event("other"),)))
    receipt = store(outbox, Translated("r", (event("a"), event("b"))))
    shown = views.show_webhook(outbox, receipt.webhook)
    assert shown.webhook == views.list_webhooks(outbox)[0]
    assert (shown.headers, shown.size) == ({"content-type": "application/json"}, 8)
    assert [one.id for one in shown.events] == events_of(receipt)
    assert views.webhook_body(outbox, receipt.webhook) == b'{"a": 1}'


@pytest.mark.parametrize("status", EventStatus)
def test_events_are_listed_by_status(outbox: Outbox, status: EventStatus) -> None:
    made = events_of(store(outbox, Translated("r", tuple(event(name) for name in "abcdef"))))
    with outbox.write() as connection:
        for number, one in zip(made, EventStatus, strict=True):
            update = "UPDATE events SET status = :status WHERE id = :id"
            connection.execute(sa.text(update), {"status": one.value, "id": number})
    listed = views.list_events(outbox, status=status)
    assert [(one.id, one.status) for one in listed] == [(made[list(EventStatus).index(status)], status)]


@pytest.mark.parametrize("status", [None, EventStatus.PENDING])
def test_events_are_listed_newest_first_a_page_at_a_time(outbox: Outbox, status: EventStatus | None) -> None:
    made = events_of(store(outbox, Translated("r", tuple(event(name) for name in "abcdef"))))
    first = views.list_events(outbox, status=status, limit=4)
    second = views.list_events(outbox, status=status, before=first[-1].id)
    assert [one.id for one in (*first, *second)] == made[::-1]


def test_events_are_listed_by_type_and_destination(outbox: Outbox) -> None:
    flag = dataclasses.replace(event("a"), type="flag", destination="elsewhere")
    made = events_of(store(outbox, Translated("r", (flag, event("b")))))
    assert [one.id for one in views.list_events(outbox, type="flag")] == made[:1]
    assert [one.id for one in views.list_events(outbox, destination="compass")] == made[1:]
    assert views.list_events(outbox, type="flag", destination="compass") == ()


def test_an_event_is_shown_with_everything_that_was_tried(outbox: Outbox) -> None:
    receipt = store(outbox, Translated("r", (event("a", order=77),)))
    (sent,) = send(outbox, [REFUSED])
    shown = views.show_event(outbox, sent)
    assert shown.body == {"incident": {"displayName": "Incident a"}}
    assert (shown.event.id, shown.event.webhook) == (sent, receipt.webhook)
    assert (shown.event.status, shown.event.number, shown.event.failures) == (EventStatus.DEAD, 77, 0)
    assert shown.event.reason == "FORMAT_INVALID: url is missing (mend the mapping)"
    (attempt,) = shown.attempts
    assert (attempt.outcome, attempt.status, attempt.error) == ("dead", 400, "FORMAT_INVALID")
    assert (attempt.trigger, attempt.took_ms) == ("auto", 7)


def test_a_superseded_event_names_its_successor(outbox: Outbox) -> None:
    old, new = events_of(store(outbox, Translated("r", (event(order=1), event(order=2)))))
    send(outbox, [Delivered()])
    shown = views.show_event(outbox, old).event
    assert (shown.status, shown.successor) == (EventStatus.SUPERSEDED, new)


def test_what_is_not_there_is_named(outbox: Outbox) -> None:
    with pytest.raises(NotFound, match="there is no webhook 7"):
        views.show_webhook(outbox, 7)
    with pytest.raises(NotFound, match="there is no webhook 7"):
        views.webhook_body(outbox, 7)
    with pytest.raises(NotFound, match="there is no event 7"):
        views.show_event(outbox, 7)
