"""The pictures of the page, as SVG: the front per pair of rewards, rewards against λ, the triangle of three λ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Final

from rsoup.report.page_document import Document, Measured, Row, Series
from rsoup.report.page_text import colours, escape, label, measured, mix
from rsoup.report.plot import share, tick_texts, ticks

PAIRS: Final = 6
TRIANGLES: Final = 12
MANY: Final = 300  # beyond, points are dots without a text of their own: the table has it
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 460, 340, 66, 16, 18, 46
_SIDE: Final = 300
_SHADES: Final = 8
Place = tuple[float, float]


def fronts(document: Document) -> list[str]:
    """A figure per pair of rewards, up to PAIRS of them: points, error bars, one line per training step's front.

    No lines for more than two rewards: then the front is no curve.
    """
    names = [name for name, _ in document.rewards]
    return [_front(document, x, y) for x, y in list(combinations(names, 2))[:PAIRS]]


def _front(document: Document, x: str, y: str) -> str:
    rows = [row for row in document.rows if x in row.select and y in row.select]
    if not rows:
        return ""
    frame = _Frame([row.select[x] for row in rows], [row.select[y] for row in rows])
    parts = []
    of = colours(document)
    for step in dict.fromkeys(row.step for row in rows) if len(document.rewards) == 2 else ():
        line = [row for row in rows if row.front and row.step == step]
        places = sorted((row.select[x].value, row.select[y].value) for row in line)
        parts += frame.line(places, of[line[0].series]) if line else []
    ordered = sorted(rows, key=lambda row: (row.front, row.expert is not None))
    parts += _points(document, frame, [(row, row.select[x], row.select[y]) for row in ordered])
    return frame.figure(parts, x, y, f"{y} against {x}")


def against_lambda(document: Document) -> list[str]:
    """With two ingredients: a figure per metric over the λ of the second; a line per step and scale.

    No lines where points are MANY: they would join noise.
    """
    if len(document.ingredients) != 2:
        return []
    figures = []
    of = colours(document)
    for name, _ in (*document.rewards, *document.guards):
        rows = sorted((row for row in document.rows if name in row.select), key=lambda row: row.shares[1])
        if not rows:
            continue
        places = [Measured(float(row.shares[1]), None, None) for row in rows]
        frame = _Frame(places, [row.select[name] for row in rows])
        lines: dict[Series, list[Place]] = {series: [] for series in document.series}
        for row in rows:
            lines[row.series].append((float(row.shares[1]), row.select[name].value))
        few = len(rows) <= MANY
        parts = [part for s, line in lines.items() for part in frame.line(line, of[s]) if few]
        parts += _points(
            document, frame, [(row, at, row.select[name]) for row, at in zip(rows, places, strict=True)]
        )
        figures.append(frame.figure(parts, f"λ of {document.ingredients[1]}", name, f"{name} against λ"))
    return figures


def triangles(document: Document) -> tuple[list[str], int]:
    """With three ingredients: a triangle of all λ per reward, step and scale; and how many were too many to draw."""
    if len(document.ingredients) != 3:
        return [], 0
    found = [
        (rows, name, direction, series)
        for series in document.series
        for name, direction in document.rewards
        if (rows := [row for row in document.rows if name in row.select and row.series == series])
    ]
    return [_triangle(document, *one) for one in found[:TRIANGLES]], max(0, len(found) - TRIANGLES)


def _triangle(document: Document, rows: Sequence[Row], name: str, direction: str, series: Series) -> str:
    """The fuller the colour of a point, the better."""
    height = _SIDE * math.sqrt(3) / 2
    corners = [(40.0, 30 + height), (40.0 + _SIDE, 30 + height), (40.0 + _SIDE / 2, 30.0)]
    values = [row.select[name].value for row in rows]
    ends = (min(values), max(values)) if max(values) > min(values) else (min(values) - 1, max(values))
    parts = [f'<polygon class="frame" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in corners)}"/>']
    sides = (("start", -36, 18), ("end", 36, 18), ("middle", 0, -10))
    for ingredient, (x, y), (anchor, dx, dy) in zip(document.ingredients, corners, sides, strict=True):
        parts.append(
            f'<text x="{x + dx:.1f}" y="{y + dy:.1f}" text-anchor="{anchor}">{escape(ingredient, 24)}</text>'
        )
    radius = min(8.0, max(2.0, 130 / math.sqrt(len(rows))))
    colour = f"c{colours(document)[series]}"
    shades: dict[int, list[Place]] = {}
    for row in rows:
        x, y = (
            sum(float(s) * corner[k] for s, corner in zip(row.shares, corners, strict=True)) for k in (0, 1)
        )
        good = share(row.select[name].value, ends)
        good = good if direction == "maximise" else 1 - good
        if len(rows) > MANY:
            shades.setdefault(round(good * _SHADES), []).append((x, y))
            continue
        kind = "ring" if row.front else "dot"
        parts.append(
            f'<circle class="{kind} {colour}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" '
            f'fill-opacity="{0.08 + 0.92 * good:.2f}"><title>{_title(document, row)}</title></circle>'
        )
    for shade, places in sorted(shades.items()):
        opacity = f'stroke-opacity="{0.08 + 0.92 * shade / _SHADES:.2f}"'
        parts.append(_dots(places, colour, 2 * radius, opacity))
    also = f" ({label(series)})" if label(series) else ""
    ringed = "" if len(rows) > MANY else ", ringed points are on the front"
    title = escape(f"{name} over λ{also}; fuller is better{ringed}")
    view = f"0 0 {_SIDE + 80} {height + 60:.0f}"
    return f'<figure><svg viewBox="{view}" role="img" aria-label="{title}">{"".join(parts)}</svg><figcaption>{title}</figcaption></figure>'


def _points(document: Document, frame: _Frame, found: Sequence[tuple[Row, Measured, Measured]]) -> list[str]:
    """Error bars and a mark per point, in the order given; of many, dots alone, a path per colour."""
    of = colours(document)
    few = len(found) <= MANY
    bars = [bar for _, x, y in found for bar in frame.bars(x, y)] if few else []
    parts = [f'<path class="bar" d="{"".join(bars)}"/>'] if bars else []
    if few:
        return parts + [_mark(document, of, row, frame.at(x.value, y.value)) for row, x, y in found]
    clouds: dict[tuple[bool, int], list[Place]] = {}
    for row, x, y in found:
        clouds.setdefault((row.front, of[row.series]), []).append(frame.at(x.value, y.value))
    for (on_front, colour), places in sorted(clouds.items()):
        parts.append(_dots(places, f"c{colour}", *((5, "") if on_front else (3, 'stroke-opacity="0.5"'))))
    return parts


def _dots(places: Sequence[Place], colour: str, width: float, more: str = "") -> str:
    """Round dots as one path: lines of no length with round ends."""
    d = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in places)
    return f'<path class="cloud {colour}" stroke-width="{width:g}" {more} d="{d}"/>'


def _mark(document: Document, of: Mapping[Series, int], row: Row, at: Place) -> str:
    x, y = at
    name = f'class="{"front" if row.front else "pale"} c{of[row.series]}"'
    title = f"<title>{_title(document, row)}</title>"
    if row.expert is not None:
        corners = f"{x:.1f},{y - 7:.1f} {x + 7:.1f},{y:.1f} {x:.1f},{y + 7:.1f} {x - 7:.1f},{y:.1f}"
        return f'<polygon {name} points="{corners}">{title}</polygon>'
    return f'<circle {name} cx="{x:.1f}" cy="{y:.1f}" r="{5 if row.front else 4}">{title}</circle>'


def _title(document: Document, row: Row) -> str:
    """What hovering shows: λ, then every metric with its error, a line each."""
    lines = [f"λ {mix(document, row)}"]
    lines += [text] if (text := label(row.series)) else []
    lines += [f"{name} {measured(score)}" for name, score in row.select.items()]
    lines += [f"expert {row.expert}"] if row.expert is not None else []
    return "\n".join(escape(line, 400) for line in lines)


class _Frame:
    """Axes over all the values and their errors, and where a value lies in pixels."""

    def __init__(self, xs: Sequence[Measured], ys: Sequence[Measured]) -> None:
        self.x, self.y = ticks(_ends(xs), 5), ticks(_ends(ys), 5)

    def at(self, x: float, y: float) -> Place:
        """Pixels."""
        across, up = share(x, self.x), share(y, self.y)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _TOP + (1 - up) * (_HEIGHT - _TOP - _BOTTOM)

    def line(self, values: Sequence[Place], colour: int) -> list[str]:
        """The values joined; nothing where there are fewer than two."""
        places = " ".join("{:.1f},{:.1f}".format(*self.at(*value)) for value in values)
        return [f'<polyline class="line c{colour}" points="{places}"/>'] if len(values) > 1 else []

    def bars(self, x: Measured, y: Measured) -> list[str]:
        """Error bars as pieces of a path, one standard error to each side, where there are errors."""
        ends = []
        if x.error:
            ends.append((self.at(x.value - x.error, y.value), self.at(x.value + x.error, y.value)))
        if y.error:
            ends.append((self.at(x.value, y.value - y.error), self.at(x.value, y.value + y.error)))
        return [f"M{a:.1f} {b:.1f}L{c:.1f} {d:.1f}" for (a, b), (c, d) in ends]

    def figure(self, parts: Sequence[str], x_name: str, y_name: str, caption: str) -> str:
        """The figure with axes, ticks and names around `parts`."""
        low, right, bottom = _LEFT, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
        axes = [f'<rect class="frame" x="{low}" y="{_TOP}" width="{right - low}" height="{bottom - _TOP}"/>']
        for value, text in zip(self.x, tick_texts(self.x), strict=True):
            x, _ = self.at(value, self.y[0])
            axes.append(f'<line class="grid" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}"/>')
            axes.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{text}</text>')
        for value, text in zip(self.y, tick_texts(self.y), strict=True):
            _, y = self.at(self.x[0], value)
            axes.append(f'<line class="grid" x1="{low}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
            axes.append(f'<text x="{low - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
        middle = (_TOP + bottom) / 2
        axes.append(
            f'<text x="{(low + right) / 2:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x_name, 40)}</text>'
        )
        axes.append(
            f'<text transform="translate(14 {middle:.1f}) rotate(-90)" text-anchor="middle">{escape(y_name, 40)}</text>'
        )
        title = escape(caption)
        inner = "".join([*axes, *parts])
        return f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}">{inner}</svg><figcaption>{title}</figcaption></figure>'


def _ends(scores: Sequence[Measured]) -> list[float]:
    return [end for s in scores for end in (s.value - (s.error or 0.0), s.value + (s.error or 0.0))]
