"""Commands that are started, watched and ended with everything they started: the evaluators.

Between rsoup and the command stands a keeper (`keeper.py`), so that a daemon is found and a killed rsoup leaves
nothing behind. Output goes to files, never to pipes: whoever keeps a pipe open keeps its reader waiting.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rsoup.errors import UsageError, show

MARK: Final = "RSOUP_EVALUATION"  # in the environment of everything an evaluation starts
GRACE_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.05
_KEEPER_SECONDS: Final = 20.0  # beyond the grace: then the keeper itself is given up
_KEEPER: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "keeper.py")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: `exit_status` (negative: the signal), `seconds` of wall time it ran.

    `ended` says why rsoup ended it (`timeout`, `output`, `stopped`), None if it ended by itself; `cannot` why
    the system did not start it. `survivors` counts the processes it left, which were ended, too.
    """

    exit_status: int | None
    seconds: float
    ended: str | None = None
    survivors: int = 0
    cannot: str | None = None


class Process:
    """A running command under its keeper; for one thread.

    `stdout` and `stderr` are descriptors of files; `stdin` one of a pipe, None for nothing to read; `passed` are
    descriptors the command gets besides. `mark` becomes RSOUP_EVALUATION. Raises OSError where no process can be made.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: str,
        mark: str,
        stdout: int,
        stderr: int,
        stdin: int | None = None,
        passed: tuple[int, ...] = (),
        grace: float = GRACE_SECONDS,
    ) -> None:
        self.exit_status: int | None = None
        self.cannot: str | None = None
        self.survivors = 0
        self.over = False  # nothing of it runs any more
        self._mark, self._grace, self._text = mark, grace, b""
        self._begun, self._lasted = time.monotonic(), 0.0
        self._status, told = os.pipe()
        given = () if stdin is None else (stdin,)
        command = [str(told), str(grace), str(-1 if stdin is None else stdin), *argv]
        try:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", _KEEPER, *command],
                env={**os.environ, **environment, MARK: mark},
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                pass_fds=(told, *given, *passed),
                start_new_session=True,
                bufsize=0,
            )
        except BaseException:
            os.close(self._status)
            raise
        finally:
            os.close(told)

    @property
    def seconds(self) -> float:
        """Wall time from the command's start to its end, or until now."""
        return time.monotonic() - self._begun if self.running else self._lasted

    @property
    def running(self) -> bool:
        """Whether the command itself has not ended yet, as far as `look` saw."""
        return not self.over and self.exit_status is None and self.cannot is None

    def look(self, seconds: float = _LOOK_SECONDS, other: int | None = None) -> bool:
        """Wait at most so long for news of the command; whether there is something to read from `other`."""
        watched = select.poll()
        for descriptor in (other, None if self.over else self._status):
            if descriptor is not None:
                watched.register(descriptor, select.POLLIN)
        ready = [descriptor for descriptor, _ in watched.poll(seconds * 1000)]
        if not self.over and self._status in ready:
            self._hear()
        return other in ready

    def _hear(self) -> None:
        news = os.read(self._status, 4096)
        self._text += news
        *lines, self._text = self._text.split(b"\n")
        for line in lines:
            word, _, number = line.decode("ascii", "replace").partition(" ")
            if self.running:
                self._lasted = time.monotonic() - self._begun
            if word == "exit" and self.cannot is None:
                self.exit_status = int(number)
            elif word == "cannot":
                self.cannot = os.strerror(int(number))
            elif word == "left":
                self.survivors = int(number)
                self.over = True
        if not news and not self.over:  # somebody killed the keeper: find what it kept
            self._lasted = self._lasted or time.monotonic() - self._begun
            self.survivors += kill_marked(self._mark)
            self.over = True

    def end(self, *, at_once: bool = False) -> None:
        """Ask for the end of all of it: SIGTERM and, after the grace, SIGKILL; `at_once` only the latter."""
        assert self._keeper.stdin is not None
        with contextlib.suppress(OSError):
            self._keeper.stdin.write(b"K" if at_once else b"T")

    def close(self) -> None:
        """End all of it that still runs, and wait for that."""
        if not self.over:
            self.end()
        deadline = time.monotonic() + self._grace + _KEEPER_SECONDS
        while not self.over and time.monotonic() < deadline:
            self.look()
        if not self.over:
            self._keeper.kill()
            self.survivors += kill_marked(self._mark)
            self.over = True
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait()
        with contextlib.suppress(OSError):
            os.close(self._status)
        self._status = -1


