"""Texts with `${ jq }` in them, taken apart.

A text without `${` is a literal. A text that is exactly one `${ … }` has the expression's value and type;
anything else is interpolated: the parts' texts are put together.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Expression:
    """The jq between `${` and `}`."""

    jq: str


Part = str | Expression


class TemplateError(ValueError):
    """A `${` that never ends, or with nothing in it."""


def parse_template(text: str) -> tuple[Part, ...]:
    """The literal parts and the expressions of a text, in order; () for an empty text.

    Raises TemplateError for a `${` without its `}`.
    """
    parts: list[Part] = []
    position = 0
    while (start := text.find("${", position)) >= 0:
        if start > position:
            parts.append(text[position:start])
        end = _closing_brace(text, start + 2)
        if end is None:
            raise TemplateError("'${' has no closing '}'")
        jq = text[start + 2 : end].strip()
        if not jq:
            raise TemplateError("'${ }' holds no expression")
        parts.append(Expression(jq))
        position = end + 1
    if position < len(text):
        parts.append(text[position:])
    return tuple(parts)


def parse_expression(text: str) -> Expression:
    """The jq of a place that always holds jq (`when`, `for_each`): `${ }` around it may be left out.

    Raises TemplateError when the text is a mixture.
    """
    parts = parse_template(text.strip())
    match parts:
        case (Expression() as expression,):
            return expression
        case (str(jq),):
            return Expression(jq)
        case _:
            raise TemplateError("must be one jq expression")


def _closing_brace(text: str, position: int) -> int | None:
    r"""Where the `}` stands that closes an expression: not in a string, a comment or inner braces.

    A string may hold `\( … )` with further strings in it, so the open brackets are kept on a stack.
    """
    stack = ["}"]
    while position < len(text):
        char = text[position]
        if stack[-1] == '"':
            if char == "\\":
                position += 1
                if text[position : position + 1] == "(":
                    stack.append(")")
            elif char == '"':
                stack.pop()
        elif char == stack[-1]:
            stack.pop()
            if not stack:
                return position
        elif char == "#":
            position = _COMMENT.match(text, position).end()  # type: ignore[union-attr]  # it begins here
        elif char in _OPENERS:
            stack.append(_OPENERS[char])
        position += 1
    return None


# After a backslash at its end a comment goes on in the next line.
_COMMENT = re.compile(r"#(?:\\.|[^\\\n])*", re.DOTALL)
_OPENERS = {'"': '"', "(": ")", "[": "]", "{": "}"}
