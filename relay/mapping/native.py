"""A mapping's program without jq: the same text as Python, as far as it is in the simple part of the language.

One run of jq costs hundreds of microseconds, a good part of it to parse the body a second time; most mappings only
follow paths, compare, look up and put texts together. So the program that jq compiled is read here once more
(`jq_syntax`), and its expressions become Python's (`jq_python`), with jq's functions on Python values (`jq_values`).

The one property to hold: whenever this gives a result, jq gives the same. It never has to reproduce an error:
whatever is unknown when it is compiled, and whatever is unusual about a webhook, gives up, and jq decides.
"""

import itertools
from collections.abc import Callable, Sequence
from collections.abc import Mapping as Members
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from relay.mapping.jq_python import (
    ASK_JQ,
    INPUT,
    NOTHING,
    alternative,
    apart,
    apply,
    bind,
    both,
    choice,
    constant,
    first,
    follow,
    follow_or,
    gather,
    only,
    pipe,
    spread,
    variable,
)
from relay.mapping.jq_syntax import (
    Array,
    Binary,
    Bind,
    Call,
    Define,
    Each,
    Identity,
    If,
    Index,
    Literal,
    Maybe,
    Node,
    Object,
    Pipe,
    Slice,
    Text,
    Try,
    Unsupported,
    Variable,
    parse_jq,
)
from relay.mapping.jq_values import (
    OPERATORS,
    SELECTORS,
    VALUE_FUNCTIONS,
    GiveUp,
    among,
    each,
    member,
    newest,
    object_of,
    part,
    settled,
    text_of,
    truthy,
    words,
)
from relay.mapping.python_text import Code, Program

MOST_CALLS = 10_000
"""Of definitions, which are written out at each of them."""


@dataclass(frozen=True)
class Native:
    """A program that reads webhooks without jq, as far as it can; any number of threads may run it at once."""

    read: Callable[[Any, dict[str, str]], Any]
    """Of the body and the headers."""

    def run(self, headers: Members[str, str], body: Any) -> Any:
        """The object that jq would give, sharing parts with `body`; None where jq has to be asked."""
        if not all(map(str.isascii, headers.values())):  # half characters can only be there
            return None
        try:
            return settled(self.read(body, dict(headers)))
        except (GiveUp, RecursionError):
            return None


def compile_native(program: str, arguments: Members[str, Any]) -> Native | None:
    """The program without the prelude, or None when all of it is jq's to read.

    Its input is the body; it may use `$headers` and `arguments`, plain data by name.
    """
    places = itertools.count(1)
    variables = {name: constant(_plain(value)) for name, value in arguments.items()}
    # What the prelude's `component` reads has a name that no variable of a program can have.
    variables |= {"headers": variable(0), "$components": variables.get("components", ASK_JQ)}
    try:
        code = only(_code(parse_jq(program), _Scope(variables, {}, places)))
        return Native(Program().compiled(code))
    except (Unsupported, RecursionError):
        return None


@dataclass(frozen=True)
class _Definition:
    """A function, or an argument that is one, with what can be seen from its place."""

    parameters: tuple[str, ...]
    body: Node
    scope: "_Scope"
    once: bool = False
    """Whether it is called only once, so that it needs no function of its own."""
    compiled: list[Code] = field(default_factory=list)
    """At most one: without parameters it is the same code for every call."""


@dataclass(frozen=True)
class _Scope:
    """What the names mean at some place of the program."""

    variables: Members[str, Code]
    functions: Members[tuple[str, int], _Definition | None]
    """By name and number of arguments; None inside of the function itself."""
    places: "itertools.count[int]"
    """Of the variables."""
    closed: bool = True
    """Whether nothing that can be seen depends on more than the input and the headers."""

    def with_variable(self, name: str, code: Code) -> "_Scope":
        closed = self.closed and code.value is not None
        return replace(self, variables={**self.variables, name: code}, closed=closed)

    def with_function(self, name: str, definition: _Definition | None, *, arguments: int = 0) -> "_Scope":
        closed = self.closed and (definition is None or definition.scope.closed)
        return replace(self, functions={**self.functions, (name, arguments): definition}, closed=closed)


