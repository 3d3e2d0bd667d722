"""jq's functions and the prelude's, on plain Python values, for reading without jq.

None of them reproduces an error: whatever jq refuses, reads in a way that has changed between versions, or is in any
doubt raises `GiveUp`, and the jq program decides. What they give is what jq gives. Values are what `json.loads`
makes; a fraction or an integer beyond double precision is always in doubt. https://jqlang.org/manual/#builtin-operators-and-functions
"""

import re
from collections.abc import Callable, Iterable
from collections.abc import Mapping as Members
from datetime import UTC, datetime
from typing import Any


class GiveUp(Exception):  # noqa: N818 - an outcome, not a fault: jq reads it
    """This value is jq's to read."""


_EXACT = 2**53
"""Up to here a double holds every integer."""

_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""What jq trims; Python would take more."""

_NAMES = {str: "string", dict: "object", list: "array", int: "number", float: "number", bool: "boolean"}
_ISO_DATE = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:Z|([+-])(\d\d)(?::?(\d\d))?)?)?", re.ASCII
)
_HTTP_DATE = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\d\d) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) (\d{4}) "
    r"(\d\d):(\d\d):(\d\d) GMT",
    re.ASCII,
)
_PLAIN_PATTERN = re.compile(r"\^?(?:[A-Za-z0-9 ]|\\b|\\s\*|\([A-Za-z0-9 ]+\)\??)+")
_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"


def truthy(value: Any) -> bool:
    """Everything but null and false, zero and the empty text included."""
    return value is not None and value is not False


def member(value: Any, key: Any) -> Any:
    """`.[key]`: null where there is no such member, or nothing at all."""
    if type(key) is str:
        if type(value) is dict:
            return value.get(key)
    elif type(key) is int and type(value) is list:
        return value[key] if -len(value) <= key < len(value) else None
    if value is None and type(key) in {str, int}:
        return None
    raise GiveUp


def part(value: Any, start: Any, stop: Any) -> Any:
    """`.[start:stop]` of a text, in characters, or of a list."""
    if type(value) not in {str, list, type(None)} or not {type(start), type(stop)} <= {int, type(None)}:
        raise GiveUp
    return None if value is None else value[start:stop]


def each(value: Any, *, optional: bool = False) -> list[Any]:
    """`.[]`; of an object with several members, jq's order of them is its own."""
    if type(value) is list:
        return value
    if type(value) is dict and len(value) <= 1:
        return list(value.values())
    if optional and type(value) is not dict:
        return []
    raise GiveUp


def equal(one: Any, other: Any) -> bool:
    """`==`, for which `true` is not 1."""
    kind = type(one)
    if kind is float or type(other) is float:
        raise GiveUp
    if kind is not type(other):
        return False
    if kind is list:
        return len(one) == len(other) and all(map(equal, one, other))
    if kind is dict:
        return one.keys() == other.keys() and all(equal(value, other[name]) for name, value in one.items())
    if kind is int:
        return _whole(one) == _whole(other)
    return bool(one == other)


def among(value: Any, several: list[Any]) -> bool:
    """Whether it equals one of them."""
    return value in several if type(value) is str else any(equal(value, one) for one in several)


def less(one: Any, other: Any) -> bool:
    """`<` of two texts or two integers."""
    if type(one) is str and type(other) is str:
        return one < other
    return _whole(one) < _whole(other)


def plus(one: Any, other: Any) -> Any:
    """`+`, where null changes nothing."""
    if one is None or other is None:
        return other if one is None else one
    if type(one) is not type(other):
        raise GiveUp
    if type(one) is dict:
        return {**one, **other}
    if type(one) in {str, list}:
        return one + other
    return _whole(_whole(one) + _whole(other))


def minus(one: Any, other: Any) -> Any:
    """`-`: of two lists, what is not in the other one."""
    if type(one) is list and type(other) is list:
        return [value for value in one if not among(value, other)]
    return _whole(_whole(one) - _whole(other))


def remainder(one: Any, other: Any) -> Any:
    """`%` of integers that are not negative."""
    if _whole(one) < 0 or _whole(other) <= 0:
        raise GiveUp
    return one % other


