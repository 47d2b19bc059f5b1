"""`rsoup front`: read the points, ask all questions of them, show, draw, and gate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rsoup.analysis.compared import other_of
from rsoup.analysis.data import Data
from rsoup.analysis.document import Asked, document
from rsoup.analysis.drawn import Subject, pairs_left_out, spider_lines
from rsoup.analysis.intervals import Noise
from rsoup.cli.front_outputs import Outputs, parsed_plots, write
from rsoup.cli.reading import Reading, other_table, others_named
from rsoup.cli.terminal_width import columns_of
from rsoup.console import Console, error_json, use_colour
from rsoup.errors import GateError, Problem, UsageError, listing, show, show_path
from rsoup.gate.requirements import parse_confidence
from rsoup.report import front_text

_MOST_DRAWS = 100_000


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


def run(reading: Reading, questions: Questions, outputs: Outputs, *, console: Console) -> int:
    """Everything; 0, or 4 where a limit that was asked for is not kept. Files are written before anything is said."""
    _check(questions)
    plots = parsed_plots(outputs)
    noise = Noise(questions.draws, questions.seed, parse_confidence(questions.confidence))
    if noise.least > _MOST_DRAWS:
        raise UsageError(
            "E0275", f"intervals of --confidence {show(questions.confidence)} take {noise.least} draws, more than {_MOST_DRAWS}",
            hint="--confidence 0.999 at most",
        )  # fmt: skip
    table = reading.table()
    data = reading.data(table)
    _check_base(data, questions.base_point)
    others = [
        other_of(*other_table(reading, text, data.rewards, name), data)
        for name, text in others_named(questions.compare)
    ]
    asked = Asked(noise, questions.tolerance, reading.assignment(), questions.trainings, questions.base_point)
    found = document(table, data, others, asked)
    subject = Subject(table, data, others, found, outputs.smooth, questions.base_point)
    written = write(outputs, plots, subject, reading)
    if (outputs.figures is not None or "front" in dict(plots)) and (cut := pairs_left_out(data)):
        found["notes"].append(cut)
    error = _judged(found, questions)
    if not console.as_json:
        for note in found["notes"]:
            console.note(note)
    data_out = {**found, "written": written, "error": None if error is None else error_json(error)}
    text = "" if console.as_json or console.quiet else _text(subject, written, console)
    console.result(text, data_out, "\n".join(found["front"]["points"]))
    if error is not None:
        if not console.as_json:
            console.error(error)
        return error.exit_code
    return 0


def _text(subject: Subject, written: Sequence[str], console: Console) -> str:
    look = {"unicode": _unicode(console), "colour": use_colour(console.out)}
    spider = spider_lines(subject, **look)
    lines = front_text.final(subject.found, spider=spider, width=columns_of(console), **look)
    return "\n".join([*lines, *(f"  {'written':<16} {show_path(path)}" for path in written)])


def _check(questions: Questions) -> None:
    """Numbers are numbers: a limit that is none would let everything pass. Raises UsageError E0256."""
    for option, value in (
        ("--tolerance", questions.tolerance),
        ("--trainings", questions.trainings),
        ("--min-hypervolume", questions.min_hypervolume),
    ):
        if value is not None and not math.isfinite(value):
            raise UsageError(
                "E0256", f"{option} {value} is no finite number", hint=f"{option} 0.03, for instance"
            )


def _unicode(console: Console) -> bool:
    return (console.out.encoding or "").lower().replace("-", "") in ("utf8", "utf16", "utf32")


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
    open_ = any(problem.what == "INCONCLUSIVE" for problem in problems)
    return GateError(
        "E0404", "the front is not what was asked for", details=tuple(problems),
        hint="more samples decide it; --tolerance 0.03 allows 3 % of the experts' range" if open_ else "other λ, or other experts",
    )  # fmt: skip
