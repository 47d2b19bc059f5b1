"""What the two experts' own evaluations say about every soup of them: λ*, the loss left, the whole front.

The assumptions are the paper's: each reward is a quadratic around its expert. All preferences and all λ are tuples
in the order of the experts, (weight of reward 1, weight of reward 2) and (share of expert 1, share of expert 2):
the paper's μ̂ and λ are the second of each. Expert i was trained on reward i.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Pair = tuple[float, float]
Values = Sequence[float]
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Choice:
    """The λ that two evaluations give for a linear preference, and what λ = μ̂ loses against it.

    `gain` is what the soup at `mix` has over the better of the two experts, `regret` what the soup at λ = μ̂ has
    less than it, both in the preference's utility (1−μ)R₁ + μR₂; `kept` is 1 − regret/gain, None where there is
    no gain. Predictions under Lemma 3's assumptions, not measurements.
    """

    preference: Pair
    mix: Pair
    gain: float
    regret: float
    kept: float | None


@dataclass(frozen=True, slots=True)
class Bound:
    """The most utility that the best soup can lack (Lemma 3); `value` is None where it does not hold, and `why`."""

    value: float | None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Ratio:
    """The smallest M that explains what was measured; None where no M does, and `why`.

    `from_experts` is max(Δ₁/Δ₂, Δ₂/Δ₁), `from_losses` the M at which the bound equals each measured loss, in their
    order: None for one that is above the bound for every M.
    """

    value: float | None
    from_experts: float
    from_losses: tuple[float | None, ...]
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Curvatures:
    """Lemma 1's ηᵢ per expert (reward units, or reward units per squared distance); `how` says which."""

    values: tuple[float, ...]
    how: str


def deltas(expert_1: Values, expert_2: Values, maximise: Sequence[bool]) -> Pair:
    """(Δ₁, Δ₂): by how much expert 1 is better than 2 in reward 1, and expert 2 better than 1 in reward 2.

    Reward units; negative where an expert is beaten in its own reward. Raises ValueError unless there are two
    rewards with finite values.
    """
    if not len(expert_1) == len(expert_2) == len(maximise) == 2:
        raise ValueError("the theory of two experts is about two rewards")
    if not all(map(math.isfinite, (*expert_1, *expert_2))):
        raise ValueError("a value is not finite")
    first, second = expert_1[0] - expert_2[0], expert_2[1] - expert_1[1]
    return first if maximise[0] else -first, second if maximise[1] else -second


def unsuited(delta: Pair) -> str | None:
    """Why these (Δ₁, Δ₂) are not those of two experts, in words; None where they are: both above 0."""
    if not all(map(math.isfinite, delta)):
        return "a Δ is not finite"
    beaten = [str(k + 1) for k in (0, 1) if delta[k] < 0]
    if beaten:
        return f"the expert of reward {' and of reward '.join(beaten)} is beaten in its own reward"
    if not any(delta):
        return "the experts are equal in both rewards: every λ is as good"
    equal = [str(k + 1) for k in (0, 1) if delta[k] == 0]
    return f"the experts are equal in reward {equal[0]}" if equal else None


def choose(delta: Pair, preference: Pair) -> Choice:
    """λ* = μΔ₂/((1−μ)Δ₁ + μΔ₂), the share of expert 2; regret of λ = μ̂: ((1−μ)Δ₁ + μΔ₂)(μ − λ*)².

    `delta` from `deltas`, `preference` any two weights, scaled to sum 1. λ* = μ̂ exactly where Δ₁ = Δ₂: so in
    rewards that are divided by the experts' ranges, both rules are one. Raises ValueError for Δ that are
    `unsuited`, and weights that are negative or both 0.
    Source: in Lemma 3's setting the optimum of eigendirection j is μbⱼ/((1−μ)aⱼ+μbⱼ), Δ₁ = Σaⱼ, Δ₂ = Σbⱼ; one λ
    has to serve all of them.
    """
    width, mu = _width(delta, preference)
    share = mu * delta[1] / width
    gain = width * min(share, 1 - share) ** 2
    regret = width * (mu - share) ** 2
    return Choice((1 - mu, mu), (1 - share, share), gain, regret, 1 - regret / gain if gain > 0 else None)


