"""A replay sends again what can be sent again, says why it leaves the rest alone, and never does it twice."""

import dataclasses
import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from relay.dispatch.policy import Delivered, NoEventSource
from relay.errors import UnknownSource
from relay.model import (
    Claim,
    Event,
    EventStatus,
    Failed,
    Ignored,
    Translated,
    Translation,
    Unmatched,
    WebhookStatus,
)
from relay.outbox import Outbox, claims, standing, views
from relay.outbox.replay import Outcome, Replayed, Retranslation, StoredWebhook, replay_events, replay_webhooks
from tests.outboxes import QUOTA, REFUSED, event, events_of, send, store


def stored(outbox: Outbox, *its_events: Event) -> list[int]:
    return events_of(store(outbox, Translated("incident", its_events)))


def translated(*its_events: Event) -> Callable[[StoredWebhook], Retranslation]:
    """Mappings of today that make these events."""
    return always(Translated("mended", its_events))


def always(translation: Translation) -> Callable[[StoredWebhook], Retranslation]:
    return lambda _webhook: Retranslation(translation, "m2")


def no_mapping(webhook: StoredWebhook) -> Retranslation:
    raise UnknownSource(f"no mapping file is for the source {webhook.source!r}")


def again(outbox: Outbox, which: Any, **settings: Any) -> list[Replayed]:
    return list(replay_events(outbox, which, **{"translate": no_mapping, **settings}))


def again_webhooks(outbox: Outbox, which: Any, translation: Translation, **settings: Any) -> list[Replayed]:
    return list(replay_webhooks(outbox, which, translate=always(translation), **settings))


def seen(outbox: Outbox, which: int) -> views.EventView:
    return views.show_event(outbox, which).event


# Events


def test_dead_letters_are_sent_again_from_the_start(outbox: Outbox) -> None:
    (first,) = stored(outbox, event("a", order=7))
    (second,) = stored(outbox, event("b"))
    send(outbox, [REFUSED, REFUSED])
    told: list[str] = []
    outbox.on_commit = lambda: told.append("woken")
    assert again(outbox, EventStatus.DEAD) == [Replayed(first, Outcome.QUEUED), Replayed(second, Outcome.QUEUED)]
    assert told == ["woken", "woken"]
    waits = seen(outbox, first)
    assert (waits.status, waits.trigger, waits.failures, waits.number) == (EventStatus.PENDING, "replay", 0, 7)
    assert (waits.reason, waits.settled_at) == (None, None)
    assert send(outbox, [Delivered(), Delivered()]) == [first, second]
    assert [one.trigger for one in views.show_event(outbox, first).attempts] == ["auto", "replay"]
    assert again(outbox, EventStatus.DEAD) == []


def test_a_dry_run_says_the_same_and_changes_nothing(outbox: Outbox) -> None:
    (dead,) = stored(outbox, event("a"))
    (unrouted,) = stored(outbox, event("b", unrouted="service-9"))
    send(outbox, [REFUSED])
    (webhook,) = (store(outbox, Unmatched()).webhook,)
    before = (seen(outbox, dead), seen(outbox, unrouted), views.show_webhook(outbox, webhook))
    mended = translated(event("b"))
    assert again(outbox, EventStatus.DEAD, dry_run=True) == [Replayed(dead, Outcome.QUEUED)]
    assert again(outbox, EventStatus.UNROUTED, translate=mended, dry_run=True) == [Replayed(unrouted, Outcome.ROUTED)]
    assert again_webhooks(outbox, [webhook], Ignored("ping", "a test"), dry_run=True) == [
        Replayed(webhook, Outcome.TRANSLATED, "a test", WebhookStatus.IGNORED)
    ]
    assert (seen(outbox, dead), seen(outbox, unrouted), views.show_webhook(outbox, webhook)) == before


@pytest.mark.parametrize("dry_run", [True, False])
def test_what_the_destination_would_ignore_is_told_so_and_not_sent(outbox: Outbox, dry_run: bool) -> None:
    (old,) = stored(outbox, event(order=1))
    send(outbox, [REFUSED])
    (new,) = stored(outbox, event(order=2))
    send(outbox, [Delivered()])
    (told,) = again(outbox, [old], dry_run=dry_run)
    assert told.outcome is Outcome.STALE
    assert told.reason == f"the destination would ignore it: event {new} of the same entity is newer and was sent"
    assert seen(outbox, old).status is EventStatus.DEAD


