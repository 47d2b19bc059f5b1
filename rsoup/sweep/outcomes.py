"""Outcomes: what is known of every point, from the records of the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rsoup.sweep.point import Point
from rsoup.sweep.record import Record, latest
from rsoup.sweep.scoring import Measured, measure
from rsoup.sweep.spec import SweepSpec
from rsoup.sweep.study import Job, Keys

REPORT_SEEDS = 1_000_000
"""The first seed of the evaluations that are reported: none of those that select has it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A point's state: `done` with every metric measured, `failed` where nothing more can come, else `pending`.

    `select` are the values it is chosen by, `report` those of other seeds, None where they were not asked for.
    `places` are what its evaluations called their folder of outputs, those that select first: a point's name is not
    enough, as it is another one after an expert was added.
    """

    point: Point
    status: str
    select: Mapping[str, Measured]
    report: Mapping[str, Measured] | None = None
    failure: str | None = None
    log: str | None = None
    seconds: float = 0.0
    soup: str | None = None
    places: tuple[str, ...] = ()


def place_of(record: Record) -> str:
    """`POINT/select-0`: where an evaluation's outputs lie, and its log."""
    return record.log.partition("/")[2].removesuffix(".log")


def jobs(spec: SweepSpec, point: Point, split: str = "select") -> list[Job]:
    """The evaluations of a point, those of the first seed first."""
    count, first = (spec.repeats, 0) if split == "select" else (spec.report_repeats, REPORT_SEEDS)
    return [
        Job(point, evaluator, first + seed, split)
        for seed in range(count)
        for evaluator in range(len(spec.evaluators))
    ]


def outcomes(
    spec: SweepSpec,
    points: Iterable[Point],
    keys: Keys,
    records: Sequence[Record],
    *,
    again: Callable[[str], bool] = lambda _: False,
) -> dict[Point, Outcome]:
    """Every point's outcome; failures count only of keys that are not tried `again`, and have no later success."""
    by_key = {
        key: record for key, record in latest(records).items() if record.status == "done" or not again(key)
    }
    return {point: _outcome(spec, point, keys, by_key) for point in points}


def _outcome(spec: SweepSpec, point: Point, keys: Keys, by_key: Mapping[str, Record]) -> Outcome:
    wanted = [by_key.get(keys[job]) for job in jobs(spec, point)]
    have = [record for record in wanted if record is not None]
    failed = [record for record in have if record.status == "failed"]
    status = "failed" if failed else "done" if len(have) == len(wanted) else "pending"
    reported = [record for job in jobs(spec, point, "report") if (record := by_key.get(keys[job]))]
    done = [record for record in reported if record.status == "done"]
    whole = done and len(done) == len(jobs(spec, point, "report"))
    return Outcome(
        point,
        status,
        measure(have, spec.metrics),
        measure(done, spec.metrics) if whole else None,
        failed[0].failure if failed else None,
        failed[0].log if failed else None,
        sum(record.seconds for record in [*have, *reported]),
        next((record.soup for record in have if record.soup), None),
        tuple(place_of(record) for record in [*have, *reported]),
    )
