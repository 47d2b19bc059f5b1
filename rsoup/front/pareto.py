"""Which points no other beats in every reward, and the hypervolume they cover."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rsoup.errors import listing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Values = Sequence[float]
_MOST_EXACT: Final = {5: 5000, 6: 300, 7: 100, 8: 50}  # points, by rewards
_DIRECTIONS: Final = 2**17
_SOME: Final = 1000
_FEW: Final = 100  # points that are compared before a library is loaded
_NO_NUMBER: Final = "a value is NaN, which is neither better nor worse than another"


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a hypervolume is counted from: per reward a raw value, and the `spans` a reward is divided by.

    `how` says in words where both come from. `spans` of 1 leave the rewards in their own units. `of_experts` tells per
    reward whether its span (and its value, unless `given`) is that of the experts, or of all points; `normalised`
    whether anything is divided.
    """

    values: tuple[float, ...]
    spans: tuple[float, ...]
    how: str
    of_experts: tuple[bool, ...] = ()
    given: bool = False
    normalised: bool = True


@dataclass(frozen=True, slots=True)
class Hypervolume:
    """How much a set of points dominates, counted from `reference`; `how` is the definition in words."""

    value: float
    reference: tuple[float, ...]
    how: str


def front(values: Sequence[Values], maximise: Sequence[bool]) -> list[int]:
    """The i for which no j is at least as good in every reward and better in one, in order.

    Equal points do not dominate each other: all of them stay. Infinite values are compared like others.
    Beyond some points moocore is faster, and importing it pays. Raises ValueError for NaN, and for a point without
    one value per reward.
    """
    if len(values) > _FEW and len(maximise) > 2:
        return _by_library(values, maximise)
    turned = [_turned(point, maximise) for point in values]
    best = _two(set(turned)) if len(maximise) == 2 else _many(set(turned))
    return [index for index, point in enumerate(turned) if point in best]


def _by_library(values: Sequence[Values], maximise: Sequence[bool]) -> list[int]:
    import moocore  # type: ignore[import-untyped]
    import numpy as np

    if wrong := next((len(point) for point in values if len(point) != len(maximise)), 0):
        raise ValueError(f"{wrong} values for {len(maximise)} rewards")
    points = np.array(values, dtype=np.float64)
    if np.isnan(points).any():
        raise ValueError(_NO_NUMBER)
    kept = moocore.is_nondominated(points, maximise=list(maximise), keep_weakly=True)
    return [int(index) for index in np.flatnonzero(kept)]


def _turned(point: Values, maximise: Sequence[bool]) -> tuple[float, ...]:
    """The point with every reward to be maximised."""
    if len(point) != len(maximise):
        raise ValueError(f"{len(point)} values for {len(maximise)} rewards")
    if any(math.isnan(value) for value in point):
        raise ValueError(_NO_NUMBER)
    return tuple(value if up else -value for value, up in zip(point, maximise, strict=True))


def _two(points: set[tuple[float, ...]]) -> set[tuple[float, ...]]:
    """From the best first reward down, each point is in the front when its second is the highest yet."""
    best: set[tuple[float, ...]] = set()
    highest: float | None = None
    for point in sorted(points, reverse=True):
        if highest is None or point[1] > highest:
            best.add(point)
            highest = point[1]
    return best


def _many(points: set[tuple[float, ...]]) -> set[tuple[float, ...]]:
    """What dominates a point comes before it in lexicographic order; so only the front so far is asked."""
    best: list[tuple[float, ...]] = []
    for point in sorted(points, reverse=True):
        if not any(all(map(float.__ge__, other, point)) for other in best):
            best.append(point)
    return set(best)


def reference_of(
    values: Sequence[Values],
    maximise: Sequence[bool],
    experts: Sequence[Values | None] = (),
    *,
    normalised: bool = True,
    names: Sequence[str] = (),
) -> Reference:
    """The nadir of the experts: per reward the worst value among the soups of one ingredient alone.

    `normalised` divides each reward by the experts' range, so that the box from their worst to their best
    values has the volume 1. A reward that cannot be scaled so (an expert is not measured: None; or all
    have the same value) takes the range of all measured `values`, and `how` says so; where that is 0, too,
    its unit is 1. `names` are the rewards', for `how`. Raises ValueError without any point, and for a value
    that is not finite.
    """
    measured = [_finite(point, maximise) for point in values]
    known = [_finite(point, maximise) for point in experts if point is not None]
    measured += known
    if not measured:
        raise ValueError("there is no point to take a reference from")
    whole = bool(experts) and len(known) == len(experts)
    worsts, spans, own, other = [], [], [], []
    for k, up in enumerate(maximise):
        column = [point[k] for point in known]
        own.append(whole and min(column) < max(column))
        if not own[-1]:
            column = [point[k] for point in measured]
            other.append(names[k] if names else f"reward {k + 1}")
        worsts.append(min(column) if up else max(column))
        spans.append(_span(column) if normalised else 1.0)
    how = _how(normalised, whole, other, len(maximise), known=bool(experts))
    return Reference(tuple(worsts), tuple(spans), how, tuple(own), normalised=normalised)


