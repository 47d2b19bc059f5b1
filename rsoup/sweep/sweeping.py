"""sweep(spec, folder): from a grid of λ to a measured front; what is measured already is not measured again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rsoup.errors import BusyError, EvaluationError, IncompatibleError, Problem, UsageError, show, show_path
from rsoup.lora.mounting import makes_adapter
from rsoup.methods import METHODS
from rsoup.prepare import prepared
from rsoup.progress import OnProgress
from rsoup.recipe import Recipe
from rsoup.storage.whole import write_whole
from rsoup.sweep import evaluators as making
from rsoup.sweep import folder as folders
from rsoup.sweep import summary
from rsoup.sweep.board import Board
from rsoup.sweep.evaluation import Evaluator
from rsoup.sweep.inputs import Inputs, digests
from rsoup.sweep.ledger import Ledger
from rsoup.sweep.options import RunOptions
from rsoup.sweep.results import best_of, directions, front_of
from rsoup.sweep.running import OnTick, Run
from rsoup.sweep.shelf import Shelf
from rsoup.sweep.spec import SweepSpec
from rsoup.sweep.study import Keys, Study, changes, state_of
from rsoup.sweep.sweep_yaml import dump
from rsoup.sweep.tracking import check_installed, mirrored_to

_FAILURE_LENGTH = 240
KEEPS = ("none", "front", "best", "all")


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep found: the folder, the document of metrics.json, how it `ended` (complete, failures, budget).

    `evaluated` is how many evaluations this run added, `failed` how many points could not be measured, `notes` what
    went wrong beside the sweep.
    """

    folder: str
    document: Mapping[str, object]
    ended: str
    evaluated: int
    failed: int
    soups: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Opened:
    """A sweep that is made or taken up, and not begun."""

    study: Study
    board: Board
    evaluators: tuple[Evaluator, ...]
    inputs: Inputs
    ledger: Ledger


def opened(
    spec: SweepSpec,
    out: str,
    *,
    where: str,
    accept_changes: bool,
    retries: int = 0,
    keep: str = "none",
    progress: OnProgress | None = None,
) -> Opened:
    """The sweep in `out`, made or taken up: everything compared, nothing evaluated.

    Raises UsageError E0222 (other options or another evaluator than its results have), IncompatibleError E0311
    (other weights), TargetError E0601, and whatever its recipes, checkpoints and evaluators refuse.
    """
    study = Study(spec, out)
    recipes = study.recipes()
    found = evaluators_of(study, where)
    with folders.made(study.folder):
        inputs = digests(recipes, study.folder, progress=progress)
    now = {**state_of(study, inputs, found), "where": where, "keep": keep}
    compare(study, now, accept_changes)
    text = dump(study.spec).encode("utf-8", "surrogateescape")
    write_whole(os.path.join(study.folder, folders.SPEC), text)
    state = json.dumps(now, indent=2, sort_keys=True) + "\n"
    write_whole(os.path.join(study.folder, folders.STATE), state.encode())
    ledger = Ledger(study.folder)
    board = Board(study, ledger, Keys(study, inputs, found), retries=retries)
    return Opened(study, board, found, inputs, ledger)


def evaluators_of(study: Study, where: str) -> tuple[Evaluator, ...]:
    """The evaluators of a study, run in the folder `where`; nothing is started. Raises UsageError E0237 to E0239."""
    if any(evaluator.function is not None for evaluator in study.spec.evaluators):
        _check_full(study)
    return tuple(
        making.make(evaluator, folder=where, recipe_for=study.recipe, base=study.base)
        for evaluator in study.spec.evaluators
    )


def _check_full(study: Study) -> None:
    """A function is given full weights: refuse what only an adapter can be. Raises UsageError E0238."""
    recipe = study.recipes()[0]
    asked = [
        option
        for option, is_asked in (
            (f"--method {recipe.method}", METHODS[recipe.method].adapters_only),
            ("--rank", recipe.rank is not None),
            ("--max-error", recipe.max_error is not None),
        )
        if is_asked
    ]
    if asked:
        raise UsageError(
            "E0238",
            f"a function is given full weights, and {' and '.join(asked)} makes an adapter",
            hint="--eval 'python score.py {model}' is given the adapter's folder",
        )


def _state(folder: str) -> dict[str, object]:
    """What is known of the sweep in a folder; nothing where there is none. Raises UsageError E0222 for a damaged one."""
    path = os.path.join(folder, folders.STATE)
    try:
        with open(path, "rb") as file:
            found = json.load(file)
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UsageError(
            "E0222", "the sweep's state is damaged", where=show_path(path), hint="choose another -o"
        )
    return found


def compare(study: Study, now: Mapping[str, object], accept: bool) -> None:
    """Refuse results of something else, unless they are accepted. Raises UsageError E0222, IncompatibleError E0311."""
    before = _state(study.folder)
    found = changes(before, now)
    if not before or not found or accept:
        return
    details = tuple(Problem(what, how) for what, how in found)
    message = "the results in this folder are results of something else"
    where = show_path(study.folder)
    hint = "another -o; or --accept-changes, which keeps the old results and measures all points anew"
    if any(what.startswith(("ingredient", "base")) for what, _ in found):
        raise IncompatibleError("E0311", message, where=where, details=details, hint=hint)
    raise UsageError("E0222", message, where=where, details=details, hint=hint)


