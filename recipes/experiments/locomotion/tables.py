"""The tables of the page on locomotion: Markdown, every number from the cells."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import evidence
import plan
import score
import wording
from cells import Cell, Point
from evidence import Against
from train import Sizes
from world import HORIZON

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
                thousands(step), str(len(cells)), *(f"{v:.0f}".replace("-", "−") for v in experts),
                passed(cells), wording.count(len(clear), len(cells)),
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
                name, f"{trainings:g}", thousands(trainings * Sizes().full), str(points),
                thousands(points * EPISODES * HORIZON),
            ]
        )  # fmt: skip
    head = ["set", "trainings", "steps of training", "points", "steps of evaluation"]
    return wording.table([f"after a base of {thousands(base)} steps: {head[0]}", *head[1:]], rows)


def thousands(number: float) -> str:
    """`200 000`."""
    return f"{number:,.0f}".replace(",", " ")


def _pair(point: Point) -> str:
    """Both rewards on the report episodes: `4100 / 900`."""
    values = point.report or point.select
    return " / ".join(f"{value:.0f}" for value in values).replace("-", "−")


def passed(cells: Sequence[Cell]) -> str:
    """`3/5 PASS, 2/5 INCONCLUSIVE`: linear connectivity of the seeds."""
    verdicts = [evidence.connected(cell).verdict for cell in cells]
    return ", ".join(
        f"{verdicts.count(word)}/{len(cells)} {word}"
        for word in dict.fromkeys(sorted(verdicts, reverse=True))
    )
