"""A sweep's result as one HTML page that needs nothing else: no network, no other file, no script to be read."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Final

from rsoup.report import page_tables as tables
from rsoup.report.page_data import embedded
from rsoup.report.page_document import Document, read
from rsoup.report.page_explorer import explorer
from rsoup.report.page_figures import MANY, PAIRS, against_lambda, fronts, triangles
from rsoup.report.page_text import by_step, colours, escape

STYLE: Final = "page.css"
SCRIPTS: Final = ("page_core.js", "page_front.js", "page_mix.js", "page_rewards.js", "page.js")


def page(document: Mapping[str, object]) -> str:
    """The whole page for a metrics document; equal documents give equal pages.

    Every text of the document is escaped and made visible. The page's policy allows its own style and script
    only, by digest, and no script that makes elements from text. Without script everything is there but what
    answers to being touched. A point may carry `samples` and `images` (`page_samples.left`).
    Raises UsageError E0241 for another schema, E0242 for a document that is not whole.
    """
    found = read(document)
    title = f"rsoup sweep: {', '.join(found.ingredients)}"
    samples = tables.samples(found)
    body = [
        f"<h1>{escape(title)}</h1>",
        tables.head(found),
        tables.hypervolume(found),
        explorer(found),
        tables.commands(found),
        _figures(found),
        samples,
        tables.points(found),
        tables.failed(found),
        tables.greedy(found),
        tables.notes(found),
    ]
    style, script = _style(), _script()
    policy = [
        "default-src 'none'", f"style-src {_digest(style)}", f"script-src {_digest(script)}",
        *(["img-src data:"] if "<img " in samples else []),
        "base-uri 'none'", "form-action 'none'", "require-trusted-types-for 'script'", "trusted-types 'none'",
    ]  # fmt: skip
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{"; ".join(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + f'\n</main>\n<script type="application/json" id="data">{embedded(found)}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def _style() -> str:
    return "\n" + _text(STYLE)


def _script() -> str:
    """All files as one script, whose names nobody outside sees."""
    return "\n'use strict';\n(() => {\n" + "\n".join(map(_text, SCRIPTS)) + "})();\n"


def _text(name: str) -> str:
    return resources.files("rsoup.report").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _figures(document: Document) -> str:
    """All pictures, in a fold that stands open where no script closes it."""
    over, more = triangles(document)
    parts = [
        _group("Front", fronts(document), _front_note(document)),
        _group("Rewards against λ", against_lambda(document)),
        _group("Over the triangle of λ", over, f"{more} more are not drawn." if more else ""),
    ]
    if not any(parts):
        return ""
    return f'<details class="shown-above" open><summary><h2>All pictures</h2></summary>{"".join(parts)}</details>'


def _group(title: str, figures: Sequence[str], note: str = "") -> str:
    drawn = [figure for figure in figures if figure]
    if not drawn:
        return ""
    said = f"<p>{note}</p>" if note else ""
    return f'<h3>{title}</h3>{said}<div class="figures">{"".join(drawn)}</div>'


def _front_note(document: Document) -> str:
    of = colours(document)
    stepwise = by_step(document)
    keys = {
        (f"step {step}" if stepwise else f"η = {scale}"): of[step, scale]
        for step, scale in document.series
        if not stepwise or step is not None
    }
    count = len(document.rewards)
    pairs = count * (count - 1) // 2 - PAIRS
    many = len(document.measured) > MANY
    kinds = (
        "full, the others pale"
        if many
        else "full, the others hollow; ingredients alone are diamonds; bars are one standard error"
    )
    parts = [f"Points that no other beats in every reward are {kinds}."]
    parts += [f'<span class="c{colour}">■</span> {escape(text)}' for text, colour in keys.items()]
    parts += [f"{pairs} more pairs of rewards are not drawn; the table has all."] if pairs > 0 else []
    return " ".join(parts)
