"""A sweep's result as one HTML page that needs nothing else: no network, no other file, no script to be read."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence

from rsoup.report.page_document import Document, Measured, Row, read
from rsoup.report.page_figures import (
    PAIRS,
    against_lambda,
    escape,
    fronts,
    label,
    measured,
    number,
    triangles,
)
from rsoup.report.page_style import SCRIPT, STYLE

_LONG = 4096
Cell = tuple[str, str]  # HTML, and the text or number it is sorted by


def page(document: Mapping[str, object]) -> str:
    """The whole page for a metrics document; equal documents give equal pages.

    Every text of the document is escaped and made visible, and the page's policy allows its own style and
    script only, by digest. Without script everything is there but sorting.
    Raises UsageError E0241 for another schema, E0242 for a document that is not whole.
    """
    found = read(document)
    title = f"rsoup sweep: {', '.join(found.ingredients)}"
    body = [
        f"<h1>{escape(title)}</h1>",
        _head(found),
        _hypervolume(found),
        _figures("Front", fronts(found), _front_note(found)),
        _figures("Rewards against λ", against_lambda(found)),
        _figures("Over the triangle of λ", triangles(found)),
        _commands(found),
        _points(found),
        _failed(found),
        _greedy(found),
        _notes(found),
    ]
    policy = f"default-src 'none'; style-src {_digest(STYLE)}; script-src {_digest(SCRIPT)}; base-uri 'none'; form-action 'none'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + f"\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _head(document: Document) -> str:
    """What was swept, in a list of terms."""
    counts = {s: sum(row.status == s for row in document.rows) for s in ("done", "failed", "pending")}
    terms = [
        ("ingredients", ", ".join(map(escape, document.ingredients))),
        ("base", escape(document.base) if document.base is not None else "none"),
        ("method", escape(document.method)),
        *(("evaluator", f"<code>{escape(text, _LONG)}</code>") for text in document.evaluators),
        ("rewards", _metrics(document.rewards)),
        *([("guard metrics", _metrics(document.guards))] if document.guards else []),
        ("points", ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "none"),
    ]
    return "<dl>" + "".join(f"<dt>{term}</dt><dd>{text}</dd>" for term, text in terms) + "</dl>"


def _metrics(metrics: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{escape(name)} ({direction})" for name, direction in metrics) or "none"


def _hypervolume(document: Document) -> str:
    if document.hypervolume is None:
        return ""
    value, reference, how = document.hypervolume
    at = ", ".join(f"{escape(name)} {number(low)}" for name, low in reference)
    return f"<p>Hypervolume <strong>{number(value)}</strong>: {escape(how, 500)}. Reference: {at}.</p>"


def _front_note(document: Document) -> str:
    steps = list(dict.fromkeys(series[0] for series in document.series))
    keys = [
        f'<span class="c{i % 8}">■</span> step {step}' for i, step in enumerate(steps) if step is not None
    ]
    count = len(document.rewards)
    more = count * (count - 1) // 2 - PAIRS
    parts = ["Points that no other beats in every reward are full, the others pale; ingredients alone are diamonds; bars are one standard error."]  # fmt: skip
    parts += [" ".join(keys)] if keys else []
    parts += [f"{more} more pairs of rewards are not drawn; the table has all."] if more > 0 else []
    return f"<p>{' '.join(parts)}</p>"


def _figures(title: str, figures: Sequence[str], note: str = "") -> str:
    drawn = [figure for figure in figures if figure]
    if not drawn:
        return ""
    return f'<h2>{title}</h2>{note}<div class="figures">{"".join(drawn)}</div>'


def _commands(document: Document) -> str:
    """The command that makes the soup, for every point of the front."""
    rows = [row for row in document.rows if row.front]
    if not rows:
        return ""
    lines = "".join(
        f"<tr><td>{escape(row.name, _LONG)}</td>"
        + "".join(f"<td>{measured(row.select[name]) if name in row.select else '–'}</td>" for name, _ in document.rewards)
        + f"<td>{f'<code>{escape(row.command, _LONG)}</code>' if row.command else '–'}</td></tr>"
        for row in rows
    )  # fmt: skip
    head = "".join(f"<th>{escape(name)}</th>" for name, _ in document.rewards)
    return (
        '<h2>The front, and how to make its soups</h2><div class="wide"><table><thead><tr><th>point</th>'
        f"{head}<th>command</th></tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _points(document: Document) -> str:
    """Every point with everything measured of it, sortable."""
    metrics = [name for name, _ in (*document.rewards, *document.guards)]
    reported = [name for name in metrics if any(name in row.report for row in document.rows)]
    series = any(label(row.series) for row in document.rows)
    guards = {name for name, _ in document.guards}
    heads = [
        "point",
        *(["step", "η"] if series else []),
        *(f"λ {name}" for name in document.ingredients),
        *(f"{name} (guard)" if name in guards else name for name in metrics),
        *(f"{name}, report" for name in reported),
        "front", "from", "status", "seconds",
    ]  # fmt: skip
    lines = []
    for row in document.rows:
        cells = [_plain(row.name), *(_series(row) if series else [])]
        cells += [
            (escape(text), repr(float(share))) for text, share in zip(row.shown, row.shares, strict=True)
        ]
        cells += [_score(row.select.get(name)) for name in metrics]
        cells += [_score(row.report.get(name)) for name in reported]
        seconds = ("–", "") if row.seconds is None else (f"{row.seconds:.1f}", repr(row.seconds))
        cells += [_plain("yes" if row.front else ""), _plain(row.origin), _plain(row.status), seconds]
        text = "".join(f'<td data-value="{key}">{cell}</td>' for cell, key in cells)
        lines.append(_line(row, text))
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    return (
        '<h2>All points</h2><div class="wide"><table class="sortable"><thead><tr>'
        f"{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _line(row: Row, cells: str) -> str:
    kind = ' class="on"' if row.front else ""
    return f"<tr{kind}>{cells}</tr>"


def _series(row: Row) -> list[Cell]:
    return [("–", "") if row.step is None else (str(row.step), str(row.step)), _plain(row.scale)]


def _plain(text: str) -> Cell:
    shown = escape(text, _LONG)
    return shown, shown


def _score(score: Measured | None) -> Cell:
    return ("–", "") if score is None else (measured(score), repr(score.value))


def _failed(document: Document) -> str:
    rows = [row for row in document.rows if row.status == "failed"]
    if not rows:
        return ""
    items = "".join(
        f"<li>{escape(row.name, _LONG)}: {escape(row.failure or 'no reason is known', 1000)}</li>"
        for row in rows
    )
    return f"<h2>Failed</h2><ul>{items}</ul>"


def _greedy(document: Document) -> str:
    if document.greedy is None:
        return ""
    terms = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v, 2000)}</dd>" for k, v in document.greedy.items())
    return f"<h2>Greedy soup</h2><dl>{terms}</dl>"


def _notes(document: Document) -> str:
    if not document.notes:
        return ""
    return f"<h2>Notes</h2><ul>{''.join(f'<li>{escape(note, 1000)}</li>' for note in document.notes)}</ul>"
