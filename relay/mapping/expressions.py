"""jq as a mapping file holds it: what is wrong with a text, and which headers it reads."""

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import jq

PRELUDE = resources.files("relay.mapping").joinpath("prelude.jq").read_text(encoding="utf-8")

# `$ENV` is jq's window to the environment: shadowed, so that a mapping cannot read secrets.
SCOPE = ". as {headers: $headers, body: $body} | {} as $ENV | $body |"


@dataclass(frozen=True)
class JqError:
    """One thing that is wrong with a text of jq."""

    message: str
    line: int = 0
    """Counted from 1 in the text; not positive when it is about what stands before it."""


@lru_cache(maxsize=4096)
def errors_of(text: str, *, before: str = "", names: frozenset[str] = frozenset()) -> tuple[JqError, ...]:
    """What jq says of a text that stands behind another one; () when both compile.

    `names` are the variables that are there. A file is compiled once for each combination of settings and
    components that its examples have, and its expressions stay the same: so answers are remembered.
    """
    try:
        jq.compile(f"{before}{text}\n", args=dict.fromkeys(names))
    except ValueError as error:
        above = before.count("\n")
        said = _ERROR.findall(str(error)) or [(str(error), "")]
        return tuple(JqError(_words(message), int(line or above) - above) for message, line in said)
    return ()


def errors_of_definitions(text: str, *, names: frozenset[str]) -> list[JqError]:
    """What is wrong with the definitions of a file, those that nothing calls included."""
    definitions = _definitions(text)
    taken = sorted({name for name, _ in definitions if name.startswith("_") or name in _OWN_NAMES})
    faults = [JqError(f"'{name}' is a name of the relay's own; choose another") for name in taken]
    alone = errors_of(text)
    if not alone:
        return [*faults, JqError("must hold nothing but definitions, as `def name: …;`")]
    if not alone[0].message.startswith("jq: Top-level program not given"):
        return [*faults, alone[0]]
    end = text.count("\n") + 1
    # jq looks at nothing in a definition that is not called.
    calls = {
        _signature(name, parameters): f"{name}{_ARGUMENT.sub('.', parameters)}" for name, parameters in definitions
    }
    while True:
        errors = errors_of(f"{text}\n\n[{', '.join(calls.values())}]", before=f"{PRELUDE}\n{SCOPE}\n", names=names)
        # Behind the text: a definition inside another one, which cannot be called from there.
        local = {error.message.removeprefix("jq: ").partition(" ")[0] for error in errors if error.line > end}
        if not local & calls.keys():
            return [*faults, *errors]
        calls = {signature: call for signature, call in calls.items() if signature not in local}


def stand_ins(text: str) -> str:
    """Definitions of the same names, to go on with when something is wrong with these."""
    return "".join(f"def {name}{parameters}: null;\n" for name, parameters in _definitions(text))


def headers_read(text: str, *, signature: str) -> tuple[set[str], list[str]]:
    """The headers that a text reads, in lower case, and what is wrong with how it does.

    `signature` is the header that the source signs in.
    """
    code = _COMMENT_LINE.sub("", text)
    names, faults = set(), []
    for found in _HEADER_READ.finditer(code):
        name = next(group for group in found.groups() if group)
        if name != name.lower():
            faults.append(f'the names of headers are in lower case here: $headers["{name.lower()}"]')
        elif _CREDENTIAL.search(name) or name == signature.lower():
            faults.append(f"the header {name} may hold a credential, which no mapping may read")
        names.add(name.lower())
    if re.search(r"\$headers\b", _HEADER_READ.sub("", code)):
        faults.append('headers are read by their names, as $headers["x-event-key"], because only those are kept')
    return names, faults


def _definitions(text: str) -> list[tuple[str, str]]:
    """Every definition in the text, with its parameters in brackets."""
    return _DEFINITION.findall(_COMMENT_LINE.sub("", text))


def _signature(name: str, parameters: str) -> str:
    """A definition as jq names it: `words/1`."""
    return f"{name}/{parameters.count(';') + 1 if parameters else 0}"


def _words(message: str) -> str:
    refused = _REFUSED.match(message)
    return f"'{refused[1]}' is not available in a mapping" if refused else f"jq: {message}"


_ERROR = re.compile(r"^jq: error: (.*?)(?: at <top-level>, line (\d+)(?:, column \d+)?)?:?$", re.MULTILINE)
_REFUSED = re.compile(r"\$__refused_(\w+) is not defined")
_DEFINITION = re.compile(r"\bdef\s+([A-Za-z_]\w*)\s*(\([^()]*\))?\s*:")
_ARGUMENT = re.compile(r"[^(;)]+")
_COMMENT_LINE = re.compile(r"^\s*#.*$", re.MULTILINE)
_HEADER_READ = re.compile(r'\$headers\s*(?:\.\s*"([^"\\]+)"|\.([A-Za-z_][A-Za-z0-9_]*)|\[\s*"([^"\\]+)"\s*\])')
# Headers that prove who sends: no mapping sees them, and so they are never stored.
_CREDENTIAL = re.compile(r"authorization|cookie|signature|secret|token|password|credential|api-?key")
# What the compiled program itself calls, besides the names that begin with `_`.
_OWN_NAMES = frozenset({"component", "length"})
