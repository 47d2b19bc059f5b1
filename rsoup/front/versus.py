"""One set of points against another, made otherwise: who dominates whom, by how much, what each adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rsoup.front.certainty import Sides, steps
from rsoup.front.pareto import Values, front, volume
from rsoup.front.points import Errors, Repeats, checked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


DOMINATED: Final = "dominated"
DOMINATES: Final = "dominates"
EQUAL: Final = "equal"
INCOMPARABLE: Final = "incomparable"


@dataclass(frozen=True, slots=True)
class Standing:
    """One of the other points against all of ours.

    `relation` is `DOMINATED` if any of ours dominates it, else `DOMINATES` if it dominates one of our front, else `EQUAL`
    if one of ours is, else `INCOMPARABLE`: it adds to our front, and takes nothing from it.
    `dominated_by`, `dominates`, `equal` are indices of ours, `incomparable` counts the rest. `distance` is how far
    the point lies beyond our front: the smallest gain in every reward with which one of ours would be as good; below 0
    where one is better in every reward, by that much. `certainly_dominated_by` and `certainly_dominates` are
    those of it that hold beyond the errors, None without errors.
    """

    point: int
    relation: str
    dominated_by: tuple[int, ...]
    dominates: tuple[int, ...]
    equal: tuple[int, ...]
    incomparable: int
    distance: float
    certainly_dominated_by: tuple[int, ...] | None
    certainly_dominates: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Versus:
    """Two sets of points: a standing per point of the others, and figures of both as sets.

    `our_front` and `their_front` are each set's own front (indices). Volumes are hypervolumes counted from 0: of
    ours, of theirs, of both together; `only_ours` is what ours add to theirs, `only_theirs` the reverse. `we_need`
    is the additive ε-indicator I(ours, theirs), the gain with which ours would cover all of theirs; `they_need`
    the reverse. At most one of both is below 0: that set is better everywhere.
    """

    standings: tuple[Standing, ...]
    our_front: tuple[int, ...]
    their_front: tuple[int, ...]
    our_volume: float
    their_volume: float
    both_volume: float
    we_need: float
    they_need: float

    @property
    def only_ours(self) -> float:
        """The hypervolume that ours alone dominate."""
        return max(0.0, self.both_volume - self.their_volume)

    @property
    def only_theirs(self) -> float:
        """The hypervolume that theirs alone dominate."""
        return max(0.0, self.both_volume - self.our_volume)

    def count(self, relation: str) -> int:
        """How many of the others stand so."""
        return sum(standing.relation == relation for standing in self.standings)


def versus(
    ours: Sequence[Values],
    theirs: Sequence[Values],
    *,
    epsilon: float | Sequence[float] = 0.0,
    our_errors: Errors | None = None,
    their_errors: Errors | None = None,
    our_repeats: Repeats | None = None,
    their_repeats: Repeats | None = None,
    confidence: float = 0.95,
) -> Versus:
    """Who dominates whom between two sets of gains, to be maximised, in the same units and from the same 0.

    a dominates b if a ≥ b − ε in every reward and a > b + ε in one; equal are points within ε in every reward. With
    errors, what is certain: a reward's difference beyond q·√(se² + se²), at least as good in every reward and better
    in one, with all such answers holding together at `confidence` (level α/(2·|ours|·|theirs|) each; see
    `memberships`). A distance is the additive ε-indicator of one point, min over ours of max over rewards of
    (theirs − ours): Zitzler et al. 2003, IEEE Trans. Evol. Comput. 7:117; in spans where gains are scaled.

    Raises ValueError for sets without points, values that are not finite, shapes that differ, ε below 0, a
    confidence not between 0 and 1, and for errors of one set alone.
    """
    import numpy as np

    we = checked(ours)
    they = checked(theirs, len(we[0]))
    if not 0 < confidence < 1:
        raise ValueError("a confidence lies between 0 and 1")
    if (our_errors is None) != (their_errors is None):
        raise ValueError("errors of one set alone make no difference certain")
    sides = None
    if our_errors is not None and their_errors is not None:
        sides = (Sides.of(we, our_errors, our_repeats), Sides.of(they, their_errors, their_repeats))
    level = (1 - confidence) / (2 * len(we) * len(they))
    margin, array = np.array(steps(epsilon, len(we[0]))), np.array(we)
    up = (True,) * len(we[0])
    our_front = tuple(front(we, up))
    return Versus(
        tuple(
            _standing(array, our_front, point, i, margin, sides, level)
            for i, point in enumerate(np.array(they))
        ),
        our_front,
        tuple(front(they, up)),
        volume(we),
        volume(they),
        volume([*we, *they]),
        needed(we, they),
        needed(they, we),
    )


def _standing(
    ours: Floats,
    our_front: Sequence[int],
    point: Floats,
    index: int,
    margin: Floats,
    sides: tuple[Sides, Sides] | None,
    level: float,
) -> Standing:
    import numpy as np

    above, below = np.any(ours > point + margin, axis=1), np.any(point > ours + margin, axis=1)
    best, equal, under = above & ~below, ~above & ~below, below & ~above
    relation = INCOMPARABLE
    if best.any():
        relation = DOMINATED
    elif under[list(our_front)].any():
        relation = DOMINATES
    elif equal.any():
        relation = EQUAL
    we, they = sides or (None, None)
    return Standing(
        index,
        relation,
        tuple(map(int, np.flatnonzero(best))),
        tuple(map(int, np.flatnonzero(under))),
        tuple(map(int, np.flatnonzero(equal))),
        int(np.sum(above & below)),
        float((point - ours).max(axis=1).min()),
        we.dominating(they, index, level) if we and they else None,
        we.dominated(they, index, level) if we and they else None,
    )


def needed(ours: Sequence[Values], theirs: Sequence[Values]) -> float:
    """I(ours, theirs) = max over theirs, min over ours, max over rewards of (theirs − ours): the additive ε-indicator.

    The gain in every reward that makes ours at least as good as each of theirs; below 0 where they are better by
    more. Raises ValueError for sets without points, values that are not finite, shapes that differ.
    Source: Zitzler et al. 2003, IEEE Trans. Evol. Comput. 7:117.
    """
    import moocore  # type: ignore[import-untyped]

    we = checked(ours)
    return float(moocore.epsilon_additive(we, ref=checked(theirs, len(we[0])), maximise=True))
