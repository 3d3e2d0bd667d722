"""The folder of mapping files: one YAML file says how one source's webhooks become events.

`load_mappings` reads the whole folder and tells every fault at once. `compiler` turns one file into a
`Mapping` (see `compiled`), `document` and `template` read it, `checks` finds what can be known without a webhook.
"""

from collections.abc import Mapping as Members
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay.errors import Fault, MappingError
from relay.mapping.compiled import Mapping
from relay.mapping.compiler import compile_mapping
from relay.mapping.document import Document, in_order, read_document

COMPONENTS = "components.yaml"
"""The optional file beside the mappings: source → key → one component id or a list of them."""


@dataclass(frozen=True)
class Folder:
    """A folder of mapping files as read, before any of them is compiled."""

    documents: tuple[Document, ...]
    components: Document | None
    faults: tuple[Fault, ...]


def load_mappings(folder: Path, *, environ: Members[str, str]) -> dict[str, Mapping]:
    """Every source of the folder by its name.

    `environ` may override the settings of the files. Raises MappingError with all faults of all files.
    """
    read = read_folder(folder)
    faults = list(read.faults)
    mappings: dict[str, Mapping] = {}
    files: dict[str, str] = {}
    directly: dict[str, str] = {}
    components, complaints = _components(read)
    faults += complaints
    for document in read.documents:
        source = _source(document)
        # A source that components.yaml does not speak of has no component: its events are unrouted.
        mine = None if components is None else components.get(source) or {}
        match compile_mapping(document, environ=environ, components=mine):
            case Mapping() as mapping:
                mappings[source] = mapping
            case complaints:
                faults += complaints
        first = files.setdefault(source, document.file)
        if source and first != document.file:
            faults.append(document.fault(("source",), f"{first} is for the source {source!r} already"))
        if isinstance(document.data, dict) and (direct := document.data.get("direct")):
            first = directly.setdefault(str(direct), document.file)
            if first != document.file:
                faults.append(document.fault(("direct",), f"{first} translates the {direct} events already"))
    if faults:
        raise MappingError(in_order(faults))
    return mappings


def read_folder(folder: Path) -> Folder:
    """The YAML files that stand directly in the folder."""
    documents: list[Document] = []
    faults: list[Fault] = []
    components = None
    if not folder.is_dir():
        return Folder(
            (), None, (Fault(str(folder), "is not a folder; RELAY_MAPPINGS names the folder of mapping files"),)
        )
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml")):
        match read_document(path):
            case Fault() as fault:
                faults.append(fault)
            case document if path.name == COMPONENTS:
                components = document
            case document:
                documents.append(document)
    if not documents and not faults:
        faults.append(Fault(str(folder), "holds no mapping file (*.yaml)"))
    return Folder(tuple(documents), components, tuple(faults))


def _components(folder: Folder) -> tuple[Members[str, Any] | None, list[Fault]]:
    document = folder.components
    if document is None:
        return None, []
    violations = document.violations("components.schema.json")
    if violations:
        return {}, [fault for several in violations.values() for fault in several]
    known = {_source(document) for document in folder.documents}
    data = document.data or {}
    return data, [
        document.fault((source,), f"no mapping file is for the source {source!r}")
        for source in data
        if source not in known and not folder.faults  # it may be the one that cannot be read
    ]


def _source(document: Document) -> str:
    """The source that a file says it is for; empty when it says nothing that could be one."""
    source = document.data.get("source") if isinstance(document.data, dict) else None
    return source if isinstance(source, str) else ""
