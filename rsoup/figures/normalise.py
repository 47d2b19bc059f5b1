"""How the metrics of a spider map are brought to one scale, and how that is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from rsoup.figures.series import Axis, Model, finite

Over = Literal["shown", "base"]

MOST: Final = 8
FEWEST_AXES: Final = 3
MOST_AXES: Final = 8
INNER: Final = (
    0.25  # the inner ring's share of the radius: areas that shrink to the centre itself say nothing
)
LEAST: Final = -INNER / (1 - INNER)  # the normalised value at the centre


@dataclass(frozen=True, slots=True)
class Span:
    """One metric's scale: `zero` lies at 0, half the way from it to 1 is `half`; `alone` where 1 has no value.

    `half` is 0 where nothing differs; then everything lies at `level`.
    """

    zero: float
    half: float
    alone: bool = False
    level: float = 1.0

    def at(self, value: float) -> float:
        """The normalised value, from −⅓ (the centre) to 1."""
        if not self.half:
            return self.level
        return min(1.0, max(LEAST, (value / 2 - self.zero / 2) / self.half))

    @property
    def ends(self) -> tuple[float, ...]:
        """The values at 0 and at 1, or the one there is."""
        return (self.zero,) if self.alone or not self.half else (self.zero, self.zero + 2 * self.half)


def normalised(models: Sequence[Model], axes: Sequence[Axis], over: Over = "shown") -> list[Span]:
    """The scale of every axis.

    `shown`: the worst of the models at 0, the best at 1. `base`: the base at 0, the best at 1; where none is
    better than the base, the worst at the centre. Raises ValueError for fewer than 3 or more than 8 axes, no or
    more than 8 models, a number that is not finite, and for `base` without exactly one base.
    """
    if not FEWEST_AXES <= len(axes) <= MOST_AXES:
        raise ValueError(f"a spider has {FEWEST_AXES} to {MOST_AXES} axes, not {len(axes)}")
    if not 1 <= len(models) <= MOST:
        raise ValueError(f"a spider shows 1 to {MOST} models, not {len(models)}")
    if any(len(model.values) != len(axes) for model in models):
        raise ValueError("a model has not one value per axis")
    finite(value for model in models for value in model.values)
    bases = [model for model in models if model.kind == "base"]
    if over == "base" and len(bases) != 1:
        raise ValueError("there is not exactly one base to count from")
    spans = []
    for index, axis in enumerate(axes):
        values = sorted((model.values[index] for model in models), reverse=not axis.maximise)
        zero = bases[0].values[index] if over == "base" else values[0]
        spans.append(_span(zero, values[0], values[-1], over))
    return spans


def _span(zero: float, worst: float, best: float, over: Over) -> Span:
    half = best / 2 - zero / 2
    if half or over == "shown":
        return Span(zero, half)
    return Span(zero, (worst / 2 - zero / 2) / LEAST, alone=True, level=0.0)


def said(spans: Sequence[Span], over: Over) -> list[str]:
    """How the axes are normalised, in sentences."""
    lines = ["Every axis is normalised on its own:"]
    if over == "base":
        lines.append(
            "the base lies on the inner ring, the best of the models on the outer one, "
            "and what is worse than the base inside, at the centre at the latest."
        )
        if any(span.alone for span in spans):
            lines.append(
                "An axis with one number has no model better than the base: its worst lies at the centre."
            )
    else:
        lines.append("the worst of the models lies on the inner ring and the best on the outer one.")
        if not all(span.half for span in spans):
            lines.append("On an axis with one number all models are equal.")
    return lines
