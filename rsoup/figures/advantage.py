"""The advantage of a soup over M trainings of multi-objective RL, with its interval and the line of no advantage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rsoup.errors import show
from rsoup.figures.axes import Box, Frame, Scale, left_of, scale
from rsoup.figures.drawing import (
    FAINT,
    INK,
    MARGIN,
    SMALL,
    WIDTH,
    area,
    element,
    escape,
    fit,
    line,
    path,
    sheet,
    words,
)
from rsoup.figures.palettes import BLUE
from rsoup.figures.series import Band, finite
from rsoup.figures.shapes import Entry, area_sample, glyph, legend, stroke_sample

_HEIGHT: Final = 300.0
_RIGHT: Final = 110.0


def advantage(
    bands: Sequence[Band],
    *,
    what: str = "expected reward",
    over: str = "MORL",
    interval: str = "95 % interval",
    worth: float | None = None,
    note: str = "",
) -> str:
    """SVG: the soups' `what` minus that of M trainings of `over`, over M, with the interval as a band and zero.

    Above zero the soups are better. `worth` is the M with as much as the soups, marked where it is given.
    Raises ValueError without bands, for a number that is not finite, two bands of one M, and an interval that
    does not hold its value.
    """
    _check(bands, worth)
    ordered = sorted(bands, key=lambda band: band.x)
    name = f"advantage over {show(over, 40)}"
    whole = [band for band in ordered if band.low is not None and band.high is not None]
    parts, top = legend(_legend(name, show(interval, 40), worth, banded=bool(whole)))
    up = scale(
        [0.0, *(value for b in ordered for value in (b.y, b.low, b.high) if value is not None)], 6, pad=0.1
    )
    box = Box(MARGIN + left_of(up), top + 6, WIDTH - _RIGHT, top + 6 + _HEIGHT)
    frame = Frame(box, _trainings(ordered, worth), up)
    parts += [
        *frame.grid(),
        *frame.x_name(f"M, trainings of {show(over, 40)}"),
        *frame.y_name(f"advantage in {show(what, 60)}"),
    ]
    parts += _band(frame, whole)
    zero = frame.up(0.0)
    parts.append(line(box.left, zero, box.right, zero, INK, 1.2))
    for y, said in ((zero - 7, "soups better ↑"), (zero + 16, f"{fit(over, SMALL, _RIGHT - 60)} better ↓")):
        parts.append(words(box.right + 6, y, said, size=SMALL, fill=FAINT))
    if worth is not None:
        parts.append(line(frame.across(worth), box.top, frame.across(worth), box.bottom, FAINT, 1.3, "6 4"))
    parts.append(path([frame.at(b.x, b.y) for b in ordered], fill="none", stroke=BLUE, stroke_width=1.6))
    for band in ordered:
        tip = f"M = {band.x:g}: {band.y:.6g}" + (
            f" [{band.low:.6g}, {band.high:.6g}]" if band in whole else ""
        )
        parts.append(element("g", element("title", escape(tip)) + glyph("front", *frame.at(band.x, band.y))))
    said = (
        f"The advantage is the {show(what, 60)} of the soups minus that of {show(over, 40)} with M trainings."
    )
    return sheet(
        f"{name[0].upper()}{name[1:]} by its number of trainings", parts, box.bottom + 44, [said, note]
    )


def _check(bands: Sequence[Band], worth: float | None) -> None:
    if not bands:
        raise ValueError("there is no M to draw")
    finite(value for b in bands for value in (b.x, b.y, b.low, b.high) if value is not None)
    finite([] if worth is None else [worth])
    if len({band.x for band in bands}) < len(bands):
        raise ValueError("one M has two values")
    if any((b.low is not None and b.low > b.y) or (b.high is not None and b.high < b.y) for b in bands):
        raise ValueError("an interval does not hold its value")


def _trainings(bands: Sequence[Band], worth: float | None) -> Scale:
    """The x scale; its ticks are the M themselves where they are few whole numbers."""
    values = [band.x for band in bands]
    made = scale([*values, *([] if worth is None else [worth])], 9)
    if len(values) < 2 or len(values) > 16 or any(value != int(value) for value in values):
        return made
    return Scale(made.low, made.high, tuple(values), tuple(str(int(value)) for value in values))


def _band(frame: Frame, bands: Sequence[Band]) -> list[str]:
    """The interval as an area where consecutive M have one, and as bars for the caps of each."""
    upper = [frame.at(b.x, b.high) for b in bands if b.high is not None]
    lower = [frame.at(b.x, b.low) for b in bands if b.low is not None]
    parts = [area([*upper, *reversed(lower)], fill=BLUE, fill_opacity=0.15)]
    parts += [line(x, a, x, b, BLUE, 0.8) for (x, a), (_, b) in zip(upper, lower, strict=True)]
    return parts


def _legend(name: str, interval: str, worth: float | None, *, banded: bool) -> list[Entry]:
    entries = [(stroke_sample(BLUE) + glyph("front", 0, 0), name)]
    if banded:
        entries.append((area_sample(BLUE, 0.2), interval))
    if worth is not None:
        entries.append(
            (stroke_sample(FAINT, dash="6 4", width=1.3), f"the soups are worth {worth:.3g} trainings")
        )
    return entries
