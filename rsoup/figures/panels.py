"""Small multiples: frames in rows and columns, each with the name of its metric above it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from rsoup.figures.axes import Box, Frame, Scale, left_of, scale
from rsoup.figures.drawing import FAINT, MARGIN, PLAIN, SMALL, WIDTH, fit, width_of, words
from rsoup.figures.series import Panel, y_ends

COLUMNS: Final = 3
_TITLE, _DETAIL, _GAP, _BELOW = 26.0, 15.0, 18.0, 28.0
_BOLD: Final = 1.15  # how much wider bold words are


def frames(panels: Sequence[Panel], x: Scale, top: float) -> tuple[list[Frame], float]:
    """A frame per panel over one x scale, at most three in a row, and where the last row's numbers end."""
    columns = min(COLUMNS, len(panels))
    wide = (WIDTH - 2 * MARGIN - _GAP * (columns - 1)) / columns
    tall = {1: 300.0, 2: 230.0}.get(columns, 175.0)
    title = _TITLE + (_DETAIL if detailed(panels) else 0.0)
    found = []
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        y = scale(y_ends(panel.marks), max(4, round(tall / 35)))
        left = MARGIN + column * (wide + _GAP)
        upper = top + row * (title + tall + _BELOW) + title
        box = Box(left + left_of(y, name=False), upper, left + wide - 4, upper + tall)
        found.append(Frame(box, x, y))
    return found, top + math.ceil(len(panels) / columns) * (title + tall + _BELOW)


def detailed(panels: Sequence[Panel]) -> bool:
    """Whether a panel has more to say than its name, so that all have a second line."""
    return any(map(_detail, panels))


def _detail(panel: Panel) -> str:
    return ", ".join(
        [*(["guard"] if panel.guard else []), *([] if panel.axis.maximise else ["lower is better"])]
    )


def heading(panel: Panel, frame: Frame, *, second_line: bool) -> list[str]:
    """The metric's name over its frame with the verdict at the right; that it is a guard or minimised below it."""
    left, right, y = frame.box.left - left_of(frame.y, name=False), frame.box.right, frame.box.top - 10
    verdict = fit(panel.verdict, SMALL, 0.5 * (right - left))
    room = right - left - (width_of(verdict, SMALL) + 10 if verdict else 0)
    detail = _detail(panel)
    upper = y - (_DETAIL if second_line else 0.0)
    parts = [words(left, upper, fit(panel.axis.name, PLAIN, room / _BOLD), bold=True)]
    parts += [words(left, y, detail, size=SMALL, fill=FAINT)] if detail else []
    return [*parts, words(right, upper, verdict, size=SMALL, anchor="end")] if verdict else parts


def x_title(said: str, bottom: float) -> str:
    """What the x axes of all panels are, once, under them."""
    return words(WIDTH / 2, bottom + 12, fit(said, PLAIN, WIDTH - 2 * MARGIN), anchor="middle")
