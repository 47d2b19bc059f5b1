"""What the page's script needs of a document, as JSON that is safe inside a script element."""

from __future__ import annotations

import json
from typing import Final

from rsoup.errors import show
from rsoup.front.pareto import Reference, reference_of
from rsoup.report.page_document import Document, Measured, Row
from rsoup.report.page_text import WHOLE, colours, label, measured

_ESCAPES: Final = {ord(c): f"\\u{ord(c):04x}" for c in "<>&"}


def embedded(document: Document) -> str:
    """The measured points as JSON in ASCII without `<`, `>` and `&`: nothing in it can end its element.

    Texts are made visible like all of the page's. A score is [value, its text, standard error where there is
    one]; `spans` are what a reward is divided by where rewards are normalised.
    """
    metrics = (*document.rewards, *document.guards)
    reference = scaling(document)
    of = colours(document)
    names = [name for name, _ in metrics]
    data = {
        "ingredients": [show(name) for name in document.ingredients],
        "metrics": [{"name": show(name), "up": direction == "maximise"} for name, direction in metrics],
        "rewards": len(document.rewards),
        "spans": [] if reference is None else list(reference.spans),
        "points": [_point(row, names, of[row.series]) for row in document.measured],
    }
    return json.dumps(data, separators=(",", ":"), allow_nan=False).translate(_ESCAPES)


def _point(row: Row, names: list[str], colour: int) -> dict[str, object]:
    command = None if row.command is None else show(row.command, WHOLE)
    found: dict[str, object] = {
        "name": show(row.name, WHOLE),
        "shown": [show(text) for text in row.shown],
        "lambda": [float(share) for share in row.shares],
        "step": row.step,
        "scale": row.scale,
        "select": [_score(row.select.get(name)) for name in names],
        "front": row.front,
        "colour": colour,
        "from": show(row.origin),
        "command": command,
    }
    if text := label(row.series):
        found["series"] = text
    if row.report:
        found["report"] = [_score(row.report.get(name)) for name in names]
    if row.expert is not None:
        found["expert"] = show(row.expert)
    if command != row.command:
        found["altered"] = True  # what is shown is not what a shell must get, so it is not offered to copy
    return found


def _score(score: Measured | None) -> list[object] | None:
    if score is None:
        return None
    return [score.value, measured(score), *([score.error] if score.error is not None else [])]


def scaling(document: Document) -> Reference | None:
    """What normalised rewards are divided by: the experts' range, as the hypervolume's; None without points.

    Of several training steps, the experts are those of the last one that is measured.
    """
    names = [name for name, _ in document.rewards]
    whole = [row for row in document.measured if all(name in row.select for name in names)]
    if not whole or not names:
        return None
    last = max((row.step for row in whole if row.step is not None), default=None)
    alone = {row.expert: row for row in whole if row.step == last and row.expert is not None}
    experts = [None if name not in alone else _values(alone[name], names) for name in document.ingredients]
    up = [direction == "maximise" for _, direction in document.rewards]
    return reference_of([_values(row, names) for row in whole], up, experts, names=[show(n) for n in names])


def _values(row: Row, names: list[str]) -> tuple[float, ...]:
    return tuple(row.select[name].value for name in names)
