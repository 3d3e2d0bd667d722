"""Expressions of jq as Python closures, and how they are put together; what each means stands in `native`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from relay.mapping.jq_values import GiveUp, truthy

Frame = list[Any]
"""The variables of one run. No definition can call itself, so each binding has a place of its own in it."""


@dataclass(frozen=True)
class Code:
    """A compiled expression."""

    run: Callable[[Any, Frame], Any]
    """Of the input and the frame: the one value or, unless `single`, the list of all values, which nobody changes."""
    single: bool = True
    value: tuple[Any] | None = None
    """The value in it, where it is known already."""


def constant(value: Any) -> Code:
    """Always this value."""
    return Code(lambda _value, _frame: value, value=(value,))


def slot(place: int) -> Code:
    """A variable's value."""
    return Code(lambda _value, frame: frame[place])


def refuse(_value: Any, _frame: Frame) -> Any:
    """What is jq's to read."""
    raise GiveUp


INPUT = Code(lambda value, _frame: value)
"""`.` itself."""
NOTHING = Code(lambda _value, _frame: [], single=False)
"""`empty`."""
ASK_JQ = Code(refuse)


def streamed(code: Code) -> Callable[[Any, Frame], list[Any]]:
    """The list of its values, however many it has."""
    run = code.run
    return (lambda value, frame: [run(value, frame)]) if code.single else run


def only(code: Code) -> Code:
    """Exactly one value; none or several are jq's to complain of."""
    if code.single:
        return code
    run = code.run

    def one(value: Any, frame: Frame) -> Any:
        outputs = run(value, frame)
        if len(outputs) != 1:
            raise GiveUp
        return outputs[0]

    return Code(one)


def follow(names: list[str], start: Code) -> Code:
    """`.a.b.c`: null where there is no such member."""

    def step(value: Any, _frame: Frame | None = None) -> Any:
        for name in names:
            if type(value) is dict:
                value = value.get(name)
            elif value is not None:
                raise GiveUp
            else:
                break
        return value

    return Code(step) if start is INPUT else apply(step, start)


def follow_or(names: list[str], start: Code, *, null: bool) -> Code:
    """`(.a.b.c)?`; with `null`, `try .a.b.c catch null`. The start has one value."""
    begin = start.run

    def step(value: Any, frame: Frame) -> Any:
        value = begin(value, frame)
        for name in names:
            if type(value) is dict:
                value = value.get(name)
            elif value is not None:  # jq refuses to look for a name in it
                return None if null else []
        return value if null else [value]

    return Code(step, single=null)


def apply(  # noqa: PLR0911 - the usual cases each have a closure of their own
    function: Callable[..., Any], *codes: Code
) -> Code:
    """The function's value for the codes' values."""
    known = [code.value[0] for code in codes if code.value is not None]
    if codes and len(known) == len(codes):
        try:
            return constant(function(*known))
        except GiveUp:
            return ASK_JQ
    if not all(code.single for code in codes):
        return _combined(function, codes)
    runs = [code.run for code in codes]
    match runs:
        case [one] if codes == (INPUT,):
            return Code(lambda value, _frame: function(value))
        case [one]:
            return Code(lambda value, frame: function(one(value, frame)))
        case [_, _] if codes[0] is INPUT and codes[1].value is not None:
            (argument,) = codes[1].value
            return Code(lambda value, _frame: function(value, argument))
        case [one, two]:
            return Code(lambda value, frame: function(one(value, frame), two(value, frame)))
        case _:
            return Code(lambda value, frame: function(*[run(value, frame) for run in runs]))


def _combined(function: Callable[..., Any], codes: tuple[Code, ...]) -> Code:
    """The function's values, for which jq combines all values of each code. Several and several are given up."""
    if len(codes) == 1:
        run = codes[0].run
        return Code(lambda value, frame: [function(out) for out in run(value, frame)], single=False)
    streams = [streamed(code) for code in codes]

    def combine(value: Any, frame: Frame) -> list[Any]:
        outputs = [stream(value, frame) for stream in streams]
        if not all(outputs):
            return []
        if any(len(several) > 1 for several in outputs):
            raise GiveUp
        return [function(*(one for (one,) in outputs))]

    return Code(combine, single=False)


def spread(function: Callable[[Any], list[Any]], code: Code) -> Code:
    """All the values that the function gives for the code's values."""
    run = code.run
    if code.single:
        return Code(lambda value, frame: function(run(value, frame)), single=False)
    return Code(lambda value, frame: [out for each in run(value, frame) for out in function(each)], single=False)


def gather(function: Callable[[list[Any]], Any], code: Code) -> Code:
    """The function's one value for all the code's values."""
    run = streamed(code)
    return Code(lambda value, frame: function(run(value, frame)))


def pipe(left: Code, right: Code) -> Code:
    """`left | right`."""
    first, second = left.run, right.run
    if left.single:
        return Code(lambda value, frame: second(first(value, frame), frame), right.single, right.value)
    if right.single:
        return Code(lambda value, frame: [second(each, frame) for each in first(value, frame)], single=False)
    return Code(lambda value, frame: [out for each in first(value, frame) for out in second(each, frame)], single=False)


def both(left: Code, right: Code) -> Code:
    """`left, right`."""
    one, other = streamed(left), streamed(right)
    return Code(lambda value, frame: one(value, frame) + other(value, frame), single=False)


def alternative(left: Code, right: Code) -> Code:
    """`left // right`."""
    first, second = left.run, right.run
    if left.single and right.single:

        def either(value: Any, frame: Frame) -> Any:
            out = first(value, frame)
            return second(value, frame) if out is None or out is False else out

        return Code(either)
    many, rest = streamed(left), streamed(right)
    return Code(
        lambda value, frame: [out for out in many(value, frame) if truthy(out)] or rest(value, frame), single=False
    )


def choice(test: Code, then: Code, otherwise: Code) -> Code:
    """`if test then … else … end`."""
    if test.value is not None:
        return then if truthy(test.value[0]) else otherwise
    decide = test.run
    if test.single and then.single and otherwise.single:
        one, other = then.run, otherwise.run

        def choose(value: Any, frame: Frame) -> Any:
            decision = decide(value, frame)
            return other(value, frame) if decision is None or decision is False else one(value, frame)

        return Code(choose)
    decisions, ones, others = streamed(test), streamed(then), streamed(otherwise)
    return Code(
        lambda value, frame: [
            out for decision in decisions(value, frame) for out in (ones if truthy(decision) else others)(value, frame)
        ],
        single=False,
    )


def bind(source: Code, place: int, body: Code) -> Code:
    """`source as $variable | body`, with the variable's place in the frame."""
    read, run = source.run, body.run
    if source.single:

        def bound(value: Any, frame: Frame) -> Any:
            frame[place] = read(value, frame)
            return run(value, frame)

        return Code(bound, body.single, body.value)
    rest = streamed(body)

    def bound_each(value: Any, frame: Frame) -> list[Any]:
        outputs: list[Any] = []
        for out in read(value, frame):
            frame[place] = out
            outputs += rest(value, frame)
        return outputs

    return Code(bound_each, single=False)


def remember(code: Code, place: int) -> Code:
    """The same, but not read again while the input stays the same: many fields of a rule ask the same of a body.

    Only for what depends on nothing but its input.
    """
    run = code.run

    def remembered(value: Any, frame: Frame) -> Any:
        last = frame[place]
        if last is None or last[0] is not value:
            frame[place] = last = value, run(value, frame)
        return last[1]

    return Code(remembered, code.single, code.value)
