"""Everything `rsoup front` finds out, as one document: definitions, figures, intervals, verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rsoup.analysis.along import along
from rsoup.analysis.compared import Other, compared
from rsoup.analysis.connected import connected
from rsoup.analysis.data import Data, lambda_of, steps_of
from rsoup.analysis.experts import experts
from rsoup.analysis.intervals import Intervals, Noise, intervals
from rsoup.analysis.measures import figures, membership, shapes
from rsoup.analysis.owning import base_of
from rsoup.analysis.predictions import predictions
from rsoup.errors import listing
from rsoup.measured.values import Table
from rsoup.mix import format_number

SCHEMA = "rsoup-front/1"
_WIDE = 5  # times the experts' range
Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """How the questions are asked: intervals, the tolerance of connectivity (in the experts' range), who is whose expert.

    `assignment` maps rewards to ingredients, where given; `trainings` are what the soups took, default one per
    ingredient; `base_point` is the name of the base's own point; `distances` are ‖θᵢ − θⱼ‖ between the ingredients.
    """

    noise: Noise = field(default_factory=Noise)
    tolerance: float = 0.0
    assignment: Mapping[str, str] | None = None
    trainings: float | None = None
    base_point: str | None = None
    distances: Sequence[Sequence[float]] | None = None


def document(
    table: Table, data: Data, others: Sequence[Other] = (), asked: Asked | None = None
) -> dict[str, Any]:
    """The whole document, schema `rsoup-front/1`; equal tables and questions give equal documents."""
    asked = asked or Asked()
    drawn = intervals(data, asked.noise)
    volume, expected = figures(data, drawn)
    lmc = connected(data, tolerance=asked.tolerance, confidence=asked.noise.confidence)
    return {
        "format": SCHEMA,
        "table": data.shown,
        "ingredients": list(data.ingredients),
        "step": data.rows[0].step,
        "split": data.split,
        "rewards": _directions(data.rewards, data.maximise),
        "guards": _directions(data.guards, data.guard_maximise),
        "normalisation": _normalisation(data),
        "points": [_point(data, i) for i in range(len(data.rows))],
        "front": membership(data, asked.noise),
        "hypervolume": volume,
        "expected_reward": expected,
        **shapes(data, drawn),
        "connectivity": lmc,
        **experts(
            data,
            asked.assignment,
            base=base_of(data, asked.base_point),
            distances=asked.distances,
            others=others,
            confidence=asked.noise.confidence,
        ),
        "surrogate": predictions(data),
        "compared": [compared(data, other, asked.noise, trainings=asked.trainings) for other in others],
        "training": along(table, data, tolerance=asked.tolerance, confidence=asked.noise.confidence),
        "notes": _notes(table, data, drawn),
    }


def _directions(names: Sequence[str], maximise: Sequence[bool]) -> dict[str, str]:
    return {name: "maximise" if up else "minimise" for name, up in zip(names, maximise, strict=True)}


def _normalisation(data: Data) -> Found:
    return {
        "definition": f"gain = (reward − reference) / span, turned so that more is better; {data.reference.how}",
        "reference": dict(zip(data.rewards, data.reference.values, strict=True)),
        "spans": dict(zip(data.rewards, data.reference.spans, strict=True)),
    }


def _point(data: Data, index: int) -> Found:
    row = data.rows[index]
    return {
        "point": row.name,
        "label": row.label,
        "lambda": None
        if row.mix is None
        else dict(zip(data.ingredients, map(format_number, row.mix), strict=True))
        if data.ingredients
        else [format_number(share) for share in row.mix],
        "scale": format_number(row.scale),
        "rewards": {
            name: {"value": value, "error": error, "n": count}
            for name, value, error, count in zip(
                data.rewards, data.values[index], data.errors[index], data.repeats[index], strict=True
            )
        },
        "command": row.command,
    }


def _reported(data: Data) -> str:
    if data.chosen_by is None:
        return "the same report values find the front and score it: the best of many noisy points looks better than it is"
    said = "the select values found the front, the report values score it: what noise chose it does not score"
    if data.not_reported:
        said += f"; {len(data.not_reported)} of the front {'has' if len(data.not_reported) == 1 else 'have'} no report values and {'is' if len(data.not_reported) == 1 else 'are'} left out"
    return said


def _outweighing(data: Data) -> list[str]:
    """The rewards in which all points differ by many times the experts' range, which gains are counted in."""
    if not data.reference.normalised:
        return []
    ranges = [max(column) - min(column) for column in zip(*data.values, strict=True)]
    rows = zip(data.rewards, ranges, data.reference.spans, data.reference.of_experts, strict=True)
    return [name for name, whole, span, own in rows if own and whole > _WIDE * span]


def _step(step: int | None) -> str:
    return "the points without a step" if step is None else f"step {step}"


def _notes(table: Table, data: Data, drawn: Intervals) -> list[str]:
    """What the reader must know to read the figures right."""
    notes = list(table.notes)
    for status in ("failed", "pending"):
        if count := sum(row.status == status for row in table.rows):
            notes.append(
                f"{count} {'point is' if count == 1 else 'points are'} {status} and not in these figures"
            )
    here = [row for row in table.done if row.step == data.rows[0].step]
    if left := len(here) - len(data.rows):
        notes.append(f"{left} {'point lacks' if left == 1 else 'points lack'} a reward and {'is' if left == 1 else 'are'} not in these figures")  # fmt: skip
    steps = steps_of(table)
    if len(steps) > 1:
        notes.append(f"the figures are of {_step(data.rows[0].step)}, one of {len(steps)} training steps")
    if not data.has_errors and any(error is not None for row in data.errors for error in row):
        notes.append("some values have no standard error: nothing but connectivity takes the others into account, and nothing has an interval")  # fmt: skip
    elif not data.has_errors:
        notes.append(
            "no standard errors: the values are taken as they are written, and nothing has an interval"
        )
    elif data.split == "select":
        notes.append("the best of many noisy points looks better than it is: these are the values the points are chosen by; `rsoup sweep --report` measures the front again")  # fmt: skip
    if data.split == "report":
        notes.append(_reported(data))
    if drawn.why_not is not None:
        notes.append(drawn.why_not)
    if data.ingredients and any(i is None for i in data.experts):
        missing = [name for name, i in zip(data.ingredients, data.experts, strict=True) if i is None]
        notes.append(f"not every expert is measured alone ({len(missing)} of {len(data.ingredients)} are not), so what compares with them is left out")  # fmt: skip
    if wide := _outweighing(data):
        notes.append(f"the experts are nearly equal in {listing(wide)}, where the points differ by more than {_WIDE} times their range: figures that mix rewards are mostly about that; --guard takes it out, --raw leaves the units")  # fmt: skip
    if any(row.mix is not None and lambda_of(row) is None for row in data.rows):
        notes.append("soups at another scale than 1, or off the simplex, count for the front only")
    return notes
