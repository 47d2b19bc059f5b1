"""The tables of the page on digits: Markdown, every number from the cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import evidence
from cells import Cell
from evidence import Against
from wording import count, difference, interval, kept, mean, table, verdict

TRIED = {
    "scaled-1.5": "scaled by 1.5",
    "scaled-2.0": "scaled by 2",
    "bone": "Bone Soup",
    "init": "MORL initialisation",
    "waypoint": "MORL waypoint",
    "groups": "RS + MS",
    "ensemble": "ensemble",
}
BUDGETS = (2, 3, 5, 11, 21)
Settings = Mapping[tuple[str, int], list[Cell]]


def settings(cells: Sequence[Cell]) -> dict[tuple[str, int], list[Cell]]:
    """The cells by group and training length."""
    found: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.group, cell.step or 0), []).append(cell)
    return found


TITLES = {
    "n2": "base of 300 steps",
    "strong": "base of 1200 steps",
    "fast": "base of 300 steps, rate 3e-3",
    "weak": "base of 60 steps, rate 3e-3",
    "n3": "three rewards",
    "n5": "five rewards",
}
GROUPS = ("n2", "strong", "fast", "weak", "n3", "n5")


def title(group: str, step: int) -> str:
    """`base of 300 steps, 25`."""
    return f"{TITLES[group]}; {step} steps"


def main_table(found: Settings, curves: Mapping[tuple[str, int], list[Against]]) -> str:
    """Soups against M trainings, the hypotheses and the verdict, per setting."""
    rows = []
    for key in ordered(found):
        these, curve = found[key], curves[key]
        last = curve[-1]
        lmc = [evidence.connected(cell) for cell in these]
        passed = sum(one.verdict == "PASS" for one in lmc)
        shown = {row.trainings: mean(row.differences, sign=True) for row in curve}
        picked = (2, 3, 4, 6) if len(these[0].rewards) == 2 else ()
        rows.append(
            [
                title(*key), str(len(these)), count(passed, len(these)), mean([evidence.worst_gap(one) for one in lmc], sign=True),
                *(shown[m] for m in picked), *(["–"] * (4 - len(picked))), f"{mean(last.differences, sign=True)} (M = {last.trainings})",
                interval(last.decision), f"{evidence.delta_of(these):.3f}", verdict(last.decision), _worth(curve),
            ]
        )  # fmt: skip
    head = [
        "",
        "seeds",
        "LMC",
        "worst gap",
        "M = 2",
        "3",
        "4",
        "6",
        "all MORL",
        "95 %",
        "δ",
        "verdict",
        "worth",
    ]
    return table(head, rows)


def _worth(curve: Sequence[Against]) -> str:
    found = evidence.worth(curve)
    return "–" if found is None else f"{found}" + (" of " + str(curve[-1].trainings))


def ordered(found: Settings) -> list[tuple[str, int]]:
    """The settings there are, in the page's order."""
    return sorted(found, key=lambda key: (GROUPS.index(key[0]), key[1]))


def dominance_table(found: Settings) -> str:
    """Hypothesis 2 in counts, and what base and experts alone are worth."""
    rows = []
    for key in ordered(found):
        these = found[key]
        counts = [evidence.dominance(cell) for cell in these]
        soups, others = sum(c.soups for c in counts), sum(c.others for c in counts)
        rows.append(
            [
                title(*key), f"{sum(c.dominated for c in counts)}/{others}", f"{sum(c.dominate for c in counts)}/{others}",
                f"{sum(c.soups_dominated for c in counts)}/{soups}",
                mean([evidence.best_single(cell) for cell in these]),
                mean([evidence.promised(cell, cell.sets["base-alone"]) for cell in these]),
                mean([evidence.promised(cell, cell.experts) for cell in these]),
                mean([evidence.promised(cell, cell.sets["soups"]) for cell in these]),
                mean([evidence.promised(cell, cell.sets["morl"]) for cell in these]),
                mean([evidence.hypervolume(cell, cell.sets["soups"]) for cell in these]),
                mean([evidence.hypervolume(cell, cell.sets["morl"]) for cell in these]),
            ]
        )  # fmt: skip
    head = [
        "",
        "MORL below a soup",
        "MORL above a soup",
        "soups below a MORL",
        "best expert",
        "base",
        "all experts",
        "soups",
        "MORL",
        "volume: soups",
        "volume: MORL",
    ]
    return table(head, rows)


