"""Recipe files: what is read from them, from where, and that what is written is read back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rsoup.errors import AccessError, RefusedFileError, UsageError
from rsoup.recipe import Ingredient, Recipe
from rsoup.recipe_form import INGREDIENT_KEYS, KEYS, RULE_KEYS
from rsoup.recipe_yaml import dump, json_schema, load, loads
from rsoup.request import Request, RuleRequest, make

RECIPES = sorted(
    path for path in (Path(__file__).parent.parent / "recipes").glob("*.yaml") if path.name != "sweep.yaml"
)
AB = "ingredients: [{checkpoint: a}, {checkpoint: b}]\n"
FULL = """\
base: ../base
method: linear
ingredients:
  - name: helpful
    checkpoint: ../helpful
    lambda: 0.3
  - name: harmless
    checkpoints: [../seed1, /abs/seed2, hf://org/seed3]
    lambda: 7e-1
normalize: false
affine: false
scale: 1
variant: fp16
dtype: bfloat16
max_shard_size: 5GB
files_from: helpful
buffers_from: base
drop: ["v_head.*"]
per_tensor:
  - match: "*.mlp.*"
    lambda: [0.5, 0.5]
  - layers: 0-15
    lambda: {harmless: 2/3, helpful: 1/3}
allow: [tokenizer]
max_distance: 0.8
license: apache-2.0
"""


def test_every_key_is_read() -> None:
    """A recipe with every key becomes the Recipe it describes; paths start in the file's folder."""
    expected = Recipe(
        base="soups/base",
        ingredients=(
            Ingredient("helpful", ("soups/helpful",)),
            Ingredient("harmless", ("soups/seed1", "/abs/seed2", "hf://org/seed3")),
        ),
        mix=(Fraction(3, 10), Fraction(7, 10)),
        typed_mix=(Fraction(3, 10), Fraction(7, 10)),
        variant="fp16",
        dtype="BF16",
        max_shard_bytes=5 * 10**9,
        files_from="helpful",
        buffers_from="base",
        drop=("v_head.*",),
        per_tensor=make(
            Request(
                [Ingredient("x", ("x",)), Ingredient("y", ("y",))],
                uniform=True,
                per_tensor=[
                    RuleRequest(("1/2", "1/2"), "*.mlp.*"),
                    RuleRequest(("1/3", "2/3"), None, "0-15"),
                ],
            )
        ).per_tensor,
        allow=("tokenizer",),
        max_distance=0.8,
        license="apache-2.0",
    )

    assert loads(FULL, folder="soups/x") == expected


@pytest.mark.parametrize(
    ("written", "mix"),
    [
        ("lambda: [0.25, 3/4]", (Fraction(1, 4), Fraction(3, 4))),
        ("lambda: {b: 0.75, a: 0.25}", (Fraction(1, 4), Fraction(3, 4))),
        ("lambda: uniform", (Fraction(1, 2), Fraction(1, 2))),
        ("lambda: [1, 3]\nnormalize: true", (Fraction(1, 4), Fraction(3, 4))),
        ("lambda: ['0.25', \"75e-2\"]", (Fraction(1, 4), Fraction(3, 4))),
        ("lambda: [2, -1]\naffine: true\nbase: c", (Fraction(2), Fraction(-1))),
    ],
)
@pytest.mark.fault("E6", "E12")
def test_the_ways_to_write_a_mix(written: str, mix: tuple[Fraction, ...]) -> None:
    """A list, a mapping by name and the word uniform say λ, each number exactly as its text."""
    assert loads(AB + written).mix == mix


@pytest.mark.parametrize(
    "text",
    ["2024-01-02", "1.23e+10", "1:30", "010", "no", "true", "0x1f", "1_000", "=", "12e03", "a: b", "~x"],
)
@pytest.mark.fault("E6", "E10")
def test_a_text_stays_a_text(text: str) -> None:
    """A name that looks like a number, a date or a boolean is that very text, in quotes or without."""
    quoted = loads(f"ingredients: [{{name: '{text}', checkpoint: './{text}'}}]")

    assert quoted.ingredients == (Ingredient(text, (f"./{text}",)),)
    if ": " not in text:
        assert loads(f"ingredients:\n- checkpoint: ./{text}\n  name: {text}") == quoted or text == "~x"


def test_files_are_read_from_their_own_folder(tmp_path: Path) -> None:
    """load resolves paths against the file's folder, accepts a byte order mark, and names the file as typed."""
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "r.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + b"ingredients: [{checkpoint: ../m}]\r\nbase: ./b\r\n")
    recipe = load(str(file))

    assert (recipe.ingredients[0].checkpoints, recipe.base) == ((f"{tmp_path}/m",), f"{tmp_path}/in/b")
    file.write_text("a: 1")
    with pytest.raises(UsageError) as caught:
        load(str(file))
    assert caught.value.details[0].where == f"{file}:1:1"


@pytest.mark.fault("E9")
def test_what_is_not_a_recipe_file(tmp_path: Path) -> None:
    """No file, a folder, a pipe, a device, another encoding and a huge file are refused at once."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "latin").write_bytes(b"base: b\nlicense: \xe9")
    (tmp_path / "wide").write_bytes("base: b".encode("utf-16"))
    (tmp_path / "huge").write_bytes(b"")
    os.truncate(tmp_path / "huge", 1 << 40)
    with pytest.raises(AccessError, match="no such file") as missing:
        load(str(tmp_path / "none"))
    assert missing.value.code == "E0701"
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(RefusedFileError, match="not a regular file"):
            load(str(path))
    for name, place in (("latin", "2:10"), ("wide", "1:1"), ("huge", "1:1")):
        with pytest.raises(UsageError) as caught:
            load(str(tmp_path / name))
        assert caught.value.details[0].where.endswith(f"{name}:{place}")


numbers = st.fractions(0, 2, max_denominator=10**9) | st.decimals(0, 2, places=20).map(Fraction)
texts = st.text(
    st.characters(exclude_characters="\0") | st.just("\udc80"), min_size=1, max_size=12
) | st.sampled_from(
    [
        "null",
        "true",
        "1e-3",
        "010",
        "2024-01-02",
        "a: b",
        "- a",
        "*x",
        "'",
        "#",
        "a\nb",
        " a ",
        "keep",
        "uniform",
        "=",
        "<<",
    ]
)
paths = texts.filter(lambda text: not text.startswith("~"))


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Any recipe that `make` lets pass."""
    names = draw(st.lists(texts, min_size=1, max_size=4, unique=True))
    count = len(names)
    mixes = st.lists(numbers, min_size=count, max_size=count)
    normalize = draw(st.booleans())
    rule = st.builds(
        lambda mix, glob, first, more: RuleRequest(mix, glob, None if glob else f"{first}-{first + more}"),
        *(mixes, st.none() | texts, st.integers(0, 99), st.integers(0, 99)),
    )
    request = Request(
        [Ingredient(name, tuple(draw(st.lists(paths, min_size=1, max_size=3)))) for name in names],
        draw(mixes),
        normalize=normalize,
        affine=not normalize,
        base=draw(paths),
        method=draw(st.sampled_from(["linear", "task_arithmetic"])),
        level=draw(st.sampled_from(["tensor", "global"])),
        scale=draw(numbers),
        variant=draw(st.none() | texts),
        dtype=draw(st.sampled_from([None, "float32", "bf16", "F16", "float64"])),
        max_shard_size=draw(st.none() | st.integers(1, 10**15).map(str) | st.sampled_from(["5GB", "3MiB"])),
        files_from=draw(st.sampled_from([None, "base", *names])),
        drop=draw(st.lists(texts, max_size=2)),
        per_tensor=draw(st.lists(rule, max_size=2)),
        allow=sorted(draw(st.sets(st.sampled_from(["config", "tokenizer"])))),
        max_distance=draw(st.floats(1e-9, 1e9)),
        license=draw(st.none() | texts),
    )
    try:
        return make(request)
    except UsageError:
        assume(False)
        raise


@given(recipes())
@pytest.mark.fault("E10", "E12")
def test_what_is_dumped_is_read_back(recipe: Recipe) -> None:
    """loads(dump(r)) = r."""
    assert loads(dump(recipe)) == recipe


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.name)
def test_the_recipes_that_come_along(file: Path) -> None:
    """Each recipe of the project is read, fits the schema and survives a round trip."""
    jsonschema = pytest.importorskip("jsonschema")
    yaml = pytest.importorskip("yaml")
    recipe = load(str(file))

    assert loads(dump(recipe)) == recipe
    jsonschema.validate(yaml.safe_load(file.read_text()), json_schema())
    jsonschema.validate(yaml.safe_load(dump(recipe)), json_schema())
    assert "# yaml-language-server: $schema=rsoup.schema.json" in file.read_text()


def test_the_schema_knows_the_keys_that_are_read() -> None:
    """The JSON Schema and the reader have the same keys; each has a description, and no other is allowed."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(json.dumps(json_schema()))
    parts = {KEYS: schema, INGREDIENT_KEYS: schema["$defs"]["Ingredient"], RULE_KEYS: schema["$defs"]["Rule"]}

    jsonschema.Draft7Validator.check_schema(schema)
    for keys, part in parts.items():
        assert set(part["properties"]) == set(keys)
        assert all(value["description"] and "title" not in value for value in part["properties"].values())
        assert part["additionalProperties"] is False


def test_nothing_heavy_is_imported() -> None:
    """Importing rsoup.recipe_yaml loads neither yaml nor pydantic nor torch."""
    code = "import sys, rsoup.recipe_yaml; print(sorted({'yaml', 'pydantic', 'torch'} & set(sys.modules)))"

    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )
