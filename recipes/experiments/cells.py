"""Cells: what one seed of an experiment measured, read from its folder of sweeps and kept as a small table.

A cell's folder, RUNS/CELL/, holds checkpoints, sweeps as `rsoup sweep … -o RUNS/CELL/NAME` leaves them, and
`cell.json`, which is written last and says that the cell is done:

    {"group": "n2", "seed": 3, "rewards": ["low", "high"], "maximise": [true, true],
     "sets": {"soups": {"table": "soups", "trainings": 2},
              "morl":  {"table": "morl", "trainings": 11}, …},
     "about": {"seconds": 31.5}}

`table` is a sweep's folder or any table that `rsoup front` reads, beside cell.json. `trainings` is what the whole set
took, in trainings of one expert. Without `rows` a set is all measured points of its table; with `rows`, these of them in
this order: [{"lambda": "0,0.5,0.5", "as": "0.5,0.5", "label": "…"}, …], `lambda` being the table's and `as` the set's own
(left out: none). Names of sets that the figures and tables know:

    soups        every λ between the experts, each expert alone among them; all gains count from these experts
    between      more λ of the same soups, measured only so that rules for λ can be scored
    morl         trainings for mixed rewards, in order of μ (two rewards: from the first expert to the second)
    groups       RS+MS: λ between averages of several seeds per reward
    model-soups  λ between two seeds of one reward
    base-alone   the base
    ensemble     averaged predictions
    bone…, waypoint…, init…, scaled…   attempts at better soups

The values to choose by are a point's select values; those to report are its report values (`--report 1`) or, where there
are none, metrics that are called REWARD_report (`--guard REWARD_report`). Series give a Cell per training step.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from rsoup.measured.table import read_table
from rsoup.measured.values import Measured, Row, Table
from rsoup.mix import format_number

DONE = "cell.json"
REPORT = "_report"
ERROR = "_stderr"
Values = tuple[float, ...]
Errors = tuple[float | None, ...]
Mix = tuple[Fraction, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One measured model: λ (None: it has none), what to choose by, what to report, standard errors where known."""

    label: str
    mix: Mix | None
    select: Values
    report: Values | None
    select_errors: Errors
    report_errors: Errors
    guards: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cell:
    """One seed at one training step (None: there is but one): sets of points by name, and what each took.

    `experts` are the soups of one ingredient alone, in the order of the ingredients.
    """

    name: str
    group: str
    seed: int
    step: int | None
    rewards: tuple[str, ...]
    maximise: tuple[bool, ...]
    sets: Mapping[str, tuple[Point, ...]]
    trainings: Mapping[str, float]
    about: Mapping[str, Any]

    @property
    def experts(self) -> tuple[Point, ...]:
        """The points of `soups` with one λ = 1. Raises ValueError if one is missing."""
        soups = self.sets["soups"]
        size = len(soups[0].mix or ())
        corners = [tuple(Fraction(i == k) for i in range(size)) for k in range(size)]
        found = {point.mix: point for point in soups if point.mix in corners}
        if not size or len(found) < size:
            raise ValueError(f"{self.name}: an expert is not measured alone")
        return tuple(found[corner] for corner in corners)


# --- from a folder of sweeps


def write_done(folder: Path, about: Mapping[str, Any]) -> None:
    """Write cell.json, complete or not at all: the cell is done."""
    part = folder / f"{DONE}.part"
    part.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    part.replace(folder / DONE)


def read_runs(runs: Path) -> list[Cell]:
    """Every finished cell of an experiment's folder, in order of group, step and seed."""
    found = [cell for path in sorted(runs.glob(f"*/{DONE}")) for cell in read_cell(path.parent)]
    return sorted(found, key=_order)


def read_cell(folder: Path) -> list[Cell]:
    """The cell of a folder, one per training step. Raises ValueError for a set without points, or rows that are missing."""
    about = json.loads((folder / DONE).read_text(encoding="utf-8"))
    rewards = tuple(about["rewards"])
    by_step: dict[int | None, dict[str, tuple[Point, ...]]] = {}
    tables = {
        name: read_table(str(folder / name)) for name in {one["table"] for one in about["sets"].values()}
    }
    for name, one in about["sets"].items():
        for step, points in _points(folder.name, tables[one["table"]], one, rewards).items():
            by_step.setdefault(step, {})[name] = points
    common = by_step.pop(None, {}) if len(by_step) > 1 else {}
    return [
        Cell(
            folder.name, str(about["group"]), int(about["seed"]), step, rewards,
            tuple(about.get("maximise", (True,) * len(rewards))), {**common, **sets},
            {name: float(one["trainings"]) for name, one in about["sets"].items()}, about.get("about", {}),
        )
        for step, sets in sorted(by_step.items(), key=lambda pair: pair[0] or 0)
    ]  # fmt: skip


def _points(
    cell: str, table: Table, one: Mapping[str, Any], rewards: Sequence[str]
) -> dict[int | None, tuple[Point, ...]]:
    steps: dict[int | None, list[Row]] = {}
    for row in table.done:
        steps.setdefault(row.step, []).append(row)
    if not steps:
        raise ValueError(f"{cell}: nothing is measured in {one['table']}")
    return {
        step: tuple(
            _asked(rows, one["rows"], rewards, cell) if "rows" in one
            else _all(rows, table.ingredients, rewards)
        )
        for step, rows in steps.items()
    }  # fmt: skip


def _asked(
    rows: Sequence[Row], wanted: Sequence[Mapping[str, str]], rewards: Sequence[str], cell: str
) -> Iterable[Point]:
    there = {row.mix: row for row in rows if row.scale == 1}
    for one in wanted:
        row = there.get(_mix(one["lambda"]))
        if row is None:
            raise ValueError(f"{cell}: λ = {one['lambda']} is not measured")
        own = _mix(one["as"]) if one.get("as") else None
        yield _point(row, own, one.get("label", ""), rewards)


