"""From the measured cells to the page and its figures.

python summary.py RUNS [PAGE_FOLDER]        default docs/experiments
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rsoup.front.decision import decide
from rsoup.front.expected import envelope
from rsoup.front.pareto import reference_of, scaled
from rsoup.measured.table import read_table

ROOT = Path(__file__).resolve().parents[3]
DELTA = 0.10
"""A match is within this share of what eleven trainings gain over the best single expert: fixed before the runs."""
Values = tuple[float, ...]


def points(folder: Path) -> list[tuple[Values, Values | None, tuple[float, ...]]]:
    """(select, report or None, λ) of every point of a sweep."""
    table = read_table(str(folder))
    names = list(table.metrics)
    return [
        (
            tuple(row.select[name].value for name in names),
            tuple(row.report[name].value for name in names) if row.report else None,
            tuple(map(float, row.mix or ())),
        )
        for row in table.done
    ]


def chosen(cell: Path, which: str) -> float:
    """Expected reward of a set: the best point per preference by the select images, worth what the report images say.

    In gains over the experts of the cell, each reward divided by their range, on each split by itself.
    """
    soups = points(cell / "soups")
    experts = [(s, r) for s, r, mix in soups if max(mix) == 1]
    up = (True, True)
    by_select = reference_of([s for s, _ in experts], up, [s for s, _ in experts])
    by_report = reference_of([r for _, r in experts if r], up, [r for _, r in experts if r])
    found = points(cell / which)
    gains = [scaled(s, up, by_select) for s, _, _ in found]
    total = 0.0
    for part in envelope(gains):
        report = found[part.index][1]
        assert report is not None, "the points of the front are always measured again"
        one, two = scaled(report, up, by_report)
        share, middle = part.end - part.start, (part.start + part.end) / 2
        total += share * ((1 - middle) * one + middle * two)
    return total


def cells(runs: Path, start: str, end: str = "") -> list[Path]:
    """The measured cells of a kind, by seed."""
    found = [path.parent for path in runs.glob(f"{start}-seed-*{end}/front.json")]
    return sorted(p for p in found if p.name.endswith("-weak") == (end == "-weak"))


def mean_text(values: Sequence[float]) -> str:
    """`+0.012 ± 0.003`: the mean and its standard error over the seeds."""
    if len(values) < 2:
        return f"{fmean(values):+.3f}"
    return f"{fmean(values):+.3f} ± {stdev(values) / len(values) ** 0.5:.3f}"


def front_of(cell: Path) -> Mapping[str, Any]:
    """What `rsoup front` said of a cell."""
    found: dict[str, Any] = json.loads((cell / "front.json").read_text())
    return found


def other(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """One of the sets that a cell was compared with."""
    return next(one for one in found["compared"] if one["name"] == name)


def lengths(runs: Path) -> list[int]:
    """The training lengths there are."""
    found = {
        int(p.name.split("-")[2]) for p in runs.glob("n2-steps-*-seed-*") if not p.name.endswith("-weak")
    }
    return sorted(found)


def main_table(runs: Path) -> Iterator[str]:
    """Soups of two trainings against 2, 3, … 11 trainings, per length, and the verdict."""
    yield "| steps | seeds | LMC (PASS) | worst gap | M = 2 | 3 | 4 | 6 | 11 | chosen on one split, reported on the other: RS − MORL(11) | verdict |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for steps in lengths(runs):
        these = cells(runs, f"n2-steps-{steps}")
        found = [front_of(cell) for cell in these]
        curve = {m: [_spaced(one, m) for one in found] for m in (2, 3, 4, 6, 11)}
        passed = sum(one["connectivity"]["verdict"] == "PASS" for one in found)
        gaps = [min(r["worst"]["of_range"] for r in one["connectivity"]["rewards"].values()) for one in found]
        differences = [chosen(cell, "soups") - chosen(cell, "morl") for cell in these]
        gain = (
            fmean(chosen(cell, "morl") for cell in these) - 0.5
        )  # the best single expert has 1/2 by definition
        verdict = decide(differences, DELTA * gain) if len(differences) > 1 else None
        said = (
            "-" if verdict is None else f"{verdict.low:+.3f} to {verdict.high:+.3f}; δ = {DELTA * gain:.3f}"
        )
        shown = " | ".join(mean_text(values) for values in curve.values())
        word = "-" if verdict is None else verdict.verdict
        yield f"| {steps} | {len(these)} | {passed}/{len(these)} | {mean_text(gaps)} | {shown} | {mean_text(differences)} ({said}) | {word} |"


def _spaced(found: Mapping[str, Any], trainings: int) -> float:
    rows = other(found, "morl")["advantage"]["curve"]
    return float(next(row["spaced"]["value"] for row in rows if row["trainings"] == trainings))


def sets_table(runs: Path) -> Iterator[str]:
    """Expected rewards of the other ways to spend trainings, all in the gains of the two experts."""
    yield "| steps | experts alone (2 trainings) | soups (2) | RS+MS (4) | model soups of one reward (2) | MORL (11) | λ = μ̂ |"
    yield "|---|---|---|---|---|---|---|"
    for steps in lengths(runs):
        found = [front_of(cell) for cell in cells(runs, f"n2-steps-{steps}")]
        sets = {
            name: [other(one, name)["expected_reward"]["others"] for one in found]
            for name in ("rs+ms", "ms", "morl")
        }
        own = [one["expected_reward"]["value"] for one in found]
        same = [one["expected_reward"]["lambda_is_preference"]["value"] for one in found]
        row = [mean_text(v) for v in (own, sets["rs+ms"], sets["ms"], sets["morl"], same)]
        yield f"| {steps} | +0.750 | {' | '.join(row)} |"


def more_table(runs: Path) -> Iterator[str]:
    """More rewards, and the weak base."""
    yield "| | seeds | LMC (PASS) | worst gap | expected reward: soups | experts alone | MORL (its trainings) |"
    yield "|---|---|---|---|---|---|---|"
    for title, these in (
        ("3 rewards, 100 steps", cells(runs, "n3-steps-100")),
        ("5 rewards, 100 steps", cells(runs, "n5-steps-100")),
        ("2 rewards, weak base (60 steps), 200 steps", cells(runs, "n2-steps-200", "-weak")),
    ):
        found = [front_of(cell) for cell in these]
        if not found:
            continue
        passed = sum(one["connectivity"]["verdict"] == "PASS" for one in found)
        gaps = [
            min(r["worst"]["of_range"] or 0.0 for r in one["connectivity"]["rewards"].values())
            for one in found
        ]
        own = [one["expected_reward"]["value"] for one in found]
        alone = [one["expected_reward"]["experts"]["value"] for one in found]
        morl = [other(one, "morl") for one in found]
        count = len(morl[0]["points"])
        yield f"| {title} | {len(these)} | {passed}/{len(these)} | {mean_text(gaps)} | {mean_text(own)} | {mean_text(alone)} | {mean_text([m['expected_reward']['others'] for m in morl])} ({count}) |"


def draw(runs: Path, place: Path) -> list[str]:
    """The figures of the first seed, by `rsoup front`."""
    names = []
    for steps in lengths(runs):
        cell = cells(runs, f"n2-steps-{steps}")[0]
        line = [
            "front",
            f"{cell}/soups",
            "--compare",
            f"MORL={cell}/morl",
            "--compare",
            f"base={cell}/base-alone",
            "--overwrite",
        ]
        files = [f"digits-{kind}-{steps}.svg" for kind in ("front", "advantage")]
        plots = [
            word
            for kind, file in zip(("front", "advantage"), files, strict=True)
            for word in ("--plot", f"{kind}={place / file}")
        ]
        # the advantage is drawn for MORL alone: one base has no curve
        subprocess.run([sys.executable, "-m", "rsoup", *line, *plots], check=True, capture_output=True)
        names += [file for file in files if (place / file).exists()]
    return names


def page(runs: Path, figures: Sequence[str]) -> str:
    """The page, every number from the runs."""
    pictures = "\n".join(f"![{name}]({name})" for name in figures)
    return f"""# Digits

