"""Real Bitbucket Data Center webhooks, as their authors published them, become what the mapping file promises."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from relay.intake import read_json
from relay.mapping import load_mappings
from relay.mapping.compiled import Mapping
from relay.mapping.examples import describe
from relay.model import Event, Lane, Translated, Webhook
from relay.translate import translate

ROOT = Path(__file__).parents[1]
PAYLOADS = Path(os.environ.get("RELAY_PAYLOADS", ROOT.parent / "shared" / "payloads"))
CORPUS = PAYLOADS / "bitbucket-server"

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason="the published payloads are not here")

BASE_URL = "https://git.acme.example/bitbucket"
"""What the relay is told of the server; the bodies of version 5 hold no links."""


@dataclass(frozen=True)
class Repository:
    """A repository as it stands in Compass."""

    id: str
    url: str


GOPHER = Repository(
    "server.bitbucket.local/~gopher/webhook-test", "https://server.bitbucket.local/users/gopher/repos/webhook-test"
)
OLD = Repository("git.acme.example/PRJ/my-repo", f"{BASE_URL}/projects/PRJ/repos/my-repo")
PRJ = Repository("example.com:7990/PRJ/my-repo", "http://example.com:7990/projects/PRJ/repos/my-repo")
ABC = Repository("example.org/ABC/some-repo-slug", "http://example.org/projects/ABC/repos/some-repo")
AMUNIZ = "localhost:7990/AMUNIZ/test-repos"


@dataclass(frozen=True)
class PullRequest:
    """What is expected of a webhook that becomes a pull request."""

    rule: str
    status: str
    number: int
    repository: Repository
    order: int
    """The time of the event in milliseconds, with the pull request's version in the last three digits."""
    title: str
    """The title of the custom event."""
    description: str
    lane: Lane = Lane.LOW


