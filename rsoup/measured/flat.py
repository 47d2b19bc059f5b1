"""Flat tables: a column per metric; CSV, a JSON object or list of objects, or an object per line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Final

from rsoup.errors import UsageError, listing, show
from rsoup.measured import strict
from rsoup.measured.cells import Text
from rsoup.measured.columns import REST, Columns
from rsoup.measured.foreign import STEPS, Cells
from rsoup.measured.values import Measured, Quality, Row, Table
from rsoup.sweep.point import Point

_MIX, _MIX_OF, _ERROR = "lambda", "lambda_", "_stderr"
_ABOUT: Final = ("point", "label", "status", "scale", _MIX)
_NAME: Final = "Name"  # of a run, as wandb and mlflow write it
_PREFERENCES: Final = ("μ", "mu", "preference")


def read(rows: Sequence[Cells], columns: Columns, stem: str, shown: str) -> Table:
    """A table of rows by column: `point`, `label`, `status`, `step`, `scale`, `lambda` or `lambda_NAME`, metrics, and `METRIC_stderr`.

    `Step`, `Name` and a preference (`μ`, `mu`, `preference`) are taken for step, point and label, where these are not
    there. `stem` names the point of a table of one. Raises RefusedFileError E0808, UsageError E0253 for a column that
    is asked for and is not there, or rows that nothing matches, E0277 for a λ that is a word.
    """
    rows = [_known(row) for row in rows]
    names = list(dict.fromkeys(name for row in rows for name in row))
    _check_columns(names, columns, shown)
    numbered = [
        (number, row)
        for number, row in enumerate(rows, 1)
        if all(condition.holds(str(row.get(condition.column, ""))) for condition in columns.where)
    ]
    if not numbered and rows:
        asked = " and ".join(map(str, columns.where))
        raise UsageError("E0253", f"no row has {asked}", where=shown, hint=_values_hint(rows, columns))
    ingredients = tuple(name for name, _ in columns.shares) or tuple(
        name.removeprefix(_MIX_OF) for name in names if name.startswith(_MIX_OF)
    )
    metrics = _metrics(names, columns, shown)
    named = [_row(number, row, columns, (ingredients, metrics), shown) for number, row in numbered]
    if len({len(row.mix) for row in named if row.mix is not None}) > 1:
        strict.refuse("the λ of its points are of different numbers of ingredients", shown)
    alone = stem if len(rows) == 1 else None
    found = [_titled(row, cells, columns, alone) for row, (_, cells) in zip(named, numbered, strict=True)]
    if len({row.name for row in found}) < len(found) and len({row.name for row in named}) == len(named):
        found = named  # several points of one λ
    if not ingredients:  # "0.5,0.5": known by their places only
        count = next((len(row.mix) for row in found if row.mix is not None), 0)
        ingredients = tuple(str(number) for number in range(1, count + 1)) if count > 1 else ()
    return Table(shown, {name: Quality(None, guard=False) for name in metrics}, tuple(found), ingredients)


def _known(row: Cells) -> Cells:
    """The row with step, point and label under the names that are read, beside those they have."""
    found = dict(row)
    for name, others in (("step", STEPS), ("point", (_NAME,))):
        if name not in row and (other := next((o for o in others if o in row), None)):
            found[name] = row[other]
    if (
        "label" not in row
        and (mu := next((row[name] for name in _PREFERENCES if name in row), None)) is not None
    ):
        found["label"] = f"μ {mu}"
    return found


def _row(
    number: int, row: Cells, columns: Columns, about: tuple[tuple[str, ...], list[str]], shown: str
) -> Row:
    """One row; without a name it is called after its number."""
    ingredients, metrics = about
    name = strict.text(_plain(row.get(columns.name or "point", f"row-{number}")), "a point's name", shown)
    what = f"point '{show(name)}'"
    status = strict.status(_plain(row.get("status", "done")), what, shown)
    label, step = row.get("label"), row.get("step")
    return Row(
        name,
        status,
        _scores(row, metrics, what, shown) if status == "done" else {},
        {},
        _mix(row, columns, ingredients, what, shown),
        strict.share(row.get("scale", "1"), what, shown),
        strict.step(_number(step, "step", shown), what, shown) if step is not None else None,
        None if label is None else strict.text(_plain(label), f"the label of {what}", shown),
    )


def _titled(row: Row, cells: Cells, columns: Columns, stem: str | None) -> Row:
    """A row without a name, called after its λ as a sweep's points are, or after the file if it is alone."""
    if columns.name is not None or "point" in cells:
        return row
    if row.mix is not None:
        return replace(row, name=Point(row.mix, row.scale, row.step).name)
    return row if stem is None else replace(row, name=stem)


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Text) else value


