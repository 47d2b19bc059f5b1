"""The front itself: who is on it, hypervolume, coverage, spread, knees, expected reward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rsoup.analysis.data import Data, lambda_of
from rsoup.analysis.owning import assigned
from rsoup.front import shape
from rsoup.front.batches import expected_rewards, hypervolumes
from rsoup.front.certainty import front_probabilities, memberships
from rsoup.front.expected import expected_reward, utility_loss
from rsoup.front.identity import identity_reward
from rsoup.front.noise import Estimate, bootstraps
from rsoup.front.pareto import covered, front

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Found = Mapping[str, Any]
_MOST_REWARDS, _MOST_DRAWN, _FEW_DRAWS = 5, 150, 400
_MOST_CERTAIN = 500  # points whose memberships are asked for: pairs of them are compared


@dataclass(frozen=True, slots=True)
class Noise:
    """How intervals are made: draws of the bootstrap, its seed, the confidence."""

    draws: int = 1000
    seed: int = 0
    confidence: float = 0.95


def interval(estimate: Estimate | None) -> Found | None:
    """An interval as data; `noise` is what noise adds to the figure on average."""
    if estimate is None:
        return None
    return {
        "low": estimate.low,
        "high": estimate.high,
        "confidence": estimate.confidence,
        "noise": estimate.bias,
    }


def membership(data: Data, noise: Noise) -> Found:
    """The points nothing beats, and with standard errors how certain that is."""
    on = front(data.values, data.maximise)
    found: dict[str, Any] = {
        "definition": "no other point is at least as good in every reward and better in one",
        "points": [data.names[i] for i in on],
        "certain": None,
        "possible": None,
        "probability": None,
    }
    if data.has_errors and len(data.rows) <= _MOST_CERTAIN:
        about = memberships(data.gains, data.relative_errors, data.repeats, confidence=noise.confidence)
        found["certain"] = [data.names[m.point] for m in about if m.status == "certain"]
        found["possible"] = [data.names[m.point] for m in about if m.status == "possible"]
        chances = front_probabilities(
            data.gains, data.relative_errors, data.repeats, draws=noise.draws, seed=noise.seed
        )
        found["probability"] = dict(zip(data.names, chances, strict=True))
    return found


def figures(data: Data, noise: Noise) -> tuple[Found | None, Found]:
    """(hypervolume, expected reward) with their intervals; the hypervolume is None for one reward."""
    gains = data.gains
    estimates = _estimates(data, noise)
    volume = None
    experts = [gains[i] for i in data.experts if i is not None]
    if len(data.rewards) > 1:
        found = covered(data.values, data.maximise, data.reference)
        raw = [data.values[i] for i in data.experts if i is not None]
        volume = {
            "definition": found.how,
            "value": found.value,
            "interval": interval(estimates[0]),
            "reference": dict(zip(data.rewards, found.reference, strict=True)),
            "spans": dict(zip(data.rewards, data.reference.spans, strict=True)),
            "experts": covered(raw, data.maximise, data.reference).value if raw else None,
        }
    expected = expected_reward(gains)
    same = _identity(data)
    best: dict[str, Any] = {
        "definition": f"{expected.how}, rewards as gains over the reference in spans",
        "value": expected.value,
        "integration_error": expected.error,
        "interval": interval(estimates[1]),
        "intervals_of_preference": [
            {"from": part.start, "to": part.end, "point": data.names[part.index]}
            for part in expected.intervals
        ],
        "lambda_is_preference": same,
    }
    if len(experts) == len(data.ingredients) and experts:
        alone = expected_reward(experts)
        loss = utility_loss(experts, gains)
        best["experts"] = {
            "value": alone.value,
            "largest_loss": loss.value,
            "at_preference": list(loss.preference),
            "exact": loss.exact,
        }
    return volume, best


def _estimates(data: Data, noise: Noise) -> tuple[Estimate | None, Estimate | None]:
    """Bootstrap intervals of hypervolume and expected reward, from the same draws; of the latter for two rewards only.

    With more rewards only where a hypervolume takes well under a millisecond: the draws are hundreds of them.
    """
    small = len(data.rewards) == 2 or (len(data.rewards) <= _MOST_REWARDS and len(data.rows) <= _MOST_DRAWN)
    if not data.has_errors or len(data.rewards) < 2 or not small:
        return None, None
    import numpy as np

    two = len(data.rewards) == 2

    def both(sets: NDArray[np.float64]) -> NDArray[np.float64]:
        volumes = hypervolumes(sets)
        return np.stack([volumes, expected_rewards(sets)], axis=1) if two else volumes

    found = bootstraps(
        data.gains,
        data.relative_errors,
        data.repeats,
        both,
        draws=noise.draws if two else min(noise.draws, _FEW_DRAWS),
        seed=noise.seed,
        confidence=noise.confidence,
    )
    return found[0], found[1] if two else None


def _identity(data: Data) -> Found:
    """The expected reward with λ = μ̂, where every reward has an expert and the λ between are measured."""
    usable = {mix: i for i, row in enumerate(data.rows) if (mix := lambda_of(row)) is not None}
    if len(data.ingredients) != len(data.rewards) or not usable:
        return {"value": None, "definition": "needs one ingredient per reward, and their λ"}
    order = assigned(data)
    if order is None:
        return {"value": None, "definition": "needs every expert measured alone"}
    gains = data.gains
    mixes = [tuple(mix[k] for k in order) for mix in usable]
    found = identity_reward(mixes, [gains[i] for i in usable.values()])
    return {"value": found.value, "definition": found.how}


def shapes(data: Data) -> Found:
    """How much of the experts' range the front covers, its widest gap, its knees."""
    gains = data.gains
    experts = [gains[i] for i in data.experts if i is not None]
    on = front(data.values, data.maximise)
    spread = shape.spread(gains)
    found: dict[str, Any] = {
        "coverage": None,
        "spread": {
            "definition": "the longest edge of the front's minimum spanning tree, in spans; evenness is 1 where all edges are equal",
            "points": spread.count,
            "gap": spread.gap,
            "between": None if spread.between is None else [data.names[i] for i in spread.between],
            "evenness": spread.evenness,
        },
        "knees": None,
    }
    if len(experts) == len(data.ingredients) and len(experts) > 1:
        covers = shape.coverage(gains, experts)
        found["coverage"] = {
            "definition": "the share of the experts' range that lies inside the front's range; beyond: how far its best is above the best expert's, in that range",
            "rewards": {
                name: {"share": one.share, "beyond": one.beyond}
                for name, one in zip(data.rewards, covers, strict=True)
            },
        }
    if len(on) > 2 and len(data.rewards) > 1:
        bends = shape.knees(gains)
        height = {bulge.point: bulge.height for bulge in bends.bulges}
        found["knees"] = {
            "definition": bends.how,
            "points": [{"point": data.names[i], "height": height[i]} for i in bends.knees],
        }
    return found
