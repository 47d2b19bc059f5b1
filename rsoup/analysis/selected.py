"""Which λ to ship: for a preference, for comparisons, or for any utility; by rule, by theory, and by measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

from rsoup.analysis.data import Data, lambda_of
from rsoup.analysis.owning import assigned
from rsoup.errors import UsageError, show
from rsoup.front import theory
from rsoup.front.predicted import maximiser, rounded
from rsoup.front.surrogate import fit
from rsoup.gate.requirements import Require
from rsoup.mix import format_number
from rsoup.select.ranking import Ranking, linear, ranked
from rsoup.select.utility import Utility, Worth, unmet, worth

Found = Mapping[str, Any]
RULES: Final = ("measured", "lambda", "theory", "predicted")
_MOST_INGREDIENTS = 8


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user wants: `weights` (μ̂ per reward, in spans) or a `utility` over raw rewards; and `constraints`.

    `exact` are the weights as they were typed, None where they were learnt.
    """

    weights: tuple[float, ...] | None = None
    exact: tuple[Fraction, ...] | None = None
    utility: Utility | None = None
    constraints: tuple[Require, ...] = ()
    assignment: Mapping[str, str] | None = None
    confidence: float = 0.95


@dataclass(frozen=True, slots=True)
class Candidate:
    """A λ that a rule proposes; `point` is its measured point's index, None where it was not measured.

    `predicted` are rewards by the surrogate, where the rule is about them. `why_not` tells why a rule proposes nothing.
    """

    rule: str
    definition: str
    mix: tuple[Fraction, ...] | None = None
    point: int | None = None
    predicted: tuple[float, ...] | None = None
    why_not: str | None = None


@dataclass(frozen=True, slots=True)
class Selected:
    """All candidates, the ranking of the measured points, and what is worth saying."""

    candidates: tuple[Candidate, ...]
    worths: tuple[Worth, ...]
    allowed: tuple[bool, ...]
    ranking: Ranking
    notes: tuple[str, ...] = field(default=())


def selected(data: Data, wish: Wish) -> Selected:
    """The candidates of every rule; the measured one is the point of the largest utility that meets the constraints.

    Chosen by the values of `data`, which are those of the select split unless it was asked for the other. Raises
    UsageError E0271 where no point has a utility and meets the constraints.
    """
    worths = _worths(data, wish)
    allowed = tuple(not unmet(wish.constraints, _measured(data, i)) for i in range(len(data.rows)))
    ranking = ranked(
        [w if ok else None for w, ok in zip(worths, allowed, strict=True)], confidence=wish.confidence
    )
    if not ranking.order:
        raise UsageError(
            "E0271", _nothing(worths, allowed, wish), where=data.shown,
            hint="a weaker --require, or more points: rsoup sweep --refine 5",
        )  # fmt: skip
    best = ranking.order[0]
    found = [Candidate("measured", "the largest utility of all measured points that meet the constraints", data.rows[best].mix, best)]  # fmt: skip
    if wish.weights is not None:
        found += [_identity(data, wish), _theory(data, wish), _predicted(data, wish)]
    return Selected(tuple(found), worths, allowed, ranking, tuple(_notes(data, wish)))


def _measured(data: Data, index: int) -> Mapping[str, Any]:
    row = data.rows[index]
    return row.report if data.split == "report" else row.select


def _worths(data: Data, wish: Wish) -> tuple[Worth, ...]:
    if wish.utility is not None:
        measured = [_measured(data, i) for i in range(len(data.rows))]
        return tuple(
            worth(
                wish.utility,
                {name: score.value for name, score in scores.items()},
                {name: score.error for name, score in scores.items()},
            )
            for scores in measured
        )
    assert wish.weights is not None
    pairs = zip(data.gains, data.relative_errors, strict=True)
    return tuple(linear(wish.weights, gains, errors) for gains, errors in pairs)


def _nothing(worths: Sequence[Worth], allowed: Sequence[bool], wish: Wish) -> str:
    if not any(allowed):
        return f"no measured point meets {' and '.join(show(c.text) for c in wish.constraints)}"
    why = next((w.undefined for w in worths if w.undefined), "it has no value")
    return f"the utility is not defined at any point that meets the constraints: {show(why)}"


