"""Data: the points of a table that an analysis is about, as plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from rsoup.errors import UsageError, listing, show
from rsoup.front.pareto import Reference, reference_of, scaled
from rsoup.measured.values import Measured, Quality, Row, Table

Values = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Data:
    """The measured points of one table, training step and split, as arrays by point and then by reward.

    `errors` are standard errors (None: not known), `repeats` the evaluations behind a value. `reference` is what
    `gains` count from: the rewards all to be maximised, in spans. `experts` has, by ingredient, the index of
    the point that is this ingredient alone, None where it was not measured.
    """

    shown: str
    rewards: tuple[str, ...]
    guards: tuple[str, ...]
    maximise: tuple[bool, ...]
    ingredients: tuple[str, ...]
    rows: tuple[Row, ...]
    values: tuple[Values, ...]
    errors: tuple[tuple[float | None, ...], ...]
    repeats: tuple[tuple[int | None, ...], ...]
    reference: Reference
    experts: tuple[int | None, ...]
    split: str
    guard_maximise: tuple[bool, ...] = ()

    @property
    def gains(self) -> list[Values]:
        """Every point in spans over the reference, to be maximised."""
        return [scaled(point, self.maximise, self.reference) for point in self.values]

    @property
    def relative_errors(self) -> list[tuple[float | None, ...]]:
        """The standard errors in spans."""
        return [relative(row, self.reference) for row in self.errors]

    @property
    def names(self) -> list[str]:
        """The points' names."""
        return [row.name for row in self.rows]

    @property
    def has_errors(self) -> bool:
        """Whether every value has a standard error."""
        return all(error is not None for row in self.errors for error in row)


def relative(errors: Sequence[float | None], reference: Reference) -> tuple[float | None, ...]:
    """Standard errors in spans of the reference."""
    return tuple(None if e is None else e / span for e, span in zip(errors, reference.spans, strict=True))


def directed(table: Table, rewards: Sequence[str], guards: Sequence[str], minimise: Sequence[str]) -> Table:
    """The table with rewards, guard metrics and directions as asked: of a flat table, larger is better unless told.

    Raises UsageError E0254: a metric that is not there, is both, or whose direction the table knows better.
    """
    for name in [*rewards, *guards, *minimise]:
        if name not in table.metrics:
            raise UsageError(
                "E0254",
                f"there is no metric '{show(name)}'",
                where=table.shown,
                hint=f"there are {listing(list(table.metrics), 20)}",
            )
    if both := [name for name in rewards if name in guards]:
        raise UsageError(
            "E0254", f"'{show(both[0])}' is asked for as a reward and as a guard metric", hint="leave one out"
        )
    metrics = {}
    for name, quality in table.metrics.items():
        if name in minimise and quality.maximise is True:
            raise UsageError(
                "E0254",
                f"the table says that more '{show(name)}' is better",
                where=table.shown,
                hint=f"--reward {show(name)}, without :min: this table knows its directions",
            )
        guard = (
            name in guards
            or (quality.guard and name not in rewards)
            or (bool(rewards) and name not in rewards)
        )
        maximise = quality.maximise if quality.maximise is not None else name not in minimise
        metrics[name] = Quality(maximise, guard)
    if all(quality.guard for quality in metrics.values()):
        raise UsageError(
            "E0254", "there is no reward, only guard metrics", where=table.shown, hint="--reward NAME"
        )
    ordered = [*rewards, *(name for name in metrics if name not in rewards)]
    return replace(table, metrics={name: metrics[name] for name in ordered})


def steps_of(table: Table) -> list[int | None]:
    """The training steps with a point that was measured, ascending; None first, where points have none."""
    found = {row.step for row in table.done}
    return sorted(found, key=lambda step: (step is not None, step or 0))


def data_of(
    table: Table,
    *,
    step: int | None = None,
    split: str = "select",
    reference: Values | None = None,
    normalised: bool = True,
) -> Data:
    """The measured points of one training step; the last one's where `step` is None.

    `split` says which values count: those the points are chosen by (select), or those measured with other seeds
    afterwards (report). Points that lack one of the rewards do not take part. `reference` are raw values
    that replace the default, the nadir of the experts. Raises UsageError E0255: no such step, or no point
    with all rewards.
    """
    steps = steps_of(table)
    wanted = steps[-1] if step is None and steps else step
    if steps and wanted not in steps:
        known = [str(s) for s in steps if s is not None]
        raise UsageError(
            "E0255",
            f"no point of training step {wanted} was measured",
            where=table.shown,
            hint=f"there are {listing(known)}" if known else "its points have no step: leave out --step",
        )
    rewards = tuple(name for name, quality in table.metrics.items() if not quality.guard)
    guards = tuple(name for name, quality in table.metrics.items() if quality.guard)
    maximise = tuple(table.metrics[name].maximise is not False for name in rewards)
    rows = [row for row in table.done if row.step == wanted and _all(_values(row, split), rewards)]
    if not rows:
        what = "was measured" if split == "select" else "has values of the report split"
        raise UsageError(
            "E0255",
            f"no point {what} in every reward",
            where=table.shown,
            hint="run the sweep to its end" if split == "select" else "rsoup sweep --report 3 measures them",
        )
    values = tuple(tuple(_values(row, split)[name].value for name in rewards) for row in rows)
    experts = tuple(
        next((i for i, row in enumerate(rows) if row.expert == k), None)
        for k in range(len(table.ingredients))
    )
    found = reference_of(
        values,
        maximise,
        [None if i is None else values[i] for i in experts],
        normalised=normalised,
        names=[show(name) for name in rewards],
    )
    if reference is not None:
        found = _given(found, reference, rewards)
    return Data(
        table.shown,
        rewards,
        guards,
        maximise,
        table.ingredients,
        tuple(rows),
        values,
        tuple(tuple(_values(row, split)[name].error for name in rewards) for row in rows),
        tuple(tuple(_values(row, split)[name].repeats for name in rewards) for row in rows),
        found,
        experts,
        split,
        tuple(table.metrics[name].maximise is not False for name in guards),
    )


def _values(row: Row, split: str) -> dict[str, Measured]:
    return dict(row.report if split == "report" else row.select)


def _all(scores: dict[str, Measured], names: Sequence[str]) -> bool:
    return all(name in scores for name in names)


def _given(found: Reference, reference: Values, rewards: Sequence[str]) -> Reference:
    if len(reference) != len(rewards):
        raise UsageError(
            "E0255",
            f"--reference has {len(reference)} values for {len(rewards)} rewards",
            hint=f"one per reward, in this order: {listing(list(rewards))}",
        )
    unit = "in the rewards' own units" if set(found.spans) == {1.0} else "each reward divided by its range among the experts"  # fmt: skip
    return Reference(reference, found.spans, f"from the reference given, {unit}")


def lambda_of(row: Row) -> tuple[Fraction, ...] | None:
    """The λ of a soup on the simplex, whole: what connectivity and the surrogate are about; None for others."""
    if row.mix is None or row.scale != 1 or sum(row.mix) != 1 or min(row.mix) < 0:
        return None
    return row.mix
