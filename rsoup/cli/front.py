"""`rsoup front`: read the points, ask all questions of them, show, draw, and gate."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rsoup.analysis.compared import Other, other_of
from rsoup.analysis.data import Data
from rsoup.analysis.document import Asked, document
from rsoup.analysis.drawn import KINDS, Subject, drawn, spider_lines
from rsoup.analysis.measures import Noise
from rsoup.cli.reading import Reading, others_named
from rsoup.console import Console, error_json, use_colour
from rsoup.errors import GateError, Problem, TargetError, UsageError, listing, show, show_path
from rsoup.gate.requirements import parse_confidence
from rsoup.measured.columns import Columns, parse_source
from rsoup.measured.table import FILE, read_table
from rsoup.measured.values import Table
from rsoup.report import front_text


@dataclass(frozen=True, slots=True)
class Questions:
    """What is asked beyond the points themselves; texts as they were typed."""

    compare: tuple[str, ...] = ()
    trainings: float | None = None
    base_point: str | None = None
    tolerance: float = 0.0
    require_connectivity: bool = False
    min_hypervolume: float | None = None
    confidence: str = "0.95"
    draws: int = 1000
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Outputs:
    """What is written: `plots` are [KIND=]FILE."""

    plots: tuple[str, ...] = ()
    figures: str | None = None
    page: str | None = None
    smooth: bool = False
    overwrite: bool = False


def run(reading: Reading, questions: Questions, outputs: Outputs, *, console: Console) -> int:
    """Everything; 0, or 4 where a limit that was asked for is not kept. Files are written before anything is said."""
    plots = [_plot(text) for text in outputs.plots]
    _check_targets([path for _, path in plots], outputs)
    noise = Noise(questions.draws, questions.seed, parse_confidence(questions.confidence))
    table = reading.table()
    data = reading.data(table)
    _check_base(data, questions.base_point)
    others = [_other(name, text, reading, data) for name, text in others_named(questions.compare)]
    asked = Asked(noise, questions.tolerance, reading.assignment(), questions.trainings, questions.base_point)
    found = document(table, data, others, asked)
    subject = Subject(table, data, others, found, outputs.smooth)
    written = [*_draw(plots, subject), *_draw_all(outputs.figures, subject)]
    if outputs.page is not None:
        _write_page(outputs.page, reading, table, data)
        written.append(outputs.page)
    error = _judged(found, questions)
    if not console.as_json:
        for note in found["notes"]:
            console.note(note)
    look = {"unicode": _unicode(console), "colour": use_colour(console.out)}
    lines = front_text.final(found, spider=spider_lines(subject, **look), **look)
    lines += [f"  {'written':<16} {show_path(path)}" for path in written]
    data_out = {**found, "written": written, "error": None if error is None else error_json(error)}
    console.result("\n".join(lines), data_out, "\n".join(found["front"]["points"]))
    if error is not None:
        if not console.as_json:
            console.error(error)
        return error.exit_code
    return 0


def _unicode(console: Console) -> bool:
    return (console.out.encoding or "").lower().replace("-", "") in ("utf8", "utf16", "utf32")


def _other(name: str | None, text: str, reading: Reading, data: Data) -> Other:
    """The set of other models that `[NAME=]TABLE[:COLUMN=VALUE]` says; a foreign table is read like the first one."""
    path, where = parse_source(text)
    if os.path.lexists(text):
        path, where = text, ()
    mine = reading.columns
    own = os.path.isdir(path) or _is_document(path)
    shares = () if own else mine.shares
    metrics = tuple(data.rewards) if mine.metrics and not own else ()
    try:
        table = read_table(path, Columns(metrics, where, shares, None if own else mine.name))
    except UsageError as error:
        if error.code != "E0253" or not shares or where:
            raise
        table = read_table(path, Columns(metrics, where))  # a table of its own, without these columns of λ
    title = name or (where[0].value if where else os.path.splitext(os.path.basename(path.rstrip("/")))[0])
    return other_of(title, table, data)


def _is_document(path: str) -> bool:
    return os.path.basename(path) == FILE


def _check_base(data: Data, name: str | None) -> None:
    if name is not None and name not in data.names:
        raise UsageError(
            "E0255",
            f"there is no point '{show(name)}'",
            where=data.shown,
            hint=f"there are {listing(data.names)}",
        )


def _judged(found: Mapping[str, Any], questions: Questions) -> GateError | None:
    """The error that the limits asked for are; None where they are kept."""
    problems = []
    lmc, volume = found["connectivity"], found["hypervolume"]
    if questions.require_connectivity:
        verdict = "NOT TESTED" if lmc is None else lmc["verdict"]
        if verdict != "PASS":
            problems.append(Problem("connectivity", verdict))
    if questions.min_hypervolume is not None:
        value = None if volume is None else volume["value"]
        if value is None or value < questions.min_hypervolume:
            shown = "it needs two rewards" if value is None else f"{value:.6g}, and at least {questions.min_hypervolume:g} is asked for"  # fmt: skip
            problems.append(Problem("hypervolume", shown))
    if not problems:
        return None
    return GateError(
        "E0404", "the front is not what was asked for", details=tuple(problems),
        hint="more samples decide what is INCONCLUSIVE; --tolerance 0.03 allows 3 % of the experts' range",
    )  # fmt: skip


# --- what is written


def _plot(text: str) -> tuple[str, str]:
    kind, equals, path = text.partition("=")
    if not equals or os.path.sep in kind:
        kind, path = "front", text
    if kind not in KINDS or not path:
        raise UsageError(
            "E0256", f"--plot '{show(text)}' is not KIND=FILE", hint=f"KIND is one of {', '.join(KINDS)}"
        )
    from rsoup.figures.raster import format_of

    format_of(path)
    return kind, path


def _check_targets(paths: Sequence[str], outputs: Outputs) -> None:
    """Nothing is replaced that was not asked to be. Raises TargetError E0601."""
    for path in [*paths, *(p for p in (outputs.page, outputs.figures) if p is not None)]:
        if (
            os.path.lexists(path)
            and not outputs.overwrite
            and not (path == outputs.figures and os.path.isdir(path))
        ):
            raise TargetError(
                "E0601", "the output exists", where=show_path(path), hint="--overwrite, or another name"
            )


def _draw(plots: Sequence[tuple[str, str]], subject: Subject) -> list[str]:
    from rsoup.figures.raster import save

    written = []
    for kind, path in plots:
        figures = drawn(kind, subject)
        if not figures:
            raise UsageError("E0256", f"these points have no figure of {kind}", hint=_NEEDS[kind])
        stem, ending = os.path.splitext(path)
        for name, svg in figures.items():
            place = path if len(figures) == 1 else f"{stem}{name.removeprefix(kind)}{ending}"
            save(svg, place)
            written.append(place)
    return written


_NEEDS = {
    "front": "it needs two rewards",
    "spider": "it needs three to eight rewards, and two models such as two experts",
    "connectivity": "it needs two ingredients, each measured alone",
    "advantage": "it needs --compare with at least two points",
    "training": "it needs points of two training steps",
    "transfer": "it needs every ingredient measured alone, and two rewards",
}


def _draw_all(folder: str | None, subject: Subject) -> list[str]:
    if folder is None:
        return []
    from rsoup.figures.raster import save
    from rsoup.storage.target import target_error

    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise target_error(error, show_path(folder)) from error
    written = []
    for kind in KINDS:
        for name, svg in drawn(kind, subject).items():
            path = os.path.join(folder, f"{name}.svg")
            save(svg, path)
            written.append(path)
    return written


def _write_page(path: str, reading: Reading, table: Table, data: Data) -> None:
    """The page of the sweep's own document where there is one and all of it is meant, else of the table."""
    from rsoup.analysis.metrics import metrics_document
    from rsoup.report.page import page
    from rsoup.storage.files import parse_json, read_whole
    from rsoup.sweep.folder import write_whole

    source = os.path.join(reading.path, FILE) if os.path.isdir(reading.path) else reading.path
    whole = _is_document(source) and not (reading.rewards or reading.guards or reading.where)
    if whole:
        found = parse_json(read_whole(source, show_path(source), 64_000_000), show_path(source))
    else:
        found = json.loads(json.dumps(metrics_document(table, data)))
    assert isinstance(found, dict)
    write_whole(path, page(found).encode())
