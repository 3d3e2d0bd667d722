"""Expressions of jq as Python: what each means stands in `native`, how it is written as statements stands here.

A mapping's program becomes the text of a few Python functions, which Python compiles. In them every value has a name,
and what was read of a value once, such as the members on the way of a path, is not read again as long as its name is
in sight. Closures would do the same without any text, and took four times as long.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from relay.mapping.jq_values import GiveUp, truthy
from relay.mapping.python_text import Code, Function, Name

LARGEST = 10_000
"""Characters or items of a constant that is computed once for all."""


def constant(value: Any) -> Code:
    """Always this value."""
    return Code(lambda function, _value: function.program.name(value), value=(value,))


def variable(place: int) -> Code:
    """A variable's value; the headers have the place 0."""
    return Code(lambda function, _value: function.variables[place])


def _refuse(function: Function, _value: Name) -> Name:
    function.line("raise GiveUp")
    return "None"


INPUT = Code(lambda _function, value: value)
"""`.` itself."""
NOTHING = Code(lambda _function, _value: "[]", single=False)
"""`empty`."""
ASK_JQ = Code(_refuse)
"""What is jq's to read."""


def _list(code: Code, function: Function, value: Name) -> Name:
    """The name of the list of its values, however many it has."""
    name = code.write(function, value)
    return f"[{name}]" if code.single else name


def only(code: Code) -> Code:
    """Exactly one value; none or several are jq's to complain of."""
    if code.single:
        return code

    def write(function: Function, value: Name) -> Name:
        outputs = code.write(function, value)
        with function.block(f"if len({outputs}) != 1:"):
            function.line("raise GiveUp")
        return function.let(f"{outputs}[0]")

    return Code(write)


def follow(names: Sequence[str], start: Code) -> Code:
    """`.a.b.c`: null where there is no such member."""

    def write(function: Function, value: Name) -> Name:
        for name in names:
            member = f"{value}.get({name!r}) if type({value}) is dict else absent({value})"
            value = function.let(member, known=("member", value, name))
        return value

    return _each_one(start, write)


def follow_or(names: Sequence[str], start: Code, *, null: bool) -> Code:
    """`(.a.b.c)?`; with `null`, `try .a.b.c catch null`. The start has one value."""

    def found(value: Any) -> list[Any]:
        for name in names:
            if type(value) is dict:
                value = value.get(name)
            elif value is not None:  # jq refuses to look for a name in it
                return [None] if null else []
        return [value]

    return apply(lambda value: found(value)[0], start) if null else spread(found, start)


def _each_one(code: Code, make: Callable[[Function, Name], Name]) -> Code:
    """What is made of each of its values."""
    if code.single:
        return Code(lambda function, value: make(function, code.write(function, value)))

    def write(function: Function, value: Name) -> Name:
        outputs = function.let("[]")
        with _loop(function, code.write(function, value)) as each:
            function.line(f"{outputs}.append({make(function, each)})")
        return outputs

    return Code(write, single=False)


@contextmanager
def _loop(function: Function, several: Name) -> Iterator[Name]:
    each = function.program.new("x")
    with function.block(f"for {each} in {several}:"):
        yield each


def apply(function: Callable[..., Any], *codes: Code, python: Callable[..., str] | None = None) -> Code:
    """The function's value for the codes' values; `python` writes the same as an expression of their names.

    jq combines all values of each code. Several and several are given up.
    """
    known = [code.value[0] for code in codes if code.value is not None]
    if codes and len(known) == len(codes):
        try:
            result = function(*known)
        except GiveUp:
            return ASK_JQ
        if type(result) not in {str, list} or len(result) <= LARGEST:
            return constant(result)

    def call(text: Function, names: Sequence[Name]) -> str:
        return python(*names) if python else f"{text.program.name(function)}({', '.join(names)})"

    if len(codes) == 1:
        return _each_one(codes[0], lambda text, name: text.let(call(text, [name])))
    if all(code.single for code in codes):
        return Code(lambda text, value: text.let(call(text, [code.write(text, value) for code in codes])))

    def write(text: Function, value: Name) -> Name:
        lists = [_list(code, text, value) for code in codes]
        names = [text.let(one) for one in lists]
        outputs = text.let("[]")
        with text.block(f"if {' and '.join(names)}:"):
            with text.block(f"if {' or '.join(f'len({name}) > 1' for name in names)}:"):
                text.line("raise GiveUp")
            text.line(f"{outputs}.append({call(text, [f'{name}[0]' for name in names])})")
        return outputs

    return Code(write, single=False)


