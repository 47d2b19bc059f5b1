"""A warm interpreter that runs command lines: everything is imported once, and each is a fork of it."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

Argument = str | os.PathLike[str]


class Ended(NamedTuple):
    """How a run ended: its exit code (−9 for SIGKILL), what it said and on which stream."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> dict[str, object]:
        """The error of a run with --json."""
        found = json.loads(self.out)["error"]
        assert isinstance(found, dict)
        return found


_SERVER = """
import importlib, json, os, signal, sys, time, traceback
import safetensors.numpy, torch
import rsoup.cli.app, rsoup.cli.merge, rsoup.merging, rsoup.manifest
from rsoup import cli, reading
from rsoup.storage import journal
from rsoup.storage.files import OpenFile

journal.FLUSH_SECONDS = float(sys.argv[1])
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may have been told to ignore it
torch.set_num_threads(1)
for name in sys.argv[2:]:
    importlib.import_module(name)
for line in sys.stdin:
    job = json.loads(line)
    if "wait" in job:
        answer = os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1])
    else:
        answer = os.fork()
        if answer == 0:
            os.chdir(job["cwd"])
            if job["alone"]:
                os.environ.clear()
            os.environ.update(job["env"])
            for number, path in enumerate([os.devnull, job["out"], job["err"]]):
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
                os.dup2(fd, number)
                os.close(fd)
            sys.argv = ["rsoup", *job["arguments"]]
            if job["pause"]:
                real, go_on = OpenFile.read, reading.go_on

                def slow(self, start, buffer):
                    time.sleep(job["pause"])
                    real(self, start, buffer)

                def slow_at_once():
                    time.sleep(job["pause"])
                    go_on()

                OpenFile.read, reading.go_on = slow, slow_at_once
            if job["stopped"]:
                os.kill(os.getpid(), signal.SIGSTOP)
            code = 1
            try:
                cli.main()
            except SystemExit as leaving:
                code = leaving.code if isinstance(leaving.code, int) else 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
    print(json.dumps(answer), flush=True)
"""


class Running:
    """A command line that a warm interpreter has begun."""

    def __init__(self, warm: Warm, pid: int, out: Path, err: Path) -> None:
        self.pid = pid
        self._warm, self._out, self._err = warm, out, err

    def send(self, number: int) -> None:
        """Send it a signal; it may have ended by itself. One that rsoup catches waits until it does."""
        if number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            _wait_for(self._listens)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def _listens(self) -> bool:
        """Whether it has set its handlers (Python's own catches SIGINT before, and SIGHUP comes last), or has ended."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        told = dict(line.split(":\t", 1) for line in lines)
        handled = int(told["SigCgt"], 16) | int(told["SigIgn"], 16)
        return told["State"].startswith("Z") or bool(handled >> (signal.SIGHUP - 1) & 1)

    @property
    def said(self) -> str:
        """What it has written to stdout so far."""
        return os.fsdecode(self._out.read_bytes())

    def wait(self, seconds: float = 120) -> Ended:
        """Let it end, and see how; TimeoutExpired, and its end, after so many seconds."""
        ending = os.pidfd_open(self.pid)
        try:
            if not select.select([ending], [], [], seconds)[0]:
                self.send(signal.SIGKILL)
                raise subprocess.TimeoutExpired(str(self.pid), seconds)
        finally:
            os.close(ending)
        code = self._warm.ask({"wait": self.pid})
        out, err = (os.fsdecode(path.read_bytes()) for path in (self._out, self._err))
        return Ended(code, out, err)


class Warm:
    """An interpreter with everything imported, which forks one child per command line: milliseconds each.

    Its journals are flushed every 10 ms instead of 4 s, so that a run of a fraction of a second can be
    killed between two flushes. `env` is all of its environment, if that is given; `ready` are more modules to import.
    """

    def __init__(
        self,
        folder: Path,
        flush_seconds: float = 0.01,
        *,
        env: Mapping[str, str] | None = None,
        ready: Sequence[str] = (),
    ) -> None:
        self._folder = folder
        self._count = 0
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(flush_seconds), *ready],
            env=None if env is None else dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, job: dict[str, object]) -> int:
        """Send a job, get its number."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        return int(json.loads(self._server.stdout.readline()))

    def start(
        self,
        *arguments: Argument,
        cwd: Argument | None = None,
        env: Mapping[str, str] | None = None,
        stopped: bool = False,
        alone: bool = False,
        pause: float = 0.0,
    ) -> Running:
        """Begin a command line with `env` on top of the environment, or `alone`; with `stopped` it waits for SIGCONT first.

        Before each read of a weight file it waits for `pause` seconds: a slow disk.
        """
        self._count += 1
        out, err = (self._folder / f"{self._count}.{name}" for name in ("out", "err"))
        for made in (out, err):
            made.touch()  # a run that is killed before its first line has written nothing
        pid = self.ask(
            {
                "arguments": [os.fspath(argument) for argument in arguments],
                "cwd": os.fspath(cwd or self._folder),
                "out": str(out),
                "err": str(err),
                "env": dict(env or {}),
                "stopped": stopped,
                "alone": alone,
                "pause": pause,
            }
        )
        return Running(self, pid, out, err)

    def run(
        self, *arguments: Argument, cwd: Argument | None = None, env: Mapping[str, str] | None = None
    ) -> Ended:
        """A command line from its beginning to its end."""
        return self.start(*arguments, cwd=cwd, env=env).wait()

    def traced(self, options: Sequence[str], *arguments: Argument, cwd: Argument | None = None) -> Ended:
        """A command line under `strace -f` with options such as `-e inject=…`; skips where that is not possible."""
        _check_strace()
        run = self.start(*arguments, cwd=cwd, stopped=True)
        status = Path(f"/proc/{run.pid}/status")
        _wait_for(lambda: "State:\tT" in status.read_text())
        tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", os.devnull, *options, "-p", str(run.pid)])
        _wait_for(lambda: "TracerPid:\t0\n" not in status.read_text())
        run.send(signal.SIGCONT)
        ended = run.wait()
        tracer.wait(timeout=30)
        return ended

    def close(self) -> None:
        """End the interpreter; its runs have ended."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.kill()
        self._server.wait()
        self._server.stdin.close()
        self._server.stdout.close()


@functools.cache
def _strace_works() -> bool:
    if shutil.which("strace") is None or not os.path.isdir("/proc/self"):
        return False
    probe = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "inject=getppid:error=EPERM", "true"]
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    free = os.geteuid() == 0 or not scope.exists() or scope.read_text().strip() == "0"
    return free and subprocess.run(probe, capture_output=True, check=False).returncode == 0


def _check_strace() -> None:
    if not _strace_works():
        pytest.skip("strace cannot trace here")


def _wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.001)


@functools.cache
def _shared() -> Warm:
    """One for all tests of this process."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    interpreter = Warm(folder)

    def end() -> None:
        interpreter.close()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return interpreter


def rsoup(
    *arguments: Argument,
    cwd: Argument | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """A command line in a process of its own, as a user's shell would start it, in all of `env` (default this one's)."""
    run = _shared().start(
        *arguments, cwd=cwd or os.getcwd(), env=dict(os.environ if env is None else env), alone=True
    )
    ended = run.wait(timeout)
    line = ["rsoup", *map(os.fspath, arguments)]
    return subprocess.CompletedProcess(line, ended.code, ended.out, ended.err)
