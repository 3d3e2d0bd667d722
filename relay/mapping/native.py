"""A mapping's program without jq: the same text, as Python closures that know the simple part of the language.

One run of jq costs hundreds of microseconds, a good part of it to parse the body a second time; most mappings only
follow paths, compare, look up and put texts together. So the program that jq compiled is read here once more
(`jq_syntax`), and each of its expressions becomes a closure over jq's functions on Python values (`jq_values`).

The one property to hold: whenever this gives a result, jq gives the same. It never has to reproduce an error:
whatever is unknown when it is compiled, and whatever is unusual about a webhook, gives up, and jq decides.
"""

import itertools
from collections.abc import Callable
from collections.abc import Mapping as Members
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

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
    part,
    settled,
    text_of,
    truthy,
    words,
)

_Frame = list[Any]
"""The variables of one run. No definition can call itself, so each binding has a place of its own."""
_Run = Callable[[Any, _Frame], Any]
_Streamed = Callable[[Any, _Frame], list[Any]]


@dataclass(frozen=True)
class Native:
    """A program that reads webhooks without jq, as far as it can; free of locks."""

    code: "_Code"
    size: int

    def run(self, headers: Members[str, str], body: Any) -> Any:
        """The object that jq would give, sharing parts with `body`; None where jq has to be asked."""
        if not all(map(str.isascii, headers.values())):  # half characters can only be there
            return None
        try:
            return settled(self.code.run(body, [dict(headers), *[None] * self.size]))
        except GiveUp:
            return None


def compile_native(program: str, arguments: Members[str, Any]) -> Native | None:
    """The program without the prelude, or None when all of it is jq's to read.

    Its input is the body; it may use `$headers` and `arguments`, plain data by name.
    """
    slots = itertools.count(1)
    constants = {name: _constant(_plain(value)) for name, value in arguments.items()}
    scope = _Scope({"headers": _slot(0), **constants}, {}, slots)
    try:
        code = _single(_code(parse_jq(program), scope))
    except (Unsupported, RecursionError):
        return None
    return Native(code, next(slots) - 1)


# -- what expressions become -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Code:
    """A compiled expression."""

    run: _Run
    """Of the input and the frame: the one value or, unless `single`, the list of all values."""
    single: bool = True
    value: tuple[Any] | None = None
    """The value in it, where it is known already."""


@dataclass(frozen=True)
class _Definition:
    """A function, or an argument that is one, with what can be seen from its place."""

    parameters: tuple[str, ...]
    body: Node
    scope: "_Scope"
    compiled: list[_Code] = field(default_factory=list)
    """At most one: without parameters it is the same code for every call."""


@dataclass(frozen=True)
class _Scope:
    """What the names mean at some place of the program."""

    variables: Members[str, _Code]
    functions: Members[tuple[str, int], _Definition | None]
    """By name and number of arguments; None inside of the function itself."""
    slots: "itertools.count[int]"

    def with_variable(self, name: str, code: _Code) -> "_Scope":
        return replace(self, variables={**self.variables, name: code})

    def with_function(self, name: str, arguments: int, definition: _Definition | None) -> "_Scope":
        return replace(self, functions={**self.functions, (name, arguments): definition})


def _code(node: Node, scope: _Scope) -> _Code:  # noqa: C901, PLR0911, PLR0912 - one case for each kind of node
    """The closure for this part of the program. Raises Unsupported."""
    match node:
        case Identity():
            return _INPUT
        case Literal(value):
            return _constant(value)
        case Text(parts):
            return _apply(
                lambda *texts: "".join(map(text_of, texts)),
                *(_constant(text) if isinstance(text, str) else _code(text, scope) for text in parts),
            )
        case Variable(name):
            if name not in scope.variables:
                raise Unsupported(name)
            return scope.variables[name]
        case Index(target, Literal(str())):
            return _path(node, scope)
        case Index(target, key):
            return _apply(member, _code(target, scope), _code(key, scope))
        case Slice(target, start, stop):
            bounds = (_constant(None) if bound is None else _code(bound, scope) for bound in (start, stop))
            return _apply(part, _code(target, scope), *bounds)
        case Each(target, optional):
            return _spread(partial(each, optional=optional), _code(target, scope))
        case Try(Each(target)):
            return _spread(partial(each, optional=True), _code(target, scope))
        case Try(Index(_, Literal(str())) as path, handler):
            return _tried(path, handler, scope)
        case Try(body):  # nothing else is caught here
            return _code(body, scope)
        case Pipe(Array(body), tail) if tail == _ONE:
            return _single(_code(body, scope))
        case Pipe(left, right):
            return _pipe(_code(left, scope), _code(right, scope))
        case Binary(operator, left, right):
            if found := _membership(node):
                variable, texts = found
                return _apply(lambda value: type(value) is str and value in texts, _code(variable, scope))
            return _binary(operator, left, right, scope)
        case If(condition, then, otherwise):
            return _if(condition, then, otherwise, scope)
        case Array(body):
            code = _code(body, scope)
            return _apply(lambda value: [value], code) if code.single else _Code(code.run)
        case Object(members):
            names, values = zip(*[(_code(name, scope), _code(value, scope)) for name, value in members], strict=True)
            if not all(isinstance(name, Literal) for name, _ in members):
                return _apply(_object, *names, *values)
            texts = [name.value[0] for name in names]
            return _apply(lambda *values: dict(zip(texts, values, strict=True)), *values)
        case Bind(source, name, body):
            return _bind(_code(source, scope), name, body, scope)
        case Define(name, parameters, body, rest):
            key = name, len(parameters)
            definition = _Definition(parameters, body, scope.with_function(*key, None))
            return _code(rest, scope.with_function(*key, definition))
        case Call(name, arguments):
            return _call(name, arguments, scope)


