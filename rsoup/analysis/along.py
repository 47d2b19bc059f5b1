"""Fronts along training: the same figures for every training step, counted from one reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rsoup.analysis.connected import connected
from rsoup.analysis.data import Data, data_of, steps_of
from rsoup.errors import UsageError
from rsoup.front.expected import expected_reward
from rsoup.front.pareto import covered
from rsoup.measured.values import Table

Found = Mapping[str, Any]


def along(table: Table, data: Data, *, tolerance: float, confidence: float) -> list[Found]:
    """Per training step: the front, hypervolume, expected reward, the worst gap to the chord; empty for one step.

    All of them are counted from the reference of `data`, so that they compare.
    """
    steps = steps_of(table)
    if len(steps) < 2:
        return []
    found: list[Found] = []
    for step in steps:
        if step is None:
            continue
        try:
            mine = replace(data_of(table, step=step, split=data.split), reference=data.reference)
        except UsageError:  # no point of this step has every reward
            continue
        lmc = connected(mine, tolerance=tolerance, confidence=confidence)
        volume = (
            covered([mine.values[i] for i in mine.valued], mine.maximise, mine.reference).value
            if len(mine.rewards) > 1
            else None
        )
        found.append(
            {
                "step": step,
                "points": len(mine.rows),
                "front": [mine.names[i] for i in mine.front],
                "hypervolume": volume,
                "expected_reward": expected_reward([mine.gains[i] for i in mine.valued]).value,
                "connectivity": None if lmc is None else lmc["verdict"],
                "worst_gap": None if lmc is None else _worst(lmc),
                "distances": dict(table.distances.get(step, {})) or None,
            }
        )
    return found


def _worst(lmc: Found) -> float | None:
    """The lowest gap of any reward, in its experts' range."""
    gaps = [about["worst"] for about in lmc["rewards"].values()]
    return min((gap["of_range"] for gap in gaps if gap and gap["of_range"] is not None), default=None)
