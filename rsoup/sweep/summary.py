"""The sweep's results as documents: metrics.json, points.csv, the report page."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from rsoup.front.pareto import covered, reference_of
from rsoup.mix import format_number
from rsoup.storage.whole import write_whole
from rsoup.sweep import folder as folders
from rsoup.sweep.board import Board
from rsoup.sweep.outcomes import Outcome
from rsoup.sweep.point import Point
from rsoup.sweep.results import best_of, directions, done_of, front_of, rewards_of
from rsoup.sweep.score import value_columns
from rsoup.sweep.scoring import Measured
from rsoup.sweep.study import Study

SCHEMA = "rsoup-metrics/1"


def document(study: Study, board: Board, notes: Sequence[str]) -> dict[str, object]:
    """Everything a sweep has found out so far, as JSON; equal for equal results."""
    spec, known = study.spec, board.known
    up = directions(spec, board.ledger.records())
    front = front_of(spec, known, up, board.wanted.greedy)
    best = best_of(spec, known, up, front)
    return {
        "schema": SCHEMA,
        "ingredients": list(study.names),
        "base": None if study.base is None else os.path.basename(study.base.rstrip("/")),
        "method": spec.request.method,
        "evaluators": [evaluator.run or evaluator.function for evaluator in spec.evaluators],
        "metrics": {
            metric.name: {
                "direction": "maximise" if up[metric.name] else "minimise",
                "guard": metric.guard,
                "address": metric.address,
            }
            for metric in spec.metrics
        },
        "points": [_point(study, board, known[point], point in front) for point in board.wanted.points],
        "front": [point.name for point in front],
        "best": None if best is None else best.name,
        "hypervolume": hypervolume(study, known, up),
        "greedy": _greedy(study, board),
        "distances": folders.distances(study.folder),
        "notes": list(notes),
    }


def _point(study: Study, board: Board, outcome: Outcome, on_front: bool) -> dict[str, object]:
    point = outcome.point
    alone = [name for name, share in zip(study.names, point.mix, strict=True) if share == 1]
    return {
        "point": point.name,
        "lambda": {n: format_number(s) for n, s in zip(study.names, point.mix, strict=True)},
        "scale": format_number(point.scale),
        "step": point.step,
        "status": outcome.status,
        "select": _values(outcome.select),
        "report": None if outcome.report is None else _values(outcome.report),
        "front": on_front,
        "expert": alone[0] if alone and point.scale == 1 and set(point.mix) <= {0, 1} else None,
        "failure": outcome.failure,
        "log": outcome.log,
        "seconds": round(outcome.seconds, 3),
        "soup": outcome.soup,
        "command": study.merge_command(point),
        "origin": board.wanted.points[point],
    }


def _values(measured: Mapping[str, Measured]) -> dict[str, object]:
    return {name: {"value": m.value, "error": m.error, "n": m.n} for name, m in measured.items()}


def hypervolume(
    study: Study, known: Mapping[Point, Outcome], maximise: Mapping[str, bool]
) -> dict[str, Any] | None:
    """The share of the box between the experts that the measured points cover; None where it is not defined.

    Of several training steps, that of the last one that is measured.
    """
    names = rewards_of(study.spec)
    steps = [step for step in study.steps if any(o.point.step == step for o in done_of(known))]
    mine = [outcome for outcome in done_of(known) if steps and outcome.point.step == steps[-1]]
    if len(names) < 2 or len(mine) < 2:
        return None
    values = [tuple(outcome.select[name].value for name in names) for outcome in mine]
    experts = [v for v, o in zip(values, mine, strict=True) if max(o.point.mix) == 1 and o.point.scale == 1]
    up = [maximise[name] for name in names]
    reference = reference_of(values, up, experts=experts)
    found = covered(values, up, reference)
    shown = dict(zip(names, found.reference, strict=True))
    alone = covered(experts, up, reference).value if experts else None
    return {"value": found.value, "experts": alone, "reference": shown, "how": found.how}


def _greedy(study: Study, board: Board) -> dict[str, object] | None:
    step = board.wanted.greedy
    if step is None:
        return None
    return {
        "metric": study.spec.metric,
        "finished": step.evaluate is None,
        "kept": [study.names[i] for i in step.kept],
        "score": step.score,
        "trail": [
            {"candidate": study.names[t.candidate], "score": t.score, "kept": t.kept} for t in step.trail
        ],
    }


def table(found: Mapping[str, object], study: Study) -> str:
    """The points as CSV: λ by ingredient, every metric with its standard error, of the report split where there is one."""
    metrics = [metric.name for metric in study.spec.metrics]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    report = study.spec.report_repeats > 0
    columns = [column for name in metrics for column in value_columns(name, report=report)]
    writer.writerow(["point", *(f"lambda_{name}" for name in study.names), "scale", "step", "status", "front", *columns])  # fmt: skip
    for point in points_of(found):
        cells = []
        for name in metrics:
            for split in ("select", *(("report",) if report else ())):
                value = (point[split] or {}).get(name, {})
                cells += [value.get("value"), value.get("error")]
        shares = list(point["lambda"].values())
        writer.writerow([point["point"], *shares, point["scale"], point["step"], point["status"], int(point["front"]), *cells])  # fmt: skip
    return stream.getvalue()


def points_of(found: Mapping[str, object]) -> list[dict[str, Any]]:
    """The points of a document."""
    points = found["points"]
    assert isinstance(points, list)
    return points


def left_by(study: Study, outcome: Outcome) -> dict[str, object]:
    """Samples and images that an evaluation of the point left, the first one's that left any."""
    from rsoup.report.page_samples import collect

    outputs = os.path.join(study.folder, folders.OUTPUTS)
    return next((left for place in outcome.places if (left := collect(os.path.join(outputs, place)))), {})


def write(study: Study, board: Board, notes: Sequence[str]) -> dict[str, object]:
    """Write metrics.json, points.csv, report.html and the recipes of the front's points; what metrics.json holds."""
    from rsoup.recipe_yaml import dump
    from rsoup.report.page import page

    found = document(study, board, notes)
    text = json.dumps(found, indent=2, allow_nan=False) + "\n"
    write_whole(os.path.join(study.folder, folders.METRICS), text.encode())
    write_whole(os.path.join(study.folder, folders.POINTS), table(found, study).encode())
    left = {point.name: left_by(study, outcome) for point, outcome in board.known.items()}
    shown = {**found, "points": [point | left[point["point"]] for point in points_of(found)]}
    write_whole(os.path.join(study.folder, folders.PAGE), page(shown).encode())
    names = found["front"]
    assert isinstance(names, list)
    recipes = os.path.join(study.folder, "recipes")
    os.makedirs(recipes, exist_ok=True)
    for point in board.wanted.points:
        if point.name in names:
            path = os.path.join(recipes, f"{point.name}.yaml")
            write_whole(path, dump(study.recipe(point)).encode("utf-8", "surrogateescape"))
    return found
