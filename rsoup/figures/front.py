"""The front of two rewards: measured points, what they cover, and what they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rsoup.errors import show
from rsoup.figures.axes import Box, Frame, bars, left_of, scale
from rsoup.figures.drawing import (
    FAINT,
    INK,
    MARGIN,
    SMALL,
    WIDTH,
    area,
    element,
    escape,
    path,
    sheet,
    words,
)
from rsoup.figures.labels import Room, spread
from rsoup.figures.palettes import BLUE, GREEN, SKY
from rsoup.figures.series import (
    Axis,
    Kind,
    Mark,
    check_marks,
    finite,
    short_lambdas,
    undominated,
    x_ends,
    y_ends,
)
from rsoup.figures.shapes import (
    MOST_SETS,
    RADIUS,
    Entry,
    area_sample,
    bar_sample,
    glyph,
    legend,
    plus,
    stroke_sample,
)

Point = tuple[float, float]

_HEIGHT: Final = 400.0
_FAR: Final = 0.75  # a reference point farther from the points than this share of their range is not drawn
_CANDIDATES: Final = 300  # more labels than this never find room
_MOST_DOMINATED: Final = 40  # in a cloud of points the dominated ones have no labels
_ORDER: Final[tuple[Kind, ...]] = ("dominated", "front", "predicted", "compared", "expert", "base")
_SAID: Final[dict[Kind, str]] = {
    "expert": "expert (one λ is 1)",
    "front": "soup on the front",
    "dominated": "soup, dominated",
    "base": "base",
    "predicted": "predicted, not measured",
}


@dataclass(frozen=True, slots=True)
class _Extras:
    """What is drawn beside the points."""

    reference: Point | None
    curve: tuple[Point, ...]
    line: tuple[Point, ...]
    chord: tuple[Point, ...]
    near: bool


def front(
    marks: Sequence[Mark],
    x: Axis,
    y: Axis,
    *,
    reference: Point | None = None,
    curve: Sequence[Point] = (),
    second: str = "the second ingredient",
    note: str = "",
) -> str:
    """SVG: every measured point over two rewards, in their own units and directions.

    Experts are diamonds, the base is a cross, every compared set has a shape and colour of its own, predicted
    points are hollow and dashed. Bars are one standard error to each side. `reference` shades what the measured
    soups and experts dominate above it (their hypervolume); two experts are joined by their chord, which linear
    mode connectivity says the soups do not fall below; `curve` is a smoothed front, drawn under the points.
    Labels that find no room are left out, and their number is said; where all are of two shares of λ, only that
    of the `second` ingredient is written. `note` is a sentence for the caption.
    Raises ValueError without points, for a number that is not finite, and for more than 20 compared sets.
    """
    check_marks(marks)
    finite(value for point in (*curve, *([reference] if reference else [])) for value in point)
    if len(_groups(marks)) > MOST_SETS:
        raise ValueError(f"more than {MOST_SETS} compared sets cannot be told apart")
    experts = tuple((mark.x, mark.y) for mark in marks if mark.kind == "expert")
    chord = experts if len(experts) == 2 else ()
    near = reference is not None and _is_near(reference, marks)
    extras = _Extras(reference, tuple(curve), tuple(_measured_line(marks, x, y)), chord, near)
    parts, top = legend(_legend(marks, extras))
    frame = _frame(marks, extras, top)
    parts += [*frame.grid(), *frame.x_name(x), *frame.y_name(y)]
    parts += _under(frame, marks, extras, x, y)
    parts += _points(frame, marks, x, y)
    labels, left_out, short = _labels(frame, marks, extras, x, y)
    caption = _caption(marks, extras, second if short else None, left_out)
    title = f"Front: {show(y.name, 60)} against {show(x.name, 60)}"
    return sheet(title, [*parts, *labels], frame.box.bottom + 44, [*caption, note])


def _is_near(reference: Point, marks: Sequence[Mark]) -> bool:
    """Whether drawing the reference point leaves the points enough room."""
    for value, ends in ((reference[0], x_ends(marks)), (reference[1], y_ends(marks))):
        low, high = min(ends), max(ends)
        away = max(low / 2 - value / 2, value / 2 - high / 2)
        if away > _FAR * (high / 2 - low / 2):
            return False
    return True


def _frame(marks: Sequence[Mark], extras: _Extras, top: float) -> Frame:
    also = [*extras.curve, *([extras.reference] if extras.reference and extras.near else [])]
    across = scale([*x_ends(marks), *(point[0] for point in also)], 7)
    up = scale([*y_ends(marks), *(point[1] for point in also)], 7)
    left = MARGIN + left_of(up)
    return Frame(Box(left, top + 6, WIDTH - MARGIN - 8, top + 6 + _HEIGHT), across, up)


def _groups(marks: Sequence[Mark]) -> list[str]:
    return list(dict.fromkeys(mark.group for mark in marks if mark.kind == "compared"))


def _legend(marks: Sequence[Mark], extras: _Extras) -> list[Entry]:
    kinds = {mark.kind for mark in marks}
    entries = [(glyph(kind, 0, 0), said) for kind, said in _SAID.items() if kind in kinds]
    entries += [(glyph("compared", 0, 0, i), show(name, 60)) for i, name in enumerate(_groups(marks))]
    if any(mark.x_error or mark.y_error for mark in marks):
        entries.append((bar_sample(), "± one standard error"))
    if extras.chord:
        entries.append((stroke_sample(FAINT, dash="6 4", width=1.3), "chord between the experts"))
    if extras.curve:
        entries.append((stroke_sample(BLUE), "smoothed"))
    if extras.reference:
        entries.append((area_sample(SKY, 0.25), "hypervolume"))
        entries += [(plus(0, 0, 6, INK), "reference point")] if extras.near else []
    return entries


def _under(frame: Frame, marks: Sequence[Mark], extras: _Extras, x: Axis, y: Axis) -> list[str]:
    """What lies under the points: the area, the chord, the lines through the measured and the predicted front."""
    parts = []
    if extras.reference:
        steps = [frame.at(*corner) for corner in staircase(_soups(marks), extras.reference, x, y)]
        parts.append(area(steps, fill=SKY, fill_opacity=0.2))
        if extras.near:
            parts.append(plus(*frame.at(*extras.reference), 6, INK))
    chord = [frame.at(*point) for point in extras.chord]
    parts.append(path(chord, fill="none", stroke=FAINT, stroke_width=1.3, stroke_dasharray="6 4"))
    along = extras.curve or extras.line
    parts.append(path([frame.at(*point) for point in along], fill="none", stroke=BLUE, stroke_width=1.4))
    guess = [frame.at(*point) for point in _predicted_line(marks)]
    parts.append(path(guess, fill="none", stroke=GREEN, stroke_width=1.3, stroke_dasharray="2.5 3"))
    return parts


def _soups(marks: Sequence[Mark]) -> list[Point]:
    return [(mark.x, mark.y) for mark in marks if mark.kind in ("front", "dominated", "expert")]


def _measured_line(marks: Sequence[Mark], x: Axis, y: Axis) -> list[Point]:
    """The front's points by their x, with the experts that no measured soup or expert dominates."""
    best = undominated(_soups(marks), x, y)
    on_front = {(mark.x, mark.y) for mark in marks if mark.kind == "front"}
    experts = {(mark.x, mark.y) for mark in marks if mark.kind == "expert"}
    return sorted(on_front | (experts & best))


def _predicted_line(marks: Sequence[Mark]) -> list[Point]:
    return sorted({(mark.x, mark.y) for mark in marks if mark.kind == "predicted"})


def staircase(points: Sequence[Point], reference: Point, x: Axis, y: Axis) -> list[Point]:
    """The corners of the union of the boxes between the reference and every point that is better in both rewards.

    Its area is the points' hypervolume; no corners where no point is better.
    """
    turn_x, turn_y = (1.0 if axis.maximise else -1.0 for axis in (x, y))
    low_x, low_y = turn_x * reference[0], turn_y * reference[1]
    better = [(a, b) for a, b in undominated(points, x, y) if turn_x * a > low_x and turn_y * b > low_y]
    if not better:
        return []
    corners: list[Point] = []
    height = reference[1]
    for a, b in sorted(better, key=lambda point: -turn_x * point[0]):
        corners += [(a, height), (a, b)]
        height = b
    return [*corners, (reference[0], height), reference]


def _points(frame: Frame, marks: Sequence[Mark], x: Axis, y: Axis) -> list[str]:
    groups = _groups(marks)
    ordered = sorted(marks, key=lambda mark: _ORDER.index(mark.kind))
    parts = [bar for mark in ordered for bar in bars(frame, mark)]
    for mark in ordered:
        which = groups.index(mark.group) if mark.kind == "compared" else 0
        tip = element("title", escape(_tip(mark, x, y), 400))
        parts.append(element("g", tip + glyph(mark.kind, *frame.at(mark.x, mark.y), which)))
    return parts


