"""Evaluators that are commands: `python score.py {model}`, its scores on stdout's last line or in a file."""

from __future__ import annotations

import os
import shlex
import threading
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from rsoup.errors import show, show_path
from rsoup.sweep import harness, identity, placeholders, processes, scores
from rsoup.sweep.evaluation import Evaluation, Session, Task
from rsoup.sweep.processes import Outcome
from rsoup.sweep.scores import EvaluationFailed
from rsoup.sweep.spec import EvaluatorSpec

TAIL_LINES: Final = 20
_TAIL_BYTES: Final = 65_536


class CommandEvaluator:
    """The command line `spec.run`, run in `folder` without a shell, once for each task.

    Raises UsageError E0237 where it cannot be run, E0239 for a metric's address that means nothing.
    """

    def __init__(
        self,
        spec: EvaluatorSpec,
        *,
        folder: str,
        base: str | None = None,
        grace: float = processes.GRACE_SECONDS,
    ) -> None:
        assert spec.run is not None
        self._spec, self._folder, self._grace = spec, os.path.abspath(folder), grace
        self._command = placeholders.split(spec.run)
        self._metrics_file = None if spec.metrics_file is None else placeholders.parse(spec.metrics_file)
        used = {name for template in self._command for name in template.names}
        if "base" in used and base is None:
            raise processes.cannot_run("it says {base}, but the sweep has no base", hint="--base BASE")
        for metric in spec.metrics:
            harness.check(metric)
        fixed = [template for template in self._command if not template.names]
        if self._command[0] in fixed:
            argv = [template.fill({}) for template in fixed]
            processes.check_startable(argv, folder=self._folder)
        self._identity: dict[str, object] = {
            "run": spec.run,
            "files": identity.named_files((template.fill({}) for template in fixed), self._folder)
            | identity.given_files(spec.files, self._folder),
            "version": spec.version,
            "metrics_file": spec.metrics_file,
            "metrics": identity.metrics_identity(spec.metrics),
        }

    @property
    def needs_files(self) -> bool:
        """True: a command reads the soup from the disk."""
        return True

    @property
    def identity(self) -> Mapping[str, object]:
        """The command as it was typed, digests of the files it names, version, metrics."""
        return self._identity

    def session(self, environment: Mapping[str, str]) -> AbstractContextManager[Session]:
        """One worker's evaluator: a command for each task, with these variables besides."""
        return self._session(dict(environment))

    @contextmanager
    def _session(self, environment: Mapping[str, str]) -> Iterator[Session]:
        yield _CommandSession(self, environment)

    def evaluate(self, task: Task, environment: Mapping[str, str], stop: threading.Event) -> Evaluation:
        """Run the command for one task and read its scores; every failure is an Evaluation, none an exception."""
        outcome: Outcome | None = None
        try:
            argv = placeholders.fill(self._command, task)
            metrics_file = (
                None if self._metrics_file is None else placeholders.fill([self._metrics_file], task)[0]
            )
            added = {**environment, **placeholders.variables(task)}
            before = {} if task.model is None else identity.listing_of(task.model)
            begin_log(task, f"command: {shlex.join(argv)}", f"folder: {self._folder}", added)
            start = os.path.getsize(task.log)
            outcome = processes.run(
                argv,
                environment=added,
                folder=self._folder,
                log=task.log,
                mark=new_mark(environment),
                stop=stop,
                seconds=self._spec.timeout_seconds,
                output_bytes=self._spec.output_bytes,
                grace=self._grace,
            )
            lines = tail(task.log, start) or tail(f"{task.log}.out", 0)
            end_log(task.log, outcome)
            unchanged(task.model, before)
            check_outcome(outcome, lines, self._spec)
            found = harness.read(
                self._spec.metrics, document=lambda: self._document(task, metrics_file), folder=task.out
            )
            return Evaluation(found, outcome.seconds, None, outcome.exit_status)
        except EvaluationFailed as error:
            why = str(error)
        except OSError as error:
            why = f"rsoup cannot run it: {error.strerror or error}"
        if outcome is None:
            return Evaluation(failure=why)
        return Evaluation({}, outcome.seconds, why, outcome.exit_status)

    def _document(self, task: Task, metrics_file: str | None) -> object:
        if metrics_file is None:
            return scores.last_json(f"{task.log}.out")
        return scores.file_json(os.path.join(self._folder, metrics_file))