PULL_REQUESTS = {
    "goplayground_pr-comment-added.json": PullRequest(
        "pull request commented",
        "IN_REVIEW",
        2,
        GOPHER,
        1551431315020,
        "Pull request #2 has a new comment: Update README",
        "feature/wip → master · by Foo Bar · ~gopher/webhook-test",
    ),
    "goplayground_pr-declined.json": PullRequest(
        "pull request declined",
        "REJECTED",
        2,
        GOPHER,
        1551431555023,
        "Pull request #2 declined: Update README",
        "feature/wip → master · by Foo Bar · ~gopher/webhook-test",
        Lane.NORMAL,
    ),
    "goplayground_pr-deleted.json": PullRequest(
        "pull request deleted",
        "REJECTED",
        2,
        GOPHER,
        1551431830026,
        "Pull request #2 deleted: Update README",
        "feature/wip → master · by Foo Bar · ~gopher/webhook-test",
        Lane.NORMAL,
    ),
    "goplayground_pr-merged.json": PullRequest(
        "pull request merged",
        "MERGED",
        5,
        GOPHER,
        1551433034002,
        "Pull request #5 merged: Update README",
        "feature/wip → master · by Foo Bar · ~gopher/webhook-test",
        Lane.NORMAL,
    ),
    "goplayground_pr-modified.json": PullRequest(
        "pull request updated",
        "CREATED",
        3,
        Repository(
            "server.bibucket.local/~gopher/webhook-test",
            "https://server.bibucket.local/users/gopher/repos/webhook-test",
        ),
        1551431988001,
        "Pull request #3 updated: Feature/wip",
        "feature/wip → master · by Foo Bar · ~gopher/webhook-test",
    ),
    "goplayground_pr-opened.json": PullRequest(
        "pull request opened",
        "CREATED",
        5,
        GOPHER,
        1551432675000,
        "Pull request #5 opened: Update README",
        "feature/wip → master · by Foo Bar · ~gopher/webhook-test",
        Lane.NORMAL,
    ),
    "goplayground_pr-reviewer-approved.json": PullRequest(
        "pull request reviewed",
        "IN_REVIEW",
        5,
        GOPHER,
        1551432938000,
        "Pull request #5 approved: Update README",
        "feature/wip → master · by Cain Piper · ~gopher/webhook-test",
    ),
    "goplayground_pr-reviewer-needs-work.json": PullRequest(
        "pull request reviewed",
        "IN_REVIEW",
        5,
        GOPHER,
        1551432893000,
        "Pull request #5 needs work: Update README",
        "feature/wip → master · by Cain Piper · ~gopher/webhook-test",
    ),
    "goplayground_pr-reviewer-unapproved.json": PullRequest(
        "pull request reviewed",
        "IN_REVIEW",
        5,
        GOPHER,
        1551432855000,
        "Pull request #5 had a review withdrawn: Update README",
        "feature/wip → master · by Cain Piper · ~gopher/webhook-test",
    ),
    "goplayground_pr-reviewer-updated.json": PullRequest(
        "pull request updated",
        "CREATED",
        3,
        GOPHER,
        1551431988001,
        "Pull request #3 has other reviewers: Update README",
        "feature/wip → master · by Foo Bar · ~gopher/webhook-test",
    ),
    "goscm_pr_declined.json": PullRequest(
        "pull request declined",
        "REJECTED",
        2,
        OLD,
        1530819048002,
        "Pull request #2 declined: added LICENSE",
        "develop → master · by Jane Citizen · PRJ/my-repo",
        Lane.NORMAL,
    ),
    "goscm_pr_declined_iso_dates.json": PullRequest(
        "pull request declined",
        "REJECTED",
        2,
        OLD,
        1530819200001,
        "Pull request #2 declined: added LICENSE",
        "develop → master · by Jane Citizen · PRJ/my-repo",
        Lane.NORMAL,
    ),
    "goscm_pr_deleted.json": PullRequest(
        "pull request deleted",
        "REJECTED",
        2,
        OLD,
        1530819093002,
        "Pull request #2 deleted: added LICENSE",
        "develop → master · by Jane Citizen · PRJ/my-repo",
        Lane.NORMAL,
    ),
    "goscm_pr_from_ref_updated.json": PullRequest(
        "pull request updated",
        "CREATED",
        2,
        PRJ,
        1637661772000,
        "Pull request #2 updated: added LICENSE",
        "feature-2 → master · by Jane Citizen · PRJ/my-repo",
    ),
    "goscm_pr_merged.json": PullRequest(
        "pull request merged",
        "MERGED",
        3,
        OLD,
        1530819200002,
        "Pull request #3 merged: Develop",
        "develop → master · by Jane Citizen · PRJ/my-repo",
        Lane.NORMAL,
    ),
    "goscm_pr_merged_iso_dates.json": PullRequest(
        "pull request merged",
        "MERGED",
        3,
        OLD,
        1530819200002,
        "Pull request #3 merged: Develop",
        "develop → master · by Jane Citizen · PRJ/my-repo",
        Lane.NORMAL,
    ),
    "goscm_pr_modified_meta.json": PullRequest(
        "pull request updated",
        "CREATED",
        6,
        PRJ,
        1637765028001,
        "Pull request #6 updated: Clean README.md",
        "cleanup → master · by Jane Citizen · PRJ/my-repo",
    ),
    "goscm_pr_modified_toref.json": PullRequest(
        "pull request updated",
        "CREATED",
        2,
        PRJ,
        1637673380000,
        "Pull request #2 updated: added LICENSE",
        "feature-2 → master · by Jane Citizen · PRJ/my-repo",
    ),
    "goscm_pr_open.json": PullRequest(
        "pull request opened",
        "CREATED",
        2,
        OLD,
        1530818490000,
        "Pull request #2 opened: added LICENSE",
        "develop → master · by Jane Citizen · PRJ/my-repo",
        Lane.NORMAL,
    ),
    "goscm_pr_open_iso_dates.json": PullRequest(
        "pull request opened",
        "CREATED",
        2,
        OLD,
        1530818490000,
        "Pull request #2 opened: added LICENSE",
        "develop → master · by Jane Citizen · PRJ/my-repo",
        Lane.NORMAL,
    ),
    "jenkinsbbppr_pr_declined.json": PullRequest(
        "pull request declined",
        "REJECTED",
        7,
        Repository("bitbucket:7990/PPRPLUG/hellophp", "http://bitbucket:7990/projects/PPRPLUG/repos/hellophp"),
        1622319481006,
        "Pull request #7 declined: dummy change",
        "bugfix/tst-2 → master · by me-display-name · PPRPLUG/hellophp",
        Lane.NORMAL,
    ),
    "jenkinsbbppr_pr_merged.json": PullRequest(
        "pull request merged",
        "MERGED",
        61,
        ABC,
        1580222784003,
        "Pull request #61 merged: test",
        "develop → master · by me display name · ABC/some-repo-slug",
        Lane.NORMAL,
    ),
    "jenkinsbbppr_pr_opened.json": PullRequest(
        "pull request opened",
        "CREATED",
        61,
        ABC,
        1580222693000,
        "Pull request #61 opened: test",
        "develop → master · by me display name · ABC/some-repo-slug",
        Lane.NORMAL,
    ),
    "jenkinsbbppr_pr_opened_no_clone_property.json": PullRequest(
        "pull request opened",
        "CREATED",
        61,
        ABC,
        1580222693000,
        "Pull request #61 opened: test",
        "develop → master · by me display name · ABC/some-repo-slug",
        Lane.NORMAL,
    ),
    "jenkinsbbs_prOpenFromTagPayload.json": PullRequest(
        "pull request opened",
        "CREATED",
        1,
        Repository(
            "localhost:7990/AMUNIZ/test-repos", "http://localhost:7990/bitbucket/projects/AMUNIZ/repos/test-repos"
        ),
        1744481998000,
        "Pull request #1 opened: pr from tag",
        "v1.0 → master · by amuniz · AMUNIZ/test-repos",
        Lane.NORMAL,
    ),
}


