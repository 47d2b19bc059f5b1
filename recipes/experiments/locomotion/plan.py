"""The plan of a seed: which λ of which trainings belong to which set. Everything here was fixed before the runs.

Set by set, in trainings of one expert (600 000 environment steps):

    soups          2      λ between fast and frugal, 21 values
    soups-11       2      every other of them: as many evaluations as each attempt below takes
    morl           11     μ = 0, 0.1 … 1; the experts are its ends
    bone-B         2      two backbones trained for (B, 1 − B) and (1 − B, B), λ = B⁻¹μ (Bone Soup): some λ negative
    backbones      2      plain soups of the backbones of B = 0.7, for comparison
    beyond         2      the experts' own soups, λ from −1/4 to 5/4
    slerp          2      the experts' updates turned into each other instead of averaged
    scaled         2      soups 1.3 times as far from the base
    waypoint       3      fast → MORL for μ = 1/2 → frugal, a straight line each, six λ on either
    init           1.75   experts that began from MORL for μ = 1/2 after a quarter of its steps, and their soups
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

Mix = tuple[Fraction, ...]

GRID, FEW = 21, 11
BETAS = (Fraction(6, 10), Fraction(7, 10), Fraction(8, 10))
BACKBONES = Fraction(7, 10)
SCALE = "1.3"
INTERIOR = tuple(Fraction(i, 10) for i in range(1, 10))
ALONG = tuple(Fraction(i, 10) for i in (1, 3, 5, 7, 9))
"""MORL trainings that are measured at every length; all nine at the last one."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A set of soups of two checkpoints, with λ and the label of each; `trainings` as above."""

    name: str
    one: str
    two: str
    trainings: float
    mixes: tuple[Mix, ...]
    labels: tuple[str, ...]


def grid(count: int) -> tuple[Mix, ...]:
    """`count` equally spaced λ, from the first alone to the second alone."""
    shares = [Fraction(i, count - 1) for i in range(count)]
    return tuple((1 - share, share) for share in shares)


def bone(beta: Fraction, mu: Fraction) -> Mix:
    """B⁻¹(1 − μ, μ) of B = [[β, 1 − β], [1 − β, β]]: sums to 1; (1.75, −0.75) for β = 0.7, μ = 0."""
    first = (beta - mu) / (2 * beta - 1)
    return first, 1 - first


def training(mu: Fraction) -> str:
    """The folder of MORL's training for μ: `morl-0.3`; the experts for 0 and 1."""
    return {Fraction(0): "fast", Fraction(1): "frugal"}.get(mu, f"morl-{float(mu):.1f}")


def attempts() -> list[Attempt]:
    """Every set that is a line between two checkpoints of the last step."""
    shares = [mix[1] for mix in grid(FEW)]
    found = []
    for beta in BETAS:
        one, two = training(1 - beta), training(beta)
        mixes = tuple(bone(beta, mu) for mu in shares)
        labels = tuple(f"μ = {float(mu):.1f}" for mu in shares)
        found.append(Attempt(f"bone-{float(beta):.1f}", one, two, 2, mixes, labels))
    ends = training(1 - BACKBONES), training(BACKBONES)
    plain = tuple(f"λ = {float(share):.1f}" for share in shares)
    found.append(Attempt("backbones", *ends, 2, grid(FEW), plain))
    wide = [Fraction(-1, 4) + Fraction(3, 2) * share for share in shares]
    beyond = tuple((1 - share, share) for share in wide)
    found.append(Attempt("beyond", "fast", "frugal", 2, beyond, tuple(f"λ = {float(s):.2f}" for s in wide)))
    found.append(Attempt("init", "init-fast", "init-frugal", 1.75, grid(FEW), plain))
    return found