def test_a_delivered_event_is_sent_again_with_a_number_that_counts(outbox: Outbox) -> None:
    (one,) = stored(outbox, event(order=7))
    send(outbox, [Delivered()])
    assert again(outbox, [one]) == [Replayed(one, Outcome.QUEUED)]
    claim = claims.claim(outbox, "compass", quota=QUOTA, token="t")
    assert isinstance(claim, Claim)
    assert (claim.event, claim.number, claim.trigger) == (one, 8, "replay")


def test_an_event_that_waits_for_its_next_try_goes_now(outbox: Outbox) -> None:
    (one,) = stored(outbox, event())
    claim = claims.claim(outbox, "compass", quota=QUOTA, token="t")
    assert isinstance(claim, Claim)
    assert again(outbox, [one]) == [Replayed(one, Outcome.KEPT, "it is on its way now")]
    claims.release(outbox, claim)
    claims.pause(outbox, "compass")
    assert again(outbox, [one]) == [Replayed(one, Outcome.QUEUED)]
    assert seen(outbox, one).trigger == "replay"


def test_a_superseded_event_is_left_to_the_one_that_took_its_place(outbox: Outbox) -> None:
    old, new, _ = stored(outbox, event(order=1), event(order=2), event("other"))
    assert isinstance(claims.claim(outbox, "compass", quota=QUOTA, token="t"), Claim)
    (told,) = again(outbox, [old])
    assert told == Replayed(old, Outcome.KEPT, f"event {new} of the same entity is newer and will be sent")


def test_a_superseded_event_can_be_sent_when_the_other_one_is_dead(outbox: Outbox) -> None:
    old, new = stored(outbox, event(order=1), event(order=2))
    assert send(outbox, [REFUSED]) == [new]
    assert again(outbox, [old]) == [Replayed(old, Outcome.QUEUED)]
    assert send(outbox, [Delivered()]) == [old]
    assert seen(outbox, old).successor is None


def test_ids_that_are_not_there_are_named(outbox: Outbox) -> None:
    assert again(outbox, [7, 8]) == [Replayed(7, Outcome.MISSING), Replayed(8, Outcome.MISSING)]
    assert again_webhooks(outbox, [7], Unmatched()) == [Replayed(7, Outcome.MISSING)]


def test_a_replay_that_is_interrupted_has_done_what_it_told(outbox: Outbox) -> None:
    made = stored(outbox, event("a"), event("b"), event("c"))
    send(outbox, [REFUSED] * 3)
    told = list(itertools.islice(replay_events(outbox, EventStatus.DEAD, translate=no_mapping), 2))
    states = [seen(outbox, one).status for one in made]
    assert [one.id for one in told] == made[:2]
    assert states == [EventStatus.PENDING, EventStatus.PENDING, EventStatus.DEAD]


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_a_replay_waits_for_its_turn_while_somebody_claims_or_settles(outbox: Outbox, database_url: str) -> None:
    (dead,) = stored(outbox, event())
    send(outbox, [REFUSED])
    done: list[Replayed] = []
    thread = threading.Thread(target=lambda: done.extend(again(outbox, [dead])))
    dispatcher = Outbox(database_url)
    with dispatcher.write() as connection:
        standing.lock(connection, dispatcher, "compass")
        thread.start()
        thread.join(0.5)
        assert done == []
    thread.join(10)
    dispatcher.close()
    assert done == [Replayed(dead, Outcome.QUEUED)]


def test_two_replays_at_once_send_nothing_twice(outbox: Outbox) -> None:
    made = stored(outbox, event("a"), event("b"))
    send(outbox, [REFUSED] * 2)
    one, other = (replay_events(outbox, EventStatus.DEAD, translate=no_mapping) for _ in range(2))
    first = [next(one), next(other)]
    send(outbox, [Delivered()] * 2)
    assert [told.id for told in (*first, *one, *other)] == made, "what the other one had queued was left alone"
    assert [seen(outbox, which).status for which in made] == [EventStatus.DELIVERED] * 2


# Events without a component


