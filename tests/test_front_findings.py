"""What a stranger with tables of others, and a reviewer, found wrong in `rsoup front` and `rsoup select`: laws that hold now."""

from __future__ import annotations

import io
import json
import math
import random
import time
from pathlib import Path
from typing import Any

import pytest

from rsoup.analysis.compared import other_of
from rsoup.analysis.data import Data, data_of, directed
from rsoup.analysis.document import Asked, document
from rsoup.analysis.drawn import Subject, drawn, spider_models
from rsoup.analysis.intervals import Noise
from rsoup.analysis.selected import Wish, selected
from rsoup.cli import front as command
from rsoup.cli import select as choose
from rsoup.cli.front_outputs import Outputs
from rsoup.cli.reading import Reading
from rsoup.console import Console
from rsoup.errors import RefusedFileError, RsoupError, TargetError, UsageError
from rsoup.measured.columns import Columns
from rsoup.measured.table import read_table
from rsoup.measured.values import Table
from rsoup.report.front_text import final

CURVE = "lambda_a,lambda_b,x,y\n1,0,1,0\n0.5,0.5,0.8,0.8\n0,1,0,1\n"


def table_of(path: Path, text: str) -> Table:
    """The table of a CSV file with this text, as the commands read it."""
    path.write_text(text)
    return directed(read_table(str(path)), [], [], [])


def told(path: Path, text: str, **asked: Any) -> tuple[Data, dict[str, Any]]:
    """Its points, and everything found out about them."""
    table = table_of(path, text)
    data = data_of(table)
    return data, document(table, data, asked=Asked(Noise(draws=100), **asked))


def test_a_table_without_a_header_is_refused(tmp_path: Path) -> None:
    """A first line of numbers is a point, never the names of columns: deep-sea-treasure's published fronts have no header."""
    with pytest.raises(RefusedFileError, match="first line has numbers"):
        table_of(tmp_path / "dst.csv", "0.7,-1\n8.2,-3\n11.5,-5\n")


def test_an_index_without_a_name_is_no_reward(tmp_path: Path) -> None:
    """A column without a name (pandas writes the row numbers so) is refused unless the metrics are named."""
    path = tmp_path / "frame.csv"
    with pytest.raises(RefusedFileError, match="--reward"):
        table_of(path, ",x,y\n0,1,5\n1,2,4\n")
    assert list(read_table(str(path), Columns(metrics=("x", "y"))).metrics) == ["x", "y"]


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_other_separators_are_called_by_name(tmp_path: Path, mark: str, name: str) -> None:
    """A table separated by anything but commas is refused for that, not for its first number."""
    with pytest.raises(RefusedFileError, match=name):
        table_of(tmp_path / "de.csv", f"x{mark}y\n0,9{mark}0,1\n")


def test_lines_without_a_value_are_no_points(tmp_path: Path) -> None:
    """Blank lines, and lines of nothing but commas as spreadsheets leave them at the end, count for nothing."""
    full = table_of(tmp_path / "a.csv", CURVE)
    blank = table_of(tmp_path / "b.csv", CURVE.replace("\n", "\n  \n", 1) + ",,,\n\n")
    assert [row.name for row in blank.rows] == [row.name for row in full.rows]


def test_a_step_of_a_table_without_steps_says_so(tmp_path: Path) -> None:
    """The hint is never an empty list."""
    with pytest.raises(UsageError) as caught:
        data_of(table_of(tmp_path / "a.csv", CURVE), step=7)
    assert "leave out --step" in str(caught.value.hint)


def test_hints_name_options_that_exist(tmp_path: Path) -> None:
    """A direction that the table knows better is answered with the option it was said by."""
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({
        "schema": "rsoup-metrics/1", "ingredients": [], "base": None,
        "metrics": {"x": {"direction": "maximise", "guard": False}},
        "points": [{"point": "p", "lambda": {}, "status": "done", "select": {"x": {"value": 1}}}],
    }))  # fmt: skip
    with pytest.raises(UsageError) as caught:
        directed(read_table(str(path)), [], [], ["x"])
    assert "--reward" in str(caught.value.hint)
    assert "--minimise" not in str(caught.value.hint)


def test_the_training_step_is_told(tmp_path: Path) -> None:
    """With several training steps a note says which one the figures are about."""
    rows = [f"{s},{a},{1 - a},{a * s},{(1 - a) * s}" for s in (1, 2) for a in (0, 1)]
    _, found = told(tmp_path / "a.csv", "\n".join(["step,lambda_a,lambda_b,x,y", *rows]))
    assert any("step 2" in note for note in found["notes"])