def run(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: str,
    log: str,
    mark: str,
    stop: threading.Event,
    seconds: float | None = None,
    output_bytes: int,
    grace: float = GRACE_SECONDS,
) -> Outcome:
    """Run a command in `folder` to its end, and end everything it started; stderr is added to `log`, stdout to `log`.out.

    `environment` is added to this process's. It is ended after `seconds`, when both files together grow by more than
    `output_bytes`, or when `stop` is set. Raises OSError where the files or a process cannot be made.
    """
    with contextlib.ExitStack() as open_files:
        files = [_appending(path, open_files) for path in (f"{log}.out", log)]
        before = [os.fstat(file).st_size for file in files]
        process = Process(
            argv,
            environment=environment,
            folder=folder,
            mark=mark,
            stdout=files[0],
            stderr=files[1],
            grace=grace,
        )
        ended, flooded = None, False
        try:
            while not process.over:
                process.look()
                grown = sum(os.fstat(file).st_size for file in files) - sum(before)
                if grown > output_bytes and not flooded:
                    flooded, ended = True, ended or "output"
                    process.end(at_once=True)
                if process.running and ended is None:
                    late = seconds is not None and process.seconds > seconds
                    ended = "stopped" if stop.is_set() else "timeout" if late else None
                    if ended:
                        process.end()
        finally:
            process.close()
            _cut(files, before, output_bytes)
        return Outcome(process.exit_status, process.seconds, ended, process.survivors, process.cannot)


def _appending(path: str, open_files: contextlib.ExitStack) -> int:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    open_files.callback(os.close, file)
    return file


def _cut(files: Sequence[int], before: Sequence[int], output_bytes: int) -> None:
    """Give the disk back what was written beyond the limit between two looks."""
    for file, begin in zip(files, before, strict=True):
        if os.fstat(file).st_size > begin + output_bytes:
            os.ftruncate(file, begin + output_bytes)


def kill_marked(mark: str) -> int:
    """Kill every process whose RSOUP_EVALUATION is `mark` or begins with `mark/`; how many there were.

    For what a killed run left. Only processes of this user can be seen, and only where there is /proc.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + _KEEPER_SECONDS
    while (found := set(_marked(mark))) and time.monotonic() < deadline:
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        killed |= found
        time.sleep(_LOOK_SECONDS)
    return len(killed)


def _marked(mark: str) -> Iterator[int]:
    exact = f"{MARK}={mark}".encode("utf-8", "surrogateescape")
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdecimal() and int(name) != os.getpid():
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
                if any(part == exact or part.startswith(exact + b"/") for part in file.read().split(b"\0")):
                    yield int(name)  # a zombie's environment is empty


def signal_name(status: int) -> str:
    """`SIGKILL` for -9."""
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def check_startable(
    argv: Sequence[str], *, folder: str, environment: Mapping[str, str] | None = None
) -> None:
    """Raise UsageError E0237 if the system would find no program `argv[0]`, or may not run it."""
    program = argv[0] if argv else ""
    if not program or any("\0" in part for part in argv):
        raise cannot_run(
            "there is no command in it" if not program else "a command cannot hold a NUL character"
        )
    if not os.path.isdir(folder):
        raise cannot_run(f"its folder '{show(folder)}' is not there", hint="make it, or name another")
    path = {**os.environ, **(environment or {})}.get("PATH", os.defpath)
    if "/" in program:
        place = os.path.join(folder, program)
        why = _unfit(place)
    else:
        places = [os.path.join(folder, part) for part in path.split(os.pathsep)]
        why = None if shutil.which(program, path=os.pathsep.join(places)) else os.strerror(errno.ENOENT)
    if why:
        hint = "write its whole path, or install it"
        if why == os.strerror(errno.EACCES):
            hint = f"chmod +x {show(program)}, or name its interpreter: python {show(program)}"
        raise cannot_run(f"'{show(program)}' cannot be started: {why}", hint=hint)


def cannot_run(what: str, *, hint: str | None = None) -> UsageError:
    """The refusal of an evaluator's command."""
    return UsageError("E0237", f"the evaluator's command cannot be run: {what}", hint=hint)


def _unfit(place: str) -> str | None:
    if not os.path.exists(place):
        return os.strerror(errno.ENOENT)
    if os.path.isdir(place):
        return os.strerror(errno.EISDIR)
    return None if os.access(place, os.X_OK) else os.strerror(errno.EACCES)
