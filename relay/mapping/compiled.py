"""A mapping file as it runs: the rules, and one jq program that reads a webhook."""

import hashlib
import json
import threading
from collections.abc import Mapping as Members
from dataclasses import dataclass, field
from typing import Any

import jq

from relay.contract import DESTINATION
from relay.mapping.native import Native
from relay.model import Coalesce, Lane, Webhook
from relay.signature import Scheme


@dataclass(frozen=True)
class Setting:
    """A value of a mapping file that the environment may override."""

    name: str
    env: str
    value: str | tuple[str, ...]
    default: str | tuple[str, ...]
    one_of: tuple[str, ...]
    about: str


@dataclass(frozen=True)
class Output:
    """One event that a rule makes."""

    kind: str
    """The kind of the event: `incident`, `flag` ..."""
    place: str
    """Where it stands in the rule: `event`, or `events[1].event`."""
    to: str = DESTINATION
    """The name of its destination."""


@dataclass(frozen=True)
class Rule:
    """One rule of a mapping file."""

    name: str
    line: int
    ignore: bool
    """True when the rule makes no event; the reason is the program's to say."""
    lane: Lane
    coalesce: Coalesce
    routed: bool
    """True when the rule looks its component up, so that an event without one waits as `unrouted`."""
    outputs: tuple[Output, ...]


@dataclass(frozen=True)
class Made:
    """One event's fields as the program gave them, before they are fitted to the contract."""

    output: Output
    components: tuple[str, ...]
    """The ids of the components it is for; () when none was found."""
    key: str | None
    """What was looked up when no component was found for it."""
    fields: dict[str, Any]


@dataclass(frozen=True)
class Complaint:
    """An expression that failed on this webhook."""

    field: str
    reason: str


@dataclass(frozen=True)
class Reading:
    """What the program says of one webhook."""

    dedupe: str | None
    rule: Rule | None
    """The first rule that matched; also the rule whose expression failed."""
    ignored: str | None = None
    made: tuple[Made, ...] = ()
    complaint: Complaint | None = None


class Program:
    """A compiled jq program that gives JSON text; safe to share between threads, which take turns.

    Text keeps integers beyond double precision, and nothing in it can nest so deep that the library crashes.
    """

    def __init__(self, text: str, arguments: Members[str, Any]) -> None:
        self._program = jq.compile(text, args=dict(arguments))
        # Without turns, a second thread would make jq compile the whole program again.
        self._turn = threading.Lock()

    def run(self, text: str) -> Any:
        """The program's value for this JSON text. Raises ValueError when it fails."""
        with self._turn:
            result = next(iter(self._program.input_text(text)), None)
        if result is None:
            raise ValueError("the program gives nothing")
        try:
            return json.loads(result)
        except RecursionError:
            raise ValueError("the result nests too deeply") from None


@dataclass(frozen=True)
class Mapping:
    """One source: how its webhooks are verified and what becomes of them."""

    source: str
    file: str
    docs: str
    digest: str
    """Changes whenever the file does; stored with each webhook."""
    scheme: Scheme
    secret: str
    """The name of the environment variable that holds the source's secrets."""
    settings: tuple[Setting, ...]
    rules: tuple[Rule, ...]
    headers: frozenset[str]
    """The header names (lower case) that the expressions read: these are kept with a webhook."""
    direct: str | None
    """What of the direct intake it translates as well (`calendar`), if anything."""
    program: Program = field(repr=False, compare=False)
    native: Native | None = field(repr=False, compare=False)
    """The same program without jq, for the webhooks that it can read."""
    unsigned: Program | None = field(repr=False, compare=False)

    def read(self, webhook: Webhook) -> Reading:
        """What the rules say of this webhook. Raises ValueError when jq cannot read it."""
        result = None if self.native is None else self.native.run(webhook.headers, webhook.body)
        if result is None:
            result = self.program.run(_input(webhook.headers, webhook.text))
        dedupe = _key(result["dedupe"])
        outcome = result["outcome"]
        if (error := outcome.get("error")) is not None:
            return Reading(
                dedupe, self.rules[error["rule"]], complaint=Complaint(error["field"], error["reason"][:300])
            )
        if outcome["rule"] is None:
            return Reading(dedupe, None)
        rule = self.rules[outcome["rule"]]
        if rule.ignore:
            return Reading(dedupe, rule, ignored=outcome["ignore"])
        made = tuple(
            Made(rule.outputs[out["o"]], tuple(dict.fromkeys(out["c"])), out["k"], out["e"]) for out in outcome["made"]
        )
        return Reading(dedupe, rule, made=made)

    def lets_pass_unsigned(self, headers: Members[str, str], text: str) -> bool:
        """Whether this request without a signature is the sender's test button."""
        return self.unsigned is not None and self.unsigned.run(_input(headers, text)) is True

    def kept(self, headers: Members[str, str]) -> dict[str, str]:
        """The headers that translation reads, and so the only ones that are stored."""
        return {name: headers[name] for name in self.headers if name in headers}


def _input(headers: Members[str, str], text: str) -> str:
    return f'{{"headers":{json.dumps(dict(headers))},"body":{text}}}'


def _key(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def digest_of(*parts: bytes) -> str:
    """16 hex digits that change when any part does."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()
