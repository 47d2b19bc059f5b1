"""What figures are drawn from: plain numbers with names, checked once."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rsoup.front.pareto import front

Kind = Literal["front", "dominated", "expert", "base", "compared", "predicted"]

_TWO = re.compile(r"\s*[\d./eE+-]+\s*,\s*([\d./eE+-]+)\s*")


@dataclass(frozen=True, slots=True)
class Axis:
    """A reward or guard metric: its name and whether more of it is better."""

    name: str
    maximise: bool = True


@dataclass(frozen=True, slots=True)
class Mark:
    """One point of a figure; errors are standard errors, `group` is the set a compared point belongs to.

    `front` and `dominated` are measured soups; `expert` is a point with one λ = 1; `predicted` was never
    measured and is always drawn hollow and dashed.
    """

    x: float
    y: float
    x_error: float | None = None
    y_error: float | None = None
    label: str = ""
    kind: Kind = "front"
    group: str = "compared"


@dataclass(frozen=True, slots=True)
class Band:
    """A value over x with its interval, where there is one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """One model of a spider: a value per axis, in the order of the axes."""

    name: str
    values: tuple[float, ...]
    kind: Kind = "front"


@dataclass(frozen=True, slots=True)
class Panel:
    """One metric over λ or over training steps; `verdict` is a word that is shown beside its name."""

    axis: Axis
    marks: tuple[Mark, ...]
    guard: bool = False
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """The points that were measured at one training step."""

    step: int
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """One value per ingredient (or pair of ingredients) of a layer; None where it is unknown."""

    name: str
    values: tuple[float | None, ...]


def finite(values: Iterable[float]) -> None:
    """Raise ValueError for a value that is NaN or infinite."""
    if not all(map(math.isfinite, values)):
        raise ValueError("a value is not finite")


def check_marks(marks: Sequence[Mark]) -> None:
    """Raise ValueError for no marks, a value that is not finite, or an error that is no standard error."""
    if not marks:
        raise ValueError("there is no point to draw")
    finite(value for mark in marks for value in (mark.x, mark.y))
    errors = [error for mark in marks for error in (mark.x_error, mark.y_error) if error is not None]
    finite([*x_ends(marks), *y_ends(marks)])
    if any(error < 0 for error in errors):
        raise ValueError("a standard error is negative")


def short_lambdas(labels: Sequence[str]) -> tuple[list[str], bool]:
    """`0.3,0.7` → `0.7` where every label that is not empty is of two shares; and whether it is so.

    With two ingredients the share of the second says all: it is what λ is on the axis of the paper's figures.
    """
    found = [_TWO.fullmatch(label) for label in labels if label]
    if not found or not all(found):
        return list(labels), False
    return [match.group(1) if (match := _TWO.fullmatch(label)) else "" for label in labels], True


def x_ends(marks: Iterable[Mark]) -> list[float]:
    """Every x with its error bar's ends."""
    return [end for m in marks for end in (m.x - (m.x_error or 0.0), m.x + (m.x_error or 0.0))]


def y_ends(marks: Iterable[Mark]) -> list[float]:
    """Every y with its error bar's ends."""
    return [end for m in marks for end in (m.y - (m.y_error or 0.0), m.y + (m.y_error or 0.0))]


def undominated(points: Iterable[tuple[float, float]], x: Axis, y: Axis) -> set[tuple[float, float]]:
    """The points that no other is at least as good as in both rewards and better than in one."""
    different = list(set(points))
    return {different[i] for i in front(different, (x.maximise, y.maximise))}
