"""The figures of an analysis: which there are for these points, and what is drawn in each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import Any, Final

from rsoup.analysis.compared import Other
from rsoup.analysis.data import Data, data_of, lambda_of, steps_of
from rsoup.analysis.owning import base_of
from rsoup.errors import UsageError, show
from rsoup.figures.series import Axis, Band, Kind, Mark, Model, Panel, Step
from rsoup.front.pareto import scaled
from rsoup.front.smoothing import smooth
from rsoup.measured.values import Row, Table
from rsoup.mix import format_number

KINDS: Final = ("front", "spider", "connectivity", "advantage", "training", "transfer")
_MOST_PAIRS = 6
_MOST_MODELS = 8
_SPIDER_AXES = range(3, 9)

Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is drawn: the table, its points, other models, and what was found."""

    table: Table
    data: Data
    others: Sequence[Other]
    found: Found
    smooth: bool = False
    base_point: str | None = None


def drawn(kind: str, subject: Subject) -> dict[str, str]:
    """The figures of a kind, by file name without ending; more than one where rewards come in pairs.

    Empty where these points have no figure of that kind.
    """
    return _MAKERS[kind](subject)


def _axes(data: Data) -> list[Axis]:
    return [Axis(name, up) for name, up in zip(data.rewards, data.maximise, strict=True)]


def _preference(row: Row, rewards: int) -> str:
    """What a compared point is called: with two rewards and a pair of λ (the μ it was trained for) by the second."""
    if row.label is None and rewards == 2 and row.mix is not None and len(row.mix) == 2:
        return f"μ {format_number(row.mix[1])}"
    return _label(row)


def _label(row: Row) -> str:
    return row.label or row.lambda_text or row.name


def pairs_left_out(data: Data) -> str | None:
    """What to say where not all pairs of rewards are drawn; None where they are."""
    count = len(data.rewards)
    pairs = list(combinations(range(count), 2))
    if len(pairs) <= _MOST_PAIRS:
        return None
    return (
        f"{_MOST_PAIRS} of the {len(pairs)} pairs of rewards are drawn: --reward, four times, says of which"
    )


def _fronts(subject: Subject) -> dict[str, str]:
    data = subject.data
    axes = _axes(data)
    pairs = list(combinations(range(len(axes)), 2))[:_MOST_PAIRS]
    if len(pairs) == 1:
        return {"front": _front(subject, axes, *pairs[0])}
    names = [_safe(axis.name) for axis in axes]
    if len(set(names)) < len(names):
        names = [f"{k}-{name}" for k, name in enumerate(names, 1)]
    return {f"front-{names[i]}-{names[j]}": _front(subject, axes, i, j) for i, j in pairs}


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)[:40]


def _front(subject: Subject, axes: Sequence[Axis], i: int, j: int) -> str:
    from rsoup.figures.front import front

    data = subject.data
    marks = [
        Mark(row[i], row[j], errors[i], errors[j], _label(point), kind)
        for row, errors, point, kind in zip(
            data.values, data.errors, data.rows, _kinds(data, subject.base_point), strict=True
        )
    ]
    for other in subject.others:
        marks += [
            Mark(row[i], row[j], e[i], e[j], _preference(point, len(axes)), "compared", other.name)
            for row, e, point in zip(other.values, other.errors, other.rows, strict=True)
        ]
    curve, note = _curve(subject, i, j)
    two = len(data.rewards) == 2
    second = data.ingredients[1] if len(data.ingredients) == 2 else "the second ingredient"
    reference = (data.reference.values[i], data.reference.values[j]) if two else None
    return front(marks, axes[i], axes[j], reference=reference, curve=curve, second=second, note=note)


def _kinds(data: Data, base_point: str | None) -> list[Kind]:
    on = set(data.front)
    base = base_of(data, base_point)
    return [
        "base" if i == base else "expert" if i in data.experts else "front" if i in on else "dominated"
        for i in range(len(data.rows))
    ]


