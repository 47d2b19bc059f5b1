"""Hypothesis 2 on a table's points: soups against models made otherwise, above all one training per preference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rsoup.analysis.data import Data, relative, steps_of
from rsoup.analysis.intervals import Noise, interval
from rsoup.errors import UsageError, listing, show
from rsoup.front import advantage as curves
from rsoup.front.batches import expected_rewards, hypervolumes
from rsoup.front.different import different
from rsoup.front.expected import Loss, expected_reward, utility_loss
from rsoup.front.noise import Estimate, bootstraps
from rsoup.front.pareto import scaled, volume
from rsoup.front.versus import Standing, versus
from rsoup.measured.values import Measured, Row, Table

Found = Mapping[str, Any]
_MOST_AVERAGED = 20_000
_MOST_DRAWN = 500  # points whose losses are drawn
_FEW = 300  # subsets per size where a measure has no fast form


@dataclass(frozen=True, slots=True)
class Other:
    """A set of points to compare with: its name, points, values in the rewards' units, errors, repeats.

    `trainings` is how many trainings one point of it took.
    """

    name: str
    rows: tuple[Row, ...]
    values: tuple[tuple[float, ...], ...]
    errors: tuple[tuple[float | None, ...], ...]
    repeats: tuple[tuple[int | None, ...], ...]
    trainings: float = 1


def other_of(name: str, table: Table, data: Data, *, trainings: float = 1) -> Other:
    """The measured points of `table` in the rewards of `data`, ordered by λ where there is one (the μ they were trained for).

    Raises UsageError E0256 for a table without one of the rewards, or without a point that has all.
    """
    if missing := [reward for reward in data.rewards if reward not in table.metrics]:
        raise UsageError(
            "E0256",
            f"there is no '{show(missing[0])}' to compare",
            where=table.shown,
            hint=f"there are {listing(list(table.metrics), 20)}",
        )
    for reward, up in zip(data.rewards, data.maximise, strict=True):
        said = table.metrics[reward].maximise
        if said is not None and said != up:
            raise UsageError(
                "E0256",
                f"'{show(reward)}' is better when {'larger' if up else 'smaller'} here, and the other way round there",
                where=table.shown,
                hint="compare like with like",
            )
    rows = [
        row for row in _of_step(table, data) if all(reward in _scores(row, data) for reward in data.rewards)
    ]
    if not rows:
        raise UsageError(
            "E0256", "no point of it has every reward", where=table.shown,
            hint=f"the rewards are {listing(list(data.rewards))}",
        )  # fmt: skip
    if all(row.mix is not None for row in rows):
        rows.sort(key=lambda row: row.mix or (), reverse=True)
    rows = [_called(row, table) for row in rows]
    scores = [[_scores(row, data)[reward] for reward in data.rewards] for row in rows]
    return Other(
        name,
        tuple(rows),
        tuple(tuple(score.value for score in row) for row in scores),
        tuple(tuple(score.error for score in row) for row in scores),
        tuple(tuple(score.repeats for score in row) for row in scores),
        trainings,
    )


def _of_step(table: Table, data: Data) -> list[Row]:
    """The measured points of the training step that `data` is about; all of them where they have but one step."""
    steps, mine = steps_of(table), data.rows[0].step
    if len(steps) > 1 and mine not in steps:
        raise UsageError(
            "E0256", f"it has {len(steps)} training steps, and checkpoints of one run are no trainings of their own",
            where=table.shown, hint=f"take one of them: TABLE:step={steps[-1]}",
        )  # fmt: skip
    return [row for row in table.done if len(steps) < 2 or row.step == mine]


def _called(row: Row, table: Table) -> Row:
    """A checkpoint that was swept by itself goes by its own name."""
    alone = row.expert
    if row.label is not None or alone is None or alone >= len(table.ingredients):
        return row
    return replace(row, label=table.ingredients[alone])


def _scores(row: Row, data: Data) -> Mapping[str, Measured]:
    return row.report if data.split == "report" and row.report else row.select


def compared(data: Data, other: Other, noise: Noise, *, trainings: float | None = None) -> Found:
    """Who dominates whom, both hypervolumes, expected rewards, and the advantage over M of the others.

    `trainings` is what the soups took; default one per ingredient. Of reported soups those take part that the select
    values found.
    """
    data = data.only(data.valued)
    ours = data.gains
    theirs = [scaled(point, data.maximise, data.reference) for point in other.values]
    their_errors = [relative(row, data.reference) for row in other.errors]
    known = data.has_errors and all(e is not None for row in their_errors for e in row)
    found = versus(
        ours,
        theirs,
        our_errors=data.relative_errors if known else None,
        their_errors=their_errors if known else None,
        our_repeats=data.repeats if known else None,
        their_repeats=other.repeats if known else None,
        confidence=noise.confidence,
    )
    names = [row.name for row in other.rows]
    loss, reverse = utility_loss(ours, theirs), utility_loss(theirs, ours)
    between = _loss_intervals(data, other, theirs, their_errors, noise) if known else (None, None)
    return {
        "name": other.name,
        "points": [_standing(data, other, names, s) for s in found.standings],
        "front": [names[i] for i in found.their_front],
        "dominated": found.count("dominated"),
        "dominate": found.count("dominates"),
        "incomparable": found.count("incomparable"),
        "equal": found.count("equal"),
        "distance_definition": "how far the point lies beyond the front of the soups: the gain in every reward, in spans, with which some soup would be as good; below 0: some soup is better in every reward",
        "hypervolume": {
            "soups": found.our_volume,
            "others": found.their_volume,
            "together": found.both_volume,
            "only_soups": found.only_ours,
            "only_others": found.only_theirs,
        },
        "expected_reward": {
            "soups": expected_reward(ours).value,
            "others": expected_reward(theirs).value,
            "largest_loss_of_soups": _loss(loss, between[0]),
            "largest_loss_of_others": _loss(reverse, between[1]),
        },
        "needed": {
            "definition": "the gain in every reward, in spans, with which one set would be at least as good as each point of the other",
            "soups": found.we_need,
            "others": found.they_need,
        },
        "advantage": _advantage(data, other, theirs, their_errors, noise, trainings) if len(theirs) > 1 else None,
    }  # fmt: skip


def _loss(loss: Loss, between: Estimate | None) -> Found:
    return {
        "value": loss.value,
        "at_preference": list(loss.preference),
        "exact": loss.exact,
        "interval": interval(between),
    }


def _loss_intervals(
    data: Data,
    other: Other,
    theirs: Sequence[tuple[float, ...]],
    their_errors: Sequence[tuple[float | None, ...]],
    noise: Noise,
) -> tuple[Estimate | None, Estimate | None]:
    """Of what the soups lack to the others and the others to the soups, for two rewards; reference and spans as they are."""
    from rsoup.front.batch_shape import losses

    points = different([*data.gains, *theirs], [*data.relative_errors, *their_errors], [*data.repeats, *other.repeats])  # fmt: skip
    if len(data.rewards) != 2 or len(points.rows) > _MOST_DRAWN:
        return None, None
    ours, rest = points.rows[: len(data.rows)], points.rows[len(data.rows) :]

    def both(sets: Any) -> Any:
        import numpy as np

        mine, other = sets[:, ours], sets[:, rest]
        return np.stack([losses(mine, other), losses(other, mine)], axis=1)

    found = bootstraps(
        points.values, points.errors, points.repeats, both,
        draws=max(min(noise.draws, 400), noise.least), seed=noise.seed, confidence=noise.confidence,
    )  # fmt: skip
    return found[0], found[1]


def _standing(data: Data, other: Other, names: Sequence[str], standing: Standing) -> Found:
    row = other.rows[standing.point]
    certain = standing.certainly_dominated_by, standing.certainly_dominates
    return {
        "point": names[standing.point],
        "label": row.label,
        "rewards": dict(zip(data.rewards, other.values[standing.point], strict=True)),
        "errors": dict(zip(data.rewards, other.errors[standing.point], strict=True)),
        "relation": standing.relation,
        "dominated_by": [data.names[i] for i in standing.dominated_by],
        "dominates": [data.names[i] for i in standing.dominates],
        "certainly_dominated_by": None if certain[0] is None else [data.names[i] for i in certain[0]],
        "certainly_dominates": None if certain[1] is None else [data.names[i] for i in certain[1]],
        "distance": standing.distance,
    }


def _advantage(
    data: Data,
    other: Other,
    theirs: Sequence[tuple[float, ...]],
    their_errors: Sequence[tuple[float | None, ...]],
    noise: Noise,
    trainings: float | None,
) -> Found | None:
    """The paper's advantage over M trainings; None where one training alone has no extremes to begin with."""
    two = len(data.rewards) == 2
    count = len(data.rewards)
    extremes = None if two else _best_in_each(theirs)
    if len(theirs) < count or (extremes is not None and len(theirs) < len(extremes)):
        return None
    known = two and data.has_errors and all(e is not None for row in their_errors for e in row)
    mine = trainings if trainings is not None else float(max(len(data.ingredients), 1))
    found = curves.advantage(
        data.gains,
        theirs,
        (lambda points: expected_reward(points).value) if two else volume,
        extremes=extremes,
        cost=curves.Cost(mine, len(data.rows)),
        each_cost=curves.Cost(other.trainings, 1),
        many=expected_rewards if two else hypervolumes,
        noise=curves.Noise(
            data.relative_errors, their_errors, data.repeats, other.repeats,
            draws=max(min(noise.draws, 400), noise.least), confidence=noise.confidence,
        ) if known else None,
        most=_MOST_AVERAGED if two else _FEW,
        sample=2_000 if two else _FEW,
        seed=noise.seed,
    )  # fmt: skip
    average, spaced = found.worth(lambda row: row.average), found.worth(lambda row: row.spaced)
    return {
        "definition": "expected reward (two rewards) or hypervolume (more) of the soups, less that of M of the others: M equally spaced (the paper's), M nested, and the mean over all choices of M",
        "measure": "expected_reward" if two else "hypervolume",
        "soups": {"value": found.ours, "trainings": found.cost.trainings, "evaluations": found.cost.evaluations},
        "worth": {
            "average": average,
            "average_between": list(found.worth_between(lambda row: row.average)) if known else None,
            "spaced": spaced,
            "of": len(theirs),
        },
        "curve": [
            {
                "trainings": row.trainings,
                "spaced": _among(row.spaced),
                "nested": _among(row.nested),
                "average": _among(row.average),
                "cost": {"trainings": row.cost.trainings, "evaluations": row.cost.evaluations},
            }
            for row in found.curve
        ],
    }  # fmt: skip


def _best_in_each(points: Sequence[tuple[float, ...]]) -> list[int]:
    """The point that is best in each reward, each once."""
    best = [max(range(len(points)), key=lambda i: points[i][k]) for k in range(len(points[0]))]
    return list(dict.fromkeys(best))


def _among(among: curves.Among | None) -> Found | None:
    if among is None:
        return None
    return {
        "value": among.value,
        "low": among.low,
        "high": among.high,
        "subsets": among.subsets,
        "all_subsets": among.exact,
        "interval": interval(among.interval),
    }
