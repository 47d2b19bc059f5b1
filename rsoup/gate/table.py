"""Tables of measured points: a sweep's metrics.json, a flat JSON object, a list of them, or a CSV file; read strictly."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Final, NoReturn, TypeVar

from rsoup.errors import RefusedFileError, UsageError, show, show_path
from rsoup.gate.values import Measured, Quality, Row, Table
from rsoup.mix import parse_number
from rsoup.storage.files import parse_json, read_whole

SCHEMA: Final = "rsoup-metrics/1"
FILE: Final = "metrics.json"
MAX_BYTES: Final = 64_000_000
MAX_POINTS: Final = 100_000
MAX_METRICS: Final = 1_000
MAX_REPEATS: Final = 1_000_000_000
LARGEST: Final = 1e150  # squares and sums of such values are numbers still

_STATUSES = ("done", "failed", "pending")
_MIX, _MIX_OF, _ERROR = "lambda", "lambda_", "_stderr"

T = TypeVar("T")


def read_table(path: str) -> Table:
    """The points of a sweep's folder, of a metrics document, of a JSON object or list of objects, or of a CSV file.

    Raises AccessError (E0701, E0702) and RefusedFileError: E0805 too large, E0807 not a regular file, E0808
    for anything that is not exactly such a table.
    """
    if os.path.isdir(path):
        path = os.path.join(path, FILE)
    shown = show_path(path)
    data = read_whole(path, shown, MAX_BYTES)
    stem = os.path.splitext(os.path.basename(path))[0]
    if path.lower().endswith(".csv"):
        return _flat(_csv_rows(data, shown), stem, shown)
    value = parse_json(data, shown)
    if isinstance(value, dict) and "schema" in value:
        return _document(value, shown)
    rows = value if isinstance(value, list) else [value]
    return _flat([_mapping(row, "a point", shown) for row in rows], stem, shown)


def _refuse(what: str, shown: str) -> NoReturn:
    raise RefusedFileError(
        "E0808",
        f"not a table of metrics rsoup can trust: {what}",
        where=shown,
        hint='a sweep\'s metrics.json, a JSON object of numbers ({"helpful": 0.71, "helpful_stderr": 0.01}), or a CSV file with a header',
    )


# --- a metrics document


def _document(value: Mapping[str, object], shown: str) -> Table:
    if value["schema"] != SCHEMA:
        _refuse(f"its schema is '{show(value['schema'])}', not '{SCHEMA}'", shown)
    ingredients = tuple(
        _text(name, "an ingredient's name", shown)
        for name in _items(value.get("ingredients"), "ingredients", shown)
    )
    if len(set(ingredients)) != len(ingredients):
        _refuse("an ingredient occurs twice", shown)
    declared = _mapping(value.get("metrics"), "metrics", shown)
    metrics = {name: _quality(name, about, shown) for name, about in declared.items()}
    rows = [
        _point(_mapping(point, "a point", shown), ingredients, metrics, shown)
        for point in _items(value.get("points"), "points", shown)
    ]
    return _table(metrics, rows, ingredients, shown)


def _quality(name: str, about: object, shown: str) -> Quality:
    fields = _mapping(about, f"metric '{show(name)}'", shown)
    direction, guard = fields.get("direction"), fields.get("guard", False)
    if direction not in ("maximise", "minimise"):
        _refuse(f"the direction of '{show(name)}' is neither maximise nor minimise", shown)
    if not isinstance(guard, bool):
        _refuse(f"guard of '{show(name)}' is neither true nor false", shown)
    return Quality(direction == "maximise", guard)


def _point(
    fields: Mapping[str, object], ingredients: tuple[str, ...], metrics: Mapping[str, Quality], shown: str
) -> Row:
    name = _text(fields.get("point"), "a point's name", shown)
    what = f"point '{show(name)}'"
    mix = _mapping(fields.get("lambda"), f"lambda of {what}", shown)
    if set(mix) != set(ingredients):
        _refuse(f"the λ of {what} is not one of each ingredient", shown)
    status = fields.get("status")
    if status not in _STATUSES:
        _refuse(f"the status of {what} is none of {', '.join(_STATUSES)}", shown)
    report = fields.get("report")
    return Row(
        name,
        str(status),
        _scores(fields.get("select") if status == "done" else {}, metrics, f"select of {what}", shown),
        {} if report is None else _scores(report, metrics, f"report of {what}", shown),
        tuple(_share(mix[ingredient], what, shown) for ingredient in ingredients),
    )


def _scores(value: object, metrics: Mapping[str, Quality], what: str, shown: str) -> Mapping[str, Measured]:
    found = {}
    for name, score in _mapping(value, what, shown).items():
        if name not in metrics:
            _refuse(f"{what} has '{show(name)}', which is not among the metrics", shown)
        fields = _mapping(score, f"'{show(name)}' in {what}", shown)
        number = _number(fields.get("value"), f"'{show(name)}' in {what}", shown)
        found[name] = Measured(
            number, _error(fields.get("error"), name, shown), _count(fields.get("n"), name, shown)
        )
    return found


def _error(value: object, name: str, shown: str) -> float | None:
    if value is None:
        return None
    error = _number(value, f"the standard error of '{show(name)}'", shown)
    if error < 0:
        _refuse(f"the standard error of '{show(name)}' is below 0", shown)
    return error


def _count(value: object, name: str, shown: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_REPEATS:
        _refuse(f"n of '{show(name)}' is not a number of repeats", shown)
    return value


# --- flat tables: numbers by column


def _csv_rows(data: bytes, shown: str) -> list[Mapping[str, object]]:
    """Rows by column; an empty cell is left out."""
    import csv
    import io

    try:
        lines = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    except UnicodeDecodeError:
        _refuse("it is not UTF-8", shown)
    except csv.Error as error:
        _refuse(show(error), shown)
    head, *body = [line for line in lines if line] or [[]]
    if len(set(head)) != len(head):
        _refuse("a column occurs twice", shown)
    if {"point", "scale", "step", "front"} <= set(head):
        _refuse("it is the points.csv of a sweep; the sweep's folder, or its metrics.json, says more", shown)
    if wrong := next((number for number, line in enumerate(body, 1) if len(line) != len(head)), None):
        _refuse(f"row {wrong} under the header has {len(body[wrong - 1])} cells, not {len(head)}", shown)
    return [
        {
            name: cell
            if name in ("point", "status", _MIX) or name.startswith(_MIX_OF)
            else _cell(cell, name, shown)
            for name, cell in zip(head, line, strict=True)
            if cell.strip()
        }
        for line in body
    ]


def _cell(text: str, name: str, shown: str) -> float:
    try:
        if "_" not in text:
            return float(text)
    except ValueError:
        pass
    _refuse(f"'{show(text)}' in the column '{show(name)}' is not a number", shown)


def _flat(rows: Sequence[Mapping[str, object]], stem: str, shown: str) -> Table:
    """A table of rows by column: `point`, `status`, `lambda` or `lambda_NAME`, metrics, and `METRIC_stderr`."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    ingredients = tuple(name.removeprefix(_MIX_OF) for name in names if name.startswith(_MIX_OF))
    values = [
        name for name in names if name not in ("point", "status", _MIX) and not name.startswith(_MIX_OF)
    ]
    errors = {name for name in values if name.endswith(_ERROR) and name.removesuffix(_ERROR) in values}
    metrics = {name: Quality(None, guard=False) for name in values if name not in errors}
    if orphan := next((name for name in metrics if name.endswith(_ERROR)), None):
        _refuse(f"'{show(orphan)}' is a standard error of nothing", shown)
    found = []
    for number, row in enumerate(rows, 1):
        default = stem if len(rows) == 1 else f"row-{number}"
        name = _text(row.get("point", default), "a point's name", shown)
        what = f"point '{show(name)}'"
        status = row.get("status", "done")
        if status not in _STATUSES:
            _refuse(f"the status of {what} is none of {', '.join(_STATUSES)}", shown)
        scores = {
            metric: Measured(
                _number(row[metric], f"'{show(metric)}' of {what}", shown),
                _error(row.get(metric + _ERROR), metric, shown),
                None,
            )
            for metric in metrics
            if metric in row
        }
        found.append(
            Row(
                name,
                str(status),
                scores if status == "done" else {},
                {},
                _flat_mix(row, ingredients, what, shown),
            )
        )
    return _table(metrics, found, ingredients, shown)


