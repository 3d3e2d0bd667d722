"""Webhook signatures: an HMAC over the raw body, written in hex somewhere in one header.

Where, and how it looks, is said by the mapping file (`Scheme`). Nothing here parses the body, and nothing
after `verify` accepts a body that is not `Verified`.
"""

import functools
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from relay.errors import SignatureError

DIGEST_BYTES = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}
"""The hash functions a scheme can name, with the length of their digests."""

MAX_ENTRIES = 16
"""Entries of one header that are looked at. A sender lists one per active secret, so two are usual."""


@dataclass(frozen=True)
class Scheme:
    """How one source signs. Raises ValueError, with the remedy, when it could never match."""

    header: str
    """The header's name, in any case."""
    format: str
    """One entry of the header's comma-separated list, as `v1={hex}`, `sha256={hex}` or `{hex}`."""
    algorithm: str = "sha256"
    """One of DIGEST_BYTES."""

    def __post_init__(self) -> None:
        check_format(self.format)
        if self.algorithm not in DIGEST_BYTES:
            known = ", ".join(DIGEST_BYTES)
            raise ValueError(f"the HMAC's hash function {self.algorithm!r} is not known; use one of {known}")


@dataclass(frozen=True)
class Verified:
    """A body that its source may be believed to have sent; made by `verify` or `accept_unsigned` alone."""

    body: bytes
    """The raw bytes that were signed."""
    secret: int | None
    """Which secret fitted, counted from 0 (an old one that never fits can go); None for an unsigned body."""


def verify(scheme: Scheme, *, headers: Mapping[str, str], body: bytes, secrets: Sequence[str]) -> Verified:
    """The body, known to be the source's own: one entry of the header fits one of the secrets.

    `headers` has lower-case names. Entries of another form (a version we do not know) are passed over, hex is
    read in either case, and secrets that are empty never fit. Takes the same time whichever entry fits.
    Raises SignatureError, and nothing else, whatever the headers and the body are.
    """
    value = headers.get(scheme.header.lower())
    if value is None:
        raise SignatureError(f"there is no {scheme.header} header")
    entries = value.split(",", MAX_ENTRIES)[:MAX_ENTRIES]
    shape = _shape(scheme)
    given = [found[1].lower() for entry in entries if (found := shape.fullmatch(entry))]
    if not given:
        raise SignatureError(f"{scheme.header} has no entry of the form {scheme.format}")
    # An empty key would let anybody sign. A list, not any(): all are compared, so the time tells nothing.
    fitting = [
        index
        for index, secret in enumerate(secrets)
        if secret
        for digest in [_digest(scheme, body=body, secret=secret)]
        for candidate in given
        if hmac.compare_digest(candidate, digest)
    ]
    if not fitting:
        raise SignatureError(f"{scheme.header} does not fit the body with any of {len(secrets)} secret(s)")
    return Verified(body, fitting[0])


def accept_unsigned(body: bytes) -> Verified:
    """The body of a request that needs no signature, because the operator or the mapping file says so."""
    return Verified(body, None)


def sign(scheme: Scheme, *, body: bytes, secret: str) -> str:
    """The header's value as the source would send it."""
    return scheme.format.replace("{hex}", _digest(scheme, body=body, secret=secret))


def split_secrets(value: str) -> tuple[str, ...]:
    """The secrets of a variable that holds several, separated by commas, while they are rotated."""
    return tuple(secret for part in value.split(",") if (secret := part.strip()))


def check_format(form: str) -> None:
    """Nothing, if signatures of this form can be found in a header; else ValueError with the remedy."""
    if form.count("{hex}") != 1:
        raise ValueError(f"the format {form!r} must hold {{hex}} exactly once, as in 'v1={{hex}}'")
    if "," in form:
        raise ValueError(f"the format {form!r} is one entry of a comma-separated list; leave the comma out")
    if form != form.strip() or not (form.isascii() and form.isprintable()):
        raise ValueError(f"the format {form!r} must be printable ASCII without spaces around it")


@functools.cache
def _shape(scheme: Scheme) -> re.Pattern[str]:
    before, after = map(re.escape, scheme.format.split("{hex}"))
    length = 2 * DIGEST_BYTES[scheme.algorithm]
    return re.compile(rf"[ \t]*{before}([0-9a-fA-F]{{{length}}}){after}[ \t]*")


def _digest(scheme: Scheme, *, body: bytes, secret: str) -> str:
    # The secret is the key as it stands, not decoded from base64, although PagerDuty's looks like it:
    # https://developer.pagerduty.com/docs/verifying-webhook-signatures
    # `surrogateescape` gives back the bytes of an environment variable that is not UTF-8.
    key = secret.encode("utf-8", "surrogateescape")
    return hmac.digest(key, body, scheme.algorithm).hex()
