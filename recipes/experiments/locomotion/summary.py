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
import score
import wording
from cells import Cell, Point, read_cells, read_runs, write_cells
from evidence import Against
from pictures import advantage_over_seeds, draw
from train import Sizes
from world import HORIZON

PAGES = Path(__file__).resolve().parents[3] / "docs" / "experiments"
REPORTED = (2, 3, 4, 6, 11)
SHOWN = ("fast", "frugal")
ATTEMPTS = {
    "bone-0.6": "Bone Soup, β = 0.6",
    "bone-0.7": "Bone Soup, β = 0.7",
    "bone-0.8": "Bone Soup, β = 0.8",
    "backbones": "plain soups of the backbones of β = 0.7",
    "beyond": "λ from −1/4 to 5/4",
    "slerp": "SLERP of the updates",
    "scaled": f"soups {plan.SCALE} times as far from the base",
    "waypoint": "through MORL for μ = 1/2",
    "init": "experts that began from MORL for μ = 1/2",
}
EPISODES = 2 * score.EPISODES


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
    drawn = _figures(final, along, curve, data) if figures else {p.stem: p for p in data.glob("*.svg")}
    (pages / "locomotion.md").write_text(page(final, along, curve, drawn), encoding="utf-8")
    wording.write_verdicts(data, "Locomotion", "locomotion.md", [_verdict(final, curve)])
    return pages / "locomotion.md"


def _verdict(final: Sequence[Cell], curve: Sequence[Against]) -> dict[str, object]:
    last = curve[-1]
    best = evidence.worth(curve)
    passed = sum(evidence.connected(cell).verdict == "PASS" for cell in final)
    return {
        "setting": f"PPO, {_thousands(Sizes().full)} steps", "seeds": len(final), "trainings": 2, "against": last.trainings,
        "lmc": wording.count(passed, len(final)), "difference": wording.mean(last.differences, sign=True),
        "interval": wording.interval(last.decision),
        "verdict": "–" if last.decision is None else last.decision.verdict, "worth": "–" if best is None else str(best),
    }  # fmt: skip


def _thousands(number: float) -> str:
    return f"{number:,.0f}".replace(",", " ")


def _passed(cells: Sequence[Cell]) -> str:
    verdicts = [evidence.connected(cell).verdict for cell in cells]
    return ", ".join(
        f"{verdicts.count(word)}/{len(cells)} {word}"
        for word in dict.fromkeys(sorted(verdicts, reverse=True))
    )


# --- tables


def main_table(curve: Sequence[Against]) -> str:
    """Soups less M trainings."""
    rows = [
        [
            f"{row.trainings}",
            wording.mean(row.differences, sign=True),
            wording.interval(row.decision),
            wording.verdict(row.decision),
        ]
        for row in curve
        if row.trainings in REPORTED
    ]
    return wording.table(["M", "soups − MORL(M)", "95 % interval", "verdict"], rows)


def seeds_table(cells: Sequence[Cell]) -> str:
    """What the base and the experts earn, whether the two experts trade off, and both hypotheses."""
    head = ["seed", "base", "fast expert", "frugal expert", "LMC", "worst gap", "MORL beaten by a soup"]
    head += ["MORL that beats a soup", "soups beaten by MORL", "soups − MORL(11)"]
    last = evidence.against(cells)[-1].differences
    rows = []
    for cell, difference in zip(cells, last, strict=True):
        found = evidence.connected(cell)
        seen = evidence.dominance(cell)
        rows.append(
            [
                str(cell.seed),
                _pair(cell.sets["base-alone"][0]),
                *map(_pair, cell.experts),
                found.verdict,
                f"{evidence.worst_gap(found):+.3f}".replace("-", "−"),
                wording.count(seen.dominated, seen.others),
                wording.count(seen.dominate, seen.others),
                wording.count(seen.soups_dominated, seen.soups),
                wording.signed(difference),
            ]
        )
    return wording.table(head, rows)


def _pair(point: Point) -> str:
    """Both rewards on the report episodes: `4100 / 900`."""
    values = point.report or point.select
    return " / ".join(f"{value:.0f}" for value in values).replace("-", "−")


