"""Task and Evaluation: what an evaluator is asked, and what it answers."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from rsoup.sweep.point import Point
from rsoup.sweep.score import Score


@dataclass(frozen=True, slots=True)
class Task:
    """One evaluation: a soup, a seed, a split (`select` or `report`).

    `model` is the soup's folder or file, None for an evaluator that needs none; `out` an existing empty
    folder for what the evaluator writes; `log` the file its output goes to. All are absolute paths.
    """

    point: Point
    seed: int
    split: str
    model: str | None
    out: str
    log: str
    base: str | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came of a task: scores by metric, or `failure` in words; `seconds` of wall time, never both empty.

    `exit_status` is the command's (negative: the signal that ended it), None where there is none.
    """

    scores: Mapping[str, Score] = field(default_factory=dict)
    seconds: float = 0.0
    failure: str | None = None
    exit_status: int | None = None


class Session(Protocol):
    """One worker's evaluator; one task at a time."""

    def evaluate(self, task: Task, stop: threading.Event) -> Evaluation:
        """The scores of a task; returns soon after `stop` is set, with everything it started ended."""


class Evaluator(Protocol):
    """A way to score soups."""

    @property
    def needs_files(self) -> bool:
        """Whether `Task.model` must be there."""

    @property
    def identity(self) -> Mapping[str, object]:
        """What decides the scores, as JSON: command, digests of the files it names, version, addresses."""

    def session(self, environment: Mapping[str, str]) -> AbstractContextManager[Session]:
        """An evaluator for one worker, with these variables added to its environment."""
