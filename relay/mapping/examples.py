"""The examples beside the mapping files: a request and what must become of it.

`examples/<source>/<case>.yaml` holds `headers`, `body` and `expect`, and, where the case is about them, the
`settings` and `components` to run with. `relay check` runs them; the environment has no say in it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay.errors import Fault
from relay.mapping import read_folder
from relay.mapping.compiled import Mapping
from relay.mapping.compiler import compile_mapping
from relay.mapping.document import Document, in_order, read_document
from relay.model import Failed, Ignored, Translated, Translation, Unmatched, Webhook
from relay.translate import translate


@dataclass(frozen=True)
class Example:
    """One example that ran."""

    source: str
    case: str
    faults: tuple[Fault, ...]
    """What was other than expected; () when all was right."""


def run_examples(folder: Path) -> Iterator[Example]:
    """Run every example below the folder, one after the other.

    The mapping files must be valid (`load_mappings` tells); an example of an unknown source is a fault.
    """
    read = read_folder(folder)
    documents = {document.data["source"]: document for document in read.documents}
    compiled: _Compiled = {}
    for path in sorted((folder / "examples").glob("*/*.y*ml")):
        source = path.parent.name
        yield Example(source, path.stem, tuple(_run(path, documents.get(source), compiled)))


def describe(translation: Translation) -> dict[str, Any]:
    """A translation as `relay translate` prints it and an example expects it."""
    match translation:
        case Translated(rule, events):
            listed = [{"type": event.type, "event": event.body, "component": event.component} for event in events]
            for entry, event in zip(listed, events, strict=True):
                if event.unrouted is not None:
                    entry["unrouted"] = event.unrouted
            return {"status": translation.status.value, "rule": rule, "events": listed}
        case Ignored(rule, reason):
            return {"status": translation.status.value, "rule": rule, "reason": reason, "events": []}
        case Unmatched():
            return {"status": translation.status.value, "rule": None, "events": []}
        case Failed(rule, field, reason):
            return {"status": translation.status.value, "rule": rule, "field": field, "reason": reason, "events": []}


# Most examples run with the same settings and components, and compiling takes longer than all the rest.
_Compiled = dict[str, Mapping | list[Fault]]


def _run(path: Path, mapping_file: Document | None, compiled: _Compiled) -> Iterator[Fault]:
    document = read_document(path)
    if isinstance(document, Fault):
        yield document
        return
    if violations := document.violations("example.schema.json"):
        yield from in_order(fault for several in violations.values() for fault in several)
        return
    if mapping_file is None:
        yield Fault(str(path), f"no mapping file is for the source {path.parent.name!r}")
        return
    data = document.data
    mapping = _mapping(document, mapping_file, compiled)
    if isinstance(mapping, list):
        yield from mapping
        return
    headers = {name.lower(): str(value) for name, value in data.get("headers", {}).items()}
    text = json.dumps(data.get("body"))
    webhook = Webhook(mapping.source, mapping.kept(headers), text.encode(), text, json.loads(text))
    translation, key = translate(webhook, mapping)
    actual = describe(translation)
    if "dedupe" in data["expect"]:
        actual["dedupe"] = key
    yield from _differences(document, ("expect",), data["expect"], actual)


def _mapping(document: Document, mapping_file: Document, compiled: _Compiled) -> Mapping | list[Fault]:
    """The mapping with the example's own settings and components, whatever this machine's are."""
    data = document.data
    declared = mapping_file.data.get("settings", {})
    environ = {}
    for name, value in data.get("settings", {}).items():
        if name not in declared:
            return [document.fault(("settings", name), f"{mapping_file.file} has no such setting")]
        environ[declared[name]["env"]] = ",".join(value) if isinstance(value, list) else value
    components = data.get("components")
    like = json.dumps([mapping_file.file, environ, components], sort_keys=True)
    if like not in compiled:
        compiled[like] = compile_mapping(mapping_file, environ=environ, components=components)
    return compiled[like]


def _differences(document: Document, place: tuple[str | int, ...], expected: Any, actual: Any) -> Iterator[Fault]:
    """Where the two differ. Members that are not expected are differences too, except at the top."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for name, value in expected.items():
            yield from _differences(document, (*place, name), value, actual.get(name))
        for name in sorted(actual.keys() - expected.keys()) if len(place) > 1 else ():
            if (name, actual[name]) != ("component", None):
                yield document.fault((*place, name), f"is not expected, but is {_shown(actual[name])}")
    elif isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            yield document.fault(place, f"expected {len(expected)} of them, got {len(actual)}: {_shown(actual)}")
            return
        for index, (one, other) in enumerate(zip(expected, actual, strict=True)):
            yield from _differences(document, (*place, index), one, other)
    elif expected != actual or isinstance(expected, bool) != isinstance(actual, bool):
        yield document.fault(place, f"expected {_shown(expected)}, got {_shown(actual)}")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 400 else f"{text[:400]}…"  # noqa: PLR2004