def _finite(point: Values, maximise: Sequence[bool]) -> tuple[float, ...]:
    if len(point) != len(maximise):
        raise ValueError(f"{len(point)} values for {len(maximise)} rewards")
    if not all(map(math.isfinite, point)):
        raise ValueError("a value is not finite")
    return tuple(map(float, point))


def _span(column: Sequence[float]) -> float:
    """max − min, or 1 where they are equal or too far apart for a float."""
    span = max(column) - min(column)
    return span if span > 0 and math.isfinite(span) else 1.0


def _how(normalised: bool, whole: bool, other: Sequence[str], count: int, *, known: bool) -> str:
    unit = ", each reward divided by its range there" if normalised else ", in the rewards' own units"
    if not whole:
        return f"from the worst values measured{unit}" + (" (not every expert is measured)" if known else "")
    if len(other) == count:
        return f"from the worst values measured{unit} (the experts are equal in every reward)"
    apart = f"; of {listing(list(other))} the range of all points, for the experts are equal" if other else ""
    return f"from the worst values among the experts{unit}{apart}"


def hypervolume(values: Sequence[Values], maximise: Sequence[bool], reference: Values) -> float:
    """The volume of everything that some point dominates and that dominates `reference`, in raw units.

    A point that is not better than the reference in every reward adds nothing. Raises ValueError for a value
    that is not finite or for a wrong number of them.
    """
    zero = _finite(reference, maximise)
    gains = [
        [value - low if up else low - value for value, low, up in zip(_finite(point, maximise), zero, maximise, strict=True)]
        for point in values
    ]  # fmt: skip
    return volume(gains)


def volume(gains: Sequence[Values] | Floats) -> float:
    """The hypervolume of points to be maximised, counted from 0 in every reward; 0 without points.

    Exact where that takes well under a second (`is_exact`); beyond, its cost grows exponentially with the rewards, and it
    is an integral over directions, right to about 1 %.
    """
    return _measured(_inside(gains))


def _measured(kept: Floats) -> float:
    if not kept.size:
        return 0.0
    if kept.shape[1] == 1:
        return float(kept.max())
    import moocore

    reference = [0.0] * kept.shape[1]
    if _few(kept):
        return float(moocore.hypervolume(kept, ref=reference, maximise=True))
    count = _DIRECTIONS if len(kept) <= _SOME else _DIRECTIONS // 4
    return float(moocore.hv_approx(kept, ref=reference, maximise=True, nsamples=count))


def is_exact(gains: Sequence[Values] | Floats) -> bool:
    """Whether `volume` of these points is exact: up to 4 rewards always, with more up to some hundreds of points on the front."""
    kept = _inside(gains)
    return not kept.size or _few(kept)


def _inside(gains: Sequence[Values] | Floats) -> Floats:
    """The different points of the front that are above 0 in every reward, in lexicographic order."""
    import numpy as np

    points = np.array(gains, dtype=np.float64)
    if points.ndim != 2 or not points.size:
        return np.empty((0, 0))
    inside = points[(points > 0).all(axis=1)]
    if inside.shape[1] > 1 and len(inside) > 1:
        import moocore

        inside = inside[moocore.is_nondominated(inside, maximise=True)]
    result: Floats = inside[np.lexsort(inside.T[::-1])]
    return result


def _few(kept: Floats) -> bool:
    rewards = kept.shape[1]
    return rewards < 5 or len(kept) <= _MOST_EXACT.get(rewards, 30)


def scaled(point: Values, maximise: Sequence[bool], reference: Reference) -> tuple[float, ...]:
    """What a point gains over the reference, in spans: all to be maximised, 0 at the reference."""
    return all_scaled([point], maximise, reference)[0]


def all_scaled(
    values: Sequence[Values], maximise: Sequence[bool], reference: Reference
) -> list[tuple[float, ...]]:
    """`scaled` of many points, reward by reward. Raises ValueError like `hypervolume`."""
    if not values:
        return []
    finite = [_finite(point, maximise) for point in values]
    about = zip(zip(*finite, strict=True), reference.values, reference.spans, maximise, strict=True)
    gains = [
        [(value - low) / span for value in column] if up else [(low - value) / span for value in column]
        for column, low, span, up in about
    ]
    return list(zip(*gains, strict=True))


def covered(values: Sequence[Values], maximise: Sequence[bool], reference: Reference) -> Hypervolume:
    """The hypervolume counted from `reference`, each reward divided by its span.

    Raises ValueError like `hypervolume`.
    """
    kept = _inside(all_scaled(values, maximise, reference))
    about = "" if not kept.size or _few(kept) else " (approximate, to about 1 %)"
    how = f"the volume of what the points dominate{about}, {reference.how}"
    return Hypervolume(_measured(kept), reference.values, how)
