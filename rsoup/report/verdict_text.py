"""What `rsoup verdict` found, as lines of text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsoup.errors import show
from rsoup.report.lines import entry, fitted, folded

Found = Mapping[str, Any]
_INTERVAL = 5
"""Seeds that an interval is shown of: a bootstrap of fewer cannot leave their range."""


def final(found: Found, width: int | None = None) -> list[str]:
    """Per compared set the curve over M and the verdict, then connectivity; nothing wider than `width` columns."""
    count = len(found["seeds"])
    step = "" if found["step"] is None else f"step {found['step']}, "
    head = f"{count} seed{'' if count == 1 else 's'}, {step}soups of {found['trainings']:g} trainings; {found['normalisation']['definition']}"
    lines = fitted(head, width, 2)
    for other in found["compared"]:
        lines += _compared(found, other, width)
    lmc = found["connectivity"]
    counts = " · ".join(f"{verdict} {number}" for verdict, number in lmc["counts"].items())
    worst = "" if lmc["worst_gap"] is None else f"; worst gap {_mean(lmc['worst_gap'])} of the experts' range"
    return [*lines, "", *fitted(entry("connectivity", f"{counts}{worst}"), width)]


def _compared(found: Found, other: Found, width: int | None) -> list[str]:
    expected, volume = other["expected_reward"], other["hypervolume"]
    rows = [_row(row, len(found["seeds"])) for row in other["curve"]]
    name = show(other["name"], 24)
    worth = (
        f"{other['worth']} of {other['points']}"
        if other["worth"]
        else f"fewer than {other['curve'][0]['trainings']}"
    )
    said = [
        entry("expected reward", f"soups {_mean(expected['soups'])} · {name} {_mean(expected['others'])} · best expert {_mean(expected['best_expert'])}"),
        *([] if volume is None else [entry("hypervolume", f"soups {_mean(volume['soups'])} · {name} {_mean(volume['others'])}")]),
        entry("points", f"{other['dominated']} of {name} dominated by a soup, {other['dominates']} dominate one, {other['incomparable'] + other['equal']} neither"),
        entry("verdict", f"{other['verdict'] or 'none of one seed'} (δ = {other['delta']:.4f}: {other['delta_definition']})"),
        entry("worth", _worth(other, worth, name, len(found["seeds"]))),
    ]  # fmt: skip
    return [
        "",
        *fitted(f"soups less M trainings of {name}, {other['chosen']}", width, 2),
        *folded(["M", "soups less M", "interval", "verdict"], rows, kept=1, width=width),
        *(part for line in said for part in fitted(line, width)),
    ]


def _worth(other: Found, worth: str, name: str, seeds: int) -> str:
    if seeds < other["seeds_needed"]:
        return f"not decided: {seeds} seed{'' if seeds == 1 else 's'}, {other['seeds_needed']} are needed"
    return f"{worth} trainings of {name}"


def _row(row: Found, seeds: int) -> list[str]:
    decision = row["decision"]
    shown = decision is not None and seeds >= _INTERVAL
    between = f"{decision['low']:+.4f} to {decision['high']:+.4f}" if shown else "–"
    return [str(row["trainings"]), _mean(row["difference"], sign="+"), between, "–" if decision is None else decision["verdict"]]  # fmt: skip


def _mean(found: Found, sign: str = "") -> str:
    """`0.812 ± 0.004`: the mean and its standard error over the seeds."""
    return f"{found['mean']:{sign}.4f}" + ("" if found["error"] is None else f" ± {found['error']:.4f}")
