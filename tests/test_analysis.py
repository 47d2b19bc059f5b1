"""`rsoup front`: from a table to a document; invariances, edges, comparison, what is written, exit codes."""

from __future__ import annotations

import csv
import io
import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import moocore
import pytest

from rsoup.analysis.compared import other_of
from rsoup.analysis.data import data_of, directed
from rsoup.analysis.document import Asked, document
from rsoup.analysis.drawn import KINDS, Subject, drawn
from rsoup.analysis.intervals import Noise
from rsoup.cli import front as command
from rsoup.cli.front_outputs import Outputs
from rsoup.cli.reading import Reading
from rsoup.console import Console
from rsoup.errors import GateError, RsoupError, TargetError, UsageError
from rsoup.measured.columns import Columns
from rsoup.measured.table import read_table
from rsoup.report.front_text import final

Row = Mapping[str, object]


def curve(count: int = 11, **more: object) -> list[dict[str, object]]:
    """Two experts and the soups between them: concave in both rewards, the guard metric linear."""
    rows = []
    for i in range(count):
        share = i / (count - 1)
        rows.append(
            {
                "lambda_a": f"{count - 1 - i}/{count - 1}" if 0 < i < count - 1 else str(int(i == 0)),
                "lambda_b": f"{i}/{count - 1}" if 0 < i < count - 1 else str(int(i > 0)),
                "x": 2 - 2 * share**2,
                "y": -3 + 4 * (1 - (1 - share) ** 2),
                "g": 5 + share,
                **more,
            }
        )
    return rows


def saved(path: Path, rows: Sequence[Row]) -> str:
    """The rows as a CSV file; its path."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def found(
    path: str,
    *,
    minimise: Sequence[str] = (),
    guards: Sequence[str] = ("g",),
    others: Sequence[str] = (),
    **asked: Any,
) -> dict[str, Any]:
    """The document of a table with the rewards x and y."""
    noise = Noise(draws=200)
    table = directed(read_table(path), ["x", "y"], list(guards), list(minimise))
    data = data_of(table)
    return document(
        table, data, [other_of("other", read_table(o), data) for o in others], Asked(noise, **asked)
    )


def ran(
    path: str,
    capsys: pytest.CaptureFixture[str] | None = None,
    *,
    plots: Sequence[str] = (),
    figures: str | None = None,
    page: str | None = None,
    overwrite: bool = False,
    as_json: bool = False,
    quiet: bool = False,
    questions: command.Questions | None = None,
    **reading: Any,
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `rsoup front`."""
    out, err = io.StringIO(), io.StringIO()
    reading = {"rewards": ("x", "y"), "guards": ("g",), **reading}
    code = command.run(
        Reading(path, **reading),
        questions or command.Questions(draws=200),
        Outputs(tuple(plots), figures, page, smooth=True, overwrite=overwrite),
        console=Console(as_json=as_json, quiet=quiet, out=out, err=err),
    )
    return code, out.getvalue(), err.getvalue()


def test_the_sections_agree_with_their_definitions(tmp_path: Path) -> None:
    """Front, hypervolume, the gap to the chord, λ* and the surrogate of a curve that is known in closed form."""
    about = found(saved(tmp_path / "t.csv", curve()))

    assert len(about["front"]["points"]) == 11
    gains = [[1 - (i / 10) ** 2, 1 - (1 - i / 10) ** 2] for i in range(11)]
    assert about["hypervolume"]["value"] == pytest.approx(
        moocore.hypervolume(gains, ref=[0, 0], maximise=True)
    )
    assert about["hypervolume"]["experts"] == 0
    lmc = about["connectivity"]
    assert lmc["verdict"] == "PASS"
    for i, gap in enumerate(sorted(lmc["rewards"]["x"]["gaps"], key=lambda g: g["gap"])[:2]):
        assert gap["of_range"] == pytest.approx(0.09), i  # λ(1 − λ) at 0.1 and 0.9
    assert lmc["guards"]["g"]["verdict"] == "PASS"
    assert lmc["guards"]["g"]["worst"]["gap"] == pytest.approx(0, abs=1e-12)
    two = about["theory"]["two_experts"]
    assert two["delta"] == {"x": pytest.approx(2), "y": pytest.approx(4)}
    assert two["choices"][1]["lambda"]["b"] == pytest.approx(4 / 6)
    assert two["parabola"]["rewards"]["x"]["rms"] == pytest.approx(0, abs=1e-12)
    assert about["surrogate"]["rewards"]["x"]["leave_one_out"] == pytest.approx(0, abs=1e-12)
    assert about["transfer"]["experts"] == {"x": "a", "y": "b"}
    assert about["coverage"]["rewards"]["x"]["share"] == pytest.approx(1)
    assert about["expected_reward"]["lambda_is_preference"]["value"] == pytest.approx(
        about["expected_reward"]["value"], abs=2e-3
    )