def _all(rows: Sequence[Row], ingredients: Sequence[str], rewards: Sequence[str]) -> Iterable[Point]:
    alone = [row.expert for row in rows]
    if len(rows) > 2 and all(one is not None for one in alone):  # trainings by themselves, no soups
        for row in sorted(rows, key=lambda row: row.expert or 0):
            yield _point(row, None, row.label or ingredients[row.expert or 0], rewards)
        return
    for row in rows:
        own = row.mix if row.scale == 1 else None
        yield _point(row, own, row.label or "", rewards)


def _point(row: Row, mix: Mix | None, label: str, rewards: Sequence[str]) -> Point:
    select = [row.select[name] for name in rewards]
    report = [row.report.get(name) or row.select.get(name + REPORT) for name in rewards]
    known = [one for one in report if one is not None]
    whole = len(known) == len(rewards)
    taken = {*rewards, *(name + REPORT for name in rewards)}
    guards = {name: one.value for name, one in row.select.items() if name not in taken}
    return Point(
        label, mix, _values(select), _values(known) if whole else None,
        _errors(select), _errors(known) if whole else (None,) * len(rewards), guards,
    )  # fmt: skip


def _values(found: Sequence[Measured]) -> Values:
    return tuple(one.value for one in found)


def _errors(found: Sequence[Measured]) -> Errors:
    return tuple(one.error for one in found)


def _mix(text: str) -> Mix:
    return tuple(Fraction(part) for part in text.split(","))


def _order(cell: Cell) -> tuple[str, int, int]:
    return cell.group, cell.step or 0, cell.seed


# --- the small tables that are committed


def write_cells(cells: Sequence[Cell], folder: Path) -> None:
    """Write cells.json and, per group, GROUP.csv.gz: all that a page is made of, six digits a number; equal bytes for equal cells."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = [
        {
            "cell": c.name, "group": c.group, "seed": c.seed, "step": c.step, "rewards": c.rewards,
            "maximise": c.maximise, "trainings": dict(c.trainings), "about": dict(c.about),
        }
        for c in cells
    ]  # fmt: skip
    lines = ",\n".join(json.dumps(one, ensure_ascii=False) for one in listed)
    (folder / "cells.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    for group in dict.fromkeys(cell.group for cell in cells):
        these = [cell for cell in cells if cell.group == group]
        head, rows = table_of(these)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([head, *rows])
        packed = gzip.compress(text.getvalue().encode(), mtime=0)
        (folder / f"{group}.csv.gz").write_bytes(packed)


def table_of(cells: Sequence[Cell]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a flat table that `rsoup front` reads: cell, step, set, label, lambda, rewards, guard metrics."""
    rewards = cells[0].rewards
    points = [(cell, name, point) for cell in cells for name, found in cell.sets.items() for point in found]
    noisy = any(error is not None for _, _, p in points for error in (*p.select_errors, *p.report_errors))
    guards = list(dict.fromkeys(name for _, _, point in points for name in point.guards))
    head = ["cell", "step", "set", "label", "lambda"]
    for reward in rewards:
        for column in (reward, reward + REPORT):
            head += [column, column + ERROR] if noisy else [column]
    rows = []
    for cell, name, point in points:
        row = [
            cell.name, "" if cell.step is None else str(cell.step), name, point.label,
            "" if point.mix is None else ",".join(map(format_number, point.mix)),
        ]  # fmt: skip
        for k in range(len(rewards)):
            for values, errors in (
                (point.select, point.select_errors),
                (point.report, point.report_errors),
            ):
                row.append("" if values is None else _short(values[k]))
                row += [_short(errors[k])] if noisy else []
        rows.append([*row, *(_short(point.guards.get(guard)) for guard in guards)])
    return [*head, *guards], rows


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def read_cells(folder: Path) -> list[Cell]:
    """What `write_cells` wrote."""
    listed = json.loads((folder / "cells.json").read_text(encoding="utf-8"))
    points: dict[tuple[str, str], dict[str, list[Point]]] = {}
    for group in dict.fromkeys(one["group"] for one in listed):
        rewards = next(one["rewards"] for one in listed if one["group"] == group)
        text = gzip.decompress((folder / f"{group}.csv.gz").read_bytes()).decode()
        for row in csv.DictReader(io.StringIO(text, newline="")):
            sets = points.setdefault((row["cell"], row["step"]), {})
            sets.setdefault(row["set"], []).append(_read(row, rewards))
    return [
        Cell(
            one["cell"], one["group"], one["seed"], one["step"], tuple(one["rewards"]), tuple(one["maximise"]),
            {
                name: tuple(found)
                for name, found in points[one["cell"], "" if one["step"] is None else str(one["step"])].items()
            },
            one["trainings"], one["about"],
        )
        for one in listed
    ]  # fmt: skip


def _read(row: Mapping[str, str], rewards: Sequence[str]) -> Point:
    def numbers(end: str) -> Errors:
        return tuple(float(text) if (text := row.get(name + end, "")) else None for name in rewards)

    select, report = numbers(""), numbers(REPORT)
    known = {"cell", "step", "set", "label", "lambda"}
    known |= {name + end for name in rewards for end in ("", ERROR, REPORT, REPORT + ERROR)}
    return Point(
        row["label"], _mix(row["lambda"]) if row["lambda"] else None,
        tuple(value for value in select if value is not None),
        None if None in report else tuple(value for value in report if value is not None),
        numbers(ERROR), numbers(REPORT + ERROR),
        {name: float(text) for name, text in row.items() if name not in known and text},
    )  # fmt: skip
