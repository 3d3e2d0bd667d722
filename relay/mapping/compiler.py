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
from importlib import resources
from typing import Any

import jq

from relay.errors import Fault
from relay.mapping.checks import check_event, covers
from relay.mapping.compiled import Mapping, Output, Program, Rule, Setting, digest_of
from relay.mapping.document import Document, Place, dotted
from relay.mapping.template import Expression, TemplateError, parse_expression, parse_template
from relay.model import Coalesce, Lane
from relay.signature import Scheme

PRELUDE = resources.files("relay.mapping").joinpath("prelude.jq").read_text(encoding="utf-8")

# `$ENV` is jq's window to the environment: shadowed, so that a mapping cannot read secrets.
SCOPE = ". as {headers: $headers, body: $body} | {} as $ENV | $body |"

_SECRETIVE = ("_SECRET", "_TOKEN", "_PASSWORD")
_HEADER_READ = re.compile(r'\$headers\s*(?:\.\s*"([^"\\]+)"|\.([A-Za-z_][A-Za-z0-9_]*)|\[\s*"([^"\\]+)"\s*\])')
# What must never be stored, whatever a mapping file reads.
_NEVER_KEPT = frozenset({"authorization", "cookie", "proxy-authorization"})


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
    faults = document.violations("schema.json")
    if faults:
        return faults
    compiler = _Compiler(document, environ, components)
    mapping = compiler.mapping()
    return sorted(compiler.faults, key=lambda fault: (fault.line or 0, fault.path)) if compiler.faults else mapping


