"""What the measuring scripts share: alternating runs, the floor, Markdown tables. Not a command."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from peak_memory import Run, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


def parser(description: str | None, *, rounds: int = 5) -> argparse.ArgumentParser:
    """A parser with the options that all measuring scripts have."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--rsoup", default=shutil.which("rsoup", path=_path()) or "rsoup", help="the command")
    made.add_argument("--work", type=Path, help="folder for checkpoints and outputs; default a temporary one")
    made.add_argument("--rounds", type=int, default=rounds, help="how often each command runs, in turns")
    return made


def _path() -> str:
    return os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))


class Work:
    """The folder to work in: the one given, which stays, or a temporary one, which goes."""

    def __init__(self, given: Path | None) -> None:
        self._given = given

    def __enter__(self) -> Path:
        self.path = self._given or Path(tempfile.mkdtemp(prefix="rsoup-bench-"))
        self.path.mkdir(parents=True, exist_ok=True)
        return self.path.resolve()

    def __exit__(self, *_: object) -> None:
        if self._given is None:
            shutil.rmtree(self.path, ignore_errors=True)


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a checkpoint, in order."""
    return sorted(folder.glob("*.safetensors"))


def warm(folders: Iterable[Path]) -> None:
    """Read every weight file once, so that it lies in the page cache as far as it fits."""
    buffer = bytearray(1 << 22)
    for folder in folders:
        for file in weight_files(folder):
            with file.open("rb", buffering=0) as stream:
                while stream.readinto(buffer):
                    pass


def remove(path: Path) -> None:
    """Remove a folder or file if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def floor_command(inputs: Sequence[Path], out: Path) -> list[str]:
    """Read every input once, write one of them once and wait for the disk: cat, cp, fsync."""
    files = [str(file) for folder in inputs for file in weight_files(folder)]
    script = """
    out=$1 count=$2; shift 2
    mkdir "$out"
    cat "$@" >/dev/null
    for i in $(seq "$count"); do cp "$1" "$out"; shift; done
    sync "$out"/*
    """
    return ["sh", "-ec", script, "floor", str(out), str(len(weight_files(inputs[0]))), *files]


def in_turns(
    commands: Mapping[str, Sequence[str]],
    rounds: int,
    *,
    out: Path,
    inputs: Sequence[Path],
    env: Mapping[str, str] | None = None,
    after: Callable[[str], None] | None = None,
    interval: float = 0.005,
) -> dict[str, list[Run]]:
    """Run the commands A B C, A B C, … `rounds` times; every second round backwards, so that drift cancels.

    Before each: the output is removed, the disk is idle, the inputs are in the page cache. `after` is called
    with a command's name before its output is removed. A command that fails ends the measurement.
    """
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for number in range(rounds):
        order = list(commands) if number % 2 == 0 else list(commands)[::-1]
        for name in order:
            remove(out)
            os.sync()
            warm(inputs)
            result = run(commands[name], env=env, interval=interval)
            if result.status:
                sys.exit(f"{name} failed ({result.status}): {' '.join(commands[name])}\n{result.output}")
            print(f"  round {number + 1} {name}: {result.wall:.2f} s", file=sys.stderr)
            runs[name].append(result)
            if after is not None:
                after(name)
    remove(out)
    return runs


def spread(values: Iterable[float], digits: int = 2) -> str:
    """`min / median / max`."""
    ordered = sorted(values)
    parts = (ordered[0], statistics.median(ordered), ordered[-1])
    return " / ".join(f"{part:.{digits}f}" for part in parts)


def ratios(top: Sequence[float], bottom: Sequence[float]) -> list[float]:
    """The quotients round by round: both sides of each were measured within the same minute."""
    return [a / b for a, b in zip(top, bottom, strict=True)]


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    print(flush=True)


def machine() -> str:
    """The machine in words: cores, memory, load; nothing that tells whose it is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, {memory:.0f} GiB memory, load {os.getloadavg()[0]:.1f} at the start"
