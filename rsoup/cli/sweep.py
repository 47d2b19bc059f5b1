"""`rsoup sweep`: arguments → spec → sweep → what the user sees."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace

from rsoup.cli.stopped import Stopped
from rsoup.cli.sweep_arguments import Arguments, Asked, asked_of
from rsoup.console import Console, Screen, use_colour
from rsoup.errors import UsageError, show, show_path
from rsoup.progress import Progress
from rsoup.quantities import parse_size, time_text
from rsoup.report import sweep_text
from rsoup.storage.target import size_text
from rsoup.sweep import asking
from rsoup.sweep import folder as folders
from rsoup.sweep.board import Board
from rsoup.sweep.grid import size_of
from rsoup.sweep.ledger import Ledger
from rsoup.sweep.options import RunOptions, visible_gpus, worker_environments
from rsoup.sweep.outlook import outlook
from rsoup.sweep.results import directions, front_of
from rsoup.sweep.running import Run
from rsoup.sweep.summary import hypervolume
from rsoup.sweep.sweeping import KEEPS, check_ended, sweep

MANY = 1000
FIRST_FAILURES = 3


@dataclass(frozen=True, slots=True)
class Running:
    """How it is run, which changes nothing of what is found."""

    out: str | None
    jobs: int
    gpus_per_job: int
    keep: str | None
    scratch_budget: str | None
    budget: str | None
    retries: int
    max_failures: int | None
    accept_changes: bool
    repair: bool
    yes: bool
    threads: int | None
    track: str | None = None


def _checked(running: Running, asked: Asked) -> tuple[RunOptions, int | None]:
    if running.keep is not None and running.keep not in KEEPS:
        raise UsageError(
            "E0210", f"--keep: there is no '{show(running.keep)}'", hint=f"one of {', '.join(KEEPS)}"
        )
    names = [ingredient.name for ingredient in asked.spec.request.ingredients]
    size = size_of(asked.spec.design, names) if asked.spec.strategy == "points" else len(names) + 1
    if size > MANY and not running.yes:
        raise UsageError(
            "E0250", f"these are {size} points", hint="that many are meant? --yes; a smaller --grid otherwise"
        )
    gpus = visible_gpus() if running.gpus_per_job else []
    options = RunOptions(
        environments=worker_environments(running.jobs, running.gpus_per_job, gpus),
        budget_seconds=None if running.budget is None else asking.parse_duration(running.budget),
        retries=running.retries,
        max_failures=running.max_failures,
        first_failures=FIRST_FAILURES,
        threads=running.threads,
    )
    return options, None if running.scratch_budget is None else parse_size(running.scratch_budget)


def _tracked(asked: Asked, track: str | None) -> Asked:
    """The sweep with another tracker than its file's; `none` is without one."""
    if track is None:
        return asked
    found = None if track == "none" else asking.parse_track(track)
    return replace(asked, spec=replace(asked.spec, track=found))


def run(arguments: Arguments, running: Running, *, console: Console) -> None:
    """Run the sweep and show what it found."""
    asked = _tracked(asked_of(arguments, running.out), running.track)
    options, scratch = _checked(running, asked)
    if running.repair:
        moved = Ledger(asked.out).repair()
        console.note(f"{moved} damaged lines were moved out of the results")
    try:
        with Screen(console) as screen:
            view = _View(console, screen)
            result = sweep(
                asked.spec,
                asked.out,
                options=options,
                keep=running.keep,
                scratch_nbytes=scratch,
                accept_changes=running.accept_changes,
                where=asked.where,
                on_tick=view,
                progress=view.mixing,
            )
    except Stopped as stopped:
        stopped.kept = asked.out
        raise
    unicode = (console.out.encoding or "").lower().startswith("utf")
    found = result.document
    lines = sweep_text.final(found, unicode=unicode, colour=use_colour(console.out))
    lines.append(f"report    {show_path(os.path.join(asked.out, folders.PAGE))}")
    lines += [f"soup      {show_path(os.path.relpath(path))}" for path in result.soups[:20]]
    notes = found["notes"]
    assert isinstance(notes, list)
    for note in (*notes, *result.notes):
        console.note(note)
    data = {
        "out": asked.out,
        "ended": result.ended,
        "evaluated": result.evaluated,
        "failed": result.failed,
        "soups": [os.path.relpath(path) for path in result.soups],
        "metrics": found,
        "notes": list(result.notes),
    }
    console.result("\n".join(lines), data, asked.out)
    check_ended(result)