def test_checkpoints_of_a_run_are_not_counted_as_trainings(tmp_path: Path) -> None:
    """Of models to compare with, the step that is analysed takes part; another set of steps is refused."""
    steps = "step,x,y\n" + "".join(f"{s},{s / 9},{1 - s / 9}\n" for s in (1, 2, 2, 3))
    soups = table_of(tmp_path / "soups.csv", "step,lambda_a,lambda_b,x,y\n2,1,0,1,0\n2,0,1,0,1\n")
    data = data_of(soups)
    assert len(other_of("morl", table_of(tmp_path / "morl.csv", steps), data).rows) == 2
    with pytest.raises(UsageError, match="training steps"):
        other_of("morl", table_of(tmp_path / "more.csv", steps.replace("\n2,", "\n4,")), data)


def test_some_errors_are_not_none(tmp_path: Path) -> None:
    """A table with errors of some values is not said to have none: connectivity counts them."""
    _, found = told(tmp_path / "a.csv", "x,x_stderr,y\n1,0.1,0\n0,0.1,1\n")
    assert not any(note.startswith("no standard errors") for note in found["notes"])
    assert any("some values" in note for note in found["notes"])


def test_an_accidental_range_of_one_is_no_raw_unit(tmp_path: Path) -> None:
    """Experts whose range is 1 are normalised like others; only --raw earns the note on units."""
    table = table_of(tmp_path / "a.csv", CURVE)
    wish = Wish(weights=(0.5, 0.5))
    assert not any("own units" in note for note in selected(data_of(table), wish).notes)
    assert any("own units" in note for note in selected(data_of(table, normalised=False), wish).notes)


def test_choosing_among_thousands_takes_no_square_of_time() -> None:
    """Choosing among 2000 points is done in under a second of the processor."""
    draw = random.Random(0)
    text = "x,y\n" + "".join(f"{draw.random()},{draw.random()}\n" for _ in range(2000))
    from rsoup.measured import cells, flat

    table = directed(flat.read(cells.csv_rows(text.encode(), "t"), Columns(), "t", "t"), [], [], [])
    data, start = data_of(table), time.process_time()
    selected(data, Wish(weights=(0.3, 0.7)))
    assert time.process_time() - start < 1


def test_nobody_lacks_less_than_nothing(tmp_path: Path) -> None:
    """Where a set is ahead at every preference, the text says that it is ahead, not that it lacks a number below 0."""
    table = table_of(tmp_path / "a.csv", CURVE)
    data = data_of(table)
    worse = other_of("base", table_of(tmp_path / "w.csv", "x,y\n-1,-1\n"), data)
    found = document(table, data, [worse], Asked(Noise(draws=100)))
    text = "\n".join(final(found, unicode=True, colour=False))
    assert "-" not in text.split("lack")[-1].split("\n")[0]
    assert "ahead by" in text


def test_without_the_base_similarity_says_what_it_is_counted_from(tmp_path: Path) -> None:
    """A stand-in for the base is called one beside the figures that it changes."""
    rows = ["1,0,0,9,1,2", "0,1,0,2,9,1", "0,0,1,1,2,9"]
    _, found = told(tmp_path / "a.csv", "\n".join(["lambda_a,lambda_b,lambda_c,x,y,z", *rows]))
    text = "\n".join(final(found, unicode=True, colour=False))
    assert "base was not measured" in text


def test_a_spider_shows_every_set_that_is_compared() -> None:
    """However many models there are, the sets asked for with --compare are drawn."""
    from rsoup.measured import cells, flat

    many = "x,y,z\n" + "".join(f"{i},{20 - i},{i * (20 - i)}\n" for i in range(20))
    table = directed(flat.read(cells.csv_rows(many.encode(), "t"), Columns(), "t", "t"), [], [], [])
    data = data_of(table)
    models = spider_models(data, [other_of("greedy", table, data)])
    assert any(model.name.startswith("greedy") for model in models)


def test_rewards_of_like_names_keep_their_figures(tmp_path: Path) -> None:
    """No figure of a pair of rewards replaces another's because their names look alike in a file's name."""
    table = table_of(tmp_path / "a.csv", "r 1,r_1,r-1\n1,2,3\n2,3,1\n3,1,2\n")
    data = data_of(table)
    found = document(table, data, asked=Asked(Noise(draws=100)))
    assert len(drawn("front", Subject(table, data, [], found))) == math.comb(3, 2)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_advantage_is_drawn_at_the_confidence_asked_for(tmp_path: Path, confidence: float) -> None:
    """The legend of the band names the confidence of its intervals, and the worth has an interval too."""
    text = "lambda_a,lambda_b,x,x_stderr,y,y_stderr\n1,0,1,.1,0,.1\n.5,.5,.8,.1,.8,.1\n0,1,0,.1,1,.1\n"
    table = table_of(tmp_path / "a.csv", text)
    data = data_of(table)
    others = [other_of("morl", table_of(tmp_path / "m.csv", text.replace(".8,", ".7,")), data)]
    found = document(table, data, others, Asked(Noise(draws=100, confidence=confidence)))
    figure = drawn("advantage", Subject(table, data, others, found))["advantage"]
    assert f"{confidence * 100:g} % interval" in figure
    assert len(found["compared"][0]["advantage"]["worth"]["average_between"]) == 2
    assert "within noise" in "\n".join(final(found, unicode=True, colour=False))