def _curve(subject: Subject, i: int, j: int) -> tuple[Sequence[tuple[float, float]], str]:
    """The paper's smoothed curve through the soups of two ingredients, in order of λ, where it is asked for."""
    data = subject.data
    rows = [(mix, k) for k, row in enumerate(data.rows) if (mix := lambda_of(row)) is not None]
    if not subject.smooth or len(data.ingredients) != 2 or len(rows) < 3:
        return (), ""
    unique = dict(reversed(rows))
    found = smooth(
        [mix[1] for mix in unique], [(data.values[k][i], data.values[k][j]) for k in unique.values()]
    )
    return ([(x, y) for x, y in found.points], f"It is a {found.how}.") if found.smoothed else ((), "")


def _spider(subject: Subject) -> dict[str, str]:
    from rsoup.figures.spider import spider

    data = subject.data
    if len(data.rewards) not in _SPIDER_AXES:
        return {}
    models = spider_models(data, subject.others, subject.base_point)
    return {"spider": spider(models, _axes(data))} if len(models) > 1 else {}


def spider_models(data: Data, others: Sequence[Other] = (), base_point: str | None = None) -> list[Model]:
    """The models worth a polygon: the base, each expert, the uniform soup, the best of each set of others."""
    found = []
    if (base := base_of(data, base_point)) is not None:
        found.append(Model("base", data.values[base], "base"))
    found += [
        Model(name, data.values[i], "expert")
        for name, i in zip(data.ingredients, data.experts, strict=True)
        if i is not None
    ]
    count = len(data.ingredients)
    even = next((i for i, row in enumerate(data.rows) if (mix := lambda_of(row)) is not None and count > 1 and len(set(mix)) == 1), None)  # fmt: skip
    if even is not None:
        found.append(Model("uniform soup", data.values[even]))
    if not found:
        found = [Model(_label(data.rows[i]), data.values[i]) for i in data.front]
    found = found[: max(_MOST_MODELS - len(others), 1)]
    for other in others:
        best = max(range(len(other.values)), key=lambda k: _total(data, other.values[k]))
        found.append(Model(f"{other.name}: {_label(other.rows[best])}", other.values[best], "compared"))
    return found[:_MOST_MODELS]


def spider_lines(subject: Subject, *, unicode: bool, colour: bool) -> list[str]:
    """The spider for a terminal; nothing where there are not three to eight rewards and two models."""
    from rsoup.figures.terminal_spider import lines

    data = subject.data
    models = spider_models(data, subject.others, subject.base_point)
    if len(data.rewards) not in _SPIDER_AXES or len(models) < 2:
        return []
    return lines(models, _axes(data), unicode=unicode, colour=colour)


def _total(data: Data, values: Sequence[float]) -> float:
    return sum(scaled(values, data.maximise, data.reference))


def _connectivity(subject: Subject) -> dict[str, str]:
    from rsoup.figures.connectivity import connectivity

    data, lmc = subject.data, subject.found["connectivity"]
    if lmc is None or len(data.ingredients) != 2 or any(i is None for i in data.experts):
        return {}
    panels = []
    for name, up in zip((*data.rewards, *data.guards), (*data.maximise, *data.guard_maximise), strict=True):
        marks: dict[tuple[Fraction, ...], Mark] = {}
        for row in data.rows:
            mix = lambda_of(row)
            score = (row.report if data.split == "report" else row.select).get(name)
            if mix is not None and score is not None:
                kind: Kind = "expert" if max(mix) == 1 else "front"
                marks.setdefault(
                    mix, Mark(float(mix[1]), score.value, None, score.error, format_number(mix[1]), kind)
                )
        ends = {mark.x for mark in marks.values()}
        verdict = (lmc["rewards"].get(name) or lmc["guards"].get(name) or {}).get("verdict", "")
        if {0.0, 1.0} <= ends:
            ordered = tuple(sorted(marks.values(), key=lambda mark: mark.x))
            panels.append(Panel(Axis(name, up), ordered, guard=name in data.guards, verdict=verdict))
    first, second = data.ingredients
    return {"connectivity": connectivity(panels, first, second)} if panels else {}


