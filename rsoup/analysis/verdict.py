"""What several seeds say together: whether the soups match M other trainings, and their experts are linearly connected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from rsoup.analysis.compared import Other, other_of
from rsoup.analysis.connected import connected
from rsoup.analysis.data import Data
from rsoup.errors import UsageError, listing, show
from rsoup.front.decision import SEEDS, Decision
from rsoup.front.pareto import Reference, all_scaled, reference_of, scaled, volume
from rsoup.front.seeds import SHARE, Trial, Twice, Verdict, judged, some_of
from rsoup.front.versus import versus
from rsoup.measured.values import Row, Table

SCHEMA = "rsoup-verdict/1"
Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """How it is judged: δ as a share of what the others gain, seeds needed, confidence, tolerance of connectivity."""

    share: float = SHARE
    least: int = SEEDS
    confidence: float = 0.95
    tolerance: float = 0.0
    normalised: bool = True
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Seed:
    """One seed: the soups' points, and the tables compared, by name."""

    name: str
    data: Data
    others: Mapping[str, Table]


def verdict(seeds: Sequence[Seed], rule: Rule, *, trainings: float | None = None) -> dict[str, Any]:
    """The whole document, schema `rsoup-verdict/1`: per compared set a curve over M with a decision, and what is worth what.

    Rewards are gains over the experts of the same seed, the select values' over theirs and the report values' over theirs.
    Raises UsageError E0283: an expert that is not measured alone, seeds with other rewards or other numbers of trainings.
    """
    first = seeds[0].data
    for one in seeds:
        _check(one, first)
    return {
        "format": SCHEMA,
        "table": first.shown,
        "seeds": [one.name for one in seeds],
        "step": first.rows[0].step,
        "split": first.split,
        "scored_apart": all(one.data.chosen_by is not None for one in seeds),
        "rewards": {n: "maximise" if up else "minimise" for n, up in zip(first.rewards, first.maximise, strict=True)},
        "normalisation": _normalisation(rule),
        "trainings": float(len(first.ingredients)) if trainings is None else trainings,
        "points": [len(one.data.rows) for one in seeds],
        "connectivity": _connectivity(seeds, rule),
        "compared": [_compared(seeds, name, rule) for name in first_names(seeds)],
        "notes": _notes(seeds),
    }  # fmt: skip


def first_names(seeds: Sequence[Seed]) -> list[str]:
    """The names of the sets compared; every seed has the same."""
    return list(seeds[0].others)


def _check(one: Seed, first: Data) -> None:
    data = one.data
    if (data.rewards, data.maximise) != (first.rewards, first.maximise):
        raise UsageError(
            "E0283", f"seed {show(one.name)} has other rewards: {listing(list(data.rewards))}", where=data.shown,
            hint="--reward names those that all of them have",
        )  # fmt: skip
    missing = [n for n, i in zip(data.ingredients, data.experts, strict=True) if i is None]
    if missing or not data.ingredients:
        raise UsageError(
            "E0283", f"seed {show(one.name)} has no point of {listing(missing) or 'an expert'} alone" if missing else f"the points of seed {show(one.name)} have no λ", where=data.shown,
            hint="rsoup sweep --grid measures every expert alone; gains count from them",
        )  # fmt: skip


def _normalisation(rule: Rule) -> Found:
    if not rule.normalised:
        return {"definition": "rewards in their own units, turned so that more is better"}
    return {
        "definition": "gain = (reward − the worst of the seed's experts) / their range, turned so that more is better, on each split by itself"
    }


# --- one set of others


def _compared(seeds: Sequence[Seed], name: str, rule: Rule) -> Found:
    others = [other_of(name, one.others[name], one.data) for one in seeds]
    counts = {len(other.rows) for other in others}
    if len(counts) > 1:
        raise UsageError(
            "E0283", f"the seeds have {listing([str(n) for n in sorted(counts)])} points of '{show(name)}'",
            where=seeds[0].others[name].shown, hint="compare seeds with the same trainings",
        )  # fmt: skip
    trials = [_trial(one.data, other, rule) for one, other in zip(seeds, others, strict=True)]
    count, rewards = counts.pop(), len(seeds[0].data.rewards)
    found = judged(
        trials, share=rule.share, confidence=rule.confidence, least=rule.least, seed=rule.seed,
        sizes=some_of(count, rewards),
    )  # fmt: skip
    return {
        "name": name,
        "definition": "E Σ μ·r over preferences μ uniform on the simplex: for every μ the best point by the values it is chosen by, worth what the report values say; the soups' less that of M of the others, paired by seed",
        "chosen": "equally spaced" if rewards == 2 else "the first M of the table",
        "points": count,
        "delta": found.delta,
        "delta_definition": f"{rule.share:g} × what all of the others gain over the best single expert",
        "rule": "better: the interval lies above 0; match: above −δ; worse: below 0; else inconclusive",
        "seeds_needed": rule.least,
        "expected_reward": {
            "soups": _mean(found.soups),
            "others": _mean(found.others),
            "best_expert": _mean(found.best_expert),
        },
        "curve": [
            {
                "trainings": row.trainings,
                "difference": _mean(row.differences),
                "by_seed": dict(zip((one.name for one in seeds), row.differences, strict=True)),
                "decision": _decision(row.decision),
            }
            for row in found.curve
        ],
        "verdict": _verdict(found),
        "worth": found.worth,
        **_standing(trials),
    }  # fmt: skip


