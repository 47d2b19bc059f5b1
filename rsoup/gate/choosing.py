"""Which point is gated, which point of the baseline it is compared with, and the verdict on them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from rsoup.errors import UsageError, listing, show
from rsoup.gate.asked import baseline_row
from rsoup.gate.judging import GateResult, Judgement, judge, margin
from rsoup.gate.requirements import Condition, NoWorse, Require
from rsoup.measured.values import Measured, Quality, Row, Table


@dataclass(frozen=True, slots=True)
class Gate:
    """A table, the conditions it is judged by, and the baseline of those that compare; checked to fit together.

    `baseline_row` is the one point of the baseline that is meant, None where each point has its own of the same λ.
    """

    table: Table
    conditions: tuple[Condition, ...]
    baseline: Table | None
    baseline_row: Row | None


def prepare(
    table: Table,
    conditions: tuple[Condition, ...],
    *,
    baseline: Table | None = None,
    baseline_point: str | None = None,
    minimise: Collection[str] = (),
) -> Gate:
    """The gate of these conditions; in a flat table larger is better, but for the metrics in `minimise`.

    Raises UsageError: E0244 a baseline without a condition that needs it or the other way round, E0245 a metric
    that is not there, E0247 a point of the baseline that is not there, E0248 contradicting directions.
    """
    compared = [condition for condition in conditions if isinstance(condition, NoWorse)]
    if compared and baseline is None:
        raise UsageError(
            "E0244", "--no-worse: than what?", hint="name the table to compare with: --baseline metrics.json"
        )
    if not compared and (baseline is not None or baseline_point is not None):
        raise UsageError(
            "E0244",
            "--baseline is compared with by --no-worse alone",
            hint="add --no-worse METRIC, or leave it out",
        )
    for name in [*(condition.metric for condition in conditions), *minimise]:
        _check_metric(name, table)
    for condition in compared:
        assert baseline is not None
        _check_metric(condition.metric, baseline)
    table = _directed(table, minimise)
    row = None
    if baseline is not None:
        known = [name for name in minimise if name in baseline.metrics]
        baseline = _directed(baseline, known, table.metrics)
        row = baseline_row(baseline, baseline_point)
    return Gate(table, conditions, baseline, row)


def _check_metric(name: str, table: Table) -> None:
    if name not in table.metrics:
        raise UsageError(
            "E0245",
            f"there is no metric '{show(name)}'",
            where=table.shown,
            hint=f"there are {listing(list(table.metrics), 20)}",
        )


def _directed(table: Table, minimise: Collection[str], other: Mapping[str, Quality] | None = None) -> Table:
    """The table with every direction known: its own, else `other`'s, else larger is better but for `minimise`."""
    metrics = {}
    for name, quality in table.metrics.items():
        theirs = other[name].maximise if other and name in other else None
        said = False if name in minimise else theirs
        if quality.maximise is not None and said is not None and said != quality.maximise:
            raise UsageError(
                "E0248",
                f"'{show(name)}' is better when {'larger' if quality.maximise else 'smaller'} here, and the other way round elsewhere",
                where=table.shown,
                hint="leave --minimise out for a table that knows its directions, and compare like with like",
            )
        maximise = quality.maximise if quality.maximise is not None else said is not False
        metrics[name] = replace(quality, maximise=maximise)
    return replace(table, metrics=metrics)


# --- the points


def _partner(gate: Gate, row: Row) -> Row | None:
    """The baseline's point that `row` is compared with; None where there is none."""
    if gate.baseline is None or gate.baseline_row is not None:
        return gate.baseline_row
    return next(
        (
            other
            for other in gate.baseline.done
            if other.name == row.name and (other.mix is None or row.mix is None or other.mix == row.mix)
        ),
        None,
    )


def _lacking(gate: Gate, row: Row) -> str | None:
    """Why `row` cannot be judged, in words; None where it can."""
    partner = _partner(gate, row)
    for condition in gate.conditions:
        if condition.metric not in row.select and condition.metric not in row.report:
            return f"'{show(condition.metric)}' was not measured at it"
        if isinstance(condition, NoWorse):
            if partner is None:
                return "the baseline has no point of its name and λ"
            if condition.metric not in partner.select and condition.metric not in partner.report:
                return f"'{show(condition.metric)}' was not measured at the baseline's point"
    return None


# --- the verdict


