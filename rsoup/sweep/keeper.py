"""The keeper: a small process between rsoup and a command, which leaves nothing of the command behind.

Run as a script (`python -I -S keeper.py STATUS GRACE STDIN COMMAND…`) with a pipe to rsoup as its stdin. It starts
the command in a session of its own and tells on descriptor STATUS: `cannot ERRNO`, or `exit CODE` (negative: a
signal) as soon as the command ended, and `left N` when nothing of it runs any more. On Linux all that the command
started become children of the keeper when their parents end (PR_SET_CHILD_SUBREAPER), daemons too, so all are found.

The pipe on stdin says when to stop: a `K` means kill, anything else, its end included, means SIGTERM first and
SIGKILL after GRACE seconds. So all ends when rsoup does, however that happens. Only the standard
library is used, and nothing of rsoup: it starts in a few hundredths of a second, in any environment.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from typing import Final

SET_PDEATHSIG: Final = 1  # of <sys/prctl.h>
SET_CHILD_SUBREAPER: Final = 36
MOMENT_SECONDS: Final = 0.3  # what a command's helpers get to end by themselves once it ended
STUBBORN_SECONDS: Final = 5.0  # what the system gets to end what was killed
LOOK_SECONDS: Final = 0.02


def main(arguments: list[str]) -> None:
    """Start the command, wait for its end or for the word to stop, leave nothing of it."""
    status, grace, stdin = int(arguments[0]), float(arguments[1]), int(arguments[2])
    os.set_inheritable(status, False)
    wake = _waking()
    _prctl(SET_CHILD_SUBREAPER, 1)
    keeper = os.getpid()
    child = os.fork()
    if child == 0:
        _become(arguments[3:], status, stdin, keeper)
    if stdin >= 0:
        os.close(stdin)
    for stream in (1, 2):  # the logs are the command's alone
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    _Keeper(child, status, grace, wake).watch()


class _Keeper:
    def __init__(self, child: int, status: int, grace: float, wake: int) -> None:
        self.child, self.status, self.grace = child, status, grace
        self.heard: list[int] = [0, wake]
        self.ended = self.stopping = self.hurry = False

    def watch(self) -> None:
        """Until the command ended or is to; then the end of all that is left of it."""
        while not (self.ended or self.stopping):
            self._listen(None)
        if self.ended:
            self._wait(MOMENT_SECONDS)
        left = self._alive()
        if left and not self.hurry:
            self._signal(left, signal.SIGTERM)
            self._wait(self.grace)
        deadline = time.monotonic() + STUBBORN_SECONDS
        while (found := self._alive()) and time.monotonic() < deadline:
            left |= found
            self._signal(found, signal.SIGKILL)
            self._listen(LOOK_SECONDS)
        self._tell(f"left {len(left - {self.child})}")

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self.hurry and self._alive() and (rest := deadline - time.monotonic()) > 0:
            self._listen(min(rest, LOOK_SECONDS))

    def _listen(self, seconds: float | None) -> None:
        """Wait for a word of rsoup's or the end of a child, and take note of it."""
        ready, _, _ = select.select(self.heard, [], [], seconds)
        if 0 in ready:
            word = os.read(0, 64)
            self.stopping = True
            self.hurry = self.hurry or b"K" in word
            if not word:
                self.heard.remove(0)
        if self.heard[-1] in ready:
            os.read(self.heard[-1], 4096)
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self.child:
                    self.ended = True
                    self._tell(f"exit {os.waitstatus_to_exitcode(found[1])}")

    def _tell(self, text: str) -> None:
        with contextlib.suppress(OSError):  # nobody may be left to read it
            os.write(self.status, f"{text}\n".encode())

    def _alive(self) -> set[int]:
        """All processes that descend from this one and run; without /proc, the command's own if its group does."""
        children = _children()
        if not children:
            try:
                os.killpg(self.child, 0)
            except OSError:
                return set()
            return {self.child}
        found: set[int] = set()
        waiting = [os.getpid()]
        while waiting:
            more = [pid for pid in children.get(waiting.pop(), ()) if pid not in found]
            found.update(more)
            waiting += more
        return found

    def _signal(self, processes: set[int], number: int) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self.child, number)
        for pid in processes:
            with contextlib.suppress(OSError):
                os.kill(pid, number)


def _children() -> dict[int, list[int]]:
    """Parent → its children that are no zombies, of every process there is; empty without /proc."""
    found: dict[int, list[int]] = {}
    try:
        names = os.listdir("/proc")
    except OSError:
        return found
    for name in names:
        if name.isdecimal():
            with (
                contextlib.suppress(OSError, ValueError, IndexError),
                open(f"/proc/{name}/stat", "rb") as file,
            ):
                fields = file.read().rpartition(b")")[2].split()  # the name before it may hold anything
                if fields[0] not in (b"Z", b"X"):
                    found.setdefault(int(fields[1]), []).append(int(name))
    return found


def _waking() -> int:
    """A descriptor that can be read when a child ended."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.set_blocking(reading, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return reading


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _become(command: list[str], status: int, stdin: int, keeper: int) -> None:
    """Turn this fork into the command; never returns."""
    try:
        signal.set_wakeup_fd(-1)
        os.setsid()
        _prctl(SET_PDEATHSIG, signal.SIGKILL)  # safe here: the keeper has one thread, which ends with it
        if os.getppid() != keeper:
            os._exit(1)
        os.dup2(stdin if stdin >= 0 else os.open(os.devnull, os.O_RDONLY), 0)
        if stdin > 2:
            os.close(stdin)
        for name in (
            "SIGPIPE",
            "SIGXFSZ",
            "SIGCHLD",
        ):  # Python ignores the first two, and exec would keep that
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.execvp(command[0], command)  # noqa: S606 - a list, and no shell
    except OSError as error:
        os.write(status, f"cannot {error.errno}\n".encode())
    finally:
        os._exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
