"""The process that mirrors a sweep's ledger to a tracker; whatever the tracker does, it does it here.

`python -c STARTER ORDER` with an order in JSON. It reads the ledger, so it knows what is durable there and nothing
else, and answers on a descriptor of its own, one line of JSON each: `ready`, or `refused`; `failed`, or `done`.
Of several on one folder, one mirrors and the others wait for it to end.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from rsoup.errors import show
from rsoup.storage.whole import write_whole
from rsoup.sweep import folder as folders
from rsoup.sweep import mirrored, trackers
from rsoup.sweep.claims import Claims
from rsoup.sweep.ledger import Ledger

STATE: Final = "tracking.json"
_HOLD: Final = "tracking"
_LOOK_SECONDS: Final = 1.0
_OTHERS_SECONDS: Final = (
    2.0  # for one that is just ending; one that goes on mirrors this sweep's results, too
)

Opener = Callable[[str, Any, trackers.Place], trackers.Tracker]


def main(arguments: list[str], *, opener: Opener = trackers.opened) -> None:
    """Mirror until stdin ends; a word on it first means that the sweep is over and its documents are written."""
    order = json.loads(arguments[0])
    signal.signal(
        signal.SIGTERM, signal.SIG_IGN
    )  # the end of stdin says it, and leaves time to send the rest
    answers = os.fdopen(int(order["answers"]), "w", encoding="utf-8", buffering=1)
    os.set_inheritable(answers.fileno(), False)
    requests = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    tracker = str(order["tracker"])
    try:
        module = trackers.imported(tracker)
    except trackers.NotSetUpError as error:
        answers.write(json.dumps({"refused": str(error), "hint": error.hint}) + "\n")
        return
    except BaseException as error:
        answers.write(json.dumps({"broken": _line(error)}) + "\n")
        return
    answers.write(json.dumps({"ready": tracker}) + "\n")
    try:
        with contextlib.ExitStack() as stack:
            _Mirroring(order, lambda place: opener(tracker, module, place), stack).run(requests)
    except BaseException as error:
        answers.write(json.dumps({"failed": _line(error)}) + "\n")
        raise
    answers.write(json.dumps({"done": True}) + "\n")


def _line(error: BaseException) -> str:
    """An error in one line."""
    return show(" ".join(f"{type(error).__name__}: {error}".split()), 300)


class _Mirroring:
    def __init__(
        self,
        order: Mapping[str, Any],
        opener: Callable[[trackers.Place], trackers.Tracker],
        stack: contextlib.ExitStack,
    ) -> None:
        self._folder, self._names = str(order["folder"]), list(order["names"])
        self._key, self._project = f"{order['tracker']}:{order['project']}", str(order["project"])
        self._opener, self._stack = opener, stack
        self._ledger, self._claims = Ledger(self._folder), Claims(self._folder)
        self._held = False
        self._tracker: trackers.Tracker | None = None
        self._states: dict[str, dict[str, Any]] = {}

    def run(self, requests: int) -> None:
        """Mirror what is new, again and again, until the other end of `requests` is closed."""
        word = b""
        while True:
            ready, _, _ = select.select([requests], [], [], _LOOK_SECONDS)
            if ready:
                got = os.read(requests, 64)
                word += got
                if not got:
                    break
            if self._held or self._hold():
                self._mirror()
        deadline = time.monotonic() + _OTHERS_SECONDS
        while not self._held and not self._hold() and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS / 10)
        while self._held:
            self._mirror()
            self._close(self._document() if word else None)
            if len(self._ledger.records()) == self._state["logged"]:  # another may have left meanwhile
                return

    def _hold(self) -> bool:
        with contextlib.ExitStack() as trying:
            self._held = trying.enter_context(self._claims.hold(_HOLD, wait=False))
            if self._held:
                self._stack.push(trying.pop_all())
                self._states = self._read()
        return self._held

    @property
    def _state(self) -> dict[str, Any]:
        return self._states.setdefault(self._key, {"run": uuid.uuid4().hex[:12], "logged": 0, "closed": None})

    def _mirror(self) -> None:
        """Log what the ledger has more than the run; that it will have been logged is written down before."""
        records = self._ledger.records()
        while self._state["logged"] < len(records):
            number = self._state["logged"]
            tracker = self._open()
            self._write(logged=number + 1)
            try:
                tracker.log(mirrored.entry(number, records[number], self._names))
            except Exception:
                self._write(logged=number)
                raise

    def _open(self) -> trackers.Tracker:
        if self._tracker is None:
            self._write()  # the run's name is known before there is a run
            name = os.path.basename(self._folder) or "sweep"
            self._tracker = self._opener(trackers.Place(self._project, str(self._state["run"]), name))
        return self._tracker

    def _document(self) -> trackers.Closing | None:
        try:
            with open(os.path.join(self._folder, folders.METRICS), "rb") as file:
                return mirrored.closing(json.load(file))
        except FileNotFoundError:
            return None

    def _close(self, found: trackers.Closing | None) -> None:
        """Close the run; what was found goes to it unless that is there already."""
        digest = None if found is None else mirrored.digest(found)
        new = found is not None and digest != self._state["closed"]
        if new:
            self._open()
        if self._tracker is not None:
            self._tracker.close(found if new else None)
            self._tracker = None
        if new:
            self._write(closed=digest)

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            with open(os.path.join(self._folder, STATE), "rb") as file:
                found = json.load(file)
        except FileNotFoundError:
            return {}
        return {str(key): dict(value) for key, value in found.items()}

    def _write(self, **changes: object) -> None:
        self._state.update(changes)
        text = json.dumps(self._states, indent=2, sort_keys=True) + "\n"
        write_whole(os.path.join(self._folder, STATE), text.encode())
