"""Which λ to measure next: where the surrogate promises the most hypervolume, or where the front gapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from rsoup.front import surrogate as surrogates
from rsoup.front.pareto import front, reference_of, scaled, volume

Mix = tuple[Fraction, ...]
FINEST: Final = Fraction(1, 1000)
_ROUNDING = 1e-12


def propose(
    mixes: Sequence[Sequence[Fraction]],
    values: Sequence[Sequence[float]],
    maximise: Sequence[bool],
    count: int,
    *,
    errors: Sequence[Sequence[float | None]] | None = None,
    tried: Sequence[Sequence[Fraction]] = (),
) -> list[Mix]:
    """The next λ to measure, at most `count`, the most promising first.

    Candidates are the midpoints between measured neighbours: on a full grid, exactly the points of the grid
    twice as fine. Each is worth the hypervolume that its predicted rewards add to the measured front, in units
    of the measured range. The prediction is the surrogate's, moved by what it misses at the two neighbours. A
    chosen λ counts as measured, with its prediction, for the next choice. Where no candidate promises anything,
    or the λ do not determine the surrogate, it is the midpoint of the two neighbours on the front that are
    farthest apart.

    Exact fractions on the simplex, never a λ that is measured or in `tried` (those that failed); neighbours
    nearer than FINEST in every λ are not split. The order of the input does not matter. λ off the simplex take
    part in the front only. Raises ValueError for a λ given twice, values that are not finite, shapes that
    differ.
    """
    exact = [tuple(map(Fraction, mix)) for mix in mixes]
    if len(exact) != len(values) or len(set(exact)) != len(exact):
        raise ValueError("there must be one row of values per λ, and every λ once")
    if not exact or count < 1:
        return []
    reference = reference_of(values, maximise)
    order = sorted(range(len(exact)), key=exact.__getitem__)
    inside = [i for i in order if sum(exact[i]) == 1 and min(exact[i]) >= 0]
    state = _State(
        [exact[i] for i in inside],
        [scaled(values[i], maximise, reference) for i in inside],
        [scaled(values[i], maximise, reference) for i in order if i not in set(inside)],
    )
    spans = reference.spans
    relative = None if errors is None else [[_over(e, s) for e, s in zip(errors[i], spans, strict=True)] for i in inside]  # fmt: skip
    fitted = surrogates.fit(state.mixes, state.gains, relative)
    taken = {*exact, *(tuple(map(Fraction, mix)) for mix in tried)}
    chosen: list[Mix] = []
    while len(chosen) < count:
        found = _next(state, fitted, taken)
        if found is None:
            break
        mix, gains = found
        chosen.append(mix)
        taken.add(mix)
        state.mixes.append(mix)
        state.gains.append(gains)
    return chosen


def _over(error: float | None, span: float) -> float | None:
    return None if error is None else error / span


@dataclass(slots=True)
class _State:
    """What counts as measured: λ on the simplex with their scaled gains, and the gains of others."""

    mixes: list[Mix]
    gains: list[tuple[float, ...]]
    others: list[tuple[float, ...]]

    def best(self) -> list[int]:
        """Indices of those on the simplex that nothing dominates."""
        every = [*self.gains, *self.others]
        if not every[0]:
            return []
        return [i for i in front(every, (True,) * len(every[0])) if i < len(self.gains)]


def _next(
    state: _State, fitted: surrogates.Surrogate | None, taken: set[Mix]
) -> tuple[Mix, tuple[float, ...]] | None:
    """The next λ and the gains it is believed to have; None where nothing is left to split."""
    parents: dict[Mix, list[tuple[int, int]]] = {}
    for i, j in neighbours(state.mixes):
        middle = _middle(state.mixes[i], state.mixes[j])
        if middle not in taken and not _close(state.mixes[i], state.mixes[j]):
            parents.setdefault(middle, []).append((i, j))
    if not parents:
        return None
    if fitted is not None:
        every = [*state.gains, *state.others]
        best = [every[i] for i in front(every, (True,) * len(every[0]))]
        ranked = []
        for mix, pairs in parents.items():
            gains = _predicted(state, fitted, mix, pairs)
            worth = float(f"{added(best, gains):.9e}")  # ties must not hang on the last bits of a sum
            ranked.append((-worth, _denominator(mix), mix, gains))
        worth, _, mix, gains = min(ranked)
        if -worth > _ROUNDING:
            return mix, gains
    return _gap(state, parents, taken)


def _predicted(
    state: _State, fitted: surrogates.Surrogate, mix: Mix, pairs: Sequence[tuple[int, int]]
) -> tuple[float, ...]:
    """R̂(λ) plus the mean of what it misses at the neighbours: exact for quadratics, true to what is measured."""
    ends = sorted({end for pair in pairs for end in pair}, key=lambda i: state.mixes[i])
    misses = [
        [value - guess for value, guess in zip(state.gains[i], fitted.predict(state.mixes[i]), strict=True)]
        for i in ends
    ]
    return tuple(
        guess + math.fsum(miss[k] for miss in misses) / len(ends)
        for k, guess in enumerate(fitted.predict(mix))
    )


def added(best: Sequence[tuple[float, ...]], gains: tuple[float, ...]) -> float:
    """The hypervolume, counted from 0, that `gains` adds to the points `best`: its box less what they share with it."""
    if min(gains, default=0.0) <= 0:
        return 0.0
    shared = [tuple(map(min, point, gains)) for point in best]
    return max(0.0, math.prod(gains) - volume(shared))


def _gap(
    state: _State, parents: dict[Mix, list[tuple[int, int]]], taken: set[Mix]
) -> tuple[Mix, tuple[float, ...]]:
    """The midpoint of the front's widest gap; of any neighbours' where the front has none left to split."""
    on_front = state.best()
    among = [(on_front[a], on_front[b]) for a, b in neighbours([state.mixes[i] for i in on_front])]
    pairs = [(i, j) for i, j in among if not _close(state.mixes[i], state.mixes[j])]
    pairs = [(i, j) for i, j in pairs if _middle(state.mixes[i], state.mixes[j]) not in taken]
    ranked = []
    for i, j in pairs or [pair for found in parents.values() for pair in found]:
        mix = _middle(state.mixes[i], state.mixes[j])
        width = float(f"{math.dist(state.gains[i], state.gains[j]):.9e}")
        halfway = tuple((a + b) / 2 for a, b in zip(state.gains[i], state.gains[j], strict=True))
        ranked.append((-width, _denominator(mix), mix, halfway))
    _, _, mix, gains = min(ranked)
    return mix, gains


def neighbours(mixes: Sequence[Mix]) -> list[tuple[int, int]]:
    """The pairs between which no other λ lies: none is strictly inside the ball that has the pair as its diameter.

    For two ingredients these are the λ next to each other; every λ must be there once.
    """
    if len(mixes) < 2:
        return []
    import numpy as np

    places = np.array([[float(value) for value in mix] for mix in mixes], dtype=np.float64)
    found = []
    for i in range(len(mixes) - 1):
        away = places - places[i]
        inner = away @ away.T
        # (r − p)·(r − q) < 0 says that r is inside the ball over p and q; p and q themselves give 0.
        blocked = (inner.diagonal()[:, None] - inner < -_ROUNDING).any(axis=0)
        found += [(i, j) for j in range(i + 1, len(mixes)) if not blocked[j]]
    return found


def _middle(one: Mix, other: Mix) -> Mix:
    return tuple((a + b) / 2 for a, b in zip(one, other, strict=True))


def _close(one: Mix, other: Mix) -> bool:
    return all(abs(a - b) < FINEST for a, b in zip(one, other, strict=True))


def _denominator(mix: Mix) -> int:
    return math.lcm(*(value.denominator for value in mix))
