"""Wording: Markdown tables, means with their standard errors, verdicts in words, the verdicts that the index collects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from evidence import Against

from rsoup.front.decision import Decision

VERDICTS = "verdicts.json"
LEAST = 5
"""Seeds that an interval is shown of."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is to the left, the others to the right."""
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def mean(values: Sequence[float], digits: int = 3, *, sign: bool = False) -> str:
    """`0.812 ± 0.004`: the mean and its standard error over the seeds; the mean alone for one seed."""
    form = f"{'+' if sign else ''}.{digits}f"
    shown = format(fmean(values), form).replace("-", "−")
    return shown if len(values) < 2 else f"{shown} ± {stdev(values) / len(values) ** 0.5:.{digits}f}"


def kept(values: Sequence[float]) -> str:
    """The mean over the seeds in which soups gain anything that a rule could keep (`evidence.NEGLIGIBLE`), and how many."""
    found = [value for value in values if isfinite(value)]
    if not found:
        return "–"
    return mean(found) + ("" if len(found) == len(values) else f" ({count(len(found), len(values))})")


def signed(value: float, digits: int = 3) -> str:
    """`+0.012`, `−0.003`."""
    return f"{value:+.{digits}f}".replace("-", "−")


def interval(decision: Decision | None) -> str:
    """`−0.012 to +0.003`; none of fewer than five seeds, whose bootstrap cannot leave their range."""
    return (
        "–"
        if decision is None or decision.seeds < LEAST
        else f"{signed(decision.low)} to {signed(decision.high)}"
    )


def verdict(decision: Decision | None) -> str:
    """`**match**`, `**worse**`, or that there were too few seeds."""
    if decision is None:
        return "one seed"
    return f"{decision.verdict} (only {decision.seeds} seeds)" if decision.few else f"**{decision.verdict}**"


def difference(found: Against) -> str:
    """`+0.012 ± 0.003 (+0.006 to +0.018) **better**`."""
    said = mean(found.differences, sign=True)
    if found.decision is None:
        return said
    between = "" if found.decision.seeds < LEAST else f" ({interval(found.decision)})"
    return f"{said}{between} {verdict(found.decision)}"


def count(number: int, of: int) -> str:
    """`19/20`."""
    return f"{number}/{of}"


def write_verdicts(folder: Path, title: str, page: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write verdicts.json, which the index of all experiments is made of.

    Each line: {"setting": "25 steps", "seeds": 20, "against": "11 trainings", "lmc": "20/20 PASS",
    "difference": "−0.003 ± 0.002", "interval": "…", "verdict": "match", "worth": "11"}; all texts but the seeds.
    """
    text = json.dumps({"title": title, "page": page, "lines": list(lines)}, ensure_ascii=False, indent=1)
    (folder / VERDICTS).write_text(text + "\n", encoding="utf-8")
