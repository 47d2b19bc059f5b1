"""A table as the options say it: which columns, directions, training step, units."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from rsoup.analysis.data import Data, data_of, directed
from rsoup.errors import UsageError, listing, show
from rsoup.measured.columns import Columns, parse_columns, parse_source
from rsoup.measured.reported import with_report
from rsoup.measured.table import FILE, read_table
from rsoup.measured.values import Table

_Read = TypeVar("_Read")
_DIRECTION = re.compile(r"(?P<name>.+):(?P<way>min|minimise|minimize|max|maximise|maximize)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a command was told about its table; texts as they were typed."""

    path: str
    rewards: tuple[str, ...] = ()
    guards: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    lambda_columns: tuple[str, ...] = ()
    name_column: str | None = None
    step: int | None = None
    split: str = "select"
    reference: str | None = None
    raw: bool = False
    experts: tuple[str, ...] = ()
    reported: tuple[str, ...] = ()

    @property
    def columns(self) -> Columns:
        """The columns; rewards and guard metrics are those that are named, if any is."""
        named = [name for name, _ in map(_directed, (*self.rewards, *self.guards))]
        named += list(parse_reported(self.reported).values())
        return parse_columns(named if self.rewards else (), self.where, self.lambda_columns, self.name_column)

    def table(self) -> Table:
        """The table with its directions. Raises what `read_table` and `finished` raise."""
        return self.finished(read_table(self.path, self.columns))

    def finished(self, table: Table) -> Table:
        """A table read by `columns`, with report values and directions. Raises what `with_report` and `directed` raise."""
        pairs = [*map(_directed, self.rewards), *map(_directed, self.guards)]
        plain = with_report(table, parse_reported(self.reported))
        found = directed(
            plain,
            [name for name, _ in map(_directed, self.rewards)],
            [name for name, _ in map(_directed, self.guards)],
            [name for name, minimise in pairs if minimise],
        )
        if self.rewards or all(quality.maximise is not None for quality in plain.metrics.values()):
            return found
        taken = [name for name, quality in found.metrics.items() if not quality.guard]
        return replace(found, notes=(f"no --reward was named: {listing(taken, 12)} {'is' if len(taken) == 1 else 'are'} taken as rewards, more is better",))  # fmt: skip

    def data(self, table: Table) -> Data:
        """The points of the step and split that are meant. Raises what `data_of` raises, and UsageError E0255."""
        if self.split not in ("select", "report"):
            raise UsageError(
                "E0255", f"--split '{show(self.split)}' is neither select nor report", hint="--split report"
            )
        return data_of(
            table,
            step=self.step,
            split=self.split,
            reference=None if self.reference is None else _numbers(self.reference),
            normalised=not self.raw,
        )

    def assignment(self) -> Mapping[str, str] | None:
        """Reward → ingredient, as --expert says; None where nothing is said."""
        pairs = [text.partition("=") for text in self.experts]
        if bad := [
            text for text, (left, _, right) in zip(self.experts, pairs, strict=True) if not left or not right
        ]:
            raise UsageError(
                "E0255", f"--expert '{show(bad[0])}' is not REWARD=INGREDIENT", hint="--expert helpful=first"
            )
        return {left: right for left, _, right in pairs} or None


def parse_reported(texts: Sequence[str]) -> dict[str, str]:
    """Reward → the metric with its report values, as `--reported REWARD=METRIC` says. Raises UsageError E0280."""
    found: dict[str, str] = {}
    for text in texts:
        reward, _, metric = text.partition("=")
        if not reward or not metric or reward == metric or reward in found:
            raise UsageError(
                "E0280", f"--reported '{show(text)}' is not REWARD=METRIC, once per reward",
                hint="--reported helpful=helpful_report",
            )  # fmt: skip
        found[reward] = metric
    return found


def _directed(text: str) -> tuple[str, bool]:
    """`ppl:min` → ("ppl", True)."""
    found = _DIRECTION.fullmatch(text)
    return (text, False) if found is None else (found["name"], found["way"].startswith("min"))


def _numbers(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.replace("_", "?").split(","))
    except ValueError:
        found = ()
    if not found or not all(abs(value) < 1e150 for value in found):
        raise UsageError(
            "E0255", f"--reference '{show(text)}' is no list of numbers", hint="--reference 0,-50"
        )
    return found


def other_table(reading: Reading, text: str, rewards: Sequence[str], name: str | None) -> tuple[str, Table]:
    """(title, table) of `TABLE[:COLUMN=VALUE…]`, by `read_other`; without a name it is called after its rows or its file."""
    path, conditions = parse_source(text)
    table = other_report(reading, read_other(reading, text, rewards, read_table))
    stem = os.path.splitext(os.path.basename(path.rstrip("/")))[0]
    return name or ", ".join(one.value for one in conditions) or stem, table


def read_other(
    reading: Reading, text: str, rewards: Sequence[str], read: Callable[[str, Columns], _Read]
) -> _Read:
    """What `read` finds in `TABLE[:COLUMN=VALUE…]`: a foreign table is read like the first one. Raises what it raises."""
    path, conditions = parse_source(text)
    mine = reading.columns
    own = os.path.isdir(path) or os.path.basename(path) == FILE
    shares = () if own else mine.shares
    pairs = parse_reported(reading.reported)
    metrics = (*rewards, *pairs.values()) if mine.metrics and not own else ()
    try:
        return read(path, Columns(metrics, conditions, shares, None if own else mine.name))
    except UsageError as error:
        if error.code != "E0253" or not shares or conditions:
            raise
        return read(path, Columns(metrics, conditions))  # a table of its own, without these columns of λ


def other_report(reading: Reading, table: Table) -> Table:
    """The table with the report values that `--reported` names, where it has them."""
    pairs = parse_reported(reading.reported)
    there = all(one in table.metrics for one in (*pairs, *pairs.values()))
    return with_report(table, pairs) if there else table


def others_named(texts: Sequence[str]) -> list[tuple[str | None, str]]:
    """(name or None, TABLE[:COLUMN=VALUE]) of `NAME=TABLE…`; what exists under the whole text is a path."""
    found: list[tuple[str | None, str]] = []
    for text in texts:
        name, equals, rest = text.partition("=")
        if not equals or os.path.lexists(text) or "/" in name or ":" in name or os.path.sep in name:
            found.append((None, text))
        else:
            found.append((name, rest))
    return found
