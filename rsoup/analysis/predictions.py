"""What a quadratic through the measured points suggests: never a measurement, and never among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsoup.analysis.data import Data, lambda_of
from rsoup.front.adequacy import lack_of_fit, undetermined
from rsoup.front.predicted import predicted_front
from rsoup.front.refine import propose
from rsoup.front.surrogate import Surrogate, fit
from rsoup.mix import format_number

Found = Mapping[str, Any]
_MOST_INGREDIENTS = 8  # faces of the simplex are enumerated
_MOST_POINTS = 500
_PROPOSED = 3


def predictions(data: Data) -> Found | None:
    """The surrogate, its errors, the predicted front and the λ to measure next; None without λ on the simplex."""
    rows = {mix: i for i, row in reversed(list(enumerate(data.rows))) if (mix := lambda_of(row)) is not None}
    count = len(next(iter(rows))) if rows else 0
    if not 2 <= count <= _MOST_INGREDIENTS or len(rows) > _MOST_POINTS:
        return None
    mixes = sorted(rows, reverse=True)
    values = [data.values[rows[mix]] for mix in mixes]
    errors = [data.errors[rows[mix]] for mix in mixes]
    found = fit(mixes, values, errors)
    about: dict[str, Any] = {
        "kind": "predicted",
        "definition": "R̂(λ) = Σ βᵢλᵢ + Σ βᵢⱼλᵢλⱼ by least squares, weighted by 1/error² where all errors are known (Scheffé)",
        "points": len(mixes),
        "coefficients": count * (count + 1) // 2,
        "determined": found is not None,
    }
    if found is None:
        why = undetermined(mixes)
        return about | {
            "why": None if why is None else why.why,
            "measure": [] if why is None else [list(map(format_number, mix)) for mix in why.needed],
        }
    names = data.ingredients or tuple(str(i + 1) for i in range(count))
    lack = lack_of_fit(mixes, values, errors)
    chosen = propose(mixes, values, data.maximise, _PROPOSED, errors=errors)
    return about | {
        "rewards": {name: _reward(found, k, names, data) for k, name in enumerate(data.rewards)},
        "centroid": None
        if lack is None
        else {
            "definition": "measured − predicted at λᵢ = 1/N, by a fit to all other points",
            "rewards": {
                name: {"measured": lack.measured[k], "predicted": lack.predicted[k], "miss": lack.miss[k], "error": lack.error[k]}
                for k, name in enumerate(data.rewards)
            },
        },
        "predicted_front": [
            {
                "lambda": list(map(format_number, point.mix)),
                "rewards": dict(zip(data.rewards, point.values, strict=True)),
                "errors": dict(zip(data.rewards, point.errors, strict=True)),
            }
            for point in predicted_front(found, data.maximise, denominator=100)
        ],
        "measure_next": [
            {
                "lambda": list(map(format_number, mix)),
                "rewards": dict(zip(data.rewards, found.predict(mix), strict=True)),
                "errors": dict(zip(data.rewards, found.predicted_errors(mix), strict=True)),
            }
            for mix in chosen
        ],
    }  # fmt: skip


def _reward(found: Surrogate, number: int, names: tuple[str, ...], data: Data) -> Found:
    column = [point[number] for point in data.values]
    span = max(column) - min(column)
    errors = found.coefficient_errors()[number]
    linear = len(found.linear[number])
    miss = found.leave_one_out[number]
    return {
        "alone": _terms(names, found.linear[number], errors, 0),
        "together": _terms(
            [f"{names[i]}·{names[j]}" for i, j in found.pairs], found.mixed[number], errors, linear
        ),
        "errors_from": found.errors_from[number],
        "residual": found.residual[number],
        "leave_one_out": miss,
        "leave_one_out_of_range": None if miss is None or span == 0 else miss / span,
    }


def _terms(names: Any, values: tuple[float, ...], errors: Any, start: int) -> Found:
    return {
        name: {"value": value, "error": None if errors is None else errors[start + i]}
        for i, (name, value) in enumerate(zip(names, values, strict=True))
    }
