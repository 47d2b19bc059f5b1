"""How many trainings with mixed rewards a soup is worth: its advantage over subsets of M of them, for every M."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations
from typing import TYPE_CHECKING, Final

from rsoup.front.different import different
from rsoup.front.noise import DRAWS, Estimate, Many, Measure, bootstraps, each
from rsoup.front.pareto import Values
from rsoup.front.points import Errors, Repeats, checked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Subset = tuple[int, ...]

MOST: Final = 20_000
SAMPLE: Final = 2_000
_IN_A_DRAW = 25  # subsets of a size whose average each bootstrap draw takes


@dataclass(frozen=True, slots=True)
class Cost:
    """What a set of points took: trainings, and evaluations."""

    trainings: float
    evaluations: float


@dataclass(frozen=True, slots=True)
class Among:
    """The advantage over subsets of one kind: `value` their mean, from `low` to `high`, `deviation` their spread.

    `subsets` of them were measured, `exact` tells whether those are all there are; otherwise they are drawn at
    random and `deviation`/√`subsets` is the error of that. `interval` is what the points' errors leave, where known.
    """

    value: float
    low: float
    high: float
    deviation: float
    subsets: int
    exact: bool
    interval: Estimate | None


@dataclass(frozen=True, slots=True)
class Against:
    """The advantage over M = `trainings` of the others: spaced as in the paper, nested, and averaged over all choices.

    `spaced` is None where there are not two extremes. `cost` is that of M of the others.
    """

    trainings: int
    spaced: Among | None
    nested: Among
    average: Among
    cost: Cost


@dataclass(frozen=True, slots=True)
class Advantage:
    """The curve over M, the soup's own figure and cost, and the definition in words."""

    curve: tuple[Against, ...]
    ours: float
    cost: Cost
    how: str

    def worth(self, kind: Callable[[Against], Among | None], *, within: float = 0.0) -> int | None:
        """The largest M over which the advantage is at least −`within`; None where there is none.

        `kind` picks the definition: `lambda row: row.average`. Where it is the largest M measured, the soup is worth
        at least that. The curve of spaced subsets is not monotone: a smaller M can beat the soup nevertheless.
        """
        found = [(row.trainings, kind(row)) for row in self.curve]
        return max((m for m, among in found if among and among.value >= -within), default=None)

    def worth_between(
        self, kind: Callable[[Against], Among | None], *, within: float = 0.0
    ) -> tuple[int | None, int | None]:
        """The largest M with the whole interval at or above −`within`, and the largest with any of it there."""
        found = [(row.trainings, among.interval) for row in self.curve if (among := kind(row))]
        known = [(m, interval) for m, interval in found if interval]
        return (
            max((m for m, interval in known if interval.low >= -within), default=None),
            max((m for m, interval in known if interval.high >= -within), default=None),
        )


def equally_spaced(count: int, size: int) -> Subset:
    """The indices round(i·(count − 1)/(size − 1)) for i = 0 … size − 1, halves to even: the paper's subsets.

    Not nested: those of 4 of 7 are not among those of 5. Raises ValueError unless 2 ≤ size ≤ count.
    """
    if not 2 <= size <= count:
        raise ValueError("between 2 and all of the points can be chosen with both ends")
    return tuple(round(Fraction(i * (count - 1), size - 1)) for i in range(size))


