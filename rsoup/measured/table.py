"""Tables of measured points: a sweep's metrics.json, JSON of objects, lines of them or what pandas writes, CSV or TSV."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from rsoup.errors import UsageError, listing, show, show_path
from rsoup.measured import document, flat, strict
from rsoup.measured.cells import csv_rows
from rsoup.measured.columns import Columns, Condition
from rsoup.measured.foreign import Cells, json_rows
from rsoup.measured.values import Measured, Row, Table
from rsoup.mix import format_number
from rsoup.storage.files import parse_json, read_whole

FILE: Final = "metrics.json"
MAX_BYTES: Final = 64_000_000
_DELIMITERS: Final = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
MAX_POINTS: Final = 100_000
MAX_METRICS: Final = 1_000


def read_table(path: str, columns: Columns = Columns()) -> Table:  # noqa: B008 - frozen
    """The points of a sweep's folder, of a metrics document, of JSON (`json_rows`), lines of objects, or of a CSV or TSV file.

    Raises AccessError (E0701, E0702); RefusedFileError: E0805 too large, E0807 not a regular file, E0808 for
    anything that is not exactly such a table; UsageError E0253 for a column or a row that is not there, E0276 to E0279
    for what other programs wrote that is no table of points.
    """
    if os.path.isdir(path):
        path = os.path.join(path, FILE)
    shown = show_path(path)
    found = _rows(path, shown)
    if isinstance(found, dict):
        return _narrowed(_checked(document.read(found, shown), shown), columns)
    stem = os.path.splitext(os.path.basename(path))[0]
    return _checked(flat.read(found, columns, stem, shown), shown)


def read_tables(path: str, columns: Columns, by: str) -> dict[str, Table]:
    """A table per different text of the column `by` of a flat table, in the order of its rows; read once.

    Rows with an empty cell are left out. Raises UsageError E0253 for a column that is not there, or a sweep's own
    document; what `read_table` raises.
    """
    shown = show_path(path)
    found = {} if os.path.isdir(path) else _rows(path, shown)
    names = [] if isinstance(found, dict) else list(dict.fromkeys(name for row in found for name in row))
    if isinstance(found, dict) or by not in names:
        there = f"there are {listing(names, 20)}" if names else "a sweep's own table has no columns like this"
        raise UsageError("E0253", f"there is no column '{show(by)}'", where=shown, hint=there)
    groups: dict[str, list[Cells]] = {}
    for row in found:
        if all(condition.holds(str(row.get(condition.column, ""))) for condition in columns.where):
            groups.setdefault(str(row.get(by, "")).strip(), []).append(row)
    groups.pop("", None)
    if not groups:  # says what there is instead
        flat.read(found, columns, "", shown)
    return {
        value: _checked(
            flat.read(rows, replace(columns, where=(*columns.where, Condition(by, value))), "", shown), shown
        )
        for value, rows in groups.items()
    }


def _rows(path: str, shown: str) -> Sequence[Cells] | dict[str, object]:
    """Rows by column, or a sweep's document as it is."""
    data = read_whole(path, shown, MAX_BYTES)
    ending = os.path.splitext(path.lower())[1]
    if ending in _DELIMITERS:
        return csv_rows(data, shown, _DELIMITERS[ending])
    if ending in (".jsonl", ".ndjson"):
        return json_rows([parse_json(line, shown) for line in data.splitlines() if line.strip()], shown)
    value = parse_json(data, shown)
    if isinstance(value, dict) and not isinstance(value.get("schema", {}), dict):
        return value
    return json_rows(value, shown)


def _checked(table: Table, shown: str) -> Table:
    if not table.metrics or not table.rows:
        strict.refuse(f"there is no {'point' if table.metrics else 'metric'} in it", shown)
    if len(table.metrics) > MAX_METRICS or len(table.rows) > MAX_POINTS:
        strict.refuse(f"it has more than {MAX_METRICS} metrics or {MAX_POINTS} points", shown)
    seen: set[str] = set()
    for row in table.rows:
        if row.name in seen:
            strict.refuse(f"the point '{show(row.name)}' occurs twice", shown)
        seen.add(row.name)
    return table


def _narrowed(table: Table, columns: Columns) -> Table:
    """The metrics and points of a metrics document that are asked for."""
    if columns.shares or columns.name is not None:
        raise UsageError(
            "E0253", "the metrics of a sweep say themselves what their λ and points are", where=table.shown,
            hint="leave out --lambda-column and --name-column",
        )  # fmt: skip
    if missing := [name for name in columns.metrics if name not in table.metrics]:
        raise UsageError(
            "E0253",
            f"there is no metric '{show(missing[0])}'",
            where=table.shown,
            hint=f"there are {listing(list(table.metrics), 20)}",
        )
    rows = tuple(row for row in table.rows if all(_meets(row, condition) for condition in columns.where))
    if not rows:
        asked = " and ".join(map(str, columns.where))
        raise UsageError(
            "E0253", f"no point has {asked}", where=table.shown,
            hint="points of a sweep have point, step, scale and status",
        )  # fmt: skip
    kept = columns.metrics or tuple(table.metrics)
    narrow = [replace(r, select=_only(r.select, kept), report=_only(r.report, kept)) for r in rows]
    return replace(table, rows=tuple(narrow), metrics={name: table.metrics[name] for name in kept})


def _only(scores: Mapping[str, Measured], kept: tuple[str, ...]) -> dict[str, Measured]:
    return {name: scores[name] for name in kept if name in scores}


def _meets(row: Row, condition: Condition) -> bool:
    known = {
        "point": row.name,
        "step": "" if row.step is None else str(row.step),
        "scale": format_number(row.scale),
        "status": row.status,
    }
    return condition.column in known and condition.holds(known[condition.column])
