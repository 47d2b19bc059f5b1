"""Points by their utility: the best one, how sure that is, and how much too good its score looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rsoup.front.noise import optimism
from rsoup.measured.student import two_sided
from rsoup.select.utility import Worth


@dataclass(frozen=True, slots=True)
class Ranking:
    """`order` are the points with a utility, best first (indices; of equals the first one given).

    `lead` is what the best has over the second, `lead_error` its standard error, `clear` whether it is beyond noise;
    `optimism` is by how much the best one's score is expected to be too good, for the same numbers chose it.
    All of them are None where errors, or a second point, are missing.
    """

    order: tuple[int, ...]
    lead: float | None
    lead_error: float | None
    clear: bool | None
    optimism: float | None


def linear(weights: Sequence[float], gains: Sequence[float], errors: Sequence[float | None]) -> Worth:
    """Σ μₖgₖ and √(Σ μₖ²eₖ²): the utility of a linear preference; errors of rewards without a weight do not count."""
    value = math.fsum(w * g for w, g in zip(weights, gains, strict=True))
    used = [(w, e) for w, e in zip(weights, errors, strict=True) if w != 0]
    known = [(w * e) ** 2 for w, e in used if e is not None]
    return Worth(value, math.sqrt(math.fsum(known)) if len(known) == len(used) else None)


def ranked(worths: Sequence[Worth | None], *, confidence: float = 0.95) -> Ranking:
    """Points in order of utility, those without one (None, or not defined) left out.

    The lead is beyond noise where it exceeds the normal quantile times √(e₁² + e₂²): evaluations count as
    independent, and that the second was chosen for being second is not allowed for.
    """
    known = [(i, w.value, w.error) for i, w in enumerate(worths) if w is not None and w.value is not None]
    known.sort(key=lambda item: -item[1])
    order = tuple(i for i, _, _ in known)
    if len(known) < 2:
        return Ranking(order, None, None, None, None)
    (_, best, e1), (_, second, e2) = known[:2]
    lead = best - second
    if e1 is None or e2 is None:
        return Ranking(order, lead, None, None, None)
    error = math.hypot(e1, e2)
    clear = lead > two_sided(confidence, math.inf) * error if error else lead > 0
    errors = [e for _, _, e in known if e is not None]
    extra = optimism([value for _, value, _ in known], errors) if len(errors) == len(known) else None
    return Ranking(order, lead, error, clear, extra)
