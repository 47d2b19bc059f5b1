"""Mirrors in experiment trackers: each evaluation once, from the ledger; a tracker changes nothing of the sweep."""

from __future__ import annotations

import getpass
import importlib.util
import json
import os
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import related, write_folder

from rsoup.errors import UsageError
from rsoup.recipe import Ingredient
from rsoup.request import Request
from rsoup.sweep import asking, tracking
from rsoup.sweep.ledger import Ledger
from rsoup.sweep.options import RunOptions
from rsoup.sweep.score import Metric
from rsoup.sweep.spec import Design, EvaluatorSpec, SweepSpec, Track
from rsoup.sweep.sweep_yaml import dump, loads
from rsoup.sweep.sweeping import SweepResult, check_ended, sweep

SECRET = "hf_thisIsASecret"
SCORER = """
import os, time
def rewards(soup, seed):
    time.sleep(float(os.environ.get("NAP", "0")))
    value = float(soup.read("layers.0.bias")[0])
    if os.environ.get("FAIL_AT") == str(soup.mix[0]):
        raise RuntimeError("the file " + os.getcwd() + "/the-data-of-somebody")
    return {"up": (value, 0.25), "down": -value * value}
"""
FAKE = '''
"""A tracker that writes down what it is told, and misbehaves as it is told."""
import json, os, sys, time
MODE = os.environ.get("FAKE_MODE", "")
print("* welcome to the tracker")
if MODE == "broken":
    raise RuntimeError("a library is missing")
def told(*words):
    with open(os.environ["FAKE_OUT"], "a") as file:
        file.write(json.dumps(words) + "\\n")
def Table(columns, data):
    return [columns, data]
def Html(text):
    return text
def init(project, name, resume, **more):
    if MODE == "init":
        raise ConnectionError("no network today")
    told("init", project, name, resume)
    return Run()
class Run:
    config = {"_Username": "somebody"}
    def log(self, values, step):
        told("log", step, values) if "front" not in values else told("found", values)
        if MODE == f"fail {step}":
            raise ConnectionError("no network today")
        if MODE == f"crash {step}":
            os._exit(9)
        if MODE == f"hang {step}":
            time.sleep(1000)
    def finish(self):
        told("finish", self.config)
        print("* bye", flush=True)
'''
NAMES = ("a", "b")
TRACKED = Track("trackio", "soups")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two experts, a function that scores them, and a tracker."""
    base, tuned = related(2, dtype=torch.float32)
    write_folder(tmp_path / "base", base)
    for name, tensors in zip(NAMES, tuned, strict=True):
        write_folder(tmp_path / name, tensors)
    (tmp_path / "scorer.py").write_text(SCORER)
    (tmp_path / "fakes").mkdir()
    (tmp_path / "fakes" / "trackio.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fakes"))
    monkeypatch.syspath_prepend(str(tmp_path / "fakes"))
    monkeypatch.setenv("FAKE_OUT", str(tmp_path / "told"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def spec_of(grid: int = 5, *, track: Track | None = TRACKED, **more: Any) -> SweepSpec:
    """A sweep of the two experts by the function."""
    request = Request([Ingredient(name, (name,)) for name in NAMES], base="base")
    metrics = (Metric("up", "$.up"), Metric("down", "$.down"))
    function = EvaluatorSpec(metrics, function="scorer:rewards", version=SECRET)
    return SweepSpec(request, (function,), Design(grid=grid), track=track, **more)


def told(kind: str, file: str = "told") -> list[Any]:
    """What the tracker was told of one kind, in order."""
    lines = Path(file).read_text().splitlines() if Path(file).exists() else []
    return [words[1:] for words in map(json.loads, lines) if words[0] == kind]


def held(result: SweepResult) -> Mapping[str, Any]:
    """The document of a sweep that is complete."""
    check_ended(result)
    return result.document


def test_every_evaluation_arrives_once_and_in_order(place: Path) -> None:
    """Step n is the n-th record of the ledger: λ, scale, seed, each metric and its standard error."""
    result = sweep(spec_of(repeats=2), "run")
    records = Ledger("run").records()
    entries = told("log")
    assert [step for step, _ in entries] == list(range(len(records))) == list(range(10))
    for record, (_, values) in zip(records, entries, strict=True):
        shares = {name: float(Fraction(record.mix.get(name, "0"))) for name in NAMES}
        assert {name: values[f"lambda/{name}"] for name in NAMES} == shares
        assert (values["scale"], values["seed"], values["seconds"], values["failed"]) == (1, record.seed, record.seconds, 0)  # fmt: skip
        assert (values["select/up"], values["select/up_stderr"]) == (record.scores["up"].value, 0.25)
        assert values["select/down"] == record.scores["down"].value
        assert "select/down_stderr" not in values
        assert (values["point"], values["split"]) == (record.point, "select")
    assert len(told("init")) == len(told("finish")) == 1
    assert held(result)["points"]
    assert result.notes == ()


def test_what_was_found_arrives_at_the_end(place: Path) -> None:
    """The hypervolume, the front as a table, the page; again only if it is another."""
    document = held(sweep(spec_of(), "run"))
    sweep(spec_of(), "run")
    ((found,),) = told("found")
    assert found["hypervolume"] == document["hypervolume"]["value"]
    columns, rows = found["front"]
    front = [point for point in document["points"] if point["front"]]
    assert [row[columns.index("point")] for row in rows] == document["front"]
    for point, row in zip(front, rows, strict=True):
        cells = dict(zip(columns, row, strict=True))
        assert cells["lambda/a"] == float(Fraction(point["lambda"]["a"]))
        assert (cells["up"], cells["up_stderr"]) == (point["select"]["up"]["value"], point["select"]["up"]["error"])  # fmt: skip
    assert found["report"].startswith("<!DOCTYPE html>")
    sweep(spec_of(9), "run")
    assert len(told("found")) == 2


def test_a_resumed_sweep_logs_only_what_is_new(place: Path) -> None:
    """One run for one folder, whatever is added; another project is another run, with all of it."""
    sweep(spec_of(3), "run")
    sweep(spec_of(5), "run")
    sweep(spec_of(5), "run")
    assert [step for step, _ in told("log")] == [0, 1, 2, 3, 4]
    assert len({name for _, name, _ in told("init")}) == 1
    assert {resume for *_, resume in told("init")} == {"allow"}
    sweep(spec_of(5, track=Track("trackio", "other")), "run")
    assert [step for step, _ in told("log")] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    assert [project for project, *_ in told("init")][-1] == "other"


def test_failures_and_reports_are_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed evaluation is a step without scores; those of the report split have its name."""
    monkeypatch.setenv("FAIL_AT", "1/2")
    assert sweep(spec_of(3, report_repeats=1), "run").failed == 1
    entries = [values for _, values in told("log")]
    failed = [values for values in entries if values["failed"]]
    assert [values["lambda/a"] for values in failed] == [0.5]
    assert not any(key.startswith("select/") for key in failed[0])
    reported = [values for values in entries if values["split"] == "report"]
    assert reported
    assert all("report/up" in values and "select/up" not in values for values in reported)


