"""Columns: what the user says about the columns of a table that rsoup did not write."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rsoup.errors import UsageError, listing, show

REST: Final = "rest"
_PAIR = re.compile(r"(?P<left>[^=]+)=(?P<right>.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Condition:
    """The text of a column is `value`, or with `other` is not."""

    column: str
    value: str
    other: bool = False

    def holds(self, text: str) -> bool:
        """Whether a cell meets it."""
        return (text.strip() == self.value) != self.other

    def __str__(self) -> str:
        return f"{show(self.column)} {'≠' if self.other else '='} '{show(self.value)}'"


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns mean what.

    `metrics` are the columns read as metrics, with their `_stderr`; others may then hold any text; empty: every
    column that has no other meaning. `where` keeps the rows that meet every condition. `shares` are
    (ingredient, column of its λ), one column may be REST: what the others leave of 1. `name` is the column
    with the points' names.
    """

    metrics: tuple[str, ...] = ()
    where: tuple[Condition, ...] = ()
    shares: tuple[tuple[str, str], ...] = ()
    name: str | None = None


def parse_columns(
    metrics: Sequence[str], where: Sequence[str], shares: Sequence[str], name: str | None
) -> Columns:
    """`--where method=rs`, `--where step!=0`, `--lambda-column helpful=w1` as Columns.

    Raises UsageError E0252 for anything that is not NAME=VALUE, an ingredient given twice, or REST twice.
    """
    pairs = tuple(_pair(text, "--lambda-column", "INGREDIENT=COLUMN") for text in shares)
    named = [ingredient for ingredient, _ in pairs]
    if len(set(named)) != len(named) or sum(column == REST for _, column in pairs) > 1:
        raise UsageError(
            "E0252",
            f"--lambda-column gives an ingredient, or {REST}, twice: {listing(named)}",
            hint=f"once per ingredient: --lambda-column helpful=w --lambda-column harmless={REST}",
        )
    return Columns(tuple(metrics), tuple(_condition(text, "--where") for text in where), pairs, name)


def parse_source(text: str) -> tuple[str, tuple[Condition, ...]]:
    """`morl.csv`, `results.csv:method=morl:step=200`: a path, and all that its rows must have.

    What exists under the whole text is a path.
    """
    found: list[Condition] = []
    while not os.path.lexists(text):
        path, colon, condition = text.rpartition(":")
        if not (colon and path and _PAIR.fullmatch(condition)):
            break
        found.insert(0, _condition(condition, "--compare"))
        text = path
    return text, tuple(found)


def _condition(text: str, option: str) -> Condition:
    column, value = _pair(text, option, "COLUMN=VALUE")
    return Condition(column.removesuffix("!").strip(), value, other=column.endswith("!"))


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    found = _PAIR.fullmatch(text)
    if found is None:
        raise UsageError("E0252", f"{option} '{show(text)}' is not {form}", hint=f"{option} {form}")
    return found["left"].strip(), found["right"].strip()
