"""Intervals of the front's figures: one bootstrap for all of them, reference and spans counted anew in every draw."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rsoup.analysis.data import Data
from rsoup.errors import listing
from rsoup.front.batch_shape import coverages, losses
from rsoup.front.batches import expected_over, expected_rewards, hypervolumes
from rsoup.front.chosen import choice_weights
from rsoup.front.expected import some_preferences
from rsoup.front.noise import Estimate, bootstraps
from rsoup.front.pareto import all_scaled
from rsoup.front.recount import recounted, unsettled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Found = Mapping[str, Any]
_MOST_REWARDS, _MOST_DRAWN = 5, 150  # beyond two rewards
_FEW_DRAWS, _PREFERENCES = 400, 1000
_MOST_VALUES = 600_000  # points × draws of two rewards: a second


@dataclass(frozen=True, slots=True)
class Noise:
    """How intervals are made: draws of the bootstrap, its seed, the confidence."""

    draws: int = 1000
    seed: int = 0
    confidence: float = 0.95

    @property
    def least(self) -> int:
        """The draws that an interval of this confidence takes: ten beyond each end."""
        return math.ceil(20 / (1 - self.confidence))


@dataclass(frozen=True, slots=True)
class Intervals:
    """What noise leaves of the figures of a front, by name; `why_not` tells why there is nothing."""

    of: Mapping[str, Estimate]
    why_not: str | None = None

    def at(self, name: str, value: float | None) -> Found | None:
        """The interval of this figure around its `value`, as data; None where there is none."""
        estimate = self.of.get(name)
        if estimate is None or value is None:
            return None
        move = value - estimate.value  # by integration over other preferences
        return interval(replace(estimate, low=estimate.low + move, high=estimate.high + move))


def interval(estimate: Estimate | None) -> Found | None:
    """An interval as data; `noise` is what noise adds to the figure on average."""
    if estimate is None:
        return None
    return {
        "low": estimate.low,
        "high": estimate.high,
        "confidence": estimate.confidence,
        "noise": estimate.bias,
        "draws": estimate.draws,
    }


def intervals(data: Data, noise: Noise) -> Intervals:
    """Of hypervolume, expected reward, what the experts lack, and the front's coverage.

    For two rewards, and for up to five of at most 150 points: the draws are hundreds of fronts. At nominal 95 %, five
    to eleven soups on a bulge or a line and errors of 0.02 to 0.2 of the experts' range, also from five repeats: the
    hypervolume is covered by 93 to 98 % of them (by 72 to 82 % if the reference counted as exact), the expected reward
    by 86 to 100 %, what the experts lack by 85 to 99 %, the share covered by 97 to 100 %. The widest gap, which depends
    on who is on the front, would be covered by 67 to 98 %, and has none.
    """
    count, rewards = len(data.rows), len(data.rewards)
    small = rewards == 2 or (rewards <= _MOST_REWARDS and count <= _MOST_DRAWN)
    if not data.has_errors or rewards < 2 or not small:
        return Intervals({})
    experts = [i for i in data.experts if i is not None]
    if open_ := unsettled(data.values, data.errors, data.reference, experts, noise.confidence):
        which = listing([data.rewards[k] for k in open_])
        return Intervals({}, f"the range of {which} that gains are counted in is not beyond noise: nothing counted in it has an interval")  # fmt: skip
    whole = len(experts) == len(data.ingredients) and len(experts) > 1 and all(data.reference.of_experts)
    names = _names(rewards, whole)
    valued = data.valued
    weights = None if data.chosen_by is None else choice_weights(all_scaled(data.chosen_by, data.maximise, data.reference))  # fmt: skip

    def many(sets: Floats) -> Floats:
        gains = recounted(sets, data.maximise, data.reference, experts)
        found = _figures(gains[:, valued], [valued.index(i) for i in experts] if whole else [])
        if weights is not None:
            found[:, 1] = (gains * weights).sum(axis=(1, 2))
        return found

    draws = min(noise.draws, max(_FEW_DRAWS, _MOST_VALUES // count)) if rewards == 2 else min(noise.draws, _FEW_DRAWS)  # fmt: skip
    found = bootstraps(
        data.values, data.errors, data.repeats, many,
        draws=max(draws, noise.least), seed=noise.seed, confidence=noise.confidence,
    )  # fmt: skip
    return Intervals(
        {n: _bounded(e) if n.startswith("share") else e for n, e in zip(names, found, strict=True)}
    )


def _bounded(share: Estimate) -> Estimate:
    """The interval of a share, which noise can only lower where it is 1: whatever either of both intervals holds."""
    low, high = min(share.low, share.drawn[0]), max(share.high, share.drawn[1])
    return replace(share, low=min(1.0, max(0.0, low)), high=min(1.0, max(0.0, high)))


def _names(rewards: int, whole: bool) -> list[str]:
    names = ["hypervolume", "expected_reward"]
    if whole:
        names += ["largest_loss", *(f"{kind} {k}" for kind in ("share", "beyond") for k in range(rewards))]
    return names


def _figures(gains: Floats, experts: list[int]) -> Floats:
    """(sets, points, rewards) → (sets, figures), in the order of `_names`."""
    import numpy as np

    rewards = gains.shape[2]
    columns: list[Floats] = [hypervolumes(gains)]
    if rewards == 2:
        columns.append(expected_rewards(gains))
        columns += [losses(gains[:, experts], gains)] if experts else []
    else:
        preferences = some_preferences(rewards, _PREFERENCES)
        columns.append(expected_over(preferences)(gains))
        columns += [_lost(gains, experts, preferences)] if experts else []
    columns += [coverages(gains, experts)] if experts else []
    return np.hstack([column.reshape(len(gains), -1) for column in columns])


def _lost(gains: Floats, experts: list[int], preferences: Floats) -> Floats:
    """The most that the experts alone lack under one of the preferences, per set."""
    import numpy as np

    best = [(points @ preferences.T).max(axis=0) for points in gains]
    alone = [(points[experts] @ preferences.T).max(axis=0) for points in gains]
    return np.array([(one - other).max() for one, other in zip(best, alone, strict=True)])
