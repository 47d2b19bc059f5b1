"""Hypothesis 1 on a table's points: soups are at least as good as the chord between their experts, or not."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from rsoup.analysis.data import Data, lambda_of
from rsoup.front.connectivity import Connectivity, Gap, connectivity
from rsoup.measured.values import Measured
from rsoup.mix import format_number

Found = Mapping[str, Any]


def connected(data: Data, *, tolerance: float, confidence: float) -> Found | None:
    """The verdict for rewards and guard metrics; None where no soup's λ is known."""
    rows = [i for i, row in enumerate(data.rows) if lambda_of(row) is not None]
    if not rows or len(data.ingredients) < 2:
        return None
    unique = {lambda_of(data.rows[i]): i for i in reversed(rows)}
    rows = sorted(unique.values())
    mixes = [data.rows[i].mix or () for i in rows]
    found = connectivity(
        mixes,
        [data.values[i] for i in rows],
        data.maximise,
        [data.errors[i] for i in rows],
        [data.repeats[i] for i in rows],
        tolerance=tolerance,
        confidence=confidence,
    )
    names = {lambda_of(data.rows[i]): data.rows[i].name for i in rows}
    guards = {}
    for name, up in zip(data.guards, data.guard_maximise, strict=True):
        one = _guard(data, name, up, tolerance=tolerance, confidence=confidence)
        if one is not None:
            guards[name] = _chord(one, 0, names)
    return {
        "definition": "gap = R(λ) − Σ λᵢR(expert i), above 0 where the soup is better than the chord; PASS: no gap below −tolerance × the experts' range",
        "verdict": found.verdict,
        "tolerance": tolerance,
        "confidence": confidence,
        "points": found.points,
        "left_out": found.left_out,
        "rewards": {name: _chord(found, k, names) for k, name in enumerate(data.rewards)},
        "guards": guards,
    }


def _guard(data: Data, name: str, up: bool, *, tolerance: float, confidence: float) -> Connectivity | None:
    """The verdict on a guard metric, over the points where it was measured."""
    rows: dict[tuple[Fraction, ...], Measured] = {}
    for row in data.rows:
        mix = lambda_of(row)
        score = (row.report if data.split == "report" else row.select).get(name)
        if mix is not None and score is not None:
            rows.setdefault(mix, score)
    if not rows:
        return None
    return connectivity(
        list(rows),
        [[score.value] for score in rows.values()],
        [up],
        [[score.error] for score in rows.values()],
        [[score.repeats] for score in rows.values()],
        tolerance=tolerance,
        confidence=confidence,
    )


def _chord(found: Connectivity, number: int, names: Mapping[Any, str]) -> Found:
    chord = found.rewards[number]
    return {
        "verdict": chord.verdict,
        "worst": None if chord.worst is None else _gap(chord.worst, names),
        "experts_range": chord.span,
        "passes_at": chord.passes_at,
        "errors_known": chord.noisy,
        "gaps": [_gap(gap, names) for gap in chord.gaps],
    }


def _gap(gap: Gap, names: Mapping[Any, str]) -> Found:
    return {
        "point": names.get(gap.mix),
        "lambda": [format_number(share) for share in gap.mix],
        "gap": gap.gap,
        "of_range": gap.relative,
        "error": gap.error,
        "in_errors": gap.deviations,
        "verdict": gap.verdict,
    }
