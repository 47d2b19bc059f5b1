"""Any table as the metrics document that the page is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsoup.analysis.data import Data
from rsoup.errors import UsageError
from rsoup.front.pareto import covered
from rsoup.measured.document import SCHEMA
from rsoup.measured.values import Measured, Row, Table
from rsoup.mix import format_number


def metrics_document(table: Table, data: Data) -> dict[str, object]:
    """The points of all training steps whose λ is known, as `rsoup-metrics/1`; the front is that of `data`.

    Raises UsageError E0256 where no λ is known.
    """
    rows = [row for row in table.rows if row.mix is not None and len(row.mix) == len(table.ingredients)]
    if not rows or not table.ingredients:
        raise UsageError(
            "E0256", "a page needs the λ of every point", where=table.shown,
            hint="--lambda-column INGREDIENT=COLUMN says which columns they are",
        )  # fmt: skip
    on = {data.rows[i].name for i in data.front}
    volume: dict[str, object] | None = None
    if len(data.rewards) > 1 and len(data.rows) > 1:
        found = covered(data.values, data.maximise, data.reference)
        volume = {
            "value": found.value,
            "experts": None,
            "reference": dict(zip(data.rewards, found.reference, strict=True)),
            "how": found.how,
        }
    return {
        "schema": SCHEMA,
        "ingredients": list(table.ingredients),
        "base": table.base,
        "method": "not told",
        "evaluators": [],
        "metrics": {
            name: {
                "direction": "minimise" if quality.maximise is False else "maximise",
                "guard": quality.guard,
                "address": name,
            }
            for name, quality in table.metrics.items()
        },
        "points": [_point(table, row, row.name in on) for row in rows],
        "front": sorted(on),
        "best": None,
        "hypervolume": volume,
        "greedy": None,
        "notes": [],
    }


def _point(table: Table, row: Row, on_front: bool) -> dict[str, object]:
    assert row.mix is not None
    expert = row.expert
    return {
        "point": row.name,
        "lambda": dict(zip(table.ingredients, map(format_number, row.mix), strict=True)),
        "scale": format_number(row.scale),
        "step": row.step,
        "status": row.status,
        "select": _scores(row.select),
        "report": _scores(row.report) if row.report else None,
        "front": on_front,
        "expert": None if expert is None else table.ingredients[expert],
        "failure": None,
        "log": None,
        "seconds": None,
        "soup": None,
        "command": row.command,
        "origin": "table",
    }


def _scores(scores: Mapping[str, Measured]) -> dict[str, Any]:
    return {
        name: {"value": score.value, "error": score.error, "n": score.repeats}
        for name, score in scores.items()
    }
