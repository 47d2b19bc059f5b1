"""A utility as text: the tokens and the grammar of expressions over rewards."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rsoup.errors import UsageError, show
from rsoup.select.expression import (
    COMPARISONS,
    FUNCTIONS,
    MAX_EXPONENT,
    Call,
    Chain,
    Choice,
    Compare,
    Logic,
    Negative,
    Node,
    Not,
    Number,
    Power,
    Reward,
)

MAX_LENGTH: Final = 2_000
MAX_NESTED: Final = 30

_WORDS = ("and", "else", "if", "not", "or")
PLAIN: Final = re.compile(
    r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
)  # a name that needs no quotes, unless it is a word below
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<number>(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
      | (?P<name>[^\W\d]\w*(?:\.[^\W\d]\w*)*)
      | (?P<quoted>"(?:[^"]|"")*"|`(?:[^`]|``)*`)
      | (?P<sign>\*\*|<=|>=|==|!=|[-+*/<>(),])""",
    re.VERBOSE,
)
_INSTEAD = {
    "^": "powers are written **: r1 ** 2",
    "%": "write a share of 1 instead of a percentage: 0.8 for 80 %",
    "=": "equality is written ==",
    "&": "conditions are joined by: and",
    "|": "conditions are joined by: or",
    "!": "a condition is turned round by: not",
    "'": 'a name in quotes is written "rouge-1" or `rouge-1`',
    '"': "the quote of a name is never closed",
    "`": "the quote of a name is never closed",
    "−": "the minus sign is written -",
    "–": "the minus sign is written -",
    "×": "multiplication is written *",
    "·": "multiplication is written *",
    "÷": "division is written /",
    "≤": "write <=",
    "≥": "write >=",
    "≠": "write !=",
}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def _wrong(at: int, what: str, hint: str) -> UsageError:
    return UsageError("E0260", f"at character {at + 1} of the utility: {what}", hint=hint)


def _tokens(text: str) -> Iterator[_Token]:
    at, before = 0, ""
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise _wrong(
                at,
                f"'{show(text[at])}' has no meaning",
                _INSTEAD.get(text[at], "numbers, rewards, + - * / **, comparisons, and, or, not, if … else"),
            )
        kind = str(found.lastgroup)
        if before == "number" and kind in ("number", "name"):
            raise _wrong(at, "a number goes on in no way known", "0.8, 1e-3; products are written 2 * r1")
        if kind == "name" and found[0] in _WORDS:
            yield _Token("word", found[0], at)
        elif kind != "space":
            yield _Token(kind, found[0], at)
        at, before = found.end(), kind
    yield _Token("end", "", at)


def read_expression(text: str) -> Node:
    """The tree of an expression, e.g. `min(r1, r2)` or `r1 if "rouge-1" > .8 else 0`.

    Python's grammar and precedence over numbers and rewards: + - * / **, comparisons (chained too), and, or,
    not, if … else, and `FUNCTIONS`. Names that are no plain words stand in double quotes or backticks (doubled
    inside). Raises UsageError E0260 with the place for anything else, and for more than `MAX_LENGTH` characters
    or `MAX_NESTED` expressions inside one another.
    """
    if len(text) > MAX_LENGTH:
        raise UsageError(
            "E0260",
            f"a utility of {len(text)} characters is more than the {MAX_LENGTH} rsoup reads",
            hint="let the evaluator compute it, as a metric of its own",
        )
    reader = _Reader(list(_tokens(text)))
    node = reader.expression()
    if (rest := reader.now).kind != "end":
        raise _wrong(
            rest.at, f"'{show(rest.text)}' where the expression could end", "an operator is missing before it"
        )
    return node


