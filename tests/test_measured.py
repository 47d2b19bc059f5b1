"""Tables of measured points that rsoup did not write: columns, rows, λ; read exactly or refused."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest

from rsoup.errors import RefusedFileError, UsageError
from rsoup.measured.columns import Columns, Condition, parse_columns, parse_source
from rsoup.measured.table import read_table
from rsoup.measured.values import Row

PUBLISHED = """method,share,ava,cafe,cafe_stderr,remark
init,,5.2508,0.783,,before
soup,0.0,5.21,0.82,0.01,
soup,0.3,5.25,0.81,0.01,good
soup,1.0,5.74,0.70,0.01,
morl,0.5,5.4,0.79,0.01,its own training
"""


@pytest.fixture
def published(tmp_path: Path) -> str:
    """A table as others publish it."""
    (tmp_path / "table.csv").write_text(PUBLISHED)
    return str(tmp_path / "table.csv")


def test_a_table_of_others_is_read_by_naming_its_columns(published: str) -> None:
    """Rewards, rows and λ are what the user says; other columns may hold anything."""
    columns = parse_columns(["ava", "cafe"], ["method=soup"], ["ava=share", "cafe=rest"], None)
    table = read_table(published, columns)

    assert [row.name for row in table.rows] == ["0-1", "0.3-0.7", "1-0"]
    assert [row.mix for row in table.rows] == [(0, 1), (Fraction(3, 10), Fraction(7, 10)), (1, 0)]
    assert [row.expert for row in table.rows] == [1, None, 0]
    assert table.ingredients == ("ava", "cafe")
    assert (table.rows[0].select["cafe"].value, table.rows[0].select["cafe"].error) == (0.82, 0.01)
    assert table.rows[0].select["ava"].error is None
    assert list(table.metrics) == ["ava", "cafe"]


def test_an_empty_cell_is_a_point_without_lambda(published: str) -> None:
    """The base has no λ, and a value without its error has none."""
    columns = parse_columns(["cafe"], ["method=init"], ["ava=share", "cafe=rest"], "remark")
    (row,) = read_table(published, columns).rows

    assert (row.name, row.mix, row.select["cafe"].error) == ("before", None, None)


def test_conditions_can_be_turned(published: str) -> None:
    """COLUMN!=VALUE leaves rows out."""
    columns = parse_columns(["ava"], ["method!=soup", "method != morl"], [], None)
    assert [row.name for row in read_table(published, columns).rows] == ["row-1"]


def test_text_in_a_column_nobody_named_is_refused(published: str) -> None:
    """Without names every column is a metric, and a text is not a number."""
    with pytest.raises(RefusedFileError, match="'init' in the column 'method' is not a number"):
        read_table(published)


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        (Columns(("nothing",)), "no column 'nothing'"),
        (Columns(("ava",), (Condition("method", "ppo"),)), "no row has method = 'ppo'"),
        (Columns(("ava",), (Condition("kind", "soup"),)), "no column 'kind'"),
        (Columns(("ava",), (), (("a", "weight"), ("b", "rest"))), "no column 'weight'"),
        (Columns(("ava",), name="title"), "no column 'title'"),
    ],
)
def test_what_is_not_in_the_table_is_told(published: str, columns: Columns, what: str) -> None:
    """E0253 names it and lists what there is."""
    with pytest.raises(UsageError, match=what) as refused:
        read_table(published, columns)
    assert refused.value.code == "E0253"
    assert refused.value.hint


@pytest.mark.parametrize(
    ("where", "shares"),
    [(["method"], []), ([], ["ava"]), ([], ["a=x", "a=y"]), ([], ["a=rest", "b=rest"]), (["=soup"], [])],
)
def test_options_on_columns_are_pairs(where: list[str], shares: list[str]) -> None:
    """E0252: NAME=VALUE, each ingredient once."""
    with pytest.raises(UsageError) as refused:
        parse_columns([], where, shares, None)
    assert refused.value.code == "E0252"


def test_a_table_to_compare_with_may_carry_a_condition() -> None:
    """`results.csv:method=morl` is a path and a condition; a colon alone belongs to the path."""
    assert parse_source("results.csv:method=morl") == ("results.csv", (Condition("method", "morl"),))
    assert parse_source("run:1/metrics.json") == ("run:1/metrics.json", ())


def test_lines_of_json_are_a_table(tmp_path: Path) -> None:
    """One object per line, with texts in columns that are no metrics."""
    path = tmp_path / "results.jsonl"
    path.write_text('{"model": "a", "x": 1, "step": 200}\n\n{"model": "b", "x": 2.5, "step": 400.0}\n')
    table = read_table(str(path), Columns(("x",), name="model"))

    assert [(row.name, row.step, row.select["x"].value) for row in table.rows] == [
        ("a", 200, 1.0),
        ("b", 400, 2.5),
    ]


@pytest.mark.parametrize("step", ["1.5", "-1", "nan", "1e19", "soon"])
def test_a_step_is_a_whole_number(tmp_path: Path, step: str) -> None:
    """E0808 for any other."""
    path = tmp_path / "t.csv"
    path.write_text(f"x,step\n1,{step}\n")
    with pytest.raises(RefusedFileError):
        read_table(str(path))


def document(**changes: object) -> dict[str, object]:
    """A small metrics document."""
    score = {"value": 1.0, "error": None, "n": 1}
    points = [
        {
            "point": name, "lambda": {"a": mix, "b": rest}, "scale": "1", "step": step, "status": "done",
            "select": {"x": score, "y": score}, "report": None, "command": "rsoup merge",
        }
        for name, mix, rest, step in [("p", "1", "0", 100), ("q", "0.5", "0.5", 200)]
    ]  # fmt: skip
    about = {"direction": "maximise", "guard": False}
    return {"schema": "rsoup-metrics/1", "ingredients": ["a", "b"], "base": "base", "metrics": {"x": about, "y": about}, "points": points, **changes}  # fmt: skip


def test_a_metrics_document_is_narrowed(tmp_path: Path) -> None:
    """By metric, and by point, step, scale and status."""
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(document()))
    table = read_table(str(tmp_path), Columns(("y",), (Condition("step", "200"),)))

    assert [(row.name, row.step, row.command, list(row.select)) for row in table.rows] == [
        ("q", 200, "rsoup merge", ["y"])
    ]
    assert (list(table.metrics), table.base) == (["y"], "base")


@pytest.mark.parametrize(
    "columns",
    [
        Columns(("z",)),
        Columns(where=(Condition("step", "300"),)),
        Columns(where=(Condition("method", "rs"),)),
        Columns(shares=(("a", "w"),)),
        Columns(name="point"),
    ],
)
def test_a_metrics_document_has_no_columns(tmp_path: Path, columns: Columns) -> None:
    """E0253 for what it does not have, or what it says itself."""
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(document()))
    with pytest.raises(UsageError) as refused:
        read_table(str(path), columns)
    assert refused.value.code == "E0253"


@pytest.mark.parametrize(
    ("mix", "scale", "expert"),
    [
        (("1", "0"), "1", 0),
        (("0", "1"), "1", 1),
        (("1", "0"), "0.5", None),
        (("1", "1"), "1", None),
        (("0", "0"), "1", None),
        (("2", "-1"), "1", None),
        (("0.5", "0.5"), "1", None),
    ],
)
def test_an_expert_is_one_ingredient_alone_and_whole(
    mix: tuple[str, str], scale: str, expert: int | None
) -> None:
    """λ = eᵢ and η = 1."""
    row = Row("p", "done", {}, {}, tuple(map(Fraction, mix)), Fraction(scale))
    assert row.expert == expert


# --- tables as other programs write them

PANDAS = {
    "records": [{"a": 1.0, "b": None, "point": "p"}, {"a": 2.0, "b": 3.5, "point": "q"}],
    "columns": {"a": {"0": 1.0, "1": 2.0}, "b": {"0": None, "1": 3.5}, "point": {"0": "p", "1": "q"}},
    "index": {"0": {"a": 1.0, "b": None, "point": "p"}, "1": {"a": 2.0, "b": 3.5, "point": "q"}},
    "split": {"columns": ["a", "b", "point"], "index": [0, 1], "data": [[1.0, None, "p"], [2.0, 3.5, "q"]]},
    "table": {
        "schema": {"fields": [{"name": "index", "type": "integer"}], "primaryKey": ["index"], "pandas_version": "1.4.0"},
        "data": [{"index": 0, "a": 1.0, "b": None, "point": "p"}, {"index": 1, "a": 2.0, "b": 3.5, "point": "q"}],
    },
}  # fmt: skip


@pytest.mark.parametrize("orient", PANDAS)
def test_every_orient_of_pandas_is_one_table(tmp_path: Path, orient: str) -> None:
    """records, columns, index, split and table hold the same points; null is an empty cell."""
    path = tmp_path / "t.json"
    path.write_text(json.dumps(PANDAS[orient]))
    table = read_table(str(path))

    assert [(r.name, {n: s.value for n, s in r.select.items()}) for r in table.rows] == [
        ("p", {"a": 1.0}),
        ("q", {"a": 2.0, "b": 3.5}),
    ]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ({"a": {"p": 1.0}, "b": {"p": 2.0}}, "E0278"),
        ({"0": {"1": 1.0}}, "E0278"),
        ({"a": {"0": 1.0}, "b": {"1": 2.0}}, "E0808"),
        ({"columns": ["a", "a"], "index": [0], "data": [[1, 2]]}, "E0808"),
        ({"columns": ["a"], "index": [0], "data": [[1, 2]]}, "E0808"),
        ([[1.0, 2.0]], "E0808"),
        ({"schema": 1, "a": 2}, "E0808"),
    ],
)
def test_json_that_could_be_two_tables_is_refused(tmp_path: Path, value: object, code: str) -> None:
    """E0278 where rows and columns look the same; E0808 where cells are missing or names occur twice."""
    path = tmp_path / "t.json"
    path.write_text(json.dumps(value))
    with pytest.raises((UsageError, RefusedFileError)) as refused:
        read_table(str(path))
    assert (refused.value.code, bool(refused.value.hint)) == (code, True)


def test_tabs_separate_a_tsv(tmp_path: Path) -> None:
    """.tsv has tabs and may have commas in its cells; in a .csv tabs are refused, and the other name is told."""
    text = "point\tx\ty\na, b\t1\t2\n"
    (tmp_path / "t.tsv").write_text(text)
    (tmp_path / "t.csv").write_text(text.replace("a, b", "a"))

    (row,) = read_table(str(tmp_path / "t.tsv")).rows
    assert (row.name, row.select["y"].value) == ("a, b", 2.0)
    with pytest.raises(RefusedFileError, match=r"tabs separate its columns, not commas: call it \.tsv"):
        read_table(str(tmp_path / "t.csv"))


CHART = """"Step","run-a - eval/x","run-a - eval/x__MIN","run-a - eval/x__MAX","run-b - eval/x","run-b - eval/x__MIN","run-b - eval/x__MAX"
"100","0.5","0.5","0.5","","",""
"200","0.6","0.6","0.6","0.7","0.7","0.7"
"""


def test_a_chart_of_wandb_is_a_point_per_run_and_step(tmp_path: Path) -> None:
    """Its columns are runs; their extremes are left out; an empty cell is no point."""
    path = tmp_path / "chart.csv"
    path.write_text(CHART)
    table = read_table(str(path))

    assert [(r.name, r.label, r.step, r.select["eval/x"].value) for r in table.rows] == [
        ("step-100_run-a", "run-a", 100, 0.5),
        ("step-200_run-a", "run-a", 200, 0.6),
        ("step-200_run-b", "run-b", 200, 0.7),
    ]
    assert list(table.metrics) == ["eval/x"]
    path.write_text(CHART.replace('"Step"', '"Relative Time"'))
    with pytest.raises(UsageError) as refused:
        read_table(str(path))
    assert refused.value.code == "E0279"


def test_a_table_of_runs_has_names_and_steps(tmp_path: Path) -> None:
    """`Name` and `Step` as wandb and mlflow write them; a preference is what a picture calls a point."""
    path = tmp_path / "runs.csv"
    path.write_text("Name,State,Step,x,mu\nfirst,finished,10,1.5,0.25\nsecond,finished,10,2.5,0.5\n")
    table = read_table(str(path), Columns(("x",)))

    assert [(r.name, r.step, r.label) for r in table.rows] == [
        ("first", 10, "μ 0.25"),
        ("second", 10, "μ 0.5"),
    ]
    path.write_text("Name,Step,x,mu\nfirst,10,1.5,0.25\n")
    assert list(read_table(str(path)).metrics) == ["x"]
    path.write_text("point,Name,step,Step,x,label\np,first,1,10,1.5,seen\n")
    (row,) = read_table(str(path), Columns(("x",))).rows
    assert (row.name, row.step, row.label) == ("p", 1, "seen")


@pytest.mark.parametrize(
    "head", ["Wall time,Step,Value", "run_id,key,value,step,timestamp", "metric,step,value"]
)
def test_one_value_per_line_is_refused_by_name(tmp_path: Path, head: str) -> None:
    """E0276 for TensorBoard's curves and mlflow's histories, with what to make of them."""
    path = tmp_path / "t.csv"
    path.write_text(f"{head}\n{','.join('1' for _ in head.split(','))}\n")
    with pytest.raises(UsageError) as refused:
        read_table(str(path))
    assert (refused.value.code, bool(refused.value.hint)) == ("E0276", True)


@pytest.mark.parametrize("column", ["lambda_a", "share"])
def test_a_word_among_the_shares_has_its_remedy(tmp_path: Path, column: str) -> None:
    """E0277 tells the --where that leaves the row out; with it the table is read."""
    path = tmp_path / "t.csv"
    path.write_text(f"{column},lambda_b,x\n0.3,0.7,1\ninit,init,2\n")
    shares = () if column == "lambda_a" else (("a", "share"), ("b", "rest"))
    with pytest.raises(UsageError) as refused:
        read_table(str(path), Columns(("x",), shares=shares))
    assert (refused.value.code, str(refused.value.hint)[: len(column) + 15]) == ("E0277", f"--where '{column}!=init'"[: len(column) + 15])  # fmt: skip
    where = (Condition(column, "init", other=True),)
    assert len(read_table(str(path), Columns(("x",), where, shares)).rows) == 1