def _code(node: Node, scope: _Scope) -> Code:  # noqa: C901, PLR0911, PLR0912 - one case for each kind of node
    """The Python for this part of the program. Raises Unsupported."""
    match node:
        case Identity():
            return INPUT
        case Literal(value):
            return constant(value)
        case Text(parts):
            texts = (constant(text) if isinstance(text, str) else _code(text, scope) for text in parts)
            return apply(lambda *values: "".join(map(text_of, values)), *texts, python=_joined)
        case Variable(name):
            if name not in scope.variables:
                raise Unsupported(name)
            return scope.variables[name]
        case Index(_, Literal(str())):
            return follow(*_steps(node, scope))
        case Index(target, key):
            return apply(member, _code(target, scope), _code(key, scope))
        case Slice(target, start, stop):
            bounds = (constant(None) if bound is None else _code(bound, scope) for bound in (start, stop))
            return apply(part, _code(target, scope), *bounds)
        case Each(target, optional):
            return spread(partial(each, optional=optional), _code(target, scope))
        case Try(Each(target), None):
            found = _code(target, scope)  # at the first of several that is none, jq stops
            return spread(partial(each, optional=found.single), found)
        case Try(Index(_, Literal(str())) as path, None | Call("null", ()) as handler):
            names, begin = _steps(path, scope)
            return follow_or(names, begin, null=handler is not None) if begin.single else follow(names, begin)
        case Try(body) | Maybe(body):  # nothing else is caught here
            return _code(body, scope)
        case Pipe(Array(body), tail) if tail == _ONE and not _OF_ONE & scope.functions.keys():
            return only(_code(body, scope))
        case Pipe(left, right):
            return pipe(_code(left, scope), _code(right, scope))
        case Binary(operator, left, right):
            return _binary(operator, left, right, scope)
        case If(condition, then, otherwise):
            test = _code(condition, scope)
            if test.value is not None:
                return _branch(then if truthy(test.value[0]) else otherwise, scope)
            return choice(test, _branch(then, scope), _branch(otherwise, scope))
        case Array(body):
            return gather(list, _code(body, scope))
        case Object(members):
            return _object(members, scope)
        case Bind(source, name, body):
            found = _code(source, scope)
            if found.value is not None:
                return _code(body, scope.with_variable(name, found))
            place = next(scope.places)
            return bind(found, place, _code(body, scope.with_variable(name, variable(place))))
        case Define(definitions, rest):
            for name, parameters, body in definitions:
                inside = scope.with_function(name, None, arguments=len(parameters))
                once = name.startswith("_")  # the compiler's own
                definition = _Definition(parameters, body, inside, once=once)
                scope = scope.with_function(name, definition, arguments=len(parameters))
            return _code(rest, scope)
        case Call(name, arguments):
            return _call(name, arguments, scope)


def _steps(node: Node, scope: _Scope) -> tuple[list[str], Code]:
    """The names on a path, and where it starts."""
    names: list[str] = []
    while isinstance(node, Index) and isinstance(node.key, Literal) and isinstance(node.key.value, str):
        names.insert(0, node.key.value)
        node = node.target
    return names, _code(node, scope)


def _branch(node: Node, scope: _Scope) -> Code:
    """What is not read of every webhook: only when it is, jq has to be asked."""
    try:
        return _code(node, scope)
    except Unsupported:
        return ASK_JQ


def _object(members: Sequence[tuple[Node, Node]], scope: _Scope) -> Code:
    values = [_code(value, scope) for _, value in members]
    names = [name.value for name, _ in members if isinstance(name, Literal) and isinstance(name.value, str)]
    if len(names) == len(members):

        def written(*given: str) -> str:
            return f"{{{', '.join(f'{name!r}: {one}' for name, one in zip(names, given, strict=True))}}}"

        return apply(lambda *values: dict(zip(names, values, strict=True)), *values, python=written)
    return apply(object_of, *(_code(name, scope) for name, _ in members), *values)


def _binary(  # noqa: PLR0911 - one case for each kind of operator
    operator: str, left: Node, right: Node, scope: _Scope
) -> Code:
    match operator:
        case ",":
            return both(_code(left, scope), _code(right, scope))
        case "//":
            return alternative(_code(left, scope), _branch(right, scope))
        case "and":
            return choice(_code(left, scope), _truth(_branch(right, scope)), constant(False))
        case "or" if found := _membership(Binary(operator, left, right)):
            place, texts = found
            return apply(
                lambda value: type(value) is str and value in texts,
                _code(place, scope),
                python=lambda value: f"type({value}) is str and {value} in {set(texts)!r}",
            )
        case "or":
            return choice(_code(left, scope), constant(True), _truth(_branch(right, scope)))
        case "==" if isinstance(right, Literal) and isinstance(right.value, str):
            text = right.value
            # Only a text equals a text.
            return apply(lambda value: value == text, _code(left, scope), python=lambda value: f"{value} == {text!r}")
        case _ if operator in OPERATORS:
            return apply(OPERATORS[operator], _code(left, scope), _code(right, scope))
        case _:
            raise Unsupported(operator)


