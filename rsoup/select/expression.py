"""The tree of a utility: numbers, rewards, arithmetic, conditions and functions; data, never run as code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_EXPONENT: Final = 64.0
COMPARISONS: Final = ("<", "<=", ">", ">=", "==", "!=")
# name → how many arguments it takes; None: one or more
FUNCTIONS: Final[dict[str, int | None]] = {
    "abs": 1,
    "clip": 3,
    "exp": 1,
    "log": 1,
    "max": None,
    "mean": None,
    "min": None,
    "sqrt": 1,
    "sum": None,
}


@dataclass(frozen=True, slots=True)
class Number:
    """A constant."""

    value: float


@dataclass(frozen=True, slots=True)
class Reward:
    """The value of a reward."""

    name: str


@dataclass(frozen=True, slots=True)
class Negative:
    """−x."""

    of: Node


@dataclass(frozen=True, slots=True)
class Chain:
    """x ± y ± …, or x × y ÷ …, from left to right; `rest` pairs a sign with its operand."""

    first: Node
    rest: tuple[tuple[str, Node], ...]


@dataclass(frozen=True, slots=True)
class Power:
    """x to the power y."""

    base: Node
    exponent: Node


@dataclass(frozen=True, slots=True)
class Compare:
    """x < y ≤ …: every neighbouring pair as its sign says; 1 where all hold, else 0."""

    first: Node
    rest: tuple[tuple[str, Node], ...]


@dataclass(frozen=True, slots=True)
class Logic:
    """All (`and`) or any (`or`) of some conditions."""

    word: str
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """1 where a condition does not hold, else 0."""

    of: Node


@dataclass(frozen=True, slots=True)
class Choice:
    """The value of the first branch (condition, value) whose condition holds, or of `otherwise`."""

    branches: tuple[tuple[Node, Node], ...]
    otherwise: Node


@dataclass(frozen=True, slots=True)
class Call:
    """One of `FUNCTIONS` of some arguments."""

    name: str
    arguments: tuple[Node, ...]


Node = Number | Reward | Negative | Chain | Power | Compare | Logic | Not | Choice | Call


def children(node: Node) -> tuple[Node, ...]:
    """The parts of an expression, from left to right as they are written."""
    match node:
        case Number() | Reward():
            return ()
        case Negative(of) | Not(of):
            return (of,)
        case Chain(first, rest) | Compare(first, rest):
            return (first, *(part for _, part in rest))
        case Power(base, exponent):
            return (base, exponent)
        case Logic(_, parts) | Call(_, parts):
            return parts
        case Choice(branches, otherwise):
            return (*(part for condition, value in branches for part in (value, condition)), otherwise)


def rewards_in(node: Node) -> tuple[str, ...]:
    """The rewards an expression names, each once, in the order in which it does."""
    own = (node.name,) if isinstance(node, Reward) else ()
    return tuple(dict.fromkeys((*own, *(name for part in children(node) for name in rewards_in(part)))))