def _at(data: Data, mix: tuple[Fraction, ...]) -> int | None:
    return next((i for i, row in enumerate(data.rows) if lambda_of(row) == mix), None)


def _raw(data: Data, wish: Wish) -> tuple[float, ...]:
    """The weights of the rewards in their own units."""
    assert wish.weights is not None
    return tuple(w / span for w, span in zip(wish.weights, data.reference.spans, strict=True))


def _identity(data: Data, wish: Wish) -> Candidate:
    definition = "λ = μ̂: every expert gets the weight of its own reward"
    order = assigned(data, wish.assignment)
    if order is None:
        return Candidate(
            "lambda", definition, why_not="not every reward has an expert of its own, measured alone"
        )
    assert wish.weights is not None
    exact = wish.exact or rounded(wish.weights)
    mix = tuple(exact[order.index(i)] for i in range(len(order)))
    return Candidate("lambda", definition, mix, _at(data, mix))


def _theory(data: Data, wish: Wish) -> Candidate:
    """Lemma 3 for two experts, Lemma 1 beyond."""
    order = assigned(data, wish.assignment)
    two = order is not None and len(order) == 2
    definition = (
        "λ* = μ̂Δ₂/((1−μ̂)Δ₁+μ̂Δ₂) (Lemma 3)"
        if two
        else "λᵢ = μ̂ᵢηᵢ/Σμ̂ⱼηⱼ, all experts equally far apart (Lemma 1)"
    )
    if order is None:
        return Candidate(
            "theory", definition, why_not="not every reward has an expert of its own, measured alone"
        )
    values = [data.values[data.experts[i] or 0] for i in order]
    weights = _raw(data, wish)
    if two:
        delta = theory.deltas(values[0], values[1], data.maximise)
        if (why := theory.unsuited(delta)) is not None:
            return Candidate("theory", definition, why_not=why)
        shares: Sequence[float] = theory.choose(delta, (weights[0], weights[1])).mix
    else:
        etas = theory.curvatures(values, data.maximise).values
        if any(eta <= 0 for eta, w in zip(etas, weights, strict=True) if w):
            return Candidate(
                "theory", definition, why_not="an expert is no better at its own reward than the others"
            )
        shares = theory.isotropic_mix(etas, weights)
    exact = rounded(shares)
    mix = tuple(exact[order.index(i)] for i in range(len(order)))
    return Candidate("theory", definition, mix, _at(data, mix))


def _predicted(data: Data, wish: Wish) -> Candidate:
    definition = "the largest utility of the quadratic through the measured points; predicted, not measured"
    rows = {mix: i for i, row in reversed(list(enumerate(data.rows))) if (mix := lambda_of(row)) is not None}
    count = len(next(iter(rows))) if rows else 0
    if not 2 <= count <= _MOST_INGREDIENTS:
        return Candidate("predicted", definition, why_not="there are no λ to fit it to")
    surrogate = fit(
        list(rows), [data.values[i] for i in rows.values()], [data.errors[i] for i in rows.values()]
    )
    if surrogate is None:
        return Candidate(
            "predicted",
            definition,
            why_not="the measured λ do not determine it: `rsoup front` tells which are missing",
        )
    point = maximiser(surrogate, _raw(data, wish), data.maximise).point
    return Candidate("predicted", definition, point.mix, _at(data, point.mix), point.values)


def _notes(data: Data, wish: Wish) -> list[str]:
    notes = []
    if wish.weights is not None and "in the rewards' own units" in data.reference.how:
        notes.append("the rewards are in their own units: a preference weighs a reward the more, the larger its numbers are")  # fmt: skip
    if data.split == "report" or not any(row.report for row in data.rows):
        notes.append("the same numbers choose and score: the best of many looks better than it is; `rsoup sweep --report` measures the front again")  # fmt: skip
    return notes


def mix_text(mix: tuple[Fraction, ...]) -> str:
    """`0.3,0.7`, as `--lambda` takes it."""
    return ",".join(map(format_number, mix))