def _width(delta: Pair, preference: Pair) -> tuple[float, float]:
    """((1−μ)Δ₁ + μΔ₂, μ)."""
    why = unsuited(delta)
    if why is not None:
        raise ValueError(why)
    if not all(math.isfinite(w) and w >= 0 for w in preference) or not 0 < sum(preference) < math.inf:
        raise ValueError("a preference is two weights, none negative and not both 0")
    mu = preference[1] / sum(preference)
    return (1 - mu) * delta[0] + mu * delta[1], mu


def near_optimality(delta: Pair, preference: Pair, m: float) -> Bound:
    """ΔR ≤ μ²(1−μ)²(MΔ₁−Δ₂)(MΔ₂−Δ₁) / [(μ(1−μ)(M−1)²+M)((1−μ)Δ₁+μΔ₂)], if 1/M ≤ Δ₂/Δ₁ ≤ M.

    What the soup at λ* at most lacks to the best weights there are, in the preference's utility, if the rewards'
    Hessians have the same eigenvectors and eigenvalues whose ratios are within [1/M, M]; the spectrum with the two
    ratios M and 1/M attains it. `m` may be ∞: μ(1−μ)Δ₁Δ₂/((1−μ)Δ₁+μΔ₂), whatever the eigenvalues. Without value
    where Δ are `unsuited`, or Δ₂/Δ₁ is outside. Raises ValueError for M below 1 and for weights like `choose`.
    Source: Ramé et al. 2023, Lemma 3.
    """
    if not m >= 1:
        raise ValueError("M is a ratio of eigenvalues, at least 1")
    why = unsuited(delta)
    if why is not None:
        return Bound(None, why)
    width, mu = _width(delta, preference)
    least = _least(delta)
    if m < least * (1 - _ROUNDING):
        return Bound(None, f"Δ₂/Δ₁ = {delta[1] / delta[0]:.6g} needs M ≥ {least:.6g}, and M = {m:.6g}")
    p = mu * (1 - mu)
    if p == 0:
        return Bound(0.0)
    above = max(0.0, delta[0] - delta[1] / m) * max(0.0, delta[1] - delta[0] / m)
    return Bound(p * p * above / ((p * (1 - 1 / m) ** 2 + 1 / m) * width))


def _least(delta: Pair) -> float:
    return max(delta[0] / delta[1], delta[1] / delta[0])


def smallest_m(delta: Pair, losses: Sequence[tuple[Pair, float]] = ()) -> Ratio:
    """The smallest M with 1/M ≤ Δ₂/Δ₁ ≤ M whose bound is at least every measured loss.

    `losses` are (preference, loss): how much utility the best soup lacks to a model known to be better, as of
    `loss_against`; those of at most 0 ask for nothing. With K = loss·((1−μ)Δ₁+μΔ₂), p = μ(1−μ), A = p²Δ₁Δ₂ − pK
    and B = p²(Δ₁²+Δ₂²) + (1−2p)K, the bound is the loss where M + 1/M = B/A; where A ≤ 0 it never is.
    The soups alone tell no more than Δ₂/Δ₁: between two experts at their optimum every M draws the same curve
    (`parabola.between`), so neither its middle nor the whole of it bounds M; only a model beside the segment can
    show what is lost. The true M may be larger than this one.
    Raises ValueError for Δ that are `unsuited`, losses that are not finite, and weights like `choose`.
    """
    why = unsuited(delta)
    if why is not None:
        raise ValueError(why)
    least = _least(delta)
    needed: list[float | None] = []
    for preference, loss in losses:
        if not math.isfinite(loss):
            raise ValueError("a loss is not finite")
        width, mu = _width(delta, preference)
        needed.append(_m_for(delta, mu * (1 - mu), loss * width) if loss > 0 else least)
    if None in needed:
        return Ratio(
            None,
            least,
            tuple(needed),
            "a loss is larger than any M allows: the rewards are no quadratics around their experts that share"
            " their eigenvectors (or chance chose the better model)",
        )
    return Ratio(max([least, *(m for m in needed if m is not None)]), least, tuple(needed))


