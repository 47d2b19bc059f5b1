"""Which points are wanted next: a pure function of what is asked for and what is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from rsoup.front.greedy import Step, greedy
from rsoup.front.refine import propose
from rsoup.sweep.grid import points_of
from rsoup.sweep.outcomes import Outcome
from rsoup.sweep.point import Point
from rsoup.sweep.spec import SweepSpec

ROUND = 4
"""So many points are proposed at once, however many workers there are: the same ledger, the same points."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The points that are wanted so far and where each comes from; `complete` if none will follow.

    `greedy` is how far the greedy soup has come, where that is the strategy.
    """

    points: Mapping[Point, str]
    complete: bool
    greedy: Step | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """What a strategy must know of a sweep: its ingredients, the steps, the directions of the rewards in order."""

    spec: SweepSpec
    names: Sequence[str]
    steps: Sequence[int | None]
    rewards: Sequence[str]
    maximise: Mapping[str, bool]


def wanted(ask: Ask, known: Mapping[Point, Outcome]) -> Wanted:
    """The design; once it is settled the refinement, in rounds; for greedy and uniform soups their own points."""
    if ask.spec.strategy == "greedy":
        return _greedy(ask, known)
    if ask.spec.strategy == "uniform":
        count = len(ask.names)
        companions = [*_singles(count), Point((Fraction(1, count),) * count)]
        return Wanted(dict.fromkeys(companions, "design"), complete=True)
    design = points_of(ask.spec.design, ask.names)
    points = {replace(point, step=step): "design" for step in ask.steps for point in design}
    if ask.spec.refine == 0:
        return Wanted(points, complete=True)
    return _refined(ask, points, known)


def settled(point: Point, known: Mapping[Point, Outcome]) -> bool:
    """Whether nothing more will be learnt of a point in this run."""
    return point in known and known[point].status != "pending"


def _refined(ask: Ask, design: Mapping[Point, str], known: Mapping[Point, Outcome]) -> Wanted:
    """For every training step, rounds of proposals, each from all that came before it."""
    found = dict(design)
    complete = True
    for step in ask.steps:
        mine = [point for point in design if point.step == step and point.scale == 1]
        left = ask.spec.refine
        while left > 0:
            if not all(settled(point, known) for point in mine):
                complete = False
                break
            proposed = _round(ask, mine, known, min(left, ROUND), step)
            if not proposed:
                break
            found |= dict.fromkeys(proposed, "refine")
            mine += proposed
            left -= len(proposed)
        else:
            complete = complete and all(settled(point, known) for point in mine)
    return Wanted(found, complete)


def _round(
    ask: Ask, points: Sequence[Point], known: Mapping[Point, Outcome], count: int, step: int | None
) -> list[Point]:
    measured = [point for point in points if known[point].status == "done"]
    failed = [point.mix for point in points if known[point].status == "failed"]
    if len(measured) < 2:
        return []
    values = [tuple(known[p].select[name].value for name in ask.rewards) for p in measured]
    errors = [tuple(known[p].select[name].error for name in ask.rewards) for p in measured]
    maximise = [ask.maximise[name] for name in ask.rewards]
    mixes = [point.mix for point in measured]
    proposed = propose(mixes, values, maximise, count, errors=errors, tried=failed)
    return [Point(mix, step=step) for mix in proposed]


def _singles(count: int) -> list[Point]:
    return [Point(tuple(Fraction(int(i == j)) for j in range(count))) for i in range(count)]


def uniform_of(subset: Sequence[int], count: int) -> Point:
    """The point of equal shares of some of `count` ingredients."""
    return Point(tuple(Fraction(int(i in subset), len(subset)) for i in range(count)))


def _greedy(ask: Ask, known: Mapping[Point, Outcome]) -> Wanted:
    """Every candidate alone; then one trial after another. What failed is no candidate, or no improvement."""
    assert ask.spec.metric is not None
    count = len(ask.names)
    singles = _singles(count)
    points = dict.fromkeys(singles, "greedy")
    if not all(settled(point, known) for point in singles):
        return Wanted(points, complete=False)
    usable = [i for i, point in enumerate(singles) if known[point].status == "done"]
    if not usable:
        return Wanted(points, complete=True)
    metric = ask.spec.metric
    scores = [known[singles[i]].select[metric].value for i in usable]
    evaluated: dict[tuple[int, ...], float] = {}
    while True:
        step = greedy(scores, ask.maximise[metric], evaluated, ask.spec.accept_equal)
        shown = replace(
            step,
            kept=tuple(usable[i] for i in step.kept),
            evaluate=None if step.evaluate is None else tuple(usable[i] for i in step.evaluate),
            trail=tuple(replace(trial, candidate=usable[trial.candidate]) for trial in step.trail),
        )
        if shown.evaluate is None or step.evaluate is None:
            return Wanted(points, complete=True, greedy=shown)
        point = uniform_of(shown.evaluate, count)
        points[point] = "greedy"
        if not settled(point, known):
            return Wanted(points, complete=False, greedy=shown)
        done = known[point].status == "done"
        evaluated[step.evaluate] = known[point].select[metric].value if done else math.nan
