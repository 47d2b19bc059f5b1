"""How far a piece of work is: bytes so far, of how many, told to whoever wants to know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: what it does (`measuring`, `mixing`, `checking` …), bytes so far, of how many."""

    phase: str
    done_bytes: int
    total_bytes: int


OnProgress = Callable[[Progress], None]


class Meter:
    """Adds up bytes and tells the caller; called under a lock."""

    def __init__(self, phase: str, total: int, progress: OnProgress | None) -> None:
        self.phase, self.total, self.progress, self.done = phase, total, progress, 0

    def add(self, nbytes: int) -> None:
        """So many bytes more are done; never more than there are."""
        self.done = min(self.done + nbytes, self.total)
        if self.progress is not None:
            self.progress(Progress(self.phase, self.done, self.total))