def _path(node: Node, scope: _Scope) -> _Code:
    """`.a.b.c`, in one closure."""
    names, start = _steps(node, scope)

    def follow(value: Any, _frame: _Frame | None = None) -> Any:
        for name in names:
            if type(value) is dict:
                value = value.get(name)
            elif value is not None:
                raise GiveUp
            else:
                break
        return value

    return _Code(follow) if start is _INPUT else _apply(follow, start)


def _tried(path: Index, handler: Node | None, scope: _Scope) -> _Code:
    """`(.a.b.c)?` and `try .a.b.c catch null`."""
    names, start = _steps(path, scope)
    begin, caught = start.run, handler is not None
    if not start.single or (caught and handler != Call("null", ())):
        return _code(path, scope)

    def follow(value: Any, frame: _Frame) -> Any:
        value = begin(value, frame)
        for name in names:
            if type(value) is dict:
                value = value.get(name)
            elif value is not None:  # what jq refuses to index
                return None if caught else []
        return value if caught else [value]

    return _Code(follow, single=caught)


def _steps(node: Node, scope: _Scope) -> tuple[list[str], _Code]:
    """The names on a path, and where it starts."""
    names: list[str] = []
    while isinstance(node, Index) and isinstance(node.key, Literal) and isinstance(node.key.value, str):
        names.insert(0, node.key.value)
        node = node.target
    return names, _code(node, scope)


def _pipe(left: _Code, right: _Code) -> _Code:
    first, second = left.run, right.run
    if left.single:
        return _Code(lambda value, frame: second(first(value, frame), frame), right.single, right.value)
    if right.single:
        return _Code(lambda value, frame: [second(each, frame) for each in first(value, frame)], single=False)
    return _Code(
        lambda value, frame: [out for each in first(value, frame) for out in second(each, frame)], single=False
    )


def _binary(operator: str, left_node: Node, right_node: Node, scope: _Scope) -> _Code:
    left = _code(left_node, scope)
    match operator:
        case ",":
            one, other = _streamed(left), _streamed(_code(right_node, scope))
            return _Code(lambda value, frame: one(value, frame) + other(value, frame), single=False)
        case "//":
            return _alternative(left, _branch(right_node, scope))
        case "and":
            return _choice(left, _apply(truthy, _branch(right_node, scope)), _constant(False))
        case "or":
            return _choice(left, _constant(True), _apply(truthy, _branch(right_node, scope)))
        case "==" if isinstance(right_node, Literal) and isinstance(right_node.value, str):
            text = right_node.value
            return _apply(lambda value: value == text, left)  # only a text equals a text
        case _ if operator in OPERATORS:
            return _apply(OPERATORS[operator], left, _code(right_node, scope))
        case _:
            raise Unsupported(operator)


def _membership(node: Node) -> tuple[Variable, frozenset[str]] | None:
    """`$name == "a" or $name == "b"`, as the conditions of rules are: the variable and the texts."""
    match node:
        case Binary("==", Variable() as variable, Literal(str(text))):
            return variable, frozenset({text})
        case Binary("or", left, right):
            one, other = _membership(left), _membership(right)
            if one and other and one[0] == other[0]:
                return one[0], one[1] | other[1]
    return None


def _alternative(left: _Code, right: _Code) -> _Code:
    first, second = left.run, right.run
    if left.single and right.single:

        def either(value: Any, frame: _Frame) -> Any:
            out = first(value, frame)
            return second(value, frame) if out is None or out is False else out

        return _Code(either)
    many, rest = _streamed(left), _streamed(right)
    return _Code(
        lambda value, frame: [out for out in many(value, frame) if truthy(out)] or rest(value, frame), single=False
    )


