"""Real Bitbucket Cloud webhooks, as their authors published them, become what the mapping file promises."""

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
CORPUS = PAYLOADS / "bitbucket-cloud"

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason="the published payloads are not here")

ATLANTIS, ATLANTIS_URL = "{94189367-116b-436a-9f77-2314b97a6067}", "https://bitbucket.org/lkysow/atlantis-example"
DOCS, DOCS_URL = "{673a6070-3421-46c9-9d48-90745f7bfe8e}", "https://api.bitbucket.org/bitbucket/bitbucket"
FOO, FOO_URL = "{bc771cbf-829e-4c4b-b71f-a0eb3ac2b860}", "https://bitbucket.org/brydzewski/foo"
ALIBABA = "{4402cbae-7790-453a-b29e-5fcab61a84df}"
ALIBABA_URL = "https://bitbucket.org/rutvijmehta-harness/spring-cloud-alibaba"
TEST_REPOS, FORMER_TEST_REPOS = "{3deb8c29-778a-450c-8f69-3e50a18079df}", "{f991126e-6825-40ea-a1c2-e72c336ae41e}"


@dataclass(frozen=True)
class PullRequest:
    """What is expected of a webhook that becomes a pull request."""

    rule: str
    status: str
    number: int
    repository: str
    repository_url: str
    order: int
    title: str
    """The title of the custom event."""
    description: str
    lane: Lane = Lane.LOW