@dataclass(frozen=True)
class Push:
    """What is expected of a push of one branch."""

    repository: Repository
    commit: str
    branch: str
    order: int
    title: str
    description: str
    author: dict[str, str]


JANE = {"name": "Jane Citizen", "email": "jane@example.com"}
PUSHES = {
    "goscm_push.json": Push(
        OLD,
        "823b2230a56056231c9425d63758fa87078a66b4",
        "master",
        1530814920000,
        "Push to master",
        "Jane Citizen pushed to master · PRJ/my-repo · 823b2230a56",
        JANE,
    ),
    "goscm_push_branch_create.json": Push(
        OLD,
        "208b0a5c05eddadad01f2aed8802fe0c3b3eaf5e",
        "develop",
        1530815055000,
        "New branch develop",
        "Jane Citizen created develop · PRJ/my-repo · 208b0a5c05e",
        JANE,
    ),
    "goscm_push_v5.json": Push(
        Repository(
            "git.acme.example/ISCLOUD/transamerica.cloud.individual.tftest",
            f"{BASE_URL}/projects/ISCLOUD/repos/transamerica.cloud.individual.tftest",
        ),
        "51a33664b6d7fb5aa15063064eb230362cd02e9e",
        "trangineni/devtfvars-1685475548410",
        1685475647000,
        "Push to trangineni/devtfvars-1685475548410",
        "Rangineni, Tanuja pushed to trangineni/devtfvars-1685475548410"
        " · ISCLOUD/transamerica.cloud.individual.tftest · 51a33664b6d",
        {"name": "Rangineni, Tanuja", "email": "tanuja.rangineni@transamerica.com"},
    ),
    "jenkinsbbs_pushPayload.json": Push(
        Repository(AMUNIZ, "http://localhost:7990/projects/AMUNIZ/repos/test-repos"),
        "9fdd7b96d3f5c276d0b9e0bf38c879eb112d889a",
        "main",
        1732671285000,
        "source-2: Wed 13 Nov 2024 21:54:36 AEST",
        "Antonio Muniz pushed to main · AMUNIZ/test-repos · 9fdd7b96d3f",
        {"name": "Antonio Muniz", "email": "amuniz@acme.com"},
    ),
    "jenkinsbbs_pushPayload_v10.json": Push(  # pushed by one, written by another
        Repository(AMUNIZ, "http://localhost:7990/bitbucket/projects/AMUNIZ/repos/test-repos"),
        "fb522a6f08c7c7df337312e4e65ec1b57710672e",
        "feature/BB-1",
        1780667684000,
        "Suppress echo command part",
        "Administrator created feature/BB-1 · AMUNIZ/test-repos · fb522a6f08c",
        {"name": "Antonio Muniz", "email": "amuniz@example.com"},
    ),
}

