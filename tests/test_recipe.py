"""What can be meant by a recipe, what cannot, and what its hash depends on."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsoup.errors import RsoupError, UsageError
from rsoup.names import names_for
from rsoup.recipe import Ingredient, Recipe, Rule, layer_of
from rsoup.request import MAX_CHECKPOINTS, Request, RuleRequest, make, parse_size

A, B, C = (Ingredient(name, (f"./runs/{name}",)) for name in "abc")
HALF = ("0.5", "0.5")


def refusal(request: Request) -> UsageError:
    """The error that `make` raises for a request."""
    with pytest.raises(UsageError) as caught:
        make(request)
    return caught.value


@pytest.mark.fault("E1")
def test_one_ingredient_needs_no_mix() -> None:
    """One ingredient alone has λ = 1: the soup is its copy."""
    assert make(Request([A])).mix == (Fraction(1),)


@pytest.mark.parametrize(
    ("ingredients", "mix"),
    [
        ([], ("1",)),
        ([], None),
        ([A, B], None),
        ([A, B], ("1",)),
        ([A, B], ("0.2", "0.3", "0.5")),
        ([A], HALF),
    ],
)
@pytest.mark.fault("E1")
def test_every_ingredient_has_one_share(ingredients: list[Ingredient], mix: tuple[str, ...] | None) -> None:
    """No ingredients, no λ for several, or another number of λ than of ingredients: E0202."""
    assert refusal(Request(ingredients, mix)).code == "E0202"


@pytest.mark.fault("E7")
def test_a_decimal_comma_is_recognised_where_it_splits() -> None:
    """`--lambda 0,3,0,7` arrives as four λ for two ingredients, and the hint says how to write it."""
    for ingredients in ([A], [A, B]):
        assert "decimal comma" in str(refusal(Request(ingredients, ("0", "5") * len(ingredients))).hint)


@pytest.mark.fault("E12")
def test_a_thousand_checkpoints_and_no_more() -> None:
    """1000 checkpoints are mixed, 1001 are refused."""
    many = [Ingredient(f"m{i}", ("x",)) for i in range(MAX_CHECKPOINTS)]

    assert sum(make(Request(many, uniform=True)).mix) == 1
    assert refusal(Request([*many, A], uniform=True)).code == "E0202"
    assert refusal(Request([Ingredient("group", ("x",) * 1001)])).code == "E0202"


@pytest.mark.fault("E3", "E12")
def test_no_mix_is_too_long_to_be_written() -> None:
    """λ without a common denominator of a sensible size are refused, not left to crash in a message."""
    odd = [f"1/{10**97 + 2 * i + 1}" for i in range(200)]

    assert refusal(Request([Ingredient(f"m{i}", ("x",)) for i in range(200)], odd)).code == "E0201"


@pytest.mark.parametrize(
    "ingredients",
    [[A, A], [A, Ingredient("base", ("x",))], [A, Ingredient("", ("x",))], [A, Ingredient("empty", ())]],
)
@pytest.mark.fault("E1", "E11")
def test_ingredients_have_distinct_names_and_checkpoints(ingredients: list[Ingredient]) -> None:
    """A name that is taken, reserved or empty, or an ingredient without a checkpoint: E0202."""
    assert refusal(Request(ingredients, HALF)).code == "E0202"


@pytest.mark.fault("E11")
def test_the_same_checkpoint_twice_is_two_ingredients() -> None:
    """A path given twice gets two names; that the contents are identical is said where they are read."""
    paths = ["runs/a", "runs/a"]
    recipe = make(Request([Ingredient(n, (p,)) for n, p in zip(names_for(paths), paths, strict=True)], HALF))

    assert recipe.names == ("runs-a", "runs-a-2")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"mix": ("0.5", "0.6")}, "E0203"),
        ({"mix": ("2", "-1")}, "E0204"),
        ({"mix": ("0", "0"), "normalize": True}, "E0205"),
        ({"normalize": True, "affine": True}, "E0206"),
        ({"uniform": True}, "E0206"),
        ({"mix": ("0.5", "nan")}, "E0201"),
        ({"scale": "inf"}, "E0201"),
        ({"affine": True}, "E0207"),
        ({"scale": "0.5"}, "E0207"),
        ({"method": "task_arithmetic"}, "E0207"),
        ({"method": "slerp"}, "E0207"),
        ({"method": "slerp", "base": "b", "normalize": True}, "E0211"),
        ({"method": "lineer"}, "E0210"),
        ({"level": "layer"}, "E0210"),
        ({"allow": ["everything"]}, "E0210"),
        ({"files_from": "c"}, "E0210"),
        ({"files_from": "base"}, "E0210"),
        ({"buffers_from": "A"}, "E0210"),
        ({"max_distance": "0"}, "E0210"),
        ({"max_distance": "-1"}, "E0210"),
        ({"dtype": "int8"}, "E0208"),
        ({"max_shard_size": "5 bananas"}, "E0212"),
        ({"per_tensor": [RuleRequest(HALF)]}, "E0209"),
        ({"per_tensor": [RuleRequest(HALF, match="*", layers="3")]}, "E0209"),
        ({"per_tensor": [RuleRequest(HALF, layers="5-3")]}, "E0209"),
        ({"per_tensor": [RuleRequest(HALF, layers="a-b")]}, "E0209"),
        ({"per_tensor": [RuleRequest(("1",), match="*")]}, "E0202"),
        ({"per_tensor": [RuleRequest(("1", "1"), match="*")]}, "E0203"),
    ],
)
@pytest.mark.fault("E1", "E2", "E3", "E4", "E5", "E8")
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], code: str) -> None:
    """Each contradiction, unknown word or missing base has its own code."""
    assert refusal(replace(Request([A, B], HALF), **changes)).code == code


@pytest.mark.fault("E4")
def test_affine_takes_any_mix_with_a_base() -> None:
    """With a base, affine keeps λ = (2, −0.5) as it is."""
    assert make(Request([A, B], ("2", "-0.5"), affine=True, base="b")).mix == (Fraction(2), Fraction(-1, 2))


@pytest.mark.fault("E2")
def test_normalize_keeps_what_was_typed() -> None:
    """After normalising, the recipe knows both λ: the typed one and the one applied."""
    recipe = make(Request([A, B], ("1", "3"), normalize=True))

    assert recipe.typed_mix == (Fraction(1), Fraction(3))
    assert recipe.mix == (Fraction(1, 4), Fraction(3, 4))


def test_slerp_turns_between_two() -> None:
    """Slerp takes exactly two ingredients."""
    request = Request([A, B, C], uniform=True, method="slerp", base="b")

    assert refusal(request).code == "E0211"
    assert make(replace(request, ingredients=[A, B])).method == "slerp"


def test_the_first_rule_that_applies_counts() -> None:
    """A tensor gets the mix of the first rule that fits its name, else the recipe's."""
    rules = [RuleRequest(("1", "0"), match="*.bias"), RuleRequest(("0", "1"), layers="0-3")]
    recipe = make(Request([A, B], HALF, per_tensor=rules))

    assert recipe.mix_for("h.2.attn.bias") == (Fraction(1), Fraction(0))
    assert recipe.mix_for("h.2.attn.weight") == (Fraction(0), Fraction(1))
    assert recipe.mix_for("h.4.attn.weight") == (Fraction(1, 2),) * 2
    assert recipe.mix_for("h.4.attn.BIAS") == (Fraction(1, 2),) * 2


