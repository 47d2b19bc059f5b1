"""The written parts of the page: what was swept, the commands of the front, every point, what failed, what was left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rsoup.report.page_document import Document, Measured, Row
from rsoup.report.page_text import WHOLE, escape, label, measured, number, passage

_CHARACTERS: Final = 24_000_000  # of samples and images on one page


def head(document: Document) -> str:
    """What was swept, in a list of terms."""
    counts = {s: sum(row.status == s for row in document.rows) for s in ("done", "failed", "pending")}
    terms = [
        ("ingredients", ", ".join(map(escape, document.ingredients))),
        ("base", escape(document.base) if document.base is not None else "none"),
        ("method", escape(document.method)),
        *(("evaluator", f"<code>{escape(text, WHOLE)}</code>") for text in document.evaluators),
        ("rewards", _metrics(document.rewards)),
        *([("guard metrics", _metrics(document.guards))] if document.guards else []),
        ("points", ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "none"),
    ]
    return "<dl>" + "".join(f"<dt>{term}</dt><dd>{text}</dd>" for term, text in terms) + "</dl>"


def _metrics(metrics: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{escape(name)} ({direction})" for name, direction in metrics) or "none"


def hypervolume(document: Document) -> str:
    """Its value, definition and reference point."""
    if document.hypervolume is None:
        return ""
    value, reference, how = document.hypervolume
    at = ", ".join(f"{escape(name)} {number(low)}" for name, low in reference)
    return f"<p>Hypervolume <strong>{number(value)}</strong>: {escape(how, 500)}. Reference: {at}.</p>"


def commands(document: Document) -> str:
    """The command that makes the soup, for every point of the front."""
    rows = [row for row in document.rows if row.front]
    if not rows:
        return ""
    lines = "".join(
        f'<tr><th scope="row">{escape(row.name, WHOLE)}</th>'
        + "".join(f"<td>{measured(row.select[name]) if name in row.select else '–'}</td>" for name, _ in document.rewards)
        + f"<td class=\"command\">{f'<code>{escape(row.command, WHOLE)}</code>' if row.command else '–'}</td></tr>"
        for row in rows
    )  # fmt: skip
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name, _ in document.rewards)
    table = f'<table><thead><tr><th scope="col">point</th>{names}<th scope="col" class="command">command</th></tr></thead><tbody>{lines}</tbody></table>'
    return _wide("The front, and how to make its soups", table)


def points(document: Document) -> str:
    """Every point with everything measured of it, sortable; a measured one says which it is of the embedded data."""
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
    order = {id(row): i for i, row in enumerate(document.measured)}
    for row in document.rows:
        cells = [*(_series(row) if series else []), *map(escape, row.shown)]
        cells += [_score(row.select.get(name)) for name in metrics]
        cells += [_score(row.report.get(name)) for name in reported]
        seconds = "–" if row.seconds is None else f"{row.seconds:.1f}"
        cells += ["yes" if row.front else "", escape(row.origin), escape(row.status), seconds]
        which = f' data-point="{order[id(row)]}"' if id(row) in order else ""
        kind = ' class="on"' if row.front else ""
        name = f'<th scope="row">{escape(row.name, WHOLE)}</th>'
        lines.append(f"<tr{kind}{which}>{name}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    table = f'<table class="sortable"><thead><tr>{names}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    return _wide("All points", table)


def _wide(title: str, table: str) -> str:
    """A table that scrolls in itself, by keyboard too, so that the page never does."""
    return f'<h2>{title}</h2><div class="wide" tabindex="0" role="region" aria-label="{title}">{table}</div>'


def _series(row: Row) -> list[str]:
    return ["–" if row.step is None else str(row.step), escape(row.scale)]


def _score(score: Measured | None) -> str:
    return "–" if score is None else measured(score)


def samples(document: Document) -> str:
    """What evaluators left, a fold per point; `data-prompt` says which prompts are the same."""
    prompts: dict[str, int] = {}
    folds, left_out, room = [], 0, _CHARACTERS
    for i, row in enumerate(document.measured):
        room -= row.left.size
        if row.left and room < 0:
            left_out += 1
        elif row.left:
            folds.append(
                f'<details class="left" data-point="{i}"><summary>{escape(row.name)}</summary>{_left(row, prompts)}</details>'
            )
    if not folds:
        return ""
    note = f"<p>Those of {left_out} more points are left out.</p>" if left_out else ""
    return f'<details class="shown-above" open><summary><h2>Samples, by point</h2></summary>{note}{"".join(folds)}</details>'


def _left(row: Row, prompts: dict[str, int]) -> str:
    parts = [
        f'<div class="sample" data-prompt="{prompts.setdefault(sample.prompt, len(prompts))}">'
        f'<p class="prompt">{passage(sample.prompt)}</p><p class="output">{passage(sample.output)}</p></div>'
        for sample in row.left.samples
    ]
    parts += [
        f'<figure class="image"><img alt="{escape(image.name)} of {escape(row.name)}" src="{image.data}">'
        f"<figcaption>{escape(image.name)}</figcaption></figure>"
        for image in row.left.images
    ]
    return "".join(parts)


def failed(document: Document) -> str:
    """The points that failed, with the reason."""
    rows = [row for row in document.rows if row.status == "failed"]
    if not rows:
        return ""
    items = "".join(
        f"<li>{escape(row.name, WHOLE)}: {escape(row.failure or 'no reason is known', 1000)}</li>"
        for row in rows
    )
    return f"<h2>Failed</h2><ul>{items}</ul>"


def greedy(document: Document) -> str:
    """The greedy soup's trail."""
    if document.greedy is None:
        return ""
    terms = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v, 2000)}</dd>" for k, v in document.greedy.items())
    return f"<h2>Greedy soup</h2><dl>{terms}</dl>"


def notes(document: Document) -> str:
    """What the sweep had to say."""
    if not document.notes:
        return ""
    return f"<h2>Notes</h2><ul>{''.join(f'<li>{escape(note, 1000)}</li>' for note in document.notes)}</ul>"