*Made by `python recipes/experiments/digits/run.py -o RUNS`; every soup, sweep and front by the command `rsoup`.*

A policy (MLP 64-64-64-10) learns 8 × 8 digits for 300 supervised steps; that is the base. From it, REINFORCE (batch 256, Adam 3e-4, no baseline) makes an expert for each of two rewards: right answers to 0–4, right answers to 5–9. MORL: the same training on (1−μ)R₁ + μR₂ for μ = 0, 0.1, … 1; μ = 0 and 1 are the experts themselves. Rewards are exact expectations under the policy: on 400 images to choose λ by, and on 400 others to report.
Everything is in gains: each reward from the worse to the better expert of the same seed. The experts alone have an expected reward of 0.750, the best single one 0.500.

## Two trainings against M

Soups at 21 λ, less M equally spaced MORL trainings (the paper's curve); mean ± standard error over the seeds.

{chr(10).join(main_table(runs))}

The decision was fixed before the runs: *match* if the 95 % interval of the paired difference over the seeds lies above −δ, δ = 10 % of what eleven trainings gain over the best single expert.

## Other ways to spend trainings

{chr(10).join(sets_table(runs))}

RS+MS averages two trainings per reward before it mixes; model soups average two trainings of the first reward. All on the select images.

## More rewards, and a weak base

{chr(10).join(more_table(runs))}

Soups of three experts at 15 λ, of five at 15; MORL there are the vertices, the middles of all pairs and the centre.

## Pictures of the first seed

{pictures}
"""


def main() -> None:
    """Write the page and its figures."""
    runs = Path(sys.argv[1])
    place = Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "docs" / "experiments"
    place.mkdir(parents=True, exist_ok=True)
    figures = draw(runs, place)
    (place / "digits.md").write_text(page(runs, figures), encoding="utf-8")
    print(place / "digits.md")


if __name__ == "__main__":
    main()
