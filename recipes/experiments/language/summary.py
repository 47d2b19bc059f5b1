"""The page on the language model, its figures and its small tables.

python recipes/experiments/language/summary.py RUNS     from the seeds of a run: also writes the small tables anew
python recipes/experiments/language/summary.py          from the small tables in docs/experiments/language
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import evidence
import plan
import score
import tables
import world
from cells import Cell, read_cells, read_runs, write_cells
from evidence import Against
from figures import draw
from tables import TITLES, TRIED, Curves, Groups, equal_to_factors, groups, verdicts, worth
from wording import count, difference, interval, mean, signed, verdict, write_verdicts

PAGES = Path(__file__).resolve().parents[3] / "docs" / "experiments"


def page(found: Groups, curves: Curves, captions: Mapping[str, str]) -> str:
    """The whole page; every number from the cells."""

    def shown(*names: str) -> str:
        return "\n\n".join(f"![{captions[n]}](language/{n}.svg)\n\n*{captions[n]}*" for n in names if n in captions)  # fmt: skip

    first, size = found["lora"][0], plan.SIZES["full"]
    seeds = len(found["lora"])
    minutes = mean([cell.about["seconds"]["training"] / 60 for cell in found["lora"]], 0)
    versions = " · ".join(f"{name} {version}" for name, version in first.about["versions"].items())
    return f"""# A small language model: exact soups of LoRA adapters by TRL

*Every soup, sweep, check and front by the command `rsoup`: `python recipes/experiments/language/run.py -o RUNS` trains and measures,
`python recipes/experiments/language/summary.py RUNS` makes this page; without RUNS from the small tables in [language/](language/).
{seeds} {"seed" if seeds == 1 else "seeds"}, each with a base of its own and {len(list(plan.trainings()))} trainings by TRL from it. {versions}.*

## In short

{chr(10).join(f"* {line}" for line in findings(found, curves))}

## What was done

A Llama of {size.layers} layers (width {size.hidden}, vocabulary {world.VOCABULARY}, context {world.CONTEXT}) learns the prose of the help texts that ship with Python (`pydoc_data.topics`) for {size.base_steps} steps: that is the base.
From it TRL's GRPO ({size.steps} steps of {size.completions} completions in groups of {size.group}, {world.COMPLETION} tokens each, KL penalty {size.beta:g}) trains for
**short** = − letters per word and **letters** = the share of the alphabet that occurs in the completion: short words have few letters to offer.
LoRA has rank {size.rank} on all linear layers (`all-linear`, α = {2 * size.rank}, Adam {size.lora_rate:g}); full fine-tuning has {size.full_rate:g}. *One initialisation*: both adapters begin with the same A; *two*: the second one has its own.
MORL: LoRA with the first initialisation, (1 − μ)·short + μ·letters, each divided by its spread among the texts' own sentences, μ = 0, 0.1, … 1; μ = 0 and 1 are the experts.
Every model completes {2 * size.prompts} prompts from paragraphs that no training saw, {score.SAMPLES} times each, always with the same seed: half of the prompts to choose by, half to report. Errors are over prompts. Guard metric: the log-perplexity of the completions under the base.

**Fixed before the runs.** A set of models is worth its expected reward over preferences μ uniform on the simplex: for every μ the best point by the one half of the prompts, worth what the other half says,
in gains (each reward from the worst to the best expert of the seed). Soups less MORL, paired by seed; *match*: the 95 % bootstrap interval of the mean lies above −δ, δ = 10 % of what all of MORL gains over the best single expert;
*better*: above 0; *worse*: below 0, and not a match; fewer than {evidence.LEAST_SEEDS} seeds decide nothing. β = {float(plan.BETAS[0]):g} of Bone Soup, the scale {float(plan.SCALE):g} and the budgets of the rules were fixed, too.
What a pilot chose: the rewards (distinct words in place of letters had no room above the base), rate and penalty (at half the penalty an expert ends in one letter, repeated).

## Two trainings against M

Soups at {plan.GRID} λ less M trainings of MORL with equally spaced μ. LMC: no soup below the chord of its experts by more than noise, at tolerance 0 (INCONCLUSIVE: noise could hide it); worst gap: the lowest of any reward, in the experts' range. *Worth*: the largest M with match or better.
There is no MORL by full fine-tuning; gains are of each family's own experts.

{tables.main_table(found, curves)}

{shown("front-lora", "advantage-lora", "front-other", "advantage-other", "front-full")}

## The hypotheses

Hypothesis 1 is the column LMC above. Hypothesis 2: how many trainings of MORL (experts aside) lie below a soup in both rewards, how many above one, how many soups below a training. To the right, expected rewards.

{tables.dominance_table(found)}

{shown("connectivity-lora", "connectivity-other", "connectivity-full")}

