"""Comparisons of points as people give them, read strictly from a CSV file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rsoup.errors import Problem, UsageError, listing, show, show_path
from rsoup.storage.files import read_whole

MAX_BYTES: Final = 16_000_000
MAX_COUNT: Final = 1_000_000_000
_SHAPES = (("better", "worse"), ("a", "b", "winner"))
_EXAMPLE = "a head better,worse or a,b,winner (and count, if wished), then a line per comparison, with the points' names"


@dataclass(frozen=True, slots=True)
class Comparison:
    """`better` was preferred to `worse`, `count` times; with `tie`, neither was."""

    better: str
    worse: str
    tie: bool = False
    count: int = 1


def read_comparisons(path: str, points: Sequence[str]) -> tuple[Comparison, ...]:
    """The rows of a CSV file with columns better,worse, or a,b,winner (a, b, tie, or a point); count is optional.

    Columns in any order, cells without the blanks around them, empty lines skipped. Raises UsageError E0262 with
    the line for what is not exactly that, E0264 with every name that is none of `points`; AccessError E0701, E0702
    and RefusedFileError E0804 to E0807 for what cannot be read.
    """
    shown = show_path(path)
    try:
        text = read_whole(path, shown, MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError("E0262", "this is not UTF-8", where=shown, hint="save it as UTF-8") from error
    return parse_comparisons(text, points, shown)


def parse_comparisons(text: str, points: Sequence[str], shown: str) -> tuple[Comparison, ...]:
    """Like `read_comparisons`, from the file's text; `shown` names it in errors."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    head: list[str] | None = None
    found: list[Comparison] = []
    lines: dict[str, int] = {}
    try:
        for cells in reader:
            row = [cell.strip() for cell in cells]
            where = f"{shown}:{reader.line_num}"
            if not any(row):
                continue
            if head is None:
                head = _checked_head(row, where)
                continue
            if len(row) != len(head):
                raise UsageError(
                    "E0262", f"{len(row)} cells instead of {len(head)}", where=where, hint=_EXAMPLE
                )
            comparison = _comparison(dict(zip(head, row, strict=True)), where)
            for name in (comparison.better, comparison.worse):
                lines.setdefault(name, reader.line_num)
            found.append(comparison)
    except csv.Error as error:
        raise UsageError(
            "E0262",
            show(error),
            where=f"{shown}:{reader.line_num}",
            hint="a CSV file, cells in double quotes or none",
        ) from error
    if not found:
        raise UsageError("E0262", "there is no comparison in it", where=shown, hint=_EXAMPLE)
    known = set(points)
    if unknown := {name: line for name, line in lines.items() if name not in known}:
        raise _unknown(unknown, points, shown)
    return tuple(found)


def _checked_head(row: list[str], where: str) -> list[str]:
    plain = sorted(cell for cell in row if cell != "count")
    if len(set(row)) != len(row) or plain not in [sorted(shape) for shape in _SHAPES]:
        raise UsageError("E0262", f"the columns are {listing(row, 20)}", where=where, hint=_EXAMPLE)
    return row


def _comparison(cells: Mapping[str, str], where: str) -> Comparison:
    count = _count(cells.get("count", "1"), where)
    one, other = (cells["better"], cells["worse"]) if "better" in cells else (cells["a"], cells["b"])
    if not one or not other:
        raise UsageError("E0262", "a point's name is missing", where=where, hint=_EXAMPLE)
    if one == other:
        raise UsageError(
            "E0262",
            f"point '{show(one)}' is compared with itself",
            where=where,
            hint="a comparison names two points; leave this line out",
        )
    if "winner" not in cells:
        return Comparison(one, other, count=count)
    winner = _winner(cells["winner"], one, other, where)
    return (
        Comparison(other, one, count=count)
        if winner == other
        else Comparison(one, other, winner is None, count)
    )


def _winner(text: str, a: str, b: str, where: str) -> str | None:
    """The point that won, None for a tie; `a` and `b` may be meant as columns or as points, if that is the same."""
    columns: dict[str, str | None] = {"a": a, "b": b, "tie": None}
    meant = [columns[text]] if text in columns else []
    meant += [name for name in (a, b) if name == text and name not in meant]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise UsageError(
            "E0262",
            f"the winner '{show(text)}' is a column and another point's name",
            where=where,
            hint="use the columns better,worse",
        )
    raise UsageError(
        "E0262",
        f"the winner '{show(text)}' is none of {listing(['a', 'b', 'tie', a, b])}",
        where=where,
        hint="name the better point, or write tie",
    )


def _count(text: str, where: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,9}", text) or int(text) > MAX_COUNT:
        raise UsageError(
            "E0262",
            f"the count '{show(text)}' is not a number of comparisons",
            where=where,
            hint=f"a whole number from 1 to {MAX_COUNT}",
        )
    return int(text)


def _unknown(lines: Mapping[str, int], points: Sequence[str], shown: str) -> UsageError:
    import difflib

    details = []
    for name, line in list(lines.items())[:20]:
        near = difflib.get_close_matches(name[:100], list(points), 1)
        meant = f" (did you mean '{show(near[0])}'?)" if near else ""
        details.append(Problem(f"line {line}", f"'{show(name)}'{meant}"))
    return UsageError(
        "E0264",
        f"{len(lines)} of the names compared {'is' if len(lines) == 1 else 'are'} no measured point",
        where=shown,
        hint=f"the points are {listing(list(points), 20)}",
        details=tuple(details),
    )