def test_an_event_with_a_component_takes_the_place_of_the_one_without(outbox: Outbox) -> None:
    receipt = store(outbox, Translated("incident", (event("a", unrouted="service-9"),)))
    (old,) = events_of(receipt)
    (told,) = again(outbox, EventStatus.UNROUTED, translate=translated(event("a/component-1")))
    (new,) = told.events
    assert told == Replayed(old, Outcome.ROUTED, events=(new,))
    assert (seen(outbox, old).status, seen(outbox, old).successor) == (EventStatus.SUPERSEDED, new)
    assert (seen(outbox, new).status, seen(outbox, new).webhook) == (EventStatus.PENDING, receipt.webhook)
    webhook = views.show_webhook(outbox, receipt.webhook).webhook
    assert (webhook.rule, webhook.mapping) == ("mended", "m2")
    assert again(outbox, EventStatus.UNROUTED, translate=no_mapping) == []
    (told,) = again(outbox, [old])
    assert told == Replayed(old, Outcome.KEPT, f"event {new}, which has a component, took its place")


def test_only_what_has_a_component_by_now_is_sent_and_what_was_sent_is_not_repeated(outbox: Outbox) -> None:
    sent, lacking, still = stored(outbox, event("a"), event("b", unrouted="b"), event("c", unrouted="c"))
    send(outbox, [Delivered()])
    mended = translated(event("a"), event("b/1"), event("b/2"), event("c", unrouted="c"))
    first, second = again(outbox, EventStatus.UNROUTED, translate=mended)
    assert (first.id, first.outcome, len(first.events)) == (lacking, Outcome.ROUTED, 2)
    assert second == Replayed(still, Outcome.KEPT, "no component is listed for c")
    assert len(send(outbox, [Delivered(), Delivered()])) == 2
    assert isinstance(claims.claim(outbox, "compass", quota=QUOTA, token="t"), claims.Wait)
    assert seen(outbox, sent).status is EventStatus.DELIVERED


def test_two_events_of_one_webhook_are_routed_together(outbox: Outbox) -> None:
    first, second = stored(outbox, event("a", unrouted="a"), event("b", unrouted="b"))
    (told,) = again(outbox, EventStatus.UNROUTED, translate=translated(event("a/1"), event("b/1")))
    assert (told.id, len(told.events)) == (first, 2)
    assert seen(outbox, second).status is EventStatus.SUPERSEDED
    assert len(send(outbox, [Delivered(), Delivered()])) == 2


def test_an_event_that_needs_no_component_any_more_is_sent_without(outbox: Outbox) -> None:
    (old,) = stored(outbox, event("a", unrouted="a"))
    (told,) = again(outbox, [old], translate=translated(event("a")))
    assert told.outcome is Outcome.ROUTED
    assert send(outbox, [Delivered()]) == list(told.events)


@pytest.mark.parametrize(
    ("translate", "reason"),
    [
        (translated(event("a", unrouted="service-9")), "no component is listed for service-9"),
        (translated(), "its webhook makes no such event any more"),
        (translated(event("a", unrouted="another key")), "its webhook makes no such event any more"),
        (always(Failed("incident", "when", "broken")), "its webhook would be failed now"),
        (no_mapping, "no mapping file is for the source 'pagerduty'"),
    ],
)
def test_an_event_that_still_has_no_component_is_kept(
    outbox: Outbox, translate: Callable[[StoredWebhook], Retranslation], reason: str
) -> None:
    (old,) = stored(outbox, event("a", unrouted="service-9"))
    before = seen(outbox, old)
    assert again(outbox, EventStatus.UNROUTED, translate=translate) == [Replayed(old, Outcome.KEPT, reason)]
    assert seen(outbox, old) == before


def test_events_whose_source_was_missing_are_simply_sent_again(outbox: Outbox) -> None:
    several = tuple(dataclasses.replace(event(name), event_source="pagerduty") for name in "abc")
    made = stored(outbox, *several)
    send(outbox, [NoEventSource("the event source does not exist")])
    assert {seen(outbox, one).status for one in made} == {EventStatus.UNROUTED}
    assert again(outbox, EventStatus.UNROUTED) == [Replayed(one, Outcome.QUEUED) for one in made]
    assert sorted(send(outbox, [Delivered()] * 3)) == made


# Webhooks


