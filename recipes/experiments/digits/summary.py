"""The page on digits, its figures and its small tables.

python recipes/experiments/digits/summary.py RUNS     from the cells of a run: also writes the small tables anew
python recipes/experiments/digits/summary.py          from the small tables in docs/experiments/digits
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import evidence
import tables
from cells import read_cells, read_runs, write_cells
from evidence import Against, values_of
from figures import draw
from tables import TITLES, TRIED, Settings, ordered, title
from wording import difference, interval, mean, signed, verdict, write_verdicts

PAGES = Path(__file__).resolve().parents[3] / "docs" / "experiments"
Curves = Mapping[tuple[str, int], list[Against]]


def main() -> None:
    """Write the page, its figures, its small tables and its verdicts."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("runs", type=Path, nargs="?")
    arguments.add_argument("--pages", type=Path, default=PAGES, help="where digits.md and digits/ are")
    asked = arguments.parse_args()
    if asked.runs is not None:
        write_cells(read_runs(asked.runs), asked.pages / "digits")
    print(write(asked.pages))


def write(pages: Path, *, figures: bool = True) -> Path:
    """digits.md, its figures and verdicts.json from the small tables in pages/digits."""
    folder = pages / "digits"
    found = tables.settings(read_cells(folder))
    curves = {key: evidence.against(these) for key, these in found.items()}
    captions = draw(found, curves, folder) if figures else {}
    (pages / "digits.md").write_text(page(found, curves, captions), encoding="utf-8")
    lines = [tables.line(key, found[key], curves[key]) for key in ordered(found)]
    write_verdicts(folder, "Digits", "digits.md", lines)
    return pages / "digits.md"


