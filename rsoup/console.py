"""The only file that prints: results on stdout, talk on stderr, nothing a file wrote unescaped."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from rsoup.errors import RsoupError, TargetError, show
from rsoup.storage.target import size_text

if TYPE_CHECKING:
    from rsoup.merge import Progress

LINE_SECONDS = 30.0


class Console:
    """What a command says: `human` text, one JSON document (`json`), or the result's path alone (`quiet`)."""

    def __init__(
        self,
        *,
        as_json: bool = False,
        quiet: bool = False,
        out: TextIO | None = None,
        err: TextIO | None = None,
    ) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.out = out or sys.stdout
        self.err = err or sys.stderr

    def result(self, human: str, data: Mapping[str, object], short: str) -> None:
        """Print a command's result once: as text, as JSON with `schema`, or as its shortest form."""
        if self.as_json:
            text = json.dumps({"schema": 1, **data}, indent=2, ensure_ascii=True, allow_nan=False)
        else:
            text = short if self.quiet else human
        self._write(self.out, text + "\n")

    def talk(self, text: str) -> None:
        """Say something on stderr; not with `--quiet` or `--json`."""
        if not self.quiet and not self.as_json:
            self._write(self.err, text + "\n")

    def note(self, text: str) -> None:
        """A finding the user should know; on stderr, with `--json` it is in the document instead."""
        self.talk(f"note: {text}")

    def error(self, error: RsoupError) -> None:
        """The error as its few lines on stderr, or as JSON on stdout with `--json`."""
        if self.as_json:
            document = {"schema": 1, "error": error_json(error)}
            self._write(self.out, json.dumps(document, indent=2, ensure_ascii=True) + "\n")
            return
        lines = [f"{self._red('error')}[{error.code}]: {error.message}"]
        if error.where:
            lines.append(f"  where  {error.where}")
        lines += [
            f"  {problem.where}: {problem.what}" if problem.where else f"  {problem.what}"
            for problem in error.details
        ]
        if error.hint:
            lines.append(f"  hint   {error.hint}")
        self._write(self.err, "\n".join(lines) + "\n")

    def _red(self, text: str) -> str:
        return f"\x1b[31m{text}\x1b[0m" if use_colour(self.err) else text

    @staticmethod
    def _write(stream: TextIO, text: str) -> None:
        """Write and flush; a reader that is gone ends the program quietly (141), a full device is an error."""
        encoding = stream.encoding or "utf-8"
        try:
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            raise SystemExit(141) from None
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            raise TargetError(
                "E0604", f"writing the answer failed: {error.strerror}", where="stdout"
            ) from error


def error_json(error: RsoupError) -> dict[str, object]:
    """An error as data: code, message, where, hint, details, exit code."""
    return {
        "code": error.code,
        "message": error.message,
        "where": error.where,
        "hint": error.hint,
        "details": [{"where": problem.where, "what": problem.what} for problem in error.details],
        "exit_code": error.exit_code,
    }


def use_colour(stream: TextIO) -> bool:
    """Whether to colour: a terminal, without NO_COLOR and not a dumb one; FORCE_COLOR says yes anyway."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


class ProgressBar:
    """One bar in bytes with rate and time left on a terminal, a line every 30 s elsewhere; a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Any = None
        self._task: Any = None
        self._phase = ""
        self._next_line = time.monotonic() + LINE_SECONDS
        self._begun = time.monotonic()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        """Show where the work is."""
        if self._console.quiet or self._console.as_json:
            return
        if self._console.err.isatty() and os.environ.get("TERM") != "dumb":
            self._show_bar(progress)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_SECONDS
            seconds = max(time.monotonic() - self._begun, 1e-9)
            rate = progress.done_bytes / seconds
            left = (progress.total_bytes - progress.done_bytes) / max(rate, 1)
            self._console.talk(
                f"{progress.phase}: {size_text(progress.done_bytes)} of {size_text(progress.total_bytes)}, "
                f"{size_text(rate)}/s, about {left:.0f} s left"
            )

    def _show_bar(self, progress: Progress) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress as Bar,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        if self._bar is None:
            screen = RichConsole(file=self._console.err, no_color=not use_colour(self._console.err))
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Bar(*columns, console=screen, transient=True, refresh_per_second=8)
            self._bar.start()
        if progress.phase != self._phase:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._phase = progress.phase
            self._task = self._bar.add_task(progress.phase, total=progress.total_bytes)
        self._bar.update(self._task, completed=progress.done_bytes)


def table(rows: Sequence[Sequence[str]], head: Sequence[str]) -> str:
    """Rows under a head, columns aligned by their longest cell, two spaces between them."""
    cells = [list(head), *[[show(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