@pytest.mark.parametrize(
    ("tensor", "layer"),
    [
        ("model.layers.3.mlp.up_proj.weight", 3),
        ("h.11.attn.bias", 11),
        ("0.weight", 0),
        ("block.7", 7),
        ("h.1.experts.5.weight", 1),
        ("lm_head.weight", None),
        ("conv2d.weight", None),
        ("layer-3.weight", None),
        ("", None),
        ("h.٣.weight", None),
    ],
)
def test_a_tensors_layer_is_its_first_number(tensor: str, layer: int | None) -> None:
    """The layer is the first part of the dotted name that is digits only."""
    assert layer_of(tensor) == layer
    assert Rule((Fraction(1),), layers=(0, 999)).applies_to(tensor) == (layer is not None)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (None, None),
        ("keep", None),
        ("1", 1),
        ("123B", 123),
        ("5GB", 5 * 10**9),
        ("5 gb", 5 * 10**9),
        ("2GiB", 2**31),
        ("0.5KB", 500),
        ("1.5MiB", 3 * 2**19),
        ("1TB", 10**12),
    ],
)
def test_sizes(text: str | None, size: int | None) -> None:
    """GB are powers of 1000, GiB powers of 1024; `keep` is no size."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "0.1B", "-5GB", "5GBB", "GB", "5e9", "5,5GB", "1 000", "٥GB", "9" * 5000 + "GB", "inf"]
)
@pytest.mark.fault("E3", "E6")
def test_what_is_not_a_size_is_refused(text: str) -> None:
    """Anything else than digits and a unit, and anything below a byte, is E0212."""
    with pytest.raises(UsageError) as caught:
        parse_size(text)

    assert caught.value.code == "E0212"


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/helpful", "a/harmless/"], ["helpful", "harmless"]),
        (["a/checkpoint-9", "b/checkpoint-9"], ["a-checkpoint-9", "b-checkpoint-9"]),
        (["x.safetensors", "./y"], ["x", "y"]),
        (["m", "m", "m"], ["m", "m-2", "m-3"]),
        (["runs/base"], ["base-base"]),
        (["/", "."], ["root", "root-2"]),
    ],
)
@pytest.mark.fault("E11")
def test_names_come_from_paths(paths: list[str], names: list[str]) -> None:
    """The last part of a path is its name, with more of the path where two are alike."""
    assert names_for(paths) == names


@given(st.lists(st.text("ab/.-2", max_size=6), max_size=8))
@pytest.mark.fault("E11")
def test_names_are_distinct(paths: list[str]) -> None:
    """As many names as paths, no two alike, and none of them `base`."""
    names = names_for(paths)

    assert len(set(names)) == len(paths)
    assert "base" not in names


def test_the_hash_does_not_know_where_checkpoints_lie() -> None:
    """The same soup from another folder has the same hash; another λ has another one."""

    def recipe(folder: str, *mix: str) -> Recipe:
        return make(Request([Ingredient(n, (f"{folder}/{n}",)) for n in "ab"], mix, base=f"{folder}/base"))

    assert recipe("/x", "0.5", "0.5").sha256() == recipe("y/z", "1/2", "0.50").sha256()
    assert recipe("/x", "0.5", "0.5").sha256() != recipe("/x", "0.4", "0.6").sha256()


@given(
    st.lists(st.text(max_size=8), max_size=3),
    st.text(max_size=8),
    st.text(max_size=8),
    st.text(max_size=8),
    st.booleans(),
)
def test_any_request_is_a_recipe_or_a_usage_error(
    mix: list[str], scale: str, size: str, layers: str, normalize: bool
) -> None:
    """`make` raises nothing but RsoupError."""
    rule = RuleRequest(mix, layers=layers)
    try:
        make(
            Request(
                [A, B],
                mix,
                scale=scale,
                max_shard_size=size,
                per_tensor=[rule],
                normalize=normalize,
                base="b",
            )
        )
    except RsoupError:
        return
