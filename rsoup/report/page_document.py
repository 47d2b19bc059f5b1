"""The metrics document of a sweep, read for the page: every part checked, every text still as it was."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from rsoup.errors import UsageError, show
from rsoup.mix import parse_number
from rsoup.report.page_samples import Left, left

SCHEMA: Final = "rsoup-metrics/1"
Series = tuple[int | None, str]  # training step and scale


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric of one point: its value, its standard error and how many evaluations it comes from."""

    value: float
    error: float | None
    n: int | None


@dataclass(frozen=True, slots=True)
class Row:
    """One point; `shares` are its λ in the order of the ingredients, `shown` the same as they were written."""

    name: str
    shares: tuple[Fraction, ...]
    shown: tuple[str, ...]
    scale: str
    step: int | None
    status: str
    select: Mapping[str, Measured]
    report: Mapping[str, Measured]
    front: bool
    expert: str | None
    failure: str | None
    seconds: float | None
    command: str | None
    origin: str
    left: Left

    @property
    def series(self) -> Series:
        """What it shares a line with: points of one training step and one scale."""
        return self.step, self.scale


@dataclass(frozen=True, slots=True)
class Document:
    """A whole metrics document; `rewards` and `guards` are (name, direction) in its order."""

    ingredients: tuple[str, ...]
    base: str | None
    method: str
    evaluators: tuple[str, ...]
    rewards: tuple[tuple[str, str], ...]
    guards: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    hypervolume: tuple[float, tuple[tuple[str, float], ...], str] | None
    greedy: Mapping[str, object] | None
    notes: tuple[str, ...]

    @property
    def measured(self) -> list[Row]:
        """The points that have scores; their places here are their numbers in the page."""
        return [row for row in self.rows if row.select]

    @property
    def series(self) -> list[Series]:
        """Every (training step, scale) there is, steps ascending, in the order of the points otherwise."""
        found = list(dict.fromkeys(row.series for row in self.rows))
        return sorted(found, key=lambda key: (key[0] is not None, key[0] or 0))

    @property
    def steps(self) -> list[int | None]:
        """Every training step, ascending."""
        return list(dict.fromkeys(step for step, _ in self.series))

    @property
    def scales(self) -> list[str]:
        """Every scale, ascending."""
        return sorted({row.scale for row in self.rows}, key=parse_number)


def read(document: Mapping[str, object]) -> Document:
    """The document as it is meant.

    Raises UsageError E0241 for another schema, E0242 for a part that is missing or is not what it should be.
    """
    if document.get("schema") != SCHEMA:
        raise UsageError(
            "E0241",
            f"this is not a document of schema {SCHEMA} but of '{show(document.get('schema'))}'",
            hint="take the metrics.json of a sweep that this version of rsoup can read, or run the sweep again",
        )
    try:
        return _document(document)
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UsageError(
            "E0242",
            f"the metrics document is not whole: {show(what)}",
            hint="run the same `rsoup sweep` again: it writes metrics.json anew from its ledger",
        ) from None


def _document(document: Mapping[str, object]) -> Document:
    ingredients = _texts(document["ingredients"])
    rewards: list[tuple[str, str]] = []
    guards: list[tuple[str, str]] = []
    for name, metric in _table(document["metrics"]).items():
        fields = _table(metric)
        direction = str(fields["direction"])
        if direction not in ("maximise", "minimise"):
            raise ValueError(f"direction {direction}")
        (guards if fields["guard"] else rewards).append((name, direction))
    hypervolume = None
    if document.get("hypervolume") is not None:
        fields = _table(document["hypervolume"])
        reference = tuple((name, _number(value)) for name, value in _table(fields["reference"]).items())
        hypervolume = (_number(fields["value"]), reference, str(fields["how"]))
    greedy = document.get("greedy")
    return Document(
        ingredients,
        _text(document.get("base")),
        str(document["method"]),
        _texts(document["evaluators"]),
        tuple(rewards),
        tuple(guards),
        tuple(_row(_table(point), ingredients) for point in _list(document["points"])),
        hypervolume,
        None if greedy is None else _table(greedy),
        _texts(document.get("notes") or []),
    )


def _row(point: Mapping[str, object], ingredients: tuple[str, ...]) -> Row:
    shares = _table(point["lambda"])
    shown = tuple(str(shares[name]) for name in ingredients)
    step, seconds = point.get("step"), point.get("seconds")
    return Row(
        str(point["point"]),
        tuple(map(parse_number, shown)),
        shown,
        _scale(point.get("scale")),
        None if step is None else int(_number(step)),
        str(point["status"]),
        _scores(point.get("select")),
        _scores(point.get("report")),
        bool(point.get("front")),
        _text(point.get("expert")),
        _text(point.get("failure")),
        None if seconds is None else _number(seconds),
        _text(point.get("command")),
        str(point.get("origin") or ""),
        left(point),
    )


def _scale(value: object) -> str:
    """The scale as it is written; a number, or it cannot be put in order."""
    text = str(value or "1")
    parse_number(text)
    return text


def _scores(scores: object) -> dict[str, Measured]:
    found = {}
    for name, score in _table(scores or {}).items():
        fields = _table(score)
        error, n = fields.get("error"), fields.get("n")
        found[name] = Measured(
            _number(fields["value"]),
            None if error is None else _number(error),
            None if n is None else int(_number(n)),
        )
    return found


def _table(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError(f"'{show(value, 40)}' is not a table")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"'{show(value, 40)}' is not a list")
    return list(value)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, _list(value)))


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"'{show(value, 40)}' is not a finite number")
    return float(value)
