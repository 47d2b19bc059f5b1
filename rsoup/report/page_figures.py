"""The pictures of the page, as SVG: the front per pair of rewards, rewards against λ, the triangle of three λ."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from itertools import combinations
from typing import Final

from rsoup.errors import show
from rsoup.report.page_document import Document, Measured, Row
from rsoup.report.plot import share, tick_texts, ticks

PAIRS: Final = 6
COLOURS: Final = 8
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 460, 340, 66, 16, 18, 46
_SIDE: Final = 300


def escape(text: object, limit: int = 120) -> str:
    """Text for HTML and for attributes in double quotes, with nothing invisible or of control in it."""
    return html.escape(show(text, limit), quote=True)


def number(value: float) -> str:
    """Six significant digits, never more."""
    return f"{value:.6g}"


def measured(score: Measured) -> str:
    """`0.71 ± 0.01 (n = 3)`."""
    error = f" ± {score.error:.2g}" if score.error is not None else ""
    return f"{number(score.value)}{error}" + (f" (n = {score.n})" if score.n and score.n > 1 else "")


def label(series: tuple[int | None, str]) -> str:
    """`step 200, η = 0.5`; empty for soups without step or scale."""
    step, scale = series
    parts = [f"step {step}"] if step is not None else []
    return ", ".join(parts + ([f"η = {scale}"] if scale != "1" else []))


def fronts(document: Document) -> list[str]:
    """A figure per pair of rewards, up to PAIRS of them: points, error bars, one line per training step's front."""
    names = [name for name, _ in document.rewards]
    return [_front(document, x, y) for x, y in list(combinations(names, 2))[:PAIRS]]


def _front(document: Document, x: str, y: str) -> str:
    rows = [row for row in document.rows if x in row.select and y in row.select]
    if not rows:
        return ""
    frame = _Frame([row.select[x] for row in rows], [row.select[y] for row in rows])
    parts = []
    for step in dict.fromkeys(row.step for row in rows):
        line = sorted(
            (row.select[x].value, row.select[y].value) for row in rows if row.front and row.step == step
        )
        places = " ".join(frame.place(a, b) for a, b in line)
        parts.append(f'<polyline class="line {_colour(document, step)}" points="{places}"/>')
    for row in sorted(rows, key=lambda row: (row.front, row.expert is not None)):
        parts += frame.bars(row.select[x], row.select[y])
        parts.append(_mark(document, row, frame.at(row.select[x].value, row.select[y].value)))
    return frame.figure(parts, x, y, f"{y} against {x}")


def against_lambda(document: Document) -> list[str]:
    """With two ingredients: a figure per metric over the λ of the second; a line per step and scale."""
    if len(document.ingredients) != 2:
        return []
    figures = []
    for name, _ in (*document.rewards, *document.guards):
        rows = sorted((row for row in document.rows if name in row.select), key=lambda row: row.shares[1])
        if not rows:
            continue
        frame = _Frame(
            [Measured(float(row.shares[1]), None, None) for row in rows], [row.select[name] for row in rows]
        )
        parts = []
        for series in document.series:
            line = [(float(r.shares[1]), r.select[name].value) for r in rows if r.series == series]
            places = " ".join(frame.place(a, b) for a, b in line)
            parts.append(f'<polyline class="line {_colour(document, series[0])}" points="{places}"/>')
        for row in rows:
            at = Measured(float(row.shares[1]), None, None)
            parts += frame.bars(at, row.select[name])
            parts.append(_mark(document, row, frame.at(at.value, row.select[name].value)))
        axis = f"λ of {document.ingredients[1]}"
        figures.append(frame.figure(parts, axis, name, f"{name} against λ"))
    return figures


def triangles(document: Document) -> list[str]:
    """With three ingredients: a triangle of all λ per reward; the darker a point, the better, per step and scale."""
    if len(document.ingredients) != 3:
        return []
    figures = []
    for series in document.series:
        for name, direction in document.rewards[:PAIRS]:
            rows = [row for row in document.rows if name in row.select and row.series == series]
            if rows:
                figures.append(_triangle(document, rows, name, direction, series))
    return figures