def sweep(
    spec: SweepSpec,
    out: str | os.PathLike[str],
    *,
    options: RunOptions | None = None,
    keep: str | None = None,
    scratch_nbytes: int | None = None,
    accept_changes: bool = False,
    where: str | None = None,
    on_tick: OnTick = lambda *_: None,
    progress: OnProgress | None = None,
) -> SweepResult:
    """Measure the rewards of every λ that is asked for, in the folder `out`; go on where an earlier run stopped.

    Soups are written in batches from one reading of the checkpoints, evaluated and deleted (`keep`: none, front,
    best, all; None: as before, none at first); evaluators that are Python functions need none. Every result is on the disk as soon as it is there.
    `where` is the folder in which evaluators run. Raises what `opened` and a merge raise, UsageError E0272 and E0274
    for a tracker that cannot be used; one that fails later is a note of the result.
    """
    options = options or RunOptions()
    check_installed(spec.track)
    place = os.path.abspath(where or ".")
    if keep is None:
        keep = str(_state(os.path.abspath(os.fspath(out))).get("keep", "none"))
    found = opened(
        spec,
        os.fspath(out),
        where=place,
        accept_changes=accept_changes,
        retries=options.retries,
        keep=keep,
        progress=progress,
    )
    study, board = found.study, found.board
    before = len(found.ledger.records())
    shelf = None
    if keep != "none" or any(evaluator.needs_files for evaluator in found.evaluators):
        shelf = Shelf(study, found.inputs, soup_nbytes(study, board), scratch_nbytes)
    run = Run(study, board, shelf, found.evaluators, options, on_tick=on_tick, progress=progress)
    kept: list[str] = []
    notes: list[str] = []
    with mirrored_to(spec.track, study.folder, study.names, where=place, notes=notes):
        try:
            run.run()
            board.look()
            if run.ended == "complete":
                kept = _keep(study, board, shelf, keep, options, progress)
        finally:
            board.look()
            document = summary.write(study, board, notes_of(study, found.ledger))
    failed = sum(outcome.status == "failed" for outcome in board.known.values())
    added = len(found.ledger.records()) - before
    return SweepResult(study.folder, document, run.ended, added, failed, tuple(kept), tuple(notes))


def notes_of(study: Study, ledger: Ledger) -> list[str]:
    """What a careful reader should know: steps left out, lines of the ledger that are damaged."""
    damage = ledger.damage()
    lines = ", ".join(str(line) for line in ledger.damaged)
    return [*study.notes, *([f"{damage.message}: line {lines}"] if damage else [])]


def _keep(
    study: Study,
    board: Board,
    shelf: Shelf | None,
    keep: str,
    options: RunOptions,
    progress: OnProgress | None,
) -> list[str]:
    """Leave the soups that are asked for, make those that are not there any more, delete the others."""
    if shelf is None:
        return []
    points = list(board.wanted.points)
    up = directions(study.spec, board.ledger.records())
    front = front_of(study.spec, board.known, up, board.wanted.greedy)
    best = best_of(study.spec, board.known, up, front)
    kept = {"none": [], "front": front, "best": [best] if best else [], "all": points}[keep]
    shelf.keep_only(kept, points)
    while batch := shelf.next_batch(kept, []):
        shelf.make(batch, threads=options.threads, progress=progress)
    return [study.soup(point) for point in kept if shelf.has(point)]


def soup_nbytes(study: Study, board: Board) -> int:
    """Bytes of one soup of the sweep, the largest of its kinds; 0 where nothing is wanted."""
    points = list(board.wanted.points)
    if not points:
        return 0
    point = max(points, key=lambda p: (sum(share != 0 for share in p.mix), p.name))
    recipe = study.recipe(point)
    if makes_adapter(recipe):
        return _adapter_nbytes(recipe)
    with prepared(recipe, os.path.join(study.folder, folders.SOUPS, ".probe" + os.path.splitext(study.soup(point))[1])) as ready:  # fmt: skip
        return ready.plan.nbytes


def _adapter_nbytes(recipe: Recipe) -> int:
    """The ingredients' bytes together: an exact soup has the sum of their ranks."""
    total = 0
    for _, path in recipe.checkpoints():
        for folder, _, names in os.walk(path):
            total += sum(os.path.getsize(os.path.join(folder, name)) for name in names)
    return total


def _ends(text: str) -> str:
    """The first and the last line of a failure: what happened, and what was said of it last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return show(lines[0] if len(lines) == 1 else f"{lines[0]}: {lines[-1]}", _FAILURE_LENGTH)


def check_ended(result: SweepResult) -> None:
    """Nothing for a complete sweep; EvaluationError E0501 for failures, BusyError E7503 for one out of time."""
    points = result.document["points"]
    assert isinstance(points, Sequence)
    failed = [point for point in points if point["status"] == "failed"]
    pending = [point for point in points if point["status"] == "pending"]
    if result.ended == "budget":
        raise BusyError(
            "E7503",
            f"the time is over, and {len(pending)} of {len(points)} points are left",
            where=show_path(result.folder),
            hint="run the same command again to go on",
        )
    if failed or result.ended == "failures":
        raise EvaluationError(
            "E0501",
            f"{len(failed)} of {len(points)} points could not be measured"
            + (f", and {len(pending)} were not tried any more" if pending else ""),
            where=show_path(result.folder),
            details=tuple(
                Problem(f"{point['point']} ({point['log']})", _ends(str(point["failure"])))
                for point in failed[:10]
            ),
            hint="the others are kept; run the same command again to retry only these"
            if any(point["status"] == "done" for point in points)
            else "run the same command again when it is mended; --max-failures N goes on beyond N failures",
        )