def page(found: Settings, curves: Curves, captions: Mapping[str, str]) -> str:
    """The whole page."""

    def shown(*names: str) -> str:
        wanted = [file for name in names for file in captions if file.split(".")[0] == name]
        return "\n\n".join(f"![{captions[file]}](digits/{file})\n*{captions[file]}*" for file in wanted)

    names = {cell.name for cells in found.values() for cell in cells}
    chances = {
        group: fmean(
            fmean(values_of(cell.sets["base-alone"][0], "report"))
            for key, cells in found.items()
            if key[0] == group
            for cell in cells
        )
        for group in ("n2", "strong", "weak")
        if any(key[0] == group for key in found)
    }
    bases = ", ".join(f"{TITLES[group]} {chance:.2f}" for group, chance in chances.items())
    spent = [cell.about["seconds"]["all"] for cells in found.values() for cell in cells[:1]]
    return f"""# Digits: are two trainings worth eleven?

*{len(names)} cells, a cell being a base of one seed with all of its trainings. `python recipes/experiments/digits/run.py -o RUNS` makes them: every soup, sweep, ensemble and front by the command `rsoup`.
`python recipes/experiments/digits/summary.py RUNS` writes this page; without RUNS it does so from the small tables in [digits/](digits/).*

{chr(10).join(f"* {line}" for line in findings(found, curves))}

## What was done

A policy (64-64-64-10, ReLU) sees 8 × 8 digits and answers at random by its softmax; reward k pays for a right answer to the digits of group k: 0–4 and 5–9, or 0–2, 3–5, 6–9, or five pairs.
The base comes of 300 supervised steps (batch 256, Adam 3e-4). From it REINFORCE (batch 256, Adam 3e-4, no baseline) makes an expert per reward and, as MORL, a policy per μ for Σ μₖRₖ: eleven between two rewards, of which the first and the last are the experts; the ten thirds of three; corners, centre and middles of pairs of five. All trainings of a cell share base, number of steps and rate.
Soups are measured at 21 λ of two experts, 28 of three, 46 of five. Rewards are exact expectations: on 400 images to choose by, on 400 others to report.

Three other bases: 1200 steps; and, with ten times the rate afterwards, 60 steps (the negative control) and 300. A right answer has these chances before any REINFORCE: {bases}.

**Fixed before the runs.** A set of models is worth its expected reward over μ uniform on the simplex: for every μ the best point by the select images, worth what it is on the report images, in gains (0 is the worst of the cell's experts, 1 the best, for each reward).
Soups less MORL, paired by seed. *Match*: the 95 % bootstrap interval of the mean lies above −δ, where δ is 10 % of what all of MORL gains over the best single expert. *Better*: above 0. *Worse*: below 0 and no match. Fewer than {evidence.LEAST_SEEDS} seeds are inconclusive whatever they say, and fewer than five have no interval.
β, scales, numbers of λ and budgets were fixed too.

**Changed after a first look.** One seed of the usual base was run first. Then the base of 1200 steps was added, to see whether the base decides; to save time, β = 0.6 and 0.8, a third seed per reward, and scaled soups of three and five experts were dropped, and fewer λ taken there. No setting of a training was changed; that seed was run anew and is among these.

## Two trainings against M

Expected reward of the soups less that of M trainings of MORL at equally spaced μ, as in the paper; beyond two rewards, of all of them. *LMC*: in how many cells no soup lies below the chord of its experts, at tolerance 0. *Worst gap*: the lowest of any reward, in the experts' range. *Worth*: the largest M with match or better.

{tables.main_table(found, curves)}

{shown("front-25", "front-100", "front-400", "advantage-n2-25", "advantage-n2-100", "advantage-n2-400", "front-strong", "advantage-strong-100")}

## The two hypotheses

Linear connectivity (hypothesis 1) is *LMC* above. Pareto optimality (hypothesis 2) says that the same procedure finds nothing better than the soups: so many trainings of MORL, the experts aside, lie below a soup in every reward, so many above one, and so many soups below a training. Then expected rewards of single models and of sets, and hypervolumes on the select images.

{tables.dominance_table(found)}

{shown("connectivity-400", "front-weak", "connectivity-weak", "training-fronts", "training-measures")}

## More rewards

{shown("spider-n3", "spider-n5", "advantage-n3-100", "advantage-n5-100")}

## Other ways to spend the trainings

* *Scaled*: θ₀ + s·(soup − θ₀), the same experts, farther from the base (`--affine`, Σλ = s).
* *Bone Soup*: experts for 0.7 of their own reward and 0.3 of the others, λ = B⁻¹μ, negative shares among them (`--affine`).
* *MORL initialisation*: MORL for μ = ½ for half the steps, from there each expert for three quarters: as many steps as two trainings.
* *MORL waypoint*: λ from one expert to MORL for μ = ½, and on to the other (a third training).
* *RS + MS*: two seeds per reward, averaged first (twice the trainings). *Ensemble*: the average of the experts' outputs, N networks at inference.

Differences of expected rewards: mean ± standard error over the seeds (95 % interval) verdict, by the same rule and the same δ.

{tables.tried_tables(found)}

{shown("front-bone", "front-tried")}

## Which λ

Two rewards, μ = 0.1, 0.2, … 0.9. What a rule keeps of the gain of the best of 41 soups over the better expert, on the report images: 1 is that best one, 0 the better expert. λ = μ and Lemma 3's λ* need the experts' evaluations alone; *validation* takes the best of equally spaced λ, *surrogate* the maximum of the quadratic through the same, both on the select images. In gains λ* is λ = μ.

{tables.rules_table(found)}

## Ensembles and model soups

The middle soup and the average of its experts' outputs, on the report images, as `rsoup ensemble` compares them (Lemma 4); and how much of the experts' range model soups reach (λ between two seeds of the first reward).

{tables.ensemble_table(found)}

## Cost

Trainings + evaluations.

{tables.cost_table(found)}

A cell took {min(spent):.0f} to {max(spent):.0f} s on a busy machine, one thread.
"""  # noqa: S608 - no query


def findings(found: Settings, curves: Curves) -> Iterator[str]:
    """The sentences at the top."""
    for key in ordered(found):
        last, these = curves[key][-1], found[key]
        if last.decision is None:
            continue
        rewards = len(these[0].rewards)
        yield (
            f"{title(*key).capitalize()}: the soups of {rewards} trainings against {last.trainings} trainings: {verdict(last.decision)},"
            f" {signed(last.decision.mean)}, {_between(last)}δ = {evidence.delta_of(these):.3f}."
        )
    for name in ("bone", "scaled-2.0"):
        told = []
        for key in [key for key in ordered(found) if key[0] == "n2"]:
            if not all(name in cell.sets for cell in found[key]):
                continue
            plain = evidence.compared(found[key], name, "soups", evidence.delta_of(found[key]))
            morl = evidence.compared(found[key], name, "morl", evidence.delta_of(found[key]))
            told.append(f"{key[1]} steps {mean(plain.differences, sign=True)} and {difference(morl)}")
        if told:
            yield f"{TRIED[name][0].upper()}{TRIED[name][1:]}, as many trainings, less the plain soups and less eleven trainings: {'; '.join(told)}."


def _between(found: Against) -> str:
    """`−0.012 to +0.003, `, or nothing where there is no interval."""
    shown = interval(found.decision)
    return "" if shown == "–" else f"{shown}, "


if __name__ == "__main__":
    main()
