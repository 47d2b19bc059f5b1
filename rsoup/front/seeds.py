"""Soups against many trainings over several seeds: the expected reward a user gets, paired by seed, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from rsoup.front.advantage import equally_spaced
from rsoup.front.chosen import choice_weights, scored
from rsoup.front.decision import BETTER, MATCH, SEEDS, Decision, decide
from rsoup.front.expected import Gains

SHARE: Final = 0.1
"""A match is within this share of what all of the others gain over the best single expert."""


@dataclass(frozen=True, slots=True)
class Twice:
    """Points in gains, measured twice: by `chosen` the point for a preference is chosen, by `scored` it is worth.

    Where nothing was measured twice both are the same, and what noise chose it scores as well.
    """

    chosen: Gains
    scored: Gains

    def only(self, places: Sequence[int]) -> Twice:
        """These points alone."""
        return Twice([self.chosen[i] for i in places], [self.scored[i] for i in places])


@dataclass(frozen=True, slots=True)
class Trial:
    """One seed: its soups, its experts alone, and the other trainings; all in gains of the same experts."""

    soups: Twice
    experts: Twice
    others: Twice


@dataclass(frozen=True, slots=True)
class Against:
    """Soups less M = `trainings` of the others, a difference per seed; no decision for a single seed."""

    trainings: int
    differences: tuple[float, ...]
    decision: Decision | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The curve over M, δ, what sets are worth by seed, and the largest M that the soups match (None: none).

    `worth` is by the decisions, so it is None as well where there are too few seeds for any.
    """

    curve: tuple[Against, ...]
    delta: float
    soups: tuple[float, ...]
    others: tuple[float, ...]
    best_expert: tuple[float, ...]
    worth: int | None


def promised(points: Twice) -> float:
    """E Σ μₖrₖ, r the `scored` gains of the point whose `chosen` gains are best for μ, μ uniform on the simplex.

    What a user gets who picks by one measurement. Exact for two rewards. Raises ValueError like `expected_reward`.
    """
    return scored(choice_weights(points.chosen), points.scored)


def best_single(experts: Twice) -> float:
    """What one expert alone is worth on average: the best by the mean of its `chosen` gains, by that of its `scored`."""
    by = [fmean(gain) for gain in experts.chosen]
    return fmean(experts.scored[by.index(max(by))])


def some_of(count: int, rewards: int) -> dict[int, tuple[int, ...]]:
    """Which of `count` trainings stand for M of them: for two rewards equally spaced ones (the paper's), else the first M.

    From as many as there are rewards up to all of them; all of them alone where there are fewer.
    """
    if count <= rewards:
        return {count: tuple(range(count))}
    sizes = range(rewards, count + 1)
    return {m: equally_spaced(count, m) if rewards == 2 else tuple(range(m)) for m in sizes}


def judged(
    trials: Sequence[Trial],
    *,
    share: float = SHARE,
    confidence: float = 0.95,
    least: int = SEEDS,
    sizes: Mapping[int, Sequence[int]] | None = None,
    seed: int = 0,
) -> Verdict:
    """Soups less M of the others for every M of `sizes` (default `some_of`), and `decide` on the paired differences.

    δ = `share` · (E[all of the others] − E[the best single expert]) on average over the seeds, at least 0, for every M.
    Raises ValueError without trials, for sets of different sizes where `sizes` has to be found, and what `decide` does.
    """
    if not trials:
        raise ValueError("a verdict needs a seed")
    if sizes is None:
        counts = {len(trial.others.scored) for trial in trials}
        if len(counts) > 1:
            raise ValueError("the seeds have different numbers of other trainings")
        sizes = some_of(counts.pop(), len(trials[0].soups.scored[0]))
    ours = tuple(promised(trial.soups) for trial in trials)
    theirs = {m: tuple(promised(t.others.only(places)) for t in trials) for m, places in sizes.items()}
    single = tuple(best_single(trial.experts) for trial in trials)
    whole = theirs[max(theirs)]
    delta = max(0.0, share * fmean(a - b for a, b in zip(whole, single, strict=True)))
    curve = []
    for size, values in theirs.items():
        differences = tuple(a - b for a, b in zip(ours, values, strict=True))
        decision = None if len(differences) < 2 else decide(differences, delta, confidence, seed, least=least)
        curve.append(Against(size, differences, decision))
    good = [row.trainings for row in curve if row.decision and row.decision.verdict in {BETTER, MATCH}]
    return Verdict(tuple(curve), delta, ours, whole, single, max(good, default=None))
