"""Pictures: figures of cells, drawn by `rsoup front --plot` from a table of the cell's points."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from cells import Cell, Mix, table_of
from evidence import Against
from running import rsoup
from wording import LEAST

from rsoup.figures.advantage import advantage
from rsoup.figures.series import Band
from rsoup.mix import format_number


def draw(
    cells: Sequence[Cell],
    plots: Mapping[str, Path],
    *,
    ingredients: Sequence[str],
    compare: Mapping[str, str] | None = None,
    name: str = "soups",
    split: str = "select",
    axes: Sequence[str] = (),
    options: Sequence[str] = (),
) -> list[Path]:
    """`plots` (kind → file, .svg or .png) of one cell, by the command; the files that came of it, in order.

    `cells` are one cell, or the steps of one seed (for `training`; the other kinds then show the last step). Of a kind
    with several figures the files are FILE-PART.svg. `ingredients` are what the experts are called in the pictures,
    `axes` the rewards (their own names, if it is left out), `compare` maps the legend's names to sets, `options` go to
    `rsoup front` as they are (`--smooth`, `--tolerance 0.01`).
    """
    for path in plots.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        called = tuple(axes) or cells[0].rewards
        soups = _table(cells, name, Path(folder) / "soups.csv", ingredients, called, split)
        words: list[str | Path] = ["front", soups, "--overwrite", "-q", *options]
        for reward, up in zip(called, cells[0].maximise, strict=True):
            words += ["--reward", reward if up else f"{reward}:min"]
        for legend, other in (compare or {}).items():
            path = _table(cells, other, Path(folder) / f"{other}.csv", (), called, split)
            words += ["--compare", f"{legend}={path}"]
        for kind, path in plots.items():
            words += ["--plot", f"{kind}={path}"]
        rsoup(*words)
    return [found for path in plots.values() for found in _made(path)]


def _made(path: Path) -> list[Path]:
    return [path] if path.exists() else sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))


def _said(mix: Mix) -> str:
    """Beside a point of another set: the share of the second of two, all of more."""
    return ",".join(format_number(share) for share in (mix[1:] if len(mix) == 2 else mix))


def _table(
    cells: Sequence[Cell],
    name: str,
    path: Path,
    ingredients: Sequence[str],
    called: Sequence[str],
    split: str,
) -> Path:
    """A CSV of one set, with a column of λ per ingredient, or a label per point where none are named."""
    end = "_report" if split == "report" else ""
    alone = len(cells) == 1
    rows = []
    for cell in cells:
        head, lines = table_of([replace(cell, sets={name: cell.sets[name]})])
        for number, (line, point) in enumerate(zip(lines, cell.sets[name], strict=True), 1):
            found = dict(zip(head, line, strict=True))
            row = {"label": point.label}
            if not alone and cell.step is not None:
                row["step"] = str(cell.step)
            if ingredients:
                shares = point.mix or ()
                row |= {f"lambda_{i}": format_number(x) for i, x in zip(ingredients, shares, strict=True)}
            elif not point.label:
                row["label"] = f"{name} {number}" if point.mix is None else _said(point.mix)
            for reward, shown in zip(cell.rewards, called, strict=True):
                row[shown] = found[reward + end]
                if error := found.get(f"{reward}{end}_stderr"):
                    row[f"{shown}_stderr"] = error
            rows.append(row)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if not any(row["label"] for row in rows):
        columns.remove("label")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def advantage_over_seeds(curve: Sequence[Against], path: Path, *, over: str, note: str = "") -> Path:
    """The advantage over M trainings: the mean of the paired differences over the seeds, from five on with its interval."""
    bands = []
    for row in curve:
        known = row.decision if len(row.differences) >= LEAST else None
        ends = (None, None) if known is None else (known.low, known.high)
        bands.append(Band(row.trainings, fmean(row.differences), *ends))
    seeds = len(curve[0].differences)
    said = note or f"Mean over {seeds} seeds, chosen on one split and reported on the other."
    drawing = advantage(bands, over=over, interval="95 % bootstrap interval over the seeds", note=said)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(drawing, encoding="utf-8")
    return path