@pytest.mark.parametrize("was", [Failed("incident", "event.url", "is no URL"), Unmatched()])
def test_a_webhook_is_translated_again_under_its_id(outbox: Outbox, was: Translation) -> None:
    receipt = store(outbox, was)
    (told,) = again_webhooks(outbox, was.status, Translated("mended", (event("a"), event("b"))))
    assert (told.id, told.outcome, told.status) == (receipt.webhook, Outcome.TRANSLATED, WebhookStatus.TRANSLATED)
    shown = views.show_webhook(outbox, receipt.webhook)
    assert [one.id for one in shown.events] == list(told.events)
    assert (shown.webhook.status, shown.webhook.rule) == (WebhookStatus.TRANSLATED, "mended")
    assert (shown.webhook.field, shown.webhook.reason, shown.webhook.mapping) == (None, None, "m2")
    assert send(outbox, [Delivered(), Delivered()]) == list(told.events)
    assert again_webhooks(outbox, was.status, Translated("mended", (event("a"),))) == []


def test_the_webhook_is_handed_over_as_it_came(outbox: Outbox) -> None:
    receipt = store(outbox, Unmatched(), source="bitbucket")
    handed: list[StoredWebhook] = []

    def translate(webhook: StoredWebhook) -> Retranslation:
        handed.append(webhook)
        return Retranslation(Unmatched(), "m2")

    list(replay_webhooks(outbox, WebhookStatus.UNMATCHED, translate=translate))
    assert handed == [StoredWebhook(receipt.webhook, "bitbucket", {"content-type": "application/json"}, b'{"a": 1}')]


def test_what_still_fails_is_told_with_its_new_reason(outbox: Outbox) -> None:
    receipt = store(outbox, Failed("incident", "event.url", "is no URL"))
    (told,) = again_webhooks(outbox, WebhookStatus.FAILED, Failed("mended", "event.title", "is missing"))
    assert told == Replayed(receipt.webhook, Outcome.TRANSLATED, "is missing", WebhookStatus.FAILED)
    webhook = views.show_webhook(outbox, receipt.webhook).webhook
    assert (webhook.status, webhook.field) == (WebhookStatus.FAILED, "event.title")


def test_only_those_asked_for_are_translated_again(outbox: Outbox) -> None:
    failed = store(outbox, Failed("incident", "when", "broken"))
    unmatched = store(outbox, Unmatched())
    assert [one.id for one in again_webhooks(outbox, WebhookStatus.FAILED, Ignored("r", "w"))] == [failed.webhook]
    assert [one.id for one in again_webhooks(outbox, WebhookStatus.UNMATCHED, Ignored("r", "w"))] == [unmatched.webhook]


def test_a_webhook_that_has_events_is_left_alone(outbox: Outbox) -> None:
    receipt = store(outbox, Translated("incident", (event("a"),)))
    assert again_webhooks(outbox, [receipt.webhook], Translated("mended", (event("a"),))) == [
        Replayed(
            receipt.webhook,
            Outcome.KEPT,
            "it has its events already; replay those",
            WebhookStatus.TRANSLATED,
        )
    ]
    assert len(views.list_events(outbox)) == 1


@pytest.mark.parametrize("was", [Ignored("ping", "a test"), Translated("incident", ())])
def test_a_webhook_without_events_may_be_translated_again_by_its_id(outbox: Outbox, was: Translation) -> None:
    receipt = store(outbox, was)
    (told,) = again_webhooks(outbox, [receipt.webhook], Translated("mended", (event("a"),)))
    assert (told.outcome, len(told.events)) == (Outcome.TRANSLATED, 1)


def test_a_webhook_whose_mapping_is_gone_is_kept(outbox: Outbox) -> None:
    receipt = store(outbox, Unmatched())
    assert list(replay_webhooks(outbox, [receipt.webhook], translate=no_mapping)) == [
        Replayed(
            receipt.webhook, Outcome.KEPT, "no mapping file is for the source 'pagerduty'", WebhookStatus.UNMATCHED
        )
    ]


def test_a_replay_and_the_sender_s_repetition_make_the_events_once(outbox: Outbox) -> None:
    """The mapping is mended, somebody replays, and the vendor's own "resend" comes in between."""
    receipt = store(outbox, Unmatched())

    def translate(webhook: StoredWebhook) -> Retranslation:
        inner = replay_webhooks(outbox, [webhook.id], translate=translated(event("a")))
        assert [one.outcome for one in inner] == [Outcome.TRANSLATED]
        return Retranslation(Translated("mended", (event("a"),)), "m2")

    (told,) = replay_webhooks(outbox, WebhookStatus.UNMATCHED, translate=translate)
    assert told == Replayed(receipt.webhook, Outcome.KEPT, "somebody else has just translated it again")
    assert len(views.list_events(outbox)) == 1
