"""Ranks and errors of adapters in words, as every command shows them."""

from __future__ import annotations

from rsoup.errors import show
from rsoup.lora.ranks import Ranks

_NOISE = 1e-14


def error_text(value: float) -> str:
    """A relative error: three digits, in powers of ten where it is tiny; 0 where float64 itself sees no more."""
    return "0" if value < _NOISE else f"{value:.3f}" if value >= 0.0005 else f"{value:.0e}"


def ranks_text(ranks: Ranks) -> list[str]:
    """Lines on the rank that was chosen, its error, the worst modules, and the error of other ranks."""
    chosen = sorted(set(ranks.chosen.values()))
    shown = f"{chosen[0]}" if len(chosen) == 1 else f"{chosen[0]} to {chosen[-1]}" if chosen else "none"
    how = (
        "exact"
        if ranks.is_exact
        else f"{error_text(ranks.error)} of the soup's norm ‖ΔW‖ {ranks.norm:.4g} is cut off"
    )
    lines = [f"  rank      {shown}, {how} · {len(ranks.chosen)} modules"]
    if len(ranks.table) > 1:
        table = " · ".join(f"{rank} {error_text(error)}" for rank, error in ranks.table)
        lines.append(f"  r: error  {table}")
    if ranks.worst:
        worst = " · ".join(f"{show(name)} {error_text(error)}" for name, error in ranks.worst)
        lines.append(f"  worst     {worst}")
    return lines
