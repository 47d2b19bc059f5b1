"""Data: the points of a table that an analysis is about, as plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from rsoup.errors import UsageError, listing, show
from rsoup.front.pareto import Reference, all_scaled, front, reference_of
from rsoup.measured.values import Measured, Quality, Row, Table

Values = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Data:
    """The measured points of one table, training step and split, as arrays by point and then by reward.

    `errors` are standard errors (None: not known), `repeats` the evaluations behind a value. `reference` is what
    `gains` count from: the rewards all to be maximised, in spans. `experts` has, by ingredient, the index of
    the point that is this ingredient alone, None where it was not measured. Where the values are those of the report
    split, `chosen_by` are the same points' values of the select split, and `front` is found by those: the same numbers
    must not choose and score. `not_reported` are points of that front without report values.
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
    chosen_by: tuple[Values, ...] | None = None
    not_reported: tuple[str, ...] = ()
    front: tuple[int, ...] = ()

    @property
    def gains(self) -> list[Values]:
        """Every point in spans over the reference, to be maximised."""
        return all_scaled(self.values, self.maximise, self.reference)

    @property
    def relative_errors(self) -> list[tuple[float | None, ...]]:
        """The standard errors in spans."""
        return [relative(row, self.reference) for row in self.errors]

    @property
    def valued(self) -> list[int]:
        """The points whose values count: all, or those that the select values found, and the experts."""
        if self.chosen_by is None:
            return list(range(len(self.rows)))
        return sorted({*self.front, *(i for i in self.experts if i is not None)})

    def only(self, places: Sequence[int]) -> Data:
        """The same data with these points alone."""
        new = {old: i for i, old in enumerate(places)}
        return replace(
            self,
            rows=tuple(self.rows[i] for i in places),
            values=tuple(self.values[i] for i in places),
            errors=tuple(self.errors[i] for i in places),
            repeats=tuple(self.repeats[i] for i in places),
            experts=tuple(None if i is None else new.get(i) for i in self.experts),
            chosen_by=None if self.chosen_by is None else tuple(self.chosen_by[i] for i in places),
            front=tuple(new[i] for i in self.front if i in new),
        )

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
            hint="run the sweep to its end"
            if split == "select"
            else "rsoup sweep --report 3 measures them; --reported REWARD=METRIC says which metrics hold them",
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
    chosen, on, missing = _front(table, rows, values, (rewards, maximise, split))
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
        chosen,
        missing,
        on,
    )


def _front(
    table: Table,
    rows: Sequence[Row],
    values: tuple[Values, ...],
    about: tuple[tuple[str, ...], tuple[bool, ...], str],
) -> tuple[tuple[Values, ...] | None, tuple[int, ...], tuple[str, ...]]:
    """(the values of the select split if others are reported, the front's points, those of it that have no others)."""
    rewards, maximise, split = about
    if split != "report":
        return None, tuple(front(values, maximise)), ()
    all_ = [row for row in table.done if row.step == rows[0].step and _all(dict(row.select), rewards)]
    selected = [tuple(row.select[name].value for name in rewards) for row in all_]
    names = [all_[i].name for i in front(selected, maximise)]
    places = {row.name: i for i, row in enumerate(rows)}
    chosen = dict(zip((row.name for row in all_), selected, strict=True))
    if not places.keys() <= chosen.keys() or not places.keys() & set(names):
        return None, tuple(front(values, maximise)), ()
    on = tuple(sorted(places[name] for name in names if name in places))
    missing = tuple(name for name in names if name not in places)
    return tuple(chosen[row.name] for row in rows), on, missing


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
    unit = "each reward divided by its range among the experts" if found.normalised else "in the rewards' own units"  # fmt: skip
    return replace(found, values=reference, how=f"from the reference given, {unit}", given=True)


def lambda_of(row: Row) -> tuple[Fraction, ...] | None:
    """The λ of a soup on the simplex, whole: what connectivity and the surrogate are about; None for others."""
    if row.mix is None or row.scale != 1 or sum(row.mix) != 1 or min(row.mix) < 0:
        return None
    return row.mix