class _Reader:
    """Recursive descent: one method for each level of precedence, the loosest first."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        self._tokens = tokens
        self._index = 0
        self._nested = 0

    @property
    def now(self) -> _Token:
        return self._tokens[self._index]

    def _take(self, *texts: str) -> _Token | None:
        token = self.now
        if token.kind not in ("sign", "word") or token.text not in texts:
            return None
        self._index += 1
        return token

    def _expect(self, text: str, hint: str) -> None:
        if not self._take(text):
            found = f"not '{show(self.now.text)}'" if self.now.text else "and the text ends"
            raise _wrong(self.now.at, f"'{text}' is expected here, {found}", hint)

    def _inside(self, read: Callable[[], Node]) -> Node:
        """What `read` reads, one level deeper."""
        if self._nested == MAX_NESTED:
            raise _wrong(
                self.now.at, f"more than {MAX_NESTED} expressions inside one another", "write it flatter"
            )
        self._nested += 1
        node = read()
        self._nested -= 1
        return node

    def expression(self) -> Node:
        branches: list[tuple[Node, Node]] = []
        value = self._either()
        while self._take("if"):
            condition = self._condition(self._either)
            self._expect("else", "a choice has two sides: r1 if r2 > 0.8 else 0")
            branches.append((condition, value))
            value = self._either()
        return Choice(tuple(branches), value) if branches else value

    def _condition(self, read: Callable[[], Node]) -> Node:
        at = self.now.at
        return self._checked(read(), at)

    def _checked(self, node: Node, at: int) -> Node:
        if not isinstance(node, Compare | Logic | Not):
            raise _wrong(at, "a condition is expected here, not a number", "compare it: r1 > 0.8")
        return node

    def _either(self) -> Node:
        return self._logic("or", self._both)

    def _both(self) -> Node:
        return self._logic("and", self._not)

    def _logic(self, word: str, read: Callable[[], Node]) -> Node:
        at = self.now.at
        parts = [read()]
        while self._take(word):
            if len(parts) == 1:
                self._checked(parts[0], at)
            parts.append(self._condition(read))
        return Logic(word, tuple(parts)) if len(parts) > 1 else parts[0]

    def _not(self) -> Node:
        if self._take("not"):
            return Not(self._condition(lambda: self._inside(self._not)))
        return self._compared()

    def _compared(self) -> Node:
        first, rest = self._chain(COMPARISONS, self._sum)
        return Compare(first, rest) if rest else first

    def _sum(self) -> Node:
        first, rest = self._chain(("+", "-"), self._product)
        return Chain(first, rest) if rest else first

    def _product(self) -> Node:
        first, rest = self._chain(("*", "/"), self._signed)
        return Chain(first, rest) if rest else first

    def _chain(
        self, signs: tuple[str, ...], read: Callable[[], Node]
    ) -> tuple[Node, tuple[tuple[str, Node], ...]]:
        first = read()
        rest = []
        while sign := self._take(*signs):
            rest.append((sign.text, read()))
        return first, tuple(rest)

    def _signed(self) -> Node:
        if self._take("-"):
            return Negative(self._inside(self._signed))
        if self._take("+"):
            return self._inside(self._signed)
        base = self._atom()
        if not self._take("**"):
            return base
        at = self.now.at
        exponent = self._inside(self._signed)
        size = exponent.of if isinstance(exponent, Negative) else exponent
        if isinstance(size, Number) and size.value > MAX_EXPONENT:
            raise _wrong(at, f"an exponent beyond ±{MAX_EXPONENT:g}", "smaller powers, or exp and log")
        return Power(base, exponent)

    def _atom(self) -> Node:
        token = self.now
        if self._take("("):
            node = self._inside(self.expression)
            self._expect(")", "every parenthesis is closed")
            return node
        if token.kind not in ("number", "name", "quoted"):
            what = f"'{show(token.text)}'" if token.text else "the end"
            raise _wrong(
                token.at, f"a number or a reward is expected, not {what}", "e.g. min(helpful, harmless)"
            )
        self._index += 1
        if token.kind == "number":
            return Number(_number(token))
        if token.kind == "quoted":
            quote = token.text[0]
            return Reward(token.text[1:-1].replace(quote * 2, quote))
        return self._call(token) if self._take("(") else Reward(token.text)

    def _call(self, token: _Token) -> Node:
        if token.text not in FUNCTIONS:
            raise _wrong(
                token.at, f"there is no function '{show(token.text)}'", f"there are {', '.join(FUNCTIONS)}"
            )
        arguments = [self._inside(self.expression)]
        while self._take(","):
            arguments.append(self._inside(self.expression))
        self._expect(")", "arguments are separated by commas, and the parenthesis is closed")
        wanted = FUNCTIONS[token.text]
        if wanted is not None and len(arguments) != wanted:
            raise _wrong(
                token.at, f"{token.text} takes {wanted} arguments, not {len(arguments)}", _usage(token.text)
            )
        return Call(token.text, tuple(arguments))


def _usage(function: str) -> str:
    return "clip(r1, 0, 1) keeps r1 from 0 to 1" if function == "clip" else f"{function}(r1)"


def _number(token: _Token) -> float:
    value = float(token.text)
    if not math.isfinite(value) or (value == 0 and re.search("[1-9]", token.text.lower().split("e")[0])):
        raise _wrong(token.at, "a number this large or small is not meant", "something like 0.8 or 1e-3")
    return value
