"""What the fault tests share: a verifier, small disks, N-th failures, interruptions."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from checkpoints import write_file
from warm import Argument

from rsoup.digests import ChunkHasher, file_digest, tensor_digest

PARTS = "*.rsoup-*.part"
IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="needs root")


def command(*arguments: Argument) -> list[str]:
    """rsoup's command line as an argument list."""
    return [sys.executable, "-m", "rsoup", *map(os.fspath, arguments)]


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


def interrupted(nth: int, *arguments: Argument, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command line that gets SIGINT while it reads from a file for the `nth` time."""
    line = [sys.executable, "-c", _INTERRUPTED, str(nth), *map(os.fspath, arguments)]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