def tried_tables(found: Settings) -> str:
    """Every attempt at better soups, less the plain soups and less all of MORL; a table per base and number of rewards."""
    return "\n\n".join(
        tried_table({key: found[key] for key in ordered(found) if key[0] == group})
        for group in GROUPS
        if any(key[0] == group for key in found)
    )


def tried_table(found: Settings) -> str:
    """One of them."""
    keys = ordered(found)
    first = found[keys[0]][0]
    rows = []
    for name, said in TRIED.items():
        if not all(name in cell.sets for key in keys for cell in found[key]):
            continue
        row = [said, f"{first.trainings[name]:g}"]
        for key in keys:
            these, delta = found[key], evidence.delta_of(found[key])
            row += [
                difference(evidence.compared(these, name, "soups", delta)),
                difference(evidence.compared(these, name, "morl", delta)),
            ]
        rows.append(row)
    seeds = "/".join(dict.fromkeys(str(len(found[key])) for key in keys))
    head = [f"{TITLES[keys[0][0]]} ({seeds} seeds)", "trainings"]
    for key in keys:
        head += [f"{key[1]} steps: less the plain soups", "less all of MORL"]
    return table(head, rows)


def rules_table(found: Settings) -> str:
    """How much of the soups' gain over the better expert each rule for λ keeps, at so many evaluations."""
    wanted = [(1 - k / 10, k / 10) for k in range(1, 10)]
    rows = []
    for key in [key for key in ordered(found) if key[0] == "n2"]:
        plain = evidence.rules(found[key], wanted, BUDGETS, raw=True)
        scaled = evidence.rules(found[key], wanted, BUDGETS, raw=False)
        for one, other in zip(plain, scaled, strict=True):
            rows.append([f"{key[1]} steps", one.name, str(one.evaluations), kept(one.kept), kept(other.kept)])
    rows.sort(key=lambda row: (int(row[0].split()[0]), int(row[2])))
    return table(["", "rule", "evaluations", "kept, rewards in their own units", "kept, in gains"], rows)


def ensemble_table(found: Settings) -> str:
    """Lemma 4, and the share of the front that model soups of one reward reach."""
    rows = []
    for key in [key for key in ordered(found) if key[0] == "n2"]:
        these = found[key]
        told = [cell.about["ensemble"][str(key[1])] for cell in these if "ensemble" in cell.about]
        if not told:
            continue
        rows.append(
            [
                f"{key[1]} steps", mean([one["relative"] for one in told]), mean([one["agreement"] for one in told]),
                mean([one["accuracy"]["soup"] for one in told]), mean([one["accuracy"]["ensemble"] for one in told]),
                mean([fmean(one["accuracy"]["experts"]) for one in told]),
                mean([evidence.covered(cell, "model-soups") for cell in these]),
            ]
        )  # fmt: skip
    head = [
        "",
        "gap in the experts' spread",
        "agree",
        "right: soup",
        "right: ensemble",
        "right: an expert",
        "range reached by model soups",
    ]
    return table(head, rows)


def cost_table(found: Settings) -> str:
    """Trainings and evaluations of the sets of a full cell."""
    rows = []
    for name, said in {"soups": "soups", "morl": "MORL", **TRIED}.items():
        row = [said]
        for group in ("n2", "n3", "n5"):
            cell = next((found[key][0] for key in ordered(found) if key[0] == group), None)
            row.append(
                f"{cell.trainings[name]:g} + {len(cell.sets[name])}" if cell and name in cell.sets else "–"
            )
        rows.append(row)
    return table(["trainings + evaluations", "two rewards", "three", "five"], rows)


def line(key: tuple[str, int], these: Sequence[Cell], curve: Sequence[Against]) -> dict[str, object]:
    """What the index of all experiments says of a setting."""
    last = curve[-1]
    passed = sum(evidence.connected(cell).verdict == "PASS" for cell in these)
    return {
        "setting": title(*key), "seeds": len(these), "trainings": len(these[0].rewards), "against": last.trainings,
        "lmc": count(passed, len(these)), "difference": mean(last.differences, sign=True),
        "interval": interval(last.decision), "verdict": "–" if last.decision is None else last.decision.verdict, "worth": _worth(curve),
    }  # fmt: skip