def changed(about: Mapping[str, Any], *skip: str) -> Any:
    """What must not change, without what names the order."""
    return json.loads(json.dumps({k: v for k, v in about.items() if k not in ("table", "points", *skip)}))


def test_the_order_of_the_rows_does_not_matter(tmp_path: Path) -> None:
    """Shuffled rows give the same figures, verdicts and front."""
    rows = [row | {"x_stderr": 0.01, "y_stderr": 0.02} for row in curve()]
    shuffled = rows[:]
    random.Random(1).shuffle(shuffled)
    one, other = found(saved(tmp_path / "a.csv", rows)), found(saved(tmp_path / "b.csv", shuffled))

    assert sorted(one["front"]["points"]) == sorted(other["front"]["points"])
    assert one["hypervolume"]["value"] == pytest.approx(other["hypervolume"]["value"])
    assert one["expected_reward"]["value"] == pytest.approx(other["expected_reward"]["value"])
    assert {k: v["verdict"] for k, v in one["connectivity"]["rewards"].items()} == {
        k: v["verdict"] for k, v in other["connectivity"]["rewards"].items()
    }
    assert one["surrogate"]["measure_next"] == other["surrogate"]["measure_next"]


def test_units_and_directions_do_not_matter(tmp_path: Path) -> None:
    """A reward in other units, or negated and minimised, gives the same normalised figures."""
    rows = curve()
    turned = [row | {"x": 100 - 1000 * float(str(row["x"]))} for row in rows]
    one = found(saved(tmp_path / "a.csv", rows))
    other = found(saved(tmp_path / "b.csv", turned), minimise=["x"])

    assert one["front"]["points"] == other["front"]["points"]
    for key in ("hypervolume", "expected_reward"):
        assert one[key]["value"] == pytest.approx(other[key]["value"])
    for name in ("x", "y"):
        mine, theirs = (about["connectivity"]["rewards"][name] for about in (one, other))
        assert mine["worst"]["of_range"] == pytest.approx(theirs["worst"]["of_range"])


@pytest.mark.parametrize("kind", ["one", "two", "equal", "without λ", "one reward"])
def test_small_and_degenerate_tables(tmp_path: Path, kind: str) -> None:
    """One point, two, all equal, no λ, one reward: every section is there or null, and can be read."""
    rows = curve()
    if kind == "one":
        rows = rows[3:4]
    elif kind == "two":
        rows = [rows[0], rows[-1]]
    elif kind == "equal":
        rows = [row | {"x": 1.0, "y": 2.0} for row in rows]
    elif kind == "without λ":
        rows = [{"x": row["x"], "y": row["y"], "g": row["g"]} for row in rows]
    path = saved(tmp_path / "t.csv", rows)
    table = directed(read_table(path), ["x"] if kind == "one reward" else ["x", "y"], ["g"], [])
    data = data_of(table)
    about = document(table, data, (), Asked(Noise(draws=200)))

    json.dumps(about, allow_nan=False)
    text = "\n".join(final(about, unicode=True, colour=False))
    assert "front" in text
    for name in KINDS:
        for svg in drawn(name, Subject(table, data, (), about)).values():
            assert svg.startswith("<svg")


def test_noise_gives_intervals_and_takes_certainty(tmp_path: Path) -> None:
    """With standard errors figures have intervals, the front has probabilities, and the notes say whose numbers these are."""
    rows = [row | {"x_stderr": 0.2, "y_stderr": 0.4} for row in curve()]
    about = found(saved(tmp_path / "t.csv", rows))

    assert about["hypervolume"]["interval"]["low"] < about["hypervolume"]["interval"]["high"]
    assert set(about["front"]["probability"]) == {point["point"] for point in about["points"]}
    assert all(0 <= chance <= 1 for chance in about["front"]["probability"].values())
    assert about["connectivity"]["verdict"] == "INCONCLUSIVE"
    assert any("looks better than it is" in note for note in about["notes"])
    exact = found(saved(tmp_path / "u.csv", curve()))
    assert exact["hypervolume"]["interval"] is None
    assert any("no standard errors" in note for note in exact["notes"])