@dataclass
class _Compiler:
    document: Document
    environ: Members[str, str]
    components: Members[str, Any] | None
    faults: list[Fault] = field(default_factory=list)
    headers: set[str] = field(default_factory=set)
    arguments: dict[str, Any] = field(default_factory=dict)
    define: str = ""
    complaints: dict[str, str | None] = field(default_factory=dict)
    """What jq said of each program that was tried: rules that share their events (`*anchor`) repeat them."""

    def mapping(self) -> Mapping:
        data = self.document.data
        settings = tuple(self._setting(name, spec) for name, spec in data.get("settings", {}).items())
        self.arguments = {
            **data.get("tables", {}),
            "settings": {setting.name: setting.value for setting in settings},
            "components": {},
        }
        self._define(data.get("define", ""))
        dedupe = self._template(("dedupe",), data["dedupe"]) if "dedupe" in data else "null"
        scheme, unsigned = self._verify(data["verify"])
        rules, branches = [], []
        for index, spec in enumerate(data["rules"]):
            rule, branch = self._rule(index, spec)
            rules.append(rule)
            branches.append(branch)
        self._unreachable(data["rules"])
        outcome = " elif ".join(branches)
        text = (
            f"{{dedupe: (try {_one(dedupe)} catch null),\n"
            f" outcome: (try (if {outcome} else {{rule: null}} end) catch {{error: .}})}}"
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
            headers=frozenset(self.headers - _NEVER_KEPT - {scheme.header.lower()}),
            program=self._program((), text, arguments),
            unsigned=self._program(("verify", "unsigned_when"), unsigned, arguments) if unsigned else None,
        )

    # -- the parts of a file ---------------------------------------------------------------------

    def _setting(self, name: str, spec: Members[str, Any]) -> Setting:
        place: Place = ("settings", name)
        prefix = self.document.data["source"].upper().replace("-", "_") + "_"
        env = spec["env"]
        if not env.startswith(prefix) or env.endswith(_SECRETIVE):
            self._fault((*place, "env"), f"must begin with {prefix} and must not end in {', '.join(_SECRETIVE)}")
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
        if text and self._compiles(("define",), f"{text}\n.", inside=""):
            self.define = text
            self._note_headers(text)

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
            kind, piece = self._output(place, where, entry, spec, number=len(outputs), routed=routed)
            outputs.append(Output(kind, dotted((*where, "event"))))
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
            result = f"ignore: {self._at((*place, 'ignore'), self._template((*place, 'ignore'), spec['ignore']))}"
        else:
            result = f"made: [{', '.join(pieces)}]"
        return rule, f"{self._at((*place, 'when'), condition)} then\n {{rule: {index}, {result}}}\n"

    def _is_routed(self, place: Place, spec: Members[str, Any]) -> bool:
        if self.components is None or "ignore" in spec:
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
    ) -> tuple[str, str]:
        """The kind of one event, and the jq that makes it, as often as `for_each` says."""
        place = (*rule, *where)
        item = "for_each" in entry
        kind, fields = next(iter(entry["event"].items()))
        self.faults += check_event(self.document, (*place, "event"), kind, fields)
        made = self._tree((*place, "event", kind), fields, item=item)
        component = key = "null"
        if spec.get("component", "none") != "none":
            component = self._at(
                (*rule, "component"), self._tree((*rule, "component"), spec["component"], item=item, bare=True)
            )
            if routed and isinstance(spec["component"], str):
                # The same expression once more, with `component` giving back the key that it looks for.
                key = f"(def component($key): $key;\n{self.define}\n (try {component} catch null))"
        key = f"(if $__c == null then {key} else null end)"
        piece = f"({component} as $__c | {{o: {number}, c: $__c, k: {key}, e: {made}}})"
        if "when" in entry:
            condition = self._at((*place, "when"), self._condition((*place, "when"), entry["when"], item=item))
            piece = f"(if {condition} then {piece} else empty end)"
        if item:
            each = self._expression((*place, "for_each"), entry["for_each"])
            listed = self._at((*place, "for_each"), f"{each} | _list")
            piece = f"(({listed})[] as $item | {piece})"
        return kind, piece

    def _unreachable(self, specs: list[Any]) -> None:
        for index, spec in enumerate(specs):
            for earlier in range(index):
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
            return f"[{', '.join(self._tree((*place, i), value, item=item) for i, value in enumerate(node))}]"
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
            # A body of another shape does not match; it is not an error.
            clauses.append(f"((try {_one(read)} catch null) as $__v | ({literals}))")
        return f"({' and '.join(clauses)})"

    def _checked(self, place: Place, text: str, *, item: bool) -> str:
        """The expression in brackets, once it is known to compile alone."""
        self._note_headers(text)
        scope = f"{SCOPE} null as $item |" if item else SCOPE
        return f"(\n{text}\n)" if self._compiles(place, text, inside=f"{self.define}\n{scope}") else "null"

    def _at(self, place: Place, text: str) -> str:
        """The value, exactly one; its failure names rule and field."""
        rule, field_place = (place[1], place[2:]) if place[:1] == ("rules",) else (None, place)
        return f"(try {_one(text)} catch _fail({json.dumps({'rule': rule, 'field': dotted(field_place)})}))"

    # -- jq --------------------------------------------------------------------------------------

    def _compiles(self, place: Place, text: str, *, inside: str) -> bool:
        program = f"{PRELUDE}\n{inside}\n{text}\n"
        if program not in self.complaints:
            self.complaints[program] = _complaint(program, self.arguments)
        if (complaint := self.complaints[program]) is not None:
            self._fault(place, complaint)
        return complaint is None

    def _program(self, place: Place, text: str, arguments: dict[str, Any]) -> Program:
        if not self.faults:
            try:
                return Program(f"{PRELUDE}\n{self.define}\n{SCOPE}\n{text}\n", arguments)
            except ValueError as error:
                self._fault(place, f"jq: {_first_line(error)}")
        return Program(".", {})

    def _note_headers(self, text: str) -> None:
        for found in _HEADER_READ.finditer(text):
            name = next(group for group in found.groups() if group)
            self.headers.add(name.lower())

    def _fault(self, place: Place, reason: str) -> None:
        self.faults.append(self.document.fault(place, reason))


def _entries(spec: Members[str, Any]) -> list[tuple[Place, Members[str, Any]]]:
    """A rule's events with their places, however many it was written with."""
    if "event" in spec:
        return [((), spec)] if "when" not in spec else [((), {k: v for k, v in spec.items() if k != "when"})]
    return [(("events", index), entry) for index, entry in enumerate(spec.get("events", ()))]


def _one(text: str) -> str:
    """The expression's only value; none or several are an error. Written out, since a jq function is slower."""
    return f"([{text}] | if length == 1 then .[0] else _not_one end)"


def _complaint(program: str, arguments: dict[str, Any]) -> str | None:
    try:
        jq.compile(program, args=arguments)
    except ValueError as error:
        return f"jq: {_first_line(error)}"
    return None


def _first_line(error: ValueError) -> str:
    line = str(error).splitlines()[0]
    return re.sub(r" at <top-level>, line \d+(?:, column \d+)?:?", "", line.removeprefix("jq: error: "))


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _frozen(value: str | list[str]) -> str | tuple[str, ...]:
    return value if isinstance(value, str) else tuple(value)


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
