"""Run a command and sample the memory of it and its children every few milliseconds.

    python benchmarks/peak_memory.py -- rsoup merge A B --lambda 0.5,0.5 -o OUT

Anonymous memory is what the kernel kills for; resident memory adds the file pages the process has mapped.
Both are sums over the process and its descendants, read from /proc/PID/status (Linux). What the page cache
holds on its own account (pages that were read, not mapped) belongs to no process and is in neither.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Run:
    """One finished command: seconds on the clock and on the cores, peaks of memory in bytes.

    `others` is the share of the machine's cores that other processes took meanwhile.
    """

    status: int
    wall: float
    user: float
    system: float
    peak_anon: int
    peak_file: int
    peak_resident: int
    samples: int
    others: float
    output: str

    @property
    def cpu(self) -> float:
        """User and system seconds together."""
        return self.user + self.system


def _tree(pid: int) -> list[int]:
    found, todo = [], [pid]
    while todo:
        parent = todo.pop()
        found.append(parent)
        try:
            tasks = os.listdir(f"/proc/{parent}/task")
        except OSError:
            continue
        for task in tasks:
            try:
                todo += map(int, Path(f"/proc/{parent}/task/{task}/children").read_text().split())
            except OSError:
                continue
    return found


def _status(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines if line.startswith(("Rss", "VmHWM")))
    return {field[0].rstrip(":"): int(field[1]) * 1024 for field in fields}


class _Sampler(threading.Thread):
    def __init__(self, pid: int, interval: float) -> None:
        super().__init__(daemon=True)
        self.pid, self.interval, self.stop = pid, interval, threading.Event()
        self.anon = self.file = self.resident = self.samples = 0

    def run(self) -> None:
        """Sample until told to stop."""
        tree = [self.pid]
        while not self.stop.wait(self.interval):
            if self.samples % 16 == 0:  # children come and go rarely, and looking for them costs more
                tree = _tree(self.pid)
            seen = [status for pid in tree if (status := _status(pid))]
            anon = sum(s.get("RssAnon", 0) + s.get("RssShmem", 0) for s in seen)
            file = sum(s.get("RssFile", 0) for s in seen)
            self.anon, self.file = max(self.anon, anon), max(self.file, file)
            # the high-water mark is exact where there is one process; samples alone could miss a peak
            alone = seen[0].get("VmHWM", 0) if len(seen) == 1 else 0
            self.resident = max(self.resident, anon + file, alone)
            self.samples += 1


def busy_seconds() -> float:
    """Core seconds that anything on this machine has used since it started; waiting does not count."""
    fields = [int(f) for f in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    interval: float = 0.005,
    env: Mapping[str, str] | None = None,
) -> Run:
    """Run `command` to its end and measure it; its output is kept, not shown. `env` is added to ours."""
    reader, writer = os.pipe()
    busy, mine, start = busy_seconds(), time.process_time(), time.perf_counter()
    process = subprocess.Popen(command, stdout=writer, stderr=writer, env={**os.environ, **(env or {})})
    os.close(writer)
    sampler = _Sampler(process.pid, interval)
    sampler.start()
    with os.fdopen(reader, "rb") as pipe:
        output = pipe.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    others = busy_seconds() - busy - usage.ru_utime - usage.ru_stime - (time.process_time() - mine)
    process.returncode = os.waitstatus_to_exitcode(status)
    sampler.stop.set()
    sampler.join()
    return Run(
        process.returncode,
        wall,
        usage.ru_utime,
        usage.ru_stime,
        sampler.anon,
        sampler.file,
        sampler.resident,
        sampler.samples,
        max(0.0, others) / wall / len(os.sched_getaffinity(0)),
        output.decode(errors="replace"),
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--interval", type=float, default=2.0, help="milliseconds between samples")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    result = run(command, interval=args.interval / 1000)
    sys.stderr.write(result.output)
    print("| wall s | CPU s | peak anonymous MB | peak mapped file MB | peak resident MB | samples |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {result.wall:.2f} | {result.cpu:.2f} | {result.peak_anon / 1e6:.0f} "
        f"| {result.peak_file / 1e6:.0f} | {result.peak_resident / 1e6:.0f} | {result.samples} |"
    )
    sys.exit(result.status)


if __name__ == "__main__":
    main()
