"""A sweep's mirror in an experiment tracker: started beside it, told when it is over, never waited for without end.

The ledger is the truth and the mirror is made from it, by a process of its own: a tracker that prints, asks, hangs or
crashes changes nothing of the sweep.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Final

from rsoup.errors import UsageError, show_path
from rsoup.sweep import folder as folders
from rsoup.sweep.processes import Process
from rsoup.sweep.spec import Track
from rsoup.sweep.starting import starter_of
from rsoup.sweep.trackers import PACKAGES

LOG: Final = "tracking.log"
IMPORT_SECONDS: Final = 120.0
CLOSE_SECONDS: Final = 60.0
HURRY_SECONDS: Final = 10.0  # for a sweep that was interrupted
_ANSWER_BYTES: Final = 65_536


def check_installed(track: Track | None) -> None:
    """Raise UsageError E0272 if the tracker's package is not there; nothing is imported."""
    if track is not None and importlib.util.find_spec(track.tracker) is None:
        raise _missing(track.tracker, "is not installed")


def _missing(tracker: str, why: str) -> UsageError:
    return UsageError("E0272", f"{tracker} {why}", hint=f"pip install {PACKAGES[tracker]}, or no --track")


@contextlib.contextmanager
def mirrored_to(
    track: Track | None, folder: str, names: Sequence[str], *, where: str, notes: list[str]
) -> Iterator[None]:
    """Mirror what is done inside; what to tell of it is added to `notes`. Raises as `Mirror`, before anything is done."""
    if track is None:
        yield
        return
    try:
        mirror = Mirror(track, folder, names, where=where)
    except OSError as error:
        notes.append(
            f"nothing is in {track.tracker}: its process cannot be started: {error.strerror or error}"
        )
        yield
        return
    seconds = HURRY_SECONDS
    try:
        yield
        seconds = CLOSE_SECONDS
    finally:
        note = mirror.close(found=True, seconds=seconds)
        notes += [note] if note else []


class Mirror:
    """The mirror of the sweep in `folder`, begun; `names` are its ingredients, `where` the folder its evaluators run in.

    Raises UsageError E0272 if the package cannot be imported, E0274 if it would ask who logs in, OSError where no
    process can be made.
    """

    def __init__(self, track: Track, folder: str, names: Sequence[str], *, where: str) -> None:
        self._tracker, self._folder = track.tracker, folder
        self._got = b""
        self._process = self._start(track, names, where)
        try:
            answer = self._answer(IMPORT_SECONDS)
            if "broken" in answer:
                raise _missing(track.tracker, f"cannot be imported: {answer['broken']}")
            if "refused" in answer:
                raise UsageError("E0274", str(answer["refused"]), hint=str(answer["hint"]))
        except BaseException:
            self._end()
            raise

    def close(self, *, found: bool, seconds: float = CLOSE_SECONDS) -> str | None:
        """Let it send the rest, and what was `found` if the sweep's documents are written; what to tell of it, else None.

        It is ended when that takes longer than `seconds`.
        """
        answer: dict[str, Any] = {}
        try:
            if found:
                with contextlib.suppress(OSError):  # it may have ended
                    os.write(self._requests, b"over\n")
            self._let_go()
            deadline = time.monotonic() + seconds
            answer = self._answer(seconds)
            if "ready" in answer:  # it took long to begin
                answer = self._answer(deadline - time.monotonic())
        finally:
            running = self._process.running
            self._end()
        if "done" in answer:
            return None
        if "failed" in answer:
            why = str(answer["failed"])
        else:
            why = f"it did not end within {seconds:g} s" if running else "its process crashed"
        log = show_path(os.path.join(self._folder, folders.LOGS, LOG))
        return f"not all is in {self._tracker}: {why} ({log}); the same command sends the rest"

    def _start(self, track: Track, names: Sequence[str], where: str) -> Process:
        os.makedirs(os.path.join(self._folder, folders.LOGS), exist_ok=True)
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        order = {"tracker": track.tracker, "project": track.project, "folder": self._folder, "names": list(names), "answers": answers}  # fmt: skip
        with contextlib.ExitStack() as files:
            for descriptor in (requests, answers):
                files.callback(os.close, descriptor)
            log = os.open(os.path.join(self._folder, folders.LOGS, LOG), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)  # fmt: skip
            files.callback(os.close, log)
            try:
                return Process(
                    [sys.executable, "-c", starter_of("tracking_worker"), json.dumps(order)],
                    environment={},
                    folder=where,
                    mark=f"rsoup-track-{uuid.uuid4().hex}",
                    stdout=log,
                    stderr=log,
                    stdin=requests,
                    passed=(answers,),
                )
            except BaseException:
                os.close(self._requests)
                os.close(self._answers)
                raise

    def _answer(self, seconds: float) -> dict[str, Any]:
        """The next line of its answers; {} if there is none within so long, or never."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._got and (rest := deadline - time.monotonic()) > 0:
            if self._process.look(min(rest, 0.1), self._answers):
                got = os.read(self._answers, _ANSWER_BYTES)
                self._got += got
                if not got:
                    break
            elif not self._process.running:
                break
        line, found, self._got = self._got.partition(b"\n")
        return dict(json.loads(line)) if found else {}

    def _let_go(self) -> None:
        if self._requests >= 0:
            os.close(self._requests)
        self._requests = -1

    def _end(self) -> None:
        self._let_go()
        if self._process.running:
            self._process.end(at_once=True)
        self._process.close()
        os.close(self._answers)
