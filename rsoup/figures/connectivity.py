"""Rewards against λ between two ingredients, with the chord: linear mode connectivity as a picture."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from rsoup.errors import show
from rsoup.figures.axes import Frame, bars, scale
from rsoup.figures.drawing import FAINT, element, escape, line, path, sheet
from rsoup.figures.palettes import BLUE, GREEN, VERMILLION
from rsoup.figures.panels import detailed, frames, heading, x_title
from rsoup.figures.series import Mark, Panel, check_marks
from rsoup.figures.shapes import Entry, bar_sample, glyph, legend, shape, stroke_sample

Gaps = dict[Mark, float]

_ULP: Final = sys.float_info.epsilon
_NOTHING: Final = 1e-9  # of the metric's range: less below the chord than this is rounding


def connectivity(panels: Sequence[Panel], first: str, second: str, *, note: str = "") -> str:
    """SVG: a panel per metric: its value over the λ of `second`, with bars of one standard error and the chord.

    A mark's x is λ; those at 0 and at 1 are the experts, and both are needed. Measured points that are worse
    than the chord at their λ are triangles, and the worst one's gap is drawn. Guard metrics say so.
    Raises ValueError without panels or points, for points that are no soup or expert, for a number that is not finite, a λ outside [0, 1], and a
    panel without exactly one measured point at either end.
    """
    if not panels:
        raise ValueError("there is no metric to draw")
    for panel in panels:
        _check(panel)
    gaps = [shortfalls(panel) for panel in panels]
    parts, top = legend(_legend(panels, gaps))
    across = scale([0.0, 1.0], 5, pad=0.04)
    found, bottom = frames(panels, across, top)
    for panel, frame, worse in zip(panels, found, gaps, strict=True):
        parts += [
            *frame.grid(),
            *heading(panel, frame, second_line=detailed(panels)),
            *_panel(panel, frame, worse),
        ]
    parts.append(x_title(f"λ of {show(second, 60)} (0 is {show(first, 60)} alone)", bottom))
    said = ["A metric is connected linearly where no soup is worse than the chord between the experts."]
    if any(gaps):
        said.append("Triangles are worse by any amount; the thick line is the largest gap of its panel.")
    names = ", ".join(show(panel.axis.name, 40) for panel in panels)
    return sheet(f"Metrics against λ: {names}", parts, bottom + 22, [*said, note])


def _check(panel: Panel) -> None:
    check_marks(panel.marks)
    if any(mark.kind in ("base", "compared") for mark in panel.marks):
        raise ValueError("a curve over λ shows soups and their two experts")
    if any(not 0 <= mark.x <= 1 for mark in panel.marks):
        raise ValueError("a λ is not in [0, 1]")
    measured = [mark.x for mark in panel.marks if mark.kind != "predicted"]
    if measured.count(0) != 1 or measured.count(1) != 1:
        raise ValueError("there is not one measured point at λ = 0 and one at λ = 1: the chord joins them")


def shortfalls(panel: Panel) -> Gaps:
    """How much worse than the chord every measured point is that is worse, in the metric's units."""
    measured = [mark for mark in panel.marks if mark.kind != "predicted"]
    low, high = (next(mark.y for mark in measured if mark.x == end) for end in (0, 1))
    values = [mark.y for mark in measured]
    rounding = 2 * _NOTHING * (max(values) / 2 - min(values) / 2) + 4 * _ULP * max(map(abs, values))
    found = {}
    for mark in measured:
        chord = low * (1 - mark.x) + high * mark.x
        gap = chord - mark.y if panel.axis.maximise else mark.y - chord
        if gap > rounding and 0 < mark.x < 1:
            found[mark] = gap
    return found


def _panel(panel: Panel, frame: Frame, gaps: Gaps) -> list[str]:
    measured = sorted((mark for mark in panel.marks if mark.kind != "predicted"), key=lambda mark: mark.x)
    guessed = sorted((mark for mark in panel.marks if mark.kind == "predicted"), key=lambda mark: mark.x)
    ends = [frame.at(mark.x, mark.y) for mark in (measured[0], measured[-1])]
    parts = [path(ends, fill="none", stroke=FAINT, stroke_width=1.3, stroke_dasharray="6 4")]
    parts.append(
        path(
            [frame.at(m.x, m.y) for m in guessed],
            fill="none",
            stroke=GREEN,
            stroke_width=1.3,
            stroke_dasharray="2.5 3",
        )
    )
    parts.append(path([frame.at(m.x, m.y) for m in measured], fill="none", stroke=BLUE, stroke_width=1.4))
    if gaps:
        worst = max(gaps, key=lambda mark: gaps[mark])
        x, y = frame.at(worst.x, worst.y)
        on_chord = frame.up(worst.y + gaps[worst] if panel.axis.maximise else worst.y - gaps[worst])
        parts.append(line(x, y, x, on_chord, VERMILLION, 2.6))
    for mark in (*guessed, *measured):
        parts += bars(frame, mark)
        tip = element(
            "title",
            escape(
                f"λ {mark.x:.6g} · {show(panel.axis.name, 60)} {mark.y:.6g}"
                + (f" ± {mark.y_error:.2g}" if mark.y_error else "")
            ),
        )
        parts.append(element("g", tip + _mark(mark, *frame.at(mark.x, mark.y), worse=mark in gaps)))
    return parts


def _mark(mark: Mark, x: float, y: float, *, worse: bool) -> str:
    if mark.kind == "predicted" or mark.x in (0, 1):
        return glyph("predicted" if mark.kind == "predicted" else "expert", x, y)
    return _below(x, y) if worse else glyph("front", x, y)


def _below(x: float, y: float) -> str:
    return shape("down", x, y, 6, fill=VERMILLION, stroke="#ffffff", stroke_width=0.7)


def _legend(panels: Sequence[Panel], gaps: Sequence[Gaps]) -> list[Entry]:
    marks = [mark for panel in panels for mark in panel.marks]
    inner = sum(mark.kind != "predicted" and 0 < mark.x < 1 for mark in marks)
    worse = sum(mark in found for panel, found in zip(panels, gaps, strict=True) for mark in panel.marks)
    entries = [(glyph("expert", 0, 0), "expert")]
    if inner > worse:
        entries.append((stroke_sample(BLUE) + glyph("front", 0, 0), "soup"))
    if worse:
        entries.append((_below(0, 0), "soup, worse than the chord"))
    if any(mark.kind == "predicted" for mark in marks):
        entries.append((glyph("predicted", 0, 0), "predicted, not measured"))
    entries.append((stroke_sample(FAINT, dash="6 4", width=1.3), "chord between the experts"))
    if any(mark.y_error or mark.x_error for mark in marks):
        entries.append((bar_sample(), "± one standard error"))
    return entries
