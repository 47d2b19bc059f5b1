"""Stopped: a signal came, and the work in hand is put down in order."""

from __future__ import annotations


class Stopped(BaseException):
    """A signal asked to stop: the work in hand is put down in order, then the exit code is 128 + the signal.

    `kept` is the folder with what is done already, where there is one to go on from.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.kept: str | None = None
