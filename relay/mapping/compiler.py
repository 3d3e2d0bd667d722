"""From a mapping document to one jq program; every fault is collected, none stops the search for others.

The program gets `{"headers": …, "body": …}` and gives one object:

    {"dedupe": key, "outcome": {"rule": index, "ignore": reason | "made": [{"o", "c", "k", "e"}]} | {"error": …}}

Each expression is first compiled alone, so that it cannot break out of its place, and stands in a `try` that
names its rule and field.
"""

import json
import re
from collections.abc import Mapping as Members
from dataclasses import dataclass, field
from typing import Any

from relay.contract import DESTINATION
from relay.errors import Fault
from relay.mapping.checks import check_event, covers, sound_parts
from relay.mapping.compiled import Mapping, Output, Program, Rule, Setting, digest_of
from relay.mapping.document import Document, Place, dotted, in_order
from relay.mapping.expressions import (
    PRELUDE,
    SCOPE,
    errors_of,
    errors_of_definitions,
    headers_read,
    stand_ins,
)
from relay.mapping.native import compile_native
from relay.mapping.template import Expression, TemplateError, parse_expression, parse_template
from relay.model import Coalesce, Lane
from relay.signature import Scheme

_SECRETIVE = ("_SECRET", "_TOKEN", "_PASSWORD")
# Other names under which a platform keeps secrets: AWS_SECRET_ACCESS_KEY, SENDGRID_API_KEY, the database's URL.
_SECRETS = re.compile(r"(?:^|_)(?:SECRETS?|TOKENS?|PASSWORDS?|KEYS?|CREDENTIALS?)(?:_|$)|^DATABASE_URL$")


def compile_mapping(
    document: Document,
    *,
    environ: Members[str, str],
    components: Members[str, Any] | None,
) -> Mapping | list[Fault]:
    """The mapping of this document, or everything that is wrong with it.

    `environ` overrides the file's settings; `components` is the source's part of components.yaml, or None
    when there is no such file (then events are sent without a component).
    """
    violations = document.violations("schema.json")
    faults = [fault for several in violations.values() for fault in several]
    data = sound_parts(document.data, violations) if violations else document.data
    if data is None:
        return in_order(faults)
    compiler = _Compiler(document, data, environ, components, faults)
    mapping = compiler.mapping()
    return in_order(faults) if faults else mapping


