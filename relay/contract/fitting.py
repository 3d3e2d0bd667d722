"""Values as a mapping file gives them, fitted to the contract, so that the files need no conversions."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from relay.contract import KINDS, Field, Value, fields_of

MISSING = object()
"""What a null, or an object with nothing in it, is fitted to: it is left out."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FITTED_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:[0-5]\d(?:\.\d{3})?Z", re.ASCII)
# Ten digits are seconds until 2286, thirteen are milliseconds since 2001; nothing real is between.
_DIGITS = re.compile(r"\d{9,14}", re.ASCII)
_SECONDS_BELOW = 100_000_000_000
_LEAP_SECOND = re.compile(r"(:\d\d):60", re.ASCII)
_INTEGER = re.compile(r"-?\d{1,19}", re.ASCII)

_URL = re.compile(r"(https?://)([^/?#]+)([^#]*)(#?)(.*)", re.IGNORECASE | re.DOTALL)
# RFC 3986: what stands for itself behind the host; a % only before two hexadecimal digits.
_UNSAFE = re.compile(r"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9\-._~:/?@!$&'()*+,;=%]")
# Its parts share no first character, so that a long link is read once, whatever it holds.
_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9.:\-]+(?:[/?][A-Za-z0-9\-._~:/?@!$&'()*+,;=]*)?")


def fit(kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an event of this kind, as the contract wants them.

    Dates in any ISO form, or in seconds or milliseconds since 1970, become RFC 3339 in UTC; a date for a number
    becomes milliseconds; numbers for a text become text; texts are cut at their limit; what a URL may not hold is
    escaped; nulls and what holds nothing else are left out. What cannot be fitted stays as it is, for `check` to
    name. Raises KeyError for a kind that is not in KINDS, and nothing else.
    """
    fitted = _FITTERS[kind](value)
    return fitted if isinstance(fitted, dict) else {}


def parse_date(value: Any) -> datetime | None:
    """The moment that a text or a number means, in any time zone, or None. Without an offset it is taken as UTC."""
    if isinstance(value, bool):
        return None
    try:
        if isinstance(value, str):
            text = value.strip()
            if not _DIGITS.fullmatch(text):
                if ":60" in text:  # Python's calendar has no leap seconds: this one and the one before are the same
                    text = _LEAP_SECOND.sub(r"\1:59", text)
                moment = datetime.fromisoformat(text.upper())  # RFC 3339 also takes `t` and `z`
                return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
            value = int(text)
        if isinstance(value, (int, float)):
            milliseconds = value * 1000 if abs(value) < _SECONDS_BELOW else value
            return _EPOCH + timedelta(milliseconds=milliseconds)
    except (ValueError, OverflowError):
        return None
    return None


def epoch_ms(value: Any) -> int | None:
    """The milliseconds since 1970 of a date, or None when it is none."""
    moment = parse_date(value)
    if moment is None:
        return None
    since = moment - _EPOCH
    return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000


def _fit_date(value: Any) -> Any:
    if value is None:
        return MISSING
    if isinstance(value, str) and _FITTED_DATE.fullmatch(value):
        return value
    moment = parse_date(value)
    if moment is None:
        return value
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:  # the last hours of the year 9999, in the far west
        return value
    precision = "milliseconds" if moment.microsecond >= 1000 else "seconds"  # noqa: PLR2004
    return f"{moment.replace(tzinfo=None).isoformat(timespec=precision)}Z"


def _fit_integer(value: Any) -> Any:
    if value is None:
        return MISSING
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        if _INTEGER.fullmatch(value):
            return int(value)
        milliseconds = epoch_ms(value)
        return value if milliseconds is None else milliseconds
    return value


def _fit_number(value: Any) -> Any:
    return MISSING if value is None else value


def _fit_text(limit: int | None) -> Callable[[Any], Any]:
    def fit_text(value: Any) -> Any:
        if value is None:
            return MISSING
        if not isinstance(value, str):
            value = _number_as_text(value)
            if not isinstance(value, str):
                return value
        if "\0" in value:
            value = value.replace("\0", "")
        if limit is not None and len(value) > limit:
            return f"{value[: limit - 1]}…"
        return value

    return fit_text


def _number_as_text(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    try:
        return str(int(value) if isinstance(value, float) and value.is_integer() else value)
    except ValueError:  # Python writes no integers of thousands of digits
        return value


def _fit_url(value: Any) -> Any:
    """Branch names and people's file names get into links as they are: with spaces, umlauts, braces."""
    if value is None:
        return MISSING
    if not isinstance(value, str) or _PLAIN_URL.fullmatch(value):
        return value
    parts = _URL.fullmatch(value.strip())
    if parts is None:
        return value
    scheme, host, path, mark, fragment = parts.groups()
    host = host if host.isascii() else _UNSAFE.sub(_escaped, host)
    return f"{scheme.lower()}{host}{_UNSAFE.sub(_escaped, path)}{mark}{_UNSAFE.sub(_escaped, fragment)}"


def _escaped(found: re.Match[str]) -> str:
    # NUL is dropped, as from every text.
    return "" if found[0] == "\0" else quote(found[0], safe="", errors="replace")


def _fit_object(members: Mapping[str, Field]) -> Callable[[Any], Any]:
    fitters = {name: fitter(member) for name, member in members.items()}

    def fit_object(value: Any) -> Any:
        if value is None:
            return MISSING
        if type(value) is not dict and not isinstance(value, Mapping):
            return value
        fitted = {}
        for name, member in value.items():
            fit_member = fitters.get(name)
            result = member if fit_member is None else fit_member(member)
            if result is not MISSING:
                fitted[name] = result
        return fitted or MISSING

    return fit_object


def fitter(field: Field) -> Callable[[Any], Any]:
    """What fits a value to this field; it answers MISSING for what is to be left out."""
    match field.value:
        case Value.OBJECT:
            return _fit_object(field.members or {})
        case Value.DATE:
            return _fit_date
        case Value.INTEGER:
            return _fit_integer
        case Value.NUMBER:
            return _fit_number
        case Value.TEXT:
            return _fit_url if field.url else _fit_text(field.limit)


_FITTERS = {kind: fitter(fields_of(kind)) for kind in KINDS}