def nested_order(count: int, extremes: Sequence[int]) -> Subset:
    """The extremes first, then whatever lies in the middle of the longest gap of indices, and so on.

    The first M are the nested subset of M; of equal gaps the first is halved. With fewer than two extremes, or
    where points lie outside of them, the ends of the list limit the gaps. Raises ValueError for extremes that are no
    different indices.
    """
    _check_extremes(count, extremes)
    order = list(dict.fromkeys(extremes))
    taken = sorted(order)
    while len(order) < count:
        gaps = zip([-1, *taken], [*taken, count], strict=True)
        before, after = max(gaps, key=lambda gap: (gap[1] - gap[0], -gap[0]))
        order.append((before + after) // 2)
        taken = sorted(order)
    return tuple(order)


def _check_extremes(count: int, extremes: Sequence[int]) -> None:
    if len(set(extremes)) != len(extremes) or not all(0 <= i < count for i in extremes):
        raise ValueError("the extremes must be different points")


def subsets(
    count: int, size: int, extremes: Sequence[int], *, most: int = MOST, sample: int = SAMPLE, seed: int = 0
) -> tuple[list[Subset], bool]:
    """All subsets of `size` with all `extremes`, in order, and True; or `sample` random ones, and False.

    All if there are at most `most`; otherwise drawn independently, each with the same probability, the same ones for
    the same seed. Raises ValueError for a size that leaves out an extreme or exceeds the points.
    """
    _check_extremes(count, extremes)
    if not len(extremes) <= size <= count:
        raise ValueError("between the extremes and all of the points can be chosen")
    inner = [i for i in range(count) if i not in set(extremes)]
    more = size - len(extremes)
    if math.comb(len(inner), more) <= most:
        return [tuple(sorted((*extremes, *chosen))) for chosen in combinations(inner, more)], True
    generator = random.Random(f"{seed}/{size}")  # noqa: S311 - a sample, not a secret
    return [tuple(sorted((*extremes, *generator.sample(inner, more)))) for _ in range(sample)], False


@dataclass(frozen=True, slots=True)
class Noise:
    """Standard errors and repeats of both sets, and how the bootstrap draws; see `bootstrap`."""

    ours: Errors
    theirs: Errors
    our_repeats: Repeats | None = None
    their_repeats: Repeats | None = None
    draws: int = DRAWS
    confidence: float = 0.95


def advantage(
    ours: Sequence[Values],
    theirs: Sequence[Values],
    measure: Measure,
    *,
    extremes: Sequence[int] | None = None,
    cost: Cost | None = None,
    each_cost: Cost = Cost(1, 1),
    many: Many | None = None,
    noise: Noise | None = None,
    most: int = MOST,
    sample: int = SAMPLE,
    seed: int = 0,
) -> Advantage:
    """measure(ours) − measure(M of theirs) for M from the number of extremes (2 at least) to all of theirs.

    Both in gains, to be maximised, in the same units; `theirs` in order of μ. `extremes` are always among the M; the
    first and the last unless given (with more rewards: the expert of each). Three definitions: `equally_spaced` as in
    Rewarded Soups, figure 3 (for two extremes at the ends), not monotone in M; the first M of `nested_order`, and the
    average over all `subsets`, both falling in M where more points never lower the measure.

    `cost` is that of ours (without it: a training per extreme, an evaluation per point), `each_cost` that of one of
    theirs. `many` is the measure of many sets at once, as for `bootstraps`. With `noise` every figure has an interval
    by `bootstraps`; points of both sets with the same values, errors and repeats are one measurement there, and the
    average is over at most 25 subsets a draw. Raises ValueError for fewer than two of theirs and for what
    `bootstraps` and `subsets` refuse, and where the measure is not finite.
    """
    import numpy as np

    we = checked(ours)
    they = checked(theirs, len(we[0]))
    ends = (0, len(they) - 1) if extremes is None else tuple(extremes)
    if len(they) < 2:
        raise ValueError("an advantage over M trainings needs at least two of them")
    choices = _choices(len(they), ends, most, sample, seed)
    over = many or each(measure)
    mine = float(over(np.array([we]))[0])
    points = np.array(they)
    intervals = iter(_intervals(we, they, choices, over, noise, seed) if noise else [])
    rows = []
    for size, kinds in choices.items():
        found: list[Among | None] = []
        for chosen, exact in kinds:
            gains = mine - over(points[np.array(chosen)]) if chosen else None
            found.append(_among(gains, exact, next(intervals, None)) if gains is not None else None)
        spaced, nested, average = found
        assert nested
        assert average
        cost_of = Cost(size * each_cost.trainings, size * each_cost.evaluations)
        rows.append(Against(size, spaced, nested, average, cost_of))
    how = "the measure of the soups less that of M of the other points"
    return Advantage(tuple(rows), mine, cost or Cost(len(ends), len(we)), how)


_Kind = tuple[list[Subset], bool]


def _choices(
    count: int, ends: Subset, most: int, sample: int, seed: int
) -> dict[int, tuple[_Kind, _Kind, _Kind]]:
    """Per M the spaced subset (none where the ends are others), the nested one, and those to average over."""
    order = nested_order(count, ends)
    found: dict[int, tuple[_Kind, _Kind, _Kind]] = {}
    for size in range(max(2, len(ends)), count + 1):
        spaced = [equally_spaced(count, size)] if sorted(ends) == [0, count - 1] else []
        average = subsets(count, size, ends, most=most, sample=sample, seed=seed)
        found[size] = ((spaced, True), ([tuple(sorted(order[:size]))], True), average)
    return found


def _among(gains: Floats, exact: bool, interval: Estimate | None) -> Among:
    low, high = float(gains.min()), float(gains.max())
    if not math.isfinite(high - low):
        raise ValueError("the measure is not finite")
    mean = min(high, max(low, float(gains.mean())))
    if interval:  # it may be of fewer subsets; their noise is what counts
        move = mean - interval.value
        interval = replace(interval, value=mean, low=interval.low + move, high=interval.high + move)
    return Among(mean, low, high, float(gains.std()), len(gains), exact, interval)


def _intervals(
    we: Sequence[tuple[float, ...]],
    they: Sequence[tuple[float, ...]],
    choices: dict[int, tuple[_Kind, _Kind, _Kind]],
    over: Many,
    noise: Noise,
    seed: int,
) -> list[Estimate]:
    """An interval per size and kind, in order, all from the same draws of every different measurement."""
    import numpy as np

    none = [(None,) * len(we[0])]
    repeats = [*(noise.our_repeats or none * len(we)), *(noise.their_repeats or none * len(they))]
    points = different([*we, *they], [*noise.ours, *noise.theirs], repeats)
    rows = np.array(points.rows)
    ours, theirs = rows[: len(we)], rows[len(we) :]
    wanted = [_thinned(chosen, seed) for kinds in choices.values() for chosen, _ in kinds if chosen]
    picked = [theirs[np.array(chosen)] for chosen in wanted]

    def figures(sets: Floats) -> Floats:
        mine = over(sets[:, ours])
        columns = [
            mine
            - over(sets[:, rows].reshape(-1, *sets[:, rows[0]].shape[1:])).reshape(len(sets), -1).mean(axis=1)
            for rows in picked
        ]
        return np.stack(columns, axis=1)

    return bootstraps(
        points.values, points.errors, points.repeats, figures,
        draws=noise.draws, seed=seed, confidence=noise.confidence,
    )  # fmt: skip


def _thinned(chosen: list[Subset], seed: int) -> list[Subset]:
    if len(chosen) <= _IN_A_DRAW:
        return chosen
    return random.Random(f"{seed}/draw").sample(chosen, _IN_A_DRAW)  # noqa: S311 - a sample, not a secret