class _CommandSession:
    def __init__(self, evaluator: CommandEvaluator, environment: Mapping[str, str]) -> None:
        self._evaluator, self._environment = evaluator, environment

    def evaluate(self, task: Task, stop: threading.Event) -> Evaluation:
        """The scores of a task."""
        return self._evaluator.evaluate(task, self._environment, stop)


def new_mark(environment: Mapping[str, str]) -> str:
    """A mark for one evaluation's processes, below the one the caller gave as RSOUP_EVALUATION."""
    return f"{environment.get(processes.MARK, 'rsoup')}/{uuid.uuid4().hex}"


def begin_log(task: Task, what: str, where: str, added: Mapping[str, str]) -> None:
    """Start a task's log anew with what is run and where; raises OSError where that is impossible."""
    lines = [what, where, *(f"environment: {name}={value}" for name, value in sorted(added.items()))]
    with open(f"{task.log}.out", "wb"), open(task.log, "w", encoding="utf-8") as log:
        log.writelines(f"# {show_path(line)}\n" for line in lines)


def end_log(path: str, outcome: Outcome) -> None:
    """Write into a log how the command ended."""
    with open(path, "a", encoding="utf-8") as log:
        log.write(
            f"\n# {how_it_ended(outcome)} after {outcome.seconds:.1f} s; stdout is in {os.path.basename(path)}.out\n"
        )
        if outcome.survivors:
            log.write(f"# it left {outcome.survivors} running, which rsoup ended\n")


def how_it_ended(outcome: Outcome) -> str:
    """`exit status 3`, `killed by SIGSEGV`, `could not be started: …`."""
    if outcome.cannot is not None:
        return f"could not be started: {outcome.cannot}"
    if outcome.exit_status is None:
        return "ended, nobody knows how: the process that watched over it was killed"
    if outcome.exit_status < 0:
        return f"killed by {processes.signal_name(outcome.exit_status)}"
    return f"exit status {outcome.exit_status}"


def check_outcome(outcome: Outcome, lines: list[str], spec: EvaluatorSpec) -> None:
    """Raise EvaluationFailed, with the last lines it wrote, unless a command ended by itself with exit status 0."""
    if outcome.ended == "stopped":
        raise EvaluationFailed("it was stopped before it ended")
    if outcome.ended == "timeout":
        what = f"it ran longer than {spec.timeout_seconds:g} s and was ended"
    elif outcome.ended == "output":
        what = f"it wrote more than {spec.output_bytes} bytes of output and was ended"
    elif outcome.exit_status == 0:
        return
    else:
        what = how_it_ended(outcome)
    raise EvaluationFailed("\n".join([what, *(f"  {line}" for line in lines)]))


def tail(path: str, start: int) -> list[str]:
    """The last 20 lines of a log after byte `start`, made safe to print, none of them longer than 200."""
    try:
        with open(path, "rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(start, size - _TAIL_BYTES))
            data = log.read(_TAIL_BYTES)
    except OSError:
        return []
    lines = deque((line for line in data.split(b"\n") if line.strip()), TAIL_LINES)
    return [show(line.decode("utf-8", "backslashreplace").rstrip(), 200) for line in lines]


def unchanged(model: str | None, before: dict[str, tuple[int, ...]]) -> None:
    """Raise EvaluationFailed if the soup is not what it was before it was evaluated."""
    if model is not None and (what := identity.change(before, identity.listing_of(model))):
        raise EvaluationFailed(
            f"it changed the soup it was to score, so that nobody knows what it scored: {what}"
        )
