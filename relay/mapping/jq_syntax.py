"""The part of jq's language that can be read without jq, as a tree.

`parse_jq` takes what jq itself has compiled before, so it need not find faults: what it does not know, reductions,
assignments, formats, patterns, is `Unsupported`, and jq alone reads that. The language: https://jqlang.org/manual/
"""

import json
import re
from dataclasses import dataclass
from typing import Any


class Unsupported(Exception):  # noqa: N818 - an outcome, not a fault: jq reads it
    """This is beyond what is read without jq."""


@dataclass(frozen=True)
class Identity:
    """`.` itself."""


@dataclass(frozen=True)
class Literal:
    """A text, an integer, or an empty list or object; `null`, `true` and `false` are calls in jq."""

    value: Any


@dataclass(frozen=True)
class Text:
    r"""`"a \(b) c"`."""

    parts: tuple["str | Node", ...]


@dataclass(frozen=True)
class Variable:
    """`$name`."""

    name: str


@dataclass(frozen=True)
class Index:
    """`.name`, `.["name"]`, `.[expression]`."""

    target: "Node"
    key: "Node"


@dataclass(frozen=True)
class Slice:
    """`.[start:stop]`."""

    target: "Node"
    start: "Node | None"
    stop: "Node | None"


@dataclass(frozen=True)
class Each:
    """`.[]`; with `?` behind it, what cannot be iterated has nothing in it."""

    target: "Node"
    optional: bool


@dataclass(frozen=True)
class Try:
    """`(body)?` and `try body catch handler`. Behind anything but brackets and `[]`, a `?` is left out of the tree."""

    body: "Node"
    handler: "Node | None" = None


@dataclass(frozen=True)
class Maybe:
    """`body?`, where the body is no `.[]`."""

    body: "Node"


@dataclass(frozen=True)
class Pipe:
    """`left | right`."""

    left: "Node"
    right: "Node"


@dataclass(frozen=True)
class Binary:
    """Two expressions with `,`, `//`, `or`, `and`, a comparison or arithmetic between them."""

    operator: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True)
class If:
    """`if condition then … else … end`; `elif` is another If in `otherwise`."""

    condition: "Node"
    then: "Node"
    otherwise: "Node"


@dataclass(frozen=True)
class Array:
    """`[ … ]` with something in it."""

    body: "Node"


@dataclass(frozen=True)
class Object:
    """`{ … }` with something in it."""

    members: tuple[tuple["Node", "Node"], ...]


@dataclass(frozen=True)
class Bind:
    """`source as $name | body`."""

    source: "Node"
    name: str
    body: "Node"


@dataclass(frozen=True)
class Define:
    """`def name(parameter; …): body; …` and what they are for."""

    definitions: tuple[tuple[str, tuple[str, ...], "Node"], ...]
    """Name, parameters and body; a parameter with a `$` is a value, the others are filters."""
    rest: "Node"


@dataclass(frozen=True)
class Call:
    """`name(argument; …)`."""

    name: str
    arguments: tuple["Node", ...]


Node = (
    Identity | Literal | Text | Variable | Index | Slice | Each | Try | Pipe | Binary | If | Array | Object | Bind
    | Define | Call | Maybe
)  # fmt: skip


def parse_jq(text: str) -> Node:
    """The tree of a program that jq has compiled. Raises Unsupported."""
    parser = _Parser(text)
    node = parser.pipe()
    if parser.word:
        raise Unsupported(parser.word)
    return node


# How tightly the operators bind; `//` to the right, the others to the left. `|` is not one of them.
_POWERS = {
    ",": 1, "//": 2, "or": 3, "and": 4, "==": 5, "!=": 5, "<": 5, "<=": 5, ">": 5, ">=": 5, "+": 6, "-": 6,
    "*": 7, "/": 7, "%": 7,
}  # fmt: skip
_KEYWORDS = frozenset(
    "def if then elif else end as and or reduce foreach try catch label import include __loc__".split()  # noqa: SIM905
)
# A comment with a backslash at its end goes on in the next line, by rules that have changed: no word fits there.
_SPACE = re.compile(r"(?:[ \t\r\n]+|#[^\n\r\\]*(?=\n|\Z))*")
_TOKEN = re.compile(
    r'\d+(?![\w.])|\$?[A-Za-z_]\w*|\.[A-Za-z_]\w*|\?//|//|[!=<>]=|\.\.|[+\-*%/|]=|["\[\](){}|,;:.?<>=+\-*/%]', re.ASCII
)
_STRETCH = re.compile(r'(?:[^"\\]|\\u[0-9A-Fa-f]{4}|\\["\\/bfnrt])+')


