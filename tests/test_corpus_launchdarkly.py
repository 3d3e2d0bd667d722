"""Real LaunchDarkly webhooks, as their authors published them, become what the mapping file promises."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from relay.intake import read_json
from relay.mapping import load_mappings
from relay.mapping.compiled import Mapping
from relay.mapping.examples import describe
from relay.model import Ignored, Lane, Translated, Webhook
from relay.translate import translate

ROOT = Path(__file__).parents[1]
CORPUS = Path(os.environ.get("RELAY_PAYLOADS", ROOT.parent / "shared" / "payloads")) / "launchdarkly"

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason="the published payloads are not here")


@dataclass(frozen=True)
class Flag:
    """What is expected of a webhook that becomes an event of a flag."""

    id: str
    status: str
    title: str
    description: str
    url: str
    order: int


_SANDBOX = Flag(
    "sandbox/~/projidTestflag",
    "created",
    "testflag",
    "sandbox/projidTestflag · created by Ray Banister",
    "https://app.launchdarkly.com/sandbox/~/features/projidTestflag",
    1734617269314,
)

FLAGS = {
    "sentry_createFlag.json": Flag(
        "default/~/test-flag",
        "created",
        "test flag",
        "default/test-flag · created by Michelle Doe",
        "https://app.launchdarkly.com/default/~/features/test-flag",
        1729123465221,
    ),
    "sentry_deleteFlag.json": Flag(
        "default/~/test-flag",
        "deleted",
        "test flag",
        "default/test-flag · deleted by Michelle Doe",
        "https://app.launchdarkly.com/default/~/features/test-flag",
        1729123867537,
    ),
    # Its new version does not speak of the environment; the words do.
    "sentry_updateOn_with_versions.json": Flag(
        "default/test/test-flag",
        "on",
        "test flag in test",
        "default/test-flag · turned on by Michelle Doe · Changed the default variation from on to off",
        "https://app.launchdarkly.com/default/test/features/test-flag",
        1729123867537,
    ),
    # The key in the resource differs from that in the new version (ff_…), and the resource has tags.
    "tanben_createFlag_invalid_signed.json": _SANDBOX,
    "tanben_createFlag_valid_pretty.json": _SANDBOX,
    "tanben_createFlag_valid_signed.json": _SANDBOX,
}

IGNORED = {
    "launchdogly_environment_updateName.json": "not a flag",
    "ldif_environment_create.json": "integration framework",
    "ldif_environment_update.json": "integration framework",
    "ldif_flag_archive.json": "integration framework",
    "ldif_flag_create.json": "integration framework",
    "ldif_flag_targeting-rule-update.json": "integration framework",
    "ldif_flag_toggle.json": "integration framework",
    "ldif_flag_update-all-environments.json": "integration framework",
    "ldif_member_update.json": "integration framework",
    "ldif_other_segment.update.json": "integration framework",
    "ldif_other_webhook.enable.json": "integration framework",
    "ldif_project_create.json": "integration framework",
    "ldif_project_update.json": "integration framework",
}


@pytest.fixture(scope="module")
def mapping() -> Mapping:
    return load_mappings(ROOT / "mappings", environ={})["launchdarkly"]


def read(file: str) -> Webhook:
    raw = (CORPUS / file).read_bytes()
    text, body = read_json(raw)
    return Webhook("launchdarkly", {}, raw, text, body)


@pytest.mark.parametrize("file", FLAGS)
def test_a_change_of_a_flag_is_known_by_its_keys_and_says_what_was_done(mapping: Mapping, file: str) -> None:
    expected = FLAGS[file]
    webhook = read(file)
    translation, key = translate(webhook, mapping)
    assert isinstance(translation, Translated), describe(translation)
    (event,) = translation.events
    fields = event.body["flag"]
    project = expected.id.partition("/")[0]
    assert (translation.rule, event.type, event.lane) == ("flag", "flag", Lane.NORMAL)
    assert (event.component, event.unrouted) == (None, None)
    assert (event.order, event.state, event.event_source) == (expected.order, expected.status, project)
    assert event.entity == f'["flag", "{project}", "{expected.id}", null]'
    assert (fields["displayName"], fields["description"]) == (expected.title, expected.description)
    assert fields["url"] == expected.url
    assert fields["flagProperties"] == {"id": expected.id, "status": expected.status}
    assert key == webhook.body["_id"]


@pytest.mark.parametrize("file", IGNORED)
def test_what_is_no_change_of_a_flag_is_ignored_with_a_reason(mapping: Mapping, file: str) -> None:
    translation, _ = translate(read(file), mapping)
    assert isinstance(translation, Ignored), describe(translation)
    assert translation.rule == IGNORED[file]
    assert translation.reason


@pytest.mark.parametrize(
    ("environments", "rule"),
    [("test", "flag"), ("production,test", "flag"), ("production", "flag in another environment")],
)
def test_the_setting_limits_the_environments(environments: str, rule: str) -> None:
    environ = {"LAUNCHDARKLY_ENVIRONMENTS": environments}
    limited = load_mappings(ROOT / "mappings", environ=environ)["launchdarkly"]
    assert describe(translate(read("sentry_updateOn_with_versions.json"), limited)[0])["rule"] == rule
    assert describe(translate(read("sentry_deleteFlag.json"), limited)[0])["rule"] == "flag"


def test_every_payload_is_expected() -> None:
    assert {path.name for path in CORPUS.glob("*.json")} == {*FLAGS, *IGNORED}
