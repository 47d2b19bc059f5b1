"""The board: which evaluations are open, taken and settled, shared by the threads of one process."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Protocol

from rsoup.sweep.outcomes import Outcome, jobs, outcomes
from rsoup.sweep.point import Point
from rsoup.sweep.record import Record, latest
from rsoup.sweep.results import directions, front_of
from rsoup.sweep.spec import SweepSpec
from rsoup.sweep.strategy import Ask, Wanted, wanted
from rsoup.sweep.study import Job, Keys, Study

_LOOK_SECONDS = 1.0


class Records(Protocol):
    """What the board needs of a ledger."""

    def records(self) -> Sequence[Record]:
        """All records in the order they were appended."""


class Board:
    """What is known and what is to be done; every method is called with `changed` held, but for its own waits."""

    def __init__(self, study: Study, ledger: Records, keys: Keys, *, retries: int = 0) -> None:
        self.changed = threading.Condition()
        self.study, self.ledger, self.keys = study, ledger, keys
        self.attempts: dict[str, int] = {}
        self.known: dict[Point, Outcome] = {}
        self.wanted = Wanted({}, complete=False)
        self.open: list[Job] = []
        self.finished = False
        self._retries = retries
        self._busy: set[str] = set()
        self._elsewhere: dict[str, float] = {}
        self._seen = -1
        self.look()

    @property
    def spec(self) -> SweepSpec:
        """The sweep as it was asked for."""
        return self.study.spec

    def _again(self, key: str) -> bool:
        return self.attempts.get(key, 0) <= self._retries

    @property
    def failures(self) -> int:
        """Evaluations that failed in this run as often as they may."""
        return sum(not self._again(key) for key in self.attempts)

    def look(self) -> Sequence[Record]:
        """Read what is new in the ledger, and decide what is wanted now."""
        records = self.ledger.records()
        if len(records) != self._seen:
            self._seen = len(records)
            self._decide(records)
        return records

    def failed(self, key: str) -> None:
        """An evaluation failed once more."""
        self.attempts[key] = self.attempts.get(key, 0) + 1
        self._seen = -1

    def _decide(self, records: Sequence[Record]) -> None:
        names = [metric.name for metric in self.spec.metrics if not metric.guard]
        points: dict[Point, str] = {}
        while True:  # what is measured may want more, which may be measured already
            self.known = outcomes(self.spec, points, self.keys, records, again=self._again)
            up = directions(self.spec, records)
            ask = Ask(self.spec, self.study.names, self.study.steps, names, up)
            self.wanted = wanted(ask, self.known)
            if self.wanted.points.keys() == points.keys():
                break
            points = dict(self.wanted.points)
        by_key = latest(records)
        selecting = [job for point in points for job in jobs(self.spec, point)]
        self.open = [job for job in selecting if self._is_open(job, by_key)]
        if not self.open and self.wanted.complete:
            best = front_of(self.spec, self.known, up, self.wanted.greedy)
            again = points if self.spec.report_all else best
            reporting = [job for point in again for job in jobs(self.spec, point, "report")]
            self.open = [job for job in reporting if self._is_open(job, by_key)]
            self.finished = not self.open

    def _is_open(self, job: Job, by_key: dict[str, Record]) -> bool:
        record = by_key.get(self.keys[job])
        return record is None or (record.status == "failed" and self._again(self.keys[job]))

    def take(self, is_ready: dict[int, bool], has_soup: set[Point]) -> Job | None:
        """An open evaluation that nobody has, as far as known here; it is this thread's until `put_back`."""
        now = time.monotonic()
        for job in self.open:
            key = self.keys[job]
            if key in self._busy or self._elsewhere.get(key, 0.0) > now:
                continue
            if is_ready[job.evaluator] or job.point in has_soup:
                self._busy.add(key)
                return job
        return None

    def put_back(self, job: Job, *, elsewhere: bool = False) -> None:
        """Nobody here has it any more; `elsewhere`: another process has, look again later."""
        key = self.keys[job]
        self._busy.discard(key)
        if elsewhere:
            self._elsewhere[key] = time.monotonic() + _LOOK_SECONDS
        self.changed.notify_all()
