"""The metrics document of a sweep (metrics.json) as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rsoup.errors import show
from rsoup.measured import strict
from rsoup.measured.values import Measured, Quality, Row, Table

SCHEMA: Final = "rsoup-metrics/1"
MAX_REPEATS: Final = 1_000_000_000


def read(value: Mapping[str, object], shown: str) -> Table:
    """The document as it is meant. Raises RefusedFileError E0808."""
    if value["schema"] != SCHEMA:
        strict.refuse(f"its schema is '{show(value['schema'])}', not '{SCHEMA}'", shown)
    ingredients = tuple(
        strict.text(name, "an ingredient's name", shown)
        for name in strict.items(value.get("ingredients"), "ingredients", shown)
    )
    if len(set(ingredients)) != len(ingredients):
        strict.refuse("an ingredient occurs twice", shown)
    declared = strict.mapping(value.get("metrics"), "metrics", shown)
    metrics = {name: _quality(name, about, shown) for name, about in declared.items()}
    rows = [
        _point(strict.mapping(point, "a point", shown), ingredients, metrics, shown)
        for point in strict.items(value.get("points"), "points", shown)
    ]
    base = value.get("base")
    return Table(
        shown,
        metrics,
        tuple(rows),
        ingredients,
        None if base is None else strict.text(base, "base", shown),
        dict(
            _distances(item, shown) for item in strict.items(value.get("distances", []), "distances", shown)
        ),
    )


def _distances(item: object, shown: str) -> tuple[int | None, dict[str, float]]:
    fields = strict.mapping(item, "a distance", shown)
    values = strict.mapping(fields.get("relative"), "relative of a distance", shown)
    step = strict.step(fields.get("step"), "a distance", shown)
    return step, {
        name: strict.number(value, f"the distance of '{show(name)}'", shown) for name, value in values.items()
    }


def _quality(name: str, about: object, shown: str) -> Quality:
    fields = strict.mapping(about, f"metric '{show(name)}'", shown)
    direction, guard = fields.get("direction"), fields.get("guard", False)
    if direction not in ("maximise", "minimise"):
        strict.refuse(f"the direction of '{show(name)}' is neither maximise nor minimise", shown)
    if not isinstance(guard, bool):
        strict.refuse(f"guard of '{show(name)}' is neither true nor false", shown)
    return Quality(direction == "maximise", guard)


def _point(
    fields: Mapping[str, object], ingredients: tuple[str, ...], metrics: Mapping[str, Quality], shown: str
) -> Row:
    name = strict.text(fields.get("point"), "a point's name", shown)
    what = f"point '{show(name)}'"
    mix = strict.mapping(fields.get("lambda"), f"lambda of {what}", shown)
    if set(mix) != set(ingredients):
        strict.refuse(f"the λ of {what} is not one of each ingredient", shown)
    status = strict.status(fields.get("status"), what, shown)
    report, command = fields.get("report"), fields.get("command")
    return Row(
        name,
        status,
        _scores(fields.get("select") if status == "done" else {}, metrics, f"select of {what}", shown),
        {} if report is None else _scores(report, metrics, f"report of {what}", shown),
        tuple(strict.share(mix[ingredient], what, shown) for ingredient in ingredients),
        strict.share(fields.get("scale", "1"), what, shown),
        strict.step(fields.get("step"), what, shown),
        command=None if command is None else strict.text(command, f"the command of {what}", shown),
    )


def _scores(value: object, metrics: Mapping[str, Quality], what: str, shown: str) -> Mapping[str, Measured]:
    found = {}
    for name, score in strict.mapping(value, what, shown).items():
        if name not in metrics:
            strict.refuse(f"{what} has '{show(name)}', which is not among the metrics", shown)
        fields = strict.mapping(score, f"'{show(name)}' in {what}", shown)
        found[name] = Measured(
            strict.number(fields.get("value"), f"'{show(name)}' in {what}", shown),
            strict.error(fields.get("error"), name, shown),
            _count(fields.get("n"), name, shown),
        )
    return found


def _count(value: object, name: str, shown: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_REPEATS:
        strict.refuse(f"n of '{show(name)}' is not a number of repeats", shown)
    return value
