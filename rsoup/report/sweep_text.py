"""A sweep as text: the live view while it runs, the table and the picture when it is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rsoup.errors import show
from rsoup.quantities import time_text
from rsoup.report.plot import Mark, scatter
from rsoup.report.terminal import columns

_ROWS = 40
_WIDTH = 64
_HEIGHT = 14

Document = Mapping[str, Any]


def value_text(measured: Mapping[str, Any] | None) -> str:
    """`0.712 ± 0.009`, four significant digits; `-` for what is not measured."""
    if not measured:
        return "-"
    error = measured.get("error")
    return f"{measured['value']:.4g}" + (f" ± {error:.2g}" if error is not None else "")


def table(found: Document, *, unicode: bool) -> list[str]:
    """Every point with its λ and values, those of the front marked; the front alone where there are many."""
    metrics = list(found["metrics"])
    points = found["points"]
    shown = points if len(points) <= _ROWS else [point for point in points if point["front"]]
    mark, lambda_ = ("●", "λ") if unicode else ("*", "lambda")
    reported = any(point["report"] for point in shown)
    head = ["", f"{lambda_} {','.join(show(name, 16) for name in found['ingredients'])}"]
    scaled = any(point["scale"] != "1" for point in shown)
    stepped = any(point["step"] is not None for point in shown)
    head += [*(["scale"] if scaled else []), *(["step"] if stepped else [])]
    head += [
        show(name, 24) + ("" if found["metrics"][name]["direction"] == "maximise" else " (min)")
        for name in metrics
    ]
    head += [f"{show(name, 20)}, reported" for name in metrics] if reported else []
    rows = []
    for point in shown:
        row = [mark if point["front"] else "", ",".join(point["lambda"].values())]
        row += [*([point["scale"]] if scaled else []), *([str(point["step"])] if stepped else [])]
        if point["status"] == "done":
            row += [value_text(point["select"].get(name)) for name in metrics]
        else:
            row += [point["status"], *[""] * (len(metrics) - 1)]
        row += [value_text((point["report"] or {}).get(name)) for name in metrics] if reported else []
        rows.append(row)
    lines = columns(head, rows)
    if len(shown) < len(points):
        lines.append(f"the front alone; all {len(points)} points are in points.csv")
    return lines


def picture(found: Document, *, unicode: bool, colour: bool) -> list[str]:
    """The first two rewards of all measured points as a scatter plot; nothing where there is but one reward."""
    rewards = [name for name, about in found["metrics"].items() if not about["guard"]]
    points = [point for point in found["points"] if point["status"] == "done"]
    if len(rewards) < 2 or len(points) < 2:
        return []
    x, y = rewards[:2]
    marks: list[tuple[float, float, Mark]] = [
        (
            point["select"][x]["value"],
            point["select"][y]["value"],
            "expert" if point["expert"] else "front" if point["front"] else "dominated",
        )
        for point in points
    ]
    return scatter(marks, width=_WIDTH, height=_HEIGHT, labels=(show(x, 24), show(y, 24)), unicode=unicode, colour=colour)  # fmt: skip


def summary(found: Document) -> list[str]:
    """The front in numbers: how many points, its hypervolume beside the experts'."""
    front, points = found["front"], found["points"]
    done = sum(point["status"] == "done" for point in points)
    text = f"{done} of {len(points)} points measured · front {len(front)}"
    volume = found["hypervolume"]
    if volume is not None:
        text += f" · hypervolume {volume['value']:.4f}"
        if volume["experts"] is not None:
            text += f" (experts alone {volume['experts']:.4f})"
    lines = [text]
    if found["greedy"] is not None:
        greedy = found["greedy"]
        kept = ", ".join(show(name) for name in greedy["kept"])
        lines.append(f"greedy soup: {len(greedy['kept'])} of {len(found['ingredients'])} kept, {show(greedy['metric'])} {greedy['score']:.6g}: {kept}")  # fmt: skip
    return lines


def final(found: Document, *, unicode: bool, colour: bool) -> list[str]:
    """What is shown when a sweep is over."""
    lines = table(found, unicode=unicode)
    drawn = picture(found, unicode=unicode, colour=colour)
    return [*lines, "", *drawn, *([""] if drawn else []), *summary(found)]


def running(
    *,
    done: int,
    total: int,
    failed: int,
    left_seconds: float | None,
    now: Mapping[int, tuple[str, float]],
    mixing: str | None,
    front: int,
    hypervolume: float | None,
) -> list[str]:
    """The live view: how far, how long, what every worker is at, how the front stands."""
    eta = "" if left_seconds is None else f" · about {time_text(left_seconds)} left"
    bad = f" · {failed} failed" if failed else ""
    volume = "" if hypervolume is None else f" · hypervolume {hypervolume:.4f}"
    lines = [f"evaluated {done}/{total}{bad} · front {front}{volume}{eta}"]
    if mixing is not None:
        lines.append(f"  soups     {mixing}")
    lines += [
        f"  worker {i + 1}  λ {show(what)} · {time_text(seconds)}"
        for i, (what, seconds) in sorted(now.items())
    ]
    return lines


def evaluated(
    point: str, split: str, scores: Mapping[str, float], failure: str | None, seconds: float
) -> str:
    """One line for an evaluation that has ended."""
    again = "" if split == "select" else " (report)"
    if failure is not None:
        return (
            f"{show(point)}{again}: failed after {time_text(seconds)}: {show(failure.splitlines()[0], 200)}"
        )
    values = " · ".join(f"{show(name, 24)} {value:.4g}" for name, value in scores.items())
    return f"{show(point)}{again}: {values} ({time_text(seconds)})"


def points_text(names: Sequence[str]) -> str:
    """The first and the last names of many."""
    if len(names) <= 12:
        return ", ".join(show(name) for name in names)
    return f"{', '.join(show(name) for name in names[:6])}, … {', '.join(show(name) for name in names[-3:])}"
