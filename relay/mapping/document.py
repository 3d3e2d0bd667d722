"""YAML and JSON read strictly, with the line of every value, so that a fault can be shown where it stands."""

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from relay.errors import Fault

Place = tuple[str | int, ...]
"""Where a value stands in a document: `("rules", 0, "when")`."""


@dataclass(frozen=True)
class Document:
    """One file's data and where each part of it stands."""

    file: str
    data: Any
    lines: dict[Place, int]

    def fault(self, place: Place, reason: str) -> Fault:
        """A fault at this place, or at the nearest enclosing one that stands in the file."""
        known = place
        while known and known not in self.lines:
            known = known[:-1]
        return Fault(self.file, reason, self.lines.get(known), dotted(place))

    def violations(self, schema: str) -> list[Fault]:
        """Everything that breaks the JSON Schema of this name, in the order of the file."""
        faults = []
        for error in _validator(schema).iter_errors(self.data):
            # For `anyOf` the nearest miss says more than "is not valid under any of the given schemas".
            nearest = best_match([error]) if error.context else error
            faults.append(self.fault(tuple(nearest.absolute_path), _reason(nearest.message)))
        return sorted(faults, key=lambda fault: (fault.line or 0, fault.path))


def read_document(path: Path, *, name: str | None = None) -> Document | Fault:
    """The document in this file, or why it cannot be read."""
    file = name or str(path)
    try:
        return parse_document(path.read_text(encoding="utf-8"), file=file)
    except (OSError, UnicodeDecodeError) as error:
        return Fault(file, f"cannot be read: {error}")


def parse_document(text: str, *, file: str) -> Document | Fault:
    """The document in this text, or the first thing that is not YAML about it."""
    try:
        root = yaml.compose(text, Loader=_PlainLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return Fault(file, f"not YAML: {error.problem or error.context}", mark.line + 1 if mark else None)
    except yaml.YAMLError as error:  # a character YAML does not allow has no mark
        return Fault(file, f"not YAML: {error}")
    lines: dict[Place, int] = {}
    try:
        data = None if root is None else _build(root, (), lines)
    except _Refused as refused:
        return Fault(file, refused.reason, refused.line, dotted(refused.place))
    return Document(file, data, lines)


def dotted(place: Place) -> str:
    """A place as people write it: `rules[0].event.incident`."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


class _PlainLoader(yaml.SafeLoader):
    """YAML 1.2's idea of plain values: `on` and `no` are words, a date is a text."""


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in ("int", "float", "null")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_PlainLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), list("tf"))


@dataclass
class _Refused(Exception):  # noqa: N818 - never leaves this module
    place: Place
    line: int
    reason: str


def _build(node: yaml.Node, place: Place, lines: dict[Place, int], inside: tuple[yaml.Node, ...] = ()) -> Any:
    line = node.start_mark.line + 1
    lines[place] = line
    if node in inside:
        raise _Refused(place, line, "an alias must not stand inside its own anchor")
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*place, index), lines, (*inside, node)) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise _Refused(place, line, "a key must be plain text")
            key = key_node.value
            if key == "<<":
                raise _Refused(place, line, "merge keys (<<) are not supported; write the members out")
            if key in result:
                raise _Refused((*place, key), line, "this key stands here twice")
            result[key] = _build(value_node, (*place, key), lines, (*inside, node))
            lines[*place, key] = line
        return result
    try:
        return _PlainLoader("").construct_object(node)
    except yaml.YAMLError:
        raise _Refused(place, line, f"unsupported value {node.value!r}") from None


@cache
def _validator(name: str) -> Draft202012Validator:
    schema = json.loads(resources.files("relay.mapping").joinpath(name).read_text(encoding="utf-8"))
    return Draft202012Validator(schema)


def _reason(message: str) -> str:
    """A library's sentence, shortened where it repeats a whole document."""
    return message if len(message) <= 300 else f"{message[:140]} … {message[-140:]}"  # noqa: PLR2004
