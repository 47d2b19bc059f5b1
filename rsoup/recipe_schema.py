"""The recipe format as a JSON Schema, from which editors complete and check while one types."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

_Nothing = SkipJsonSchema[None]
NUMBER: dict[str, Any] = {
    "anyOf": [
        {"type": "number"},
        {"type": "string", "pattern": r"^ *([+-]?[0-9]+/[1-9][0-9]*|[+-]?[0-9.]+([eE][+-]?[0-9]+)?) *$"},
    ]
}
MIX: dict[str, Any] = {
    "anyOf": [
        {"type": "array", "items": NUMBER, "minItems": 1},
        {"type": "object", "additionalProperties": NUMBER, "minProperties": 1},
        {"const": "uniform"},
    ]
}
_SHARE = {"anyOf": [{"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, NUMBER["anyOf"][1]]}
_Number = Annotated[float, WithJsonSchema(NUMBER)]
_Mix = Annotated[Any, WithJsonSchema(MIX)]
_Text = Annotated[str, WithJsonSchema({"type": "string", "minLength": 1})]
_Layers = Annotated[
    str,
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+(-[0-9]+)?$"}]}
    ),
]


def either(one: str, other: str) -> dict[str, Any]:
    """The schema of an object that has exactly one of two keys."""
    return {"oneOf": [{"required": [one]}, {"required": [other]}]}


class Ingredient(BaseModel):
    """One checkpoint, or several of one reward (seeds, averaged with equal shares), that get one λ."""

    model_config = ConfigDict(
        title="Ingredient", extra="forbid", json_schema_extra=either("checkpoint", "checkpoints")
    )

    name: _Text | _Nothing = Field(None, description="What to call it; by default the path's last part.")
    checkpoint: _Text | _Nothing = Field(
        None, description="A folder or a .safetensors file, relative to the recipe's folder."
    )
    checkpoints: list[_Text] | _Nothing = Field(
        None, min_length=1, description="A group, such as the seeds of one reward: averaged, with one λ."
    )
    share: _Number | _Nothing = Field(
        None, alias="lambda", description="Its λ, a decimal or a fraction, kept exactly: 0.3 or 1/3."
    )


class Rule(BaseModel):
    """A mix of its own for some tensors; the first rule that fits a tensor counts."""

    model_config = ConfigDict(title="Rule", extra="forbid", json_schema_extra=either("match", "layers"))

    match: _Text | _Nothing = Field(None, description="A glob on the tensor's name; case counts: '*.mlp.*'.")
    layers: _Layers | _Nothing = Field(
        None, description="A range of layers, both ends included, or one layer: 0-15, 3."
    )
    mix: _Mix = Field(alias="lambda", description="One λ per ingredient: a list, or a mapping by name.")


class RecipeFile(BaseModel):
    """A soup: θ(λ) = Σ λᵢθᵢ over checkpoints that were fine-tuned from one base."""

    model_config = ConfigDict(title="rsoup recipe", extra="forbid")

    base: _Text | _Nothing = Field(
        None, description="The checkpoint all ingredients were fine-tuned from; relative to the recipe."
    )
    method: Literal["linear", "task_arithmetic", "slerp", "factors"] = Field(
        "linear",
        description="linear: Σ λᵢθᵢ. task_arithmetic: θ₀ + Σ λᵢ(θᵢ − θ₀). slerp: along the arc between two "
        "ingredients. factors: adapters, whose A and B are averaged each by itself. The middle two need a base.",
    )
    level: Literal["tensor", "global"] = Field(
        "tensor", description="For slerp: one angle per tensor, or one for the whole checkpoint."
    )
    ingredients: list[Ingredient] = Field(min_length=1, description="The checkpoints to mix.")
    mix: _Mix | _Nothing = Field(
        None,
        alias="lambda",
        description="One λ per ingredient (a list, or a mapping by name), or the word uniform. "
        "Σλ = 1. Alternatively every ingredient has its own lambda.",
    )
    normalize: bool = Field(False, description="Divide every λ by Σλ.")
    affine: bool = Field(
        False, description="Any λ, negative ones too: θ₀ + Σ λᵢ(θᵢ − θ₀); the base gets 1 − Σλ."
    )
    scale: _Number = Field(1, description="After mixing: θ₀ + scale·(soup − θ₀); below 1 is toward the base.")
    variant: _Text | _Nothing = Field(
        None,
        description="Which weight files are read where there are several: fp16 for model.fp16.safetensors.",
    )
    dtype: Literal["keep", "float32", "bfloat16", "float16", "float64"] = Field(
        "keep", description="How the soup is stored; keep: as the ingredients are."
    )
    max_shard_size: Annotated[
        str, WithJsonSchema({"type": ["string", "integer"], "pattern": r"^(keep|[0-9.]+ ?[A-Za-z]*)$"})
    ] = Field("keep", description="The size of a weight file: 5GB, 500MiB; keep: the files as they are.")
    files_from: _Text | _Nothing = Field(
        None, description="Whose tokenizer and configuration are copied: an ingredient's name, or base."
    )
    buffers_from: _Text | _Nothing = Field(
        None, description="Whose integer buffers are taken where they differ: a name, or base."
    )
    optimizer_from: _Text | _Nothing = Field(
        None,
        description="Whose optimiser state a Stable-Baselines3 soup keeps: a name; without it a fresh one.",
    )
    key: _Text | _Nothing = Field(
        None, description="The entry of a PyTorch file that holds the weights: state_dict, model, ema."
    )
    missing: Literal["base"] | _Nothing = Field(
        None, description="Tensors that a partial fine-tune lacks are taken from the base."
    )
    vocab: Literal["truncate", "pad"] | _Nothing = Field(
        None,
        description="Vocabularies of different length: cut to the shortest, or filled up to the longest.",
    )
    file_format: Literal["safetensors", "torch"] | _Nothing = Field(
        None, description="How a folder's weights are stored: model.safetensors, or pytorch_model.bin."
    )
    fold: bool = Field(False, description="Adapters: full weights instead of an adapter.")
    rank: Annotated[int, Field(ge=1)] | _Nothing = Field(
        None, description="Adapters: the soup's rank in every module; without it the exact one."
    )
    max_error: Annotated[float, WithJsonSchema(_SHARE)] | _Nothing = Field(
        None, description="Adapters: truncate as far as this relative error (Frobenius) allows."
    )
    drop: list[_Text] = Field([], description="Globs of tensors to leave out: 'v_head.*'.")
    per_tensor: list[Rule] = Field([], description="Mixes of their own; the first rule that fits counts.")
    allow: list[Literal["base", "config", "tokenizer", "distance", "unindexed", "symlinks"]] = Field(
        [], description="Differences that are meant, and are then no reason to refuse."
    )
    max_distance: Annotated[
        float, WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"const": "inf"}]})
    ] = Field(0.7, description="The largest relative distance from the base that is not refused, or inf.")
    license: _Text | _Nothing = Field(None, description="What the soup's model card says: apache-2.0.")


def described(model: type[BaseModel]) -> dict[str, Any]:
    """A model's JSON Schema, a description on every key; no titles and empty defaults, which editors would show."""
    schema = model.model_json_schema(by_alias=True)
    for part in (schema, *schema["$defs"].values()):
        for key in part["properties"].values():
            key.pop("title", None)
            if key.get("default", ...) in (None, []):
                del key["default"]
    return schema


def json_schema() -> dict[str, Any]:
    """The format of recipe files as a JSON Schema (draft 7), with a description on every key."""
    return {"$schema": "http://json-schema.org/draft-07/schema#", **described(RecipeFile)}