def _triangle(
    document: Document, rows: Sequence[Row], name: str, direction: str, series: tuple[int | None, str]
) -> str:
    height = _SIDE * math.sqrt(3) / 2
    corners = [(40.0, 30 + height), (40.0 + _SIDE, 30 + height), (40.0 + _SIDE / 2, 30.0)]
    values = [row.select[name].value for row in rows]
    ends = (min(values), max(values)) if max(values) > min(values) else (min(values) - 1, max(values))
    parts = [f'<polygon class="frame" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in corners)}"/>']
    for ingredient, (x, y), dy in zip(document.ingredients, corners, (18, 18, -10), strict=True):
        parts.append(
            f'<text x="{x:.1f}" y="{y + dy:.1f}" text-anchor="middle">{escape(ingredient, 24)}</text>'
        )
    for row in rows:
        at = [
            sum(float(s) * corner[k] for s, corner in zip(row.shares, corners, strict=True)) for k in (0, 1)
        ]
        good = share(row.select[name].value, ends)
        good = good if direction == "maximise" else 1 - good
        kind = "ring" if row.front else "dot"
        parts.append(
            f'<circle class="{kind} {_colour(document, row.step)}" cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="8" '
            f'fill-opacity="{0.08 + 0.92 * good:.2f}"><title>{_title(document, row)}</title></circle>'
        )
    also = f" ({label(series)})" if label(series) else ""
    title = escape(f"{name} over λ{also}; darker is better, ringed points are on the front")
    view = f"0 0 {_SIDE + 80} {height + 60:.0f}"
    return f'<figure><svg viewBox="{view}" role="img" aria-label="{title}">{"".join(parts)}</svg><figcaption>{title}</figcaption></figure>'


def _colour(document: Document, step: int | None) -> str:
    """One colour class per training step, in ascending order, used again after COLOURS of them."""
    steps = list(dict.fromkeys(series[0] for series in document.series))
    return f"c{steps.index(step) % COLOURS}"


def _mark(document: Document, row: Row, at: tuple[float, float]) -> str:
    x, y = at
    kind = "front" if row.front else "pale"
    name = f'class="{kind} {_colour(document, row.step)}"'
    title = f"<title>{_title(document, row)}</title>"
    if row.expert is not None:
        corners = f"{x:.1f},{y - 7:.1f} {x + 7:.1f},{y:.1f} {x:.1f},{y + 7:.1f} {x - 7:.1f},{y:.1f}"
        return f'<polygon {name} points="{corners}">{title}</polygon>'
    return f'<circle {name} cx="{x:.1f}" cy="{y:.1f}" r="{5 if row.front else 4}">{title}</circle>'


def _title(document: Document, row: Row) -> str:
    """What hovering shows: λ, then every metric with its error, a line each."""
    lines = [
        "λ "
        + ", ".join(f"{name} {share}" for name, share in zip(document.ingredients, row.shown, strict=True))
    ]
    lines += [text] if (text := label(row.series)) else []
    lines += [f"{name} {measured(score)}" for name, score in row.select.items()]
    lines += [f"expert {row.expert}"] if row.expert is not None else []
    return "\n".join(escape(line, 400) for line in lines)


class _Frame:
    """Axes over all the values and their errors, and where a value lies in pixels."""

    def __init__(self, xs: Sequence[Measured], ys: Sequence[Measured]) -> None:
        self.x, self.y = ticks(_ends(xs), 5), ticks(_ends(ys), 5)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels."""
        across, up = share(x, self.x), share(y, self.y)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _TOP + (1 - up) * (_HEIGHT - _TOP - _BOTTOM)

    def place(self, x: float, y: float) -> str:
        """Pixels as text."""
        return "{:.1f},{:.1f}".format(*self.at(x, y))

    def bars(self, x: Measured, y: Measured) -> list[str]:
        """Error bars, one standard error to each side, where there are errors."""
        ends = []
        if x.error:
            ends.append((self.at(x.value - x.error, y.value), self.at(x.value + x.error, y.value)))
        if y.error:
            ends.append((self.at(x.value, y.value - y.error), self.at(x.value, y.value + y.error)))
        return [
            f'<line class="bar" x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}"/>'
            for (a, b), (c, d) in ends
        ]

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