# The states in the bodies of the documentation all read "OPEN|MERGED|DECLINED", so these show the event key's.
PULL_REQUESTS = {
    "goscm_pr_created.json": PullRequest(
        "pull request opened",
        "CREATED",
        1,
        FOO,
        FOO_URL,
        1530568299532,
        "Pull request #1 opened: Awesome new feature",
        "develop → master · by Brad Rydzewski · brydzewski/foo",
        Lane.NORMAL,
    ),
    "goscm_pr_updated.json": PullRequest(
        "pull request updated",
        "CREATED",
        1,
        FOO,
        FOO_URL,
        1530568474210,
        "Pull request #1 updated: Awesome new feature",
        "develop → master · by Brad Rydzewski · brydzewski/foo",
    ),
    "goscm_pr_comment_created.json": PullRequest(
        "pull request commented",
        "IN_REVIEW",
        1,
        ALIBABA,
        ALIBABA_URL,
        1656022209939,
        "Pull request #1 has a new comment: Update pom.xml",
        "tiwhitepaper-rutvij → 2021.x · by Rutvij Mehta · rutvijmehta-harness/spring-cloud-alibaba",
    ),
    "goscm_pr_fulfilled.json": PullRequest(
        "pull request merged",
        "MERGED",
        1,
        FOO,
        FOO_URL,
        1530581285903,
        "Pull request #1 merged: Awesome new feature",
        "develop → master · by Brad Rydzewski · brydzewski/foo",
        Lane.NORMAL,
    ),
    "goscm_pr_declined.json": PullRequest(
        "pull request declined",
        "REJECTED",
        2,
        FOO,
        FOO_URL,
        1530582240030,
        "Pull request #2 declined: update README",
        "develop → master · by Brad Rydzewski · brydzewski/foo",
        Lane.NORMAL,
    ),
    "goplayground_pull-request-created.json": PullRequest(
        "pull request opened",
        "CREATED",
        1,
        DOCS,
        DOCS_URL,
        1428333818205,
        "Pull request #1 opened: Title of pull request",
        "branch2 → master · by Emma · team_name/repo_name",
        Lane.NORMAL,
    ),
    "goplayground_pull-request-updated.json": PullRequest(
        "pull request updated",
        "CREATED",
        1,
        DOCS,
        DOCS_URL,
        1428333818205,
        "Pull request #1 updated: Title of pull request",
        "branch2 → master · by Emma · team_name/repo_name",
    ),
    "goplayground_pull-request-approved.json": PullRequest(
        "pull request reviewed",
        "IN_REVIEW",
        1,
        DOCS,
        DOCS_URL,
        1428338099195,  # the approval's time; `updated_on` is an hour older
        "Pull request #1 approved: Title of pull request",
        "branch2 → master · by Emma · team_name/repo_name",
    ),
    "goplayground_pull-request-approval-removed.json": PullRequest(
        "pull request reviewed",
        "IN_REVIEW",
        1,
        DOCS,
        DOCS_URL,
        1428338099195,
        "Pull request #1 lost an approval: Title of pull request",
        "branch2 → master · by Emma · team_name/repo_name",
    ),
    "goplayground_pull-request-merged.json": PullRequest(
        "pull request merged",
        "MERGED",
        1,
        DOCS,
        DOCS_URL,
        1428333818205,
        "Pull request #1 merged: Title of pull request",
        "branch2 → master · by Emma · team_name/repo_name",
        Lane.NORMAL,
    ),
    "goplayground_pull-request-declined.json": PullRequest(
        "pull request declined",
        "REJECTED",
        1,
        DOCS,
        DOCS_URL,
        1428333818205,
        "Pull request #1 declined: Title of pull request",
        "branch2 → master · by Emma · team_name/repo_name",
        Lane.NORMAL,
    ),
    "jenkinsbbs_pullrequest_created.json": PullRequest(
        "pull request opened",
        "CREATED",
        735,
        FORMER_TEST_REPOS,
        "https://bitbucket.org/amuniz/test-repos",
        1731157377098,
        "Pull request #735 opened: BUILD test",
        "feature/test → master · by Nikolas Falco · amuniz/test-repos",
        Lane.NORMAL,
    ),
    "jenkinsbbs_pullrequest_rejected.json": PullRequest(
        "pull request declined",
        "REJECTED",
        735,
        FORMER_TEST_REPOS,
        "https://bitbucket.org/amuniz/test-repos",
        1731158073659,
        "Pull request #735 declined: BUILD test",
        "feature/test → master · by Nikolas Falco · amuniz/test-repos",
        Lane.NORMAL,
    ),
    "jenkinsbbs_pullrequest_updated.json": PullRequest(
        "pull request updated",
        "IN_REVIEW",  # approved four years before
        1,
        TEST_REPOS,
        "https://bitbucket.org/nfalco79/test-repos",
        1785375349207,
        "Pull request #1 updated: Release/release 1",
        "release/release-1 → master · by Nikolas Falco · nfalco79/test-repos",
    ),
    "atlantis_pull-event-created.json": PullRequest(  # from the fork lkysow-fork/atlantis-example
        "pull request opened",
        "CREATED",
        16,
        ATLANTIS,
        ATLANTIS_URL,
        1560433078128,
        "Pull request #16 opened: main.tf edited online with Bitbucket",
        "Luke/maintf-edited-online-with-bitbucket-1560433073473 → main · by Luke · lkysow/atlantis-example",
        Lane.NORMAL,
    ),
    "atlantis_pull-event-updated.json": PullRequest(
        "pull request updated",
        "IN_REVIEW",
        1,
        ATLANTIS,
        ATLANTIS_URL,
        1531939099271,
        "Pull request #1 updated: Initial commit",
        "example → main · by Luke · lkysow/atlantis-example",
    ),
    "atlantis_pull-event-fulfilled.json": PullRequest(
        "pull request merged",
        "MERGED",
        16,
        ATLANTIS,
        ATLANTIS_URL,
        1560433118142,
        "Pull request #16 merged: main.tf edited online with Bitbucket",
        "Luke/maintf-edited-online-with-bitbucket-1560433073473 → main · by Luke · lkysow/atlantis-example",
        Lane.NORMAL,
    ),
    "atlantis_pull-event-rejected.json": PullRequest(
        "pull request declined",
        "REJECTED",
        13,
        ATLANTIS,
        ATLANTIS_URL,
        1560432564538,
        "Pull request #13 declined: testtest",
        "test → main · by Luke · lkysow/atlantis-example",
        Lane.NORMAL,
    ),
}


@dataclass(frozen=True)
class Push:
    """What is expected of a push of one branch."""

    repository: str
    commit: str
    branch: str
    order: int
    title: str
    description: str
    author: dict[str, str]