def _if(condition: Node, then: Node, otherwise: Node, scope: _Scope) -> _Code:
    test = _code(condition, scope)
    if test.value is not None:
        return _branch(then if truthy(test.value[0]) else otherwise, scope)
    return _choice(test, _branch(then, scope), _branch(otherwise, scope))


def _choice(test: _Code, then: _Code, otherwise: _Code) -> _Code:
    if test.value is not None:
        return then if truthy(test.value[0]) else otherwise
    decide = test.run
    if test.single and then.single and otherwise.single:
        one, other = then.run, otherwise.run

        def choose(value: Any, frame: _Frame) -> Any:
            decision = decide(value, frame)
            return other(value, frame) if decision is None or decision is False else one(value, frame)

        return _Code(choose)
    decisions, ones, others = _streamed(test), _streamed(then), _streamed(otherwise)
    return _Code(
        lambda value, frame: [
            out for decision in decisions(value, frame) for out in (ones if truthy(decision) else others)(value, frame)
        ],
        single=False,
    )


def _branch(node: Node, scope: _Scope) -> _Code:
    """What is evaluated only at times: as long as it is not, jq need not be asked."""
    try:
        return _code(node, scope)
    except Unsupported:
        return _Code(_give_up)


def _bind(source: _Code, name: str, body: Node, scope: _Scope) -> _Code:
    if source.value is not None:
        return _code(body, scope.with_variable(name, source))
    slot = next(scope.slots)
    inner = _code(body, scope.with_variable(name, _slot(slot)))
    read, run = source.run, inner.run
    if source.single:

        def bound(value: Any, frame: _Frame) -> Any:
            frame[slot] = read(value, frame)
            return run(value, frame)

        return _Code(bound, inner.single, inner.value)
    rest = _streamed(inner)

    def bound_each(value: Any, frame: _Frame) -> list[Any]:
        outputs: list[Any] = []
        for out in read(value, frame):
            frame[slot] = out
            outputs += rest(value, frame)
        return outputs

    return _Code(bound_each, single=False)


# -- calls -----------------------------------------------------------------------------------------


def _call(name: str, arguments: tuple[Node, ...], scope: _Scope) -> _Code:
    key = name, len(arguments)
    if key in scope.functions:
        definition = scope.functions[key]
        if definition is None:
            raise Unsupported(f"{name} calls itself")
        return _inlined(definition, arguments, scope)
    match name, arguments:
        case "component", (looked_up,):
            table = scope.variables["components"].value[0]  # type: ignore[index]  # always known
            return _apply(lambda key: None if key is None else table.get(text_of(key)), _code(looked_up, scope))
        case "empty", ():
            return _Code(lambda _value, _frame: [], single=False)
        case "error", _:
            return _Code(_give_up)
        case _, () if name in SELECTORS:
            passes = SELECTORS[name]
            return _spread(lambda value: [value] if passes(value) else [], _INPUT)
        case "select", (condition,):
            return _choice(_code(condition, scope), _INPUT, _call("empty", (), scope))
        case "map", (function,):
            return _code(Array(Pipe(Each(Identity(), optional=False), function)), scope)
        case (("any" | "all"), (stream, condition)):
            return _gathered(any if name == "any" else all, Pipe(stream, condition), scope)
        case (("any" | "all"), (condition,)):
            return _call(name, (Each(Identity(), optional=False), condition), scope)
        case "first", (stream,):
            first = _streamed(_code(stream, scope))
            return _Code(lambda value, frame: first(value, frame)[:1], single=False)
        case "IN", (stream,):
            source = _streamed(_code(stream, scope))
            return _Code(lambda value, frame: among(value, source(value, frame)))
        case "newest", (stream,):
            return _gathered(newest, stream, scope)
        case "words", (stream,):
            return _gathered(words, stream, scope)
        case _ if key in VALUE_FUNCTIONS:
            return _apply(VALUE_FUNCTIONS[key], _INPUT, *(_code(argument, scope) for argument in arguments))
        case _:
            raise Unsupported(name)