IGNORED = {
    "goplayground_pr-comment-deleted.json": "comment changed",
    "goplayground_pr-comment-edited.json": "comment changed",
    "goplayground_repo-comment-added.json": "repository change",
    "goplayground_repo-comment-deleted.json": "repository change",
    "goplayground_repo-comment-edited.json": "repository change",
    "goplayground_repo-forked.json": "repository change",
    "goplayground_repo-modified.json": "repository change",
    "goplayground_repo-refs-changed.json": "push without a branch",
    "goscm_push_branch_delete.json": "push without a branch",
    "goscm_push_tag_create.json": "push without a branch",
    "goscm_push_tag_delete.json": "push without a branch",
    "gwt_hmac_repo_comment_added.json": "repository change",
    "jenkinsbbs_annotated_tag_created.json": "push without a branch",
    "jenkinsbbs_branch_deleted.json": "push without a branch",
    "jenkinsbbs_emptyPayload.json": "push without a branch",
    "jenkinsbbs_mirrorSynchronized.json": "mirror",
    "jenkinsbbs_mirrorSynchronized_refLimitExceeded.json": "mirror",
    "jenkinsbbs_ping.json": "test connection",
    "jenkinsbbs_signed_payload.json": "push without a branch",
    "jenkinsbbs_tag_created.json": "push without a branch",
    "jenkinsbbs_tag_deleted.json": "push without a branch",
}


@pytest.fixture(scope="module")
def mapping() -> Mapping:
    environ = {"BITBUCKET_SERVER_BASE_URL": BASE_URL}
    return load_mappings(ROOT / "mappings", environ=environ)["bitbucket-server"]


@pytest.fixture(scope="module")
def both() -> Mapping:
    environ = {"BITBUCKET_SERVER_BASE_URL": BASE_URL, "BITBUCKET_SERVER_PULL_REQUESTS": "both"}
    return load_mappings(ROOT / "mappings", environ=environ)["bitbucket-server"]


@pytest.fixture(scope="module")
def headers() -> dict[str, dict[str, str]]:
    """The headers that each payload came with, by its name."""
    manifest = json.loads((PAYLOADS / "manifest.json").read_text())
    return {
        Path(entry["file"]).name: {name.lower(): value for name, value in entry["headers"].items()}
        for entry in manifest
        if entry["source"] == CORPUS.name
    }


def read(mapping: Mapping, file: str, headers: dict[str, str]) -> tuple[Webhook, Any]:
    raw = (CORPUS / file).read_bytes()
    text, body = read_json(raw)
    return Webhook("bitbucket-server", mapping.kept(headers), raw, text, body), body


def events(mapping: Mapping, webhook: Webhook, rule: str) -> tuple[Event, ...]:
    translation, _ = translate(webhook, mapping)
    assert isinstance(translation, Translated), describe(translation)
    assert translation.rule == rule
    assert all((event.component, event.unrouted) == (None, None) for event in translation.events)
    return translation.events


@pytest.mark.parametrize("file", PULL_REQUESTS)
def test_a_pull_request_stands_in_compass_as_in_bitbucket(
    mapping: Mapping, headers: dict[str, dict[str, str]], file: str
) -> None:
    expected = PULL_REQUESTS[file]
    webhook, _ = read(mapping, file, headers[file])
    (event,) = events(mapping, webhook, expected.rule)
    assert (event.type, event.order, event.lane) == ("pullRequest", expected.order, expected.lane)
    assert event.terminal == (expected.status in ("MERGED", "REJECTED"))
    assert event.body["pullRequest"]["pullRequestProperties"] == {
        "id": f"{expected.repository.id}#{expected.number}",
        "repoUrl": expected.repository.url,
        "pullRequestUrl": f"{expected.repository.url}/pull-requests/{expected.number}",
        "status": expected.status,
    }


