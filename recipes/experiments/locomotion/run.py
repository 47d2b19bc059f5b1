"""Locomotion: two trainings and their soups against eleven trainings with mixed rewards, PPO on a cheetah of MuJoCo.

python recipes/experiments/locomotion/run.py -o runs/locomotion              ten seeds, six to seven hours on one core
python recipes/experiments/locomotion/run.py -o runs/locomotion --seeds 2    a first look

Resumable: what is there is not made again. Needs `pip install -c constraints.txt -e '.[experiments]'`.
Every soup is made and measured by the command `rsoup`; the page of what is there is made by
`python recipes/experiments/locomotion/summary.py runs/locomotion`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import plan
from cells import write_done
from running import rsoup, run_cells
from train import Sizes

HERE = Path(__file__).resolve().parent
REWARDS = ("fast", "frugal")
COMMON = (
    "--function", "score:rewards", "--eval-file", "world.py", "--reward", "fast", "--reward", "frugal",
    "--guard", "fast_report", "--guard", "frugal_report", "--threads", "1", "-q",
)  # fmt: skip


def train(folder: Path, seed: int, sizes: str) -> None:
    """All trainings of the seed that are missing; each says a line when it is done."""
    words = [sys.executable, str(HERE / "train.py"), str(folder), "--seed", str(seed), "--sizes", sizes]
    subprocess.run(words, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def measure(folder: Path, checkpoints: Path, seed: int, sizes: Sizes) -> None:
    """Every set of the last step."""
    begun = time.monotonic()
    base = ("--base", checkpoints / "base.zip", "--eval-file", checkpoints / "eyes.pkl", *COMMON)
    experts = [f"{name}={checkpoints}/{name}/{sizes.full}.zip" for name in REWARDS]
    rsoup("sweep", *experts, "--grid", str(plan.GRID), *base, "-o", folder / "soups", cwd=HERE)
    sets: dict[str, Any] = {"soups": {"table": "soups", "trainings": 2}}
    few = [{"lambda": _text(mix), "as": _text(mix)} for mix in plan.grid(plan.FEW)]
    sets["soups-11"] = {"table": "soups", "trainings": 2, "rows": few}

    sets |= _trials(folder, checkpoints, sizes)
    turned = ("--grid", str(plan.FEW), "--method", "slerp", "-o", folder / "slerp")
    farther = ("--grid", str(plan.FEW), "--scales", plan.SCALE, "-o", folder / "scaled")
    middle = f"middle={checkpoints}/{plan.training(Fraction(1, 2))}/{sizes.full}.zip"
    legs = ("--grid", str(plan.FEW // 2 + 1), "--waypoint", middle, "-o", folder / "waypoint")
    for trainings, words in ((2, turned), (2, farther), (3, legs)):
        rsoup("sweep", *experts, *words, *base, cwd=HERE)
        sets[Path(words[-1]).name] = {"table": Path(words[-1]).name, "trainings": trainings}
    told = (checkpoints / "trainings.jsonl").read_text(encoding="utf-8").splitlines()
    about: dict[str, Any] = {
        "trained": [json.loads(line) for line in told],
        "measuring_seconds": round(time.monotonic() - begun, 1),
    }
    write_done(folder, {"group": "cheetah", "seed": seed, "rewards": REWARDS, "sets": sets, "about": about})


def _trials(folder: Path, checkpoints: Path, sizes: Sizes) -> dict[str, Any]:
    """One sweep of MORL, the base and all attempts between two checkpoints; which of its points are whose."""
    mus = [Fraction(0), *plan.INTERIOR, Fraction(1)]
    paths = {plan.training(mu): f"{plan.training(mu)}/{sizes.full}.zip" for mu in mus}
    paths |= {f"init-{name}": f"init-{name}/{sizes.full - sizes.shared}.zip" for name in REWARDS}
    paths["start"] = "base.zip"
    names = list(paths)
    lines: dict[plan.Mix, None] = {}

    def row(shares: dict[str, Fraction], label: str, own: plan.Mix | None = None) -> dict[str, str]:
        mix = tuple(shares.get(name, Fraction(0)) for name in names)
        lines[mix] = None
        return {"lambda": _text(mix), "as": _text(own) if own else "", "label": label}

    one = Fraction(1)
    morl = [row({plan.training(mu): one}, f"μ = {float(mu):.1f}") for mu in mus]
    sets: dict[str, Any] = {
        "morl": {"table": "trials", "trainings": len(mus), "rows": morl},
        "base-alone": {"table": "trials", "trainings": 0, "rows": [row({"start": one}, "base")]},
    }
    for attempt in plan.attempts():
        rows = [
            row({attempt.one: mix[0], attempt.two: mix[1]}, label, mix if attempt.name == "beyond" else None)
            for mix, label in zip(attempt.mixes, attempt.labels, strict=True)
        ]
        sets[attempt.name] = {"table": "trials", "trainings": attempt.trainings, "rows": rows}
    with (folder / "trials-mixes.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([names, *lines])
    each = [f"{name}={checkpoints}/{path}" for name, path in paths.items()]
    rsoup(
        "sweep", *each, "--base", checkpoints / "base.zip", "--affine", "--csv", folder / "trials-mixes.csv", "--eval-file", checkpoints / "eyes.pkl", *COMMON,
        "-o", folder / "trials", cwd=HERE,
    )  # fmt: skip
    return sets


def along(folder: Path, checkpoints: Path, seed: int, _: Sizes) -> None:
    """Soups and some of MORL at every training length."""
    base = ("--base", checkpoints / "base.zip", "--eval-file", checkpoints / "eyes.pkl", *COMMON)
    experts = [f"{name}={checkpoints}/{name}/*.zip" for name in REWARDS]
    rsoup("sweep", *experts, "--grid", str(plan.FEW), *base, "-o", folder / "soups", cwd=HERE)
    tenth = [Fraction(0), *plan.ALONG, Fraction(1)]
    names = [plan.training(mu) for mu in tenth]
    alone = [tuple(Fraction(i == k) for i in range(len(names))) for k in range(len(names))]
    each = [f"{name}={checkpoints}/{name}/*.zip" for name in names]
    rsoup("sweep", *each, *_lambdas(alone), *base, "-o", folder / "morl", cwd=HERE)
    rows = [
        {"lambda": _text(mix), "label": f"μ = {float(mu):.1f}"} for mix, mu in zip(alone, tenth, strict=True)
    ]
    sets = {
        "soups": {"table": "soups", "trainings": 2},
        "morl": {"table": "morl", "trainings": len(names), "rows": rows},
    }
    write_done(folder, {"group": "along", "seed": seed, "rewards": REWARDS, "sets": sets})


def _lambdas(mixes: Sequence[plan.Mix]) -> list[str]:
    return [f"--lambda={_text(mix)}" for mix in mixes]


def _text(mix: plan.Mix) -> str:
    return ",".join(map(str, mix))


def main() -> None:
    """Train and measure every seed that is not there, one after the other."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("-o", "--out", type=Path, required=True)
    arguments.add_argument("--seeds", type=int, default=10)
    arguments.add_argument(
        "--along", type=int, default=5, help="seeds that are measured at every training length"
    )
    arguments.add_argument("--jobs", type=int, default=1, help="seeds side by side")
    arguments.add_argument(
        "--sizes", default="{}", help="JSON that replaces some of the sizes (for a small run)"
    )
    asked = arguments.parse_args()
    out = asked.out.resolve()
    todo = {}
    for seed in range(asked.seeds):
        trained = out / "checkpoints" / f"seed-{seed}"
        todo[f"seed-{seed}"] = partial(_seed, checkpoints=trained, seed=seed, sizes=asked.sizes, then=measure)
        if seed < asked.along:
            todo[f"along-{seed}"] = partial(
                _seed, checkpoints=trained, seed=seed, sizes=asked.sizes, then=along
            )
    run_cells(todo, out, jobs=asked.jobs)


def _seed(folder: Path, checkpoints: Path, seed: int, sizes: str, then: Any) -> None:
    train(checkpoints, seed, sizes)
    then(folder, checkpoints, seed, Sizes.of(sizes))


if __name__ == "__main__":
    main()