def _flat_mix(
    row: Mapping[str, object], ingredients: tuple[str, ...], what: str, shown: str
) -> tuple[Fraction, ...] | None:
    if ingredients:
        if any(_MIX_OF + name not in row for name in ingredients):
            _refuse(f"the λ of {what} is not one of each ingredient", shown)
        return tuple(_share(row[_MIX_OF + name], what, shown) for name in ingredients)
    if _MIX not in row:
        return None
    return tuple(_share(part, what, shown) for part in str(row[_MIX]).split(","))


# --- what both have in common


def _table(
    metrics: Mapping[str, Quality], rows: Sequence[Row], ingredients: tuple[str, ...], shown: str
) -> Table:
    if not metrics or not rows:
        _refuse(f"there is no {'point' if metrics else 'metric'} in it", shown)
    if len(metrics) > MAX_METRICS or len(rows) > MAX_POINTS:
        _refuse(f"it has more than {MAX_METRICS} metrics or {MAX_POINTS} points", shown)
    seen: set[str] = set()
    for row in rows:
        if row.name in seen:
            _refuse(f"the point '{show(row.name)}' occurs twice", shown)
        seen.add(row.name)
    return Table(shown, metrics, tuple(rows), ingredients)


def _number(value: object, what: str, shown: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(f"{what} is not a number", shown)
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if not abs(number) <= LARGEST:
        _refuse(f"{what} is not finite, or beyond {LARGEST:g}", shown)
    return number


def _share(value: object, what: str, shown: str) -> Fraction:
    try:
        return parse_number(str(value))
    except UsageError:
        _refuse(f"'{show(value)}', a λ of {what}, is not a number", shown)


def _text(value: object, what: str, shown: str) -> str:
    return _of(value, str, bool, f"{what} is not a text", shown)


def _items(value: object, what: str, shown: str) -> list[object]:
    return _of(value, list, lambda _: True, f"{what} is not a list", shown)


def _mapping(value: object, what: str, shown: str) -> dict[str, object]:
    return _of(value, dict, lambda _: True, f"{what} is not an object", shown)


def _of(value: object, kind: type[T], usable: Callable[[T], object], what: str, shown: str) -> T:
    if not isinstance(value, kind) or not usable(value):
        _refuse(what, shown)
    return value
