"""Singular values of every module → the rank each gets, and the errors that follow. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from rsoup.lora.algebra import numerical_rank, tail

TABLE: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TOLERANCE: Final = 2.0**-24  # relative to the largest singular value: below half a step of float32
TOLERANCE_F64: Final = 2.0**-44


@dataclass(frozen=True, slots=True)
class Ranks:
    """The rank of each module (for each of its experts), the exact ones, and the error that truncation makes.

    `error` is ‖soup − truncated‖/‖soup‖ over all modules, known exactly from the singular values; `worst` are the
    modules with the largest of their own, `table` (rank, error) were every module cut to that rank.
    """

    chosen: Mapping[str, int]
    exact: Mapping[str, int]
    stacked: Mapping[str, int]
    norm: float
    error: float
    worst: tuple[tuple[str, float], ...]
    table: tuple[tuple[int, float], ...]

    @property
    def is_exact(self) -> bool:
        """Whether nothing but numerical noise was cut off."""
        return self.chosen == self.exact


def choose(
    spectra: Mapping[str, Sequence[Sequence[float]]],
    stacked: Mapping[str, int],
    *,
    rank: int | None,
    max_error: str | None,
    tolerance: float = TOLERANCE,
) -> Ranks:
    """The ranks: exact ones; at most `rank` everywhere; or the fewest in total whose error is at most `max_error`.

    `spectra` holds each module's singular values, one list per expert; `stacked` Σrᵢ of each.
    """
    exact = {
        name: min(stacked[name], max(numerical_rank(values, tolerance) for values in lists))
        for name, lists in spectra.items()
    }
    if rank is not None:
        chosen = {name: min(rank, found) for name, found in exact.items()}
    elif max_error is not None:
        chosen = _fewest(spectra, exact, float(Fraction(max_error)))
    else:
        chosen = dict(exact)
    total = math.sqrt(math.fsum(tail(values, 0) ** 2 for lists in spectra.values() for values in lists))
    errors = {name: _module_error(lists, chosen[name]) for name, lists in spectra.items()}
    worst = sorted(((error, name) for name, error in errors.items() if error > TOLERANCE), reverse=True)[:3]
    return Ranks(
        chosen=chosen,
        exact=exact,
        stacked=dict(stacked),
        norm=total,
        error=_error(spectra, chosen, total),
        worst=tuple((name, error) for error, name in worst),
        table=_table(spectra, exact, total),
    )


def _error(spectra: Mapping[str, Sequence[Sequence[float]]], ranks: Mapping[str, int], total: float) -> float:
    lost = math.fsum(tail(values, ranks[name]) ** 2 for name, lists in spectra.items() for values in lists)
    return math.sqrt(lost) / total if total else 0.0


def _module_error(lists: Sequence[Sequence[float]], rank: int) -> float:
    norm = math.sqrt(math.fsum(tail(values, 0) ** 2 for values in lists))
    return math.sqrt(math.fsum(tail(values, rank) ** 2 for values in lists)) / norm if norm else 0.0


def _table(
    spectra: Mapping[str, Sequence[Sequence[float]]], exact: Mapping[str, int], total: float
) -> tuple[tuple[int, float], ...]:
    highest = max(exact.values(), default=0)
    rows = [r for r in TABLE if r < highest]
    found = [(r, _error(spectra, {n: min(r, e) for n, e in exact.items()}, total)) for r in rows[-6:]]
    return (*found, (highest, _error(spectra, exact, total)))


def _fewest(
    spectra: Mapping[str, Sequence[Sequence[float]]], exact: Mapping[str, int], max_error: float
) -> dict[str, int]:
    """Give up the smallest singular values of all modules while the error stays within `max_error`.

    All experts of a module lose a rank together. At least one is left everywhere.
    """
    steps = []
    total = 0.0
    for name, lists in spectra.items():
        total += math.fsum(tail(values, 0) ** 2 for values in lists)
        for k in range(exact[name]):
            steps.append((math.fsum(v[k] ** 2 for v in lists if k < len(v)), -k, name))
    allowed = total * max_error**2
    lost = math.fsum(tail(values, exact[name]) ** 2 for name, lists in spectra.items() for values in lists)
    chosen = dict(exact)
    for square, k, name in sorted(steps):
        if lost + square > allowed:
            break
        if chosen[name] == -k + 1 and chosen[name] > 1:
            chosen[name] -= 1
            lost += square
    return chosen