BRAD = {"name": "Brad Rydzewski", "email": "brad.rydzewski@gmail.com"}
NIKOLAS = {"name": "Nikolas Falco", "email": "email@domain.com"}
PUSHES = {
    "goscm_push.json": Push(
        FOO,
        "141977fedf5cf35aa290ac87d4b5177ac4cd9de1",
        "master",
        1530563216000,
        "Update README",
        "Brad Rydzewski pushed a commit to master · brydzewski/foo",
        BRAD,
    ),
    "goscm_push_branch_create.json": Push(  # the same commit as above, on a new branch
        FOO,
        "141977fedf5cf35aa290ac87d4b5177ac4cd9de1",
        "develop",
        1530563216000,
        "Update README",
        "Brad Rydzewski created develop · brydzewski/foo",
        BRAD,
    ),
    "goplayground_repo-push.json": Push(
        DOCS,
        "709d658dc5b6d6afcd46049c2f332ee3f515a67d",
        "name-of-branch",
        1433820889000,
        "new commit message",
        "Emma pushed a commit to name-of-branch · team_name/repo_name",
        {"name": "Emma"},
    ),
    "jenkinsbbs_branch_created.json": Push(
        TEST_REPOS,
        "174561d625c9623b60d8aba09b7f08ddc9df45cd",
        "feature/test",
        1745660606000,
        "Add simple pipeline",
        "Nikolas Falco created feature/test · amuniz/test-repos",
        NIKOLAS,
    ),
    "jenkinsbbs_commit_created.json": Push(
        TEST_REPOS,
        "5ecffa3874e96920f24a2b3c0d0038e47d5cd1a4",
        "feature/issue-819",
        1738607160000,
        "Test pipeline for issue JENKINS-75182",
        "Nikolas Falco force-pushed feature/issue-819 · amuniz/test-repos",
        NIKOLAS,
    ),
    "jenkinsbbs_signed_payload.json": Push(
        TEST_REPOS,
        "d7f300a32270053bdfd97a6d64113f58202c33e7",
        "feature/webhook",
        1747381016000,
        "Test for webhook signature",
        "Nikolas Falco created feature/webhook · nfalco79/test-repos",
        {"name": "Nikolas Falco", "email": "nfalco79@hotmail.com"},
    ),
}

BUILD_ID = "mybuildtool@9fec847784abb10b2fa567ee63b85bd238955d0e"
BUILDS = {
    "goplayground_repo-commit-status-created.json": ("IN_PROGRESS", 1447965455547, None),
    "goplayground_repo-commit-status-updated.json": ("SUCCESSFUL", 1448006476433, "2015-11-20T08:01:16.433Z"),
}

IGNORED = {
    "atlantis_comment-event.json": "comment on a closed pull request",
    "goplayground_commit-comment-created.json": "repository change",
    "goplayground_issue-comment-created.json": "issue",
    "goplayground_issue-created.json": "issue",
    "goplayground_issue-updated.json": "issue",
    "goplayground_pull-request-comment-created.json": "comment on a closed pull request",
    "goplayground_pull-request-comment-deleted.json": "comment changed",
    "goplayground_pull-request-comment-updated.json": "comment changed",
    "goplayground_repo-fork.json": "repository change",
    "goplayground_repo-updated.json": "repository change",
    "goscm_pr_comment_deleted.json": "comment changed",
    "goscm_push_branch_delete.json": "push without a branch",
    "goscm_push_tag_create.json": "push without a branch",
    "goscm_push_tag_delete.json": "push without a branch",
    "jenkinsbbs_annotated_tag_created.json": "push without a branch",
    "jenkinsbbs_branch_deleted.json": "push without a branch",
    "jenkinsbbs_tag_created.json": "push without a branch",
    "jenkinsbbs_tag_deleted.json": "push without a branch",
}


@pytest.fixture(scope="module")
def mapping() -> Mapping:
    return load_mappings(ROOT / "mappings", environ={})["bitbucket"]


@pytest.fixture(scope="module")
def both() -> Mapping:
    return load_mappings(ROOT / "mappings", environ={"BITBUCKET_PULL_REQUESTS": "both"})["bitbucket"]


@pytest.fixture(scope="module")
def headers() -> dict[str, dict[str, str]]:
    """The headers that each payload came with, by its name."""
    manifest = json.loads((PAYLOADS / "manifest.json").read_text())
    return {Path(entry["file"]).name: entry["headers"] for entry in manifest if entry["source"] == CORPUS.name}


