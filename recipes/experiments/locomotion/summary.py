"""From the measured seeds to small tables, and from these to the page and its figures.

python summary.py RUNS      what is measured becomes docs/experiments/locomotion/*.csv, and then the page
python summary.py           the page and its figures again, from the tables alone
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import evidence
import plan
import tables
import wording
from cells import Cell, read_cells, read_runs, write_cells
from evidence import Against
from figures import draw
from tables import ATTEMPTS, EPISODES, passed, thousands
from train import Sizes

PAGES = Path(__file__).resolve().parents[3] / "docs" / "experiments"


def main() -> None:
    """Write the page, its figures, its small tables and its verdicts."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("runs", type=Path, nargs="?")
    arguments.add_argument(
        "--pages", type=Path, default=PAGES, help="where locomotion.md and locomotion/ are"
    )
    asked = arguments.parse_args()
    if asked.runs is not None:
        write_cells(read_runs(asked.runs), asked.pages / "locomotion")
    print(write(asked.pages))


def write(pages: Path, *, figures: bool = True) -> Path:
    """locomotion.md, its figures (or with those there are) and verdicts.json from the tables in pages/locomotion."""
    data = pages / "locomotion"
    cells = read_cells(data)
    final = [cell for cell in cells if cell.group == "cheetah"]
    along = [cell for cell in cells if cell.group == "along"]
    if not final:
        raise SystemExit("no seed is measured yet")
    curve = evidence.against(final)
    drawn = draw(final, along, curve, data) if figures else {p.stem: p for p in data.glob("*.svg")}
    (pages / "locomotion.md").write_text(page(final, along, curve, drawn), encoding="utf-8")
    wording.write_verdicts(data, "Locomotion", "locomotion.md", [_verdict(final, curve)])
    return pages / "locomotion.md"


def _verdict(final: Sequence[Cell], curve: Sequence[Against]) -> dict[str, object]:
    last = curve[-1]
    best = evidence.worth(curve)
    connected = sum(evidence.connected(cell).verdict == "PASS" for cell in final)
    return {
        "setting": f"PPO, {thousands(Sizes().full)} steps", "seeds": len(final), "trainings": 2, "against": last.trainings,
        "lmc": wording.count(connected, len(final)), "difference": wording.mean(last.differences, sign=True),
        "interval": wording.interval(last.decision),
        "verdict": "–" if last.decision is None else last.decision.verdict, "worth": "–" if best is None else str(best),
    }  # fmt: skip


def page(
    final: Sequence[Cell], along: Sequence[Cell], curve: Sequence[Against], figures: dict[str, Path]
) -> str:
    """The page, every number from the tables."""
    return "\n\n".join(_parts(final, along, curve, figures)) + "\n"


def _parts(
    final: Sequence[Cell], along: Sequence[Cell], curve: Sequence[Against], figures: dict[str, Path]
) -> Iterator[str]:
    seeds, last = len(final), curve[-1]
    delta = evidence.delta_of(final)

    def picture(name: str, said: str) -> str:
        return f"![{said}](locomotion/{figures[name].name})\n\n*{said}*" if name in figures else ""

    yield "# Locomotion"
    yield (
        "*Made by `python recipes/experiments/locomotion/run.py -o RUNS` and `python recipes/experiments/locomotion/summary.py RUNS`; "
        f"every soup and sweep by the command `rsoup`. {_some(seeds)}.*"
    )
    yield "\n".join(f"* {line}" for line in findings(final, curve))
    yield "## What was done"
    yield (
        "A cheetah of MuJoCo (`mo-halfcheetah-v5`) is paid R_α = Σ v − α Σ ‖a‖² over episodes of 1000 steps: *fast* is R₀, *frugal* is R₁, "
        "and (1 − μ)·fast + μ·frugal is R_μ, so that MORL for μ is the same training with α = μ. "
        f"PPO (Stable-Baselines3, networks 64-64) trains a base on R₀.₁ for {thousands(Sizes().base)} steps, and from it the two experts and nine MORL policies "
        f"for {thousands(Sizes().full)} steps each. The statistics that scale observations and rewards are frozen with the base: soups of policies that see differently scaled observations are none. "
        f"A policy is judged by its mean action, in {EPISODES // 2} episodes to choose λ by and {EPISODES // 2} others to report."
    )
    yield (
        "Everything is in gains: each reward from the worse to the better expert of the same seed. "
        "The figure of a set is its expected reward over preferences μ uniform on [0, 1]: for each μ the best point by the select episodes, worth what the report episodes say."
    )
    yield (
        "**Changed after a first look.** PPO's batch size and the base's length were set by trials with seed 0: from a shorter base both experts still improved in both rewards, and there was nothing to trade off. "
        "The episodes of an evaluation were raised from 10 to 16 after a pilot whose errors were 7 to 15 % of the ranges. "
        "A first series had trainings of 200 thousand steps: in five seeds its soups stayed 0.614 ± 0.288 of the experts' ranges below its eleven trainings, but in one of them the experts were not apart beyond the noise of the episodes, "
        "so trainings are three times as long now, as first planned, and all seeds were measured anew. "
        "What the sets are, their λ, the scale and the rule below were fixed before any of these seeds was measured."
    )
    yield "## Two trainings against M"
    yield tables.main_table(curve)
    yield (
        f"Mean ± standard error over the seeds; the interval is the bootstrap's. The rule was fixed before the runs: *match* if the interval lies above −δ, *worse* if it lies below 0, "
        f"and no verdict below {evidence.LEAST_SEEDS} seeds; δ is a tenth of what eleven trainings gain over the best single expert, here {delta:.3f}. "
        f"The soups of two trainings less eleven trainings: {wording.difference(last)}."
    )
    yield picture("advantage", "The advantage of the soups of two trainings over M trainings, all seeds")
    yield picture("front", f"Seed {final[0].seed}: soups, MORL and the base, on the select episodes")
    yield "## Connectivity and Pareto optimality, seed by seed"
    yield tables.seeds_table(final)
    yield (
        "Returns are fast / frugal on the report episodes. LMC is tested on the select episodes with tolerance 0 and their standard errors; *worst gap* is the lowest distance to the chord in the experts' range. "
        "*Beaten* is dominated in both rewards; the experts themselves do not count."
    )
    yield "Over all seeds, by the episodes of both splits, in the experts' range:"
    yield tables.gaps_table(final)
    if one_sided := [cell.seed for cell in final if _dominated(cell)]:
        yield (
            f"In {len(one_sided)} of {seeds} seeds one expert is better than the other in both rewards: there is nothing to trade off between them."
        )
    yield picture(
        "connectivity", f"Seed {final[0].seed}: the rewards along λ, and the chords between the experts"
    )
    yield "## Which λ"
    yield (
        "What each rule keeps of the soups' gain over the better expert, averaged over 21 preferences: 1 is the best of all measured λ by the report episodes, 0 no better than the better expert; seeds whose best soup gains less than 1 % of what the experts are apart have nothing to keep and are left out. "
        "λ = μ and λ* need the two experts' evaluations alone; *validation* takes the best of so many evenly spaced λ, *surrogate* the maximum of the quadratic through them."
    )
    yield tables.rules_table(final)
    yield (
        "Once for preferences between gains, where λ* is λ = μ, and once for preferences between the rewards in their own units."
    )
    yield "## Can the plain soup be beaten?"
    yield (
        f"Each attempt at {plan.FEW} λ, less the plain soups at {plan.FEW} λ; Bone Soup trains two backbones for mixed rewards, which here are MORL policies, and takes λ = B⁻¹μ with `--affine`."
    )
    yield tables.attempts_table(final)
    yield picture("attempts", f"Seed {final[0].seed}: the plain soups and three attempts")
    if along:
        yield "## Along training"
        yield tables.along_table(along)
        yield (
            f"Gains are counted from the experts of the same length, where these are apart: by more than twice the error of their difference in both rewards on both splits; the figures to the right are of those seeds. Soups at {plan.FEW} λ against MORL for {len(plan.ALONG) + 2} μ."
        )
        yield picture("training-fronts", f"Seed {along[0].seed}: fronts along training")
        yield picture("training-measures", f"Seed {along[0].seed}: measures along training")
    yield "## Cost"
    yield tables.cost_table(final)
    yield _seconds(final)


