"""YAML and JSON read strictly, with the line of every value, so that a fault can be shown where it stands."""

import json
import math
import re
from collections.abc import Container, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from relay.errors import Fault

Place = tuple[str | int, ...]
"""Where a value stands in a document: `("rules", 0, "when")`."""

MAX_DEPTH = 50
"""How deep a document may nest."""

MAX_VALUES = 200_000
"""How many values a document may hold, each as often as aliases repeat it."""


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

    def violations(self, schema: str) -> dict[Place, list[Fault]]:
        """Everything that breaks the JSON Schema of this name, by its place."""
        found: dict[Place, list[Fault]] = {}
        for error in _validator(schema).iter_errors(self.data):
            place = tuple(error.absolute_path)
            found.setdefault(place, []).append(self.fault(place, _reason(error.message)))
        return found


def in_order(faults: Iterable[Fault]) -> list[Fault]:
    """Faults in the order in which a person meets them: file, line, place."""
    return sorted(set(faults), key=lambda fault: (fault.where, fault.line or 0, fault.path, fault.reason))


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
    except yaml.reader.ReaderError as error:  # a character that YAML does not allow
        line = text.count("\n", 0, error.position) + 1
        return Fault(file, f"not YAML: the character U+{error.character:04X} is not allowed", line)
    except (ValueError, OverflowError):  # the library's own reading of \UFFFFFFFF
        return Fault(file, "not YAML: an escape in double quotes stands for no character")
    except RecursionError:
        return Fault(file, f"nests deeper than {MAX_DEPTH} levels")
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
    """Plain values as in JSON: `on` and `no` are words, dates, `0123`, `1_000` and `12:30` are texts."""


_PlainLoader.yaml_implicit_resolvers = {}
_PlainLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("^(?:~|null|)$"), ["~", "n", ""])
_PlainLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), list("tf"))
_PlainLoader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^-?(?:0|[1-9][0-9]*)$"), list("-0123456789"))
_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$"),
    list("-0123456789"),
)


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
    if len(inside) > MAX_DEPTH:
        raise _Refused(place, line, f"nests deeper than {MAX_DEPTH} levels")
    if len(lines) > MAX_VALUES:
        raise _Refused(place, line, f"holds more than {MAX_VALUES} values, counting what aliases repeat")
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        return [_build(item, (*place, index), lines, (*inside, node)) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = _key(key_node, place, result)
            result[key] = _build(value_node, (*place, key), lines, (*inside, node))
            lines[*place, key] = key_node.start_mark.line + 1
        return result
    if not isinstance(node, yaml.ScalarNode):
        raise _Refused(place, line, f"the tag {node.tag} is not supported")
    return _scalar(node, place, line)


def _key(node: yaml.Node, place: Place, before: Container[str]) -> str:
    line = node.start_mark.line + 1
    if not isinstance(node, yaml.ScalarNode):
        raise _Refused(place, line, "a key must be plain text")
    key = _text(node.value, place, line)
    if key == "<<":
        raise _Refused(place, line, "merge keys (<<) are not supported; write the members out")
    if key in before:
        raise _Refused((*place, key), line, "this key stands here twice")
    return key


def _scalar(node: yaml.ScalarNode, place: Place, line: int) -> Any:
    match node.tag.removeprefix("tag:yaml.org,2002:"):
        case "str":
            return _text(node.value, place, line)
        case "null" if node.value in ("", "~", "null"):
            return None
        case "bool" if node.value in ("true", "false"):
            return node.value == "true"
        case "int" | "float" if len(node.value) < _LONGEST_NUMBER:
            with suppress(ValueError):
                number = json.loads(node.value)
                if isinstance(number, (int, float)) and math.isfinite(number):
                    return number
    raise _Refused(place, line, f"unsupported value {node.value[:60]!r}")


def _text(text: str, place: Place, line: int) -> str:
    if "\0" in text:  # where jq, like every C program, takes a text to end
        raise _Refused(place, line, "a text must not hold the character NUL")
    if not _SURROGATE.search(text):
        return text
    try:  # as in JSON, two escapes may stand for one character
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise _Refused(place, line, "an escape in double quotes stands for half a character") from None


_SURROGATE = re.compile("[\ud800-\udfff]")
_LONGEST_NUMBER = 300


@cache
def _validator(name: str) -> Draft202012Validator:
    schema = json.loads(resources.files("relay.mapping").joinpath(name).read_text(encoding="utf-8"))
    return Draft202012Validator(schema)


def _reason(message: str) -> str:
    """A library's sentence, shortened where it repeats a whole document."""
    return message if len(message) <= 300 else f"{message[:140]} … {message[-140:]}"  # noqa: PLR2004