def _trial(data: Data, other: Other, rule: Rule) -> Trial:
    by = data.values if data.chosen_by is None else data.chosen_by
    places = [i for i in data.experts if i is not None]
    chosen_from = _reference(by, places, data, rule)
    scored_from = _reference(data.values, places, data, rule)
    soups = Twice(
        all_scaled(by, data.maximise, chosen_from), all_scaled(data.values, data.maximise, scored_from)
    )
    first = [tuple(row.select[name].value for name in data.rewards) for row in other.rows]
    picked = first if data.chosen_by is not None else other.values
    others = Twice(
        [scaled(point, data.maximise, chosen_from) for point in picked],
        [scaled(point, data.maximise, scored_from) for point in other.values],
    )
    return Trial(soups, soups.only(places), others)


def _reference(values: Sequence[Sequence[float]], places: Sequence[int], data: Data, rule: Rule) -> Reference:
    alone = [values[i] for i in places]
    return reference_of(
        alone, data.maximise, alone, normalised=rule.normalised, names=[show(n) for n in data.rewards]
    )


def _standing(trials: Sequence[Trial]) -> Found:
    """Who dominates whom over all seeds, and the volumes, by the values that score."""
    counts: Counter[str] = Counter()
    ours, theirs = [], []
    for trial in trials:
        found = versus(trial.soups.scored, trial.others.scored)
        counts.update(standing.relation for standing in found.standings)
        if len(trial.soups.scored[0]) > 1:
            ours.append(volume(trial.soups.scored))
            theirs.append(volume(trial.others.scored))
    return {
        **{kind: counts[kind] for kind in ("dominated", "dominates", "incomparable", "equal")},
        "hypervolume": {"soups": _mean(ours), "others": _mean(theirs)} if ours else None,
    }


def _mean(values: Sequence[float]) -> Found:
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return {"mean": fmean(values), "error": error}


def _decision(found: Decision | None) -> Found | None:
    if found is None:
        return None
    return {
        "verdict": found.verdict,
        "low": found.low,
        "high": found.high,
        "confidence": found.confidence,
        "few": found.few,
        "definition": found.how,
    }


def _verdict(found: Verdict) -> str | None:
    """That over all of the others."""
    last = found.curve[-1].decision
    return None if last is None else last.verdict


# --- hypothesis 1


def _connectivity(seeds: Sequence[Seed], rule: Rule) -> Found:
    found = {
        one.name: connected(one.data, tolerance=rule.tolerance, confidence=rule.confidence) for one in seeds
    }
    told = {name: "NOT TESTED" if one is None else str(one["verdict"]) for name, one in found.items()}
    worst = []
    for one in found.values():
        gaps = (
            []
            if one is None
            else [chord["worst"]["of_range"] for chord in one["rewards"].values() if chord["worst"]]
        )
        worst += [min(gaps)] if gaps and None not in gaps else []
    return {
        "definition": "of each seed: no soup's reward lies below the chord of its experts, to the tolerance; the worst gap is the lowest of any reward, in the experts' range",
        "tolerance": rule.tolerance,
        "by_seed": told,
        "counts": dict(Counter(told.values())),
        "worst_gap": _mean(worst) if worst else None,
    }


def _notes(seeds: Sequence[Seed]) -> list[str]:
    data = [one.data for one in seeds]
    notes = []
    if any(one.chosen_by is None for one in data):
        notes.append("the same values choose the point for a preference and score it: the best of many noisy points looks better than it is, of many soups more than of few trainings; --split report scores by others")  # fmt: skip
    if left := sum(len(one.not_reported) for one in data):
        notes.append(f"{left} {'point' if left == 1 else 'points'} of the fronts {'has' if left == 1 else 'have'} no report values and {'is' if left == 1 else 'are'} left out")  # fmt: skip
    if near := [one.name for one in seeds if not _apart(one.data)]:
        notes.append(f"the experts of {listing(near)} are not apart in every reward by more than twice the error of that: what is counted in their range is mostly noise")  # fmt: skip
    if any(one.chosen_by is not None for one in data):
        for name in seeds[0].others:
            rows = [row for one in seeds for row in one.others[name].done]
            if lacking := sum(not _has_report(row, data[0].rewards) for row in rows):
                notes.append(f"{lacking} of {len(rows)} points of '{show(name)}' have no report values: what chose them scores them too")  # fmt: skip
    return notes


def _apart(data: Data) -> bool:
    """Whether the best and the worst expert differ by more than twice the error of that, in every reward; errors that are not known are none."""
    places = [i for i in data.experts if i is not None]
    for k in range(len(data.rewards)):
        ends = (min(places, key=lambda i: data.values[i][k]), max(places, key=lambda i: data.values[i][k]))
        error = sum((data.errors[i][k] or 0.0) ** 2 for i in ends) ** 0.5
        if data.values[ends[1]][k] - data.values[ends[0]][k] <= 2 * error:
            return False
    return True


def _has_report(row: Row, rewards: Sequence[str]) -> bool:
    return all(name in row.report for name in rewards)
