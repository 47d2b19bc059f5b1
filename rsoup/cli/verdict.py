"""`rsoup verdict`: find the seeds of every table, judge them together, show, draw, and gate."""

from __future__ import annotations

import glob
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rsoup.analysis.data import Data
from rsoup.analysis.verdict import Rule, Seed, verdict
from rsoup.cli.reading import Reading, other_report, others_named, read_other
from rsoup.cli.terminal_width import columns_of
from rsoup.console import Console, error_json
from rsoup.errors import GateError, Problem, TargetError, UsageError, listing, show, show_path
from rsoup.front.decision import BETTER, MATCH
from rsoup.gate.requirements import parse_confidence
from rsoup.measured.columns import parse_source
from rsoup.measured.table import read_table, read_tables
from rsoup.measured.values import Table

_Read = TypeVar("_Read")
_SEED = "{seed}"
_ENOUGH = {"match": (MATCH, BETTER), "better": (BETTER,)}


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked beyond the soups' table; texts as they were typed."""

    compare: tuple[str, ...]
    seeds: str | None
    trainings: float | None
    delta: float
    least: int
    tolerance: float
    confidence: str
    seed: int
    require: str | None
    plot: str | None
    overwrite: bool


def run(reading: Reading, asked: Asked, *, console: Console) -> int:
    """Everything; 0, or 4 where the verdict is not the one that was asked for."""
    _check(asked)
    titled = _titled(asked.compare)
    soups = _soups(reading, asked.seeds)
    others = {title: _others(text, reading, soups, asked.seeds) for title, text in titled.items()}
    rule = Rule(
        asked.delta,
        asked.least,
        parse_confidence(asked.confidence),
        asked.tolerance,
        not reading.raw,
        asked.seed,
    )
    seeds = [
        Seed(name, data, {title: tables[name] for title, tables in others.items()})
        for name, data in soups.items()
    ]
    found = verdict(seeds, rule, trainings=asked.trainings)
    if asked.plot is not None:
        _draw(found, asked.plot, asked.confidence)
    error = _judged(found, asked.require)
    if not console.as_json:
        for note in found["notes"]:
            console.note(note)
    written = [asked.plot] if asked.plot is not None else []
    data = {**found, "written": written, "error": None if error is None else error_json(error)}
    console.result(
        _text(found, written, console),
        data,
        "\n".join(one["verdict"] or "inconclusive" for one in found["compared"]),
    )
    if error is None:
        return 0
    if not console.as_json:
        console.error(error)
    return error.exit_code


def _text(found: Mapping[str, Any], written: Sequence[str], console: Console) -> str:
    from rsoup.report.verdict_text import final

    lines = final(found, columns_of(console))
    return "\n".join([*lines, *(f"  {'written':<16} {show_path(path)}" for path in written)])


def _check(asked: Asked) -> None:
    """Whatever can be said before anything is read. Raises UsageError E0256, E0269, E0284, TargetError E0601."""
    for option, value in (
        ("--delta", asked.delta),
        ("--tolerance", asked.tolerance),
        ("--trainings", asked.trainings),
    ):
        if value is not None and not math.isfinite(value):
            raise UsageError(
                "E0256", f"{option} {value} is no finite number", hint=f"{option} 0.1, for instance"
            )
    if asked.require is not None and asked.require not in _ENOUGH:
        raise UsageError(
            "E0284", f"--require '{show(asked.require)}' is neither match nor better", hint="--require match"
        )
    if asked.plot is not None:
        from rsoup.figures.raster import format_of

        format_of(asked.plot)
        if os.path.lexists(asked.plot) and not asked.overwrite:
            raise TargetError(
                "E0601", "the output exists", where=show_path(asked.plot), hint="--overwrite, or another name"
            )


# --- which seeds there are


def _by_seed(
    text: str, column: str | None, read: Callable[[str], _Read], all_: Callable[[], dict[str, _Read]]
) -> dict[str, _Read]:
    """What there is of each seed, in order of their numbers: `read` a table of one, or `all_` of one table by column.

    Raises UsageError E0281 where nothing says what a seed is, or there is none.
    """
    path, _ = parse_source(text)
    if (column is None) == (_SEED not in path):
        raise UsageError(
            "E0281",
            "nothing says which seed a point is of" if column is None else f"both {_SEED} and --seeds say what a seed is",
            where=show_path(path), hint=f"runs/{_SEED}/soups for a table per seed, or --seeds COLUMN for a table of all",
        )  # fmt: skip
    found = (
        all_()
        if column is not None
        else {name: read(name) for name in sorted(_matching(path), key=_numbered)}
    )
    if not found:
        raise UsageError("E0281", "there is no table of any seed", where=show_path(path), hint=f"what stands for {_SEED} must be there")  # fmt: skip
    return {name: found[name] for name in sorted(found, key=_numbered)}


