"""Point: one λ of a sweep, exact, with a name for people and folders."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction

from rsoup.mix import format_number

_LONGEST_NAME = 120


@dataclass(frozen=True, slots=True)
class Point:
    """One soup of a sweep: a share per ingredient, a scale η of the distance from the base, a training step.

    `mix` has one exact fraction per ingredient of the sweep, in their order; `scale` means
    θ₀ + η·(soup − θ₀); `step` picks the checkpoints of one training step where the ingredients are series.
    """

    mix: tuple[Fraction, ...]
    scale: Fraction = Fraction(1)
    step: int | None = None

    @property
    def name(self) -> str:
        """`0.3-0.7`, `1_3-2_3`, `step-200_0.5-0.5_scale-0.3`: safe as a folder's name, the same for equal points."""
        name = "-".join(map(_safe, self.mix))
        if self.step is not None:
            name = f"step-{self.step}_{name}"
        if self.scale != 1:
            name = f"{name}_scale-{_safe(self.scale)}"
        if len(name) > _LONGEST_NAME:
            name = f"{name[: _LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        return name

    @property
    def lambda_text(self) -> str:
        """`0.3,0.7`, as `--lambda` takes it."""
        return ",".join(map(format_number, self.mix))


def _safe(value: Fraction) -> str:
    return format_number(value).replace("/", "_").replace("-", "n")
