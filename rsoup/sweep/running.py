"""The run: one thread makes soups, others evaluate them, the ledger keeps what came of it."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence, Set
from contextlib import ExitStack
from itertools import chain, count

from rsoup.errors import RsoupError
from rsoup.mix import format_number
from rsoup.progress import OnProgress, Progress
from rsoup.storage.target import target_error
from rsoup.sweep import folder as folders
from rsoup.sweep.board import Board
from rsoup.sweep.claims import Claims
from rsoup.sweep.evaluation import Evaluation, Evaluator, Session, Task
from rsoup.sweep.ledger import Ledger
from rsoup.sweep.options import RunOptions
from rsoup.sweep.outcomes import place_of
from rsoup.sweep.point import Point
from rsoup.sweep.processes import MARK, kill_marked
from rsoup.sweep.record import Record, latest
from rsoup.sweep.shelf import Shelf
from rsoup.sweep.study import Job, Study

_TICK_SECONDS = 0.1
_HOLD = "merge"


OnTick = Callable[[Board, "Run"], None]


class Run:
    """One process's part of a sweep. `ended` says why it is over: complete, failures, budget."""

    def __init__(
        self,
        study: Study,
        board: Board,
        shelf: Shelf | None,
        evaluators: Sequence[Evaluator],
        options: RunOptions,
        *,
        on_tick: OnTick,
        progress: OnProgress | None = None,
    ) -> None:
        self.study, self.board, self.shelf = study, board, shelf
        self.evaluators, self.options = evaluators, options
        self.ended = "complete"
        self.now: dict[int, Job] = {}
        self._ledger = Ledger(study.folder)
        self._claims = Claims(study.folder)
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self._on_tick, self._progress = on_tick, progress
        self._began = time.monotonic()
        self._mark = f"rsoup-{uuid.uuid4().hex}"
        self._needs_files = {i: evaluator.needs_files for i, evaluator in enumerate(evaluators)}

    def run(self) -> None:
        """Evaluate until nothing is open, too much failed, the time is over, or an error or a signal comes.

        Raises what a merge raises, and what an evaluator that cannot be started does. Whatever it is, every process
        that was started has ended, and what was measured is on the disk.
        """
        workers = [threading.Thread(target=self._work, args=(i,), daemon=True) for i in range(len(self.options.environments))]  # fmt: skip
        threads = [*workers, *([threading.Thread(target=self._cook, daemon=True)] if self.shelf else [])]
        started = []
        try:
            for thread in threads:
                thread.start()
                started.append(thread)
            while any(thread.is_alive() for thread in workers) and not self._stop.is_set():
                self._tick()
        finally:
            self._stop.set()
            with self.board.changed:
                self.board.changed.notify_all()
            for thread in started:
                thread.join()
        if self._errors:
            raise self._errors[0]

    def _tick(self) -> None:
        with self.board.changed:
            self.board.changed.wait(_TICK_SECONDS)
        left = self._left()
        if left is not None and left <= 0:
            self.ended = "budget"
            self._stop.set()
        self._on_tick(self.board, self)

    def _left(self) -> float | None:
        """Seconds of the budget that are left; None without one."""
        budget = self.options.budget_seconds
        return None if budget is None else budget - (time.monotonic() - self._began)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except _StoppedError:
            pass
        except BaseException as error:
            self._errors.append(error)
            self._stop.set()
        finally:
            with self.board.changed:
                self.board.changed.notify_all()

    # ----- soups

    def _cook(self) -> None:
        self._guarded(self._cook_all)

    def _cook_all(self) -> None:
        assert self.shelf is not None
        while not self._stop.is_set():
            with self.board.changed:
                if self.board.finished:
                    return
                batch = self._batch()
                if not batch:
                    self.board.changed.wait(_TICK_SECONDS)
                    continue
            with self._claims.hold(_HOLD, wait=False) as held:
                if held:
                    with self.board.changed:
                        batch = self._batch()  # another process may have made some
                    if batch:
                        self.shelf.make(batch, threads=self.options.threads, progress=self._watched)
            with self.board.changed:
                self.board.changed.notify_all()
                if not held:
                    self.board.changed.wait(_TICK_SECONDS * 5)

    def _watched(self, progress: Progress) -> None:
        if self._stop.is_set():
            raise _StoppedError
        if self._progress is not None:
            self._progress(progress)

    def _batch(self) -> list[Point]:
        assert self.shelf is not None
        waiting = dict.fromkeys(job.point for job in self.board.open if self._needs_files[job.evaluator])
        settled = [point for point in self.board.wanted.points if point not in waiting]
        return self.shelf.next_batch(list(waiting), settled)

    # ----- evaluations

    def _work(self, number: int) -> None:
        self._guarded(lambda: self._evaluate_all(number))

    def _evaluate_all(self, number: int) -> None:
        mark = f"{self._mark}/{number}"
        environment = {**self.options.environments[number], MARK: mark}
        sessions: dict[int, Session] = {}
        with ExitStack() as stack:
            while (job := self._next()) is not None:
                if job.evaluator not in sessions:
                    session = self.evaluators[job.evaluator].session(environment)
                    sessions[job.evaluator] = stack.enter_context(session)
                self._claimed(number, job, mark, sessions[job.evaluator])

    def _next(self) -> Job | None:
        ready = {i: not needed for i, needed in self._needs_files.items()}
        while not self._stop.is_set():
            with self.board.changed:
                self.board.look()
                if self.board.finished:
                    return None
                has = set()
                if self.shelf is not None:
                    has = {
                        p for p in dict.fromkeys(job.point for job in self.board.open) if self.shelf.has(p)
                    }
                job = self.board.take(ready, has)
                if job is not None:
                    return job
                self.board.changed.wait(_TICK_SECONDS * 2)
        return None

    def _claimed(self, number: int, job: Job, mark: str, session: Session) -> None:
        key = self.board.keys[job]
        claim = self._claims.claim(key, mark)
        if claim is None:
            with self.board.changed:
                self.board.put_back(job, elsewhere=True)
            return
        done = False
        try:
            for orphan in claim.orphan_marks:
                kill_marked(orphan)
            with self.board.changed:
                self.now[number] = job
                known = latest(self.board.look()).get(key)
            if (known is None or known.status == "failed") and self._fits(job):
                self._evaluate(job, key, session)
            done = True
        finally:
            claim.release(done)
            with self.board.changed:
                self.now.pop(number, None)
                self.board.look()
                self.board.put_back(job)

    def _fits(self, job: Job) -> bool:
        """Whether an evaluation as long as the others of its kind ends within the budget; else the run is over."""
        left = self._left()
        if left is None:
            return True
        with self.board.changed:
            past = [r.seconds for r in self.board.look() if r.evaluator == job.evaluator]
        if past and sum(past) / len(past) > left:
            self.ended = "budget"
            self._stop.set()
            return False
        return not self._stop.is_set()

    def _evaluate(self, job: Job, key: str, session: Session) -> None:
        with self.board.changed:
            records = self.board.look()
        attempt = 1 + sum(record.key == key for record in records)
        task = self._task(job, attempt, {place_of(record) for record in records if record.key != key})
        found = session.evaluate(task, self._stop)
        if self._stop.is_set() and found.failure is not None:
            return  # it was ended, it did not fail
        with self.board.changed:
            origin = self.board.wanted.points[job.point]
        self._ledger.append(self._record(job, key, task, found, attempt, origin))
        if found.failure is not None:
            with self.board.changed:
                self.board.failed(key)
                self._check_failures()

    def _check_failures(self) -> None:
        """End the run where too much has failed; with `changed` held."""
        limit, first, failures = self.options.max_failures, self.options.first_failures, self.board.failures
        over = limit is not None and failures > limit
        if limit is None and first is not None and failures >= first:
            self.board.look()
            over = not any(outcome.select for outcome in self.board.known.values())
        if over:
            self.ended = "failures"
            self._stop.set()

    def _task(self, job: Job, attempt: int, taken: Set[str]) -> Task:
        """Where the evaluation reads and writes; its folder is empty, its log its own, none of another evaluation."""
        name = f"{job.point.name}/{job.split}-{job.seed}" + (f"-{job.evaluator + 1}" if job.evaluator else "")
        name += f"-attempt-{attempt}" if attempt > 1 else ""
        name = next(n for n in chain([name], (f"{name}~{i}" for i in count(2))) if n not in taken)
        out = os.path.join(self.study.folder, folders.OUTPUTS, name)
        log = os.path.join(self.study.folder, folders.LOGS, f"{name}.log")
        try:
            shutil.rmtree(out, ignore_errors=True)
            os.makedirs(out, exist_ok=True)
            os.makedirs(os.path.dirname(log), exist_ok=True)
        except OSError as error:
            raise target_error(error, out) from error
        model = self.study.soup(job.point) if self._needs_files[job.evaluator] else None
        return Task(job.point, job.seed, job.split, model, out, log, self.study.base)

    def _record(self, job: Job, key: str, task: Task, found: Evaluation, attempt: int, origin: str) -> Record:
        names = self.study.names
        shares = {
            name: format_number(share) for name, share in zip(names, job.point.mix, strict=True) if share != 0
        }
        return Record(
            key=key,
            point=job.point.name,
            mix=shares,
            scale=format_number(job.point.scale),
            step=job.point.step,
            evaluator=job.evaluator,
            seed=job.seed,
            split=job.split,
            status="done" if found.failure is None else "failed",
            scores=found.scores,
            failure=found.failure,
            seconds=round(found.seconds, 3),
            soup=self.shelf.digest(job.point) if self.shelf is not None and task.model is not None else None,
            log=os.path.relpath(task.log, self.study.folder),
            host=socket.gethostname(),
            finished=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            origin=origin,
            attempt=attempt,
        )


class _StoppedError(RsoupError):
    """A merge is put down because the run is over."""

    def __init__(self) -> None:
        super().__init__("E7502", "the sweep is stopping")
