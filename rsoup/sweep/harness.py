"""Result files of lm-evaluation-harness, lighteval and inspect-ai: a score, its standard error, its direction.

An address is `lm-eval:TASK:METRIC`, `lighteval:TASK:METRIC` or `inspect:SCORER:METRIC`. Tasks and metrics may hold
colons; the split that the file knows is taken. These files hold other things than scores, so NaN is read,
and refused only where it is the score.
"""

from __future__ import annotations

import math
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from rsoup.errors import listing, show
from rsoup.sweep import scores
from rsoup.sweep.score import Metric, Score
from rsoup.sweep.scores import EvaluationFailed
from rsoup.sweep.zstandard_member import inflate

PROGRAMS: Final = ("lm-eval", "lighteval", "inspect")
MOST_FILES: Final = 20_000  # looked at below one folder

_RESULTS: Final = re.compile(r"_[0-9]{4}-[0-9]{2}-[0-9]{2}T[^/]*\.json")  # results_TIME.json, NAME_TIME.json
_MEANS: Final = ("accuracy", "mean")  # of inspect-ai's metrics, those whose error its `stderr` is


def is_address(text: str) -> bool:
    """Whether an address is one of these programs' files."""
    return text.partition(":")[0] in PROGRAMS


def check(metric: Metric) -> None:
    """Raise UsageError E0239 unless a metric's addresses can be meant."""
    for text in (metric.address, metric.error_address):
        if text is not None and not (is_address(text) and _splits(text)):
            scores.parse_address(text)


def read(metrics: Sequence[Metric], *, document: Callable[[], object], folder: str) -> dict[str, Score]:
    """Every metric's score: `$` addresses from `document()`, which is asked once, the others from files below `folder`.

    Raises EvaluationFailed for the first that is missing or is no finite number.
    """
    found: dict[str, Score] = {}
    printed: list[object] = []
    files: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for metric in metrics:
        program = metric.address.partition(":")[0]
        if program in PROGRAMS:
            if program not in files:
                files[program] = list(_logs(folder) if program == "inspect" else _results(folder))
            found[metric.name] = of_files(metric, files[program])
        else:
            if not printed:
                printed.append(document())
            found[metric.name] = scores.of_document(metric, printed[0])
    return found


def of_files(metric: Metric, files: Sequence[tuple[str, dict[str, Any]]]) -> Score:
    """A metric's score in (name, content) of one program's files, newest first."""
    program = metric.address.partition(":")[0]
    look = {"lm-eval": _lm_eval, "lighteval": _lighteval, "inspect": _inspect}[program]
    value, error, maximise = look(metric.address, files)
    if metric.error_address is not None:
        error, _, _ = look(metric.error_address, files)
    elif not isinstance(error, int | float) or math.isnan(error):
        error = None  # `N/A`, or NaN where there was one sample: the program knows none
    return scores.score(metric.name, value, error, maximise if isinstance(maximise, bool) else None)


Found = tuple[object, object, object]  # value, standard error, whether higher is better


def _lm_eval(address: str, files: Sequence[tuple[str, dict[str, Any]]]) -> Found:
    content, task, name = _table(address, files)
    row = _row(content, task)
    base, comma, kind = name.partition(",")
    direction = _mapping(_mapping(content.get("higher_is_better")).get(task)).get(base)
    return row[name], row.get(f"{base}_stderr{comma}{kind}"), direction


def _lighteval(address: str, files: Sequence[tuple[str, dict[str, Any]]]) -> Found:
    content, task, name = _table(address, files)
    row = _row(content, task)
    config = _mapping(_mapping(content.get("config_tasks")).get(task))
    direction: object = None
    for metric in _list(config.get("metrics")):
        better = _mapping(metric).get("higher_is_better")
        if isinstance(better, Mapping) and name in better:
            direction = better[name]
        elif _mapping(metric).get("metric_name") == name:
            direction = better
    return row[name], row.get(f"{name}_stderr"), direction


def _table(address: str, files: Sequence[tuple[str, dict[str, Any]]]) -> tuple[dict[str, Any], str, str]:
    """(content, task, metric) of the newest file whose `results` has the task of an address."""
    if not files:
        raise EvaluationFailed(
            f"{show(address)} is missing: it wrote no results_TIME.json below its {{out}} folder"
        )
    for _, content in files:
        tasks = {**_mapping(content.get("groups")), **_mapping(content.get("results"))}
        splits = [split for split in _splits(address) if split[0] in tasks]
        for task, name in splits:
            if name in _row(content, task):
                return content, task, name
        if splits:
            task, name = splits[0]
            there = [key for key in _row(content, task) if "_stderr" not in key]
            raise EvaluationFailed(
                f"{show(address)} is missing: '{show(task)}' has no '{show(name)}', only {listing(there, 10)}"
            )
    known = [task for _, content in files for task in _mapping(content.get("results"))]
    raise EvaluationFailed(
        f"{show(address)} is missing: the tasks in the results are {listing(known, 10) or 'none'}"
    )