def rules_table(cells: Sequence[Cell]) -> str:
    """Ways to choose λ, by what they keep of the soups' gain over the better expert; in gains and in own units."""
    wanted = [(1 - i / 20, i / 20) for i in range(21)]
    both = [evidence.rules(cells, wanted, (2, 3, 5, 6, 11, 21), raw=raw) for raw in (False, True)]
    rows = []
    for rule, own in zip(*both, strict=True):
        rows.append([rule.name, str(rule.evaluations), wording.kept(rule.kept), wording.kept(own.kept)])
    return wording.table(["λ by", "evaluated soups", "kept, of gains", "kept, in own units"], rows)


def attempts_table(cells: Sequence[Cell]) -> str:
    """Other ways to spend trainings and λ, against the plain soups at as many evaluations."""
    delta = evidence.delta_of(cells)
    rows = []
    for name, said in ATTEMPTS.items():
        found = evidence.compared(cells, name, "soups-11", delta)
        against = evidence.compared(cells, name, "morl", delta)
        rows.append(
            [
                said, f"{cells[0].trainings[name]:g}", wording.mean(found.differences, sign=True),
                wording.interval(found.decision), wording.count(sum(d > 0 for d in found.differences), len(cells)),
                wording.mean(against.differences, sign=True), wording.interval(against.decision),
            ]
        )  # fmt: skip
    head = ["attempt", "trainings", "less plain soups", "95 % interval", "seeds where it is better"]
    return wording.table([*head, "less MORL(11)", "95 % interval"], rows)


def along_table(along: Sequence[Cell]) -> str:
    """Along training: connectivity, expected reward, and the difference to MORL."""
    rows = []
    for step in sorted({cell.step for cell in along if cell.step is not None}):
        cells = [cell for cell in along if cell.step == step]
        clear = [cell for cell in cells if evidence.apart(cell)]
        last = evidence.against(clear)[-1] if clear else None
        experts = [
            fmean(cell.experts[k].report[k] for cell in cells if cell.experts[k].report) for k in range(2)
        ]
        rows.append(
            [
                _thousands(step), str(len(cells)), *(f"{v:.0f}".replace("-", "−") for v in experts),
                _passed(cells), wording.count(len(clear), len(cells)),
                *(["–"] * 4 if last is None else [
                    wording.mean([evidence.worst_gap(evidence.connected(c)) for c in clear], sign=True),
                    wording.mean([evidence.hypervolume(c, c.sets["soups"]) for c in clear]),
                    wording.mean(last.differences, sign=True), wording.interval(last.decision),
                ]),
            ]
        )  # fmt: skip
    head = [
        "steps",
        "seeds",
        "fast of the fast expert",
        "frugal of the frugal expert",
        "LMC",
        "experts apart",
        "worst gap",
    ]
    others = f"soups − MORL({len(plan.ALONG) + 2})"
    return wording.table([*head, "hypervolume", others, "95 % interval"], rows)


def cost_table(cells: Sequence[Cell]) -> str:
    """Trainings, environment steps and evaluations of each set."""
    base = Sizes().base
    rows = []
    for name in ("soups", "morl", *ATTEMPTS):
        trainings, points = cells[0].trainings[name], len(cells[0].sets[name])
        rows.append(
            [
                name, f"{trainings:g}", _thousands(trainings * Sizes().full), str(points),
                _thousands(points * EPISODES * HORIZON),
            ]
        )  # fmt: skip
    head = ["set", "trainings", "steps of training", "points", "steps of evaluation"]
    return wording.table([f"after a base of {_thousands(base)} steps: {head[0]}", *head[1:]], rows)


# --- figures and the page