def read(mapping: Mapping, file: str, headers: dict[str, str]) -> tuple[Webhook, Any]:
    raw = (CORPUS / file).read_bytes()
    text, body = read_json(raw)
    kept = mapping.kept({name.lower(): value for name, value in headers.items()})
    return Webhook("bitbucket", kept, raw, text, body), body


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
    webhook, body = read(mapping, file, headers[file])
    (event,) = events(mapping, webhook, expected.rule)
    assert (event.type, event.order, event.lane) == ("pullRequest", expected.order, expected.lane)
    assert event.terminal == (expected.status in ("MERGED", "REJECTED"))
    assert event.body["pullRequest"]["pullRequestProperties"] == {
        "id": f"{expected.repository}#{expected.number}",
        "repoUrl": expected.repository_url,
        "pullRequestUrl": body["pullrequest"]["links"]["html"]["href"],
        "status": expected.status,
    }
    assert expected.repository == body["pullrequest"]["destination"]["repository"]["uuid"]


@pytest.mark.parametrize("file", PULL_REQUESTS)
def test_a_pull_request_reads_well_as_a_custom_event(
    both: Mapping, headers: dict[str, dict[str, str]], file: str
) -> None:
    expected = PULL_REQUESTS[file]
    webhook, body = read(both, file, headers[file])
    pull_request, custom = events(both, webhook, expected.rule)
    assert (pull_request.type, custom.type) == ("pullRequest", "custom")
    assert pull_request.order == custom.order == expected.order
    assert custom.body["custom"] == {
        "displayName": expected.title,
        "description": expected.description,
        "url": body["pullrequest"]["links"]["html"]["href"],
        "externalEventSourceId": expected.repository,
        "lastUpdated": pull_request.body["pullRequest"]["lastUpdated"],
        "updateSequenceNumber": expected.order,
        "customEventProperties": {
            "id": f"{expected.repository}#{expected.number}",
            "icon": {"MERGED": "CHECKPOINT", "REJECTED": "WARNING"}.get(expected.status, "INFO"),
        },
    }


@pytest.mark.parametrize("file", PUSHES)
def test_a_push_is_the_tip_of_a_branch_with_its_author(
    mapping: Mapping, headers: dict[str, dict[str, str]], file: str
) -> None:
    expected = PUSHES[file]
    webhook, body = read(mapping, file, headers[file])
    (event,) = events(mapping, webhook, "push")
    assert (event.type, event.order, event.lane) == ("push", expected.order, Lane.LOW)
    push = event.body["push"]
    assert (push["displayName"], push["description"]) == (expected.title, expected.description)
    assert push["url"] == body["push"]["changes"][0]["new"]["target"]["links"]["html"]["href"]
    assert push["externalEventSourceId"] == expected.repository
    assert push["pushEventProperties"] == {
        "id": f"{expected.commit}@{expected.branch}",
        "branchName": expected.branch,
        "author": expected.author,
    }


@pytest.mark.parametrize("file", BUILDS)
def test_a_build_is_its_key_on_a_commit(mapping: Mapping, headers: dict[str, dict[str, str]], file: str) -> None:
    state, order, completed = BUILDS[file]
    webhook, body = read(mapping, file, headers[file])
    (event,) = events(mapping, webhook, "build")
    assert (event.type, event.state, event.order, event.lane) == ("build", state, order, Lane.NORMAL)
    assert event.entity == json.dumps(["build", DOCS, BUILD_ID, None])
    build = event.body["build"]
    assert build["displayName"] == "Unit Tests (Python)"
    assert build["description"] == f"{body['commit_status']['description']} · 9fec847"
    assert build["url"] == build["buildProperties"]["pipeline"]["url"] == body["commit_status"]["url"]
    assert build["buildProperties"]["startedAt"] == "2015-11-19T20:37:35.547Z"
    assert build["buildProperties"].get("completedAt") == completed


@pytest.mark.parametrize("file", IGNORED)
def test_what_is_no_event_in_compass_is_ignored_with_a_reason(
    mapping: Mapping, headers: dict[str, dict[str, str]], file: str
) -> None:
    described = describe(translate(read(mapping, file, headers[file])[0], mapping)[0])
    assert (described["status"], described["rule"]) == ("ignored", IGNORED[file])
    assert described["reason"]


def test_every_payload_is_expected() -> None:
    assert {path.name for path in CORPUS.glob("*.json")} == {*PULL_REQUESTS, *PUSHES, *BUILDS, *IGNORED}
