from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.contract import KINDS
from relay.contract.identity import identify
from tests.compass_events import least, whole


def changed(kind: str, place: str, value: Any) -> dict[str, Any]:
    event = whole(kind)
    holder: Any = event[kind]
    *above, name = place.split("/")
    for part in above:
        holder = holder[part]
    holder[name] = value
    return event


@pytest.mark.parametrize(
    ("kind", "places"),
    [
        ("build", ["externalEventSourceId", "buildProperties/pipeline/pipelineId"]),
        (
            "deployment",
            [
                "externalEventSourceId",
                "deploymentProperties/pipeline/pipelineId",
                "deploymentProperties/environment/environmentId",
            ],
        ),
        ("pullRequest", ["pullRequestProperties/repoUrl", "pullRequestProperties/id"]),
        ("incident", ["externalEventSourceId", "incidentProperties/id"]),
        ("alert", ["externalEventSourceId", "alertProperties/id"]),
        ("flag", ["externalEventSourceId", "flagProperties/id"]),
        ("lifecycle", ["externalEventSourceId", "lifecycleProperties/id"]),
        ("custom", ["externalEventSourceId", "customEventProperties/id"]),
        ("push", ["externalEventSourceId", "pushEventProperties/id"]),
        ("vulnerability", ["externalEventSourceId", "vulnerabilityProperties/id"]),
    ],
)
def test_the_source_and_the_id_make_the_entity(kind: str, places: list[str]):
    known = identify(whole(kind)).entity
    for place in places:
        assert identify(changed(kind, place, "https://another.example")).entity != known, place


def test_a_deployment_is_another_one_with_another_sequence_number():
    known = identify(whole("deployment")).entity
    assert identify(changed("deployment", "deploymentProperties/sequenceNumber", 8)).entity != known
    assert identify(changed("deployment", "deploymentProperties/sequenceNumber", 7.0)).entity == known


@pytest.mark.parametrize("kind", KINDS)
def test_the_component_is_part_of_the_entity_and_all_that_may_change_is_not(kind: str):
    known = identify(least(kind), component="a").entity
    assert identify(whole(kind), component="a").entity == known
    assert identify(least(kind), component="b").entity != known
    assert identify(least(kind)).entity != known
    later = least(kind)
    later[kind]["lastUpdated"] = "2027-01-01T00:00:00Z"
    if "updateSequenceNumber" in later[kind]:
        later[kind] |= {"updateSequenceNumber": 1, "displayName": "other", "url": "https://other.example"}
    assert identify(later, component="a").entity == known


def test_events_of_two_kinds_are_never_one_entity():
    assert len({identify(least(kind)).entity for kind in KINDS}) == len(KINDS)


IDS = st.tuples(*(st.text(alphabet='ab",[]\\ /|', min_size=1, max_size=4),) * 3)


@given(IDS, IDS)
def test_different_ids_are_never_one_entity_whatever_characters_they_hold(one: Any, other: Any):
    def entity(ids: tuple[str, str, str]) -> str:
        source, pipeline, environment = ids
        event = least("deployment")
        event["deployment"]["externalEventSourceId"] = source
        event["deployment"]["deploymentProperties"]["pipeline"]["pipelineId"] = pipeline
        event["deployment"]["deploymentProperties"]["environment"]["environmentId"] = environment
        return identify(event).entity

    assert (entity(one) == entity(other)) == (one == other)


@pytest.mark.parametrize(
    ("kind", "place", "final", "passing"),
    [
        (
            "build",
            "buildProperties/state",
            ["SUCCESSFUL", "CANCELLED", "FAILED", "ERROR", "TIMED_OUT"],
            ["IN_PROGRESS", "UNKNOWN"],
        ),
        (
            "deployment",
            "deploymentProperties/state",
            ["SUCCESSFUL", "CANCELLED", "FAILED", "ROLLED_BACK"],
            ["PENDING", "IN_PROGRESS", "UNKNOWN"],
        ),
        ("incident", "incidentProperties/state", ["RESOLVED", "DELETED"], ["OPEN"]),
        ("alert", "alertProperties/status", ["CLOSED"], ["OPENED", "ACKNOWLEDGED", "SNOOZED"]),
        ("flag", "flagProperties/status", ["deleted"], ["on", "off", "created", "archived", "targeting_updated"]),
        ("lifecycle", "lifecycleProperties/stage", ["END_OF_LIFE"], ["PRE_RELEASE", "PRODUCTION", "DEPRECATION"]),
        ("pullRequest", "pullRequestProperties/status", ["MERGED", "REJECTED"], ["CREATED", "IN_REVIEW"]),
        ("vulnerability", "vulnerabilityProperties/state", ["REMEDIATED", "DECLINED"], ["OPEN"]),
    ],
)
def test_every_kind_with_states_knows_which_of_them_are_final(
    kind: str, place: str, final: list[str], passing: list[str]
):
    for state in final + passing:
        identity = identify(changed(kind, place, state))
        assert (identity.state, identity.terminal) == (state, state in final)


@pytest.mark.parametrize("kind", ["custom", "push"])
def test_custom_events_and_pushes_have_no_state(kind: str):
    identity = identify(whole(kind))
    assert (identity.state, identity.terminal) == (None, False)


@pytest.mark.parametrize("kind", ["flag", "alert"])
def test_a_state_that_is_null_or_left_out_is_none(kind: str):
    assert identify(least(kind)).state is None
    assert identify(changed(kind, f"{kind}Properties/status", None)).state is None


def test_the_words_of_a_flag_are_one_in_any_case():
    identity = identify(changed("flag", "flagProperties/status", "DELETED"))
    assert (identity.state, identity.terminal) == ("deleted", True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_orders_the_updates(kind: str):
    order = identify(least(kind)).order
    # A pull request has no number, but the same moment as its date.
    assert order == 1_790_848_800_000


def test_a_pull_request_is_ordered_by_its_date_to_the_millisecond():
    for date in ("2026-10-01T12:00:00.123+02:00", "2026-10-01t10:00:00.123z"):
        assert identify(changed("pullRequest", "lastUpdated", date)).order == 1_790_848_800_123


@pytest.mark.parametrize("date", ["2016-12-31T23:59:60Z", "0000-01-01T00:00:00Z"])
def test_a_valid_date_that_python_has_not_still_has_an_order(date: str):
    assert isinstance(identify(changed("pullRequest", "lastUpdated", date)).order, int)
