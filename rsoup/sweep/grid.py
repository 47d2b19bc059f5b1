"""Points on the simplex: lattices, designs, random and low-discrepancy λ, paths; all of them exact fractions."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Final

from rsoup.errors import UsageError, listing
from rsoup.sweep.point import Point
from rsoup.sweep.spec import Design

Mix = tuple[Fraction, ...]

MOST_POINTS: Final = 100_000
PARTS: Final = 1_000_000
"""Random λ are multiples of 1/PARTS."""


def lattice_size(count: int, per_edge: int) -> int:
    """C(m + N − 1, N − 1): the points of a lattice of m = `per_edge` − 1 steps over N = `count` ingredients."""
    return math.comb(per_edge - 1 + count - 1, count - 1) if count else 0


def lattice(count: int, per_edge: int) -> Iterator[Mix]:
    """Every λ of multiples of 1/m with Σλ = 1, m = `per_edge` − 1 ≥ 1; from the first expert to the last."""
    steps = per_edge - 1
    for parts in _compositions(steps, count):
        yield tuple(Fraction(part, steps) for part in parts)


def _compositions(total: int, count: int) -> Iterator[tuple[int, ...]]:
    """All tuples of `count` integers ≥ 0 that sum to `total`, lexicographically descending."""
    if count == 1:
        yield (total,)
        return
    for first in range(total, -1, -1):
        for rest in _compositions(total - first, count - 1):
            yield (first, *rest)


def scheffe(count: int) -> list[Mix]:
    """The {N, 2} simplex-lattice design and the centroid: vertices, midpoints of pairs, (1/N, …, 1/N)."""
    vertices = [_on((i,), count) for i in range(count)]
    middles = [_on(pair, count) for pair in itertools.combinations(range(count), 2)]
    return list(dict.fromkeys([*vertices, *middles, _on(range(count), count)]))


def _on(chosen: Sequence[int], count: int) -> Mix:
    return tuple(Fraction(int(i in chosen), len(chosen)) for i in range(count))


def dirichlet(count: int, number: int, seed: int) -> list[Mix]:
    """`number` λ drawn from Dirichlet(1, …, 1), uniform on the simplex, rounded to multiples of 10⁻⁶ with Σλ = 1."""
    generator = random.Random(seed)  # noqa: S311 - a design, not a secret
    return [_spacings(sorted(generator.random() for _ in range(count - 1))) for _ in range(number)]


def sobol(count: int, number: int, seed: int) -> list[Mix]:
    """`number` λ of low discrepancy: the spacings of a scrambled Sobol sequence, multiples of 10⁻⁶ with Σλ = 1."""
    if count == 1 or number == 0:
        return [(Fraction(1),)] * number
    from torch.quasirandom import SobolEngine

    engine = SobolEngine(count - 1, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    return [_spacings(sorted(row)) for row in engine.draw(number).tolist()]


def _spacings(cuts: Sequence[float]) -> Mix:
    """The lengths into which sorted `cuts` divide 0..1: uniform on the simplex for uniform cuts."""
    ends = [0, *(round(cut * PARTS) for cut in cuts), PARTS]
    return tuple(Fraction(after - before, PARTS) for before, after in itertools.pairwise(ends))


def path(vertices: Sequence[int], count: int, per_leg: int) -> list[Mix]:
    """θ_a → θ_b → θ_c …: `per_leg` values on each leg, ends included, the turning points once."""
    found: dict[Mix, None] = {}
    for start, end in itertools.pairwise(vertices):
        for step in range(per_leg):
            share = Fraction(step, per_leg - 1)
            parts = {start: 1 - share, end: share}
            found[tuple(parts.get(i, Fraction(0)) for i in range(count))] = None
    return list(found)


def size_of(design: Design, names: Sequence[str]) -> int:
    """How many points a design has at most, without making any."""
    count = len(names)
    total = len(design.mixes) + design.random + design.sobol
    if design.scheffe:
        total += count * (count + 1) // 2 + 1
    if design.grid is not None:
        legs = len(design.waypoints) + 1
        total += legs * design.grid if design.waypoints else lattice_size(count, design.grid)
    return total * max(1, len(design.scales))


def points_of(design: Design, names: Sequence[str]) -> tuple[Point, ...]:
    """Every point of a design, each once, part by part in the order grid, Scheffé, list, random, Sobol.

    With `waypoints` the grid is the path from the one other ingredient through them to the last.
    Raises UsageError E0250 for a design that is empty, too large, or has waypoints that lie on no path.
    """
    if (size := size_of(design, names)) == 0:
        raise UsageError("E0250", "no λ is asked for", hint="--grid 11 puts 11 values on every edge")
    if size > MOST_POINTS:
        raise UsageError(
            "E0250",
            f"these are {size} points, and {MOST_POINTS} is the most",
            hint="a smaller --grid, or --scheffe: vertices, midpoints and the centre",
        )
    mixes: dict[Mix, None] = {}
    for mix in _mixes(design, names):
        mixes[mix] = None
    return tuple(Point(mix, scale) for scale in dict.fromkeys(design.scales) for mix in mixes)


def _mixes(design: Design, names: Sequence[str]) -> Iterator[Mix]:
    count = len(names)
    if design.grid is not None:
        if design.grid < 2:
            raise UsageError(
                "E0250", "a grid has at least two values on every edge: its ends", hint="--grid 11"
            )
        yield from path(_route(design, names), count, design.grid) if design.waypoints else lattice(count, design.grid)  # fmt: skip
    if design.scheffe:
        yield from scheffe(count)
    yield from design.mixes
    yield from dirichlet(count, design.random, design.seed)
    yield from sobol(count, design.sobol, design.seed)


def _route(design: Design, names: Sequence[str]) -> list[int]:
    ends = [i for i, name in enumerate(names) if name not in design.waypoints]
    if len(ends) != 2:
        others = [names[i] for i in ends]
        raise UsageError(
            "E0250",
            f"a path through a waypoint leads from one expert to another; here are {len(ends)}: {listing(others)}",
            hint="name two experts and the waypoint; without --waypoint it is a vertex of the simplex like the others",
        )
    return [ends[0], *(names.index(name) for name in design.waypoints), ends[1]]
