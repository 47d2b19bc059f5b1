"""The tables of the page on the language model: Markdown, every number from the cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

import evidence
from cells import Cell, Point
from evidence import Against
from wording import count, difference, interval, kept, mean, table, verdict

NAMES = ("short", "letters")
TITLES = {
    "lora": "LoRA, one initialisation",
    "other": "LoRA, two initialisations",
    "full": "full fine-tuning",
}
TRIED = {
    "bone-0.7": "Bone Soup, β = 0.7, λ = B⁻¹μ",
    "bone-0.8": "Bone Soup, β = 0.8",
    "scaled-1.5": "soups scaled by 1.5, θ₀ + 1.5·(soup − θ₀)",
    "init": "MORL initialisation: half a training for μ = ½, then ¾ each",
    "waypoint": "MORL for μ = ½ as a waypoint",
}
BUDGETS = (2, 3, 5, 11, 21)
WANTED = [(1 - k / 10, k / 10) for k in range(1, 10)]
Groups = Mapping[str, list[Cell]]
Curves = Mapping[str, list[Against]]


def groups(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """The cells by group, in the page's order; each step along training is a group of its own, `step 12`."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.group == "steps":
            found.setdefault(f"step {cell.step}", []).append(cell)
    return {group: [c for c in cells if c.group == group] for group in TITLES} | found


def steps_of(found: Groups) -> list[str]:
    """The groups along training."""
    return [key for key in found if key.startswith("step ")]


def main_table(found: Groups, curves: Curves) -> str:
    """Soups against M trainings, the first hypothesis and the verdict, per family."""
    rows = []
    for group, title in TITLES.items():
        these = found[group]
        lmc = [evidence.connected(cell) for cell in these]
        row = [title, str(len(these)), verdicts([one.verdict for one in lmc]), mean([evidence.worst_gap(one) for one in lmc], sign=True)]  # fmt: skip
        row.append(mean([evidence.promised(cell, cell.sets["soups"]) for cell in these]))
        if group in curves:
            curve = curves[group]
            shown = {one.trainings: mean(one.differences, sign=True) for one in curve}
            last = curve[-1]
            row += [*(shown[m] for m in (2, 3, 4, 6)), mean(last.differences, sign=True), interval(last.decision), f"{evidence.delta_of(these):.3f}", verdict(last.decision), worth(curve)]  # fmt: skip
        else:
            row += ["–"] * 9
        rows.append(row)
    head = ["", "seeds", "LMC", "worst gap", "expected reward", "M = 2", "3", "4", "6", "11", "95 %", "δ", "verdict", "worth"]  # fmt: skip
    return table(head, rows)


def verdicts(said: Sequence[str]) -> str:
    """`3 PASS, 1 FAIL`."""
    return ", ".join(f"{said.count(one)} {one}" for one in ("PASS", "INCONCLUSIVE", "FAIL") if one in said)


def worth(curve: Sequence[Against]) -> str:
    """`4 of 11`: the largest M with match or better."""
    found = evidence.worth(curve)
    return "–" if found is None else f"{found} of {curve[-1].trainings}"


def dominance_table(found: Groups) -> str:
    """Hypothesis 2 in counts, and expected rewards of experts and mixtures."""
    rows = []
    for group in ("lora", "other"):
        these = found[group]
        counts = [evidence.dominance(cell) for cell in these]
        soups, others = sum(c.soups for c in counts), sum(c.others for c in counts)
        values = [
            [evidence.best_single(cell) for cell in these],
            [evidence.promised(cell, cell.experts) for cell in these],
            [evidence.promised(cell, cell.sets["soups"]) for cell in these],
            [evidence.promised(cell, cell.sets["morl"]) for cell in these],
        ]
        told = [sum(c.dominated for c in counts), sum(c.dominate for c in counts)]
        rows.append([TITLES[group], *(count(n, others) for n in told), count(sum(c.soups_dominated for c in counts), soups), *map(mean, values)])  # fmt: skip
    head = ["", "MORL below a soup", "MORL above a soup", "soups below a MORL", "best expert", "experts", "soups", "MORL"]  # fmt: skip
    return table(head, rows)


def factors_table(found: Groups) -> str:
    """Exact soups less averages of the factors, at the same λ; how far these are apart, and what the adapters share."""
    rows = []
    for group in ("lora", "other"):
        these = [equal_to_factors(cell) for cell in found[group]]
        told = [cell.about["check"] for cell in these]
        rows.append(
            [
                TITLES[group], mean([one["a"] for one in told]), mean([one["cosine"] for one in told]),
                mean([one["factors"] for one in told]),
                mean([evidence.promised(cell, cell.sets["exact"]) for cell in these]),
                mean([evidence.promised(cell, cell.sets["factors"]) for cell in these]),
                difference(evidence.compared(these, "exact", "factors", 0.0)),
                verdicts([evidence.connected(cell, "factors").verdict for cell in these]),
            ]
        )  # fmt: skip
    head = ["", "cosine of A", "cosine of ΔW", "distance at λ = ½", "exact", "factors", "exact less factors", "LMC of factors"]  # fmt: skip
    return table(head, rows)


def equal_to_factors(cell: Cell) -> Cell:
    """The cell with a set `exact`: the exact soups at the λ of `factors`."""
    mixes = {point.mix for point in cell.sets["factors"]}
    exact = tuple(point for point in cell.sets["soups"] if point.mix in mixes)
    return replace(cell, sets={**cell.sets, "exact": exact})