def _tip(mark: Mark, x: Axis, y: Axis) -> str:
    """What hovering shows."""
    kind = show(mark.group, 60) if mark.kind == "compared" else mark.kind
    scores = [
        f"{show(axis.name, 40)} {value:.6g}" + (f" ± {error:.2g}" if error else "")
        for axis, value, error in ((x, mark.x, mark.x_error), (y, mark.y, mark.y_error))
    ]
    return " · ".join([kind, *([show(mark.label, 80)] if mark.label else []), *scores])


def _labels(
    frame: Frame, marks: Sequence[Mark], extras: _Extras, x: Axis, y: Axis
) -> tuple[list[str], int, bool]:
    """The labels that find room, how many do not, and whether they are shares of the second ingredient."""
    soups = [mark for mark in marks if mark.kind in ("front", "dominated", "expert", "predicted")]
    _, short = short_lambdas([mark.label for mark in soups])
    room = _room(frame, marks, extras)
    outward = (1 if x.maximise else -1, -1 if y.maximise else 1)
    parts: list[str] = []
    for place, mark in enumerate(_by_weight(marks)):
        said = short_lambdas([mark.label])[0][0] if short and mark in soups else mark.label
        said = show(said, 28)
        at = frame.at(mark.x, mark.y)
        found = room.place(*at, said, SMALL, RADIUS[mark.kind], outward) if place < _CANDIDATES else None
        if found is None:
            continue
        fill = INK if mark.kind in ("front", "expert", "base") else FAINT
        parts.append(words(*found, said, size=SMALL, fill=fill, halo=True))
    return parts, sum(bool(mark.label) for mark in marks) - len(parts), short


def _by_weight(marks: Sequence[Mark]) -> list[Mark]:
    """The labelled marks, those first that are looked for first; within a kind spread over the picture."""
    found = []
    for kind in ("expert", "base", "front", "compared", "predicted", "dominated"):
        those = sorted((m for m in marks if m.kind == kind and m.label), key=lambda m: (m.x, m.y, m.label))
        if kind != "dominated" or len(those) <= _MOST_DOMINATED:
            found += [those[index] for index in spread(len(those))]
    return found


def _room(frame: Frame, marks: Sequence[Mark], extras: _Extras) -> Room:
    room = Room(Box(frame.box.left + 2, frame.box.top - 4, frame.box.right + 6, frame.box.bottom - 2))
    for mark in marks:
        room.block(*frame.at(mark.x, mark.y), RADIUS[mark.kind] - 1)
        ex, ey = mark.x_error or 0.0, mark.y_error or 0.0
        room.block_path([frame.at(mark.x - ex, mark.y), frame.at(mark.x + ex, mark.y)] if ex else [])
        room.block_path([frame.at(mark.x, mark.y - ey), frame.at(mark.x, mark.y + ey)] if ey else [])
    along = extras.curve or extras.line
    for points in (along, _predicted_line(marks), extras.chord):
        room.block_path([frame.at(*point) for point in points])
    if extras.reference and extras.near:
        room.block(*frame.at(*extras.reference), 6)
    return room


def _caption(marks: Sequence[Mark], extras: _Extras, second: str | None, left_out: int) -> list[str]:
    said = []
    if second is not None:
        said.append(f"Numbers beside the points are λ of {show(second, 60)}.")
    if left_out:
        said.append(f"{left_out} of the labels {'are' if left_out > 1 else 'is'} left out for want of room.")
    if extras.reference:
        at = ", ".join(f"{value:.6g}" for value in extras.reference)
        where = "" if extras.near else ", outside the picture"
        said.append(
            f"The shaded area is what the measured soups dominate above the reference point ({at}){where}."
        )
    if extras.curve:
        said.append("The curve is smoothed; the points are as measured.")
    if any(mark.kind == "predicted" for mark in marks):
        said.append("Hollow, dashed points were predicted by a surrogate, not measured.")
    return said