def _advantage(subject: Subject) -> dict[str, str]:
    from rsoup.figures.advantage import advantage

    found = {}
    for other in subject.found["compared"]:
        curve = other["advantage"]
        if curve is None:
            continue
        bands = []
        for row in curve["curve"]:
            about = row["average"]
            known = about["interval"]
            low, high = (known["low"], known["high"]) if known else (about["low"], about["high"])
            value = about["value"]
            bands.append(Band(row["trainings"], value, min(low, value), max(high, value)))
        sure = next(
            (row["average"]["interval"] for row in curve["curve"] if row["average"]["interval"]), None
        )
        name = "advantage" if len(subject.found["compared"]) == 1 else f"advantage-{_safe(other['name'])}"
        found[name] = advantage(
            bands,
            what=curve["measure"].replace("_", " "),
            over=show(other["name"], 40),
            interval=f"{sure['confidence'] * 100:g} % interval" if sure else "range over the choices of M",
            worth=curve["worth"]["average"],
        )
    return found


def _training(subject: Subject) -> dict[str, str]:
    from rsoup.figures.training import fronts, measures

    data, found = subject.data, {}
    if not subject.found["training"]:
        return {}
    axes = _axes(data)
    steps = []
    for step in steps_of(subject.table):
        if step is None:
            continue
        try:
            mine = data_of(subject.table, step=step, split=data.split)
        except UsageError:
            continue
        marks = [
            Mark(row[0], row[1], e[0], e[1], _label(point), kind)
            for row, e, point, kind in zip(mine.values, mine.errors, mine.rows, _kinds(mine, None), strict=True)
        ] if len(axes) > 1 else []  # fmt: skip
        steps.append(Step(step, tuple(marks)))
    if len(axes) > 1:
        found["training-fronts"] = fronts(steps, axes[0], axes[1])
    panels = [
        Panel(Axis(name), tuple(Mark(row["step"], row[key]) for row in subject.found["training"] if row[key] is not None))
        for name, key in (("hypervolume", "hypervolume"), ("expected reward", "expected_reward"), ("worst gap to the chord", "worst_gap"))
    ]  # fmt: skip
    far = {
        name: tuple(Mark(row["step"], row["distances"][name]) for row in subject.found["training"] if row["distances"] and name in row["distances"])
        for name in data.ingredients
    }  # fmt: skip
    panels += [Panel(Axis(f"distance of {name}", False), marks) for name, marks in far.items() if marks]
    found["training-measures"] = measures([panel for panel in panels if panel.marks])
    return found


def _transfer(subject: Subject) -> dict[str, str]:
    from rsoup.figures.transfer import transfer

    about, data = subject.found["transfer"], subject.data
    if about is None or len(data.rewards) < 2:
        return {}
    experts = list(about["experts"].values())
    square = None not in experts and len(set(experts)) == len(experts) == len(data.ingredients)
    names = [str(name) for name in experts] if square else list(data.ingredients)
    values = [[about["values"][name][reward] for reward in data.rewards] for name in names]
    base = None if about["base_values"] is None else [about["base_values"][r] for r in data.rewards]
    pairs = [tuple(data.rewards.index(r) for r in rewards) for rewards in about["antagonistic"]]
    marked = [(i, j) for i, j in pairs] if square else []
    return {"transfer": transfer(names, _axes(data), values, base=base, antagonistic=marked)}


_MAKERS: Final[Mapping[str, Callable[[Subject], dict[str, str]]]] = {
    "front": _fronts,
    "spider": _spider,
    "connectivity": _connectivity,
    "advantage": _advantage,
    "training": _training,
    "transfer": _transfer,
}