def _figures(
    final: Sequence[Cell], along: Sequence[Cell], curve: Sequence[Against], folder: Path
) -> dict[str, Path]:
    first = final[0]
    compare = {"MORL": "morl", "base": "base-alone"}
    drawn = draw(
        [first], {kind: folder / f"{kind}.svg" for kind in ("front", "connectivity")}, ingredients=SHOWN, compare=compare
    )  # fmt: skip
    drawn += draw(
        [first], {"front": folder / "attempts.svg"}, ingredients=SHOWN,
        compare={"Bone Soup": "bone-0.7", "waypoint": "waypoint", "MORL first": "init"},
    )  # fmt: skip
    drawn.append(advantage_over_seeds(curve, folder / "advantage.svg", over="MORL"))
    seed = [cell for cell in along if cell.seed == along[0].seed] if along else []
    if seed:
        drawn += draw(seed, {"training": folder / "training.svg"}, ingredients=SHOWN)
    return {path.stem: path for path in drawn}


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
        f"PPO (Stable-Baselines3, networks 64-64) trains a base on R₀.₁ for {_thousands(Sizes().base)} steps, and from it the two experts and nine MORL policies "
        f"for {_thousands(Sizes().full)} steps each. The statistics that scale observations and rewards are frozen with the base: soups of policies that see differently scaled observations are none. "
        f"A policy is judged by its mean action, in {EPISODES // 2} episodes to choose λ by and {EPISODES // 2} others to report."
    )
    yield (
        "Everything is in gains: each reward from the worse to the better expert of the same seed. "
        "The figure of a set is its expected reward over preferences μ uniform on [0, 1]: for each μ the best point by the select episodes, worth what the report episodes say."
    )
    yield (
        "**Changed after a first look.** PPO's batch size and the base's length were set by trials with seed 0: from a shorter base both experts still improved in both rewards, and there was nothing to trade off. "
        "The episodes of an evaluation were raised from 10 to 16 after a pilot whose errors were 7 to 15 % of the ranges. "
        "What the sets are, their λ, the scale and the rule below were fixed before any of these seeds was measured."
    )
    yield "## Two trainings against M"
    yield main_table(curve)
    yield (
        f"Mean ± standard error over the seeds; the interval is the bootstrap's. The rule was fixed before the runs: *match* if the interval lies above −δ, *worse* if it lies below 0, "
        f"and no verdict below {evidence.LEAST_SEEDS} seeds; δ is a tenth of what eleven trainings gain over the best single expert, here {delta:.3f}. "
        f"The soups of two trainings less eleven trainings: {wording.difference(last)}."
    )
    yield picture("advantage", "The advantage of the soups of two trainings over M trainings, all seeds")
    yield picture("front", f"Seed {final[0].seed}: soups, MORL and the base, on the select episodes")
    yield "## Connectivity and Pareto optimality, seed by seed"
    yield seeds_table(final)
    yield (
        "Returns are fast / frugal on the report episodes. LMC is tested on the select episodes with tolerance 0 and their standard errors; *worst gap* is the lowest distance to the chord in the experts' range. "
        "*Beaten* is dominated in both rewards; the experts themselves do not count."
    )
    yield "Over all seeds, by the episodes of both splits, in the experts' range:"
    yield gaps_table(final)
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
    yield rules_table(final)
    yield (
        "Once for preferences between gains, where λ* is λ = μ, and once for preferences between the rewards in their own units."
    )
    yield "## Can the plain soup be beaten?"
    yield (
        f"Each attempt at {plan.FEW} λ, less the plain soups at {plan.FEW} λ; Bone Soup trains two backbones for mixed rewards, which here are MORL policies, and takes λ = B⁻¹μ with `--affine`."
    )
    yield attempts_table(final)
    yield picture("attempts", f"Seed {final[0].seed}: the plain soups and three attempts")
    if along:
        yield "## Along training"
        yield along_table(along)
        yield (
            f"Gains are counted from the experts of the same length, where these are apart: by more than twice the error of their difference in both rewards on both splits; the figures to the right are of those seeds. Soups at {plan.FEW} λ against MORL for {len(plan.ALONG) + 2} μ."
        )
        yield picture("training-fronts", f"Seed {along[0].seed}: fronts along training")
        yield picture("training-measures", f"Seed {along[0].seed}: measures along training")
    yield "## Cost"
    yield cost_table(final)
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
    yield f"Linear connectivity: {_passed(final)}; the lowest gap to a chord is {wording.mean([evidence.worst_gap(evidence.connected(c)) for c in final], sign=True)} of the experts' range."
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


def gaps_table(cells: Sequence[Cell]) -> str:
    """How far the soups lie above the chords, in the experts' range, over all seeds and both splits."""
    rows = []
    for mix in plan.grid(5)[1:-1]:
        row = [f"{float(mix[0]):g}, {float(mix[1]):g}"]
        for k in range(2):
            found = []
            for cell in cells:
                (point,) = [one for one in cell.sets["soups"] if one.mix == mix]
                both = [evidence.gains(cell, [point], split)[0][k] for split in ("select", "report")]
                found.append(fmean(both) - float(mix[k]))
            row.append(wording.mean(found, sign=True))
        rows.append(row)
    return wording.table(["λ", *(f"{name}, above the chord" for name in SHOWN)], rows)


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
        f"A seed took {_thousands(steps / len(cells))} steps of training in {seconds / len(cells) / 60:.0f} minutes and {measured / 60:.0f} minutes of sweeps, "
        "one thread on a busy machine."
    )


if __name__ == "__main__":
    main()
