"""Marks of what was handed out, as a journal keeps them: a run that goes on holds the same bytes against them."""

from __future__ import annotations

from collections.abc import Mapping

from rsoup.remote.file import StreamedFile
from rsoup.remote.passing import Mark
from rsoup.remote.pool import streaming

_KEY = "streamed"


def files() -> list[StreamedFile]:
    """The files that are streamed in this process now."""
    return [file for file in streaming() if isinstance(file, StreamedFile)]


class Notebook:
    """Tells of every mark once."""

    def __init__(self) -> None:
        self._told: dict[int, int] = {}

    def fresh(self) -> dict[str, object] | None:
        """The marks made since this was last asked, as JSON; None where there are none."""
        rows = []
        for file in files():
            if not file.was_touched:
                continue
            marks = file.passing.marks(self._told.get(id(file), 0))
            self._told[id(file)] = self._told.get(id(file), 0) + len(marks)
            rows += [[repr(file.stamp), mark.start, mark.stop, mark.digest.hex()] for mark in marks]
        return {_KEY: rows} if rows else None


def recalled(record: Mapping[str, object]) -> None:
    """Give the marks of a record to the files they are of; any other record is passed over."""
    rows = record.get(_KEY)
    known = {repr(file.stamp): file for file in files()}
    for row in rows if isinstance(rows, list) else ():
        stamp, start, stop, digest = row
        if stamp in known:
            known[stamp].passing.remember(Mark(start, stop, bytes.fromhex(digest)))


def catch_up() -> None:
    """Blocks of an earlier run are kept: what comes before the first that is read again is proven first."""
    for file in files():
        file.catches_up = True