def spread(make: Callable[[Any], list[Any]], code: Code) -> Code:
    """All the values that the function gives for the code's values."""

    def write(function: Function, value: Name) -> Name:
        name = function.program.name(make)
        if code.single:
            return function.let(f"{name}({code.write(function, value)})")
        outputs = function.let("[]")
        with _loop(function, code.write(function, value)) as each:
            function.line(f"{outputs} += {name}({each})")
        return outputs

    return Code(write, single=False)


def gather(make: Callable[[list[Any]], Any], code: Code) -> Code:
    """The function's one value for all the code's values."""
    return Code(lambda function, value: function.let(f"{function.program.name(make)}({_list(code, function, value)})"))


def first(code: Code) -> Code:
    """The first of its values, if there is one."""
    return Code(lambda function, value: function.let(f"{_list(code, function, value)}[:1]"), single=False)


def pipe(left: Code, right: Code) -> Code:
    """`left | right`."""
    if left.single:

        def write(function: Function, value: Name) -> Name:
            function.program.count()
            return right.write(function, left.write(function, value))

        # What is on the left may still fail.
        return Code(write, right.single, right.value if left.value is not None else None)
    if right.single:
        return _each_one(left, right.write)
    return _all_of(left, right.write)


def _all_of(code: Code, make: Callable[[Function, Name], Name]) -> Code:
    """All the values of the lists that are made of its values."""

    def write(function: Function, value: Name) -> Name:
        outputs = function.let("[]")
        with _loop(function, _list(code, function, value)) as each:
            function.line(f"{outputs} += {make(function, each)}")
        return outputs

    return Code(write, single=False)


def both(left: Code, right: Code) -> Code:
    """`left, right`."""
    return Code(
        lambda function, value: function.let(f"{_list(left, function, value)} + {_list(right, function, value)}"),
        single=False,
    )


def alternative(left: Code, right: Code) -> Code:
    """`left // right`."""
    single = left.single and right.single

    def write(function: Function, value: Name) -> Name:
        if single:
            name = function.let(left.write(function, value))
            with function.block(f"if {name} is None or {name} is False:"):
                function.line(f"{name} = {right.write(function, value)}")
            return name
        some = _list(left, function, value)
        name = function.let(f"[each for each in {some} if each is not None and each is not False]")
        with function.block(f"if not {name}:"):
            function.line(f"{name} = {_list(right, function, value)}")
        return name

    return Code(write, single)


def choice(test: Code, then: Code, otherwise: Code) -> Code:
    """`if test then … else … end`."""
    if test.value is not None:
        return then if truthy(test.value[0]) else otherwise
    if test.single and then.single and otherwise.single:

        def decide(function: Function, value: Name) -> Name:
            decision = test.write(function, value)
            name = function.let("None")
            with function.block(f"if {decision} is None or {decision} is False:"):
                function.line(f"{name} = {otherwise.write(function, value)}")
            with function.block("else:"):
                function.line(f"{name} = {then.write(function, value)}")
            return name

        return Code(decide)

    def write(function: Function, value: Name) -> Name:
        outputs = function.let("[]")
        with _loop(function, _list(test, function, value)) as decision:
            with function.block(f"if {decision} is None or {decision} is False:"):
                function.line(f"{outputs} += {_list(otherwise, function, value)}")
            with function.block("else:"):
                function.line(f"{outputs} += {_list(then, function, value)}")
        return outputs

    return Code(write, single=False)


def bind(source: Code, place: int, body: Code) -> Code:
    """`source as $variable | body`."""
    if source.single:

        def write(function: Function, value: Name) -> Name:
            function.program.count()
            function.variables[place] = source.write(function, value)
            return body.write(function, value)

        return Code(write, body.single)

    def write_all(function: Function, value: Name) -> Name:
        outputs = function.let("[]")
        with _loop(function, source.write(function, value)) as each:
            function.variables[place] = each
            function.line(f"{outputs} += {_list(body, function, value)}")
        return outputs

    return Code(write_all, single=False)


def apart(code: Code) -> Code:
    """The same as a function of its own, which is called once for each input: many fields of a rule ask the same.

    Only for what depends on nothing but its input and the headers.
    """
    functions: dict[int, Function] = {}

    def write(function: Function, value: Name) -> Name:
        program = function.program
        if id(program) not in functions:
            functions[id(program)] = program.function(code)
        name = functions[id(program)].name
        return function.let(f"{name}({value}, headers)", known=("call", value, name))

    return Code(write, code.single, code.value)