def test_other_models_are_compared_point_by_point(tmp_path: Path) -> None:
    """Who dominates whom, and the advantage over M of them, against the definitions."""
    morl = [
        {"x": 2 - 2 * s**2 - 0.3 * (0 < s < 1), "y": -3 + 4 * (1 - (1 - s) ** 2)}
        for s in (0, 0.25, 0.5, 0.75, 1)
    ]
    morl.append({"x": 2.5, "y": 1.5})
    about = found(saved(tmp_path / "t.csv", curve()), others=[saved(tmp_path / "m.csv", morl)])["compared"][0]

    assert [point["relation"] for point in about["points"]] == [
        "equal", "dominated", "dominated", "dominated", "equal", "dominates",
    ]  # fmt: skip
    last = about["points"][-1]
    assert last["distance"] > 0
    assert len(last["dominates"]) == 11
    assert about["hypervolume"]["only_soups"] == 0
    values = [row["average"]["value"] for row in about["advantage"]["curve"]]
    assert values == sorted(values, reverse=True)
    full = about["expected_reward"]["soups"] - about["expected_reward"]["others"]
    assert values[-1] == pytest.approx(full)


def series(tmp_path: Path) -> str:
    """A metrics document of two training steps with a base point and distances."""
    points = []
    for step, height in ((100, 0.5), (200, 1.0)):
        for row in curve(5):
            mix = {"a": row["lambda_a"], "b": row["lambda_b"]}
            points.append(
                {
                    "point": f"step-{step}_{mix['a']}", "lambda": mix, "scale": "1", "step": step, "status": "done",
                    "select": {n: {"value": height * float(str(row[n])), "error": None, "n": 1} for n in ("x", "y")},
                    "report": None, "command": "rsoup merge a b",
                }
            )  # fmt: skip
    about = {"direction": "maximise", "guard": False}
    content = {
        "schema": "rsoup-metrics/1", "ingredients": ["a", "b"], "base": "base", "metrics": {"x": about, "y": about}, "points": points,
        "distances": [{"step": 100, "relative": {"a": 0.1, "b": 0.2}}, {"step": 200, "relative": {"a": 0.2, "b": 0.3}}],
    }  # fmt: skip
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(content))
    return str(tmp_path / "run")


def test_fronts_along_training_share_one_reference(tmp_path: Path) -> None:
    """The last step is analysed, every step is listed, counted from the same reference, with its distances."""
    table = directed(read_table(series(tmp_path)), [], [], [])
    about = document(table, data_of(table), (), Asked(Noise(draws=200)))

    assert about["step"] == 200
    assert [row["step"] for row in about["training"]] == [100, 200]
    assert about["training"][1]["hypervolume"] == about["hypervolume"]["value"]
    assert about["training"][0]["hypervolume"] < about["training"][1]["hypervolume"]
    assert about["training"][0]["distances"] == {"a": 0.1, "b": 0.2}
    first = document(table, data_of(table, step=100), (), Asked(Noise(draws=200)))
    assert (first["step"], len(first["points"])) == (100, 5)


def test_what_is_written(tmp_path: Path) -> None:
    """Figures by kind, all of them into a folder, the page; nothing is replaced without --overwrite."""
    path = saved(tmp_path / "t.csv", curve())
    plot, folder, page = tmp_path / "front.svg", tmp_path / "figures", tmp_path / "front.html"
    code, out, _ = ran(
        path, plots=[str(plot), f"connectivity={tmp_path / 'lmc.svg'}"], figures=str(folder), page=str(page)
    )

    assert code == 0
    assert "written" in out
    assert plot.read_text().startswith("<svg")
    assert {file.name for file in folder.iterdir()} == {"front.svg", "connectivity.svg", "transfer.svg"}
    assert "Content-Security-Policy" in page.read_text()
    with pytest.raises(TargetError) as refused:
        ran(path, plots=[str(plot)])
    assert refused.value.code == "E0601"
    assert ran(path, plots=[str(plot)], overwrite=True)[0] == 0


def test_a_sweep_is_drawn_along_training(tmp_path: Path) -> None:
    """Two steps have their fronts and their measures drawn; the page is that of the sweep's own document."""
    run = series(tmp_path)
    code, _, _ = ran(run, plots=[f"training={tmp_path / 'training.svg'}"], rewards=(), guards=())

    assert code == 0
    assert {file.name for file in tmp_path.glob("training*.svg")} == {
        "training-fronts.svg",
        "training-measures.svg",
    }


