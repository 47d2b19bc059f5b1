"""What a sweep would do, before it does anything."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from rsoup.progress import OnProgress
from rsoup.sweep import folder as folders
from rsoup.sweep.board import Board, Records
from rsoup.sweep.inputs import Inputs, digests
from rsoup.sweep.ledger import Ledger
from rsoup.sweep.outcomes import jobs
from rsoup.sweep.record import Record
from rsoup.sweep.shelf import Shelf
from rsoup.sweep.spec import SweepSpec
from rsoup.sweep.study import Keys, Study, state_of
from rsoup.sweep.sweeping import compare, evaluators_of, soup_nbytes


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a sweep would do: points and evaluations there are and left, bytes, seconds where some are known."""

    points: int
    evaluations: int
    left: int
    soup_nbytes: int
    room: int | None
    seconds: float | None
    names: tuple[str, ...]
    notes: tuple[str, ...]


def outlook(
    spec: SweepSpec,
    out: str,
    *,
    workers: int,
    scratch_nbytes: int | None,
    accept_changes: bool,
    where: str | None = None,
    progress: OnProgress | None = None,
) -> Outlook:
    """What `sweep` would do now; nothing is written but, in a sweep's folder, digests of its checkpoints.

    Raises what `opened` raises.
    """
    place = os.path.abspath(where or ".")
    study = Study(spec, out)
    found = evaluators_of(study, place)
    if folders.is_sweep(study.folder):
        inputs = digests(study.recipes(), study.folder, progress=progress)
        compare(study, {**state_of(study, inputs, found), "where": place}, accept_changes)
        ledger: Records = Ledger(study.folder)
    else:
        folders.check(study.folder)
        inputs, ledger = _unread(study), NoRecords()
    board = Board(study, ledger, Keys(study, inputs, found))
    points = list(board.wanted.points)
    nbytes = soup_nbytes(study, board)
    room = None
    if any(evaluator.needs_files for evaluator in found):
        room = Shelf(study, inputs, nbytes, scratch_nbytes).room
    past = [record.seconds for record in ledger.records()]
    each = sum(past) / len(past) if past else None
    return Outlook(
        points=len(points),
        evaluations=sum(len(jobs(study.spec, point)) for point in points),
        left=len(board.open),
        soup_nbytes=nbytes,
        room=room,
        seconds=None if each is None else each * len(board.open) / max(1, workers),
        names=tuple(point.name for point in points),
        notes=study.notes,
    )


class NoRecords:
    """The ledger of a sweep that was never run."""

    def records(self) -> Sequence[Record]:
        """None."""
        return ()


def _unread(study: Study) -> Inputs:
    """Paths in place of digests, where there is no result yet that one could be compared with."""
    paths = {path: path for recipe in study.recipes() for _, path in recipe.checkpoints()}
    if study.base is not None:
        paths[study.base] = study.base
    return Inputs(paths, paths)