def _m_for(delta: Pair, p: float, k: float) -> float | None:
    first, second = delta
    a = p * p * first * second - p * k
    b = p * p * (first * first + second * second) + (1 - 2 * p) * k
    if a <= 0:
        return None
    half = b / a / 2
    return max(half + math.sqrt(max(0.0, half * half - 1)), _least(delta))


def loss_against(
    preference: Pair, better: Values, soups: Sequence[Values], maximise: Sequence[bool]
) -> float:
    """u(better) − max u(soup), u = the weighted sum of both rewards: what no measured soup reaches, in utility.

    Negative where a soup is better. Raises ValueError without soups, for values that are not finite and for
    weights like `choose`.
    """
    _, mu = _width((1.0, 1.0), preference)
    if not soups or not all(math.isfinite(v) for row in (better, *soups) for v in row):
        raise ValueError("there must be soups, and every value must be finite")
    weights = [w if up else -w for w, up in zip((1 - mu, mu), maximise, strict=True)]

    def utility(row: Values) -> float:
        return math.fsum(w * v for w, v in zip(weights, row, strict=True))

    return utility(better) - max(map(utility, soups))


def curvatures(
    values: Sequence[Values], maximise: Sequence[bool], distances: Sequence[Values] | None = None
) -> Curvatures:
    """Lemma 1's ηᵢ: the mean over j ≠ i of (Rᵢ(θᵢ) − Rᵢ(θⱼ))/‖θᵢ − θⱼ‖², from the experts' own evaluations.

    `values[i][k]` is reward k of expert i, expert i that of reward i; `distances[i][j]` = ‖θᵢ − θⱼ‖, in any unit,
    without them all are taken to be equal (and 1). Raises ValueError for fewer than two experts, matrices that are
    not square, values that are not finite, and distances that are not above 0.
    """
    count = len(maximise)
    for matrix in (values, distances or values):
        if count < 2 or len(matrix) != count or any(len(row) != count for row in matrix):
            raise ValueError("Lemma 1 is about N experts of N rewards, N at least 2: the matrices are N × N")
    found = []
    for i, up in enumerate(maximise):
        slopes = []
        for j in range(count):
            if j != i:
                away = 1.0 if distances is None else float(distances[i][j])
                if not 0 < away < math.inf:
                    raise ValueError("a distance between two experts is a number above 0")
                slopes.append((values[i][i] - values[j][i]) * (1 if up else -1) / away**2)
        found.append(math.fsum(slopes) / len(slopes))
    if not all(map(math.isfinite, found)):
        raise ValueError("a value is not finite")
    return Curvatures(tuple(found), "equal distances assumed" if distances is None else "measured distances")


def isotropic_mix(etas: Sequence[float], preference: Sequence[float]) -> tuple[float, ...]:
    """λᵢ = μᵢηᵢ/Σⱼμⱼηⱼ: the best of all weights, for any number of experts, if Rᵢ = Rᵢ(θᵢ) − ηᵢ‖θ − θᵢ‖².

    Raises ValueError unless there is a weight per η, none negative and not all 0, and no η of a wanted reward is
    0 or below (its expert is then no better in it than the others).
    Source: Ramé et al. 2023, Lemma 1; for two experts at one distance it is `choose`.
    """
    if len(etas) != len(preference) or not all(math.isfinite(w) and w >= 0 for w in preference):
        raise ValueError("a preference is a weight per expert, none negative")
    if not any(preference):
        raise ValueError("all weights of the preference are 0")
    beaten = [
        str(i + 1) for i, (eta, w) in enumerate(zip(etas, preference, strict=True)) if w and not eta > 0
    ]
    if beaten:
        raise ValueError(f"in reward {', '.join(beaten)} its own expert is not better than the others")
    shares = [w * eta if w else 0.0 for eta, w in zip(etas, preference, strict=True)]
    return tuple(share / math.fsum(shares) for share in shares)
