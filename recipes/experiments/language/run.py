"""A small language model: LoRA and full trainings by TRL for two rewards, their soups, and trainings for mixed rewards.

python recipes/experiments/language/run.py -o runs/language              ten seeds, about a quarter of an hour each
python recipes/experiments/language/run.py -o runs/language --seeds 1    a first look

It needs TRL ≥ 1.16 (`pip install -c constraints.txt -e '.[experiments]'`), no network and no GPU.
Resumable: what is there is not made again. Every soup is made, measured and judged by the command `rsoup`; the page of
what is there is made by `python recipes/experiments/language/summary.py runs/language`.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import plan
from cells import write_done
from plan import Group
from running import command, rsoup, run_cells

HERE = Path(__file__).resolve().parent
REWARDS = ("short", "letters")
METRICS = [
    *(word for name in REWARDS for word in ("--reward", name)),
    *(word for name in REWARDS for word in ("--guard", f"{name}_report")),
    "--guard", "odd:min",
]  # fmt: skip


def measure(folder: Path, seed: int, size: str) -> None:
    """Train a seed, sweep its adapters, full models and checkpoints, cut and average factors; a cell per family."""
    begun = time.monotonic()
    train(folder, seed, size)
    trained = time.monotonic() - begun
    grid, equal, coarse, along = (
        (3, 3, 3, 2) if size == "tiny" else (plan.GRID, plan.EQUAL, plan.COARSE, plan.ALONG)
    )
    families = {**_adapters(folder, plan.sets(grid, equal)), "full": _full(folder, grid)}
    about: dict[str, dict[str, Any]] = {name: {} for name in families}
    for name, pair in plan.PAIRS.items():
        families[name]["factors"] = _factors(folder, name, pair, coarse)
        families[name]["ranks"], about[name]["error"] = _ranks(folder, name, pair, size)
        about[name]["check"] = _checked(folder, pair)
    about["full"]["check"] = _checked(folder, ("full-1", "full-2"))
    families["steps"] = _along(folder, along)
    about["steps"] = {}
    about["lora"]["seconds"] = {
        "training": round(_seconds(folder), 1), "this run": round(trained, 1),
        "all of this run": round(time.monotonic() - begun, 1),
    }  # fmt: skip
    about["lora"]["versions"] = json.loads((folder / "versions.json").read_text(encoding="utf-8"))
    about["lora"]["samples"] = _samples(folder)
    for name in ("other", "full", "steps", "lora"):  # the last is this folder: the seed is done
        place = folder if name == "lora" else folder.with_name(f"{name}-seed-{seed:02d}")
        place.mkdir(exist_ok=True)
        near = {
            key: one if name == "lora" else {**one, "table": f"../{folder.name}/{one['table']}"}
            for key, one in families[name].items()
        }
        write_done(
            place, {"group": name, "seed": seed, "rewards": REWARDS, "sets": near, "about": about[name]}
        )


def train(folder: Path, seed: int, size: str) -> None:
    """`train.py`, its progress passed on; what it and TRL say besides is in FOLDER/training.log."""
    with (folder / "training.log").open("a", encoding="utf-8") as log:
        words = [sys.executable, str(HERE / "train.py"), str(folder), str(seed), size]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True) as child:
            for line in child.stdout or ():
                log.write(line)
                if line.startswith(folder.name):
                    print(f"  {line}", end="", flush=True)
        if child.returncode:
            sys.exit(f"{' '.join(words)}\nexit {child.returncode}; see {log.name}")


def _sweep(folder: Path, out: str, *words: str | Path) -> None:
    """One sweep of a seed; a function of the live soup unless a command is given."""
    print(f"  {folder.name} measures {out}", flush=True)
    how: Sequence[str | Path] = () if "--eval" in words else ("--function", "score:rewards")
    rsoup(
        "sweep", *words, *how, "--base", folder / "base", "--eval-file", "world.py",
        "--eval-file", folder / "prompts.json", *METRICS, "--allow", "distance", "--threads", "1", "-q",
        "-o", folder / out, cwd=HERE,
    )  # fmt: skip


def _adapters(folder: Path, every: Mapping[str, Mapping[str, Group]]) -> dict[str, dict[str, Any]]:
    """Every λ of every set of adapters in one sweep; which of its points are whose, by group and set."""
    told: dict[str, dict[str, Any]] = {}
    lines: dict[str, None] = {}
    for group, wanted in every.items():
        told[group] = {}
        for name, one in wanted.items():
            rows = []
            for soup in one.soups:
                mix = ",".join(str(soup.shares.get(adapter, 0)) for adapter in plan.ADAPTERS)
                lines[mix] = None
                own = "" if soup.own is None else ",".join(map(str, soup.own))
                rows.append({"lambda": mix, "as": own, "label": soup.label})
            told[group][name] = {"table": "adapters", "trainings": one.trainings, "rows": rows}
    with (folder / "mixes.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([plan.ADAPTERS, *(mix.split(",") for mix in lines)])
    named = [f"{adapter}={folder / adapter}" for adapter in plan.ADAPTERS]
    _sweep(folder, "adapters", *named, "--fold", "--affine", "--csv", folder / "mixes.csv")
    return told


def _full(folder: Path, grid: int) -> dict[str, Any]:
    """Soups of the two full fine-tunes."""
    _sweep(folder, "full", folder / "full-1", folder / "full-2", "--grid", str(grid))
    return {"soups": {"table": "full", "trainings": 2}}


def _along(folder: Path, values: int) -> dict[str, Any]:
    """Soups of the first pair at each of TRL's checkpoints."""
    series = [f"{name}={folder / name}/checkpoint-*" for name in plan.PAIRS["lora"]]
    _sweep(folder, "steps", *series, "--fold", "--grid", str(values))
    return {"soups": {"table": "steps", "trainings": 2}}


