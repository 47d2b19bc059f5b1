"""The shape of a front: how much of the experts' range it covers, how evenly, and where it bends most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from rsoup.front.pareto import Values, front
from rsoup.front.points import checked, columns

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FLAT = 1e-12  # a bulge below this share of the front's range is rounding, not a knee


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a set's front spans in one reward: from `low` to `high`, in the unit of the gains.

    `share` is how much of the experts' range lies inside, 0 to 1; `beyond` how far `high` exceeds the best
    expert in units of that range, below 0 where it stays behind. Both are None where the experts are equal.
    """

    low: float
    high: float
    share: float | None
    beyond: float | None


@dataclass(frozen=True, slots=True)
class Spread:
    """How a front's points lie: `count` of different ones, their longest gap and how even the gaps are.

    `gap` is the Euclidean length of the longest gap, `between` the two points on its sides (indices of the gains),
    both None for fewer than two different points. `evenness` is 1 where all gaps are equal and falls towards 0,
    None for fewer than three.
    """

    count: int
    gap: float | None
    between: tuple[int, int] | None
    evenness: float | None


@dataclass(frozen=True, slots=True)
class Bulge:
    """How far a front's point lies beyond the plane of the extremes, and for two rewards its bend in degrees.

    Both in units of the front's own range per reward. `bend` is 0 on a straight line, above 0 where the front
    bulges, below where it is dented, at most 90 either way; None at the ends and for other numbers of rewards.
    """

    point: int
    height: float
    bend: float | None


@dataclass(frozen=True, slots=True)
class Knees:
    """The bulge of every point of the front, in order of the gains, and the points that bulge most.

    `knees` is empty where nothing lies beyond the plane: one point, two, a straight or a dented front.
    """

    bulges: tuple[Bulge, ...]
    knees: tuple[int, ...]
    how: str


def coverage(gains: Sequence[Values], experts: Sequence[Values]) -> tuple[Coverage, ...]:
    """Per reward, |[low, high] ∩ [worst, best expert]| / (best − worst expert), low and high of the set's front.

    Gains are to be maximised, in any unit. The figure behind "only a small portion of the spectrum" of model
    soups (Rewarded Soups, figure 10b). Raises ValueError without points or experts, for a value that is not finite,
    for points of different lengths.
    """
    points = checked(gains)
    best = [points[i] for i in _front(points)]
    ends = checked(experts, len(best[0]))
    return tuple(_covers(column, end) for column, end in zip(columns(best), columns(ends), strict=True))


def _covers(column: Sequence[float], ends: Sequence[float]) -> Coverage:
    low, high, worst, best = min(column), max(column), min(ends), max(ends)
    span = best - worst
    if span <= 0 or not math.isfinite(span):
        return Coverage(low, high, None, None)
    inside = max(0.0, min(high, best) - max(low, worst))
    return Coverage(low, high, inside / span, (high - best) / span)


def spread(gains: Sequence[Values]) -> Spread:
    """The longest edge of the front's minimum spanning tree: the stride with which one can walk all of it.

    With two rewards the edges are the steps between neighbours, so this is the largest gap. Evenness is
    (Σ min(eᵢ/Σe, 1/E) − 1/E) / (1 − 1/E) over the E edges: functional evenness with equal weights (Villéger,
    Mason & Mouillot 2008, Ecology 89:2290). Equal points count once. Distances are in the unit of the gains; so
    they should be scaled. Raises ValueError as `coverage` does.
    """
    points = checked(gains)
    first: dict[tuple[float, ...], int] = {}
    for i in _front(points):
        first.setdefault(points[i], i)
    kept = sorted(first)
    if len(kept) < 2:
        return Spread(len(kept), None, None, None)
    edges = _neighbours(kept) if len(kept[0]) <= 2 else _tree(kept)
    gap, one, other = max(edges, key=lambda edge: edge[0])
    ends = sorted((first[kept[one]], first[kept[other]]))
    return Spread(len(kept), gap, (ends[0], ends[1]), _evenness([length for length, _, _ in edges]))


def _neighbours(kept: Sequence[tuple[float, ...]]) -> list[tuple[float, int, int]]:
    """Along a front of two rewards no point is nearer than a neighbour: the chain is the tree."""
    return [(math.dist(kept[i], kept[i + 1]), i, i + 1) for i in range(len(kept) - 1)]


