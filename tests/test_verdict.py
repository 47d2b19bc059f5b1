"""Soups against M trainings over seeds: the figures by definition, the rule, and `rsoup verdict` from tables to exit code."""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rsoup.cli.app import app
from rsoup.errors import RsoupError, UsageError
from rsoup.front.expected import expected_reward
from rsoup.front.seeds import Trial, Twice, best_single, judged, promised, some_of
from rsoup.measured.reported import with_report
from rsoup.measured.values import Measured, Quality, Row, Table

DIGITS = Path(__file__).parents[1] / "docs" / "experiments" / "digits"
Point = tuple[float, ...]
Rows = list[dict[str, object]]


def rsoup(*words: str | Path) -> Result:
    """The command; an error that has a code is raised."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(done.exception, RsoupError):
        raise done.exception
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def refused(*words: str | Path) -> RsoupError:
    """The error a command line ends with."""
    with pytest.raises(RsoupError) as found:
        rsoup(*words)
    return found.value


# --- what a set is worth


clouds = st.integers(1, 3).flatmap(
    lambda count: st.lists(
        st.tuples(*[st.tuples(*[st.floats(-2, 2, allow_nan=False)] * count)] * 2), min_size=1, max_size=8
    )
)


@settings(max_examples=40)
@given(clouds)
def test_worth_is_the_mean_over_preferences_of_what_the_choice_scores(
    cloud: list[tuple[Point, Point]],
) -> None:
    """E Σ μr(argmax Σ μg): two rewards by 20 000 preferences in float64, one reward its scored value."""
    chosen, scored = (np.array([pair[k] for pair in cloud]) for k in (0, 1))
    found = promised(Twice(chosen.tolist(), scored.tolist()))
    if chosen.shape[1] == 2:
        mu = (np.arange(20_000) + 0.5) / 20_000
        weights = np.column_stack([1 - mu, mu])
        best = (weights @ chosen.T).argmax(axis=1)
        assert found == pytest.approx((weights * scored[best]).sum(axis=1).mean(), abs=2e-3)
    elif chosen.shape[1] == 1:
        assert found == scored[chosen[:, 0].argmax(), 0]
    assert promised(Twice(chosen.tolist(), chosen.tolist())) == pytest.approx(
        expected_reward(chosen.tolist()).value, abs=5e-3
    )


def test_noise_that_chooses_does_not_score() -> None:
    """Of 50 equal points with noise the best looks better than it is; scored by other noise it does not."""
    rng = np.random.default_rng(0)
    lifted, honest = [], []
    for _ in range(200):
        one, other = (rng.normal(size=(50, 2)).tolist() for _ in range(2))
        lifted.append(promised(Twice(one, one)))
        honest.append(promised(Twice(one, other)))

    assert np.mean(lifted) > 1
    assert abs(np.mean(honest)) < 4 * np.std(honest) / math.sqrt(200)


def test_the_best_expert_is_chosen_by_one_measurement_and_scored_by_the_other() -> None:
    """Not the best by its score."""
    assert best_single(Twice([(1.0, 0.0), (0.0, 2.0)], [(1.0, 1.0), (0.5, 0.1)])) == pytest.approx(0.3)


@given(st.integers(1, 12), st.integers(1, 4))
def test_some_of_the_trainings_are_as_many_as_they_stand_for(count: int, rewards: int) -> None:
    """M different ones, from one per reward up to all; of two rewards both ends are among them."""
    found = some_of(count, rewards)

    assert max(found) == count
    assert min(found) == min(rewards, count)
    for size, places in found.items():
        assert len(set(places)) == size
        if rewards == 2 and count > 2:
            assert {0, count - 1} <= set(places)


def trials(offset: float, seeds: int, spread: float = 0.01) -> list[Trial]:
    """Soups on a quarter circle, others farther out by `offset`, both moved from seed to seed."""
    rng = np.random.default_rng(1)
    angles = np.linspace(0, math.pi / 2, 5)
    made = []
    for _ in range(seeds):
        arc = np.column_stack([np.cos(angles), np.sin(angles)])
        ours, theirs = arc + spread * rng.normal(), arc * (1 + offset) + spread * rng.normal()
        both = [Twice(x.tolist(), x.tolist()) for x in (ours, arc[[0, -1]], theirs)]
        made.append(Trial(*both))
    return made


@pytest.mark.parametrize(
    ("offset", "seeds", "verdict"),
    [(0.0, 12, "match"), (0.2, 12, "worse"), (-0.2, 12, "better"), (-0.2, 9, "inconclusive")],
)
def test_the_verdict_is_that_of_what_was_put_in(offset: float, seeds: int, verdict: str) -> None:
    """As good, worse by a fifth, better by a fifth, and too few seeds; differences are paired by definition."""
    made = trials(offset, seeds)
    found = judged(made)
    last = found.curve[-1]

    assert last.trainings == 5
    assert last.decision is not None
    assert last.decision.verdict == verdict
    assert last.differences == pytest.approx(
        [expected_reward(t.soups.scored).value - expected_reward(t.others.scored).value for t in made]
    )
    gained = np.mean(found.others) - np.mean(found.best_expert)
    assert found.delta == pytest.approx(0.1 * gained)
    assert (found.worth == 5) == (verdict in {"match", "better"})


def test_one_seed_decides_nothing_and_none_is_refused() -> None:
    """No decision; ValueError; and sets of different sizes need their subsets told."""
    assert [row.decision for row in judged(trials(0.1, 1)).curve] == [None] * 4
    with pytest.raises(ValueError, match="a seed"):
        judged([])
    short = trials(0.0, 2)
    short[1] = Trial(short[1].soups, short[1].experts, short[1].others.only([0, 4]))
    with pytest.raises(ValueError, match="different numbers"):
        judged(short)
    assert judged(short, sizes={2: (0, 1)}).curve[0].trainings == 2


# --- the command


def rows_of(seed: int, kind: str, count: int, height: float) -> Rows:
    """Points on a bow of two rewards, with report values that are a little lower."""
    rng = np.random.default_rng(seed)
    made: Rows = []
    for k in range(count):
        share = k / (count - 1)
        bow = height * share * (1 - share) + 0.01 * rng.normal() * (0 < k < count - 1)
        made.append({
            "seed": seed, "set": kind, "lambda": f"{count - 1 - k}/{count - 1},{k}/{count - 1}",
            "x": 1 - share + bow, "y": share + bow, "x_report": 1 - share + bow - 0.02, "y_report": share + bow - 0.02,
        })  # fmt: skip
    return made


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """A CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


