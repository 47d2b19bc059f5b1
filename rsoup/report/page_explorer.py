"""The interactive part of the page without its script: controls with their labels, and places to draw in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rsoup.mix import parse_number
from rsoup.report.page_data import scaling
from rsoup.report.page_document import Document
from rsoup.report.page_text import by_step, colours, escape

SPIDER_LEAST: Final = 3


def explorer(document: Document) -> str:
    """Hidden until the script shows it; nothing where no point has scores."""
    if not document.measured:
        return ""
    parts = [
        _controls(document),
        '<div class="split"><figure class="chart" id="front-figure"><svg id="front"></svg><div id="tip" class="tip" hidden></div>'
        f'<figcaption id="front-note"></figcaption></figure>{_panel(document)}</div>',
        '<p id="said" class="spoken" role="status"></p>',
        f'<div class="pickers">{_preference(document)}{_mix(document)}</div>',
        _many(document),
        _comparison(document),
    ]
    return (
        '<section id="explore" aria-labelledby="explore-title" hidden><h2 id="explore-title">Explore</h2>'
        f"{''.join(parts)}</section>"
    )


def _controls(document: Document) -> str:
    """Axes, dominated points, training steps, scales."""
    axes = _axes(document)
    x, y = ("m0", "m1") if len(document.rewards) > 1 else (f"l{len(document.ingredients) - 1}", "m0")
    hidden = sum(not row.front for row in document.measured)
    parts = [
        f'<label>across <select id="across">{_options(axes, x)}</select></label>',
        f'<label>up <select id="up">{_options(axes, y)}</select></label>',
        f'<label class="check"><input type="checkbox" id="hide"> hide dominated points ({hidden})</label>',
    ]
    of = colours(document)
    stepwise = by_step(document)
    rows = document.measured
    if len(document.steps) > 1:
        seen = [step for step in document.steps if any(row.step == step for row in rows)]
        keys = [
            ("none" if step is None else str(step), of[next(s for s in document.series if s[0] == step)])
            for step in seen
        ]
        parts.append(_filter("steps", "training step", keys))
    if len(document.scales) > 1:
        seen_scales = [scale for scale in document.scales if any(row.scale == scale for row in rows)]
        shown = [
            (scale, None if stepwise else of[next(s for s in document.series if s[1] == scale)])
            for scale in seen_scales
        ]
        parts.append(_filter("scales", "scale η", shown))
    return f'<div class="controls">{"".join(parts)}</div>'


def _axes(document: Document) -> list[tuple[str, str]]:
    """(value, text) of everything a point can be placed by: metrics, their report split, λ."""
    metrics = [name for name, _ in (*document.rewards, *document.guards)]
    found = [(f"m{k}", name) for k, name in enumerate(metrics)]
    found += [
        (f"r{k}", f"{name}, report")
        for k, name in enumerate(metrics)
        if any(name in row.report for row in document.measured)
    ]
    return found + [(f"l{k}", f"λ {name}") for k, name in enumerate(document.ingredients)]


def _options(options: Sequence[tuple[str, str]], chosen: str) -> str:
    return "".join(
        f'<option value="{value}"{" selected" if value == chosen else ""}>{escape(text)}</option>'
        for value, text in options
    )


def _filter(name: str, title: str, keys: Sequence[tuple[str, int | None]]) -> str:
    boxes = "".join(
        f'<label class="check"><input type="checkbox" value="{escape(text)}" checked>'
        f"{_swatch(colour)} {escape(text)}</label>"
        for text, colour in keys
    )
    return f'<fieldset id="{name}" class="checks"><legend>{title}</legend>{boxes}</fieldset>'


def _swatch(colour: int | None) -> str:
    return "" if colour is None else f'<span class="c{colour}" aria-hidden="true">●</span>'


def _panel(document: Document) -> str:
    """The chosen point: everything measured of it, and the command that makes it."""
    report = any(row.report for row in document.measured)
    split = '<th scope="col">report</th>' if report else ""
    return (
        '<div class="panel"><h3 id="chosen"></h3><p id="about"></p>'
        f'<table><thead><tr><th scope="col">metric</th><th scope="col">measured</th>{split}</tr></thead>'
        '<tbody id="values"></tbody></table><p id="make"><code id="command" tabindex="0"></code></p>'
        '<p><button type="button" id="copy">Copy command</button> <button type="button" id="keep">Keep to compare</button> '
        '<span id="copied" role="status"></span></p></div>'
    )


def _preference(document: Document) -> str:
    """A slider per reward, and whether rewards are normalised."""
    reference = scaling(document)
    if len(document.rewards) < 2 or reference is None:
        return ""
    names = [
        f"{name} (less is better)" if direction == "minimise" else name
        for name, direction in document.rewards
    ]
    return (
        '<fieldset id="preference"><legend>Preference μ̂</legend>'
        f"{_sliders('wish', names, 'weight of ')}"
        '<label class="check"><input type="checkbox" id="normalised" role="switch" checked> normalised rewards</label>'
        f'<p class="faint" id="normalised-note">Normalised rewards count {escape(reference.how, 2000)}.</p>'
        '<p class="faint" id="raw-note" hidden>Raw rewards, in their own units: one with larger numbers outweighs the others.</p>'
        f'<p id="wanted"></p>{_curse(document)}</fieldset>'
    )


def _curse(document: Document) -> str:
    """What to keep in mind where scores are noisy."""
    if not any(score.error for row in document.measured for score in row.select.values()):
        return ""
    quote = "the report split has the numbers to quote" if any(row.report for row in document.measured) else "evaluate it again before you quote its numbers"  # fmt: skip
    return f'<p class="faint">The best of many noisy points looks better than it is: {quote}.</p>'


def _mix(document: Document) -> str:
    """Where λ can be chosen: a slider for two ingredients, a triangle for three, a slider each for more."""
    count = len(document.ingredients)
    parts = []
    if len(document.steps) > 1:
        steps = list(dict.fromkeys(row.step for row in document.measured))
        texts = [("none" if step is None else str(step)) for step in document.steps if step in steps]
        parts.append(
            f'<label>training step <select id="mix-step">{_options([(t, t) for t in texts], texts[-1])}</select></label>'
        )
    if count == 2:
        low = min(0.0, *(float(row.shares[1]) for row in document.measured))
        high = max(1.0, *(float(row.shares[1]) for row in document.measured))
        parts.append(_slider("share", f"λ {document.ingredients[1]}", "share-0", f"{low:g}", f"{high:g}"))
    elif count == 3:
        parts.append(
            '<svg id="triangle"></svg><p class="faint">The fuller its colour, the better a point is for the preference μ̂.</p>'
        )
    elif count > 3:
        parts.append(_sliders("share", document.ingredients, "λ "))
    if len(document.scales) > 1:
        ends = [float(parse_number(row.scale)) for row in document.measured]
        low, high = min(ends), max(ends)
        parts.append(_slider("scale", "scale η", "scale-0", f"{low:g}", f"{high:g}"))
    if not parts:
        return ""
    title = "Mix λ" if count > 1 else "Scale η"
    return (
        f'<fieldset id="mix"><legend>{title}</legend>{"".join(parts)}<p id="nearest"></p>'
        '<p class="faint">Only measured points are shown; nothing between them is made up.</p></fieldset>'
    )


def _sliders(kind: str, names: Sequence[str], before: str) -> str:
    return "".join(_slider(kind, f"{before}{name}", f"{kind}-{k}") for k, name in enumerate(names))


def _slider(kind: str, text: str, name: str, low: str = "0", high: str = "1") -> str:
    return (
        f'<div class="slider"><label for="{name}">{escape(text)}</label>'
        f'<input type="range" id="{name}" class="{kind}" min="{low}" max="{high}" step="0.01"><output for="{name}"></output></div>'
    )


def _many(document: Document) -> str:
    """Parallel coordinates and a spider, for three rewards and more."""
    if len(document.rewards) < SPIDER_LEAST:
        return ""
    return (
        '<div class="figures"><figure class="chart" id="parallel-figure"><div class="wide" tabindex="0" role="region" '
        'aria-label="Parallel coordinates"><svg id="parallel"></svg></div><figcaption>Parallel coordinates: a line per '
        "point, an axis per reward over all measured points, better is higher. Click a line to choose its point.</figcaption></figure>"
        '<figure class="chart" id="spider-figure"><svg id="spider"></svg><figcaption>Spider: an axis per reward, from the worst '
        'measured value (centre) to the best (rim). <span id="spider-key"></span></figcaption></figure></div>'
    )


def _comparison(document: Document) -> str:
    """Two points side by side, and what their evaluators left."""
    left = any(row.left for row in document.measured)
    return (
        '<section id="compare" aria-labelledby="compare-title" hidden><h3 id="compare-title">Side by side</h3>'
        '<div class="wide" tabindex="0" role="region" aria-label="Side by side"><table><thead><tr><th scope="col"></th><th scope="col" id="compare-a"></th>'
        '<th scope="col" id="compare-b"></th><th scope="col">difference</th></tr></thead><tbody id="differences"></tbody></table></div>'
        '<p class="faint">A difference is the chosen point minus the kept one; its error takes the two as independent.</p>'
        '<p><button type="button" id="forget">Stop comparing</button></p></section>'
        + (
            '<section id="left" aria-labelledby="left-title"><h3 id="left-title">Samples</h3><div id="answers"></div></section>'
            if left
            else ""
        )
    )