def decide(gate: Gate, row: Row | None, *, confidence: float, undecided_passes: bool) -> GateResult:
    """The judgement of `row`, or of the point whose select values meet all conditions by the widest margin.

    Values of the report split are judged where there are any. Raises UsageError: E0246 where no point was
    measured, E0245 where a point lacks a metric, E0247 where the baseline's point cannot be told.
    """
    notes = [
        f"{count} {'point is' if count == 1 else 'points are'} {status} and not judged"
        for status in ("failed", "pending")
        if (count := sum(other.status == status for other in gate.table.rows))
    ]
    chosen = row is None and len(gate.table.done) > 1
    if row is None:
        row, left_out = _best(gate)
        if left_out:
            notes.append(left_out)
    _refuse_lacking(gate, row)
    partner = _partner(gate, row)
    judgements = []
    for condition in gate.conditions:
        value, split = _value(row, condition.metric)
        if chosen and split == "select":
            notes.append(
                f"'{show(condition.metric)}' is judged on the same numbers that the point was chosen by: "
                "the best of many looks better than it is"
            )
        baseline = None
        if isinstance(condition, NoWorse) and partner is not None:
            baseline, other_split = _value(partner, condition.metric, split)
            if other_split != split:
                notes.append(
                    f"'{show(condition.metric)}': {split} values against the baseline's {other_split} values"
                )
        judgements.append(_judge(gate, condition, value, baseline, confidence))
    return GateResult(
        row.name, row.lambda_text, tuple(judgements), confidence, undecided_passes, tuple(notes)
    )


def _refuse_lacking(gate: Gate, row: Row) -> None:
    why = _lacking(gate, row)
    if why is None:
        return
    if _partner(gate, row) is None and gate.baseline is not None:
        names = [other.name for other in gate.baseline.done]
        raise UsageError(
            "E0247",
            f"point '{show(row.name)}': {why}",
            where=gate.baseline.shown,
            hint=f"--baseline-point NAME, one of {listing(names)}"
            if names
            else "no point of it was measured",
        )
    raise UsageError(
        "E0245",
        f"point '{show(row.name)}': {why}",
        where=gate.table.shown,
        hint="gate a point where it was: --point NAME",
    )


def _judge(
    gate: Gate, condition: Condition, value: Measured, baseline: Measured | None, confidence: float
) -> Judgement:
    maximise = gate.table.metrics[condition.metric].maximise is not False
    return judge(condition, value, baseline, maximise=maximise, confidence=confidence)


def _value(row: Row, metric: str, split: str = "report") -> tuple[Measured, str]:
    """The value of this split, or else of the other one, and which it is."""
    splits = {"report": row.report, "select": row.select}
    other = "select" if split == "report" else "report"
    name = split if metric in splits[split] else other
    return splits[name][metric], name


def _best(gate: Gate) -> tuple[Row, str | None]:
    """The point with the largest worst margin, then the largest second worst, …; the earlier one of equals.

    A margin is in standard errors where every candidate has one above 0, else relative to the metric's range.
    Also in words how many points could not be compared.
    """
    done = gate.table.done
    if not done:
        raise UsageError(
            "E0246", "no point was measured", where=gate.table.shown, hint="run the sweep to its end first"
        )
    able = [row for row in done if _lacking(gate, row) is None and _selectable(gate, row)]
    if not able:
        return done[0], None  # whose lack is then told
    worst: list[list[Fraction]] = [[] for _ in able]
    for condition in gate.conditions:
        for found, value in zip(worst, _margins(gate, condition, able), strict=True):
            found.append(value)
    ranked = [sorted(values) for values in worst]
    best = max(range(len(able)), key=lambda number: (ranked[number], -number))
    left = len(done) - len(able)
    said = f"{left} {'point was' if left == 1 else 'points were'} left out: not all that is asked for was measured there"
    return able[best], said if left else None


def _selectable(gate: Gate, row: Row) -> bool:
    return len(gate.table.done) == 1 or all(condition.metric in row.select for condition in gate.conditions)


def _margins(gate: Gate, condition: Condition, rows: Sequence[Row]) -> list[Fraction]:
    maximise = gate.table.metrics[condition.metric].maximise is not False
    values = [_value(row, condition.metric, "select")[0] for row in rows]
    found: list[tuple[Fraction, float | None]] = []
    for row, value in zip(rows, values, strict=True):
        partner = None if isinstance(condition, Require) else _partner(gate, row)
        baseline = _value(partner, condition.metric, "select")[0] if partner is not None else None
        found.append(margin(condition, value, baseline, maximise=maximise))
    if all(error for _, error in found):
        return [difference / Fraction(error or 1) for difference, error in found]
    extent = max(value.exact for value in values) - min(value.exact for value in values)
    return [difference / (extent or 1) for difference, _ in found]
