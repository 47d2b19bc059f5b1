"""Axes of a figure: where a value lies in pixels, ticks inside the range, names, the direction of improvement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from rsoup.errors import show
from rsoup.figures.drawing import FAINT, INK, LARGE, RULE, SMALL, fit, line, width_of, words
from rsoup.figures.series import Axis, Mark
from rsoup.report.plot import share, tick_texts, ticks

LOWER: Final = " (lower is better)"
_PAD: Final = 0.06
_CAP: Final = 3.0
_MOST: Final = 1e300  # as where ticks end


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """Pixels."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Pixels."""
        return self.bottom - self.top


@dataclass(frozen=True, slots=True)
class Scale:
    """A range of values, and ticks inside it."""

    low: float
    high: float
    ticks: tuple[float, ...]
    texts: tuple[str, ...]

    def at(self, value: float) -> float:
        """0 at `low`, 1 at `high`; what lies outside is at the edge."""
        return share(value, (self.low, self.high))


def scale(values: Sequence[float], about: int, *, pad: float = _PAD) -> Scale:
    """A range a little wider than the values, with some `about` round ticks in it."""
    round_ones = ticks(values, about)
    low, high = (min(_MOST, max(-_MOST, value)) for value in (min(values), max(values)))
    room = (high / 2 - low / 2) * 2 * pad
    low, high = low - room, high + room
    inside = [tick for tick in round_ones if low <= tick <= high]
    if len(inside) < 2:
        inside, low, high = round_ones, round_ones[0], round_ones[-1]
    return Scale(low, high, tuple(inside), tuple(text.replace("-", "−") for text in tick_texts(inside)))


def thinned(centres: Sequence[float], widths: Sequence[float], gap: float = 8.0) -> int:
    """The least n for which every n-th text has room beside the next."""
    for every in range(1, len(centres)):
        kept = list(zip(centres, widths, strict=True))[::every]
        ends = pairwise(kept)
        if all(abs(a - b) >= (wide + next_wide) / 2 + gap for (a, wide), (b, next_wide) in ends):
            return every
    return max(1, len(centres))


@dataclass(frozen=True, slots=True)
class Frame:
    """Two scales over a rectangle."""

    box: Box
    x: Scale
    y: Scale

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels."""
        return self.across(x), self.box.bottom - self.y.at(y) * self.box.height

    def across(self, x: float) -> float:
        """The x in pixels."""
        return self.box.left + self.x.at(x) * self.box.width

    def up(self, y: float) -> float:
        """The y in pixels."""
        return self.at(self.x.low, y)[1]

    def grid(self, *, x_texts: bool = True) -> list[str]:
        """Pale lines at the ticks with their numbers, and the two axes."""
        box, parts = self.box, []
        for value, text in zip(self.y.ticks, self.y.texts, strict=True):
            y = self.up(value)
            parts.append(line(box.left, y, box.right, y, RULE))
            parts.append(words(box.left - 7, y + 4, text, size=SMALL, anchor="end"))
        places = [self.across(value) for value in self.x.ticks]
        every = thinned(places, [width_of(text, SMALL) for text in self.x.texts])
        for x, text in list(zip(places, self.x.texts, strict=True))[::every]:
            parts.append(line(x, box.top, x, box.bottom, RULE))
            if x_texts:
                parts.append(line(x, box.bottom, x, box.bottom + 4, INK))
                parts.append(words(x, box.bottom + 17, text, size=SMALL, anchor="middle"))
        parts.append(line(box.left, box.top, box.left, box.bottom, INK))
        parts.append(line(box.left, box.bottom, box.right, box.bottom, INK))
        return parts

    def x_name(self, axis: Axis | str) -> list[str]:
        """The name under the axis; for a metric with the direction of improvement at the axis's end."""
        box = self.box
        y, middle = box.bottom + 37, (box.left + box.right) / 2
        if isinstance(axis, str):
            return [_plain(middle, y, axis, box.width, 0.0)]
        name = words(middle, y, named(axis, LARGE, box.width - 150), size=LARGE, anchor="middle")
        if axis.maximise:
            return [name, words(box.right, y, "better →", size=SMALL, anchor="end", fill=FAINT)]
        return [name, words(box.left, y, "← better", size=SMALL, fill=FAINT)]

    def y_name(self, axis: Axis | str) -> list[str]:
        """The name beside the axis, turned; for a metric with the direction of improvement at the axis's end."""
        box = self.box
        x, middle = y_name_at(self.y, box.left), (box.top + box.bottom) / 2
        if isinstance(axis, str):
            return [_plain(x, middle, axis, box.height, -90.0)]
        name = words(x, middle, named(axis, LARGE, box.height - 150), size=LARGE, anchor="middle", turned=-90)
        if axis.maximise:
            return [name, words(x, box.top, "better →", size=SMALL, anchor="end", fill=FAINT, turned=-90)]
        return [name, words(x, box.bottom, "← better", size=SMALL, fill=FAINT, turned=-90)]


def _plain(x: float, y: float, said: str, room: float, turned: float) -> str:
    """A name that is no metric's, smaller where it would not fit."""
    size = LARGE if width_of(show(said), LARGE) <= room else SMALL
    return words(x, y, fit(said, size, room), size=size, anchor="middle", turned=turned)


def named(axis: Axis, size: float, width: float) -> str:
    """The axis's name cut to `width`, with `(lower is better)` where it is minimised."""
    also = "" if axis.maximise else LOWER
    return fit(axis.name, size, width - width_of(also, size)) + also


def left_of(y: Scale, *, name: bool = True) -> float:
    """How much room the y axis needs to its left."""
    return max(width_of(text, SMALL) for text in y.texts) + 12 + (24 if name else 0)


def y_name_at(y: Scale, left: float) -> float:
    """Where the baseline of the turned name is."""
    return left - left_of(y, name=False) - 8


def bars(frame: Frame, mark: Mark) -> list[str]:
    """Error bars, one standard error to each side, with caps; dashed for what is predicted."""
    dash = "2 1.6" if mark.kind == "predicted" else ""
    parts = []
    if mark.x_error:
        (a, y), (b, _) = frame.at(mark.x - mark.x_error, mark.y), frame.at(mark.x + mark.x_error, mark.y)
        parts += [line(a, y, b, y, FAINT, 1, dash), *(line(x, y - _CAP, x, y + _CAP, FAINT) for x in (a, b))]
    if mark.y_error:
        (x, a), (_, b) = frame.at(mark.x, mark.y - mark.y_error), frame.at(mark.x, mark.y + mark.y_error)
        parts += [line(x, a, x, b, FAINT, 1, dash), *(line(x - _CAP, y, x + _CAP, y, FAINT) for y in (a, b))]
    return parts