def test_what_chose_is_not_said_to_be_another_measurement(tmp_path: Path) -> None:
    """Chosen by the report split, the report values are not "other seeds than those that chose it"."""
    score = {"x": {"value": 1, "error": 0.1, "n": 3}}
    points = [
        {"point": p, "lambda": {}, "status": "done", "select": score, "report": score} for p in ("p", "q")
    ]
    about = {"schema": "rsoup-metrics/1", "ingredients": [], "base": None, "points": points}
    metrics = {"x": {"direction": "maximise", "guard": False}}
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({**about, "metrics": metrics}))
    texts = {}
    for split in ("select", "report"):
        out, err = io.StringIO(), io.StringIO()
        choose.run(
            Reading(str(path), split=split), choose.Asked(preference="1"), console=Console(out=out, err=err)
        )
        texts[split] = out.getvalue(), err.getvalue()
    assert "other seeds" in texts["select"][0]
    assert "other seeds" not in texts["report"][0]
    assert "same numbers choose and score" in texts["report"][1]
    assert "too good" in texts["report"][0]


def test_every_point_has_a_share_per_ingredient(tmp_path: Path) -> None:
    """λ of different lengths in one column are refused when they are read."""
    with pytest.raises(RefusedFileError, match="different numbers"):
        table_of(tmp_path / "a.csv", 'lambda,x,y\n"1,0",1,0\n"0.5,0.3,0.2",0.7,0.7\n')


def test_a_table_without_checkpoints_offers_no_merge(tmp_path: Path) -> None:
    """Where --merge would be refused, select does not tell to use it."""
    path = tmp_path / "a.csv"
    path.write_text("lambda,x,y\n0,1,0\n0.5,0.7,0.7\n1,0,1\n")
    out = io.StringIO()
    choose.run(
        Reading(str(path)), choose.Asked(preference="0.5,0.5"), console=Console(out=out, err=io.StringIO())
    )
    assert "--merge" not in out.getvalue()


def test_both_ways_to_write_a_mix_answer_the_same_questions(tmp_path: Path) -> None:
    """`lambda` = "0.5,0.5" says what `lambda_a` and `lambda_b` say: connectivity is tested in both."""
    _, named = told(tmp_path / "a.csv", CURVE)
    _, plain = told(tmp_path / "b.csv", 'lambda,x,y\n"1,0",1,0\n"0.5,0.5",0.8,0.8\n"0,1",0,1\n')
    assert named["connectivity"]["verdict"] == "PASS"
    assert (plain["connectivity"] or {}).get("verdict") == "PASS"


# --- the command


def ran(path: Path, text: str = CURVE, *, questions: Any = None, outputs: Any = None) -> int:
    """The exit code of `rsoup front` on a table of this text."""
    path.write_text(text)
    console = Console(as_json=True, quiet=False, out=io.StringIO(), err=io.StringIO())
    return command.run(
        Reading(str(path)), questions or command.Questions(), outputs or Outputs(), console=console
    )


def test_a_folder_of_figures_replaces_nothing_unasked(tmp_path: Path) -> None:
    """--figures into a folder that holds a figure's name is refused before anything is written."""
    (tmp_path / "front.svg").write_text("mine")
    with pytest.raises(TargetError):
        ran(tmp_path / "t.csv", outputs=Outputs(figures=str(tmp_path)))
    assert (tmp_path / "front.svg").read_text() == "mine"


def test_a_figure_of_several_replaces_nothing_unasked(tmp_path: Path) -> None:
    """--plot front=f.svg of three rewards is refused where one of its files exists."""
    (tmp_path / "f-x-y.svg").write_text("mine")
    with pytest.raises(TargetError):
        ran(
            tmp_path / "t.csv",
            "x,y,z\n1,2,3\n3,2,1\n",
            outputs=Outputs(plots=(f"front={tmp_path / 'f.svg'}",)),
        )
    assert (tmp_path / "f-x-y.svg").read_text() == "mine"


def test_two_figures_do_not_share_a_file(tmp_path: Path) -> None:
    """One file cannot be two figures."""
    file = str(tmp_path / "a.svg")
    with pytest.raises(RsoupError):
        ran(tmp_path / "t.csv", outputs=Outputs(plots=(file, f"connectivity={file}")))


def test_a_limit_that_is_no_number_is_refused(tmp_path: Path) -> None:
    """--min-hypervolume nan is refused: a gate that cannot close is none."""
    with pytest.raises(UsageError):
        ran(tmp_path / "t.csv", questions=command.Questions(min_hypervolume=math.nan))


def test_an_endless_tolerance_is_refused(tmp_path: Path) -> None:
    """--tolerance inf is a user's mistake with a message of its own."""
    with pytest.raises(UsageError):
        ran(tmp_path / "t.csv", questions=command.Questions(tolerance=math.inf))