def findings(final: Sequence[Cell], curve: Sequence[Against]) -> Iterator[str]:
    """The sentences at the top."""
    last, delta = curve[-1], evidence.delta_of(final)
    yield f"The soups of two trainings less {last.trainings} trainings, in expected reward: {wording.difference(last)}; δ = {delta:.3f}."
    clear = [cell for cell in final if evidence.apart(cell)]
    if clear and len(clear) < len(final):
        without = wording.mean(evidence.against(clear)[-1].differences, sign=True)
        yield (
            f"In {wording.count(len(clear), len(final))} seeds the experts are apart by more than twice the error of their difference, in both rewards on both splits: "
            f"the others' unit is mostly noise. Without these, which is no part of the rule: {without}."
        )
    worth = evidence.worth(curve)
    if worth is not None:
        yield f"They are worth {worth} trainings: the largest number that they match."
    yield f"Linear connectivity: {passed(final)}; the lowest gap to a chord is {wording.mean([evidence.worst_gap(evidence.connected(c)) for c in final], sign=True)} of the experts' range."
    seen = [evidence.dominance(cell) for cell in final]
    yield (
        f"Pareto optimality: {sum(one.dominate for one in seen)} of {sum(one.others for one in seen)} MORL policies are better in both rewards than some soup, "
        f"{sum(one.dominated for one in seen)} are worse than some soup."
    )
    tried = {name: evidence.compared(final, name, "soups-11", delta) for name in ATTEMPTS}
    best = max(tried, key=lambda name: fmean(tried[name].differences))
    yield f"Of {len(tried)} attempts to beat the plain soups the best was: {ATTEMPTS[best]}, {wording.difference(tried[best])}, the best of several and so too good a number."


def _some(seeds: int) -> str:
    short = (
        f"; {evidence.LEAST_SEEDS} are planned, and until then nothing is decided"
        if seeds < evidence.LEAST_SEEDS
        else ""
    )
    return f"{seeds} {'seed' if seeds == 1 else 'seeds'}{short}"


def _dominated(cell: Cell) -> bool:
    one, two = (expert.report or expert.select for expert in cell.experts)
    return all(a >= b for a, b in zip(one, two, strict=True)) or all(
        a <= b for a, b in zip(one, two, strict=True)
    )


def _seconds(cells: Sequence[Cell]) -> str:
    trained = [one for cell in cells for one in cell.about["trained"]]
    steps, seconds = (sum(one[key] for one in trained) for key in ("steps", "seconds"))
    measured = fmean(cell.about["measuring_seconds"] for cell in cells)
    return (
        f"A seed took {thousands(steps / len(cells))} steps of training in {seconds / len(cells) / 60:.0f} minutes and {measured / 60:.0f} minutes of sweeps, "
        "one thread on a busy machine."
    )


if __name__ == "__main__":
    main()
