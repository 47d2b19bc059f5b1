"""What a table of measured points holds: metrics, points, values with their standard errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from rsoup.mix import format_number


@dataclass(frozen=True, slots=True)
class Measured:
    """One finite value, its standard error in the same unit (None: not known), and the repeats behind both."""

    value: float
    error: float | None = None
    repeats: int | None = None

    @property
    def exact(self) -> Fraction:
        """The value as it is written: 0.8 is 4/5, whatever its binary neighbour."""
        return Fraction(repr(self.value))


@dataclass(frozen=True, slots=True)
class Quality:
    """A metric: which direction is better (None: the table does not say), and whether it is a guard metric."""

    maximise: bool | None
    guard: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One point: `status` is done, failed or pending; `select` and `report` hold values by metric.

    `mix` is its λ, one exact fraction per ingredient, or None where the table does not say. `scale` is its η (the
    distance from the base that is taken), `step` the training step of its checkpoints, `label` what pictures call
    it, `command` what makes its soup, each None where the table does not say.
    """

    name: str
    status: str
    select: Mapping[str, Measured]
    report: Mapping[str, Measured]
    mix: tuple[Fraction, ...] | None = None
    scale: Fraction = Fraction(1)
    step: int | None = None
    label: str | None = None
    command: str | None = None

    @property
    def lambda_text(self) -> str | None:
        """`0.3,0.7`, as `--lambda` takes it; None where λ is not known."""
        return None if self.mix is None else ",".join(map(format_number, self.mix))

    @property
    def expert(self) -> int | None:
        """The ingredient that this point is, alone and whole; None for a soup, the base, and where λ is not known."""
        if self.mix is None or self.scale != 1 or set(self.mix) - {0, 1} or sum(self.mix) != 1:
            return None
        return self.mix.index(Fraction(1))


@dataclass(frozen=True, slots=True)
class Table:
    """Points and their metrics; `shown` is where they were read, safe to print. Names of points are distinct.

    `distances` are ‖θ − base‖/‖base‖ by training step (None: there are none) and ingredient, where a sweep told. `notes`
    are what its reader must know.
    """

    shown: str
    metrics: Mapping[str, Quality]
    rows: tuple[Row, ...]
    ingredients: tuple[str, ...] = ()
    base: str | None = None
    distances: Mapping[int | None, Mapping[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def done(self) -> tuple[Row, ...]:
        """The points that were measured."""
        return tuple(row for row in self.rows if row.status == "done")
