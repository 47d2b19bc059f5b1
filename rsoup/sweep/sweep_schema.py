"""The format of sweep files as a JSON Schema: a recipe without its λ, the points, the evaluators."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from rsoup import recipe_schema
from rsoup.recipe_schema import MIX, NUMBER, described, either

_Nothing = SkipJsonSchema[None]
_TIME = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?(s|min|m|h|d)?$"},
    ]
}
_SIZE = {"type": ["string", "integer"], "minimum": 1, "pattern": r"^(keep|[0-9]+(\.[0-9]+)? ?([KkMmGgTt][Ii]?)?[Bb]?)$"}  # fmt: skip
_TRACK = "^(trackio|wandb|mlflow)(:[A-Za-z0-9][A-Za-z0-9._/-]*)?$"
_Text = Annotated[str, WithJsonSchema({"type": "string", "minLength": 1})]
_Version = Annotated[str, WithJsonSchema({"type": ["string", "number"], "minLength": 1})]
_Mixes = Annotated[list[Any], WithJsonSchema({"type": "array", "items": MIX, "minItems": 1})]
_Scales = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": NUMBER, "minItems": 1},
                {
                    "type": "object",
                    "properties": {
                        "grid": {
                            "type": "integer",
                            "minimum": 2,
                            "description": "So many, from 0 to 1: 11 is 0, 0.1, … 1.",
                        }
                    },
                    "required": ["grid"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
_Count = Annotated[int, Field(ge=0)]
_REWARD = "NAME, NAME:min, NAME=ADDRESS, or a mapping from name to address or {metric, direction, error}"


class Points(BaseModel):
    """The λ that are measured; every part that is given adds its points."""

    model_config = ConfigDict(title="Points", extra="forbid")

    grid: Annotated[int, Field(ge=2)] | _Nothing = Field(
        None, description="So many values on every edge of the simplex: 11 is steps of 1/10."
    )
    scheffe: bool = Field(False, description="Vertices, midpoints of pairs, and the centre.")
    mixes: _Mixes | _Nothing = Field(
        None, alias="list", description="These λ, each a list or a mapping by name: [[0.3, 0.7], [1/3, 2/3]]."
    )
    csv: _Text | _Nothing = Field(
        None, description="A file with a column per ingredient and a line per λ; relative to the sweep file."
    )
    random: _Count = Field(0, description="So many random λ (Dirichlet, uniform on the simplex).")
    sobol: _Count = Field(0, description="So many evenly spread λ (Sobol).")
    seed: _Count = Field(0, description="The seed of random and sobol.")
    through: list[_Text] | _Nothing = Field(
        None, description="Ingredients through which the grid leads from one expert to the other."
    )
    scales: _Scales | _Nothing = Field(
        None,
        description="Every λ at these distances η from the base, θ₀ + η·(soup − θ₀): [0, 0.5, 1], or {grid: 11}.",
    )
    refine: _Count = Field(0, description="After these, so many more where the front gains most.")


class Metric(BaseModel):
    """Where one number of an evaluator stands, and which direction is better."""

    model_config = ConfigDict(title="Metric", extra="forbid")

    metric: _Text | _Nothing = Field(
        None,
        description="Its address: $.results.score, lm-eval:gsm8k:acc,none, lighteval:TASK:METRIC, "
        "inspect:SCORER:METRIC; by default $.NAME.",
    )
    direction: Literal["maximise", "minimise"] | _Nothing = Field(
        None, description="Which is better; by default maximise, or what a harness's file says."
    )
    error: _Text | _Nothing = Field(
        None, description="The address of its standard error; by default NAME_stderr."
    )


_Metrics = Annotated[list[_Text], Field(min_length=1)] | dict[str, _Text | Metric]


class Evaluator(BaseModel):
    """One way to score a soup: a command, or a Python function of a live soup."""

    model_config = ConfigDict(title="Evaluator", extra="forbid", json_schema_extra=either("run", "function"))

    run: _Text | _Nothing = Field(
        None,
        description="A command, run without a shell; JSON on the last line of its stdout. {model} {out} {lambda} {point} "
        "{seed} {split} {base} {step} {scale} are filled in.",
    )
    function: _Text | _Nothing = Field(
        None, description="Or module:name, a Python function of a live soup: no files."
    )
    rewards: _Metrics | _Nothing = Field(None, description=f"What is optimised: {_REWARD}.")
    guards: _Metrics | _Nothing = Field(None, description=f"What is recorded only: {_REWARD}.")
    files: list[_Text] = Field(
        [], description="Files that decide the scores, besides those the command names."
    )
    version: _Version | _Nothing = Field(None, description="Another version, other results.")
    metrics_file: _Text | _Nothing = Field(
        None, description="Read the JSON here instead: {out}/metrics.json."
    )
    timeout: Annotated[Any, WithJsonSchema(_TIME)] | _Nothing = Field(
        None, description="End an evaluation after this: 90s, 10min, 2h."
    )
    output_limit: Annotated[Any, WithJsonSchema(_SIZE)] | _Nothing = Field(
        None, description="End an evaluation that prints more than this; default 64MiB."
    )


class SweepFile(BaseModel):
    """A sweep: the rewards of soups at many λ, and the front they reach."""

    model_config = ConfigDict(title="rsoup sweep", extra="forbid")

    points: Points | _Nothing = Field(None, description="Which λ are measured.")
    strategy: Literal["points", "greedy", "uniform"] = Field(
        "points",
        description="greedy: the greedy model soup of the checkpoints; uniform: all in equal shares, and each alone.",
    )
    metric: _Text | _Nothing = Field(None, description="The reward that greedy improves.")
    accept_equal: bool = Field(False, description="greedy: keep what is as good, too.")
    evaluate: list[Evaluator] = Field(min_length=1, description="What scores the soups.")
    repeats: Annotated[int, Field(ge=1)] = Field(
        1, description="Evaluations of every point, with the seeds 0, 1 and so on."
    )
    report: _Count = Field(0, description="Evaluations of the front's points with other seeds, to report.")
    report_all: bool = Field(False, description="report: every point, not the front's alone.")
    track: Annotated[str, WithJsonSchema({"type": "string", "pattern": _TRACK})] | _Nothing = Field(
        None,
        description="Mirror the results to an experiment tracker: trackio, wandb or mlflow, and :PROJECT.",
    )


def json_schema() -> dict[str, object]:
    """The format of sweep files as a JSON Schema (draft 7), with a description on every key."""
    soup: dict[str, Any] = recipe_schema.json_schema()
    own: dict[str, Any] = described(SweepFile)
    del soup["properties"]["lambda"], soup["$defs"]["Ingredient"]["properties"]["lambda"]
    return {
        **own,
        "properties": {**soup["properties"], **own["properties"]},
        "$defs": {**soup["$defs"], **own["$defs"]},
        "required": [*soup["required"], *own["required"]],
    }