def test_nothing_tells_of_the_machine(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No absolute path, user, host, key or message goes out, though metrics.json and the ledger hold them."""
    monkeypatch.setenv("FAIL_AT", "1/2")
    monkeypatch.setattr(socket, "gethostname", lambda: "the-host-of-somebody")
    sweep(spec_of(3), "run")
    text = Path("told").read_text()
    inside = Path("run/metrics.json").read_text() + Path("run/results.jsonl").read_text()
    for word in (str(place), socket.gethostname(), "the-data-of-somebody"):
        assert word in inside
        assert word not in text
    assert SECRET not in text
    assert "somebody" not in text
    assert f"/{getpass.getuser()}/" not in text
    assert "scorer:rewards" not in text


@pytest.mark.parametrize("mode", ["missing", "broken"])
def test_a_package_that_is_not_there_is_refused_before(place: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:  # fmt: skip
    """E0272 with the pip command, and no evaluation."""
    if mode == "missing":
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("FAKE_MODE", mode)
    with pytest.raises(UsageError, match="pip install trackio") as refused:
        sweep(spec_of(), "run")
    assert refused.value.code == "E0272"
    assert not Path("run/results.jsonl").exists()


def test_a_tracker_that_would_ask_is_refused_before(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """E0274 where nobody is logged in to wandb; offline nobody needs to be."""
    text = "import types\napi = types.SimpleNamespace(api_key=None)\ndef setup():\n    settings = types.SimpleNamespace(mode='online')\n    return types.SimpleNamespace(settings=settings)\n"
    (place / "fakes" / "wandb.py").write_text(text)
    with pytest.raises(UsageError, match="WANDB_MODE=offline") as refused:
        sweep(spec_of(track=Track("wandb")), "run")
    assert refused.value.code == "E0274"
    assert not Path("run/results.jsonl").exists()


@pytest.mark.parametrize("mode", ["init", "fail 2", "crash 2", "hang 2"])
def test_a_tracker_that_fails_changes_nothing(place: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:  # fmt: skip
    """One note; all is measured, the sweep is complete; the same command sends the rest, nothing twice."""
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 3.0)
    monkeypatch.setenv("FAKE_MODE", mode)
    result = sweep(spec_of(), "run")
    assert [point["status"] for point in held(result)["points"]] == ["done"] * 5
    (note,) = result.notes
    assert "not all is in trackio" in note
    assert {"init": "no network", "fail 2": "no network", "crash 2": "crashed", "hang 2": "3 s"}[mode] in note
    monkeypatch.setenv("FAKE_MODE", "")
    assert sweep(spec_of(), "run").notes == ()
    steps = [step for step, _ in told("log")]
    # what raised is sent again; what may have arrived when its process died is not
    assert steps == ([0, 1, 2, 2, 3, 4] if mode == "fail 2" else [0, 1, 2, 3, 4])
    assert len(told("found")) == 1


def test_a_tracker_that_cannot_be_started_is_a_note(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process to be had for it: the sweep is complete, and the next one sends all."""

    def failing(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(tracking, "Process", failing)
        (note,) = sweep(spec_of(3), "run").notes
    assert "Resource temporarily unavailable" in note
    assert sweep(spec_of(3), "run").notes == ()
    assert [step for step, _ in told("log")] == [0, 1, 2]


def test_a_tracker_that_begins_late_still_gets_all(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep does not wait for an import without end, and what begins late sends all in the end."""
    monkeypatch.setattr(tracking, "IMPORT_SECONDS", 0.0)
    assert sweep(spec_of(3), "run").notes == ()
    assert [step for step, _ in told("log")] == [0, 1, 2]


def test_what_it_prints_is_in_its_log(place: Path) -> None:
    """stdout holds the result and nothing else, also as JSON; the option, and `none` against it."""
    line = [sys.executable, "-m", "rsoup", "sweep", "a", "b", "--base", "base", "--grid", "3", "--function", "scorer:rewards", "--reward", "up", "--reward", "down", "-o", "run", "--json"]  # fmt: skip
    done = subprocess.run([*line, "--track", "trackio:mine"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["notes"] == []
    assert "welcome" not in done.stdout + done.stderr
    assert "* bye" in Path("run/logs/tracking.log").read_text()
    assert [project for project, *_ in told("init")] == ["mine"]
    more = [sys.executable, "-m", "rsoup", "sweep", "run", "--json"]
    subprocess.run(more, capture_output=True, check=True)
    assert "track: trackio:mine" in Path("run/sweep.yaml").read_text().replace("'", "")
    subprocess.run([*more, "--track", "none"], capture_output=True, check=True)
    assert "track" not in Path("run/sweep.yaml").read_text()
    bad = subprocess.run([*more, "--track", "tensorboard"], capture_output=True, text=True, check=False)
    assert bad.returncode == 2


def test_a_killed_sweep_is_mirrored_whole(place: Path) -> None:
    """kill -9 at any time, again and again: every step once in the end, and no tracker outlives its sweep."""
    spec = spec_of(21)
    Path("spec.yaml").write_text(dump(spec))
    line = [sys.executable, "-m", "rsoup", "sweep", "spec.yaml", "-o", "run", "-q"]
    for number in (1, 2, 3):
        process = subprocess.Popen(line, env={**os.environ, "NAP": "0.1"})
        deadline = time.monotonic() + 60
        while len(told("log")) < 4 * number and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    check_ended(sweep(spec, "run", options=RunOptions()))
    records = Ledger("run").records()
    assert sorted(step for step, _ in told("log")) == list(range(len(records)))
    assert len(records) >= 21


def test_two_sweeps_on_a_folder_have_one_mirror(place: Path) -> None:
    """The results of both arrive, each once, whoever ends last."""
    Path("spec.yaml").write_text(dump(spec_of(21)))
    line = [sys.executable, "-m", "rsoup", "sweep", "spec.yaml", "-o", "run", "-q"]
    both = [subprocess.Popen(line, env={**os.environ, "NAP": "0.1"}, stdout=subprocess.DEVNULL) for _ in range(2)]  # fmt: skip
    assert [process.wait() for process in both] == [0, 0]
    assert sorted(step for step, _ in told("log")) == list(range(len(Ledger("run").records())))
    assert told("found")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("trackio", Track("trackio", "rsoup")), ("mlflow:a/b", Track("mlflow", "a/b")), ("wandb:t/p", Track("wandb", "t/p"))],
)  # fmt: skip
def test_trackers_as_they_are_typed(text: str, wanted: Track) -> None:
    """TRACKER[:PROJECT], and back from a file."""
    assert asking.parse_track(text) == wanted
    spec = spec_of(track=wanted)
    assert loads(dump(spec)).track == wanted


@pytest.mark.parametrize("text", ["", "tensorboard", "trackio:", "trackio:a/b", "wandb:a/b/c", "wandb:a b", "none"])  # fmt: skip
def test_trackers_that_mean_nothing(text: str) -> None:
    """Refused by name or project (E0273)."""
    with pytest.raises(UsageError) as refused:
        asking.parse_track(text)
    assert refused.value.code == "E0273"


# --- the real ones


@pytest.fixture
def real(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Takes the fake away, and lets a real tracker write into the folder."""

    def found(name: str) -> None:
        (place / "fakes" / "trackio.py").unlink()
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
        monkeypatch.setenv("TRACKIO_DIR", str(place / "trackio"))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mlflow.db")
        monkeypatch.setenv("WANDB_MODE", "offline")
        monkeypatch.setenv("WANDB_DIR", str(place))
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    return found


def swept_twice(tracker: str) -> list[float]:
    """A sweep, and a finer one in its folder, both mirrored; the values of `up` in the order of the ledger."""
    for grid in (3, 5):
        result = sweep(spec_of(grid, track=Track(tracker, "soups")), "run")
        assert result.notes == ()
        check_ended(result)
    return [record.scores["up"].value for record in Ledger("run").records()]


def test_trackio_holds_it(place: Path, real: Callable[[str], None]) -> None:
    """Read back from trackio's database: one run, each step once, the table and the page."""
    real("trackio")
    wanted = swept_twice("trackio")
    with sqlite3.connect(place / "trackio" / "soups.db") as connection:
        rows = list(connection.execute("select run_name, step, metrics from metrics order by step, id"))
    assert len({name for name, *_ in rows}) == 1
    steps = [(step, json.loads(metrics)) for _, step, metrics in rows]
    assert [(n, m["select/up"]) for n, m in steps if "select/up" in m] == list(enumerate(wanted))
    found = [metrics for _, metrics in steps if "front" in metrics]
    assert len(found) == 2
    assert found[-1]["hypervolume"] > 0
    pages = [path.read_text() for path in (place / "trackio" / "media").rglob("*.html")]
    assert len(pages) == 2
    assert str(place) not in "".join(pages) + json.dumps(steps)


def test_mlflow_holds_it(place: Path, real: Callable[[str], None]) -> None:
    """Read back by MLflow's client: one run, each step once, with the time it ended; nothing of the user."""
    real("mlflow")
    pytest.importorskip("sqlalchemy")
    wanted = swept_twice("mlflow")
    code = (
        "import json, mlflow\n"
        "client = mlflow.MlflowClient()\n"
        "experiment = client.get_experiment_by_name('soups')\n"
        "(run,) = client.search_runs([experiment.experiment_id])\n"
        "history = client.get_metric_history(run.info.run_id, 'select/up')\n"
        "files = sorted(file.path for file in client.list_artifacts(run.info.run_id))\n"
        "print(json.dumps([[[m.step, m.value, m.timestamp] for m in history], run.data.metrics, dict(run.data.tags), files, run.info.status]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    history, metrics, tags, files, status = json.loads(done.stdout.splitlines()[-1])
    assert [(step, value) for step, value, _ in history] == list(enumerate(wanted))
    assert all(abs(at / 1000 - time.time()) < 3600 for *_, at in history)
    assert (metrics["points"], status, files) == (5, "FINISHED", ["front.json", "report.html"])
    assert tags.keys() == {"mlflow.runName", "rsoup.sweep"}


def wandb_records(path: Path) -> list[bytes]:
    """The records of a .wandb file: LevelDB's log format, in blocks of 32 KiB, after a header of seven bytes."""
    data, at, found, open_record = path.read_bytes(), 7, [], b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        open_record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            found.append(open_record)
            open_record = b""
    return found


def test_wandb_holds_it(place: Path, real: Callable[[str], None]) -> None:
    """Read back from what wandb keeps offline: one run's id, each step once, the table and the page; no path of ours."""
    real("wandb")
    internal = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    wanted = swept_twice("wandb")
    files = sorted((place / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2
    assert len({path.name for path in files}) == 1
    rows, texts = [], ""
    for data in (data for file in files for data in wandb_records(file)):
        record = internal.Record()
        record.ParseFromString(data)
        texts += str(record)
        row = {
            item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
        }
        if "select/up" in row:  # the last one has the table and the page
            rows.append((row["evaluation"], row["select/up"]))
    assert rows == list(enumerate(wanted))
    assert str(place) not in texts.replace(str(place / "wandb"), "")
    assert socket.gethostname() not in texts or len(socket.gethostname()) < 4
    names = [path.name for path in (place / "wandb").rglob("*") if path.suffix in (".html", ".json")]
    assert sum(name.startswith("front_") for name in names) == 2
    assert sum(name.startswith("report_") for name in names) == 2
