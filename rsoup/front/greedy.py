"""The greedy model soup as a state machine: what to evaluate next, or what was kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rsoup.errors import UsageError

Subset = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate: the score of the uniform soup of what was kept before and it, and whether it stayed."""

    candidate: int
    score: float
    kept: bool


@dataclass(frozen=True, slots=True)
class Step:
    """How far the greedy soup has come: `evaluate` is the subset whose uniform soup must be scored next.

    None there means that it is finished. `kept` is ascending, `score` is its soup's, `trail` in the order of
    the trials, the best single candidate first.
    """

    evaluate: Subset | None
    kept: Subset
    score: float
    trail: tuple[Trial, ...]


def greedy(
    scores_single: Sequence[float],
    maximise: bool,
    evaluated: Mapping[Subset, float],
    accept_equal: bool = False,
) -> Step:
    """kept ← best; for each other candidate, best first: kept ← kept ∪ {it} where that soup scores better.

    As published with model soups: better is strictly better; with `accept_equal`, at least as good (DiWA).
    Candidates of equal score keep their order. `evaluated` has the scores of uniform soups by ascending
    indices; the single scores need not be in it. A soup of kept ones is their uniform average, which is what
    the published running mean n/(n+1) comes to. Raises UsageError E0240 without candidates or for a score
    that is not finite.
    """
    if not scores_single:
        raise UsageError("E0240", "a greedy soup needs at least one candidate", hint="name the checkpoints")
    if bad := [i for i, score in enumerate(scores_single) if not math.isfinite(score)]:
        raise UsageError(
            "E0240",
            f"candidate {bad[0] + 1} of the greedy soup has no finite score",
            hint="leave it out, or evaluate it again",
        )
    sign = 1.0 if maximise else -1.0
    order = sorted(range(len(scores_single)), key=lambda i: -sign * scores_single[i])
    kept: Subset = (order[0],)
    score = scores_single[order[0]]
    trail = [Trial(order[0], score, kept=True)]
    for candidate in order[1:]:
        subset = tuple(sorted((*kept, candidate)))
        if subset not in evaluated:
            return Step(subset, kept, score, tuple(trail))
        found = evaluated[subset]
        gain = sign * (found - score)
        better = gain > 0 or (accept_equal and gain == 0)  # NaN is neither
        trail.append(Trial(candidate, found, kept=better))
        if better:
            kept, score = subset, found
    return Step(None, kept, score, tuple(trail))
