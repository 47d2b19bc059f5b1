"""From a point's records to its measured values: means over repeats, their standard errors, directions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from rsoup.errors import UsageError, listing, show
from rsoup.sweep.record import Record, latest
from rsoup.sweep.score import Metric, Score


@dataclass(frozen=True, slots=True)
class Measured:
    """The mean of `n` evaluations and its standard error, None where nothing is known of it."""

    value: float
    error: float | None
    n: int


def measure(records: Sequence[Record], metrics: Sequence[Metric]) -> Mapping[str, Measured]:
    """value = Σx/n, error = s/√n with s² = Σ(x − value)²/(n − 1), by metric, over one point's and split's records.

    Each key counts once, failed evaluations not at all; a metric nobody measured is left out. With one
    evaluation the error is its own; with more it is the spread between them alone, which already holds the noise
    of the single ones, so their own errors are not added.
    """
    done = [record for record in latest(records).values() if record.status == "done"]
    found = {}
    for metric in metrics:
        scores = [record.scores[metric.name] for record in done if metric.name in record.scores]
        if scores:
            found[metric.name] = _mean(scores)
    return found


def _mean(scores: Sequence[Score]) -> Measured:
    n = len(scores)
    if n == 1:
        return Measured(scores[0].value, scores[0].error, 1)
    values = [Fraction(score.value) for score in scores]
    mean = sum(values, Fraction()) / n
    largest = max(abs(value - mean) for value in values)
    if largest == 0:
        return Measured(float(mean), 0.0, n)
    squares = math.fsum(
        float((value - mean) / largest) ** 2 for value in values
    )  # no overflow for any values
    return Measured(float(mean), float(largest * Fraction(math.sqrt(squares / (n - 1) / n))), n)


def direction(metric: Metric, records: Sequence[Record]) -> bool:
    """Whether more is better: as the metric says, else as all files say that say something.

    Raises UsageError E0229 where they say nothing, or not the same.
    """
    if metric.maximise is not None:
        return metric.maximise
    scores = [record.scores[metric.name] for record in records if metric.name in record.scores]
    said = {score.maximise for score in scores} - {None}
    if len(said) == 1:
        return said == {True}
    what = "the results do not agree" if said else "no result says"
    points = [record.point for record in records if metric.name in record.scores]
    raise UsageError(
        "E0229",
        f"{what} whether more of '{show(metric.name)}' is better",
        where=listing(list(dict.fromkeys(points))) or None,
        hint=f"say maximise: true or maximise: false for '{show(metric.name)}' in the recipe",
    )