def _factors(folder: Path, group: str, pair: Sequence[str], values: int) -> dict[str, Any]:
    """The separate averages of A and B, as adapters that PEFT opens."""
    score = f"{sys.executable} score.py {{model}} {{base}} {{out}}"
    _sweep(
        folder, f"factors-{group}", *(folder / name for name in pair), "--method", "factors",
        "--grid", str(values), "--eval", score,
    )  # fmt: skip
    return {"table": f"factors-{group}", "trainings": 2}


def _ranks(
    folder: Path, group: str, pair: Sequence[str], size: str
) -> tuple[dict[str, Any], dict[str, float]]:
    """The middle soup cut to smaller ranks, and its factors averaged: the error that rsoup prints, and the rewards."""
    place = folder / f"cut-{group}"
    errors: dict[str, float] = {}
    made = []
    wanted: dict[str, tuple[str, ...]] = {f"rank {r}": ("--rank", str(r)) for r in plan.RANKS}
    if size == "tiny":
        wanted = {"rank 1": ("--rank", "1")}
    wanted = {"exact": (), **wanted, "factors": ("--method", "factors")}
    shutil.rmtree(place, ignore_errors=True)
    for name, words in wanted.items():
        out = place / name.replace(" ", "-")
        text = rsoup(
            "merge", *(folder / one for one in pair), "--lambda", "1/2,1/2", *words, "--base", folder / "base",
            "-o", out, "--json",
        )  # fmt: skip
        errors[name] = _error(json.loads(text))
        made.append(out)
    alone = [",".join("1" if i == k else "0" for i in range(len(made))) for k in range(len(made))]
    named = [f"{path.name}={path}" for path in made]
    lambdas = [word for mix in alone for word in ("--lambda", mix)]
    _sweep(folder, f"ranks-{group}", *named, "--fold", *lambdas)
    rows = [{"lambda": mix, "label": name} for mix, name in zip(alone, wanted, strict=True)]
    return {"table": f"ranks-{group}", "trainings": 2, "rows": rows}, errors


def _error(told: Mapping[str, Any]) -> float:
    """How far an adapter is from the exact soup, in the soup's norm: what `rsoup merge --json` says of it."""
    adapter = told["adapter"]
    return float(adapter.get("distance_from_soup", adapter["error"]))


def _checked(folder: Path, pair: Sequence[str]) -> dict[str, Any]:
    """What `rsoup check` says of two trainings: how far they went, which way, and whether adapters begin as one."""
    said = command(
        sys.executable, "-m", "rsoup", "check", *(folder / name for name in pair), "--base", folder / "base", "--json",
        also=(3,),  # not one family: said, not refused
    )  # fmt: skip
    found: dict[str, Any] = json.loads(said)
    told = found["adapters"] or found["measures"]
    kept = {
        "verdict": found["verdict"],
        "distance": told["total"]["relative"],
        "cosine": told["cosine"][0][1],
    }
    if found["adapters"]:
        kept |= {"a": told["a_cosine"][0][1], "factors": told["factors_distance"]}
    return kept


def _samples(folder: Path) -> dict[str, list[dict[str, str]]]:
    """What both experts, the soup between them and the base say to three of the prompts; from the sweep's ledger."""
    wanted: dict[str, dict[str, Fraction]] = {
        "base": {}, "short": {"lora-1": Fraction(1)}, "letters": {"lora-2": Fraction(1)},
        "soup": {"lora-1": Fraction(1, 2), "lora-2": Fraction(1, 2)},
    }  # fmt: skip
    lines = (folder / "adapters" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    records = [one for one in map(json.loads, lines) if "mix" in one]
    told = {}
    for name, shares in wanted.items():
        log = next(one["log"] for one in records if _shares(one["mix"]) == shares)  # logs/POINT/select-0.log
        path = folder / "adapters" / "outputs" / Path(log).parent.name / Path(log).stem / "samples.jsonl"
        told[name] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:3]]
    return told


def _shares(mix: Mapping[str, str]) -> dict[str, Fraction]:
    return {name: Fraction(text) for name, text in mix.items() if Fraction(text)}


def _seconds(folder: Path) -> float:
    """What all trainings of the seed took, of the base too."""
    return sum(float(path.read_text(encoding="utf-8")) for path in folder.glob("*/seconds"))


def main() -> None:
    """Measure every seed that is not there."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("-o", "--out", type=Path, required=True)
    arguments.add_argument("--seeds", type=int, default=10)
    arguments.add_argument("--jobs", type=int, default=1, help="seeds side by side")
    arguments.add_argument("--size", default="full", help="tiny: a few steps, to try the whole of it")
    asked = arguments.parse_args()
    todo = {
        f"lora-seed-{seed:02d}": partial(measure, seed=seed, size=asked.size) for seed in range(asked.seeds)
    }
    run_cells(todo, asked.out.resolve(), jobs=asked.jobs)


if __name__ == "__main__":
    main()
