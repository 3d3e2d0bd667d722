"""Every real webhook of the corpus, over HTTP through the real relay into the sandbox."""

import json
import os
import sqlite3
from pathlib import Path

import pytest

from relay.contract import check
from relay.dispatch.quota import Quota
from relay.mapping import load_mappings
from relay.sandbox.compass import Effect, SandboxConfig
from relay.sandbox.server import running_sandbox
from tests.running import ROOT, environment, eventually, free_port, post, serving

PAYLOADS = Path(os.environ.get("RELAY_PAYLOADS", ROOT.parent / "shared" / "payloads"))
CLOUD = {"bitbucket-cloud": "bitbucket"}
CONNECTION = {"host", "connection", "content-length", "via", "accept"}

pytestmark = pytest.mark.skipif(not (PAYLOADS / "manifest.json").is_file(), reason="the corpus is not here")


def _headers(given: dict[str, str], number: int) -> dict[str, str]:
    """The captured headers, with the placeholders of ids made unique and without those of the connection."""
    return {
        name: f"00000000-0000-0000-0000-{number:012d}" if value == "<uuid>" else value
        for name, value in given.items()
        if name.lower() not in CONNECTION and "signature" not in name.lower()
    }


def test_every_webhook_of_the_corpus_is_taken_translated_and_delivered(tmp_path):
    manifest = json.loads((PAYLOADS / "manifest.json").read_text())
    mappings = load_mappings(ROOT / "mappings", environ={})
    generous = Quota.parse("100000/60s")
    with running_sandbox(SandboxConfig(quota=generous)) as sandbox:
        env = environment(
            f"sqlite:///{tmp_path}/relay.db", compass_url=sandbox.url, port=free_port(), COMPASS_QUOTA=str(generous)
        )
        answers = {}
        with serving(env, tmp_path / "relay.log"):
            url = f"http://127.0.0.1:{env['PORT']}"
            for number, entry in enumerate(manifest):
                mapping = mappings[CLOUD.get(entry["source"], entry["source"])]
                body = (PAYLOADS / entry["file"]).read_bytes()
                answers[entry["file"]] = post(url, mapping, body, _headers(entry["headers"], number))
            # By their ids: a capture that stands twice in the corpus is answered with its first receipt.
            made = len({event["id"] for answer in answers.values() for event in answer.json()["events"]})
            eventually(lambda: _settled(tmp_path) == made)
    assert {name: answer.status_code for name, answer in answers.items() if answer.status_code != 202} == {}
    words = {name: answer.json()["status"] for name, answer in answers.items()}
    assert {name: word for name, word in words.items() if word in {"failed", "unmatched"}} == {}
    assert made > 50
    refused = [request for request in sandbox.requests() if request.effect is Effect.REFUSED]
    assert refused == []
    assert [problem for shown in sandbox.events() for problem in check(shown.event)] == []
    assert {shown.kind for shown in sandbox.events()} == {"incident", "flag", "pullRequest", "push", "build"}


def _settled(folder: Path) -> int:
    with sqlite3.connect(folder / "relay.db") as connection:
        query = "SELECT status, count(*) FROM events GROUP BY status"
        counts = dict(connection.execute(query).fetchall())
    assert not counts.keys() & {"dead", "unrouted"}, counts
    return int(counts.get("delivered", 0) + counts.get("superseded", 0))
