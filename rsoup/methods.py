"""METHODS: how a mix λ becomes one coefficient per ingredient, for every tensor. Pure.

A soup is θ₀ + s·Σ cᵢ(θᵢ − θ₀) = (1 − s·Σcᵢ)·θ₀ + Σ s·cᵢ·θᵢ. A method says what cᵢ is; everything else
(rounding, dtypes, integer buffers, one-hot mixes) is the same for all and happens in the pot.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from importlib import import_module
from typing import Any

from rsoup.gram import Gram

Coefficients = tuple[Fraction, ...]


@dataclass(frozen=True, slots=True)
class Method:
    """A way of mixing: its formula, whether it needs the base and the Gram matrix of the deltas."""

    name: str
    formula: str
    needs_base: bool
    needs_gram: bool
    source: str
    coefficients: Callable[[Sequence[Fraction], Gram | None], Coefficients]
    adapters_only: bool = False


METHODS: dict[str, Method] = {}


def _method(
    formula: str, *, needs_base: bool, needs_gram: bool = False, adapters_only: bool = False, source: str
) -> Callable[
    [Callable[[Sequence[Fraction], Gram | None], Coefficients]],
    Callable[[Sequence[Fraction], Gram | None], Coefficients],
]:
    def register(
        function: Callable[[Sequence[Fraction], Gram | None], Coefficients],
    ) -> Callable[[Sequence[Fraction], Gram | None], Coefficients]:
        METHODS[function.__name__] = Method(
            function.__name__, formula, needs_base, needs_gram, source, function, adapters_only
        )
        return function

    return register


@_method("Σ λᵢθᵢ", needs_base=False, source="Ramé et al. 2023, Rewarded soups")
def linear(mix: Sequence[Fraction], gram: Gram | None) -> Coefficients:  # noqa: ARG001 - one signature for all
    """cᵢ = λᵢ: the weighted average of the weights."""
    return tuple(mix)


@_method(
    "θ₀ + Σ λᵢ(θᵢ − θ₀)", needs_base=True, source="Ilharco et al. 2023, Editing models with task arithmetic"
)
def task_arithmetic(mix: Sequence[Fraction], gram: Gram | None) -> Coefficients:  # noqa: ARG001
    """cᵢ = λᵢ on the differences from the base; equal to `linear` where Σλ = 1."""
    return tuple(mix)


_PARALLEL = 1e-6


@_method(
    "θ₀ + [sin(λ₁Ω)·δ₁ + sin(λ₂Ω)·δ₂] / sin Ω, Ω = ∠(δ₁, δ₂)",
    needs_base=True,
    needs_gram=True,
    source="Ramé et al. 2024, WARP; Shoemake 1985",
)
def slerp(mix: Sequence[Fraction], gram: Gram | None) -> Coefficients:
    """cᵢ = sin(λᵢΩ)/sin Ω with Ω the angle between the two deltas; cᵢ = λᵢ where Ω is not defined.

    Ω is not defined where a delta is zero (or infinite), and useless where the deltas are (anti)parallel to
    1e-6. Taken over a whole model, it is the angle of the tensors in which both ingredients have a share.
    The angle and the sines are taken in 160 bits and rounded to float64 once: a machine's own mathematics
    library decides no bit of them.
    """
    assert gram is not None
    one, two, both = gram[0][0], gram[1][1], gram[0][1]
    if 1 in mix or one == 0.0 or two == 0.0 or not all(map(math.isfinite, (one, two, both))):
        return tuple(mix)
    exact: Any = import_module("mpmath").MPContext()
    exact.prec = 160
    cosine = exact.mpf(both) / exact.sqrt(exact.mpf(one) * exact.mpf(two))
    omega = exact.acos(max(exact.mpf(-1), min(exact.mpf(1), cosine)))
    turned = exact.sin(omega)
    if turned < _PARALLEL:
        return tuple(mix)
    shares = [exact.mpf(share.numerator) / share.denominator for share in mix]
    return tuple(Fraction(float(exact.sin(share * omega) / turned)) for share in shares)


@_method(
    "A = Σ λᵢAᵢ, B = Σ λᵢBᵢ, each by itself",
    needs_base=False,
    adapters_only=True,
    source="the code of Ramé et al. 2023; not the soup: it differs by Σ λᵢλⱼ(Bᵢ−Bⱼ)(Aᵢ−Aⱼ), which is printed",
)
def factors(mix: Sequence[Fraction], gram: Gram | None) -> Coefficients:  # noqa: ARG001
    """cᵢ = λᵢ on the factors of adapters instead of their products."""
    return tuple(mix)


@dataclass(frozen=True, slots=True)
class Term:
    """One summand of a soup's element: the checkpoint it is read from and what it is multiplied by."""

    checkpoint: int
    coefficient: float


def terms(
    coefficients: Sequence[Fraction], groups: Sequence[Sequence[int]], base: int | None, scale: Fraction
) -> tuple[Term, ...]:
    """The summands of (1 − s·Σcᵢ)·θ₀ + Σ s·cᵢ·θᵢ, in the order they are summed: ascending coefficients.

    `groups` are the checkpoints of each ingredient (a group's share is split evenly), `base` the base's
    index. Exact fractions until the last step, one rounding to float64 each; zeros are left out; ties
    keep the recipe's order, the base last (arithmetic rsoup-arith/1).
    """
    return _terms(tuple(coefficients), tuple(map(tuple, groups)), base, scale)


@lru_cache(maxsize=1024)  # most tensors of a model share one mix
def _terms(
    coefficients: tuple[Fraction, ...], groups: tuple[tuple[int, ...], ...], base: int | None, scale: Fraction
) -> tuple[Term, ...]:
    exact: dict[int, Fraction] = {}
    for share, group in zip(coefficients, groups, strict=True):
        for checkpoint in group:
            exact[checkpoint] = exact.get(checkpoint, Fraction(0)) + scale * share / len(group)
    rest = 1 - scale * sum(coefficients, Fraction(0))
    if base is not None and rest != 0:
        exact[base] = rest
    used = [(share, checkpoint) for checkpoint, share in exact.items() if share != 0]
    return tuple(
        Term(checkpoint, float(share)) for share, checkpoint in sorted(used, key=lambda item: item[0])
    )