def test_quiet_and_json(tmp_path: Path) -> None:
    """-q prints the names of the front's points; --json one document with `hypervolume`."""
    path = saved(tmp_path / "t.csv", curve(3))
    assert ran(path, quiet=True)[1].split() == ["1-0", "0.5-0.5", "0-1"]
    about = json.loads(ran(path, as_json=True)[1])
    assert math.isfinite(about["hypervolume"]["value"])
    assert about["format"] == "rsoup-front/1"


def test_limits_end_with_4(tmp_path: Path) -> None:
    """A verdict other than PASS, or too small a hypervolume: everything is printed, then E0404."""
    dented = [row | ({"x": -1.0} if i == 5 else {}) for i, row in enumerate(curve())]
    path = saved(tmp_path / "t.csv", dented)
    asked = command.Questions(draws=200, require_connectivity=True, min_hypervolume=5)
    code, out, err = ran(path, questions=asked)

    assert code == GateError.exit_code == 4
    assert "FAIL" in out
    assert "E0404" in err
    assert json.loads(ran(path, questions=asked, as_json=True)[1])["error"]["code"] == "E0404"
    kept = command.Questions(draws=200, require_connectivity=True, min_hypervolume=0.1)
    assert ran(saved(tmp_path / "u.csv", curve()), questions=kept)[0] == 0
    single = command.Questions(draws=200, min_hypervolume=0.1, require_connectivity=True)
    assert ran(path, questions=single, rewards=("x",))[0] == 4


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("E0253", {"rewards": ("z",)}),
        ("E0254", {"rewards": ("x",), "guards": ("x",)}),
        ("E0255", {"step": 7}),
        ("E0255", {"split": "test"}),
        ("E0255", {"split": "report"}),
        ("E0255", {"reference": "1"}),
        ("E0255", {"reference": "a,b"}),
        ("E0255", {"reference": "nan,1"}),
        ("E0255", {"experts": ("x",)}),
        ("E0258", {"experts": ("x=nobody",)}),
        ("E0255", {"questions": command.Questions(base_point="nobody")}),
        ("E0249", {"questions": command.Questions(confidence="2")}),
        ("E0256", {"plots": ["circle=a.svg"]}),
        ("E0256", {"plots": ["spider=a.svg"]}),
        ("E0269", {"plots": ["a.pdf"]}),
        ("E0701", {"questions": command.Questions(compare=("nothing.csv",))}),
    ],
)
def test_questions_that_cannot_be_meant(tmp_path: Path, code: str, options: dict[str, Any]) -> None:
    """Each is refused with a hint, and nothing is written."""
    path = saved(tmp_path / "t.csv", curve(3))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RsoupError) as refused:
        ran(path, **options)

    assert refused.value.code == code
    assert refused.value.hint
    assert sorted(tmp_path.iterdir()) == before


def test_directions_are_the_tables_own(tmp_path: Path) -> None:
    """A metrics document knows them: contradicting it, or asking for what it lacks, is refused (E0254)."""
    table = read_table(series(tmp_path))
    with pytest.raises(UsageError, match="more 'x' is better"):
        directed(table, [], [], ["x"])
    with pytest.raises(UsageError, match="only guard metrics"):
        directed(table, [], ["x", "y"], [])
    with pytest.raises(UsageError, match="no metric 'z'"):
        directed(table, ["z"], [], [])


def test_only_like_is_compared_with_like(tmp_path: Path) -> None:
    """E0256: another direction, no such reward, no whole point."""
    run = series(tmp_path)
    own = directed(read_table(saved(tmp_path / "t.csv", curve())), ["x", "y"], ["g"], ["x"])
    for other in (read_table(run), read_table(saved(tmp_path / "o.csv", [{"x": 1}]))):
        with pytest.raises(UsageError) as refused:
            other_of("other", other, data_of(own))
        assert refused.value.code == "E0256"
    holes = read_table(saved(tmp_path / "h.csv", [{"x": 1, "y": ""}, {"x": "", "y": 2}]), Columns(("x", "y")))
    with pytest.raises(UsageError, match="no point of it has every reward"):
        other_of("other", holes, data_of(own))


def test_a_page_needs_lambdas(tmp_path: Path) -> None:
    """Without λ there is nothing to explore (E0256)."""
    path = saved(tmp_path / "t.csv", [{"x": 1, "y": 2, "g": 0}, {"x": 2, "y": 1, "g": 0}])
    with pytest.raises(UsageError) as refused:
        ran(path, page=str(tmp_path / "p.html"))
    assert refused.value.code == "E0256"