def _tree(kept: Sequence[tuple[float, ...]]) -> list[tuple[float, int, int]]:
    """The edges of the minimum spanning tree, by Prim's algorithm."""
    import numpy as np

    points = np.array(kept, dtype=np.float64)
    left = np.arange(1, len(points))  # those not in the tree yet, and below the nearest that is
    nearest, via = np.linalg.norm(points[1:] - points[0], axis=1), np.zeros(len(left), dtype=np.intp)
    edges = []
    while len(left):
        place = int(np.argmin(nearest))
        new = int(left[place])
        edges.append((float(nearest[place]), int(via[place]), new))
        left[place], nearest[place], via[place] = left[-1], nearest[-1], via[-1]
        left, nearest, via = left[:-1], nearest[:-1], via[:-1]
        distance = np.linalg.norm(points[left] - points[new], axis=1)
        closer = distance < nearest
        nearest[closer], via[closer] = distance[closer], new
    return edges


def _evenness(lengths: Sequence[float]) -> float | None:
    if len(lengths) < 2:
        return None
    total, fair = math.fsum(lengths), 1 / len(lengths)
    shared = math.fsum(min(length / total, fair) for length in lengths)
    return min(1.0, max(0.0, (shared - fair) / (1 - fair)))


def knees(gains: Sequence[Values]) -> Knees:
    """The points farthest beyond the plane through the front's extremes, each reward scaled to the front's range.

    That is the knee by normal-boundary intersection (Das 1999, Structural Optimization 18:107); for two rewards
    the largest distance to the chord. Where the extremes of three or more rewards span no plane that falls in every
    reward, it is the plane through the corners, Σz = 1. For two rewards the bend is the angle between the
    steps to and from the two neighbours (after Branke et al. 2004, Finding Knees in Multi-objective Optimization).
    Equal points are equally knees. Raises ValueError as `coverage` does.
    """
    points = checked(gains)
    members = _front(points)
    best = sorted({points[i] for i in members})
    if len(best) < 3:
        return Knees(tuple(Bulge(i, 0.0, None) for i in members), (), "fewer than three different points")
    lows = [min(column) for column in columns(best)]
    spans = [max(column) - low or 1.0 for column, low in zip(columns(best), lows, strict=True)]
    unit = {p: tuple((v - low) / span for v, low, span in zip(p, lows, spans, strict=True)) for p in best}
    normal, how = _plane(list(unit.values()))
    size = math.hypot(*normal)
    heights = {
        p: (math.fsum(w * v for w, v in zip(normal, z, strict=True)) - 1) / size for p, z in unit.items()
    }
    bends = _bends([unit[p] for p in best]) if len(lows) == 2 else [None] * len(best)
    bend = dict(zip(best, bends, strict=True))
    top = max(heights.values())
    found = tuple(Bulge(i, heights[points[i]], bend[points[i]]) for i in members)
    return Knees(found, tuple(b.point for b in found if b.height >= top - _FLAT and top > _FLAT), how)


def _plane(unit: Sequence[tuple[float, ...]]) -> tuple[tuple[float, ...], str]:
    """w with w·z = 1 at the extreme of every reward, if there is one with all w > 0; else all 1."""
    import numpy as np

    count = len(unit[0])
    extremes = [max(unit, key=lambda z, k=k: (z[k], math.fsum(z), z)) for k in range(count)]  # type: ignore[misc]
    corners = (1.0,) * count
    if count == 2:
        return corners, "the chord between the ends of the front"
    matrix: NDArray[np.float64] = np.array(extremes, dtype=np.float64)
    if np.linalg.matrix_rank(matrix) == count:
        normal = tuple(map(float, np.linalg.solve(matrix, np.ones(count))))
        if min(normal) > _FLAT:
            return normal, "the plane through the best point of each reward"
    return corners, "the plane through the corners (the best points of the rewards span none)"


def _bends(chain: Sequence[tuple[float, ...]]) -> list[float | None]:
    """Degrees by which the way turns at each point, for a chain by rising first reward; right is outward."""
    ways = [math.atan2(b[1] - a[1], b[0] - a[0]) for a, b in pairwise(chain)]
    turns: list[float | None] = [math.degrees(before - after) for before, after in pairwise(ways)]
    return [None, *turns, None]


def _front(points: Sequence[tuple[float, ...]]) -> list[int]:
    return front(points, (True,) * len(points[0]))
