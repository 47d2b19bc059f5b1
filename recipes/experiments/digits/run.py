"""Digits: two trainings and their soups against eleven trainings with mixed rewards, over seeds and training lengths.

python recipes/experiments/digits/run.py -o runs/digits              everything, about an hour on two cores
python recipes/experiments/digits/run.py -o runs/digits --seeds 2    a first look

Resumable: what is there is not made again. Every soup, sweep and front is made by the command `rsoup`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
LENGTHS = (25, 100, 400)
MORL = 11
GRID = 21


@dataclass(frozen=True, slots=True)
class Cell:
    """One seed, one training length, one number of rewards; `weak` begins from a base of 60 steps and learns faster."""

    seed: int
    steps: int
    rewards: int = 2
    weak: bool = False

    @property
    def name(self) -> str:
        """`n2-steps-100-seed-3`."""
        return f"n{self.rewards}-steps-{self.steps}-seed-{self.seed}" + ("-weak" if self.weak else "")


def cells(seeds: int, lengths: Sequence[int], more: int) -> Iterator[Cell]:
    """Two rewards for every seed and length; three and five rewards and the weak base for a few seeds."""
    for seed in range(max(seeds, more)):
        yield from (Cell(seed, steps) for steps in lengths if seed < seeds)
        if seed < more:
            yield from (Cell(seed, 200, weak=True), Cell(seed, 100, 3), Cell(seed, 100, 5))


def main() -> None:
    """Train, sweep and measure every cell, then write the summary."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("-o", "--out", type=Path, required=True)
    arguments.add_argument("--seeds", type=int, default=20)
    arguments.add_argument(
        "--more", type=int, default=5, help="seeds with three and five rewards, and a weak base"
    )
    arguments.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    arguments.add_argument("--jobs", type=int, default=2)
    asked = arguments.parse_args()
    todo = list(cells(asked.seeds, [int(text) for text in asked.lengths.split(",")], asked.more))
    begun = time.monotonic()
    with ThreadPoolExecutor(asked.jobs) as pool:
        for number, cell in enumerate(pool.map(lambda cell: _measured(cell, asked.out), todo), 1):
            print(f"{number}/{len(todo)} {cell.name} · {time.monotonic() - begun:.0f} s", flush=True)
    subprocess.run([sys.executable, str(HERE / "summary.py"), str(asked.out)], check=True)


def _measured(cell: Cell, out: Path) -> Cell:
    """All checkpoints of a cell, five sweeps of them, and what `rsoup front` says."""
    folder = out.resolve() / cell.name
    if (folder / "front.json").exists():
        return cell
    _run(
        sys.executable,
        str(HERE / "train.py"),
        str(folder),
        json.dumps([cell.seed, cell.steps, cell.rewards, cell.weak]),
    )
    count = cell.rewards
    experts = [f"e{k + 1}={folder}/expert-{k + 1}" for k in range(count)]
    metrics = [word for k in range(count) for word in ("--reward", f"r{k + 1}")]
    common = [
        "--base",
        f"{folder}/base",
        "--function",
        "score:rewards",
        "--eval-file",
        "world.py",
        "--report",
        "1",
        *metrics,
        "-q",
    ]
    grid = GRID if count == 2 else 5 if count == 3 else 3
    _rsoup("sweep", *experts, "--grid", str(grid), *common, "-o", f"{folder}/soups")
    morl = sorted(folder.glob("morl-*"))
    alone = [f"{path.name}={path}" for path in morl]
    lists = [",".join("1" if i == j else "0" for j in range(len(morl))) for i in range(len(morl))]
    _rsoup(
        "sweep",
        *alone,
        *[word for text in lists for word in ("--lambda", text)],
        *common,
        "-o",
        f"{folder}/morl",
    )
    groups = [f"e{k + 1}={folder}/expert-{k + 1},{folder}/expert-{k + 1}-again" for k in range(count)]
    _rsoup("sweep", *groups, "--grid", str(grid), *common, "-o", f"{folder}/groups")
    again = [f"a={folder}/expert-1", f"b={folder}/expert-1-again"]
    _rsoup("sweep", *again, "--grid", "5", *common, "-o", f"{folder}/model-soups")
    _rsoup("sweep", f"start={folder}/base", "--lambda", "1", *common, "-o", f"{folder}/base-alone")
    found = _rsoup(
        "front", f"{folder}/soups", "--compare", f"morl={folder}/morl", "--compare", f"rs+ms={folder}/groups",
        "--compare", f"ms={folder}/model-soups", "--json",
    )  # fmt: skip
    (folder / "front.json").write_text(found)
    return cell


def _rsoup(*words: str) -> str:
    return _run(sys.executable, "-m", "rsoup", *words)


def _run(*words: str) -> str:
    done = subprocess.run(words, cwd=HERE, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