def test_one_file_can_hold_both_sets(tmp_path: Path) -> None:
    """`--where method=soup --compare FILE:method=morl` reads both from one table."""
    rows = [row | {"method": "soup"} for row in curve(5)]
    rows += [{"x": 1.0, "y": -1.0, "g": 0, "method": "morl"}, {"x": 0.0, "y": 0.5, "g": 0, "method": "morl"}]
    path = saved(tmp_path / "t.csv", rows)
    asked = command.Questions(draws=200, compare=(f"{path}:method=morl",))
    _, out, _ = ran(path, where=("method=soup",), questions=asked, as_json=True)
    about = json.loads(out)

    assert len(about["points"]) == 5
    assert about["compared"][0]["name"] == "morl"
    assert len(about["compared"][0]["points"]) == 2


def test_the_reader_is_told_which_columns_are_rewards(tmp_path: Path) -> None:
    """A note of every column taken, where none was named; none where some were, or where the table knows."""
    path = saved(tmp_path / "t.csv", curve(3))
    said = json.loads(ran(path, as_json=True, rewards=(), guards=())[1])["notes"]
    assert any("'x', 'y' and 'g' are taken as rewards" in note for note in said)
    assert "taken as rewards" not in str(json.loads(ran(path, as_json=True)[1])["notes"])
    assert "taken as rewards" not in ran(series(tmp_path), as_json=True, rewards=(), guards=())[1]


def test_pairs_that_are_not_drawn_are_counted(tmp_path: Path) -> None:
    """Five rewards have ten pairs, and six are drawn: a note, but only where they are drawn."""
    rows = [{n: random.Random(f"{n}{i}").random() for n in "abcde"} for i in range(4)]
    path = saved(tmp_path / "t.csv", rows)
    drawn_ = ran(path, as_json=True, rewards=(), guards=(), plots=[str(tmp_path / "f.svg")])[1]
    assert any("6 of the 10 pairs" in note for note in json.loads(drawn_)["notes"])
    assert len(list(tmp_path.glob("f-*.svg"))) == 6
    assert "pairs of rewards" not in ran(path, as_json=True, rewards=(), guards=())[1]


def test_compared_points_are_called_after_their_preference(tmp_path: Path) -> None:
    """By the second share of their λ, or by the column with the preference they were trained for."""
    path = saved(tmp_path / "t.csv", curve(5))
    pairs = saved(tmp_path / "pairs.csv", [{"lambda": "0.75,0.25", "x": 1.0, "y": 0.0}])
    column = saved(tmp_path / "mu.csv", [{"mu": 0.375, "x": 0.5, "y": 0.5}])
    questions = command.Questions(compare=(pairs, column), draws=200)
    ran(path, questions=questions, plots=[str(tmp_path / "f.svg")])
    figure = (tmp_path / "f.svg").read_text()
    assert "μ 0.25" in figure
    assert "μ 0.375" in figure


def test_a_reward_that_outweighs_the_others_is_named(tmp_path: Path) -> None:
    """Experts that are nearly equal in a reward make its gains large: a note says so; not with --raw, not otherwise."""
    rows = [row | {"y": 0.01 * i + (i == 2)} for i, row in enumerate(curve(5))]
    path = saved(tmp_path / "t.csv", rows)

    def notes(**options: Any) -> str:
        return str(json.loads(ran(path, as_json=True, **options)[1])["notes"])

    assert "nearly equal in 'y'" in notes()
    assert "nearly equal" not in notes(raw=True)
    path = saved(tmp_path / "u.csv", curve(5))
    assert "nearly equal" not in notes()


def test_a_terminal_is_not_too_narrow(tmp_path: Path) -> None:
    """At 60 columns nothing but the pictures is wider, every word of the wide text is there, and no name is broken."""
    names = [f"reward-{k}" for k in range(7)]
    rows: list[dict[str, object]] = [
        {"lambda_a": a, "lambda_b": b, **{n: (i + 1) * (2 - i + k) / 7 for k, n in enumerate(names)}}
        for i, (a, b) in enumerate((("1", "0"), ("0.5", "0.5"), ("0", "1")))
    ]
    path = saved(tmp_path / "t.csv", rows)
    table = directed(read_table(path), names, [], [])
    about = document(table, data_of(table))
    wide, narrow = (final(about, unicode=True, colour=False, width=width) for width in (None, 60))

    pictured = set(wide) & set(narrow)
    assert max(len(line) for line in narrow if line not in pictured) <= 60
    assert {w for line in wide for w in line.split()} == {w for line in narrow for w in line.split()} | {"·"}
    assert sum("reward-6" in line for line in narrow) >= 1
    assert sum(line.strip().startswith("point") for line in narrow) > 1
