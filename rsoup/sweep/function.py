"""Evaluators that are Python functions: `module:name`, called with a live soup, in a process that is kept.

A model is loaded once and gets every λ in place. The process is one's own, so that a function may hang, exit or
crash: the task fails, and the next one gets a new process.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from fractions import Fraction
from typing import Final

from rsoup import recipe_yaml
from rsoup.errors import show
from rsoup.mix import format_number, uniform
from rsoup.recipe import Recipe
from rsoup.sweep import command, function_source, harness, identity, processes, scores
from rsoup.sweep.evaluation import Evaluation, Session, Task
from rsoup.sweep.point import Point
from rsoup.sweep.processes import Outcome, Process
from rsoup.sweep.scores import EvaluationFailed
from rsoup.sweep.spec import EvaluatorSpec
from rsoup.sweep.starting import starter_of

_STARTER: Final = starter_of("function_worker")
_ANSWER_BYTES: Final = 1 << 20
_LOOK_SECONDS: Final = 0.05


class FunctionEvaluator:
    """The function `spec.function`, called as function(soup) with those of seed, split, point, out, step that it names.

    `recipe_for` gives the recipe of a point. A soup that is open serves all points whose recipes differ in λ and scale
    only. Raises UsageError E0238 where there is no such function.
    """

    def __init__(
        self,
        spec: EvaluatorSpec,
        *,
        folder: str,
        recipe_for: Callable[[Point], Recipe],
        grace: float = processes.GRACE_SECONDS,
        starter: str = _STARTER,
    ) -> None:
        assert spec.function is not None
        self.spec, self.folder, self.grace, self.starter = spec, os.path.abspath(folder), grace, starter
        self.recipe_for = recipe_for
        for metric in spec.metrics:
            harness.check(metric)
        source = function_source.find(spec.function, folder=self.folder)
        self._identity: dict[str, object] = {
            "function": spec.function,
            "source": identity.file_identity(source),
            "files": identity.given_files(spec.files, self.folder),
            "version": spec.version,
            "metrics": identity.metrics_identity(spec.metrics),
        }

    @property
    def needs_files(self) -> bool:
        """False: the soup is never written."""
        return False

    @property
    def identity(self) -> Mapping[str, object]:
        """The function's name, the digest of its module's file, the files it depends on, version, metrics."""
        return self._identity

    def session(self, environment: Mapping[str, str]) -> AbstractContextManager[Session]:
        """One worker's process, started by its first task and ended with the session."""
        return self._session(dict(environment))

    @contextmanager
    def _session(self, environment: Mapping[str, str]) -> Iterator[Session]:
        session = _FunctionSession(self, environment)
        try:
            yield session
        finally:
            session.end()