@pytest.mark.parametrize("file", PULL_REQUESTS)
def test_a_pull_request_reads_well_as_a_custom_event(
    both: Mapping, headers: dict[str, dict[str, str]], file: str
) -> None:
    expected = PULL_REQUESTS[file]
    webhook, _ = read(both, file, headers[file])
    pull_request, custom = events(both, webhook, expected.rule)
    assert (pull_request.type, custom.type) == ("pullRequest", "custom")
    assert pull_request.order == custom.order == expected.order
    assert custom.body["custom"] == {
        "displayName": expected.title,
        "description": expected.description,
        "url": f"{expected.repository.url}/pull-requests/{expected.number}",
        "externalEventSourceId": expected.repository.id,
        "lastUpdated": pull_request.body["pullRequest"]["lastUpdated"],
        "updateSequenceNumber": expected.order,
        "customEventProperties": {
            "id": f"{expected.repository.id}#{expected.number}",
            "icon": {"MERGED": "CHECKPOINT", "REJECTED": "WARNING"}.get(expected.status, "INFO"),
        },
    }


def test_the_webhooks_of_one_pull_request_are_in_the_order_in_which_they_happened(
    mapping: Mapping, headers: dict[str, dict[str, str]]
) -> None:
    happened = ("opened", "reviewer-unapproved", "reviewer-needs-work", "reviewer-approved", "merged")
    files = [f"goplayground_pr-{what}.json" for what in happened]
    made = [events(mapping, read(mapping, file, headers[file])[0], PULL_REQUESTS[file].rule)[0] for file in files]
    assert len({event.entity for event in made}) == 1
    assert [event.order for event in made] == sorted({event.order for event in made})
    assert [event.state for event in made] == ["CREATED", "IN_REVIEW", "IN_REVIEW", "IN_REVIEW", "MERGED"]


@pytest.mark.parametrize("file", PUSHES)
def test_a_push_is_the_tip_of_a_branch_with_its_author(
    mapping: Mapping, headers: dict[str, dict[str, str]], file: str
) -> None:
    expected = PUSHES[file]
    webhook, _ = read(mapping, file, headers[file])
    (event,) = events(mapping, webhook, "push")
    assert (event.type, event.order, event.lane) == ("push", expected.order, Lane.LOW)
    push = event.body["push"]
    assert (push["displayName"], push["description"]) == (expected.title, expected.description)
    assert push["url"] == f"{expected.repository.url}/commits/{expected.commit}"
    assert push["externalEventSourceId"] == expected.repository.id
    assert push["pushEventProperties"] == {
        "id": f"{expected.commit}@{expected.branch}",
        "branchName": expected.branch,
        "author": expected.author,
    }


@pytest.mark.parametrize("file", IGNORED)
def test_what_is_no_event_in_compass_is_ignored_with_a_reason(
    mapping: Mapping, headers: dict[str, dict[str, str]], file: str
) -> None:
    described = describe(translate(read(mapping, file, headers[file])[0], mapping)[0])
    assert (described["status"], described["rule"]) == ("ignored", IGNORED[file])
    assert described["reason"]


def test_only_the_test_button_may_come_unsigned(mapping: Mapping, headers: dict[str, dict[str, str]]) -> None:
    files = {*PULL_REQUESTS, *PUSHES, *IGNORED}
    unsigned = [
        file for file in files if mapping.lets_pass_unsigned(headers[file], read(mapping, file, headers[file])[0].text)
    ]
    assert unsigned == ["jenkinsbbs_ping.json"]


def test_every_payload_is_expected() -> None:
    assert {path.name for path in CORPUS.glob("*.json")} == {*PULL_REQUESTS, *PUSHES, *IGNORED}
