"""The measured rewards of a soup as the Hub reads them: its point in a table, and a model-index of its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from rsoup.errors import UsageError, listing, show
from rsoup.measured.values import Measured, Row, Table
from rsoup.mix import format_number

TYPE: Final = "rsoup"
"""The `dataset.type` by which results of rsoup are known again in a card."""


@dataclass(frozen=True, slots=True)
class Results:
    """The point of a table that the published soup is; `split` says which of its values count."""

    table: Table
    row: Row
    split: str

    @property
    def values(self) -> Mapping[str, Measured]:
        """The values by metric: of the seeds the choice never saw, where there are such."""
        return self.row.report if self.split == "report" else self.row.select


def point_of(table: Table, canonical: Mapping[str, Any] | None, name: str | None) -> Results:
    """The one measured point that is the soup of this recipe: equal λ by ingredient, and equal scale; or the one named.

    `canonical` is the recipe of the manifest, None where there is none. Raises UsageError E0720 where no point or
    more than one is, and where the one that is named is another soup.
    """
    if name is not None:
        rows = [row for row in table.rows if row.name == name]
        if not rows:
            raise _unknown(table, f"there is no point '{show(name)}'")
    else:
        rows = [
            row for row in table.done if canonical is not None and is_soup_of(canonical, table, row) is True
        ]
        if not rows:
            what = (
                "no measured point has the λ of this soup"
                if canonical is not None
                else "without rsoup.json the λ is not known"
            )
            raise _unknown(table, what)
        if len(rows) > 1:
            raise UsageError(
                "E0720", f"{len(rows)} points have the λ of this soup: {listing([row.name for row in rows])}", where=table.shown,
                hint="--point NAME says which was published",
            )  # fmt: skip
    (row,) = rows
    if row.status != "done":
        raise UsageError("E0720", f"the point '{show(row.name)}' was not measured: {row.status}", where=table.shown, hint="measure it first")  # fmt: skip
    if canonical is not None and is_soup_of(canonical, table, row) is False:
        raise UsageError(
            "E0720", f"the point '{show(row.name)}' is another soup than the folder: λ = {row.lambda_text}", where=table.shown,
            hint=f"leave out --point, or publish that soup{': ' + show(row.command, 300) if row.command else ''}",
        )  # fmt: skip
    return Results(table, row, "report" if row.report else "select")


def _unknown(table: Table, what: str) -> UsageError:
    return UsageError(
        "E0720",
        what,
        where=table.shown,
        hint=f"--point NAME; there are {listing([row.name for row in table.done])}",
    )


def is_soup_of(canonical: Mapping[str, Any], table: Table, row: Row) -> bool | None:
    """Whether a point has the λ and scale of a recipe; None where the table or the recipe leaves it open."""
    shares = {str(one["name"]): Fraction(str(one["lambda"])) for one in canonical["ingredients"]}
    if row.mix is None or canonical.get("per_tensor"):
        return None
    if set(shares) != set(table.ingredients):
        return False
    there = dict(zip(table.ingredients, row.mix, strict=True))
    return there == shares and row.scale == Fraction(str(canonical.get("scale", "1")))


def model_index(name: str, found: Results, pipeline_tag: str | None) -> list[dict[str, object]]:
    """The card's `model-index`: every reward and guard metric of the point as a metric with its value.

    `name` is the model's. A standard error stands in the metric's name, which is where a reader sees it; nothing is
    `verified`, which only the Hub's own evaluation is. Source: Hub documentation, modelcard.md.
    """
    metrics: list[dict[str, object]] = []
    for metric, quality in found.table.metrics.items():
        value = found.values.get(metric)
        if value is not None:
            words = (
                metric
                + (" (guard metric)" if quality.guard else "")
                + (", smaller is better" if quality.maximise is False else "")
            )
            error = "" if value.error is None else f" ± {value.error:.2g} (standard error)"
            metrics.append({"type": metric, "name": words + error, "value": value.value, "verified": False})
    if not metrics:
        raise UsageError(
            "E0720",
            f"the point '{show(found.row.name)}' has no values",
            where=found.table.shown,
            hint="--point NAME",
        )
    dataset = {"type": TYPE, "name": "evaluations of the sweep", "split": found.split}
    return [
        {
            "name": name,
            "results": [{"task": {"type": pipeline_tag or "other"}, "dataset": dataset, "metrics": metrics}],
        }
    ]


def joined(
    old: object, new: Sequence[Mapping[str, object]] | None, *, same_soup: bool = False
) -> tuple[list[object] | None, bool]:
    """(model-index, whether results of an earlier soup were taken out): others' results stay, ours are replaced.

    Without new ones, ours stay where they are of the `same_soup`.
    """
    if new is None and same_soup:
        return (list(old) if isinstance(old, list) and old else None), False
    kept: list[object] = []
    dropped = False
    for model in old if isinstance(old, list) else []:
        results = model.get("results") if isinstance(model, dict) else None
        if not isinstance(results, list):
            continue
        others = [one for one in results if not _is_ours(one)]
        dropped |= len(others) < len(results)
        if others:
            kept.append({**model, "results": others})
    if new is not None:
        kept[:0] = list(new)
    return kept or None, dropped and new is None


def foreign_results(index: object) -> bool:
    """Whether a model-index holds results that rsoup did not write."""
    return joined(index, None)[0] is not None


def _is_ours(result: object) -> bool:
    dataset = result.get("dataset") if isinstance(result, dict) else None
    return isinstance(dataset, dict) and dataset.get("type") == TYPE


def section(found: Results, picture: str | None) -> str:
    """The measured values in Markdown: a table of rewards and guard metrics, and the front's picture."""
    from rsoup.report.card import code

    lines = ["", "## Measured", "", "| metric | value | standard error | repeats |", "|---|---|---|---|"]
    for metric, quality in found.table.metrics.items():
        value = found.values.get(metric)
        if value is not None:
            words = ("guard metric" if quality.guard else "reward") + (
                ", smaller is better" if quality.maximise is False else ""
            )
            error = "" if value.error is None else f"{value.error:.2g}"
            repeats = "" if value.repeats is None else f"{value.repeats}"
            lines.append(f"| {code(metric)} ({words}) | {value.value:.6g} | {error} | {repeats} |")
    where = (
        f", with {format_number(found.row.scale)} of the way from the base" if found.row.scale != 1 else ""
    )
    shares = f"λ = {found.row.lambda_text}{where}; " if found.row.lambda_text is not None else ""
    seeds = (
        "with seeds that the choice never saw" if found.split == "report" else "the values it was chosen by"
    )
    lines += ["", f"{shares}{seeds}."]
    if picture is not None:
        lines += ["", f"![The front of all measured soups]({picture})"]
    return "\n".join([*lines, ""])


def front_picture(table: Table) -> tuple[str, bytes] | None:
    """(file name, bytes) of the front of a table's first two rewards: PNG where it can be drawn, else SVG.

    None for a table with one reward, or fewer than two points that have both.
    """
    from rsoup.analysis.data import data_of
    from rsoup.analysis.drawn import Subject, drawn
    from rsoup.figures.raster import png

    rewards = [name for name, quality in table.metrics.items() if not quality.guard]
    if len(rewards) < 2:
        return None
    try:
        data = data_of(table)
    except UsageError:
        return None
    if len(data.rows) < 2:
        return None
    figures = drawn("front", Subject(table, data, (), {}))
    if not figures:
        return None
    svg = next(iter(figures.values()))
    try:
        return "front.png", png(svg)
    except UsageError:
        return "front.svg", svg.encode()
