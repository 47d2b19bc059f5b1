"""Are these checkpoints one family? Mismatches and measures → a verdict with its reasons. Pure.

Averages of weights work where the loss stays low on the straight line between them (linear mode connectivity),
and that holds for networks that share their pretraining and did not go far from it; docs/check.md has the figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rsoup.compat.headers import Mismatch
from rsoup.errors import listing, show
from rsoup.family.adapters import AdapterMeasures
from rsoup.family.measures import Measures, Part, Row
from rsoup.recipe import CARE_DISTANCE, MAX_DISTANCE

MIXABLE: Final = "mixable"
WITH_CARE: Final = "mixable with care"
NOT_ONE: Final = "not one family"
SQRT2: Final = math.sqrt(2)  # how far apart two updates of length 1 at a right angle are
_WORDS = (NOT_ONE, WITH_CARE, MIXABLE)
_OPPOSITE = -0.7
_LARGE_GROUP = 0.01  # of all elements: a norm or a bias that moved far says little about the network
_SAME_NORM = 0.005
_PERMUTED = 1.2


@dataclass(frozen=True, slots=True)
class Limits:
    """Relative distance from the base: up to `care` no comment, beyond `max_distance` no soup.

    Without a base, distances between two checkpoints are held against √2 times these.
    """

    care: float = CARE_DISTANCE
    max_distance: float = MAX_DISTANCE


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the verdict is what it is: which measure, of which checkpoint, its value and its limit, what it means.

    `verdict` is what this reason alone would make of it; `measure` one of `mismatch`, `nonfinite`, `distance`,
    `layer`, `pair`, `cosine`, `copied`, `untrained`, `base`.
    """

    verdict: str
    measure: str
    what: str
    checkpoint: str | None = None
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`mixable`, `mixable with care` or `not one family`, and every reason for it, the gravest first."""

    word: str
    reasons: tuple[Reason, ...]


def judge(mismatches: Sequence[Mismatch], measures: Measures | None, limits: Limits) -> Verdict:
    """The verdict is that of the gravest reason, and `mixable` where there is none."""
    reasons = [Reason(NOT_ONE, "mismatch", f"{m.kind}: {m.what}") for m in mismatches]
    if measures is not None:
        reasons += _nonfinite(measures)
        reasons += _distances(measures, limits) if measures.total else _pairs(measures, limits)
        reasons += _opposed(measures.names, measures.cosine)
        reasons += _copied(measures)
    return _gravest(reasons)


def judge_adapters(
    mismatches: Sequence[Mismatch], found: AdapterMeasures | None, limits: Limits, *, with_base: bool
) -> Verdict:
    """The verdict on adapters as such; how far they moved counts only where it is known relative to the base."""
    reasons = [Reason(NOT_ONE, "mismatch", f"{m.kind}: {m.what}") for m in mismatches]
    if found is not None:
        reasons += _broken(found)
        reasons += _sizes(found, limits)
        reasons += _opposed(found.names, found.cosine)
        reasons += _untrained(found)
        if not with_base and all(row.base is None for row in found.rows):
            what = "no adapter says on which base it was trained: is it one? --base BASE shows whether they fit it"
            reasons.append(Reason(WITH_CARE, "base", what))
    return _gravest(reasons)


def _gravest(reasons: list[Reason]) -> Verdict:
    reasons.sort(key=lambda reason: _WORDS.index(reason.verdict))
    return Verdict(reasons[0].verdict if reasons else MIXABLE, tuple(reasons))


def _broken(found: AdapterMeasures) -> Iterator[Reason]:
    tensors: dict[int, list[tuple[str, int]]] = {}
    for adapter, key, count in found.nonfinite:
        tensors.setdefault(adapter, []).append((key, count))
    for adapter, keys in tensors.items():
        yield _infinite(found.names[adapter], keys)


def _sizes(found: AdapterMeasures, limits: Limits) -> Iterator[Reason]:
    total = found.total
    for i, row in enumerate(found.rows if total is not None else ()):
        name, value = row.facts.name, row.relative
        if value is None:
            continue
        shown = f"'{show(name)}' changes the weights it touches by {_number(value)} of their norm"
        if value > limits.max_distance:
            what = f"{shown}: too far for a fine-tune; is it the right base, and the scaling it was trained with?"
            yield Reason(NOT_ONE, "distance", what, name, value, limits.max_distance)
            continue
        if value > limits.care:
            what = f"{shown}: that far from the base, the loss between two adapters may rise; test the soup"
            yield Reason(WITH_CARE, "distance", what, name, value, limits.care)
        assert total is not None
        yield from _layers(name, found.layers, total.elements, i, limits)


def _untrained(found: AdapterMeasures) -> Iterator[Reason]:
    for row in found.rows:
        if row.untrained:
            what = f"'{show(row.facts.name)}' is untrained: every B is zero, so it adds nothing to a soup"
            yield Reason(WITH_CARE, "untrained", what, row.facts.name, 0.0, 0.0)


def _nonfinite(measures: Measures) -> Iterator[Reason]:
    found: dict[int, list[tuple[str, int]]] = {}
    for checkpoint, tensor, count in measures.nonfinite:
        found.setdefault(checkpoint, []).append((tensor, count))
    for checkpoint, tensors in found.items():
        yield _infinite([*measures.names, "base"][checkpoint], tensors)


def _infinite(name: str, tensors: Sequence[tuple[str, int]]) -> Reason:
    count = sum(number for _, number in tensors)
    what = (
        f"'{show(name)}' is NaN or infinite in {count} elements of {len(tensors)} tensors, first of "
        f"'{show(tensors[0][0])}': every soup with it is"
    )
    return Reason(NOT_ONE, "nonfinite", what, name, float(count), 0.0)


def _distances(measures: Measures, limits: Limits) -> Iterator[Reason]:
    total = measures.total
    assert total is not None
    for i, name in enumerate(measures.names):
        value = total.relative[i]
        shown = f"'{show(name)}' is {_number(value)} of the base's norm away from it"
        if value is None or value > limits.max_distance:
            what = f"{shown}: {_stranger(total, i)}"
            yield Reason(NOT_ONE, "distance", what, name, value, limits.max_distance)
        elif value > limits.care:
            what = (
                f"{shown}: that far from the base, the loss between two checkpoints may rise; test the soup"
            )
            yield Reason(WITH_CARE, "distance", what, name, value, limits.care)
        if value is not None and value <= limits.max_distance:
            yield from _layers(name, measures.layers, measures.elements, i, limits)


def _stranger(total: Part, i: int) -> str:
    """What a checkpoint this far away is, as far as its norm tells."""
    value, ratio = total.relative[i], total.norm_ratio[i]
    if value is None:
        return "more than float64 can hold"
    if ratio is not None and value > _PERMUTED and abs(ratio - 1) < _SAME_NORM:
        return (
            "√2 at the same norm is what a permuted copy has, or a network from another start; "
            "the average of the two is neither"
        )
    if value > _PERMUTED:
        return "as far as a network from another start; is it the right base?"
    return "too far for a fine-tune of it; is it the right base, in the right revision?"


def _layers(name: str, layers: Sequence[Part], elements: int, i: int, limits: Limits) -> Iterator[Reason]:
    """One reason for all layers of a checkpoint that went beyond the limit while the whole did not."""
    far = [
        (value, part.name)
        for part in layers
        if (value := part.relative[i]) is not None
        and value > limits.max_distance
        and part.elements > _LARGE_GROUP * elements
    ]
    if far:
        value, layer = max(far)
        more = f" and {len(far) - 1} more" if len(far) > 1 else ""
        what = f"{layer}{more} of '{show(name)}' moved {_number(value)} of its norm: made anew, or permuted?"
        yield Reason(WITH_CARE, "layer", what, name, value, limits.max_distance)


def _pairs(measures: Measures, limits: Limits) -> Iterator[Reason]:
    """Two fine-tunes at distance d from their base, in directions of their own, are √2·d apart."""
    names, size = measures.names, len(measures.names)
    for i in range(size):
        for j in range(i + 1, size):
            value = measures.pair_relative[i][j]
            pair = f"'{show(names[i])}' and '{show(names[j])}'"
            if value is None or value > SQRT2 * limits.max_distance:
                what = (
                    f"{pair} are {_number(value)} of their norm apart: as far as networks that share no start"
                )
                yield Reason(NOT_ONE, "pair", what, names[j], value, SQRT2 * limits.max_distance)
            elif value > SQRT2 * limits.care:
                what = f"{pair} are {_number(value)} of their norm apart: the loss between them may rise; test the soup"
                yield Reason(WITH_CARE, "pair", what, names[j], value, SQRT2 * limits.care)


def _opposed(names: Sequence[str], cosine: Sequence[Row]) -> Iterator[Reason]:
    for i, row in enumerate(cosine):
        for j, value in enumerate(row[:i]):
            if value is not None and value < _OPPOSITE:
                pair = f"'{show(names[j])}' and '{show(names[i])}'"
                what = f"the updates of {pair} point away from each other (cosine {value:.2f}): their soup undoes both"
                yield Reason(WITH_CARE, "cosine", what, names[i], value, _OPPOSITE)


def _copied(measures: Measures) -> Iterator[Reason]:
    """Integers that differ have no average: a soup has to take them from one checkpoint."""
    names = [name for name in measures.copied if not name.endswith("num_batches_tracked")]
    if names:
        what = f"{listing(names, 3)} cannot be averaged and differ: merge takes them from one ingredient, --buffers-from NAME"
        yield Reason(WITH_CARE, "copied", what, None, float(len(names)), 0.0)


def _number(value: float | None) -> str:
    return "an unknown share" if value is None else f"{value:.3f}"
