"""The only file that prints: results on stdout, talk on stderr, nothing a file wrote unescaped."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from rsoup.errors import RsoupError, TargetError, show
from rsoup.quantities import time_text
from rsoup.storage.target import size_text

if TYPE_CHECKING:
    from rsoup.progress import Progress

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
            self._answer(json.dumps({"schema": 1, **data}, indent=2, ensure_ascii=True, allow_nan=False))
        elif not self.quiet:
            self._answer(human)
        elif self.out.isatty():
            self._answer(show(short, len(short)))
        else:
            self._answer(os.fsencode(short))  # a path as the file system has it, for the next program

    def talk(self, text: str) -> None:
        """Say something on stderr; not with `--quiet` or `--json`."""
        if not self.quiet and not self.as_json:
            self._say(text)

    def note(self, text: str) -> None:
        """A finding the user should know; on stderr, with `--json` it is in the document instead."""
        self.talk(f"note: {text}")

    def error(self, error: RsoupError) -> None:
        """The error as its few lines on stderr, or as JSON on stdout with `--json`."""
        if self.as_json:
            self._answer(json.dumps({"schema": 1, "error": error_json(error)}, indent=2, ensure_ascii=True))
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
        self._say("\n".join(lines))

    def _red(self, text: str) -> str:
        return f"\x1b[31m{text}\x1b[0m" if use_colour(self.err) else text

    def _say(self, text: str) -> None:
        """Write to stderr; that nobody can hear it stops nothing."""
        with contextlib.suppress(OSError, ValueError):
            self.err.write(_plain(text, self.err) + "\n")
            self.err.flush()

    def _answer(self, text: str | bytes) -> None:
        """Write to stdout; a reader that is gone ends the program quietly (141), a full device is an error."""
        try:
            if isinstance(text, bytes) and hasattr(self.out, "buffer"):
                self.out.buffer.write(text + b"\n")
            else:
                self.out.write(_plain(os.fsdecode(text), self.out) + "\n")
            self.out.flush()
        except BrokenPipeError:
            silence(self.out)
            raise SystemExit(141) from None
        except OSError as error:
            silence(self.out)
            raise TargetError(
                "E0604",
                f"writing the answer failed: {error.strerror}",
                where="stdout",
                hint="only the answer is lost: what was made is complete",
            ) from error


def _plain(text: str, stream: TextIO) -> str:
    """`text` with what the stream's encoding cannot hold as escapes."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def silence(stream: TextIO) -> None:
    """Send the rest of a stream nowhere, so that Python does not stumble over it at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


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
        self._last = (time.monotonic(), 0)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        """Show where the work is; a terminal that is gone stops nothing."""
        if self._console.quiet or self._console.as_json:
            return
        if self._console.err.isatty() and os.environ.get("TERM") != "dumb":
            with contextlib.suppress(OSError):
                self._show_bar(progress)
        else:
            self._show_line(progress)

    def _show_line(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.phase != self._phase:
            self._phase = progress.phase
            self._last = (self._last[0], 0)
        then, before = self._last
        if now - then < LINE_SECONDS:
            return
        self._last = (now, progress.done_bytes)
        rate = (progress.done_bytes - before) / (now - then)
        left = (progress.total_bytes - progress.done_bytes) / max(rate, 1)
        self._console.talk(
            f"{progress.phase}: {size_text(progress.done_bytes)} of {size_text(progress.total_bytes)}, "
            f"{size_text(rate)}/s, about {time_text(left)} left"
        )

    def _show_bar(self, progress: Progress) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as Bar

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


class Screen:
    """Lines on stderr that are drawn over and over on a terminal, and not at all elsewhere; a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Any = None
        quiet = console.quiet or console.as_json
        self.drawn = not quiet and console.err.isatty() and os.environ.get("TERM") != "dumb"

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            with contextlib.suppress(OSError):
                self._live.stop()

    def show(self, lines: Sequence[str]) -> None:
        """Draw these lines in place of the last ones; a terminal that is gone stops nothing."""
        if not self.drawn:
            return
        from rich.console import Console as RichConsole
        from rich.live import Live
        from rich.text import Text

        with contextlib.suppress(OSError):
            text = Text("\n".join(_plain(line, self._console.err) for line in lines), no_wrap=True)
            if self._live is None:
                screen = RichConsole(file=self._console.err, no_color=not use_colour(self._console.err))
                self._live = Live(text, console=screen, transient=True, auto_refresh=False)
                self._live.start()
            self._live.update(text, refresh=True)


def table(rows: Sequence[Sequence[str]], head: Sequence[str]) -> str:
    """Rows under a head, columns aligned by their longest cell, two spaces between them."""
    cells = [list(head), *[[show(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
