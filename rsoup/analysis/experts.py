"""What the experts alone say: transfer between rewards, similarity, and the λ that theory gives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rsoup.analysis.compared import Other
from rsoup.analysis.data import Data, lambda_of
from rsoup.analysis.owning import assigned, owners
from rsoup.front import parabola, theory
from rsoup.front.share_interval import Noisy, share_interval
from rsoup.front.transfer import Transfer, transfer

Found = Mapping[str, Any]
_PREFERENCES = (0.25, 0.5, 0.75)
_TRIED = tuple(i / 20 for i in range(1, 20))


def experts(
    data: Data,
    given: Mapping[str, str] | None = None,
    *,
    base: int | None = None,
    distances: Sequence[Sequence[float]] | None = None,
    others: Sequence[Other] = (),
    confidence: float = 0.95,
) -> Found:
    """`transfer`, `theory` as sections; None for what the measured points do not allow.

    `base` is the index of the base's point, `distances[i][j]` = ‖θᵢ − θⱼ‖ between the ingredients, `confidence` that
    of the intervals of λ.
    """
    found = owners(data, given)
    if found is None:
        return {"transfer": None, "theory": None}
    rows = [i for i in data.experts if i is not None]
    matrix = transfer(
        [data.values[i] for i in rows],
        data.maximise,
        found,
        base=None if base is None else data.values[base],
        errors=[data.errors[i] for i in rows],
        base_errors=None if base is None else data.errors[base],
    )
    return {
        "transfer": _transfer(data, matrix, base),
        "theory": _theory(data, given, distances, others, confidence),
    }


def _transfer(data: Data, matrix: Transfer, base: int | None) -> Found:
    names, rewards = data.ingredients, data.rewards
    pairs = [
        {
            "rewards": [rewards[k] for k in one.rewards],
            "similarity": one.similarity,
            "error": one.error,
            "antagonistic": one.antagonistic,
            "beyond_noise": one.clear,
        }
        for one in matrix.kinships
    ]
    return {
        "definition": f"{matrix.how}; similarity = ½(gain of one's expert in the other + the reverse): above 0 they help each other, below 0 they are in conflict",
        "experts": {
            reward: None if i is None else names[i] for reward, i in zip(rewards, matrix.owners.of, strict=True)
        },
        "experts_how": matrix.owners.how,
        "base": None if base is None else data.names[base],
        "values": {name: dict(zip(rewards, row, strict=True)) for name, row in zip(names, matrix.values, strict=True)},
        "base_values": None if matrix.base is None else dict(zip(rewards, matrix.base, strict=True)),
        "gains": {name: dict(zip(rewards, row, strict=True)) for name, row in zip(names, matrix.gains, strict=True)},
        "gain_errors": {
            name: dict(zip(rewards, row, strict=True)) for name, row in zip(names, matrix.errors, strict=True)
        },
        "pairs": pairs,
        "antagonistic": [pair["rewards"] for pair in pairs if pair["antagonistic"]],
        "undefined": {rewards[k]: why for k, why in matrix.undefined.items()},
        "unsure": [rewards[k] for k in matrix.unsure],
    }  # fmt: skip


def _theory(
    data: Data,
    given: Mapping[str, str] | None,
    distances: Sequence[Sequence[float]] | None,
    others: Sequence[Other],
    confidence: float,
) -> Found | None:
    """Lemma 1 for any number of experts, Lemma 3 for two; None where experts and rewards are not one to one."""
    order = assigned(data, given)
    if order is None:
        return None
    rows = [data.experts[i] or 0 for i in order]
    values = [data.values[i] for i in rows]
    apart = None if distances is None else [[distances[i][j] for j in order] for i in order]
    bends = theory.curvatures(values, data.maximise, apart)
    even = [1.0] * len(order)
    names = [data.ingredients[i] for i in order]
    mix = theory.isotropic_mix(bends.values, even) if min(bends.values) > 0 else None
    noisy = _noisy(data, rows, bends.values, apart)
    return {
        "unit": "the rewards' own units",
        "isotropic": {
            "definition": "λᵢ = μ̂ᵢηᵢ/Σμ̂ⱼηⱼ is the best λ if every reward falls with the squared distance from its expert (Lemma 1)",
            "eta": dict(zip(names, bends.values, strict=True)),
            "eta_how": bends.how,
            "lambda_for_equal_preferences": None if mix is None else dict(zip(names, mix, strict=True)),
            "interval": None if mix is None else _interval(noisy, even, names, confidence),
        },
        "two_experts": _two(data, order, rows, others, (noisy, confidence)) if len(order) == 2 else None,
    }


def _noisy(
    data: Data, rows: Sequence[int], values: Sequence[float], apart: Sequence[Sequence[float]] | None
) -> list[Noisy] | None:
    """Every ηᵢ with its variance; None where a standard error of an expert is not known.

    ηᵢ is a mean over j ≠ i of differences, so that its own expert's value takes part in each of them.
    """
    if any(error is None for i in rows for error in data.errors[i]):
        return None
    count, found = len(rows), []
    for k, value in enumerate(values):
        weights = [0.0 if j == k else 1 / (count - 1) / (1.0 if apart is None else apart[k][j] ** 2) for j in range(count)]  # fmt: skip
        weights[k] = sum(weights)
        parts = [
            ((weight * (data.errors[i][k] or 0.0)) ** 2, math.inf if (n := data.repeats[i][k]) is None or n < 2 else n - 1.0)
            for weight, i in zip(weights, rows, strict=True)
        ]  # fmt: skip
        found.append(Noisy(value, parts))
    return found


def _interval(
    noisy: Sequence[Noisy] | None, preference: Sequence[float], names: Sequence[str], confidence: float
) -> Found | None:
    """The interval of each λᵢ = μᵢηᵢ/Σμⱼηⱼ (Fieller); None without errors."""
    if noisy is None:
        return None
    weighted = [
        Noisy(w * one.value, [(w * w * v, nu) for v, nu in one.parts])
        for w, one in zip(preference, noisy, strict=True)
    ]
    found: dict[str, Any] = {"confidence": confidence}
    for i, name in enumerate(names):
        rest = [one for j, one in enumerate(weighted) if j != i]
        both = Noisy(math.fsum(o.value for o in rest), [part for o in rest for part in o.parts])
        low, high = share_interval(weighted[i], both, confidence=confidence)
        found.setdefault("low", {})[name], found.setdefault("high", {})[name] = low, high
    return found


def _two(
    data: Data,
    order: tuple[int, ...],
    rows: Sequence[int],
    others: Sequence[Other],
    noise: tuple[Sequence[Noisy] | None, float],
) -> Found:
    one, two = (data.values[i] for i in rows)
    delta = theory.deltas(one, two, data.maximise)
    names = [data.ingredients[i] for i in order]
    found: dict[str, Any] = {
        "delta": dict(zip(data.rewards, delta, strict=True)),
        "definition": "Δ: by how much a reward's own expert is better at it than the other; λ* = μ̂Δ₂/((1−μ̂)Δ₁+μ̂Δ₂) is the share of the second expert (Lemma 3)",
    }
    if (why := theory.unsuited(delta)) is not None:
        return found | {"why_not": why}
    ratio = theory.smallest_m(delta, _losses(data, others))
    soups = [
        (i, mix) for i, row in enumerate(data.rows) if (mix := lambda_of(row)) is not None and max(mix) < 1
    ]
    found["choices"] = [
        _choice(delta, share, names, ratio.value)
        | {"interval": _interval(noise[0], (1 - share, share), names, noise[1])}
        for share in _PREFERENCES
    ]
    found["smallest_m"] = {"value": ratio.value, "from_experts": ratio.from_experts, "why_not": ratio.why}
    if soups:
        both = parabola.misses(
            [tuple(float(mix[k]) for k in order) for _, mix in soups],
            [data.values[i] for i, _ in soups],
            (one, two),
        )
        found["parabola"] = {
            "definition": "measured less the parabola Rₖ(own expert) − (1 − λₖ)²Δₖ that both experts alone predict; 0 if each is at the optimum of a quadratic reward",
            "rewards": {
                name: {
                    "largest": miss.largest,
                    "rms": miss.rms,
                    "of_range": miss.rms / miss.span if miss.span else None,
                }
                for name, miss in zip(data.rewards, both, strict=True)
            },
        }
    return found


def _losses(data: Data, others: Sequence[Other]) -> list[tuple[tuple[float, float], float]]:
    """What the soups lack to the best of the other models, in utility of raw rewards, for a few preferences."""
    soups = [data.values[i] for i, row in enumerate(data.rows) if lambda_of(row) is not None]
    return [
        ((1 - mu, mu), theory.loss_against((1 - mu, mu), better, soups, data.maximise))
        for other in others
        for better in other.values
        for mu in _TRIED
    ]


def _choice(
    delta: tuple[float, float], share: float, names: Sequence[str], m: float | None
) -> dict[str, Any]:
    choice = theory.choose(delta, (1 - share, share))
    bound = None if m is None else theory.near_optimality(delta, (1 - share, share), m)
    return {
        "preference": [1 - share, share],
        "lambda": dict(zip(names, choice.mix, strict=True)),
        "gain_over_experts": choice.gain,
        "loss_of_lambda_as_preference": choice.regret,
        "share_kept": choice.kept,
        "bound": None if bound is None else bound.value,
    }
