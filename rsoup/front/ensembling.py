"""Lemma 4: the soup's output is the average of its experts' outputs, up to the square of their distance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Ensembling:
    """The soup's outputs f(x, Σλθ) against the ensemble's Σλf(x, θ), over all inputs and outputs.

    `gap` is the root mean square of their difference, `largest` the greatest of one input (Euclidean norm over its
    outputs), `spread` √(Σλᵢ mean (fᵢ − ensemble)²), all in the unit of the outputs; `relative` is gap/spread, None
    where the experts with a share do not differ. `agreement` is the share of inputs to which soup and ensemble give
    the same arg-max (the first of equals). `accuracy` has the shares of inputs where it is the label, for each
    expert, then the ensemble, then the soup; None without labels.
    """

    gap: float
    largest: float
    spread: float
    relative: float | None
    agreement: float
    accuracy: tuple[float, ...] | None
    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True)
class Order:
    """The slope of log gap over log scale: 2 where Lemma 4 holds, 1 where the gap is of first order.

    `error` is the slope's standard error from the residuals, None with two scales.
    """

    slope: float
    error: float | None
    scales: int


def ensembling(
    experts: Sequence[Floats],
    soup: Floats,
    mix: Sequence[float],
    labels: Floats | None = None,
) -> Ensembling:
    """How far the soup's outputs are from the average of the experts', in their unit and in their spread.

    `experts` and `soup` are arrays (…, outputs) of one shape on the same inputs: logits, or whatever a network puts
    out; `mix` the λ, one share per expert, sum 1; `labels` whole numbers below `outputs`, the same leading shape.
    Logits are taken as they are: a constant added to all logits of an input is no gap of the prediction, but is
    one here. Computed in float64. Raises ValueError for shapes that differ, no inputs, values that are not finite,
    shares that do not sum to 1, labels out of range.
    Source: Ramé et al. 2023, Lemma 4: f(x, Σλᵢθᵢ) = Σλᵢf(x, θᵢ) + O(max ‖θᵢ − Σλθ‖²).
    """
    import numpy as np

    shares = [float(share) for share in mix]
    if not experts or len(shares) != len(experts) or not abs(math.fsum(shares) - 1) <= 1e-9:
        raise ValueError("there must be experts, a share for each, and the shares must sum to 1")
    if soup.ndim < 1 or not soup.size or any(array.shape != soup.shape for array in experts):
        raise ValueError("all outputs must have one shape, (…, outputs), and there must be some")
    if not all(np.isfinite(array).all() for array in (soup, *experts)):
        raise ValueError("an output is not finite")
    rows = [np.asarray(array, dtype=np.float64).reshape(-1, soup.shape[-1]) for array in (*experts, soup)]
    weighted = list(zip(shares, rows[:-1], strict=True))
    mean = sum(share * row for share, row in weighted)
    away = rows[-1] - mean
    spread = math.sqrt(sum(share * _mean_square(row - mean) for share, row in weighted if share > 0))
    gap = math.sqrt(_mean_square(away))
    answers = [row.argmax(axis=1) for row in (*rows[:-1], mean, rows[-1])]  # type: ignore[union-attr]
    return Ensembling(
        gap,
        float(np.sqrt((away**2).sum(axis=1)).max()),
        spread,
        gap / spread if spread > 0 else None,
        float((answers[-1] == answers[-2]).mean()),
        None if labels is None else _accuracy(answers, labels, soup.shape),
        *rows[-1].shape,
    )


def _mean_square(values: Any) -> float:
    return float((values * values).mean())


def _accuracy(answers: Sequence[Any], labels: Floats, shape: tuple[int, ...]) -> tuple[float, ...]:
    import numpy as np

    if labels.shape != shape[:-1] or labels.dtype.kind not in "iu":
        raise ValueError("labels are whole numbers, one per input")
    flat = np.asarray(labels).reshape(-1)
    if flat.min() < 0 or flat.max() >= shape[-1]:
        raise ValueError("a label is none of the outputs")
    return tuple(float((answer == flat).mean()) for answer in answers)


def order(gaps: Mapping[float, float]) -> Order:
    """The least-squares slope of log gap over log scale, {s: gap of the soup whose δ are all scaled by s}.

    The ensemble's experts are scaled like the soup's: θ₀ + s·δᵢ. Raises ValueError for fewer than two scales, and
    for scales or gaps that are not above 0 (a gap of 0 says that f is linear there, and has no order).
    """
    if len(gaps) < 2 or not all(0 < number < math.inf for pair in gaps.items() for number in pair):
        raise ValueError("an order needs two scales at least, scales and gaps above 0")
    x, y = [math.log(scale) for scale in gaps], [math.log(gap) for gap in gaps.values()]
    middle, height = math.fsum(x) / len(x), math.fsum(y) / len(y)
    width = math.fsum((a - middle) ** 2 for a in x)
    slope = math.fsum((a - middle) * (b - height) for a, b in zip(x, y, strict=True)) / width
    left = math.fsum((b - height - slope * (a - middle)) ** 2 for a, b in zip(x, y, strict=True))
    error = math.sqrt(left / (len(x) - 2) / width) if len(x) > 2 else None
    return Order(slope, error, len(x))
