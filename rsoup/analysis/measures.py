"""The front itself: who is on it, hypervolume, coverage, spread, knees, expected reward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsoup.analysis.data import Data, lambda_of
from rsoup.analysis.intervals import Intervals, Noise
from rsoup.analysis.owning import assigned
from rsoup.front import shape
from rsoup.front.certainty import front_probabilities, memberships
from rsoup.front.chosen import choice_weights, scored
from rsoup.front.expected import Expected, envelope, expected_reward, utility_loss
from rsoup.front.identity import identity_reward
from rsoup.front.pareto import all_scaled, covered

Found = Mapping[str, Any]
_MOST_CERTAIN = 500  # points whose memberships are asked for: pairs of them are compared


def membership(data: Data, noise: Noise) -> Found:
    """The points nothing beats, and with standard errors how certain that is."""
    names = data.names
    apart = "" if data.chosen_by is None else ", by the values of the select split"
    found: dict[str, Any] = {
        "definition": f"no other point is at least as good in every reward and better in one{apart}",
        "points": [names[i] for i in data.front],
        "certain": None,
        "possible": None,
        "probability": None,
    }
    if data.has_errors and len(data.rows) <= _MOST_CERTAIN:
        about = memberships(data.gains, data.relative_errors, data.repeats, confidence=noise.confidence)
        found["certain"] = [names[m.point] for m in about if m.status == "certain"]
        found["possible"] = [names[m.point] for m in about if m.status == "possible"]
        chances = front_probabilities(
            data.gains, data.relative_errors, data.repeats, draws=noise.draws, seed=noise.seed
        )
        found["probability"] = dict(zip(names, chances, strict=True))
    return found


def figures(data: Data, noise: Intervals) -> tuple[Found | None, Found]:
    """(hypervolume, expected reward) with their intervals; the hypervolume is None for one reward."""
    gains, names = data.gains, data.names
    volume = None
    experts = [gains[i] for i in data.experts if i is not None]
    if len(data.rewards) > 1:
        found = covered([data.values[i] for i in data.valued], data.maximise, data.reference)
        raw = [data.values[i] for i in data.experts if i is not None]
        volume = {
            "definition": found.how
            + ("" if data.chosen_by is None else "; points found by the select values"),
            "value": found.value,
            "interval": noise.at("hypervolume", found.value),
            "reference": dict(zip(data.rewards, found.reference, strict=True)),
            "spans": dict(zip(data.rewards, data.reference.spans, strict=True)),
            "experts": covered(raw, data.maximise, data.reference).value if raw else None,
        }
    expected = expected_reward(gains) if data.chosen_by is None else _chosen(data)
    same = _identity(data)
    best: dict[str, Any] = {
        "definition": f"{expected.how}, rewards as gains over the reference in spans",
        "value": expected.value,
        "integration_error": expected.error,
        "interval": noise.at("expected_reward", expected.value),
        "intervals_of_preference": [
            {"from": part.start, "to": part.end, "point": names[part.index]} for part in expected.intervals
        ],
        "lambda_is_preference": same,
    }
    if len(experts) == len(data.ingredients) and experts:
        alone = expected_reward(experts)
        gains = [gains[i] for i in data.valued]
        loss = utility_loss(experts, gains)
        best["experts"] = {
            "value": alone.value,
            "largest_loss": loss.value,
            "at_preference": list(loss.preference),
            "exact": loss.exact,
            "interval": noise.at("largest_loss", loss.value),
        }
    return volume, best


def _chosen(data: Data) -> Expected:
    """The expected reward where the select values choose the point for every preference and the report values score it."""
    assert data.chosen_by is not None
    chosen = all_scaled(data.chosen_by, data.maximise, data.reference)
    intervals = envelope(chosen) if len(data.rewards) == 2 else ()
    how = "E Σ μ·r of the point with the largest Σ μ·r by the select values, μ uniform on the simplex"
    return Expected(scored(choice_weights(chosen), data.gains), 0.0, intervals, how)


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


def shapes(data: Data, noise: Intervals) -> Found:
    """How much of the experts' range the front covers, its widest gap, its knees."""
    gains, names = data.gains, data.names
    experts = [gains[i] for i in data.experts if i is not None]
    places = data.valued
    on = [gains[i] for i in places]
    spread = shape.spread(on)
    found: dict[str, Any] = {
        "coverage": None,
        "spread": {
            "definition": "the longest edge of the front's minimum spanning tree, in spans; evenness is 1 where all edges are equal",
            "points": spread.count,
            "gap": spread.gap,
            "between": None if spread.between is None else [names[places[i]] for i in spread.between],
            "evenness": spread.evenness,
        },
        "knees": None,
    }
    if len(experts) == len(data.ingredients) and len(experts) > 1:
        covers = shape.coverage(on, experts)
        found["coverage"] = {
            "definition": "the share of the experts' range that lies inside the front's range; beyond: how far its best is above the best expert's, in that range",
            "rewards": {
                name: {
                    "share": one.share,
                    "beyond": one.beyond,
                    "share_interval": noise.at(f"share {k}", one.share),
                    "beyond_interval": noise.at(f"beyond {k}", one.beyond),
                }
                for k, (name, one) in enumerate(zip(data.rewards, covers, strict=True))
            },
        }
    if len(data.front) > 2 and len(data.rewards) > 1:
        bends = shape.knees(on)
        height = {bulge.point: bulge.height for bulge in bends.bulges}
        found["knees"] = {
            "definition": bends.how,
            "points": [{"point": names[places[i]], "height": height[i]} for i in bends.knees],
        }
    return found