class _Parser:
    """Recursive descent; `word` is the token that comes next, empty at the end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._end = 0
        self.word = ""
        self._advance()

    def pipe(self) -> Node:
        definitions = []
        while self._skip("def"):
            definitions.append(self._definition())
        if definitions:
            return Define(tuple(definitions), self.pipe())
        left = self._binary(_POWERS[","])
        return Pipe(left, self.pipe()) if self._skip("|") else left

    def _definition(self) -> tuple[str, tuple[str, ...], Node]:
        name = self._name()
        parameters = []
        if self._skip("("):
            while True:
                parameters.append(self._name(variable=self.word.startswith("$")))
                if not self._skip(";"):
                    break
            self._expect(")")
        self._expect(":")
        body = self.pipe()
        self._expect(";")
        return name, tuple(parameters), body

    def _binary(self, least: int, *, bindable: bool = True) -> Node:
        """An expression whose operators bind at least as tightly as this.

        `bindable` is False behind an operator: versions of jq differ in what `as` binds there.
        """
        left = self._term(bindable=bindable)
        while (power := _POWERS.get(self.word, 0)) >= least:
            operator = self._advance()
            right = self._binary(power if operator == "//" else power + 1, bindable=operator == ",")
            left = Binary(operator, left, right)
        return left

    def _term(self, *, bindable: bool) -> Node:
        if self._skip("try"):
            body = self._postfix(self._primary())
            return Try(body, self._postfix(self._primary()) if self._skip("catch") else None)
        node = self._postfix(self._primary())
        if bindable and self._skip("as"):
            name = self._name(variable=True)
            self._expect("|")
            return Bind(node, name[1:], self.pipe())
        return node

    def _primary(self) -> Node:  # noqa: C901, PLR0911, PLR0912 - one case for each kind of term
        word = self.word
        if word == '"':
            return self._string()
        self._advance()
        if word.isdecimal():
            return Literal(int(word))
        if word == "-" and self.word.isdecimal():
            return Literal(-int(self._advance()))
        if word[:1] == "$":
            return Variable(word[1:])
        if len(word) > 1 and word[0] == "." and word != "..":
            return Index(Identity(), Literal(word[1:]))
        match word:
            case ".":
                return Index(Identity(), self._string()) if self.word == '"' else Identity()
            case "(":
                body = self._closed(self.pipe(), ")")
                return Try(body) if self._skip("?") else body
            case "[":
                return Literal([]) if self._skip("]") else Array(self._closed(self.pipe(), "]"))
            case "{":
                return Literal({}) if self._skip("}") else self._object()
            case "if":
                return self._if()
        if not word.isidentifier() or word in _KEYWORDS:
            raise Unsupported(word)
        arguments = []
        if self._skip("("):
            arguments.append(self.pipe())
            while self._skip(";"):
                arguments.append(self.pipe())
            self._expect(")")
        return Call(word, tuple(arguments))

    def _postfix(self, node: Node) -> Node:
        while True:
            word = self.word
            if self._skip("?"):
                node = Each(node.target, optional=True) if isinstance(node, Each) else Maybe(node)
            elif self._skip("["):
                node = self._bracket(node)
            elif word == ".":
                self._advance()
                if self.word == '"':
                    node = Index(node, self._string())
                elif self.word != "[":
                    raise Unsupported(self.word)
            elif word[:1] == "." and word != "..":
                self._advance()
                node = Index(node, Literal(word[1:]))
            else:
                return node

    def _bracket(self, target: Node) -> Node:
        if self._skip("]"):
            return Each(target, optional=False)
        if self._skip(":"):
            return Slice(target, None, self._closed(self.pipe(), "]"))
        key = self.pipe()
        if not self._skip(":"):
            return Index(target, self._closed(key, "]"))
        return Slice(target, key, None) if self._skip("]") else Slice(target, key, self._closed(self.pipe(), "]"))

    def _if(self) -> Node:
        condition = self.pipe()
        self._expect("then")
        then = self.pipe()
        if self._skip("elif"):
            return If(condition, then, self._if())
        otherwise = self.pipe() if self._skip("else") else Identity()
        self._expect("end")
        return If(condition, then, otherwise)

    def _object(self) -> Node:
        members = []
        while True:
            members.append(self._member())
            if not self._skip(","):
                break
        self._expect("}")
        return Object(tuple(members))

    def _member(self) -> tuple[Node, Node]:
        key: Node
        if self._skip("("):
            key = self._closed(self.pipe(), ")")
        elif self.word == '"':
            key = self._string()
        else:
            name = self._advance()
            key = Literal(name.removeprefix("$"))
            if self.word in {",", "}"}:  # {name} and {$name}
                return key, Variable(name[1:]) if name[0] == "$" else Index(Identity(), key)
            if not name.isidentifier():
                raise Unsupported(name)
        self._expect(":")
        value = self._binary(_POWERS["//"])
        while self._skip("|"):
            value = Pipe(value, self._binary(_POWERS["//"]))
        return key, value

    def _string(self) -> Node:
        r"""A text, with what stands in its `\( )`; the word is the `"` that begins it."""
        parts: list[str | Node] = []
        while True:
            if found := _STRETCH.match(self._text, self._end):
                self._end = found.end()
                part = json.loads(f'"{found[0]}"', strict=False)
                if not part.isascii() and re.search("[\ud800-\udfff]", part):
                    raise Unsupported("half a character")
                parts.append(part)
            elif self._text.startswith("\\(", self._end):
                self._end += 2
                self._advance()
                parts.append(self.pipe())
                if self.word != ")":
                    raise Unsupported(self.word)
            elif self._text.startswith('"', self._end):
                self._end += 1
                self._advance()
                break
            else:
                raise Unsupported("string")
        match parts:
            case []:
                return Literal("")
            case [str(text)]:
                return Literal(text)
            case _:
                return Text(tuple(parts))

    # -- tokens ----------------------------------------------------------------------------------

    def _advance(self) -> str:
        """Go on to the next word; gives the one before."""
        before = self.word
        start = _SPACE.match(self._text, self._end).end()  # type: ignore[union-attr]  # it matches nothing as well
        found = _TOKEN.match(self._text, start)
        if found is None and start < len(self._text):
            raise Unsupported(self._text[start : start + 10])
        self.word = "" if found is None else found[0]
        self._end = start + len(self.word)
        return before

    def _skip(self, word: str) -> bool:
        if self.word != word:
            return False
        self._advance()
        return True

    def _expect(self, word: str) -> None:
        if not self._skip(word):
            raise Unsupported(self.word)

    def _closed(self, node: Node, word: str) -> Node:
        self._expect(word)
        return node

    def _name(self, *, variable: bool = False) -> str:
        name = self._advance()
        if not name.removeprefix("$").isidentifier() or name.startswith("$") is not variable:
            raise Unsupported(name)
        return name
