"""Record: one evaluation as it ended, and the line of JSON that holds it and verifies itself.

The last key of a line is `check`, the CRC-32 of the line without it: any change of up to four bytes side by side
is noticed.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from rsoup.errors import RefusedFileError
from rsoup.storage.files import parse_json
from rsoup.sweep.score import Score

NAME: Final = "results.jsonl"
SCHEMA: Final = "rsoup-ledger/1"
_LINE = re.compile(rb'(\{.*),"check":"([0-9a-f]{8})"\}', re.DOTALL)
_SHAPES: Final[Mapping[str, tuple[type, ...]]] = {
    "key": (str,), "point": (str,), "mix": (dict,), "scale": (str,), "step": (int, type(None)),
    "evaluator": (int, str), "seed": (int,), "split": (str,), "status": (str,), "scores": (dict,),
    "failure": (str, type(None)), "seconds": (int, float), "soup": (str, type(None)), "log": (str,),
    "host": (str,), "finished": (str,), "origin": (str,), "attempt": (int,),
}  # fmt: skip
_WORDS: Final = {
    "split": ("select", "report"),
    "status": ("done", "failed"),
    "origin": ("design", "refine", "greedy"),
}


@dataclass(frozen=True, slots=True)
class Record:
    """One evaluation as it ended.

    `key` is the SHA-256 of what was evaluated, `mix` the λ of each ingredient as text, `seconds` wall time, `soup`
    the digest of the soup's content, `log` a path relative to the sweep's folder, `finished` UTC. A `failed`
    record has a `failure` in words, a `done` one has scores and none.
    """

    key: str
    point: str
    mix: Mapping[str, str]
    scale: str
    step: int | None
    evaluator: int | str
    seed: int
    split: str
    status: str
    scores: Mapping[str, Score]
    failure: str | None
    seconds: float
    soup: str | None
    log: str
    host: str
    finished: str
    origin: str
    attempt: int

    def to_json(self) -> dict[str, object]:
        """The record as JSON values, its schema first."""
        values: dict[str, object] = {f.name: getattr(self, f.name) for f in fields(self)}
        scores = {name: asdict(score) for name, score in self.scores.items()}
        return {"schema": SCHEMA, **values, "mix": dict(self.mix), "scores": scores}

    @classmethod
    def from_json(cls, value: object) -> Record:
        """The record of JSON values; keys it does not know are left out.

        Raises ValueError for a missing or wrong value, RefusedFileError E0829 for a newer schema.
        """
        if not isinstance(value, dict):
            raise ValueError("a record is an object")
        _check_schema(value.get("schema"))
        found = {name: _typed(value, name) for name in _SHAPES}
        for name, words in _WORDS.items():
            if found[name] not in words:
                raise ValueError(f"'{name}' is none of {', '.join(words)}")
        if not re.fullmatch("[0-9a-f]{64}", found["key"]):
            raise ValueError("'key' is no SHA-256")
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["finished"], re.ASCII):
            raise ValueError("'finished' is no time")
        if not all(isinstance(share, str) for share in found["mix"].values()):
            raise ValueError("'mix' holds something else than text")
        found["seconds"] = _finite(found["seconds"])
        found["scores"] = {name: _score(score) for name, score in found["scores"].items()}
        done = found["status"] == "done"
        if done != (found["failure"] is None) or (done and not found["scores"]):
            raise ValueError("'status', 'failure' and 'scores' do not belong together")
        return cls(**found)


def _check_schema(schema: object) -> None:
    found = (
        re.fullmatch(r"rsoup-ledger/([1-9][0-9]{0,5})(\.[0-9]{1,6})?", schema)
        if isinstance(schema, str)
        else None
    )
    if found is None:
        raise ValueError("it has no schema of a ledger")
    if int(found[1]) != 1:
        raise RefusedFileError(
            "E0829",
            f"a newer rsoup wrote these results ({schema}; this one reads {SCHEMA})",
            where=NAME,
            hint="update rsoup: pip install -U rewarded-soups",
        )


def _typed(value: Mapping[str, object], name: str) -> Any:
    found = value.get(name)
    if name not in value or isinstance(found, bool) or not isinstance(found, _SHAPES[name]):
        raise ValueError(f"'{name}' is missing or of the wrong kind")
    return found


def _finite(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a number is none")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("a number is not finite")
    return number


def _score(value: object) -> Score:
    if not isinstance(value, dict) or not {"value", "error", "maximise"} <= value.keys():
        raise ValueError("a score is not whole")
    error, maximise = value["error"], value["maximise"]
    if maximise is not None and not isinstance(maximise, bool):
        raise ValueError("a direction is neither true nor false")
    return Score(_finite(value["value"]), None if error is None else _finite(error), maximise)


def encode(record: Record) -> bytes:
    """A record as its line, newline included. Raises ValueError for one that could not be read back."""
    text = json.dumps(record.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False).encode(
        "ascii"
    )
    line = b'%b,"check":"%08x"}\n' % (text[:-1], zlib.crc32(text))
    if decode(line[:-1]) != record:
        raise ValueError("the record does not survive its line")
    return line


def decode(line: bytes) -> Record | None:
    """The record of a line without its newline, None if it is damaged. Raises RefusedFileError E0829."""
    found = _LINE.fullmatch(line)
    if found is None or zlib.crc32(found[1] + b"}") != int(found[2], 16):
        return None
    try:
        return Record.from_json(parse_json(line, NAME))
    except ValueError:
        return None
    except RefusedFileError as error:
        if error.code == "E0829":
            raise
        return None


def latest(records: Iterable[Record]) -> dict[str, Record]:
    """What holds for each key: its last `done` record, else its last `failed` one."""
    found: dict[str, Record] = {}
    for record in records:
        if record.status == "done" or record.key not in found or found[record.key].status != "done":
            found[record.key] = record
    return found
