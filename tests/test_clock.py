"""The clock of the system may jump: what is measured, and for how long, does not depend on it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from calendar import timegm
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import related, write_folder

import rsoup
from rsoup.sweep.ledger import Ledger
from rsoup.sweep.record import Record

JUMPING = """
import os, random, time
_time, _gmtime, _localtime, _jumps = time.time, time.gmtime, time.localtime, random.Random(1)
def _jumping():
    return _time() + _jumps.choice((-5, -2, 3, 7)) * 3600
time.time = _jumping
time.time_ns = lambda: int(_jumping() * 1e9)
time.gmtime = lambda seconds=None: _gmtime(_jumping() if seconds is None else seconds)
time.localtime = lambda seconds=None: _localtime(_jumping() if seconds is None else seconds)
with open(os.environ["JUMPED"], "a") as file:
    file.write(f"{os.getpid()}\\n")
"""
SCORER = """
import time
def rewards(soup):
    began = time.time()
    time.sleep(0.05)
    return {"x": float(soup.read("layers.0.bias")[0]), "y": -float(soup.read("layers.0.bias")[1])}
if __name__ == "__main__":
    import json, os, sys
    time.sleep(0.05)
    print(json.dumps({"size": os.path.getsize(os.path.join(sys.argv[1], "model.safetensors"))}))
"""
SPEC = """
base: base
ingredients:
  - checkpoint: a
  - checkpoint: b
points: {grid: 6, refine: 2}
evaluate:
  - function: scorer:rewards
    rewards: [x, y]
    timeout: 10min
  - run: PYTHON scorer.py {model}
    guards: [size]
    timeout: 10min
repeats: 2
report: 1
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two experts, a sweep of them by a function and a command, and a clock."""
    base, tuned = related(2, dtype=torch.float32)
    for name, tensors in {"base": base, "a": tuned[0], "b": tuned[1]}.items():
        write_folder(tmp_path / name, tensors)
    (tmp_path / "scorer.py").write_text(SCORER)
    (tmp_path / "sweep.yaml").write_text(SPEC.replace("PYTHON", sys.executable))
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(JUMPING)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def swept(out: str, clock: str | None, *more: str) -> list[Record]:
    """The ledger of a sweep in a process tree whose clock is the system's, or jumps."""
    path = {} if clock is None else {"PYTHONPATH": os.path.abspath(clock), "JUMPED": os.path.abspath("jumped")}  # fmt: skip
    line = [sys.executable, "-m", "rsoup", "sweep", "sweep.yaml", "-o", out, "--budget", "1h", *more]
    subprocess.run(line, env={**os.environ, **path}, capture_output=True, check=True)
    return list(Ledger(out).records())


def lasting(records: list[Record]) -> list[dict[str, Any]]:
    """What of the records must not depend on a clock, in a fixed order."""
    kept = [{k: v for k, v in record.to_json().items() if k not in ("seconds", "finished")} for record in records]  # fmt: skip
    return sorted(kept, key=lambda row: (str(row["key"]), str(row["log"])))


@pytest.mark.fault("J20")
def test_a_clock_that_jumps_changes_time_stamps_only(place: Path) -> None:
    """Hours back and forth in rsoup, its workers and the commands: the same evaluations, scores, order and documents."""
    began = time.time()
    steady, jumped = swept("steady", None), swept("jumped-run", "clock")
    lasted = time.time() - began

    assert lasting(steady) == lasting(jumped)
    assert len(Path("jumped").read_text().split()) > len(
        {record.key for record in jumped if record.evaluator}
    )
    hour = 3600
    stamps = [timegm(time.strptime(record.finished, "%Y-%m-%dT%H:%M:%SZ")) - began for record in jumped]
    assert all(abs(stamp) > hour for stamp in stamps), "the clock did not jump, and the test says nothing"
    assert all(0 < record.seconds < lasted for record in jumped)
    documents = [json.loads(Path(out, "metrics.json").read_text()) for out in ("steady", "jumped-run")]
    for document, out in zip(documents, ("steady", "jumped-run"), strict=True):
        for point in document["points"]:
            assert 0 < point.pop("seconds") < lasted
            point["command"] = point["command"].replace(out, "OUT")
    assert documents[0] == documents[1]


@pytest.mark.fault("J20")
def test_a_clock_that_jumps_between_runs_evaluates_nothing_again(place: Path) -> None:
    """A sweep that is taken up under another clock is complete at once."""
    before = swept("run", "clock")
    assert swept("run", None) == before
    assert swept("run", "clock") == before


@pytest.mark.fault("J20")
def test_durations_come_from_the_monotonic_clock() -> None:
    """In the sweep's own code the time of day is only ever written down, never subtracted or waited for."""
    allowed = {"monotonic", "sleep", "strftime", "gmtime", "strptime"}
    used: dict[str, set[str]] = {}
    for file in sorted((Path(rsoup.__file__).parent / "sweep").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time":  # fmt: skip
                used.setdefault(node.attr, set()).add(file.name)
            if isinstance(node, ast.ImportFrom):
                assert node.module not in ("time", "datetime"), file.name
            if isinstance(node, ast.Import):
                assert all(alias.name != "datetime" for alias in node.names), file.name
    assert {"monotonic", "gmtime"} <= used.keys() <= allowed
    assert used["gmtime"] == {"running.py"}