@dataclass
class _Compiler:
    document: Document
    data: Members[str, Any]
    """What is compiled: the document's data, or those parts of it that keep to the schema."""
    environ: Members[str, str]
    components: Members[str, Any] | None
    faults: list[Fault]
    headers: set[str] = field(default_factory=set)
    arguments: dict[str, Any] = field(default_factory=dict)
    define: str = ""
    before: str = f"{PRELUDE}\n{SCOPE}\n"
    """What stands before every expression of the file."""

    def mapping(self) -> Mapping:
        data = self.data
        settings = tuple(self._setting(name, spec) for name, spec in data.get("settings", {}).items())
        self.arguments = {
            **data.get("tables", {}),
            "settings": {setting.name: setting.value for setting in settings},
            "components": {},
        }
        if "define" in data:
            self._define(data["define"])
        dedupe = self._template(("dedupe",), data["dedupe"]) if "dedupe" in data else "null"
        scheme, unsigned = self._verify(data["verify"])
        rules, functions = [], []
        for index, spec in enumerate(data["rules"]):
            rule, function = self._rule(index, spec)
            rules.append(rule)
            functions.append(function)
        self._unreachable(data["rules"])
        # Functions, because jq compiles none that is longer than 64 KiB, and that would be some eighty rules.
        branches = " elif ".join(f"_when{index} then _rule{index}" for index in range(len(rules)))
        text = (
            f"{''.join(functions)}{{dedupe: (try {_one(dedupe)} catch null),\n"
            f" outcome: (try (if {branches} else {{rule: null}} end) catch {{error: .}})}}"
        )
        arguments = {**self.arguments, "components": dict(self.components or {})}
        return Mapping(
            source=data["source"],
            file=self.document.file,
            docs=data.get("docs", ""),
            digest=digest_of(json.dumps([data, arguments], sort_keys=True).encode()),
            scheme=scheme,
            secret=data["verify"]["secret"],
            settings=settings,
            rules=tuple(rules),
            headers=frozenset(self.headers),
            direct=data.get("direct"),
            program=self._program((), text, arguments),
            native=None if self.faults else compile_native(f"{self.define}{text}", arguments),
            unsigned=self._program(("verify", "unsigned_when"), unsigned, arguments) if unsigned else None,
        )

    # -- the parts of a file ---------------------------------------------------------------------

    def _setting(self, name: str, spec: Members[str, Any]) -> Setting:
        place: Place = ("settings", name)
        prefix = self.data["source"].upper().replace("-", "_") + "_"
        env = spec["env"]
        if not env.startswith(prefix) or env.endswith(_SECRETIVE):
            self._fault((*place, "env"), f"must begin with {prefix} and must not end in {', '.join(_SECRETIVE)}")
        elif _SECRETS.search(env) or env == self.data["verify"]["secret"]:
            self._fault((*place, "env"), "may be a secret by its name; a mapping cannot read secrets")
        default = _frozen(spec["default"])
        one_of = tuple(spec.get("one_of", ()))
        if one_of and not set(_as_list(default)) <= set(one_of):
            self._fault((*place, "default"), f"must be one of {', '.join(one_of)}")
        value: str | tuple[str, ...] = default
        if (given := self.environ.get(env)) is not None and given.strip():
            value = given.strip() if isinstance(default, str) else _split(given)
            if one_of and not set(_as_list(value)) <= set(one_of):
                self.faults.append(Fault(env, f"must be one of {', '.join(one_of)}; {given!r} is not"))
        return Setting(name, env, value, default, one_of, spec.get("about", ""))

    def _define(self, text: str) -> None:
        place: Place = ("define",)
        self._note_headers(place, text)
        errors = errors_of_definitions(text, names=frozenset(self.arguments))
        start = self.document.lines.get(place, 0)
        for error in errors:
            # The text of a YAML block begins on the line after its key.
            line = start + max(0, error.line) if "\n" in text else start
            self.faults.append(Fault(self.document.file, error.message, line, dotted(place)))
        self.define = f"{stand_ins(text) if errors else text}\n\n"
        self.before += self.define

    def _verify(self, spec: Members[str, Any]) -> tuple[Scheme, str | None]:
        scheme = Scheme(header=spec["header"], format="{hex}", algorithm=spec["hmac"])
        try:
            scheme = Scheme(header=spec["header"], format=spec.get("format", "{hex}"), algorithm=spec["hmac"])
        except ValueError as error:
            self._fault(("verify", "format"), str(error))
        condition = spec.get("unsigned_when")
        place = ("verify", "unsigned_when")
        unsigned = None if condition is None else f"(try {_one(self._condition(place, condition))} catch false)"
        return scheme, unsigned

    def _rule(self, index: int, spec: Members[str, Any]) -> tuple[Rule, str]:
        place: Place = ("rules", index)
        if len({"ignore", "event", "events"} & set(spec)) != 1:
            self._fault(place, "needs exactly one of `ignore`, `event` and `events`")
        if "for_each" in spec and "event" not in spec:
            self._fault((*place, "for_each"), "belongs beside `event`; under `events` each entry has its own")
        if "ignore" in spec and "component" in spec:
            self._fault((*place, "component"), "a rule that ignores makes no event to route")
        routed = self._is_routed(place, spec)
        outputs: list[Output] = []
        pieces: list[str] = []
        for where, entry in _entries(spec):
            output, piece = self._output(place, where, entry, spec, number=len(outputs), routed=routed)
            outputs.append(output)
            pieces.append(piece)
        rule = Rule(
            name=spec["name"],
            line=self.document.lines[place],
            ignore="ignore" in spec,
            lane=Lane[spec.get("priority", "normal").upper()],
            coalesce=Coalesce(spec.get("coalesce", "transitions")),
            routed=routed,
            outputs=tuple(outputs),
        )
        condition = self._condition((*place, "when"), spec["when"]) if "when" in spec else "true"
        if "ignore" in spec:
            reason = self._template((*place, "ignore"), spec["ignore"])
            result = f"ignore: {self._at((*place, 'ignore'), f'{reason} | _text')}"
        else:
            result = f"made: [{', '.join(pieces)}]"
        when = self._at((*place, "when"), condition)
        return rule, f"def _when{index}: {when};\ndef _rule{index}:\n {{rule: {index}, {result}}};\n"

    def _is_routed(self, place: Place, spec: Members[str, Any]) -> bool:
        to_compass = any(_to(entry, spec) == DESTINATION for _, entry in _entries(spec))
        if "component" in spec and not to_compass and "ignore" not in spec:
            self._fault((*place, "component"), "only events for Compass belong to a component")
        if self.components is None or not to_compass:
            return False
        if "component" not in spec:
            self._fault(
                place,
                "components.yaml is there, so a rule says which component its events belong to; "
                "`component: none` sends them without one",
            )
        return spec.get("component") != "none"

    def _output(
        self, rule: Place, where: Place, entry: Members[str, Any], spec: Members[str, Any], *, number: int, routed: bool
    ) -> tuple[Output, str]:
        """One event, and the jq that makes it, as often as `for_each` says."""
        place = (*rule, *where)
        item = "for_each" in entry
        kind, fields = next(iter(entry["event"].items()))
        output = Output(kind, dotted((*where, "event")), to=_to(entry, spec))
        self.faults += check_event(self.document, (*place, "event"), kind, fields, to=output.to)
        made = self._tree((*place, "event", kind), fields, item=item)
        component, key = "[]", "null"
        if spec.get("component", "none") != "none" and output.to == DESTINATION:
            given = self._tree((*rule, "component"), spec["component"], item=item, bare=True)
            component = self._at((*rule, "component"), f"{given} | _ids")
            if routed:
                # The same expression once more, with `component` giving back the key that it looks for.
                key = f"(def component($key): $key;\n{self.define}\n (try ({given} | _key) catch null))"
        piece = (
            f"({component} as $__c | {{o: {number}, c: $__c, k: (if $__c == [] then {key} else null end), e: {made}}})"
        )
        if "when" in entry:
            condition = self._at((*place, "when"), self._condition((*place, "when"), entry["when"], item=item))
            piece = f"(if {condition} then {piece} else empty end)"
        if item:
            each = self._expression((*place, "for_each"), entry["for_each"])
            listed = self._at((*place, "for_each"), f"{each} | _list")
            piece = f"(({listed})[] as $item | {piece})"
        return output, piece

    def _unreachable(self, specs: list[Any]) -> None:
        for index, spec in enumerate(specs):
            for earlier in range(index if spec["name"] else 0):  # a stand-in has no name
                if covers(specs[earlier].get("when"), spec.get("when")):
                    name = specs[earlier]["name"]
                    self._fault(("rules", index), f"is never reached: the rule '{name}' above matches all of it")
                    break

    # -- values ----------------------------------------------------------------------------------

    def _tree(self, place: Place, node: Any, *, item: bool, bare: bool = False) -> str:
        """The jq for a value of the file: objects and lists stay, texts are templates."""
        if isinstance(node, dict):
            members = (
                f"{json.dumps(name)}: {self._tree((*place, name), value, item=item)}" for name, value in node.items()
            )
            return f"{{{', '.join(members)}}}"
        if isinstance(node, list):
            items = (self._tree((*place, i), value, item=item, bare=bare) for i, value in enumerate(node))
            return f"[{', '.join(_one(item) if bare else item for item in items)}]"
        if not isinstance(node, str):
            return json.dumps(node)
        text = self._template(place, node, item=item)
        return text if bare or "${" not in node else self._at(place, text)

    def _template(self, place: Place, text: str, *, item: bool = False) -> str:
        try:
            parts = parse_template(text)
        except TemplateError as error:
            self._fault(place, str(error))
            return "null"
        match parts:
            case (Expression(jq=expression),):
                return self._checked(place, expression, item=item)
            case _:
                pieces = [
                    json.dumps(part)
                    if isinstance(part, str)
                    else f"({_one(self._checked(place, part.jq, item=item))} | _text)"
                    for part in parts
                ]
                return f"({' + '.join(pieces)})" if pieces else '""'

    def _expression(self, place: Place, text: str, *, item: bool = False) -> str:
        try:
            return self._checked(place, parse_expression(text).jq, item=item)
        except TemplateError as error:
            self._fault(place, str(error))
            return "null"

    def _condition(self, place: Place, condition: Any, *, item: bool = False) -> str:
        if isinstance(condition, str):
            return self._expression(place, condition, item=item)
        clauses = []
        for path, wanted in condition.items():
            read = self._checked((*place, path), path, item=item)
            literals = " or ".join(f"$__v == {json.dumps(value)}" for value in _as_list(wanted))
            # A body of another shape does not match, not even null; it is not an error.
            clauses.append(f"((try {_one(read)} catch {{}}) as $__v | ({literals}))")
        return f"({' and '.join(clauses)})"

    def _checked(self, place: Place, text: str, *, item: bool) -> str:
        """The expression in brackets, once it is known to compile alone."""
        self._note_headers(place, text)
        alone = f"null as $item |\n{text}" if item else text
        if errors := errors_of(alone, before=self.before, names=frozenset(self.arguments)):
            self._fault(place, errors[0].message)
            return "null"
        # The empty line ends a comment that would go on over a backslash.
        return f"(\n{text}\n\n)"

    def _at(self, place: Place, text: str) -> str:
        """The value, exactly one; its failure names rule and field."""
        rule, field_place = (place[1], place[2:]) if place[:1] == ("rules",) else (None, place)
        return f"(try {_one(text)} catch _fail({json.dumps({'rule': rule, 'field': dotted(field_place)})}))"

    # -- jq --------------------------------------------------------------------------------------

    def _program(self, place: Place, text: str, arguments: dict[str, Any]) -> Program:
        if not self.faults:
            try:
                return Program(f"{self.before}{text}\n| _result", arguments)
            except ValueError:  # every part compiled; together they are too much, as jq says
                self._fault(place, errors_of(text, before=self.before, names=frozenset(arguments))[0].message)
        return Program(".", {})

    def _note_headers(self, place: Place, text: str) -> None:
        """Remember the headers that are read here: these alone are kept with a webhook."""
        names, wrong = headers_read(text, signature=self.data["verify"]["header"])
        self.headers |= names
        for reason in wrong:
            self._fault(place, reason)

    def _fault(self, place: Place, reason: str) -> None:
        self.faults.append(self.document.fault(place, reason))


def _entries(spec: Members[str, Any]) -> list[tuple[Place, Members[str, Any]]]:
    """A rule's events with their places, however many it was written with."""
    if "event" in spec:
        return [((), spec)] if "when" not in spec else [((), {k: v for k, v in spec.items() if k != "when"})]
    return [(("events", index), entry) for index, entry in enumerate(spec.get("events", ()))]


def _to(entry: Members[str, Any], spec: Members[str, Any]) -> str:
    """The destination of one of a rule's events: its own, or else the rule's."""
    return str(entry.get("to", spec.get("to", DESTINATION)))


def _one(text: str) -> str:
    """The expression's only value; none or several are an error. Written out, since a jq function is slower."""
    return f"([{text}] | if length == 1 then .[0] else _not_one end)"


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _frozen(value: str | list[str]) -> str | tuple[str, ...]:
    return value if isinstance(value, str) else tuple(value)


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
