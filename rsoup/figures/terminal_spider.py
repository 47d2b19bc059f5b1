"""A spider map for a terminal: a strip per metric with a letter per model, since webs of text are tangles."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

from rsoup.errors import show
from rsoup.figures.normalise import LEAST, Over, Span, normalised
from rsoup.figures.series import Axis, Model

_LETTERS: Final = "ABCDEFGH"
_COLOURS: Final = tuple(f"\x1b[{code}m" for code in (34, 31, 32, 35, 33, 36, 94, 91))
_RESET: Final = "\x1b[0m"
_LEAST_WIDTH: Final = 60
_MODEL: Final = 24  # the widest name of a model


def lines(
    models: Sequence[Model],
    axes: Sequence[Axis],
    *,
    over: Over = "shown",
    width: int = 80,
    unicode: bool = True,
    colour: bool = False,
) -> list[str]:
    """At most 20 lines of `width` columns: per metric a strip from worse to better, a letter for each model.

    The letters of measured models are capitals, those of predicted ones are small. Letters that would cover
    each other stand side by side. `over` and what is refused are as in `spider`; the last lines say what the
    letters mean and how the strips are normalised. At least 60 columns are used.
    """
    spans = normalised(models, axes, over)
    width = max(width, _LEAST_WIDTH)
    arrow, down = ("→", "↓") if unicode else ("->", "v")
    names = [
        _cut(axis.name, width // 4, unicode)
        if axis.maximise
        else f"{_cut(axis.name, width // 4 - 2, unicode)} {down}"
        for axis in axes
    ]
    ends = [f" {arrow} ".join(f"{value:.4g}" for value in span.ends) for span in spans]
    head = f"{'worst' if over == 'shown' else 'base'} {arrow} best"
    left, right = max(map(columns_of, names)), max(map(len, [head, *ends]))
    strip = width - left - right - 4
    parts = [f"{' ' * left}  {_header(strip, over)}  {head}"]
    for index, (name, span, end) in enumerate(zip(names, spans, ends, strict=True)):
        values = [model.values[index] for model in models]
        drawn = _strip(models, values, span, strip, over, unicode=unicode, colour=colour)
        parts.append(f"{_padded(name, left)}  {drawn}  {end}")
    parts += ["", *_legend(models, width, unicode=unicode, colour=colour)]
    return parts + _notes(axes, over, down)


def columns_of(text: str) -> int:
    """How many columns of a terminal the text takes."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def _cut(text: str, columns: int, unicode: bool) -> str:
    """The text made safe to show, in no more columns."""
    shown, dots = show(text), "…" if unicode else "."
    if columns_of(shown) <= columns:
        return shown
    while columns_of(shown) > columns - 1:
        shown = shown[:-1]
    return shown + dots


def _padded(text: str, columns: int) -> str:
    return text + " " * (columns - columns_of(text))


def _header(strip: int, over: Over) -> str:
    """What the ends of the strips are, and where the base is."""
    if over == "shown":
        return "worst".ljust(strip - 4) + "best"
    at = _column(0.0, strip, over)
    return "worse".ljust(at) + "base".ljust(strip - 4 - at) + "best"


def _column(share: float, strip: int, over: Over) -> int:
    least = LEAST if over == "base" else 0.0
    return round((share - least) / (1 - least) * (strip - 1))


def _strip(
    models: Sequence[Model],
    values: Sequence[float],
    span: Span,
    strip: int,
    over: Over,
    *,
    unicode: bool,
    colour: bool,
) -> str:
    cells = ["─" if unicode else "-"] * strip
    shares = [span.at(value) for value in values]
    order = sorted(range(len(models)), key=lambda index: (shares[index], index))
    places = _apart([_column(shares[index], strip, over) for index in order], strip)
    for index, column in zip(order, places, strict=True):
        cells[column] = _letter(models, index, colour=colour)
    return "".join(cells)


def _apart(wanted: Sequence[int], strip: int) -> list[int]:
    """Columns near the wanted ones, in their order and no two alike."""
    places: list[int] = []
    for column in wanted:
        places.append(max(column, places[-1] + 1 if places else 0))
    limit = strip - 1
    for index in range(len(places) - 1, -1, -1):
        places[index] = min(places[index], limit)
        limit = places[index] - 1
    return places


def _letter(models: Sequence[Model], index: int, *, colour: bool) -> str:
    letter = _LETTERS[index].lower() if models[index].kind == "predicted" else _LETTERS[index]
    return f"{_COLOURS[index]}{letter}{_RESET}" if colour else letter


def _legend(models: Sequence[Model], width: int, *, unicode: bool, colour: bool) -> list[str]:
    rows, used = [""], 0
    for index, model in enumerate(models):
        also = " (predicted)" if model.kind == "predicted" else ""
        said = f" {_cut(model.name, _MODEL, unicode)}{also}"
        wide = 1 + columns_of(said)
        if used and used + 3 + wide > width:
            rows.append("")
            used = 0
        gap = "   " if used else ""
        rows[-1] += gap + _letter(models, index, colour=colour) + said
        used += len(gap) + wide
    return rows


def _notes(axes: Sequence[Axis], over: Over, down: str) -> list[str]:
    if over == "base":
        notes = [
            "each strip by itself: base at its mark, best model right;",
            "worse by more than a third of that stands at the left end",
        ]
    else:
        notes = ["each strip by itself: worst of the models left, best right"]
    return notes if all(axis.maximise for axis in axes) else [*notes, f"{down} lower is better"]