METRICS = ("--reward", "x", "--reward", "y")
REPORTED = (*METRICS, "--reported", "x=x_report", "--reported", "y=y_report", "--split", "report")


@pytest.fixture
def all_in_one(tmp_path: Path) -> Path:
    """Twelve seeds of soups and of MORL that is better in the middle, in one table."""
    rows = [row for seed in range(12) for kind, n, h in (("soups", 5, 0.4), ("morl", 6, 0.9)) for row in rows_of(seed, kind, n, h)]  # fmt: skip
    return write(tmp_path / "all.csv", rows)


@pytest.fixture
def by_seed(tmp_path: Path) -> Path:
    """The same, a folder per seed."""
    for seed in range(12):
        for kind, count, height in (("soups", 5, 0.4), ("morl", 6, 0.9)):
            rows = [{k: v for k, v in row.items() if k not in ("seed", "set")} for row in rows_of(seed, kind, count, height)]  # fmt: skip
            write(tmp_path / "runs" / f"s{seed}" / f"{kind}.csv", rows)
    return tmp_path / "runs"


def test_a_column_of_seeds_and_a_folder_per_seed_say_the_same(all_in_one: Path, by_seed: Path) -> None:
    """Every figure is equal, whichever way the seeds are told; the seeds are in the order of their numbers."""
    one = json.loads(
        rsoup("verdict", all_in_one, "--seeds", "seed", *REPORTED, "--where", "set=soups", "--compare", f"morl={all_in_one}:set=morl", "--json").stdout
    )  # fmt: skip
    other = json.loads(
        rsoup("verdict", by_seed / "s{seed}" / "soups.csv", *REPORTED, "--compare", by_seed / "s{seed}" / "morl.csv", "--json").stdout
    )  # fmt: skip

    assert one["seeds"] == other["seeds"] == [str(seed) for seed in range(12)]
    assert one["compared"] == other["compared"]
    assert one["connectivity"]["counts"] == {"PASS": 12}
    found = one["compared"][0]
    assert (found["verdict"], found["name"], found["points"]) == ("worse", "morl", 6)
    assert one["notes"] == []