class _FunctionSession:
    def __init__(self, evaluator: FunctionEvaluator, environment: Mapping[str, str]) -> None:
        self._evaluator, self._environment = evaluator, environment
        self._process: Process | None = None
        self._requests = self._answers = -1

    def evaluate(self, task: Task, stop: threading.Event) -> Evaluation:
        """The scores of a task; every failure is an Evaluation, none an exception."""
        spec, seconds, status = self._evaluator.spec, 0.0, None
        try:
            command.begin_log(
                task, f"function: {spec.function}", f"folder: {self._evaluator.folder}", self._environment
            )
            start = os.path.getsize(task.log)
            outcome, answer = self._ask(task, stop)
            seconds, status = outcome.seconds, outcome.exit_status
            lines = command.tail(task.log, start) or command.tail(f"{task.log}.out", 0)
            if answer is None:
                command.end_log(task.log, outcome)
                command.check_outcome(outcome, lines, spec)
                raise EvaluationFailed("its process ended with exit status 0 before it answered")
            printed = _scores(answer)
            found = harness.read(spec.metrics, document=lambda: printed, folder=task.out)
            return Evaluation(found, seconds)
        except EvaluationFailed as error:
            return Evaluation({}, seconds, str(error), status)
        except OSError as error:
            return Evaluation({}, seconds, f"rsoup cannot run it: {error.strerror or error}", status)

    def end(self) -> None:
        """End the process and all it started."""
        process, self._process = self._process, None
        if process is None:
            return
        os.close(self._requests)  # the end of its requests: it ends by itself
        rest = 2.0
        while not process.over and rest > 0:
            process.look()
            rest -= _LOOK_SECONDS
        process.close()
        os.close(self._answers)

    def _ask(self, task: Task, stop: threading.Event) -> tuple[Outcome, bytes | None]:
        """How a task went, and the answer, None if the process ended or was ended for it."""
        request = self._request(task)
        process = self._process = self._process or self._start(task)
        watch = _Watch(process, task, self._evaluator.spec, stop)
        got = b""
        while process.running and not watch.ended:
            if request:
                with contextlib.suppress(BlockingIOError, BrokenPipeError):
                    request = request[os.write(self._requests, request) :]
            if process.look(_LOOK_SECONDS, self._answers):
                got += os.read(self._answers, _ANSWER_BYTES)
            watch.look()
            if got.endswith(b"\n"):
                return watch.outcome(), got
            if len(got) > _ANSWER_BYTES:
                self._end_now(at_once=True)
                raise EvaluationFailed("it returned more than a megabyte")
        self._end_now(at_once=watch.ended == "output")
        return watch.outcome(), None

    def _end_now(self, *, at_once: bool) -> None:
        """End a process that is not to be used again."""
        if self._process is not None:
            self._process.end(at_once=at_once)
            self._process.close()
        self.end()

    def _request(self, task: Task) -> bytes:
        recipe = _opened_as(_absolute(self._evaluator.recipe_for(task.point)))
        arguments = {
            "seed": task.seed,
            "split": task.split,
            "point": task.point.name,
            "out": task.out,
            "step": task.point.step,
        }
        form = {
            "recipe": recipe_yaml.dump(recipe),
            "mix": [format_number(share) for share in task.point.mix],
            "scale": format_number(task.point.scale),
            "arguments": arguments,
            "log": task.log,
        }
        return json.dumps(form).encode() + b"\n"

    def _start(self, task: Task) -> Process:
        with contextlib.ExitStack() as files:
            requests, self._requests = os.pipe()
            self._answers, answers = os.pipe()
            for descriptor in (requests, answers):
                files.callback(os.close, descriptor)
            os.set_blocking(self._requests, False)
            stdout = os.open(f"{task.log}.out", os.O_WRONLY | os.O_APPEND)
            files.callback(os.close, stdout)
            stderr = os.open(task.log, os.O_WRONLY | os.O_APPEND)
            files.callback(os.close, stderr)
            worker = [
                sys.executable,
                "-c",
                self._evaluator.starter,
                str(self._evaluator.spec.function),
                str(answers),
            ]
            try:
                return Process(
                    worker,
                    environment=self._environment,
                    folder=self._evaluator.folder,
                    mark=command.new_mark(self._environment),
                    stdout=stdout,
                    stderr=stderr,
                    stdin=requests,
                    passed=(answers,),
                    grace=self._evaluator.grace,
                )
            except BaseException:
                os.close(self._requests)
                os.close(self._answers)
                raise


class _Watch:
    """How long a task takes and how much it writes, and whether it must end."""

    def __init__(self, process: Process, task: Task, spec: EvaluatorSpec, stop: threading.Event) -> None:
        self._process, self._spec, self._stop = process, spec, stop
        self._logs = (f"{task.log}.out", task.log)
        self._begun, self._before = time.monotonic(), self._size()
        self.ended: str | None = None

    def _size(self) -> int:
        size = 0
        for path in self._logs:
            with contextlib.suppress(OSError):  # the function may delete what it likes
                size += os.path.getsize(path)
        return size

    def look(self) -> None:
        """Set `ended` if the task must end."""
        limit = self._spec.timeout_seconds
        if self._stop.is_set():
            self.ended = "stopped"
        elif self._size() - self._before > self._spec.output_bytes:
            self.ended = "output"
        elif limit is not None and time.monotonic() - self._begun > limit:
            self.ended = "timeout"

    def outcome(self) -> Outcome:
        """The task's end, so far."""
        process, seconds = self._process, time.monotonic() - self._begun
        return Outcome(process.exit_status, seconds, self.ended, process.survivors, process.cannot)


def _scores(answer: bytes) -> object:
    """What a function returned. Raises EvaluationFailed with what went wrong in its process."""
    document = scores.parse_json(answer.decode("utf-8", "replace"), not_finite=True)
    if isinstance(document, dict) and "failure" in document:
        lines = str(document["failure"]).splitlines()[-command.TAIL_LINES :]
        raise EvaluationFailed("\n".join(show(line, 400) for line in lines))
    return scores.look_up(document, ["scores"], "what it returned")


def _absolute(recipe: Recipe) -> Recipe:
    """A recipe whose paths mean the same in any folder."""
    return replace(
        recipe,
        base=None if recipe.base is None else _place(recipe.base),
        ingredients=tuple(
            replace(ingredient, checkpoints=tuple(map(_place, ingredient.checkpoints)))
            for ingredient in recipe.ingredients
        ),
    )


def _opened_as(recipe: Recipe) -> Recipe:
    """The same recipe for every λ and scale: with all ingredients, which `set_mix` then weighs."""
    mix = uniform(len(recipe.ingredients))
    return replace(recipe, mix=mix, typed_mix=mix, scale=Fraction(1))


def _place(uri: str) -> str:
    if "://" in uri:
        return uri
    parts = [uri] if os.path.lexists(uri) else uri.split("+")  # CHECKPOINT+ADAPTER
    return "+".join(map(os.path.abspath, parts))