def _inlined(definition: _Definition, arguments: tuple[Node, ...], scope: _Scope) -> _Code:
    """The definition's body with these arguments."""
    if definition.compiled:
        return definition.compiled[0]
    inner, slots, values = definition.scope, [], []
    for parameter, argument in zip(definition.parameters, arguments, strict=True):
        name = parameter.removeprefix("$")
        filtered = _Definition((), argument, scope)
        if name != parameter:  # a value, which also has the name of a filter
            code = _code(argument, scope)
            if code.value is None:
                slots.append(next(scope.slots))
                values.append(code)
                code = _slot(slots[-1])
            inner = inner.with_variable(name, code)
            filtered = _Definition((), Variable(name), inner)
        inner = inner.with_function(name, 0, filtered)
    body = _code(definition.body, inner)
    if not definition.parameters:
        body = _remembered(body, inner)
        definition.compiled.append(body)
    if not values:
        return body
    run = body.run

    def call(value: Any, frame: _Frame, given: list[Any]) -> Any:
        for slot, argument in zip(slots, given, strict=True):
            frame[slot] = argument
        return run(value, frame)

    outputs = _apply(lambda *given: list(given), *values)
    read = outputs.run
    if outputs.single:
        return _Code(lambda value, frame: call(value, frame, read(value, frame)), body.single)
    if body.single:
        return _Code(lambda value, frame: [call(value, frame, given) for given in read(value, frame)], single=False)
    return _Code(
        lambda value, frame: [out for given in read(value, frame) for out in call(value, frame, given)], single=False
    )


def _remembered(code: _Code, scope: _Scope) -> _Code:
    """The same, but what was read last is not read again: a rule asks the same of the same body for many fields."""
    if any(variable.value is None for name, variable in scope.variables.items() if name != "headers"):
        return code  # what it gives depends on more than its input
    slot, run = next(scope.slots), code.run

    def remember(value: Any, frame: _Frame) -> Any:
        last = frame[slot]
        if last is None or last[0] is not value:
            frame[slot] = last = value, run(value, frame)
        return last[1]

    return _Code(remember, code.single, code.value)


# -- putting closures together ---------------------------------------------------------------------


def _apply(function: Callable[..., Any], *codes: _Code) -> _Code:
    """One value of the codes' values. Of several values for one of them, jq makes all combinations: given up."""
    if codes and all(code.value is not None for code in codes):
        try:
            return _constant(function(*(code.value[0] for code in codes if code.value is not None)))
        except GiveUp:
            return _Code(_give_up)
    runs = [code.run for code in codes]
    if all(code.single for code in codes):
        match runs:
            case [one] if codes == (_INPUT,):
                return _Code(lambda value, _frame: function(value))
            case [one]:
                return _Code(lambda value, frame: function(one(value, frame)))
            case [one, two]:
                return _Code(lambda value, frame: function(one(value, frame), two(value, frame)))
            case _:
                return _Code(lambda value, frame: function(*[run(value, frame) for run in runs]))
    if len(codes) == 1:
        return _Code(lambda value, frame: [function(out) for out in runs[0](value, frame)], single=False)
    streams = [_streamed(code) for code in codes]

    def combine(value: Any, frame: _Frame) -> list[Any]:
        outputs = [stream(value, frame) for stream in streams]
        if not all(outputs):
            return []
        if any(len(several) > 1 for several in outputs):
            raise GiveUp
        return [function(*(one for (one,) in outputs))]

    return _Code(combine, single=False)


def _spread(function: Callable[[Any], list[Any]], code: _Code) -> _Code:
    """All the values that a function gives for the code's values."""
    run = code.run
    if code.single:
        return _Code(lambda value, frame: function(run(value, frame)), single=False)
    return _Code(lambda value, frame: [out for each in run(value, frame) for out in function(each)], single=False)


def _gathered(function: Callable[[list[Any]], Any], stream: Node, scope: _Scope) -> _Code:
    """One value of all the values of a stream."""
    run = _streamed(_code(stream, scope))
    return _Code(lambda value, frame: function(run(value, frame)))


def _single(code: _Code) -> _Code:
    """Exactly one value; none or several are jq's to complain of."""
    if code.single:
        return code
    run = code.run

    def only(value: Any, frame: _Frame) -> Any:
        outputs = run(value, frame)
        if len(outputs) != 1:
            raise GiveUp
        return outputs[0]

    return _Code(only)


def _streamed(code: _Code) -> _Streamed:
    run = code.run
    return (lambda value, frame: [run(value, frame)]) if code.single else run


def _constant(value: Any) -> _Code:
    return _Code(lambda _value, _frame: value, value=(value,))


def _slot(slot: int) -> _Code:
    return _Code(lambda _value, frame: frame[slot])


def _give_up(_value: Any, _frame: _Frame) -> Any:
    raise GiveUp


def _object(*halves: Any) -> dict[str, Any]:
    """The names, then the values."""
    names, values = halves[: len(halves) // 2], halves[len(halves) // 2 :]
    if not all(type(name) is str for name in names):
        raise GiveUp
    return dict(zip(names, values, strict=True))


def _plain(value: Any) -> Any:
    """Settings and tables as jq has them: with lists for tuples."""
    match value:
        case dict():
            return {name: _plain(inner) for name, inner in value.items()}
        case tuple() | list():
            return [_plain(inner) for inner in value]
        case _:
            return value


_INPUT = _Code(lambda value, _frame: value)
_ONE = parse_jq("if length == 1 then .[0] else _not_one end")
