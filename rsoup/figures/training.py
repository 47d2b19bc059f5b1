"""Fronts over the course of fine-tuning, and measures of them against the training step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from rsoup.errors import show
from rsoup.figures.axes import Box, Frame, Scale, bars, left_of, scale
from rsoup.figures.drawing import (
    INK,
    MARGIN,
    PAPER,
    PLAIN,
    WIDTH,
    element,
    escape,
    path,
    sheet,
    width_of,
    words,
)
from rsoup.figures.palettes import BLUE, ramp
from rsoup.figures.panels import detailed, frames, heading, x_title
from rsoup.figures.series import Axis, Mark, Panel, Step, check_marks, undominated, x_ends, y_ends
from rsoup.figures.shapes import Entry, bar_sample, cross, glyph, legend, shape, stroke_sample

_HEIGHT: Final = 400.0
_EACH: Final = 8  # more steps than this are a colour bar in the legend, not an entry each
_LOG: Final = 8.0  # steps that span more than this factor are drawn on a logarithmic axis


def fronts(steps: Sequence[Step], x: Axis, y: Axis, *, note: str = "") -> str:
    """SVG: one front per training step over two rewards, coloured from light to dark by the order of the steps.

    Experts are diamonds, the base is a cross; dominated soups are small and on no line; predicted marks are
    refused. `note` is a sentence for the caption. Raises ValueError without steps or points, for a step that
    is there twice, and for a number that is not finite.
    """
    marks = [mark for step in steps for mark in step.marks]
    check_marks(marks)
    if len({step.step for step in steps}) < len(steps):
        raise ValueError("a step is there twice")
    if any(mark.kind in ("predicted", "compared") for mark in marks):
        raise ValueError("a front along training shows measured soups, experts and the base")
    ordered = sorted((step for step in steps if step.marks), key=lambda step: step.step)
    colours = [ramp(index / max(1, len(ordered) - 1)) for index in range(len(ordered))]
    parts, top = legend(_legend(ordered, colours))
    if len(ordered) > _EACH:
        bar, top = _colour_bar(ordered, top)
        parts += bar
    up = scale(y_ends(marks), 7)
    frame = Frame(
        Box(MARGIN + left_of(up), top + 6, WIDTH - MARGIN - 8, top + 6 + _HEIGHT), scale(x_ends(marks), 7), up
    )
    parts += [*frame.grid(), *frame.x_name(x), *frame.y_name(y)]
    for step, colour in zip(ordered, colours, strict=True):
        parts += _front(step, colour, frame, x, y)
    said = "Later steps are darker; a line joins the points of one step that no other of it dominates."
    return sheet(
        f"Fronts along training: {show(y.name, 60)} against {show(x.name, 60)}",
        parts,
        frame.box.bottom + 44,
        [said, note],
    )


def _front(step: Step, colour: str, frame: Frame, x: Axis, y: Axis) -> list[str]:
    best = undominated(((m.x, m.y) for m in step.marks if m.kind != "base"), x, y)
    line = sorted({(m.x, m.y) for m in step.marks if m.kind == "front"} | (best & _experts(step)))
    parts = [path([frame.at(*point) for point in line], fill="none", stroke=colour, stroke_width=1.6)]
    for mark in step.marks:
        parts += bars(frame, mark)
    for mark in step.marks:
        label = f" · {show(mark.label, 60)}" if mark.label else ""
        tip = f"step {step.step} · {mark.kind}{label} · {show(x.name, 40)} {mark.x:.6g} · {show(y.name, 40)} {mark.y:.6g}"
        parts.append(
            element("g", element("title", escape(tip, 400)) + _mark(mark, colour, *frame.at(mark.x, mark.y)))
        )
    return parts


def _experts(step: Step) -> set[tuple[float, float]]:
    return {(mark.x, mark.y) for mark in step.marks if mark.kind == "expert"}


def _mark(mark: Mark, colour: str, x: float, y: float) -> str:
    if mark.kind == "base":
        return cross(x, y, 6, INK)
    if mark.kind == "expert":
        return shape("diamond", x, y, 6.4, fill=colour, stroke=INK, stroke_width=0.9)
    if mark.kind == "dominated":
        return shape("circle", x, y, 2.8, fill=colour, fill_opacity=0.5)
    return shape("circle", x, y, 4.2, fill=colour, stroke=PAPER, stroke_width=0.7)


def _legend(steps: Sequence[Step], colours: Sequence[str]) -> list[Entry]:
    marks = [mark for step in steps for mark in step.marks]
    kinds = {mark.kind for mark in marks}
    entries = []
    if len(steps) <= _EACH:
        for step, colour in zip(steps, colours, strict=True):
            sample = stroke_sample(colour) + shape("circle", 0, 0, 4.2, fill=colour)
            entries.append((sample, f"step {step.step}"))
    shown = {"expert": "expert", "dominated": "dominated", "base": "base"}
    for kind, said in shown.items():
        if kind in kinds:
            sample_mark = Mark(
                0, 0, kind="expert" if kind == "expert" else "base" if kind == "base" else "dominated"
            )
            entries.append((_mark(sample_mark, "#ffffff" if kind == "expert" else ramp(0.5), 0, 0), said))
    if any(mark.x_error or mark.y_error for mark in marks):
        entries.append((bar_sample(), "± one standard error"))
    return entries


def _colour_bar(steps: Sequence[Step], top: float) -> tuple[list[str], float]:
    """The ramp from the first to the last step, in the order of the steps."""
    parts = [words(MARGIN, top + 12, f"step {steps[0].step}")]
    left, wide = MARGIN + width_of(f"step {steps[0].step}", PLAIN) + 10, 240.0 / len(steps)
    for index in range(len(steps)):
        colour = ramp(index / (len(steps) - 1))
        parts.append(
            element("rect", x=left + index * wide, y=top + 2, width=wide + 0.5, height=12, fill=colour)
        )
    parts.append(words(left + 250, top + 12, f"step {steps[-1].step}"))
    return parts, top + 20


def measures(panels: Sequence[Panel], *, note: str = "") -> str:
    """SVG: a panel per measure (hypervolume, gap to the chord, distance from the base) over the training step.

    A mark's x is its step. Steps that are all positive and span more than a factor of 8 are on a logarithmic
    axis, which the caption says. Raises ValueError without panels or points and for a number that is not finite.
    """
    if not panels:
        raise ValueError("there is no measure to draw")
    for panel in panels:
        check_marks(panel.marks)
        if any(mark.kind == "predicted" for mark in panel.marks):
            raise ValueError("measures along training are measured, never predicted")
    steps = sorted({mark.x for panel in panels for mark in panel.marks})
    logarithmic = steps[0] > 0 and steps[-1] / steps[0] > _LOG
    turned = [_turned(panel) if logarithmic else panel for panel in panels]
    parts, top = legend(
        [(bar_sample(), "± one standard error")] if any(m.y_error for p in panels for m in p.marks) else []
    )
    found, bottom = frames(turned, _steps(steps, logarithmic), top)
    for panel, frame in zip(turned, found, strict=True):
        ordered = sorted(panel.marks, key=lambda mark: mark.x)
        parts += [*frame.grid(), *heading(panel, frame, second_line=detailed(panels))]
        parts.append(path([frame.at(m.x, m.y) for m in ordered], fill="none", stroke=BLUE, stroke_width=1.5))
        for mark in ordered:
            parts += bars(frame, mark)
            parts.append(glyph("front", *frame.at(mark.x, mark.y)))
    parts.append(x_title("training step", bottom))
    names = ", ".join(show(panel.axis.name, 40) for panel in panels)
    said = ["The axis of the steps is logarithmic."] if logarithmic else []
    return sheet(f"Against the training step: {names}", parts, bottom + 22, [*said, note])


def _turned(panel: Panel) -> Panel:
    marks = tuple(Mark(math.log2(m.x), m.y, None, m.y_error, m.label, m.kind) for m in panel.marks)
    return Panel(panel.axis, marks, panel.guard, panel.verdict)


def _steps(steps: Sequence[float], logarithmic: bool) -> Scale:
    """The x scale; its ticks are the steps that were measured, where they are few."""
    places = [math.log2(step) for step in steps] if logarithmic else list(steps)
    made = scale(places, 5)
    if not logarithmic and (len(steps) > 12 or len(steps) < 2):
        return made
    every = max(1, math.ceil(len(steps) / 12))
    return Scale(made.low, made.high, tuple(places[::every]), tuple(f"{step:g}" for step in steps[::every]))