def _numbered(name: str) -> list[tuple[bool, str]]:
    """So that 10 comes after 9."""
    return [(not part.isdigit(), part.zfill(20)) for part in re.split(r"(\d+)", name)]


def _matching(path: str) -> list[str]:
    """What stands for {seed} in the paths that exist; everywhere the same in one path."""
    parts = path.split(_SEED)
    pattern = re.escape(parts[0])
    for number, part in enumerate(parts[1:]):
        pattern += ("(?P<seed>[^/]+)" if number == 0 else "(?P=seed)") + re.escape(part)
    there = glob.glob("*".join(map(glob.escape, parts)))
    return [match["seed"] for one in there if (match := re.fullmatch(pattern, one))]


def _soups(reading: Reading, column: str | None) -> dict[str, Data]:
    """The soups' points by seed."""

    def one(name: str) -> Table:
        return read_table(reading.path.replace(_SEED, name), reading.columns)

    def every() -> dict[str, Table]:
        return read_tables(reading.path, reading.columns, str(column))

    tables = _by_seed(reading.path, column, one, every)
    return {name: reading.data(reading.finished(table)) for name, table in tables.items()}


def _others(text: str, reading: Reading, soups: Mapping[str, Data], column: str | None) -> dict[str, Table]:
    """A set compared, by seed: the same seeds as the soups'. Raises UsageError E0282 with those that only one has."""
    rewards = next(iter(soups.values())).rewards

    def one(name: str) -> Table:
        return read_other(reading, text.replace(_SEED, name), rewards, read_table)

    def every() -> dict[str, Table]:
        return read_other(
            reading, text, rewards, lambda path, columns: read_tables(path, columns, str(column))
        )

    found = _by_seed(text, column, one, every)
    sides = (("the soups", soups, found), ("those compared", found, soups))
    only = [f"only in {side}: {listing([name for name in ours if name not in theirs])}" for side, ours, theirs in sides if set(ours) - set(theirs)]  # fmt: skip
    if only:
        raise UsageError(
            "E0282", "the tables are not of the same seeds", where=show_path(parse_source(text)[0]),
            details=tuple(Problem("", text) for text in only), hint="seeds are compared in pairs",
        )  # fmt: skip
    return {name: other_report(reading, table) for name, table in found.items()}


def _titled(texts: Sequence[str]) -> dict[str, str]:
    """Name → TABLE[:COLUMN=VALUE] of every set compared. Raises UsageError E0256 for a name that two have."""
    found: dict[str, str] = {}
    for called, text in others_named(texts):
        path, conditions = parse_source(text)
        stem = os.path.splitext(os.path.basename(path.rstrip("/")))[0].replace(_SEED, "").strip("-_.")
        title = called or ", ".join(one.value for one in conditions) or stem or "others"
        if title in found:
            raise UsageError(
                "E0256", f"two sets are called '{show(title)}'", hint="--compare NAME=TABLE gives each a name"
            )
        found[title] = text
    return found


# --- what comes of it


def _draw(found: Mapping[str, Any], path: str, confidence: str) -> None:
    from rsoup.figures.advantage import advantage
    from rsoup.figures.raster import save
    from rsoup.figures.series import Band

    other = found["compared"][0]
    bands = []
    for row in other["curve"]:
        known = row["decision"] if len(found["seeds"]) >= 5 else None
        ends = (None, None) if known is None else (known["low"], known["high"])
        bands.append(Band(row["trainings"], row["difference"]["mean"], *ends))
    seeds = len(found["seeds"])
    note = f"Mean over {seeds} seed{'' if seeds == 1 else 's'}" + (
        ", chosen by the select values and scored by the report values."
        if found["scored_apart"] else "."
    )  # fmt: skip
    interval = f"{100 * parse_confidence(confidence):g} % bootstrap interval over the seeds"
    save(advantage(bands, over=other["name"], interval=interval, note=note), path)


def _judged(found: Mapping[str, Any], wanted: str | None) -> GateError | None:
    if wanted is None:
        return None
    problems = [
        Problem(show(one["name"]), one["verdict"] or "a single seed")
        for one in found["compared"]
        if one["verdict"] not in _ENOUGH[wanted]
    ]
    if not problems:
        return None
    return GateError(
        "E0405", f"the verdict is not {'match or better' if wanted == 'match' else 'better'}", details=tuple(problems),
        hint="more seeds decide what is inconclusive",
    )  # fmt: skip