def _row(content: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Everything that a file says of a task, or of a group of tasks."""
    groups, results = _mapping(content.get("groups")), _mapping(content.get("results"))
    return {**_mapping(groups.get(task)), **_mapping(results.get(task))}


def _inspect(address: str, files: Sequence[tuple[str, dict[str, Any]]]) -> Found:
    if not files:
        raise EvaluationFailed(
            f"{show(address)} is missing: it wrote no log of inspect-ai below its {{out}} folder"
        )
    by_task: dict[str, dict[str, Any]] = {}
    for _, content in files:
        by_task.setdefault(str(_mapping(content.get("eval")).get("task")), content)
    rows: list[tuple[str, str, Mapping[str, Any], str]] = []
    for task, content in by_task.items():
        if content.get("status") != "success":
            why = _mapping(content.get("error")).get("message", "")
            raise EvaluationFailed(
                f"inspect-ai's status of '{show(task)}' is '{show(content.get('status'))}', not 'success'"
                + (f": {show(why, 200)}" if why else "")
            )
        for entry in _list(_mapping(content.get("results")).get("scores")):
            entry = _mapping(entry)  # noqa: PLW2901 - the same entry, known to be a mapping
            names = {str(entry.get("name")), f"{entry.get('name')}/{entry.get('reducer')}"}
            rows += [(task, scorer, entry, name) for scorer, name in _splits(address) if scorer in names]
    found = [row for row in rows if row[3] in _mapping(row[2].get("metrics"))]
    if len(found) > 1:
        places = [f"{task}: {entry.get('name')}/{entry.get('reducer')}" for task, _, entry, _ in found]
        raise EvaluationFailed(
            f"{show(address)} stands in several places, {listing(places)}: run one task per evaluator, or say SCORER/REDUCER"
        )
    if not found:
        there = [
            f"{entry.get('name')}:{name}"
            for _, _, entry, _ in rows
            for name in _mapping(entry.get("metrics"))
        ]
        raise EvaluationFailed(
            f"{show(address)} is missing: the log has {listing(there, 10) or 'no such scorer'}"
        )
    metrics, name = _mapping(found[0][2].get("metrics")), found[0][3]
    error = _mapping(metrics.get("stderr")).get("value") if name in _MEANS else None
    return _mapping(metrics[name]).get("value"), error, None


def _splits(address: str) -> list[tuple[str, str]]:
    """Every (task, metric) that an address may mean, the last colon first."""
    rest = address.partition(":")[2]
    places = [at for at, letter in enumerate(rest) if letter == ":"]
    return [(rest[:at], rest[at + 1 :]) for at in reversed(places) if 0 < at < len(rest) - 1]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _newest_first(folder: str) -> Iterator[str]:
    """Regular files below a folder, no links followed, newest first."""
    found: list[tuple[int, str]] = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if len(found) > MOST_FILES:
                raise EvaluationFailed(f"it wrote more than {MOST_FILES} files")
            if os.path.isfile(path) and not os.path.islink(path):
                found.append((os.stat(path).st_mtime_ns, path))
    yield from (path for _, path in sorted(found, reverse=True))


def _results(folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in _newest_first(folder):
        name = os.path.basename(path)
        if _RESULTS.search(name) or (name.startswith("results") and name.endswith(".json")):
            content = scores.file_json(path, not_finite=True)
            if isinstance(content, dict) and isinstance(content.get("results"), dict):
                yield name, content


def _logs(folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in _newest_first(folder):
        name = os.path.basename(path)
        if name.endswith(".eval"):
            content = _header(path)
        elif name.endswith(".json"):
            content = scores.file_json(path, not_finite=True)
        else:
            continue
        if isinstance(content, dict) and isinstance(content.get("eval"), dict) and "status" in content:
            yield name, content


def _header(path: str) -> object:
    """`header.json` of an `.eval` archive, which is written last: without it, the evaluation did not end."""
    name = f"'{show(os.path.basename(path))}'"
    try:
        with zipfile.ZipFile(path) as archive:
            if "header.json" not in archive.namelist():
                raise EvaluationFailed(f"{name} has no header: the evaluation did not end")
            text = inflate(path, archive, archive.getinfo("header.json"), scores.FILE_BYTES).decode()
    except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
        raise EvaluationFailed(f"{name} cannot be read: {show(error)}") from None
    return scores.parse_json(text, not_finite=True)
