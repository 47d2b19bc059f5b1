"""Scores from what an evaluator printed: JSON read strictly, numbers found by their address, nothing guessed."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn, cast

from rsoup.errors import UsageError, listing, show
from rsoup.sweep.score import Metric, Score

LINE_BYTES: Final = 1_000_000  # of stdout's end, where the last line must begin
FILE_BYTES: Final = 256 << 20
ERROR_ENDINGS: Final = ("_stderr", "_se")  # NAME_stderr beside NAME, the standard error

_STEP: Final = re.compile(
    r"""\.(?P<name>[^.\[\]\s"']+)|\[(?P<index>0|[1-9][0-9]{0,8})\]|\["(?P<double>[^"]+)"\]|\['(?P<single>[^']+)'\]"""
)

Address = tuple[str | int, ...]


class EvaluationFailed(Exception):  # noqa: N818 - an event, not a mistake of rsoup's
    """An evaluation gave no scores; the text is what the user reads."""


def parse_address(text: str) -> Address:
    """`$.a.b[0]["odd key"]` as its steps, keys and positions; `$` alone is the whole document.

    Raises UsageError E0239 for everything else.
    """
    steps: list[str | int] = []
    at = 1
    while at < len(text) and text.startswith("$"):
        found = _STEP.match(text, at)
        if found is None:
            break
        name = found["name"] or found["double"] or found["single"]
        steps.append(int(found["index"]) if name is None else name)
        at = found.end()
    if not text.startswith("$") or at != len(text):
        raise bad_address(text)
    return tuple(steps)


def bad_address(text: str) -> UsageError:
    """The refusal of a metric's address."""
    return UsageError(
        "E0239",
        f"'{show(text)}' is not the address of a metric",
        hint='$.score, $.results[0]["odd key"], lm-eval:TASK:METRIC, lighteval:TASK:METRIC or inspect:SCORER:METRIC',
    )


def parse_json(text: str, *, not_finite: bool = False) -> object:
    """The one JSON value in `text`; `not_finite` lets NaN and Infinity pass, for files that hold more than scores.

    Raises EvaluationFailed for anything that is not strict JSON: duplicate keys, NaN, numbers beyond a float.
    """

    def constant(name: str) -> float:
        if not_finite:
            return float(name)
        raise EvaluationFailed(f"it holds {name}, which is no JSON and no score")

    def real(digits: str) -> float:
        value = float(digits)
        if math.isinf(value) and not not_finite:
            raise EvaluationFailed(f"it holds {show(digits, 40)}, which is too large for a number")
        return value

    def whole(digits: str) -> int:
        if len(digits) > 400:
            raise EvaluationFailed(f"it holds {show(digits, 40)}, which is too large for a number")
        return int(digits)

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise EvaluationFailed(f"it holds the key '{show(twice)}' twice in one object")
        return found

    try:
        return json.loads(
            text, parse_constant=constant, parse_float=real, parse_int=whole, object_pairs_hook=unique
        )
    except json.JSONDecodeError as error:
        after = ": something follows after the JSON" if error.msg == "Extra data" else ""
        raise EvaluationFailed(f"it is not JSON{after} (character {error.pos + 1})") from None
    except RecursionError:
        raise EvaluationFailed("it is nested too deeply") from None


def last_json(path: str) -> object:
    """The JSON on the last line of a file that is not empty; only the file's last MB is read.

    Raises EvaluationFailed with the line, made safe to print, where there is none or it is not strict JSON.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LINE_BYTES))
            data = file.read(LINE_BYTES)
    except OSError as error:
        raise EvaluationFailed(f"what it printed cannot be read: {error.strerror}") from None
    start, _, last = data.rstrip().rpartition(b"\n")
    if not last.strip():
        raise EvaluationFailed("it printed nothing: the last line of its output must be JSON")
    if not start and size > len(data):
        raise EvaluationFailed(f"the last line it printed is longer than {LINE_BYTES} bytes")
    try:
        text = last.decode()
        return parse_json(text)
    except UnicodeDecodeError:
        raise EvaluationFailed(
            f"the last line it printed is not UTF-8: '{show(_loose(last), 200)}'"
        ) from None
    except EvaluationFailed as error:
        shown = show(text.strip(), 200)
        raise EvaluationFailed(
            f"the last line it printed must be JSON, but {error}; the line is '{shown}'"
        ) from None


def _loose(data: bytes) -> str:
    return data[:400].decode("utf-8", "backslashreplace")


def file_json(path: str, *, not_finite: bool = False) -> object:
    """The JSON in a file of at most 256 MiB. Raises EvaluationFailed where there is none."""
    name = f"'{show(os.path.basename(path))}'"
    try:
        if not os.path.isfile(path):
            raise EvaluationFailed(f"there is no file {name}, where its metrics should be")
        with open(path, "rb") as file:
            data = file.read(FILE_BYTES + 1)
        if len(data) > FILE_BYTES:
            raise EvaluationFailed(f"{name} is larger than {FILE_BYTES >> 20} MiB")
        return parse_json(data.decode(), not_finite=not_finite)
    except OSError as error:
        raise EvaluationFailed(f"{name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise EvaluationFailed(f"{name} is not UTF-8") from None
    except EvaluationFailed as error:
        raise EvaluationFailed(str(error) if name in str(error) else f"{name}: {error}") from None


def of_document(metric: Metric, document: object) -> Score:
    """A metric's score in a JSON document, by its `$` address.

    Its standard error is `stderr` where the value is an object {"value", "stderr"}, else at `error_address`, else
    NAME_stderr or NAME_se beside NAME. Raises EvaluationFailed where one of them is missing or not finite.
    """
    address = parse_address(metric.address)
    value = look_up(document, address, metric.address)
    error: object = None
    if isinstance(value, Mapping):
        if not {"value"} <= value.keys() <= {"value", "stderr"}:
            _not_a_number(metric.name, f"an object with {listing(list(map(str, value)))}")
        value, error = value["value"], value.get("stderr")
    if metric.error_address is not None:
        error = look_up(document, parse_address(metric.error_address), metric.error_address)
    elif error is None and address and isinstance(address[-1], str):
        beside = look_up(document, address[:-1], metric.address)
        names = [f"{address[-1]}{ending}" for ending in ERROR_ENDINGS]
        error = next((beside[name] for name in names if isinstance(beside, dict) and name in beside), None)
    return score(metric.name, value, error)


def score(name: str, value: object, error: object = None, maximise: bool | None = None) -> Score:
    """A Score of a finite number and, if it is not None, its finite standard error ≥ 0.

    Raises EvaluationFailed with what it is instead.
    """
    spread = None if error is None else _number(f"{name}, its standard error,", error)
    if spread is not None and spread < 0:
        raise EvaluationFailed(f"{show(name)} has the standard error {spread}: it cannot be negative")
    return Score(_number(name, value), spread, maximise)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or value is None:
        _not_a_number(name, {True: "true", False: "false", None: "null"}[value])
    if isinstance(value, str):
        _not_a_number(name, f"the text '{show(value, 60)}'")
    if not isinstance(value, int | float):
        _not_a_number(name, "a list" if isinstance(value, list) else "an object")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise EvaluationFailed(
            f"it returned {'NaN' if math.isnan(number) else 'an infinite number'} for {show(name)}"
        )
    return number


def _not_a_number(name: str, what: str) -> NoReturn:
    raise EvaluationFailed(f"{show(name)} is {what}, not a number")


def look_up(document: object, address: Sequence[str | int], text: str) -> object:
    """What stands at an address. Raises EvaluationFailed with the step that is missing and what is there."""
    at: Any = document
    for number, step in enumerate(address):
        if isinstance(at, dict if isinstance(step, str) else list) and _has(at, step):
            at = cast("Any", at)[step]
        else:
            place = "".join(
                f"[{key}]" if isinstance(key, int) else f".{show(key)}" for key in address[:number]
            )
            raise EvaluationFailed(f"{show(text)} is missing: ${place} {_there(at, step)}")
    return at


def _has(value: Any, step: str | int) -> bool:
    return step in value if isinstance(step, str) else step < len(value)


def _there(value: object, step: str | int) -> str:
    if isinstance(value, dict) and isinstance(step, str):
        return f"has no '{show(step)}', only {listing(list(value), 10)}" if value else "is an empty object"
    if isinstance(value, list):
        return f"is a list of {len(value)}"
    kind = {dict: "an object", str: "a text", bool: "true or false", type(None): "null"}.get(
        type(value), "a number"
    )
    return f"is {kind}"