def test_the_figures_are_those_of_float64(all_in_one: Path) -> None:
    """The mean of the paired differences of the report gains, recomputed from the table by 20 001 preferences."""
    found = json.loads(
        rsoup("verdict", all_in_one, "--seeds", "seed", *REPORTED, "--where", "set=soups", "--compare", f"{all_in_one}:set=morl", "--json").stdout
    )["compared"][0]  # fmt: skip
    mu = np.linspace(0, 1, 20_001)
    weights = np.column_stack([1 - mu, mu])
    with all_in_one.open(newline="") as file:
        table = list(csv.DictReader(file))

    def worth(seed: int, kind: str) -> float:
        rows = [row for row in table if (row["seed"], row["set"]) == (str(seed), kind)]
        experts = [row for row in table if (row["seed"], row["set"]) == (str(seed), "soups") and row["lambda"] in ("4/4,0/4", "0/4,4/4")]  # fmt: skip

        def gains(end: str) -> np.ndarray[Any, np.dtype[np.float64]]:
            ends = np.array([[float(row[n + end]) for n in "xy"] for row in experts])
            low, high = ends.min(axis=0), ends.max(axis=0)
            return (np.array([[float(row[n + end]) for n in "xy"] for row in rows]) - low) / (high - low)

        best = (weights @ gains("").T).argmax(axis=1)
        return float(np.trapezoid((weights * gains("_report")[best]).sum(axis=1), mu))

    differences = [worth(seed, "soups") - worth(seed, "morl") for seed in range(12)]

    last = found["curve"][-1]
    assert list(last["by_seed"].values()) == pytest.approx(differences, abs=1e-4)
    assert last["difference"]["mean"] == pytest.approx(np.mean(differences), abs=1e-4)
    assert last["decision"]["low"] <= last["difference"]["mean"] <= last["decision"]["high"]


def test_without_report_values_the_reader_is_warned(all_in_one: Path) -> None:
    """The same values choose and score: said on stderr; -q prints the verdict alone."""
    words = ("verdict", all_in_one, "--seeds", "seed", *METRICS, "--where", "set=soups", "--compare", f"{all_in_one}:set=morl")  # fmt: skip
    done = rsoup(*words)

    assert "note: the same values choose" in done.stderr
    assert "worth            2 of 6 trainings of morl" in done.stdout
    assert "worse (δ = " in done.stdout
    assert rsoup(*words, "-q").stdout == "worse\n"


def test_experts_that_are_not_apart_are_named(tmp_path: Path) -> None:
    """Standard errors as large as the experts' range: said of that seed; not of those whose errors are small."""
    rows = [
        {**{k: v for k, v in row.items() if not k.endswith("_report")}, "x_stderr": error, "y_stderr": 0.01}
        for seed, error in ((0, 0.01), (1, 0.6), (2, 0.02))
        for row in rows_of(seed, "soups", 5, 0.4)
    ]
    path = write(tmp_path / "t.csv", rows)
    done = rsoup("verdict", path, "--seeds", "seed", *METRICS, "--where", "set=soups", "--compare", f"same={path}:set=soups")  # fmt: skip

    assert "the experts of '1' are not apart" in done.stderr


