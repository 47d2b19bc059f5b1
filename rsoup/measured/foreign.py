"""Tables as other programs write them: pandas' JSON, wandb's charts; and what TensorBoard and mlflow write, refused by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from rsoup.errors import UsageError, listing, show
from rsoup.measured import strict

Cells = Mapping[str, object]
_CHART = re.compile(r"(?P<run>.+?) - (?P<metric>.+)", re.DOTALL)
_EXTREMES: Final = ("__MIN", "__MAX")
STEPS: Final = ("step", "Step", "_step")


# --- pandas.DataFrame.to_json


def json_rows(value: object, shown: str) -> list[Cells]:
    """Rows by column from what a JSON file holds: objects, or pandas' orients records, columns, index, split and table.

    null is an empty cell. Raises RefusedFileError E0808 for anything else, and UsageError E0278 where columns and rows
    cannot be told apart.
    """
    if isinstance(value, dict):
        found = _split(value, shown) or _table(value, shown) or _nested(value, shown) or [value]
    else:
        found = value if isinstance(value, list) else [value]
    rows = [strict.mapping(row, "a point", shown) for row in found]
    return [{name: cell for name, cell in row.items() if cell is not None} for row in rows]


def _split(value: Mapping[str, object], shown: str) -> list[object] | None:
    if set(value) not in ({"columns", "index", "data"}, {"columns", "data"}):
        return None
    names = [strict.text(name, "a column's name", shown) for name in strict.items(value["columns"], "columns", shown)]  # fmt: skip
    if len(set(names)) != len(names):
        strict.refuse("a column occurs twice", shown)
    lines = [strict.items(line, "a row of data", shown) for line in strict.items(value["data"], "data", shown)]  # fmt: skip
    if any(len(line) != len(names) for line in lines):
        strict.refuse(f"a row of data has not {len(names)} cells", shown)
    return [dict(zip(names, line, strict=True)) for line in lines]


def _table(value: Mapping[str, object], shown: str) -> list[object] | None:
    schema = value.get("schema")
    if not isinstance(schema, dict) or "fields" not in schema or "data" not in value:
        return None
    index = schema.get("primaryKey")
    hidden = {name for name in index if isinstance(name, str)} if isinstance(index, list) else set()
    rows = [strict.mapping(row, "a row of data", shown) for row in strict.items(value["data"], "data", shown)]
    return [{name: cell for name, cell in row.items() if name not in hidden} for row in rows]


def _nested(value: Mapping[str, object], shown: str) -> list[object] | None:
    """{column: {row: cell}}, or {row: {column: cell}}: rows are numbered, columns are not."""
    inner = [part for part in value.values() if isinstance(part, dict)]
    if not inner or len(inner) != len(value):
        return None
    keys = list(inner[0])
    if any(set(part) != set(keys) for part in inner):
        strict.refuse("its columns are not of the same rows", shown)
    numbered = [bool(names) and all(name.isdigit() for name in names) for names in (value, keys)]
    if numbered[0] == numbered[1]:
        raise UsageError(
            "E0278", "columns and rows of this table cannot be told apart", where=shown,
            hint='to_json(path, orient="records") writes one object per row',
        )  # fmt: skip
    if numbered[0]:
        return list(inner)
    return [{name: part[key] for name, part in zip(value, inner, strict=True)} for key in keys]


# --- experiment trackers


def check_head(head: Sequence[str], shown: str) -> None:
    """UsageError E0276 for a table of one curve, or of one value per line: there is no point in a line of it."""
    names = {name.strip() for name in head}
    if names == {"Wall time", "Step", "Value"}:
        raise UsageError(
            "E0276", "this is TensorBoard's export of one curve, without the name of a metric or a model", where=shown,
            hint="a table with a column per metric: point,step,helpful,harmless (SummaryReader of tbparse makes one)",
        )  # fmt: skip
    long = names & {"key", "metric"}
    if long and "value" in names and names & {"step", "timestamp"}:
        raise UsageError(
            "E0276", "this has one value per line, as mlflow's metric history has", where=shown,
            hint=f"a column per metric: pandas' pivot(index=[run, step], columns='{min(long)}', values='value')",
        )  # fmt: skip


def chart_rows(head: Sequence[str], rows: Sequence[Cells], shown: str) -> Sequence[Cells]:
    """A chart that wandb exported (`Step`, `RUN - METRIC`, …`__MIN`, …`__MAX`) as a row per run and step; others as they are.

    Each is called after its run. Raises UsageError E0279 for a chart whose x axis is not the step.
    """
    series = [name for name in head if all(name + end in head for end in _EXTREMES)]
    found = {name: match for name in series if (match := _CHART.fullmatch(name))}
    if not found:
        return rows
    rest = [name for name in head if name not in found and not name.endswith(_EXTREMES)]
    if len(rest) != 1 or rest[0] not in STEPS:
        raise UsageError(
            "E0279", f"a chart of wandb over {listing(rest)}: its points have no training step", where=shown,
            hint="export the chart with Step on its x axis, or the table of runs",
        )  # fmt: skip
    points: dict[tuple[object, str], dict[str, object]] = {}
    for row in rows:
        step = row.get(rest[0])
        for name, match in found.items():
            if name in row and match["metric"] not in STEPS:
                point = {"point": f"step-{show(step)}_{match['run']}", "label": match["run"], "step": step}
                points.setdefault((step, match["run"]), point)[match["metric"]] = row[name]
    return list(points.values())
