"""`receive`: the first of the two verbs. A request becomes a durable webhook with its events, or a typed refusal."""

import hashlib
import json
import re
from collections.abc import Callable
from collections.abc import Mapping as Members
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from relay.errors import MalformedBody, SecretMissing, SignatureError, UnknownSource, UnsupportedMediaType
from relay.mapping.compiled import Mapping
from relay.model import Arrival, Receipt, Webhook
from relay.signature import Verified, accept_unsigned, split_secrets, verify
from relay.translate import translate

MAX_DEPTH = 200
"""How deep a body may nest. The vendors' stay below 20."""


@dataclass(frozen=True)
class Intake:
    """What `receive` needs of the world, fixed at start."""

    mappings: Members[str, Mapping]
    secrets: Members[str, tuple[str, ...]]
    """Per source: the secrets any of which may have signed."""
    unsigned: frozenset[str]
    """The sources that the operator accepts without a signature."""
    store: Callable[[Arrival], Receipt]
    """Stores durably before it returns; raises StoreUnavailable."""


@dataclass(frozen=True)
class TestPing:
    """The sender's test button was pressed: answered, not stored."""


def receive(intake: Intake, *, source: str, headers: Members[str, str], raw: bytes, now: int) -> Receipt | TestPing:
    """Take one webhook in: verify, read, translate, store; it is on the disk when this returns.

    `headers` has lower-case names; `now` is in milliseconds. Raises a RequestError (unknown source, signature,
    content type, body) or StoreUnavailable, and then nothing is stored.
    """
    mapping = intake.mappings.get(source)
    if mapping is None:
        raise UnknownSource(f"no mapping file is for the source {source!r}")
    verified = authenticate(intake, mapping, headers=headers, raw=raw)
    if isinstance(verified, TestPing):
        return verified
    webhook = accept(verified, mapping, headers=headers)
    translation, key = translate(webhook, mapping)
    return intake.store(
        Arrival(
            source=source,
            received_at=now,
            dedupe=None if key is None else hashlib.blake2b(key.encode(), digest_size=16).digest(),
            headers=webhook.headers,
            raw=webhook.raw,
            mapping=mapping.digest,
            translation=translation,
        )
    )


def authenticate(intake: Intake, mapping: Mapping, *, headers: Members[str, str], raw: bytes) -> Verified | TestPing:
    """The body, once it is known to be the source's own. Raises SignatureError or SecretMissing."""
    if mapping.source in intake.unsigned:
        return accept_unsigned(raw)
    secrets = intake.secrets.get(mapping.source, ())
    if not secrets:
        raise SecretMissing(f"{mapping.secret} is not set, so nothing from {mapping.source!r} can be verified")
    try:
        return verify(mapping.scheme, headers=headers, body=raw, secrets=secrets)
    except SignatureError:
        if mapping.scheme.header.lower() not in headers and _is_test(mapping, headers, raw):
            return TestPing()
        raise


def accept(verified: Verified, mapping: Mapping, *, headers: Members[str, str]) -> Webhook:
    """The verified bytes as one JSON value. Raises UnsupportedMediaType or MalformedBody."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise UnsupportedMediaType(f"Content-Type must be application/json, not {media_type[:80] or 'missing'}")
    text, body = read_json(verified.body)
    return Webhook(mapping.source, mapping.kept(headers), verified.body, text, body)


def read_json(raw: bytes) -> tuple[str, Any]:
    """Exactly one JSON value, as text that every reader understands alike, and parsed.

    Of a key that stands twice the last counts, as everywhere. Raises MalformedBody for anything else than
    one JSON value in UTF-8: NaN, a number beyond double precision's range, nesting over MAX_DEPTH.
    """
    try:
        text = raw.decode("utf-8")
        if text.startswith("\N{BYTE ORDER MARK}"):
            raise MalformedBody("the body is not one JSON value: it begins with a byte order mark")
        body = _quickly(raw, text)
    except UnicodeDecodeError as error:
        raise MalformedBody(f"the body is not UTF-8: byte {error.start} is wrong") from None
    except RecursionError:
        raise MalformedBody(f"the body nests deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise MalformedBody(f"the body is not one JSON value: {error}") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise MalformedBody(f"the body nests deeper than {MAX_DEPTH} levels")
    if _SURROGATE.search(text):
        # Half a character, from a sender that cuts texts in UTF-16: shown as U+FFFD, like everybody does.
        whole = json.dumps(body, ensure_ascii=False).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return whole, json.loads(whole)
    return text, body


def _quickly(raw: bytes, text: str) -> Any:
    """The parsed body, by a parser that is three times as fast but says less about what is wrong."""
    if _LONG_NUMBER not in raw.translate(_DIGITS):
        with suppress(ValueError, RecursionError):
            return _parse(raw)
    return _STRICT.decode(text)


_parse = msgspec.json.Decoder().decode
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * 300
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# Possessive (*+): on a text of megabytes, what could be tried again would be kept for every character.
_NO_BRACKETS = re.compile(r'(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"|[^"\[\]{}]++)++')
_INNERMOST = re.compile(r"\[\]|\{\}")


def _depth(text: str) -> int:
    """How deep a text that is known to be JSON nests, up to MAX_DEPTH and one: so often its brackets can be peeled."""
    brackets, depth = _NO_BRACKETS.sub("", text), 0
    while brackets and depth <= MAX_DEPTH:
        brackets, depth = _INNERMOST.sub("", brackets), depth + 1
    return depth


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _finite(literal: str) -> float:
    number = float(literal)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"the number {literal[:30]} is out of range")
    return number


def _bounded(literal: str) -> int | float:
    if len(literal) > 300:  # noqa: PLR2004 - a double ends at 309 digits
        raise ValueError(f"the number {literal[:30]}… is out of range")
    return int(literal)


_STRICT = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite, parse_int=_bounded)


def _is_test(mapping: Mapping, headers: Members[str, str], raw: bytes) -> bool:
    if mapping.unsigned is None:
        return False
    try:
        text, _ = read_json(raw)
        return mapping.lets_pass_unsigned(mapping.kept(headers), text)
    except (MalformedBody, ValueError):
        return False


def secrets_of(mappings: Members[str, Mapping], environ: Members[str, str]) -> dict[str, tuple[str, ...]]:
    """Each source's secrets, from the variables that the mapping files name."""
    return {source: split_secrets(environ.get(mapping.secret, "")) for source, mapping in mappings.items()}
