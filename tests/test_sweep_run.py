"""Sweeps from end to end: what is measured once stays, whatever happens; the soups are those of merge."""

from __future__ import annotations

import html
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from checkpoints import related, tree, write_folder

import rsoup
from rsoup.errors import BusyError, EvaluationError, IncompatibleError, TargetError, UsageError
from rsoup.measured.table import read_table
from rsoup.recipe import Ingredient
from rsoup.request import Request
from rsoup.sweep.ledger import Ledger
from rsoup.sweep.options import RunOptions, worker_environments
from rsoup.sweep.outlook import outlook
from rsoup.sweep.score import Metric
from rsoup.sweep.spec import Design, EvaluatorSpec, SweepSpec
from rsoup.sweep.sweep_yaml import dump
from rsoup.sweep.sweeping import SweepResult, check_ended, sweep

SCORE = """
import json, os, struct, sys, time
path = os.path.join(sys.argv[1], "model.safetensors")
data = open(path, "rb").read()
(size,) = struct.unpack("<Q", data[:8])
at = json.loads(data[8:8 + size])["layers.0.bias"]["data_offsets"][0] + 8 + size
x = struct.unpack("<f", data[at:at + 4])[0]
seed = int(os.environ["RSOUP_SEED"])
time.sleep(float(os.environ.get("NAP", "0")))
print("some talk")
near = -abs(x - float(os.environ.get("TARGET", "0")))
gpu = int(os.environ.get("CUDA_VISIBLE_DEVICES") or -1)
print(json.dumps({"up": x, "down": -x * x, "noise": x + seed % 7, "near": near, "gpu": gpu}))
"""
METRICS = (Metric("up", "$.up"), Metric("down", "$.down"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with three experts, their base and a script that scores them."""
    base, tuned = related(3, dtype=torch.float32)
    write_folder(tmp_path / "base", base)
    for name, tensors in zip("abc", tuned, strict=True):
        write_folder(tmp_path / name, tensors)
    (tmp_path / "score.py").write_text(SCORE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def spec_of(names: str = "ab", *, grid: int | None = 5, run: str = f"{sys.executable} -S score.py {{model}}", metrics: tuple[Metric, ...] = METRICS, files: tuple[str, ...] = (), design: Design | None = None, **more: object) -> SweepSpec:  # fmt: skip
    """A sweep of experts in this folder."""
    request = Request([Ingredient(name, (name,)) for name in names], base="base")
    evaluators = (EvaluatorSpec(metrics, run=run, files=files),)
    return SweepSpec(request, evaluators, design or Design(grid=grid), **more)  # type: ignore[arg-type]


def points(result: SweepResult) -> dict[str, dict[str, object]]:
    """The document's points by name."""
    found = result.document["points"]
    assert isinstance(found, list)
    return {point["point"]: point for point in found}


def done(folder: str = "run") -> list[str]:
    """The keys of the ledger's successes."""
    records = Ledger(folder).records() if os.path.isdir(folder) else ()
    return [record.key for record in records if record.status == "done"]


def test_kept_soups_are_those_of_merge(place: Path) -> None:
    """Eleven soups of one pass = eleven merges, byte for byte; the values are those of the soups."""
    result = sweep(spec_of(grid=11), "run", keep="all")
    check_ended(result)
    assert len(result.soups) == len(points(result)) == 11
    for point in points(result).values():
        shares = point["lambda"]
        assert isinstance(shares, dict)
        recipe = rsoup.make_recipe({"a": "a", "b": "b"}, mix=list(shares.values()), base="base")
        alone = place / "alone" / str(point["point"])
        rsoup.merge(recipe, alone)
        kept = place / "run" / "soups" / str(point["point"])
        ours, theirs = tree(kept), tree(alone)
        manifests = [json.loads(files.pop("rsoup.json")) for files in (ours, theirs)]
        assert ours == theirs
        assert [m.pop("run") for m in manifests]
        assert manifests[0] == manifests[1]
        assert point["soup"] == manifests[0]["content"]


def test_what_is_measured_is_never_measured_again(place: Path) -> None:
    """Again, a finer grid, another expert, more repeats, another direction: only what is new is evaluated."""
    assert sweep(spec_of(), "run").evaluated == 5
    assert sweep(spec_of(), "run").evaluated == 0
    assert sweep(spec_of(grid=9), "run").evaluated == 4
    assert sweep(spec_of("abc", grid=3), "run").evaluated == 3
    turned = (Metric("up", "$.up", maximise=False), METRICS[1])
    assert sweep(spec_of(metrics=turned), "run").evaluated == 0
    assert sweep(spec_of(repeats=2), "run").evaluated == 5
    assert len(done()) == len(set(done())) == 17


def test_what_an_evaluation_left_stays_its_own(place: Path) -> None:
    """Soups of other experts have the same names, and another expert gives points new names: samples stay with their λ."""
    leave = "open(os.environ['RSOUP_OUT'] + '/samples.jsonl', 'w').write(json.dumps({'prompt': '', 'output': f'said {x!r}'}))"
    (place / "leave.py").write_text(SCORE.replace("print('some talk')", "").rstrip() + f"\n{leave}\n")
    half, zero = Fraction(1, 2), Fraction(0)
    for names, mixes, new in (
        ("ab", ((half, half),), 1),
        ("ac", ((half, half),), 1),
        ("abc", ((half, half, zero), (half, zero, half)), 0),
    ):
        run = f"{sys.executable} -S leave.py {{model}}"
        result = sweep(spec_of(names, grid=None, design=Design(mixes=mixes), run=run), "run")
        assert result.evaluated == new
        page = (place / "run" / "report.html").read_text()
        for point in points(result).values():
            select = point["select"]
            assert isinstance(select, dict)
            assert f"said {select['up']['value']!r}" in page
    assert len(list((place / "run" / "outputs").rglob("samples.jsonl"))) == 2


@pytest.mark.fault("J13", "J14")
def test_results_of_something_else_are_not_mixed_in(place: Path) -> None:
    """Another evaluator is refused (2), other weights too (3), with what changed; accepted, all is measured anew."""
    sweep(spec_of(grid=3), "run")
    (place / "score.py").write_text(SCORE + "# another version\n")
    with pytest.raises(UsageError) as other:
        sweep(spec_of(grid=3), "run")
    assert other.value.code == "E0222"
    assert "files" in str(other.value)
    assert sweep(spec_of(grid=3), "run", accept_changes=True).evaluated == 3
    _, tuned = related(3, dtype=torch.float32)
    write_folder(place / "a2", {**tuned[0], "layers.0.bias": tuned[0]["layers.0.bias"] * 1.01})
    os.rename(place / "a", place / "old")
    os.rename(place / "a2", place / "a")
    with pytest.raises(IncompatibleError) as edited:
        sweep(spec_of(grid=3), "run")
    assert edited.value.code == "E0311"
    assert "'a'" in str(edited.value)
    assert sweep(spec_of(grid=3), "run", accept_changes=True).evaluated == 2  # λ = (0, 1) has no share of it
    options = SweepSpec(Request([Ingredient(n, (n,)) for n in "ab"], base="base", dtype="float16"), spec_of().evaluators, Design(grid=3))  # fmt: skip
    with pytest.raises(UsageError, match="something else"):
        sweep(options, "run")


@pytest.mark.fault("J6", "J7")
def test_failures_leave_the_others_and_are_retried_alone(place: Path) -> None:
    """Exit 5 with what happened; the next run tries only what failed."""
    trouble = SCORE.replace('seed = int', 'if os.path.exists("broken") and x == x and "0.5" in os.environ["RSOUP_LAMBDA"]: sys.exit(3)\nseed = int')  # fmt: skip
    (place / "score.py").write_text(trouble)
    (place / "broken").touch()
    result = sweep(spec_of(), "run", options=RunOptions(retries=1))
    with pytest.raises(EvaluationError) as failed:
        check_ended(result)
    assert (failed.value.code, failed.value.exit_code) == ("E0501", 5)
    assert "exit status 3" in str(failed.value)
    states = {name: point["status"] for name, point in points(result).items()}
    assert states == {"1-0": "done", "0.75-0.25": "done", "0.5-0.5": "failed", "0.25-0.75": "done", "0-1": "done"}  # fmt: skip
    records = Ledger("run").records()
    assert [r.attempt for r in records if r.status == "failed"] == [1, 2]
    (place / "broken").unlink()
    again = sweep(spec_of(), "run")
    check_ended(again)
    assert again.evaluated == 1


def test_max_failures_gives_up(place: Path) -> None:
    """More failures than allowed end the run, with points left."""
    result = sweep(spec_of(run=f"{sys.executable} -c exit(1)"), "run", options=RunOptions(max_failures=1))
    assert result.ended == "failures"
    assert result.failed < 5
    with pytest.raises(EvaluationError, match="not tried any more"):
        check_ended(result)


def test_a_metric_that_is_missing_fails_the_point(place: Path) -> None:
    """Every evaluation says which metric is not there; nothing is a front."""
    result = sweep(spec_of(metrics=(Metric("absent", "$.absent"),)), "run")
    assert {point["status"] for point in points(result).values()} == {"failed"}
    assert all("absent" in str(point["failure"]) for point in points(result).values())
    assert result.document["front"] == []


def test_a_command_that_is_not_there_stops_at_once(place: Path) -> None:
    """Exit 2, and no folder is left."""
    with pytest.raises(UsageError) as found:
        sweep(spec_of(run="no-such-program {model}"), "run")
    assert found.value.code == "E0237"
    assert not (place / "run").exists()


@pytest.mark.fault("J8")
def test_repeats_and_reports(place: Path) -> None:
    """Seeds 0, 1, 2 give mean and standard error; the front is evaluated again with seeds of its own."""
    spec = spec_of(grid=3, repeats=3, report_repeats=2, metrics=(Metric("noise", "$.noise"),))
    result = sweep(spec, "run")
    found = points(result)
    assert all(point["select"]["noise"]["n"] == 3 for point in found.values())  # type: ignore[index]
    error = found["1-0"]["select"]["noise"]["error"]  # type: ignore[index]
    assert error == pytest.approx(1 / 3**0.5)  # x, x + 1, x + 2
    (best,) = [name for name, point in found.items() if point["front"]]
    assert [name for name, point in found.items() if point["report"]] == [best]
    seeds = {(r.split, r.seed) for r in Ledger("run").records()}
    assert {seed for split, seed in seeds if split == "select"} == {0, 1, 2}
    assert not {seed for split, seed in seeds if split == "report"} & {0, 1, 2}


def test_every_point_is_reported_if_asked(place: Path) -> None:
    """With report_all every point has report values; a sweep that had those of the front asks for the others only."""
    asked = {"grid": 3, "metrics": (Metric("noise", "$.noise"),)}
    sweep(spec_of(report_repeats=1, **asked), "run")
    before = len(list(Ledger("run").records()))

    found = points(sweep(spec_of(report_repeats=1, report_all=True, **asked), "run"))

    assert all(point["report"] for point in found.values())
    assert len(list(Ledger("run").records())) == before + 2


def test_checkpoints_of_two_families_are_refused_before_anything_is_evaluated(place: Path) -> None:
    """What merge refuses, a sweep refuses at once (exit 3), and leaves no folder."""
    write_folder(place / "c", {"other": torch.zeros(3)})

    with pytest.raises(IncompatibleError) as caught:
        sweep(spec_of("ac", grid=3), "run")

    assert caught.value.code == "E0301"
    assert not (place / "run").exists()


@pytest.mark.fault("J18")
def test_room_for_two_soups(place: Path) -> None:
    """Never more soups on the disk than fit, those in the making included; a deleted one is made again, the same."""
    most = 0

    def look(*_: object) -> None:
        nonlocal most
        soups = place / "run" / "soups"
        if soups.is_dir():
            folders = [e for e in soups.iterdir() if e.is_dir() and not e.name.startswith(".gone")]
            most = max(most, len(folders))

    size = (place / "a" / "model.safetensors").stat().st_size
    result = sweep(spec_of(grid=7), "run", scratch_nbytes=int(2.5 * size), on_tick=look)
    check_ended(result)
    assert 1 <= most <= 2
    assert [name for name in os.listdir("run/soups") if not name.startswith(".")] == []
    kept = sweep(spec_of(grid=7), "run", keep="best")
    (best,) = kept.soups
    assert os.path.basename(best) == kept.document["best"]
    again = json.loads((Path(best) / "rsoup.json").read_text())["content"]
    assert again == points(kept)[os.path.basename(best)]["soup"]
    front = sweep(spec_of(grid=7), "run", keep="front")
    assert [os.path.basename(path) for path in front.soups] == front.document["front"]
    assert sweep(spec_of(grid=7), "run").soups == front.soups  # as it was said last
    assert sweep(spec_of(grid=7), "run", keep="none").soups == ()
    with pytest.raises(TargetError) as small:
        sweep(spec_of(grid=9), "run", scratch_nbytes=size // 2)
    assert small.value.code == "E0602"


def test_a_budget_ends_in_order(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 75 with what is left; the same again goes on."""
    monkeypatch.setenv("NAP", "0.4")
    result = sweep(spec_of(), "run", options=RunOptions(budget_seconds=1.2))
    assert result.ended == "budget"
    with pytest.raises(BusyError) as over:
        check_ended(result)
    assert (over.value.code, over.value.exit_code) == ("E7503", 75)
    monkeypatch.setenv("NAP", "0")
    check_ended(sweep(spec_of(), "run"))
    assert len(done()) == 5


def test_gpus_are_shared_out(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker sees GPUs of its own; too few are refused."""
    environments = worker_environments(2, 1, ["3", "5"])
    monkeypatch.setenv("NAP", "0.2")
    spec = spec_of(metrics=(Metric("gpu", "$.gpu"),))
    result = sweep(spec, "run", options=RunOptions(environments=environments))
    assert {point["select"]["gpu"]["value"] for point in points(result).values()} == {3.0, 5.0}  # type: ignore[index]
    with pytest.raises(UsageError) as few:
        worker_environments(2, 2, ["3", "5"])
    assert few.value.code == "E0224"


def reference_greedy(values: list[float], target: float) -> list[int]:
    """The published greedy soup of numbers: best first, kept where the mean comes nearer to the target."""
    order = sorted(range(len(values)), key=lambda i: abs(values[i] - target))
    kept = [order[0]]
    for i in order[1:]:
        trial = [*kept, i]
        if abs(sum(values[j] for j in trial) / len(trial) - target) < abs(sum(values[j] for j in kept) / len(kept) - target):  # fmt: skip
            kept = trial
    return sorted(kept)


def test_the_greedy_soup_is_the_published_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A score that a mean can improve: the same checkpoints are kept, more than one of them; of a group, too."""
    single = sweep(spec_of("abc", design=Design(), strategy="uniform"), "uniform")
    found = {name: point["select"]["up"]["value"] for name, point in points(single).items()}  # type: ignore[index]
    assert len(found) == 4
    values = [found[name] for name in ("1-0-0", "0-1-0", "0-0-1")]
    low, high = sorted(values)[:2]
    target = 0.6 * low + 0.4 * high  # nearer to the mean of the two than to either
    monkeypatch.setenv("TARGET", repr(target))
    wanted = reference_greedy(values, target)
    metrics = (Metric("near", "$.near"),)
    spec = spec_of("abc", design=Design(), strategy="greedy", metric="near", metrics=metrics)
    greedy = sweep(spec, "greedy").document["greedy"]
    assert isinstance(greedy, dict)
    assert len(wanted) > 1
    assert greedy["kept"] == ["abc"[i] for i in wanted]
    group = Request([Ingredient("seeds", ("a", "b", "c"))], base="base")
    inside = sweep(SweepSpec(group, spec.evaluators, strategy="greedy", metric="near"), "group").document["greedy"]  # fmt: skip
    assert isinstance(inside, dict)
    assert inside["kept"] == [f"seeds/{i + 1}" for i in wanted]


def test_refined_scaled_waypoints_and_series(place: Path) -> None:
    """The designs ask for their points, and come to the known end."""
    refined = sweep(spec_of(grid=3, refine=3), "refined")
    assert [point["origin"] for point in points(refined).values()] == ["design"] * 3 + ["refine"] * 3
    assert points(sweep(spec_of(grid=3, refine=3), "again")).keys() == points(refined).keys()
    scaled = sweep(spec_of("a", design=Design(grid=2, scales=(Fraction(0), Fraction(1)))), "scaled")
    assert list(points(scaled)) == ["1_scale-0", "1"]
    leads = sweep(spec_of("abc", design=Design(grid=3, waypoints=("c",))), "path")
    assert list(points(leads)) == ["1-0-0", "0.5-0-0.5", "0-0-1", "0-0.5-0.5", "0-1-0"]
    for name in "ab":
        for step in (1, 2):
            (place / f"run-{name}").mkdir(exist_ok=True)
            os.symlink(place / name, place / f"run-{name}" / f"checkpoint-{step}")
    request = Request([Ingredient(n, (f"run-{n}/checkpoint-*",)) for n in "ab"], base="base")
    steps = sweep(SweepSpec(request, spec_of().evaluators, Design(grid=3), ("a", "b")), "steps")
    assert {point["step"] for point in points(steps).values()} == {1, 2}


def test_a_dry_run_writes_nothing(place: Path) -> None:
    """Points, evaluations, bytes; time only where something is measured."""
    found = outlook(spec_of(repeats=2), "run", workers=1, scratch_nbytes=None, accept_changes=False)
    assert (found.points, found.evaluations, found.left, found.seconds) == (5, 10, 10, None)
    assert not (place / "run").exists()
    sweep(spec_of(), "run")
    before = tree("run")
    later = outlook(spec_of(repeats=2), "run", workers=1, scratch_nbytes=None, accept_changes=False)
    assert (later.evaluations, later.left) == (10, 5)
    assert later.seconds is not None
    assert {k: v for k, v in tree("run").items() if k != "inputs.json"} == {k: v for k, v in before.items() if k != "inputs.json"}  # fmt: skip


def test_what_another_sweep_is_just_writing_is_no_foreign_file(place: Path) -> None:
    """Two that begin in one folder at once: a file the first one has staged is none of a stranger's; nor a killed one's."""
    (place / "run").mkdir()
    (place / "run" / f".rsoup-{0:016x}.part").write_text("{")
    assert len(points(sweep(spec_of(), "run"))) == 5


def test_a_folder_that_is_no_sweep_is_left_alone(place: Path) -> None:
    """E0601, and nothing is touched."""
    (place / "mine").mkdir()
    (place / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(TargetError) as found:
        sweep(spec_of(), "mine")
    assert found.value.code == "E0601"
    assert tree("mine") == {"thesis.txt": b"x"}


def command(place: Path, *more: str, nap: float = 0.0, grid: int = 9) -> subprocess.Popen[bytes]:
    """`rsoup sweep` as a process of its own."""
    (place / "sweep.yaml").write_text(dump(spec_of(grid=grid)))
    environment = {**os.environ, "NAP": str(nap)}
    words = [sys.executable, "-m", "rsoup", "sweep", "sweep.yaml", "-o", "run", *more]
    return subprocess.Popen(words, cwd=place, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip


def evaluators_alive() -> list[int]:
    """Processes that run the script in the folder this test works in."""
    here, found = os.getcwd(), []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
                if b"score.py" in words and os.readlink(f"/proc/{name}/cwd") == here:
                    found.append(int(name))
            except OSError:
                continue
    return found


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait for something to be true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


linux = pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks for processes in /proc")


@linux
@pytest.mark.fault("J11", "J12")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_no_evaluator_outlives_its_sweep(place: Path, number: int, code: int) -> None:
    """An evaluator with a minute to go ends with its sweep, however that ends; the same command goes on."""
    process = command(place, nap=60)
    until(evaluators_alive)
    process.send_signal(number)
    assert process.wait(timeout=30) == code
    until(lambda: not evaluators_alive(), 5)
    assert done() == []
    assert command(place).wait(timeout=60) == 0
    assert len(set(done())) == len(done()) == 9


@pytest.mark.fault("J12")
def test_killed_sweeps_end_as_undisturbed_ones(place: Path) -> None:
    """kill -9 at random moments: the ledger is that of an undisturbed sweep, each point once."""
    _killed_and_finished(place, kills=3, grid=13)


@pytest.mark.long
def test_a_sweep_killed_twenty_times(place: Path) -> None:
    """The same, twenty times."""
    _killed_and_finished(place, kills=20, grid=61)


def _killed_and_finished(place: Path, kills: int, grid: int) -> None:
    check_ended(sweep(spec_of(grid=grid), "undisturbed"))
    wanted = {(r.key, r.point, tuple(sorted(r.scores.items()))) for r in Ledger("undisturbed").records()}
    chance = random.Random(kills)
    for _ in range(kills):
        before = len(done())
        process = command(place, nap=0.15, grid=grid)
        until(lambda before=before: len(done()) > before)  # type: ignore[misc]
        time.sleep(chance.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(done()) < grid, "there was work left"
    assert command(place, grid=grid).wait() == 0
    ledger = Ledger("run")
    records = [record for record in ledger.records() if record.status == "done"]
    assert len(records) == grid
    assert {(r.key, r.point, tuple(sorted(r.scores.items()))) for r in records} == wanted
    lines = (place / "run" / "results.jsonl").read_bytes().count(b"\n")
    assert lines - len(ledger.records()) == len(ledger.damaged) <= kills  # a line torn by a kill, at most


@pytest.mark.fault("J15")
def test_two_sweeps_share_a_folder(place: Path) -> None:
    """Two processes at once, one of them killed in the middle: every point once."""
    first, second = command(place, nap=0.4), command(place, nap=0.4)
    until(lambda: len(done()) >= 2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert len(done()) < 9, "there was work left"
    assert second.wait(timeout=60) == 0
    keys = done()
    assert len(keys) == len(set(keys)) == 9


@pytest.mark.fault("J16")
def test_a_damaged_ledger_is_noted_and_repaired(place: Path) -> None:
    """The damaged line's point is measured again, the others are kept; --repair takes the line out."""
    sweep(spec_of(grid=9), "run")
    ledger = place / "run" / "results.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join([*lines[:3], lines[3].replace(b"e", b"x", 1), *lines[4:]]))
    result = sweep(spec_of(grid=9), "run")
    assert result.evaluated == 1
    notes = result.document["notes"]
    assert isinstance(notes, list)
    assert "line 4" in notes[0]
    assert command(place, "--repair").wait() == 0
    assert Ledger("run").damage() is None


def test_the_documents(place: Path) -> None:
    """metrics.json is strict and the same for the same results, points.csv has every point, the page mentions them."""
    first, second = sweep(spec_of(), "run"), sweep(spec_of(), "other")

    def steady(result: SweepResult) -> str:
        text = (Path(result.folder) / "metrics.json").read_text()
        found = json.loads(text, parse_constant=pytest.fail)
        for point in found["points"]:
            point["seconds"] = 0
        return json.dumps(found).replace("/other/", "/run/")

    assert steady(first) == steady(second)
    rows = (place / "run" / "points.csv").read_text().splitlines()
    assert len(rows) == 6
    page = (place / "run" / "report.html").read_text()
    assert all(html.escape(str(point["command"])) in page for point in points(first).values())
    line = str(points(first)["0.5-0.5"]["command"])
    subprocess.run([sys.executable, "-m", *line.split()], cwd=place, check=True, capture_output=True)
    made = json.loads((place / "soup" / "rsoup.json").read_text())
    assert made["content"] == points(first)["0.5-0.5"]["soup"]


LEAVES = """
import json, os, sys
exec(open("score.py").read().replace("sys.argv[1]", "sys.argv[1]"))
with open(os.path.join(sys.argv[2], "samples.jsonl"), "w") as file:
    file.write(json.dumps({"prompt": "why <b>?", "output": f"because x = {x}"}) + "\\n")
"""


def test_samples_are_on_the_page_and_distances_in_the_document(place: Path) -> None:
    """What evaluators leave is shown, escaped, and not in metrics.json; how far the checkpoints moved is what check says."""
    (place / "leaves.py").write_text(LEAVES)
    result = sweep(spec_of(grid=3, run=f"{sys.executable} -S leaves.py {{model}} {{out}}"), "run")

    page = (place / "run" / "report.html").read_text()
    assert page.count("because x = ") >= 3
    assert "why &lt;b&gt;?" in page
    assert "because" not in (place / "run" / "metrics.json").read_text()
    checked = rsoup.check({"a": "a", "b": "b"}, "base").measures
    assert checked is not None
    assert checked.total is not None
    (about,) = result.document["distances"]  # type: ignore[misc]
    assert about["step"] is None
    assert about["relative"] == {
        name: pytest.approx(value) for name, value in zip("ab", checked.total.relative, strict=True)
    }
    assert read_table("run").distances[None] == about["relative"]
