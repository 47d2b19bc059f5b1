"""What a sweep found: directions, the front, the best point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rsoup.front.greedy import Step
from rsoup.front.pareto import front
from rsoup.sweep.outcomes import Outcome
from rsoup.sweep.point import Point
from rsoup.sweep.record import Record
from rsoup.sweep.scoring import direction
from rsoup.sweep.spec import SweepSpec
from rsoup.sweep.strategy import uniform_of


def rewards_of(spec: SweepSpec) -> list[str]:
    """The names of the metrics that are optimised, in order."""
    return [metric.name for metric in spec.metrics if not metric.guard]


def directions(spec: SweepSpec, records: Sequence[Record]) -> dict[str, bool]:
    """Whether more is better, by metric; True where that is for a file to say and none is there yet."""
    found = {}
    for metric in spec.metrics:
        said = metric.maximise is not None or any(metric.name in record.scores for record in records)
        found[metric.name] = direction(metric, records) if said else True
    return found


def done_of(known: Mapping[Point, Outcome]) -> list[Outcome]:
    """The points with every metric measured."""
    return [outcome for outcome in known.values() if outcome.status == "done"]


def front_of(
    spec: SweepSpec, known: Mapping[Point, Outcome], maximise: Mapping[str, bool], greedy: Step | None = None
) -> list[Point]:
    """The points no other beats in every reward, training step by training step; of a greedy soup, what was kept."""
    if greedy is not None and greedy.evaluate is None:
        count = len(next(iter(known)).mix)
        return [uniform_of(greedy.kept, count)]
    names = rewards_of(spec)
    found = []
    for step in dict.fromkeys(point.step for point in known):
        mine = [outcome for outcome in done_of(known) if outcome.point.step == step]
        values = [tuple(outcome.select[name].value for name in names) for outcome in mine]
        if mine:
            found += [mine[i].point for i in front(values, [maximise[name] for name in names])]
    return found


def best_of(
    spec: SweepSpec, known: Mapping[Point, Outcome], maximise: Mapping[str, bool], front: Sequence[Point]
) -> Point | None:
    """The point of the front with the largest sum of rewards, each divided by the range it was measured in."""
    names = rewards_of(spec)
    everything = [[outcome.select[name].value for name in names] for outcome in done_of(known)]
    if not front or not everything:
        return None
    spans = [max(column) - min(column) or 1.0 for column in zip(*everything, strict=True)]

    def total(point: Point) -> float:
        found = known[point].select
        return sum(
            (found[name].value if maximise[name] else -found[name].value) / span
            for name, span in zip(names, spans, strict=True)
        )

    return max(front, key=total)
