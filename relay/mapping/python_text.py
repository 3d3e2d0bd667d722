"""The text of Python functions, as it is written: its names, its lines, its blocks, and what makes functions of it."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from relay.mapping.jq_syntax import Unsupported
from relay.mapping.jq_values import GiveUp, text_of

Name = str
"""What a value is called in the text: a name, or a literal."""

DEEPEST = 90
"""Blocks within blocks; Python itself takes a hundred. What would be decided deeper down is left to jq."""

LONGEST = 20_000
"""Lines of one program."""


@dataclass(frozen=True)
class Code:
    """A compiled expression."""

    write: Callable[["Function", Name], Name]
    """Given the input's name, writes what computes it; the name of its value or, unless `single`, of the list of its
    values. Nobody changes any of them.
    """
    single: bool = True
    value: tuple[Any] | None = None
    """The value in it, where it is known already."""


@dataclass
class Program:
    """The text of a program, as it is written."""

    functions: list["Function"] = field(default_factory=list)
    names: dict[str, Any] = field(default_factory=lambda: {"GiveUp": GiveUp, "absent": absent, "text_of": text_of})
    """What the text does not say itself: functions and constants."""
    left: int = LONGEST
    """Lines that may still come."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _called: dict[int, Name] = field(default_factory=dict)

    def new(self, kind: str) -> Name:
        """A name that nothing has yet."""
        return f"{kind}{next(self._numbers)}"

    def count(self) -> None:
        """One line more, or what is written without one. Raises Unsupported when there are too many."""
        self.left -= 1
        if self.left < 0:
            raise Unsupported(f"it has more than {LONGEST} lines")

    def name(self, value: Any) -> Name:
        """What this value, which is known already, is called."""
        if value is None or type(value) is bool:
            return repr(value)
        if id(value) not in self._called:
            self._called[id(value)] = name = self.new("k")
            self.names[name] = value
        return self._called[id(value)]

    def function(self, code: Code) -> "Function":
        """A function of an input, the headers and the variables that are known outside."""
        function = Function(self, self.new("f"))
        self.functions.append(function)
        function.line(f"return {code.write(function, 'value')}")
        return function

    def compiled(self, code: Code) -> Callable[[Any, Any], Any]:
        """The function of a body and its headers. Raises Unsupported when it is too much for Python."""
        main = self.function(code)
        text = "\n".join(line for function in self.functions for line in function.text())
        try:
            exec(compile(text, "<mapping>", "exec"), self.names)  # noqa: S102 - nothing of it but literals is a user's
        except (SyntaxError, RecursionError, MemoryError) as error:
            raise Unsupported(f"it is too much for Python: {error}") from None
        return self.names[main.name]  # type: ignore[no-any-return]


class Function:
    """A function of the text: its lines, and what has a name at its present place."""

    def __init__(self, program: Program, name: Name) -> None:
        self.program, self.name = program, name
        self._lines: list[str] = []
        self._depth = 1
        self._known: list[dict[Any, Name]] = [{}]
        """What has been computed, by block; behind a block it has no name any more."""
        self.variables: dict[int, Name] = {0: "headers"}
        """What the variables of the program are called now."""

    def text(self) -> list[str]:
        """Its lines."""
        return [f"def {self.name}(value, headers):", *self._lines]

    def line(self, text: str) -> None:
        """One statement."""
        self.program.count()
        if self._depth < DEEPEST:
            self._lines.append(" " * self._depth + text)

    def let(self, expression: str, *, known: Any = None) -> Name:
        """A name for the expression's value; the same one as before, where it has been written as `known`."""
        for block in self._known if known is not None else ():
            if known in block:
                return block[known]
        name = self.program.new("x")
        self.line(f"{name} = {expression}")
        if known is not None:
            self._known[-1][known] = name
        return name

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """What stands below `if …:` or `for …:`."""
        self.line(head)
        self._depth += 1
        self._known.append({})
        if self._depth == DEEPEST:
            self._lines.append(" " * self._depth + "raise GiveUp")
        yield
        self._known.pop()
        self._depth -= 1


def absent(value: Any) -> None:
    """The member of what is no object: null has none of any name, the others are jq's to complain of."""
    if value is not None:
        raise GiveUp
