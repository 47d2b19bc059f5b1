"""The JSON Schema of sweep files: what the tool writes fits it, and it refuses what the reader refuses."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from rsoup.cli.app import app
from rsoup.errors import UsageError
from rsoup.recipe_form import INGREDIENT_KEYS, RULE_KEYS
from rsoup.recipe_form import KEYS as RECIPE_KEYS
from rsoup.recipe_yaml import dump_form
from rsoup.recipe_yaml import json_schema as recipe_schema
from rsoup.sweep.form import EVALUATOR_KEYS, KEYS, METRIC_KEYS, POINT_KEYS
from rsoup.sweep.sweep_schema import json_schema
from rsoup.sweep.sweep_yaml import dump, loads

EXAMPLE = Path(__file__).parent.parent / "recipes" / "sweep.yaml"
PLAIN: dict[str, Any] = {
    "base": "base",
    "ingredients": [{"name": "a", "checkpoint": "x"}, {"name": "b", "checkpoints": ["y", "z"]}],
    "points": {"grid": 3},
    "evaluate": [{"run": "score", "rewards": ["r", "s"], "guards": {"ppl": {"direction": "minimise"}}}],
}
EVALUATOR = ("evaluate", 0)
"""(where, value, whether it is taken): one value of a sweep file in the place of another."""
CHANGES: list[tuple[tuple[str | int, ...], Any, bool]] = [
    (("points", "grid"), 11, True),
    (("points", "grid"), 1, False),
    (("points", "grid"), "many", False),
    (("points", "grid"), [3], False),
    (("points", "scheffe"), True, True),
    (("points", "scheffe"), 2, False),
    (("points", "list"), [[0.25, 0.75], {"a": "1/3", "b": "2/3"}, "uniform"], True),
    (("points", "list"), [], False),
    (("points", "list"), [["x", "y"]], False),
    (("points", "list"), 0.5, False),
    (("points", "random"), 3, True),
    (("points", "random"), -1, False),
    (("points", "sobol"), 2, True),
    (("points", "sobol"), 1.5, False),
    (("points", "seed"), 0, True),
    (("points", "seed"), {}, False),
    (("points", "scales"), [0, 0.5, "1/3"], True),
    (("points", "scales"), {"grid": 3}, True),
    (("points", "scales"), {"grid": 1}, False),
    (("points", "scales"), {"steps": 3}, False),
    (("points", "scales"), [], False),
    (("points", "refine"), 4, True),
    (("points", "refine"), -4, False),
    (("points", "gird"), 5, False),
    (("repeats",), 3, True),
    (("repeats",), 0, False),
    (("report",), 2, True),
    (("report",), -2, False),
    (("strategy",), "points", True),
    (("strategy",), "best", False),
    (("accept_equal",), False, True),
    (("accept_equal",), "yes", False),
    (("lambda",), [0.5, 0.5], False),
    (("ingredients", 0, "lambda"), 0.5, False),
    (("ingredients", 0, "weight"), 0.5, False),
    (("ingredients",), [], False),
    (("evaluate",), [], False),
    ((*EVALUATOR, "function"), "m:f", False),
    ((*EVALUATOR, "runs"), "score", False),
    ((*EVALUATOR, "run"), "", False),
    ((*EVALUATOR, "files"), ["data.jsonl"], True),
    ((*EVALUATOR, "files"), "data.jsonl", False),
    ((*EVALUATOR, "version"), 2, True),
    ((*EVALUATOR, "version"), "2b", True),
    ((*EVALUATOR, "version"), ["2"], False),
    ((*EVALUATOR, "metrics_file"), "{out}/metrics.json", True),
    ((*EVALUATOR, "timeout"), "1.5 h", True),
    ((*EVALUATOR, "timeout"), 90, True),
    ((*EVALUATOR, "timeout"), "soon", False),
    ((*EVALUATOR, "timeout"), 0, False),
    ((*EVALUATOR, "output_limit"), "1MB", True),
    ((*EVALUATOR, "output_limit"), 1000, True),
    ((*EVALUATOR, "output_limit"), "much", False),
    ((*EVALUATOR, "rewards"), {"r": "$.a[0]", "s": {"metric": "lm-eval:t:acc,none", "error": "$.e"}}, True),
    ((*EVALUATOR, "rewards"), {"r": {"direction": "up"}}, False),
    ((*EVALUATOR, "rewards"), {"r": {"adress": "$.r"}}, False),
    ((*EVALUATOR, "rewards"), [], False),
    ((*EVALUATOR, "guards"), ["kl:min"], True),
    ((*EVALUATOR, "guards"), "kl", False),
    (("method",), "task_arithmetic", True),
    (("method",), "average", False),
    (("drop",), ["v_head.*"], True),
    (("per_tensor",), [{"match": "*", "lambda": [0.5, 0.5]}], True),
    (("per_tensor",), [{"match": "*"}], False),
    (("track",), "wandb:team/soups", True),
    (("track",), "tensorboard", False),
    (("stratgy",), "points", False),
]


def changed(*changes: tuple[tuple[str | int, ...], Any, bool]) -> dict[str, Any]:
    """The plain sweep with some of its values replaced."""
    found = copy.deepcopy(PLAIN)
    for where, value, _ in changes:
        at: Any = found
        for step in where[:-1]:
            at = at[step]
        at[where[-1]] = value
    return found


def fits(document: object) -> bool:
    """Whether the schema takes it."""
    jsonschema = pytest.importorskip("jsonschema")
    return bool(jsonschema.Draft7Validator(json_schema()).is_valid(document))


def is_read(document: dict[str, object]) -> bool:
    """Whether the reader takes it."""
    try:
        loads(dump_form(document))
    except UsageError:
        return False
    return True


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: f"{change[0][-1]}-{change[1]}"[:40])
def test_schema_and_reader_agree_on_every_value(change: tuple[tuple[str | int, ...], Any, bool]) -> None:
    """One value at a time: the schema and the reader take it, or both refuse it."""
    assert is_read(changed(change)) == change[2]
    assert fits(changed(change)) == change[2]


@given(st.lists(st.sampled_from([c for c in CHANGES if len(c[0]) > 1 or c[2]]), unique_by=lambda c: c[0]))
def test_schema_and_reader_agree_on_mixtures(changes: list[tuple[tuple[str | int, ...], Any, bool]]) -> None:
    """Any values together: taken by both if each is taken, else refused by both."""
    taken = all(change[2] for change in changes)

    assert is_read(changed(*changes)) == taken
    assert fits(changed(*changes)) == taken


@given(st.lists(st.sampled_from([c for c in CHANGES if c[2]]), unique_by=lambda c: c[0]))
def test_what_is_written_fits_the_schema(changes: list[tuple[tuple[str | int, ...], Any, bool]]) -> None:
    """The sweep.yaml of a sweep is one that an editor finds no fault with."""
    text = dump(loads(dump_form(changed(*changes))))

    assert fits(yaml.safe_load(text))


@pytest.mark.parametrize(
    "more",
    [
        {"max_error": 0.1},
        {"fold": True},
        {"rank": 16},
        {"max_shard_size": "5GB", "max_distance": "inf", "dtype": "bfloat16", "allow": ["config"]},
        {"points": None, "strategy": "greedy", "metric": "r", "accept_equal": True},
        {"points": None, "strategy": "uniform"},
        {"evaluate": [{"function": "m:f", "timeout": "0.5s", "rewards": {"odd name": "$.x"}}], "repeats": 2},
    ],
)
def test_rare_sweeps_fit_the_schema(more: dict[str, Any]) -> None:
    """Adapters, strategies, functions, odd names: read, written, and found without fault."""
    document = {key: value for key, value in {**PLAIN, **more}.items() if value is not None}
    spec = loads(dump_form(document))
    text = dump(spec)

    assert loads(text) == spec
    assert fits(yaml.safe_load(text))


def test_the_example_fits_the_schema() -> None:
    """recipes/sweep.yaml, which names the schema for editors."""
    assert "# yaml-language-server: $schema=rsoup-sweep.schema.json" in EXAMPLE.read_text()
    assert fits(yaml.safe_load(EXAMPLE.read_text()))


def test_the_schema_knows_the_keys_that_are_read() -> None:
    """Schema and reader have the same keys; each has a description for the editor, and no other is allowed."""
    schema = json.loads(json.dumps(json_schema()))
    parts = {
        (*RECIPE_KEYS, *KEYS): schema,
        INGREDIENT_KEYS: schema["$defs"]["Ingredient"],
        RULE_KEYS: schema["$defs"]["Rule"],
        POINT_KEYS: schema["$defs"]["Points"],
        EVALUATOR_KEYS: schema["$defs"]["Evaluator"],
        METRIC_KEYS: schema["$defs"]["Metric"],
    }
    for keys, part in parts.items():
        own = set(keys) - ({"lambda"} if keys != RULE_KEYS else set())
        assert set(part["properties"]) == own
        assert all(value["description"] and "title" not in value for value in part["properties"].values())
        assert part["additionalProperties"] is False
    assert len(parts) == len(schema["$defs"]) + 1
    pytest.importorskip("jsonschema").Draft7Validator.check_schema(schema)


@pytest.mark.parametrize(("kind", "wanted"), [((), recipe_schema), (("recipe",), recipe_schema), (("sweep",), json_schema)])  # fmt: skip
def test_the_command_prints_it(kind: tuple[str, ...], wanted: Any) -> None:
    """`rsoup schema [recipe|sweep]`: the schema, as JSON, on stdout."""
    result = CliRunner().invoke(app, ["schema", *kind])

    assert result.exit_code == 0
    assert json.loads(result.stdout) == wanted()


def test_another_kind_is_refused() -> None:
    """There are schemas of recipes and of sweeps (E0259)."""
    result = CliRunner().invoke(app, ["schema", "soup"])

    assert isinstance(result.exception, UsageError)
    assert result.exception.code == "E0259"
    assert "recipe, sweep" in str(result.exception.hint)
