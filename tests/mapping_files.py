"""Small mapping files for tests, and what they make of a body."""

import json
from collections.abc import Mapping as Members
from dataclasses import replace
from textwrap import dedent, indent
from typing import Any

from relay.intake import read_json
from relay.mapping.compiled import Mapping
from relay.mapping.compiler import compile_mapping
from relay.mapping.document import Document, parse_document
from relay.mapping.examples import describe
from relay.model import Translation, Webhook
from relay.translate import translate

HEAD = "source: acme\nverify: {hmac: sha256, header: X-Acme-Signature, secret: ACME_WEBHOOK_SECRET}\n"
"""The first two lines of every file of `acme`."""

FIELDS = (
    "displayName: Shop, description: About the shop, url: 'https://acme.example/1', externalEventSourceId: shop, "
    "lastUpdated: '2026-01-31T10:00:00Z', updateSequenceNumber: 7"
)
"""The fields that every kind has, as literals."""

FLAG = "{flag: {" + FIELDS + ", flagProperties: {id: '${ .id }'}}}"
"""An event that gives one field of the body away."""


def flag(id_: str, *, status: str | None = None) -> str:
    """An event as FLAG, in JSON (which is YAML too), so that an expression needs no quoting of its own."""
    fields = {
        "displayName": "Shop",
        "description": "About the shop",
        "url": "https://acme.example/1",
        "externalEventSourceId": "shop",
        "lastUpdated": "2026-01-31T10:00:00Z",
        "updateSequenceNumber": 7,
    }
    return json.dumps({"flag": {**fields, "flagProperties": {"id": id_, "status": status}}})


def acme(rules: str, top: str = "") -> str:
    """A mapping file: two lines of head, what stands at the top, and its rules from the line after `rules:` on."""
    return f"{HEAD}{dedent(top).lstrip()}rules:\n{indent(dedent(rules).strip(), '  ')}\n"


def compile_text(
    text: str, *, environ: Members[str, str] | None = None, components: Members[str, Any] | None = None
) -> Mapping | list[str]:
    """The mapping of a file named `f`, or its faults as people read them."""
    document = parse_document(text, file="f")
    if not isinstance(document, Document):
        return [str(document)]
    compiled = compile_mapping(document, environ=environ or {}, components=components)
    return compiled if isinstance(compiled, Mapping) else [str(fault) for fault in compiled]


def good(
    text: str, *, environ: Members[str, str] | None = None, components: Members[str, Any] | None = None
) -> Mapping:
    """The mapping of a file that has no fault."""
    compiled = compile_text(text, environ=environ, components=components)
    assert isinstance(compiled, Mapping), "\n".join(compiled)
    return compiled


def translated(mapping: Mapping, body: Any, headers: Members[str, str] | None = None) -> tuple[Translation, str | None]:
    """What becomes of a body, and its dedupe key: with jq and without, which must be the same."""
    raw = json.dumps(body).encode()
    text, parsed = read_json(raw)
    webhook = Webhook(mapping.source, mapping.kept(headers or {}), raw, text, parsed)
    with_jq = translate(webhook, replace(mapping, native=None))
    assert translate(webhook, mapping) == with_jq
    return with_jq


def shown(mapping: Mapping, body: Any, headers: Members[str, str] | None = None) -> dict[str, Any]:
    """What becomes of a body, as `relay translate` prints it."""
    return describe(translated(mapping, body, headers)[0])


def given(jq: str, body: Any = None, *, top: str = "", headers: Members[str, str] | None = None) -> Any:
    """What an expression gives for a body, as JSON: the reason of a rule that ignores."""
    text = acme("- name: probe\n  ignore: PROBE", top).replace("PROBE", json.dumps(f"${{ [{jq}] | tojson }}"))
    described = shown(good(text), body, headers)
    assert described["status"] == "ignored", described
    (value,) = json.loads(described["reason"])
    return value