def show_outlook(arguments: Arguments, running: Running, *, console: Console) -> None:
    """Print what the sweep would do: points, bytes, time."""
    asked = asked_of(arguments, running.out)
    options, scratch = _checked(replace(running, yes=True), asked)
    found = outlook(
        asked.spec,
        asked.out,
        workers=len(options.environments),
        scratch_nbytes=scratch,
        accept_changes=running.accept_changes,
        where=asked.where,
    )
    room = found.room
    everything = size_text(found.soup_nbytes * found.points)
    fit = "" if room is None or room >= found.points else f", {room} at a time"
    lines = [
        f"{found.points} points ({sweep_text.points_text(found.names)})",
        f"  evaluations  {found.evaluations}, {found.left} of them left",
        f"  soups        {size_text(found.soup_nbytes)} each, {everything} in all{fit}"
        if room is not None
        else "  soups        none on the disk: the evaluator takes them live",
        "  time         "
        + (
            "unknown: nothing is measured yet"
            if found.seconds is None
            else f"about {time_text(found.seconds)}"
        ),
    ]
    lines += [f"note: {note}" for note in found.notes]
    data = {
        "dry_run": True,
        "out": asked.out,
        "points": list(found.names),
        "evaluations": found.evaluations,
        "left": found.left,
        "soup_bytes": found.soup_nbytes,
        "room": room,
        "seconds": found.seconds,
        "notes": list(found.notes),
    }
    console.result("\n".join(lines), data, asked.out)


class _View:
    """What is seen of a sweep while it runs: a screen on a terminal, a line per evaluation elsewhere."""

    def __init__(self, console: Console, screen: Screen) -> None:
        self._console, self._screen = console, screen
        self._seen: int | None = None
        self._since: dict[int, tuple[object, float]] = {}
        self._mixing: str | None = None
        self._volume: float | None = None
        self._front = 0

    def mixing(self, progress: Progress) -> None:
        """How far the soups are."""
        done, total = progress.done_bytes, progress.total_bytes
        self._mixing = None if done >= total else f"{progress.phase} {size_text(done)} of {size_text(total)}"

    def __call__(self, board: Board, run: Run) -> None:
        with board.changed:
            records = board.ledger.records()
            if self._seen is None:
                self._seen = len(records)
            for record in records[self._seen :]:
                if not self._screen.drawn:
                    scores = {name: score.value for name, score in record.scores.items()}
                    self._console.talk(sweep_text.evaluated(record.point, record.split, scores, record.failure, record.seconds))  # fmt: skip
            is_news, self._seen = len(records) != self._seen, len(records)
            if self._screen.drawn:
                if is_news or self._volume is None:
                    self._front, self._volume = self._measure(board)
                self._screen.show(self._lines(board, run))

    def _measure(self, board: Board) -> tuple[int, float | None]:
        up = directions(board.spec, board.ledger.records())
        found = hypervolume(board.study, board.known, up)
        value = None if found is None else float(found["value"])
        return len(front_of(board.spec, board.known, up)), value

    def _lines(self, board: Board, run: Run) -> list[str]:
        now = time.monotonic()
        for worker, job in run.now.items():
            if self._since.get(worker, (None, 0.0))[0] != job:
                self._since[worker] = (job, now)
        shown = {w: (job.point.lambda_text, now - self._since[w][1]) for w, job in run.now.items()}
        past = [record.seconds for record in board.ledger.records()]
        left = len(board.open)
        states = [outcome.status for outcome in board.known.values()]
        return sweep_text.running(
            done=states.count("done"),
            total=len(board.wanted.points),
            failed=states.count("failed"),
            left_seconds=sum(past) / len(past) * left / len(run.options.environments) if past else None,
            now=shown,
            mixing=self._mixing,
            front=self._front,
            hypervolume=self._volume,
        )
