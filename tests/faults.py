"""What the fault tests share: a warm interpreter to run and kill, a verifier, small disks, strace, N-th failures."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from checkpoints import write_file

from rsoup.digests import ChunkHasher, file_digest, tensor_digest

Argument = str | os.PathLike[str]
PARTS = "*.rsoup-*.part"
IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="needs root")


def command(*arguments: Argument) -> list[str]:
    """rsoup's command line as an argument list."""
    return [sys.executable, "-m", "rsoup", *map(os.fspath, arguments)]


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
import importlib, json, os, signal, sys, traceback
import safetensors.numpy, torch
import rsoup.cli.app, rsoup.cli.merge, rsoup.merging, rsoup.manifest
from rsoup import cli
from rsoup.storage import journal

journal.FLUSH_SECONDS = float(sys.argv[1])
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
            os.environ.update(job["env"])
            for number, path in enumerate([os.devnull, job["out"], job["err"]]):
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
                os.dup2(fd, number)
                os.close(fd)
            sys.argv = ["rsoup", *job["arguments"]]
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

    def wait(self) -> Ended:
        """Let it end, and see how."""
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
    ) -> Running:
        """Begin a command line with `env` on top of the environment; with `stopped` it waits for SIGCONT first."""
        self._count += 1
        out, err = (self._folder / f"{self._count}.{name}" for name in ("out", "err"))
        pid = self.ask(
            {
                "arguments": [os.fspath(argument) for argument in arguments],
                "cwd": os.fspath(cwd or self._folder),
                "out": str(out),
                "err": str(err),
                "env": dict(env or {}),
                "stopped": stopped,
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
        """End the interpreter."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(timeout=30)
        self._server.stdout.close()


def big_models(folder: Path, elements: int, tensors: int = 4) -> list[Path]:
    """Two related checkpoints with `elements` bfloat16 numbers each, in a few tensors."""
    generator = torch.Generator().manual_seed(1)
    size = elements // tensors
    start = torch.randn(size, generator=generator)
    made = []
    for name in ("one", "two"):
        (folder / name).mkdir(parents=True)
        moved = start + 0.01 * torch.randn(size, generator=generator)
        write_file(
            folder / name / "model.safetensors",
            {f"layers.{i}.weight": (moved + i).to(torch.bfloat16) for i in range(tensors)},
        )
        (folder / name / "config.json").write_text('{"model_type": "tiny"}')
        made.append(folder / name)
    return made


def verify(out: Path) -> dict[str, object]:
    """The manifest of a finished soup, after everything it says of the files was found to be so."""
    single = out.is_file()
    manifest_path = (
        out.with_name(f"{out.name.removesuffix('.safetensors')}.rsoup.json") if single else out / "rsoup.json"
    )
    manifest = json.loads(manifest_path.read_bytes())
    folder = out.parent if single else out
    if not single:
        files = {str(path.relative_to(out)) for path in out.rglob("*") if not path.is_dir()}
        assert files == {entry["name"] for entry in manifest["subject"]} | {"rsoup.json"}
    for entry in manifest["subject"]:
        data = (folder / entry["name"]).read_bytes()
        assert len(data) == entry["size"], entry["name"]
        found = hashlib.sha256(data).hexdigest() if "sha256" in entry else weights_digest(data)
        assert found == entry.get("sha256", entry.get("digest")), entry["name"]
    assert isinstance(manifest, dict)
    return manifest


def weights_digest(data: bytes) -> str:
    """The digest of a safetensors file by the rule of `rsoup.digests`, from its bytes alone."""
    head = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:head])
    header.pop("__metadata__", None)
    digests = []
    for record in sorted(header.values(), key=lambda record: tuple(record["data_offsets"])):
        begin, end = record["data_offsets"]
        hasher = ChunkHasher()
        hasher.update(memoryview(data)[head + begin : head + end])
        digests.append(tensor_digest([hasher.digests()]))
    return file_digest(data[:head], digests)


def stray(folder: Path) -> list[str]:
    """What lies in a folder under a name rsoup gives to things that are not finished."""
    return sorted(path.name for path in folder.iterdir() if ".rsoup-" in path.name)


def without_run(manifest: dict[str, object]) -> dict[str, object]:
    """A manifest but for the part that tells of the run."""
    return {key: value for key, value in manifest.items() if key != "run"}


@contextlib.contextmanager
def small_disk(folder: Path, size: str, *options: str) -> Iterator[Path]:
    """A memory disk of this size mounted at a new folder; skips where that is not possible."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *options]), "tmpfs", str(folder)]
    if (
        not IS_ROOT
        or shutil.which("mount") is None
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("memory disks cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


@contextlib.contextmanager
def bound(source: Path, place: Path) -> Iterator[Path]:
    """A folder mounted a second time elsewhere; skips where that is not possible."""
    place.mkdir()
    mount = ["mount", "--bind", str(source), str(place)]
    if (
        not IS_ROOT
        or shutil.which("mount") is None
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("folders cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True)


@functools.cache
def _strace_works() -> bool:
    if shutil.which("strace") is None or not os.path.isdir("/proc/self"):
        return False
    probe = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "inject=getppid:error=EPERM", "true"]
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    free = IS_ROOT or not scope.exists() or scope.read_text().strip() == "0"
    return free and subprocess.run(probe, capture_output=True, check=False).returncode == 0


def _check_strace() -> None:
    if not _strace_works():
        pytest.skip("strace cannot trace here")


def _wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.001)


class FailNth:
    """Lets the `nth` call (from 1) of some functions of a module fail.

    SQLite's way: fail the first call, then the second … until a run gets through without meeting it.
    Closing what was only read from does not fail anywhere, so it is not counted.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int = errno.EIO) -> None:
        self._monkeypatch = monkeypatch
        self._number = number
        self.nth = 0
        self.calls = 0

    def watch(self, module: object, name: str) -> None:
        """Have the calls of `module.name` counted, and the n-th of all that are watched fail."""
        real: Callable[..., object] = getattr(module, name)

        def call(*arguments: object, **options: object) -> object:
            if (
                name == "close"
                and fcntl.fcntl(int(str(arguments[0])), fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
            ):
                return real(*arguments, **options)
            self.calls += 1
            if self.calls != self.nth:
                return real(*arguments, **options)
            if name == "close":  # the descriptor is gone, whatever close says
                real(*arguments, **options)
            raise OSError(self._number, os.strerror(self._number))

        self._monkeypatch.setattr(module, name, call)

    @property
    def hit(self) -> bool:
        """Whether a call failed since `nth` was set."""
        return self.calls >= self.nth

    def arm(self, nth: int) -> None:
        """Let the `nth` call from now on fail."""
        self.nth, self.calls = nth, 0


_INTERRUPTED = """
import os, signal, sys, time
from rsoup import cli
from rsoup.storage.files import OpenFile

real, left = OpenFile.read, int(sys.argv.pop(1))

def read(self, start, buffer):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
    real(self, start, buffer)

OpenFile.read = read
cli.main()
"""


def interrupted(nth: int, *arguments: Argument, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """A command line that gets SIGINT while it reads from a file for the `nth` time."""
    line = [sys.executable, "-c", _INTERRUPTED, str(nth), *map(os.fspath, arguments)]
    return subprocess.run(line, cwd=cwd, capture_output=True, timeout=120, check=False)
