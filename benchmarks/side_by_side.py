"""What the measuring scripts share: alternating runs, the floor, Markdown tables. Not a command."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from peak_memory import Run, busy_seconds, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

FILLER_BYTES = 1 << 36  # a sparse file: it takes no space on the disk
ENOUGH_FREE = 1_000_000_000


def parser(description: str | None, *, rounds: int = 5) -> argparse.ArgumentParser:
    """A parser with the options that all measuring scripts have."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--rsoup", default=shutil.which("rsoup", path=_path()) or "rsoup", help="the command")
    made.add_argument("--work", type=Path, help="folder for checkpoints and outputs; default a temporary one")
    made.add_argument(
        "--patience", type=float, default=60.0, help="seconds to wait for idle cores before a run"
    )
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


def _read(path: Path, start: int, limit: int) -> int:
    with path.open("rb", buffering=0) as stream:
        stream.seek(start)
        buffer, done = bytearray(1 << 22), 0
        while done < limit and (got := stream.readinto(buffer)):
            done += got
    return done


class Cache:
    """Brings the page cache into the same state before every run: inputs in it, the rest of memory filled.

    The filling is a sparse file's pages, first in line to be given up. On a machine that has been up for a
    day memory is in that state anyway. Where memory is free instead, a virtual machine may have lent it
    back to its host, and getting it again can cost more than everything that is measured here.
    """

    def __init__(self, work: Path, inputs: Sequence[Path]) -> None:
        self._filler, self._inputs, self._at = work / "filler", inputs, 0

    def prepare(self) -> None:
        """Fill memory, then read the inputs twice, so that they are the last to be given up."""
        with self._filler.open("ab") as made:
            made.truncate(FILLER_BYTES)
        step, begun = 1 << 28, self._at
        while _free_bytes() > ENOUGH_FREE and self._at < begun + (1 << 34):
            _read(self._filler, self._at % FILLER_BYTES, step)
            self._at += step
        for folder in self._inputs:
            for file in weight_files(folder):
                _read(file, 0, sys.maxsize)

    def close(self) -> None:
        """Remove the filling."""
        remove(self._filler)


def _free_bytes() -> int:
    line = next(x for x in Path("/proc/meminfo").read_text().splitlines() if x.startswith("MemFree"))
    return int(line.split()[1]) * 1024


def wait_for_quiet(patience: float) -> None:
    """Wait until the cores have been idle for three seconds, but no longer than `patience` seconds."""
    end, quiet = time.monotonic() + patience, 0
    while time.monotonic() < end and quiet < 3:
        before, begun = busy_seconds(), time.monotonic()
        time.sleep(1)
        quiet = quiet + 1 if busy_seconds() - before < 0.1 * (time.monotonic() - begun) else 0


def in_turns(
    commands: Mapping[str, Sequence[str]],
    rounds: int,
    *,
    out: Path,
    inputs: Sequence[Path],
    patience: float,
    env: Mapping[str, str] | None = None,
) -> dict[str, list[Run]]:
    """Run the commands A B C, C B A, … `rounds` times, so that drift cancels.

    Before each: the output is removed, the disk has nothing left to do, the machine is quiet, the inputs
    are in the page cache. A run that other processes disturbed is repeated, up to four times, and the least
    disturbed one counts. A command that fails ends the measurement.
    """
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    cache = Cache(out.parent, inputs)
    try:
        for number in range(rounds):
            for name in list(commands)[:: 1 if number % 2 == 0 else -1]:
                runs[name].append(_undisturbed(name, commands[name], out, cache, patience, env))
    finally:
        cache.close()
        remove(out)
    return runs


def _undisturbed(
    name: str,
    command: Sequence[str],
    out: Path,
    cache: Cache,
    patience: float,
    env: Mapping[str, str] | None,
) -> Run:
    tries: list[Run] = []
    while len(tries) < 5 and not (tries and tries[-1].others < 0.1):
        remove(out)
        os.sync()
        wait_for_quiet(patience)
        cache.prepare()
        tries.append(run(command, env=env))
        if tries[-1].status:
            sys.exit(f"{name} failed ({tries[-1].status}): {' '.join(command)}\n{tries[-1].output}")
        print(f"  {name}: {tries[-1].wall:.2f} s, others {tries[-1].others:.0%}", file=sys.stderr)
    return min(tries, key=lambda tried: tried.others)


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