def _check_columns(names: Sequence[str], columns: Columns, shown: str) -> None:
    asked = [*columns.metrics, *(condition.column for condition in columns.where)]
    asked += [column for _, column in columns.shares if column != REST]
    asked += [] if columns.name is None else [columns.name]
    if missing := [name for name in asked if name not in names]:
        raise UsageError(
            "E0253",
            f"there is no column '{show(missing[0])}'",
            where=shown,
            hint=f"there are {listing(list(names), 20)}",
        )


def _values_hint(rows: Sequence[Cells], columns: Columns) -> str:
    column = columns.where[0].column
    there = list(dict.fromkeys(str(row.get(column, "")).strip() for row in rows))
    return f"{show(column)} has {listing(there)}"


def _metrics(names: Sequence[str], columns: Columns, shown: str) -> list[str]:
    if columns.metrics:
        return list(columns.metrics)
    taken = {
        *_ABOUT,
        *STEPS,
        _NAME,
        *_PREFERENCES,
        *(condition.column for condition in columns.where),
        *(column for _, column in columns.shares),
    }
    taken |= set() if columns.name is None else {columns.name}
    values = [name for name in names if name not in taken and not name.startswith(_MIX_OF)]
    metrics = [n for n in values if not (n.endswith(_ERROR) and n.removesuffix(_ERROR) in values)]
    if any(not name.strip() for name in metrics):
        strict.refuse(
            "a column of it has no name, such as an index: --reward says which columns are metrics", shown
        )
    if orphan := next((name for name in metrics if name.endswith(_ERROR)), None):
        strict.refuse(f"'{show(orphan)}' is a standard error of nothing", shown)
    return metrics


def _scores(row: Cells, metrics: Sequence[str], what: str, shown: str) -> dict[str, Measured]:
    found = {}
    for metric in metrics:
        if metric not in row:
            continue
        value, error = row[metric], row.get(metric + _ERROR)
        number = _finite(value)
        if number is None:
            number = strict.number(
                _number(value, metric, shown), f"'{show(metric)}' of {what}", shown
            )  # refused with what it is
        if error is not None:
            error = strict.error(_number(error, metric + _ERROR, shown), metric, shown)
        found[metric] = Measured(number, error, None)
    return found


def _finite(value: object) -> float | None:
    """The number that nearly every cell is, without a word for the case that it is none; None for all others."""
    if isinstance(value, Text) and "_" not in value:
        try:
            number = float(value)
        except ValueError:
            return None
        return number if abs(number) <= strict.LARGEST else None
    return None


def _number(value: object, column: str, shown: str) -> object:
    """What a CSV cell says as a number; whatever JSON has, as it is."""
    if not isinstance(value, Text):
        return value
    try:
        return float(value.replace("_", "?"))  # Python reads 1_000, no other program does
    except ValueError:
        strict.refuse(
            f"'{show(value)}' in the column '{show(column)}' is not a number (--reward NAME says which columns are metrics; the others may hold anything)",
            shown,
        )


def _mix(
    row: Cells, columns: Columns, ingredients: tuple[str, ...], what: str, shown: str
) -> tuple[Fraction, ...] | None:
    if columns.shares:
        given = [
            None if column == REST else row.get(column, None) for _, column in columns.shares
        ]  # an empty cell: a point without λ, such as the base or a training of its own
        if any(
            value is None for value, (_, column) in zip(given, columns.shares, strict=True) if column != REST
        ):
            return None
        exact = [
            None if value is None else _share(value, column, what, shown)
            for value, (_, column) in zip(given, columns.shares, strict=True)
        ]
        rest = 1 - sum((value for value in exact if value is not None), Fraction(0))
        return tuple(rest if value is None else value for value in exact)
    if ingredients:
        there = [_MIX_OF + name in row for name in ingredients]
        if not any(there):
            return None
        if not all(there):
            strict.refuse(f"the λ of {what} is not one of each ingredient", shown)
        return tuple(_share(row[_MIX_OF + name], _MIX_OF + name, what, shown) for name in ingredients)
    if _MIX not in row:
        return None
    return tuple(_share(part, _MIX, what, shown) for part in str(row[_MIX]).split(","))


def _share(value: object, column: str, what: str, shown: str) -> Fraction:
    """A λ; a word in its place is a row of another kind."""
    if isinstance(value, str) and value.strip() and not any(c.isdigit() for c in value):
        raise UsageError(
            "E0277", f"'{show(value)}', the λ of {what}, is a word", where=shown,
            hint=f"--where '{show(column)}!={show(value.strip())}' leaves such rows out",
        )  # fmt: skip
    return strict.share(value, what, shown)