def rank_table(found: Groups) -> str:
    """The middle soup cut to smaller ranks: error, rewards and perplexity; means over the seeds."""
    rows = []
    for group in ("lora", "other"):
        these = found[group]
        for number, point in enumerate(these[0].sets["ranks"]):
            points = [cell.sets["ranks"][number] for cell in these]
            rewards = [fmean(evidence.gains(cell, [p], "report")[0]) for cell, p in zip(these, points, strict=True)]  # fmt: skip
            rows.append(
                [
                    f"{TITLES[group]}: {point.label}", mean([cell.about["error"][point.label] for cell in these]),
                    *(mean([_reported(p)[k] for p in points]) for k in range(2)), mean(rewards), mean([p.guards["odd"] for p in points]),
                ]
            )  # fmt: skip
    head = ["λ = ½", "error", *NAMES, "mean gain", "log-perplexity"]
    return table(head, rows)


def _reported(point: Point) -> tuple[float, ...]:
    return point.report or point.select


def tried_table(found: Groups) -> str:
    """Every attempt at better soups, less the plain soups at as many λ and less all of MORL."""
    these = found["lora"]
    delta = evidence.delta_of(these)
    rows = [
        [
            said, f"{these[0].trainings[name]:g}", str(len(these[0].sets[name])),
            mean([evidence.promised(cell, cell.sets[name]) for cell in these]),
            difference(evidence.compared(these, name, "soups-equal", delta)),
            difference(evidence.compared(these, name, "morl", delta)),
        ]
        for name, said in {"soups-equal": "plain soups", **TRIED}.items()
    ]  # fmt: skip
    rows[0][4] = "–"
    return table(["", "trainings", "λ", "expected reward", "less the plain soups", "less 11 of MORL"], rows)


def rules_table(found: Groups) -> str:
    """How much of the soups' gain over the better expert each rule for λ keeps, at so many evaluations."""
    plain = evidence.rules(found["lora"], WANTED, BUDGETS, raw=True)
    scaled = evidence.rules(found["lora"], WANTED, BUDGETS, raw=False)
    rows = [
        [one.name, str(one.evaluations), kept(one.kept), kept(other.kept)]
        for one, other in zip(plain, scaled, strict=True)
    ]
    rows.sort(key=lambda row: int(row[1]))
    return table(["rule", "evaluations", "kept, rewards in their own units", "kept, in gains"], rows)


def along_table(found: Groups) -> str:
    """The first pair at TRL's checkpoints: hypothesis 1, the front and the guard metric along training."""
    rows = []
    for key in steps_of(found):
        these = found[key]
        lmc = [evidence.connected(cell) for cell in these]
        middle = [cell.sets["soups"][len(cell.sets["soups"]) // 2] for cell in these]
        ends = [[expert.select[k] for cell in these for expert in [cell.experts[k]]] for k in range(2)]
        rows.append(
            [
                key.removeprefix("step "), *(mean(values) for values in ends), verdicts([one.verdict for one in lmc]),
                mean([evidence.worst_gap(one) for one in lmc], sign=True),
                mean([evidence.promised(cell, cell.sets["soups"]) for cell in these]), mean([p.guards["odd"] for p in middle]),
            ]
        )  # fmt: skip
    head = ["steps", "short of its expert", "letters of its expert", "LMC", "worst gap", "expected reward", "log-perplexity at λ = ½"]  # fmt: skip
    return table(head, rows)


def guard_table(found: Groups) -> str:
    """The guard metric: the log-perplexity under the base of what experts, soups and mixtures write."""
    rows = []
    for group, title in TITLES.items():
        these = found[group]
        points = [(*cell.experts, _middle(cell.sets["soups"])) for cell in these]
        row = [title, *(mean([three[k].guards["odd"] for three in points]) for k in (0, 2, 1))]
        above = [three[2].guards["odd"] - fmean(e.guards["odd"] for e in three[:2]) for three in points]
        row.append(mean(above, sign=True))
        morl = [cell.sets["morl"][len(cell.sets["morl"]) // 2].guards["odd"] for cell in these if "morl" in cell.sets]  # fmt: skip
        row.append(mean(morl) if morl else "–")
        base = [cell.sets["base-alone"][0].guards["odd"] for cell in these if "base-alone" in cell.sets]
        row.append(mean(base) if base else "–")
        rows.append(row)
    head = ["nats per token", "short's expert", "λ = ½", "letters' expert", "λ = ½ less the chord", "MORL, μ = ½", "base"]  # fmt: skip
    return table(head, rows)


def _middle(points: Sequence[Point]) -> Point:
    return next(point for point in points if point.mix and point.mix[0] == point.mix[1])


def samples_table(found: Groups) -> str:
    """What the models of the first seed say, chosen by nobody: the first prompts."""
    told = found["lora"][0].about["samples"]
    rows = [
        [f"…{one['prompt']}" if k == 0 else "", who, one["output"].strip()]
        for number in range(len(told["base"]))
        for k, (who, one) in enumerate(
            (who, told[who][number]) for who in ("base", "short", "soup", "letters")
        )
    ]
    lines = ["| prompt | | completion |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(cell.replace('|', ' ') for cell in row)} |" for row in rows)])


def cost_table(found: Groups) -> str:
    """Trainings and evaluations of the sets."""
    cell = found["lora"][0]
    names = {"soups": "soups", "factors": "averaged factors", "morl": "MORL", **TRIED}
    return table(
        ["", "trainings", "evaluated models"],
        [[said, f"{cell.trainings[name]:g}", str(len(cell.sets[name]))] for name, said in names.items()],
    )