def test_one_seed_shows_its_differences_and_decides_nothing(all_in_one: Path) -> None:
    """No interval, no verdict, no worth; -q says inconclusive."""
    words = ("verdict", all_in_one, "--seeds", "seed", *METRICS, "--where", "set=soups", "--where", "seed=3", "--compare", f"morl={all_in_one}:set=morl:seed=3")  # fmt: skip
    done = rsoup(*words)

    assert "1 seed, soups of 2 trainings" in done.stdout
    assert "not decided: 1 seed, 10 are needed" in done.stdout
    assert json.loads(rsoup(*words, "--json").stdout)["compared"][0]["verdict"] is None
    assert rsoup(*words, "-q").stdout == "inconclusive\n"
    assert rsoup(*words, "--require", "match", "-q").exit_code == 4


def test_a_verdict_can_be_required(all_in_one: Path) -> None:
    """Exit 4 with E0405 and the set it is about; 0 where it is kept; another word is E0284."""
    words = ("verdict", all_in_one, "--seeds", "seed", *METRICS, "--where", "set=morl")
    enough = rsoup(*words, "--compare", f"soups={all_in_one}:set=soups", "--require", "better")
    missed = rsoup(*words, "--compare", f"same={all_in_one}:set=morl", "--require", "better", "--json")

    assert enough.exit_code == 0
    assert missed.exit_code == 4
    assert json.loads(missed.stdout)["error"]["code"] == "E0405"
    assert rsoup(*words, "--compare", f"{all_in_one}:set=morl", "--require", "match").exit_code == 0
    assert refused(*words, "--compare", f"{all_in_one}:set=morl", "--require", "equal").code == "E0284"


def test_the_advantage_is_drawn(all_in_one: Path, tmp_path: Path) -> None:
    """An SVG with the set's name; what is there is not replaced unasked."""
    words = ("verdict", all_in_one, "--seeds", "seed", *METRICS, "--where", "set=soups", "--compare", f"MORL={all_in_one}:set=morl", "--plot", tmp_path / "a.svg")  # fmt: skip
    rsoup(*words)
    first = (tmp_path / "a.svg").read_text()

    assert "MORL" in first
    assert "bootstrap interval over the seeds" in first
    assert refused(*words).code == "E0601"
    rsoup(*words, "--overwrite")
    assert (tmp_path / "a.svg").read_text() == first


def test_seeds_must_be_told_once_and_be_the_same(all_in_one: Path, by_seed: Path, tmp_path: Path) -> None:
    """Neither, both, none there: E0281; others on one side: E0282 with their names; no such column: E0253."""
    pattern, morl = by_seed / "s{seed}" / "soups.csv", by_seed / "s{seed}" / "morl.csv"
    assert refused("verdict", all_in_one, *METRICS, "--compare", f"{all_in_one}:set=morl").code == "E0281"
    assert refused("verdict", pattern, "--seeds", "seed", "--compare", morl).code == "E0281"
    assert refused("verdict", tmp_path / "no{seed}.csv", "--compare", morl).code == "E0281"
    assert (
        refused("verdict", all_in_one, "--seeds", "cell", *METRICS, "--compare", all_in_one).code == "E0253"
    )
    assert refused("verdict", tmp_path, "--seeds", "seed", "--compare", tmp_path).code == "E0253"
    (by_seed / "s11" / "morl.csv").unlink()
    error = refused("verdict", pattern, *METRICS, "--compare", morl)
    assert error.code == "E0282"
    assert [problem.what for problem in error.details] == ["only in the soups: '11'"]
    assert refused("verdict", pattern, *METRICS, "--compare", f"a={pattern}", "--compare", f"a={pattern}").code == "E0256"  # fmt: skip
    assert rsoup("verdict", pattern, *METRICS, "--compare", pattern, "--delta", "nan").exit_code == 2