def object_of(*halves: Any) -> dict[str, Any]:
    """`{(name): value}`: all the names, then all the values."""
    names, values = halves[: len(halves) // 2], halves[len(halves) // 2 :]
    return dict(zip(map(_text, names), values, strict=True))


def text_of(value: Any) -> str:
    r"""`tostring`, and `\( )` in a text. A zero is in doubt: jq keeps its sign."""
    if type(value) is str:
        return value
    if value is None:
        return "null"
    if type(value) is bool:
        return "true" if value else "false"
    if value == 0:
        raise GiveUp
    return str(_whole(value))


def settled(value: Any) -> Any:
    """The result itself. Its numbers are those that jq would give; otherwise it is not one."""
    if type(value) is dict or type(value) is list:
        for inner in value.values() if type(value) is dict else value:
            if type(inner) is not str:
                settled(inner)
    elif value is not None and type(value) is not bool and type(value) is not str:
        _whole(value)
    return value


def _whole(value: Any) -> int:
    if type(value) is int and -_EXACT <= value <= _EXACT:
        return value
    raise GiveUp


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    raise GiveUp


def _list(value: Any) -> list[Any]:
    if type(value) is list:
        return value
    raise GiveUp


# -- jq's own functions ----------------------------------------------------------------------------


def _length(value: Any) -> int:
    if type(value) not in {str, list, dict, type(None)}:
        raise GiveUp
    return 0 if value is None else len(value)


def _split(value: Any, separator: Any) -> list[str]:
    if not _text(separator):
        raise GiveUp
    return _text(value).split(separator) if value != "" else []


def _join(value: Any, separator: Any) -> str:
    return _text(separator).join("" if item is None else _text(item) for item in _list(value))


def _without_end(value: Any, end: Any) -> str:
    if not _text(end):  # versions of jq differ
        raise GiveUp
    return _text(value).removesuffix(end)


def _ascii(value: Any) -> str:
    if not _text(value).isascii():
        raise GiveUp
    return str(value)


def _sum(value: Any) -> Any:
    items = [item for item in _list(value) if item is not None]
    kinds = set(map(type, items))
    if kinds == {str}:
        return "".join(items)
    if kinds == {list}:
        return [inner for item in items for inner in item]
    if kinds == {dict}:
        return {name: member for item in items for name, member in item.items()}
    total = None
    for item in items:
        total = plus(total, item)
    return total


def _unique(value: Any) -> list[str]:
    return sorted({_text(item) for item in _list(value)})


def _index(value: Any, wanted: Any) -> int | None:
    if type(wanted) is list:
        raise GiveUp
    return next((place for place, item in enumerate(_list(value)) if equal(item, wanted)), None)


def _has(value: Any, key: Any) -> bool:
    if type(value) is not dict:
        raise GiveUp
    return _text(key) in value


def _test(value: Any, pattern: Any, flags: Any) -> bool:
    """`test` with patterns so plain that every dialect agrees on them, as long as the text is ASCII."""
    if flags != "i" or not _PLAIN_PATTERN.fullmatch(_text(pattern)) or not _text(value).isascii():
        raise GiveUp
    if pattern.startswith("^") and "\n" in value:
        raise GiveUp
    return re.search(pattern, value, re.IGNORECASE | re.ASCII) is not None


# -- the prelude's ---------------------------------------------------------------------------------


def _nonempty(value: Any) -> Any:
    return None if type(value) is str and not value.strip(_SPACE) else value


def _absolute(value: Any, base: Any) -> str | None:
    if value is None or value == "":
        return None
    if _text(value).startswith(("https://", "http://")):
        return str(value)
    return f"{_text(base).removesuffix('/')}/{value.removeprefix('/')}"


def words(parts: Iterable[Any]) -> str:
    """The prelude's `words`."""
    return " · ".join(text_of(value) for value in parts if value is not None and value != "")


def newest(dates: Iterable[Any]) -> int | None:
    """The prelude's `newest`."""
    moments = [moment for moment in map(epoch_ms, dates) if moment is not None]
    return max(moments, default=None)


def epoch_ms(value: Any) -> int | None:
    """The prelude's `epoch_ms`, for dates from 1971 on."""
    if value is None or value == "":
        return None
    if type(value) is not str:
        return _whole(value * 1000 if abs(_whole(value)) < 100_000_000_000 else value)  # noqa: PLR2004 - seconds
    found = _ISO_DATE.fullmatch(value)
    if found is None:
        raise GiveUp
    year, month, day, hour, minute, second, fraction, sign, hours, minutes = found.groups("0")
    moment = _milliseconds(year, int(month), day, hour, minute, second)
    offset = (int(hours) * 60 + int(minutes)) * 60_000
    return moment + int((fraction[:3] + "00")[:3]) + (offset if sign == "-" else -offset)


def _http_date(value: Any) -> int | None:
    if value is None:
        return None
    found = _HTTP_DATE.fullmatch(_text(value))
    if found is None:
        raise GiveUp
    day, month, year, hour, minute, second = found.groups()
    return _milliseconds(year, _MONTHS.index(month) // 3 + 1, day, hour, minute, second)


def _milliseconds(year: str, month: int, day: str, hour: str, minute: str, second: str) -> int:
    try:
        moment = datetime(int(year), month, int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    except ValueError:  # jq takes a 31st of every month, and leap seconds
        raise GiveUp from None
    if moment.year <= 1970:  # noqa: PLR2004 - where the C library's -1 is a date or an error
        raise GiveUp
    return int(moment.timestamp()) * 1000


# -- the compiler's --------------------------------------------------------------------------------


def _shown(value: Any) -> str:
    return "" if value is None else text_of(value)


def _ids(value: Any) -> list[str]:
    if value is None:
        return []
    ids = [value] if type(value) is str else _flat(_list(value))
    if not all(ids):
        raise GiveUp
    return ids


def _flat(values: list[Any]) -> list[str]:
    """The texts of a list and of the lists in it, without nulls."""
    flat: list[str] = []
    for value in values:
        if type(value) is list:
            flat += [_text(inner) for inner in value if inner is not None]
        elif value is not None:
            flat.append(_text(value))
    return flat


def _key(value: Any) -> str | None:
    keys = [text_of(key) for key in (value if type(value) is list else [value]) if key is not None]
    return ", ".join(keys) if keys else None


VALUE_FUNCTIONS: Members[tuple[str, int], Callable[..., Any]] = {
    ("absolute", 1): _absolute,
    ("add", 0): _sum,
    ("ascii_downcase", 0): lambda value: _ascii(value).lower(),
    ("ascii_upcase", 0): lambda value: _ascii(value).upper(),
    ("contains", 1): lambda value, wanted: _text(wanted) in _text(value),
    ("endswith", 1): lambda value, end: _text(value).endswith(_text(end)),
    ("epoch_ms", 0): epoch_ms,
    ("false", 0): lambda _: False,
    ("first", 0): lambda value: member(value, 0),
    ("has", 1): _has,
    ("http_date", 0): _http_date,
    ("index", 1): _index,
    ("join", 1): _join,
    ("last", 0): lambda value: member(value, -1),
    ("length", 0): _length,
    ("ltrimstr", 1): lambda value, start: _text(value).removeprefix(_text(start)),
    ("nonempty", 0): _nonempty,
    ("not", 0): lambda value: not truthy(value),
    ("null", 0): lambda _: None,
    ("rtrimstr", 1): _without_end,
    ("split", 1): _split,
    ("startswith", 1): lambda value, start: _text(value).startswith(_text(start)),
    ("test", 2): _test,
    ("tostring", 0): text_of,
    ("trim", 0): lambda value: _text(value).strip(_SPACE),
    ("true", 0): lambda _: True,
    ("type", 0): lambda value: _NAMES.get(type(value), "null"),
    ("unique", 0): _unique,
    ("_ids", 0): _ids,
    ("_key", 0): _key,
    ("_list", 0): _list,
    ("_text", 0): _shown,
}
"""By name and number of arguments: functions of the input and the arguments' values, with one value."""

SELECTORS: Members[str, Callable[[Any], bool]] = {
    "arrays": lambda value: type(value) is list,
    "booleans": lambda value: type(value) is bool,
    "numbers": lambda value: type(value) in {int, float},
    "objects": lambda value: type(value) is dict,
    "strings": lambda value: type(value) is str,
    "values": lambda value: value is not None,
}
"""jq's functions that let their input pass or not."""

OPERATORS: Members[str, Callable[[Any, Any], Any]] = {
    "==": equal,
    "!=": lambda one, other: not equal(one, other),
    "<": less,
    "<=": lambda one, other: not less(other, one),
    ">": lambda one, other: less(other, one),
    ">=": lambda one, other: not less(one, other),
    "+": plus,
    "-": minus,
    "%": remainder,
}
"""Between two values."""