def _membership(node: Node) -> tuple[Variable, frozenset[str]] | None:
    """`$name == "a" or $name == "b"`, as the conditions of rules are: the variable and the texts."""
    match node:
        case Binary("==", Variable() as compared, Literal(str(text))):
            return compared, frozenset({text})
        case Binary("or", left, right):
            one, other = _membership(left), _membership(right)
            if one and other and one[0] == other[0]:
                return one[0], one[1] | other[1]
    return None


def _call(  # noqa: C901, PLR0911, PLR0912 - one case for each kind of function
    name: str, arguments: tuple[Node, ...], scope: _Scope
) -> Code:
    key = name, len(arguments)
    if key in _WORDS:  # which no definition can take
        return constant(_WORDS[key])
    if key in scope.functions:
        definition = scope.functions[key]
        if definition is None:
            raise Unsupported(f"{name} calls itself")
        return _inlined(definition, arguments, scope)
    if key in VALUE_FUNCTIONS:
        return apply(VALUE_FUNCTIONS[key], INPUT, *(_code(argument, scope) for argument in arguments))
    match name, arguments:
        case "component", (looked_up,):
            return apply(_component, scope.variables["$components"], _code(looked_up, scope))
        case "empty", ():
            return NOTHING
        case "error", _:
            return ASK_JQ
        case _, () if name in SELECTORS:
            passes = SELECTORS[name]
            return spread(lambda value: [value] if passes(value) else [], INPUT)
        case "select", (condition,):
            return choice(_code(condition, scope), INPUT, NOTHING)
        case "map", (function,):
            return _code(Array(Pipe(Each(Identity(), optional=False), function)), scope)
        case (("any" | "all"), (condition,)):
            return gather(_REDUCTIONS[name], _code(Pipe(Each(Identity(), optional=False), condition), scope))
        case (("any" | "all"), (stream, condition)):
            return gather(_REDUCTIONS[name], _code(Pipe(stream, condition), scope))
        case (("newest" | "words"), (stream,)):
            return gather(_REDUCTIONS[name], _code(stream, scope))
        case "first", (stream,):
            return first(_code(stream, scope))
        case "IN", (stream,):
            return apply(among, INPUT, gather(list, _code(stream, scope)))
        case _:
            raise Unsupported(name)


def _inlined(definition: _Definition, arguments: tuple[Node, ...], scope: _Scope) -> Code:
    """The definition's body with these arguments."""
    if definition.compiled:
        return definition.compiled[0]
    if next(scope.places) > MOST_CALLS:
        raise Unsupported("its definitions grow beyond all measure")
    inner = definition.scope
    values: list[tuple[int, Code]] = []
    for parameter, argument in zip(definition.parameters, arguments, strict=True):
        name = parameter.removeprefix("$")
        inner = inner.with_function(name, _Definition((), argument, scope))
        if name != parameter:  # a value as well
            code = _code(argument, scope)
            if code.value is None:
                values.append((next(scope.places), code))
                code = variable(values[-1][0])
            inner = inner.with_variable(name, code)
    body = _code(definition.body, inner)
    if not definition.parameters:
        if not definition.once and inner.closed:
            body = apart(body)
        definition.compiled.append(body)
    for place, code in reversed(values):
        body = bind(code, place, body)
    return body


def _truth(code: Code) -> Code:
    return apply(truthy, code, python=lambda value: f"{value} is not None and {value} is not False")


def _joined(*texts: str) -> str:
    return f'f"{"".join(f"{{text_of({text})}}" for text in texts)}"'


def _component(components: Members[str, Any], key: Any) -> Any:
    """The prelude's `component`."""
    return None if key is None else member(components, text_of(key))


def _plain(value: Any) -> Any:
    """Settings and tables as jq has them: with lists for tuples."""
    match value:
        case dict():
            return {name: _plain(inner) for name, inner in value.items()}
        case tuple() | list():
            return [_plain(inner) for inner in value]
        case _:
            return value


_REDUCTIONS: Members[str, Callable[[list[Any]], Any]] = {
    "all": lambda values: all(map(truthy, values)),
    "any": lambda values: any(map(truthy, values)),
    "newest": newest,
    "words": words,
}
_ONE = parse_jq("if length == 1 then .[0] else _not_one end")
"""What stands behind `[ … ]` where the compiler wants exactly one value."""
_OF_ONE = {("length", 0), ("_not_one", 0)}
_WORDS: Members[tuple[str, int], Any] = {("null", 0): None, ("true", 0): True, ("false", 0): False}
