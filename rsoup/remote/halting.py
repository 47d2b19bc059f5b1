"""Halt: what ends threads that wait for a network, at once and for good."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


class HaltedError(Exception):
    """What is raised inside a fetch that nobody wants any more."""


class Halt:
    """An event that, once set, also breaks off what was registered as open."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._open: dict[int, Callable[[], object]] = {}

    def is_set(self) -> bool:
        """Whether all is over."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise HaltedError if all is over."""
        if self._event.is_set():
            raise HaltedError

    def wait(self, seconds: float) -> None:
        """Wait so long; HaltedError if it is over before."""
        if self._event.wait(seconds):
            raise HaltedError

    @contextlib.contextmanager
    def breaking(self, abort: Callable[[], object]) -> Iterator[None]:
        """Inside, `set` calls `abort`, which makes what waits here fail; HaltedError if it is over already."""
        with self._lock:
            self.check()
            self._open[id(abort)] = abort
        try:
            yield
        finally:
            with self._lock:
                self._open.pop(id(abort), None)

    def set(self) -> None:
        """End everything."""
        with self._lock:
            self._event.set()
            waiting = list(self._open.values())
        for abort in waiting:
            with contextlib.suppress(Exception):
                abort()