def test_what_cannot_be_paired_is_refused(tmp_path: Path) -> None:
    """E0283: an expert that is not measured, points without λ, other rewards, another number of trainings."""
    for seed in range(3):
        rows = [{k: row[k] for k in ("lambda", "x", "y")} for row in rows_of(seed, "soups", 5, 0.4)]
        write(tmp_path / f"good{seed}.csv", rows)
        write(tmp_path / f"half{seed}.csv", rows[1:])
        write(tmp_path / f"bare{seed}.csv", [{k: row[k] for k in ("x", "y")} for row in rows])
        write(tmp_path / f"more{seed}.csv", rows[seed:])
        named = "xyz"[seed]
        write(tmp_path / f"mixed{seed}.csv", [{"lambda": row["lambda"], "x": row["x"], f"y{named}": row["y"]} for row in rows])  # fmt: skip
    good = tmp_path / "good{seed}.csv"

    for name in ("half", "bare", "mixed"):
        compare = "mixed" if name == "mixed" else "good"
        error = refused(
            "verdict", tmp_path / f"{name}{{seed}}.csv", "--compare", tmp_path / f"{compare}{{seed}}.csv"
        )
        assert error.code in ({"E0283", "E0256"} if name == "mixed" else {"E0283"}), name
    assert refused("verdict", good, "--compare", tmp_path / "more{seed}.csv").code == "E0283"


def test_report_values_in_columns_of_their_own(tmp_path: Path) -> None:
    """`--reported x=x_report` is what a sweep's report split is; a metric that is not there or is said twice: E0280."""
    path = write(tmp_path / "t.csv", rows_of(0, "soups", 5, 0.4))
    words = ("front", path, *REPORTED, "--json")
    found = json.loads(rsoup(*words).stdout)

    assert found["split"] == "report"
    assert [point["rewards"]["x"]["value"] for point in found["points"]] == pytest.approx(
        [float(row["x_report"]) for row in rows_of(0, "soups", 5, 0.4)]  # type: ignore[arg-type]
    )
    assert "x_report" not in found["rewards"] | found["guards"]
    for texts in (["x"], ["x=x"], ["x=x_report", "--reported", "x=y_report"], ["z=x_report"]):
        assert refused("front", path, *METRICS, "--reported", *texts).code == "E0280"
    one = Measured(1.0)
    twice = Table("t", {"x": Quality(None, guard=False), "z": Quality(None, guard=False)}, (Row("p", "done", {"x": one, "z": one}, {"x": one}),))  # fmt: skip
    with pytest.raises(UsageError) as error:
        with_report(twice, {"x": "z"})
    assert error.value.code == "E0280"


def test_rows_that_meet_several_conditions(tmp_path: Path, all_in_one: Path) -> None:
    """--compare TABLE:set=morl:seed=3 is those rows; a path with colons that exists is a path."""
    path = write(tmp_path / "soups.csv", rows_of(3, "soups", 5, 0.4))
    odd = write(tmp_path / "odd:a=b.csv", rows_of(3, "morl", 6, 0.9))
    one = json.loads(
        rsoup("front", path, *METRICS, "--compare", f"{all_in_one}:set=morl:seed=3", "--json").stdout
    )
    two = json.loads(rsoup("front", path, *METRICS, "--compare", f"morl, 3={odd}", "--json").stdout)

    assert one["compared"][0]["name"] == "morl, 3"
    assert one["compared"] == two["compared"]


def test_the_command_says_what_the_page_on_digits_says(tmp_path: Path) -> None:
    """From the published table of the experiment: difference, interval, verdict and worth of one setting."""
    table = tmp_path / "strong.csv"
    table.write_bytes(gzip.decompress((DIGITS / "strong.csv.gz").read_bytes()))
    lines = json.loads((DIGITS / "verdicts.json").read_text())["lines"]
    said = next(line for line in lines if line["setting"] == "base of 1200 steps; 100 steps")
    reported = ("--reward", "r1", "--reward", "r2", "--reported", "r1=r1_report", "--reported", "r2=r2_report", "--split", "report")  # fmt: skip
    found = json.loads(
        rsoup(
            "verdict", table, "--seeds", "cell", *reported, "--where", "set=soups", "--where", "step=100",
            "--compare", f"{table}:set=morl:step=100", "--json",
        ).stdout
    )  # fmt: skip
    other = found["compared"][0]
    last = other["curve"][-1]
    mean, error = last["difference"]["mean"], last["difference"]["error"]
    shown = f"{mean:+.3f} ± {error:.3f}".replace("-", "−")

    assert len(found["seeds"]) == said["seeds"]
    assert shown == said["difference"]
    assert other["verdict"] == said["verdict"].strip("*")
    assert str(other["worth"]) in said["worth"]
