"""Running: cells one after the other or side by side, each once, with a line of progress per cell."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from cells import DONE

Measure = Callable[[Path], None]
"""Makes everything of a cell in its folder, going on where it was, and calls `cells.write_done` at the end."""


def run_cells(todo: Mapping[str, Measure], out: Path, *, jobs: int = 1) -> None:
    """Every cell of `todo` that is not done yet, in this order; one that fails ends the run, and the same call goes on.

    Prints a line per cell: how many are done, and how long that took.
    """
    begun = time.monotonic()
    missing = {name: measure for name, measure in todo.items() if not (out / name / DONE).exists()}
    done = len(todo) - len(missing)
    if done:
        print(f"{done} of {len(todo)} cells are there already", flush=True)

    def one(name: str) -> str:
        (out / name).mkdir(parents=True, exist_ok=True)
        missing[name](out / name)
        return name

    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(one, name) for name in missing]
        try:
            for future in as_completed(waiting):
                done += 1
                took = time.monotonic() - begun
                print(f"{done}/{len(todo)} {future.result()} · {took:.0f} s", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def rsoup(*words: str | Path, cwd: Path | None = None) -> str:
    """What the command `rsoup` prints. Leaves with its message if it fails."""
    return command(sys.executable, "-m", "rsoup", *words, cwd=cwd)


def rsoup_here(*words: str | Path) -> str:
    """`rsoup` within this process, which saves its start: for many short commands, one at a time, with this folder as theirs."""
    from typer.testing import CliRunner

    from rsoup.cli.app import app

    texts = [str(word) for word in words]
    done = CliRunner().invoke(app, texts)
    if done.exit_code:
        sys.exit(f"rsoup {' '.join(texts)}\nexit {done.exit_code}\n{done.output}{done.exception!r}")
    return done.stdout


def command(*words: str | Path, cwd: Path | None = None, also: Sequence[int] = ()) -> str:
    """The stdout of a program, run with one thread. Leaves with what it said if its exit code is not 0 or of `also`."""
    texts = [str(word) for word in words]
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        texts, cwd=cwd, capture_output=True, text=True, check=False, env={**os.environ, **one_thread}
    )
    if done.returncode and done.returncode not in also:
        sys.exit(f"{' '.join(texts)}\nexit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
