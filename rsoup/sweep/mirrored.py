"""What of a sweep goes to a tracker: numbers and names; no command, path, host or message, which may tell of a machine."""

from __future__ import annotations

import calendar
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Final

from rsoup.report.page import page
from rsoup.sweep.record import Record
from rsoup.sweep.score import value_columns
from rsoup.sweep.trackers import Closing, Entry

_KEPT: Final = (
    *("schema", "ingredients", "base", "method", "metrics", "front", "best", "hypervolume", "greedy"),
)
_POINT: Final = (
    *(
        "point",
        "lambda",
        "scale",
        "step",
        "status",
        "select",
        "report",
        "front",
        "expert",
        "seconds",
        "origin",
    ),
)


def entry(number: int, record: Record, names: Sequence[str]) -> Entry:
    """A record of the ledger, its `number`-th, for a tracker; `names` are the sweep's ingredients."""
    ended = calendar.timegm(time.strptime(record.finished, "%Y-%m-%dT%H:%M:%SZ"))
    return Entry(number, float(ended), values(record, names), texts(record))


def values(record: Record, names: Sequence[str]) -> dict[str, float]:
    """λ of every ingredient, scale, training step, seed, seconds, and each score with its standard error."""
    shares = {name: Fraction(record.mix.get(name, "0")) for name in dict.fromkeys((*names, *record.mix))}
    found = {f"lambda/{name}": float(share) for name, share in shares.items()}
    found |= {"scale": float(Fraction(record.scale)), "seed": float(record.seed), "seconds": record.seconds}
    found |= {} if record.step is None else {"training_step": float(record.step)}
    found["failed"] = float(record.status == "failed")
    for name, score in record.scores.items():
        found[f"{record.split}/{name}"] = score.value
        if score.error is not None:
            found[f"{record.split}/{name}_stderr"] = score.error
    return found


def texts(record: Record) -> dict[str, str]:
    """What names an evaluation, for trackers that take texts."""
    return {"point": record.point, "split": record.split, "origin": record.origin}


def closing(document: Mapping[str, Any]) -> Closing:
    """The hypervolume, the front as a table and the page of a metrics document, with what is nobody's business left out."""
    bare = without_places(document)
    volume = bare["hypervolume"] or {}
    found = {
        "hypervolume": volume.get("value"),
        "hypervolume_experts": volume.get("experts"),
        "points": float(len(bare["points"])),
        "points_failed": float(sum(point["status"] == "failed" for point in bare["points"])),
    }
    names, metrics = list(bare["ingredients"]), list(bare["metrics"])
    columns = ["point", *(f"lambda/{name}" for name in names), "scale", "training_step"]
    front = [point for point in bare["points"] if point["front"]]
    splits = ("select", "report") if any(point["report"] for point in front) else ("select",)
    columns += [column for name in metrics for column in value_columns(name, report=len(splits) > 1)]
    rows = [_row(point, names, metrics, splits) for point in front]
    numbers = {name: float(value) for name, value in found.items() if value is not None}
    return Closing(numbers, columns, rows, page(bare))


def digest(found: Closing) -> str:
    """SHA-256 of all of it: equal findings, equal digests."""
    text = json.dumps([dict(found.values), found.columns, found.rows, found.page], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _row(
    point: Mapping[str, Any], names: Sequence[str], metrics: Sequence[str], splits: Sequence[str]
) -> list[str | float | None]:
    cells: list[str | float | None] = [
        point["point"],
        *(float(Fraction(point["lambda"][name])) for name in names),
        float(Fraction(point["scale"])),
        point["step"],
    ]
    for name in metrics:
        for split in splits:
            value = (point[split] or {}).get(name, {})
            cells += [value.get("value"), value.get("error")]
    return cells


def without_places(document: Mapping[str, Any]) -> dict[str, Any]:
    """A metrics document without commands, evaluators' lines, messages and notes: they name files, hosts, sometimes keys."""
    points = [
        {
            **{key: value for key, value in point.items() if key in _POINT},
            "failure": None if point["failure"] is None else f"see {point['log']}",
        }
        for point in document["points"]
    ]
    evaluators = [f"evaluator {number}" for number in range(1, len(document["evaluators"]) + 1)]
    kept = {key: value for key, value in document.items() if key in _KEPT}
    return {**kept, "points": points, "evaluators": evaluators}
