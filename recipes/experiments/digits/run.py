"""Digits: soups of two, three and five trainings against trainings for mixed rewards, over seeds and training lengths.

python recipes/experiments/digits/run.py -o runs/digits              everything
python recipes/experiments/digits/run.py -o runs/digits --seeds 2    a first look

Resumable: what is there is not made again. Every soup is made, measured and judged by the command `rsoup`; the page of
what is there is made by `python recipes/experiments/digits/summary.py runs/digits`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import plan
from cells import write_done
from plan import Spec
from running import rsoup_here, run_cells
from train import train

HERE = Path(__file__).resolve().parent


def measure(folder: Path, spec: Spec) -> None:
    """Train the cell, sweep all its sets at once, compare the middle soups with their ensembles.

    To be called in the folder of this file, where the sweep finds its function.
    """
    begun = time.monotonic()
    train(folder, spec)
    trained = time.monotonic() - begun
    found = sweep(folder, spec)
    about: dict[str, Any] = {"seconds": {"training": round(trained, 1)}}
    if spec.full:
        found["ensemble"] = {"table": "ensemble.json", "trainings": spec.rewards}
    if spec.full and spec.rewards == 2:
        about["ensemble"] = {str(steps): _ensemble(folder, spec, steps) for steps in spec.steps}
    about["seconds"]["all"] = round(time.monotonic() - begun, 1)
    rewards = [f"r{k}" for k in range(1, spec.rewards + 1)]
    write_done(
        folder,
        {"group": spec.group, "seed": spec.seed, "rewards": rewards, "sets": found, "about": about},
    )


def sweep(folder: Path, spec: Spec) -> dict[str, Any]:
    """One sweep of every λ of every set, at all training steps; which of its points are whose."""
    wanted = plan.sets(spec)
    names = [one.name for one in plan.trainings(spec)]
    names += ["i1", "i2"] if spec.rewards == 2 and spec.full else []
    told: dict[str, Any] = {}
    lines: dict[tuple[Fraction, ...], None] = {}
    for name, group in wanted.items():
        rows = []
        for soup in group.soups:
            shares = tuple(soup.shares.get(one, Fraction(0)) for one in names)
            lines[shares] = None
            own = "" if soup.own is None else ",".join(map(str, soup.own))
            rows.append({"lambda": ",".join(map(str, shares)), "as": own, "label": soup.label})
        told[name] = {"table": "soups", "trainings": group.trainings, "rows": rows}
    with (folder / "mixes.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([names, *lines])
    metrics = [word for k in range(1, spec.rewards + 1) for word in ("--reward", f"r{k}")]
    metrics += [word for k in range(1, spec.rewards + 1) for word in ("--guard", f"r{k}_report")]
    checkpoints = [f"{name}={folder}/{name}/checkpoint-*" for name in names]
    rsoup_here(
        "sweep", *checkpoints, "--base", folder / "base", "--affine", "--csv", folder / "mixes.csv",
        "--function", "score:rewards", "--eval-file", HERE / "world.py", *metrics, "--allow", "distance", "--yes",
        "--threads", "1", "-q", "-o", folder / "soups",
    )  # fmt: skip
    return told


def _ensemble(folder: Path, spec: Spec, steps: int) -> dict[str, Any]:
    outputs = [folder / "outputs" / f"e{k}-{steps}.npy" for k in range(1, spec.rewards + 1)]
    mix = ",".join([f"1/{spec.rewards}"] * spec.rewards)
    text = rsoup_here(
        "ensemble", *outputs, "--soup", folder / "outputs" / f"soup-{steps}.npy", "--lambda", mix,
        "--labels", folder / "outputs" / "labels.npy", "--json",
    )  # fmt: skip
    found = json.loads(text)
    return {name: found[name] for name in ("gap", "relative", "agreement", "accuracy")}


def main() -> None:
    """Measure every cell that is not there, then write the page."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("-o", "--out", type=Path, required=True)
    arguments.add_argument("--seeds", type=int, default=20, help="seeds with two rewards")
    arguments.add_argument(
        "--more", type=int, default=10, help="seeds with three and five, and of other bases"
    )
    asked = arguments.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    out = asked.out.resolve()
    os.chdir(HERE)
    todo = {spec.name: partial(measure, spec=spec) for spec in plan.specs(asked.seeds, asked.more)}
    run_cells(todo, out)


if __name__ == "__main__":
    main()