## Exact soups and averaged factors

The exact soup has ΔW = Σ λᵢΔWᵢ, of rank {2 * size.rank}. `--method factors` averages A and B by themselves, as published code for rewarded soups of LoRA does. At the same {plan.COARSE} λ; distances are of ΔW, in the soup's norm.

{tables.factors_table(found)}

{shown("front-factors", "connectivity-factors")}

Cut to smaller ranks with `--rank` (`exact` has {2 * size.rank}), what is the error worth in reward?

{tables.rank_table(found)}

## The guard metric, and what they say

{tables.guard_table(found)}

{tables.samples_table(found)}

The page of every sweep (`report.html`) shows the samples of every λ.

## Better soups of as many trainings

All at {plan.EQUAL} λ.

{tables.tried_table(found)}

{shown("front-bone", "front-tried")}

## Which λ

For preferences μ = 0.1, 0.2, … 0.9: the share of the gain of the best of {plan.GRID} soups over the better expert that a rule keeps, by the report prompts; 0 is the better expert, and there is nothing to keep (–; in how many seeds there was) where the best soup gains less than 1 % of what the experts are apart. λ* is Lemma 3's; it needs the experts' evaluations alone, as λ = μ does.
*Validation* takes the best of equally spaced λ by the select prompts, *surrogate* the maximum of the quadratic through the same. In gains λ* and λ = μ are one rule.

{tables.rules_table(found)}

## Along training

The first pair at TRL's own checkpoints (`rsoup sweep 'short=lora-1/checkpoint-*' …`), {plan.ALONG} λ each; in gains of the experts at that step.

{tables.along_table(found)}

{shown("training-fronts", "training-measures")}

## Cost

{tables.cost_table(found)}

The trainings of a seed took {minutes} minutes of one busy core, the base's among them; a soup costs one evaluation.
"""


def findings(found: Groups, curves: Curves) -> Iterator[str]:
    """The sentences at the top."""
    for group, curve in curves.items():
        last = curve[-1]
        said = verdict(last.decision)
        spread = f" ({interval(last.decision)})" if last.decision else ""
        yield f"{TITLES[group]}: 2 trainings against {last.trainings}: {said}, {signed(fmean(last.differences))}{spread}."
    for group, title in TITLES.items():
        said = verdicts([evidence.connected(cell).verdict for cell in found[group]])
        yield f"{title}: linear connectivity {said}."
    for group in ("lora", "other"):
        these = [equal_to_factors(cell) for cell in found[group]]
        far = mean([cell.about["check"]["factors"] for cell in these], 2)
        gained = difference(evidence.compared(these, "exact", "factors", 0.0))
        yield f"{TITLES[group]}: averaged factors are {far} of its norm away from the soup; exact less factors {gained}."
    these = found["lora"]
    delta = evidence.delta_of(these)
    for name in ("bone-0.7", "init", "waypoint"):
        plain = difference(evidence.compared(these, name, "soups-equal", delta))
        morl = difference(evidence.compared(these, name, "morl", delta))
        yield f"{TRIED[name]} ({these[0].trainings[name]:g} trainings): {plain} against the plain soups, {morl} against eleven trainings."


def main() -> None:
    """Write the page, its figures, its small tables and its verdicts."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("runs", type=Path, nargs="?")
    arguments.add_argument("--pages", type=Path, default=PAGES, help="where language.md and language/ are")
    asked = arguments.parse_args()
    if asked.runs is not None:
        write_cells(read_runs(asked.runs), asked.pages / "language")
    print(write(asked.pages))


def write(pages: Path, *, figures: bool = True) -> Path:
    """language.md, its figures and verdicts.json from the small tables in pages/language."""
    folder = pages / "language"
    found = groups(read_cells(folder))
    curves = {group: evidence.against(found[group]) for group in ("lora", "other")}
    captions = draw(found, curves, folder) if figures else {}
    (pages / "language.md").write_text(page(found, curves, captions), encoding="utf-8")
    lines = [line(group, found[group], curve) for group, curve in curves.items()]
    write_verdicts(folder, "A small language model", "language.md", lines)
    return pages / "language.md"


def line(group: str, these: Sequence[Cell], curve: Sequence[Against]) -> dict[str, object]:
    """What the index says of a family."""
    last = curve[-1]
    passed = sum(evidence.connected(cell).verdict == "PASS" for cell in these)
    return {
        "setting": TITLES[group], "seeds": len(these), "trainings": 2, "against": last.trainings, "lmc": count(passed, len(these)),
        "difference": mean(last.differences, sign=True), "interval": interval(last.decision),
        "verdict": "–" if last.decision is None else last.decision.verdict, "worth": worth(curve),
    }  # fmt: skip


if __name__ == "__main__":
    main()
