"""Recipe files that are refused: each mistake with its place, all of them at once, and nothing else escapes."""

from __future__ import annotations

import random
import time

import pytest

from rsoup.errors import RsoupError, UsageError
from rsoup.recipe_yaml import loads

AB = "ingredients: [{checkpoint: a}, {checkpoint: b}]\n"
PER_REWARD = """\
ingredients:
  - name: helpful
    checkpoint: ../helpful
    lambda: 0.3
  - name: harmless
    checkpoints: [../seed1, /abs/seed2, hf://org/seed3]
    lambda: 7e-1
"""
PER_TENSOR = (
    AB
    + """\
lambda: {a: 0.5, b: 0.5}
drop: ["v_head.*"]
per_tensor:
  - match: "*.mlp.*"
    lambda: [0.5, 0.5]
  - layers: 0-15
    lambda: uniform
"""
)


def refusal(text: str) -> UsageError:
    """The error that `loads` raises for a text."""
    with pytest.raises(UsageError) as caught:
        loads(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", "1:1", "the recipe is empty"),
        ("# only this\n", "1:1", "the recipe is empty"),
        ("---\n", "1:1", "the recipe is empty"),
        ("[a]", "1:1", "a mapping is expected here, not a list"),
        ("soup", "1:1", "a mapping is expected here, not the text 'soup'"),
        ("base: b", "1:1", "the key 'ingredients' is missing"),
        ("ingredents: []", "1:1", "did you mean 'ingredients'?"),
        (AB + "lambda: uniform\nbase: x\nbase: y", "4:1", "the key 'base' was already given in line 3"),
        (AB + "lambda: {a: 0.5, b: 0.5, a: 0.5}", "2:26", "the key 'a' was already given"),
        (AB + "lambda: {a: 0.5, bb: 0.5}", "2:18", "unknown ingredient 'bb'; did you mean 'b'?"),
        (AB + "lambda: {a: 1}", "2:9", "no λ for 'b'"),
        (AB + "lambda: 0.3,0.7", "2:9", "write [0.3,0.7]"),
        (AB + "lambda: [0,5, 0.5]\nscale: 0,5", "3:8", "write the decimal point as a point: 0.5"),
        (AB + "lambda: [1:30, 010]", "2:10", "'1:30' is not a number"),
        (AB + "lambda: [.nan, .inf]", "2:16", "'.inf' is not a number"),
        (AB + "lambda: [[1], 0]", "2:10", "one value is expected here, not a list"),
        (AB + "normalize: yes", "2:12", "write true or false"),
        (AB + "method: lineer", "2:9", "did you mean 'linear'?"),
        (AB + "allow: [tokeniser]", "2:9", "did you mean 'tokenizer'?"),
        (AB + "allow: tokenizer", "2:8", "a list is expected here"),
        (AB + "dtype: fp8", "2:8", "one of float32, bfloat16"),
        (AB + "max_shard_size: big", "2:17", "write 5GB, 500MB or keep"),
        (AB + "max_distance: far", "2:15", "'far' is not a number"),
        (AB + "base:", "2:6", "nothing is written here"),
        (AB + "base: ''", "2:7", "nothing is written here"),
        (AB + "base: null", "2:7", "leave the line out"),
        (AB + "base: ~/models/b", "2:7", "starts with '~'"),
        (AB + "base: |\n  b\n", "2:7", "write it on one line"),
        (AB + "base: one\n  two", "2:7", "write it on one line"),
        (AB + "drop: [*.bias]", "2:9", 'needs quotes: "*.bias"'),
        (AB + "drop: *bias", "2:7", "the alias '*bias'"),
        (AB + "base: &x b", "2:7", "the anchor '&x'"),
        (AB + "base: !!str b", "2:7", "the tag '"),
        (AB + "base: ! b", "2:7", "the tag '!'"),
        (AB + "base: !x b", "2:7", "the tag '!x'"),
        (AB + "base: !!python/object/apply:os.system [id]", "2:7", "os.system'; leave it out"),
        (AB + "<<: {base: b}", "2:1", "the merge key '<<'"),
        (AB + "? [a]\n: b", "2:3", "a list as a key"),
        ("&a [*a]", "1:5", "the alias '*a'"),
        (AB + "---\n" + AB, "2:1", "a second document"),
        (AB + "per_tensor:\n\t- match: a", "3:1", "a tab in the indentation"),
        (AB + "base: a\0b", "2:8", "a NUL"),
        (AB + 'base: "a\\0b"', "2:7", "a NUL"),
        (AB + "base: \x1b[31m", "2:7", "the control character U+001B"),
        (AB + "base: a\u2028b", "2:8", "the invisible character U+2028"),
        (AB + "base: \udc80", "2:7", "the invisible character U+DC80"),
        (AB + 'base: "\\U00110000"', "2:10", "out of range"),
        (AB + 'base: "\\UFFFFFFFF"', "2:10", "out of range"),
        ("%YAML " + "9" * 5000 + ".1\n---\n" + AB, "1:7", "out of range"),
        (AB + "base: 'x", "2:9", "a quote that is never closed"),
        (AB + "base: @x", "2:7", "put the value in quotes"),
        (AB + "base: x: y", "2:8", "a ':' that cannot stand here"),
        ("base: " + "[" * 40, "1:26", "more than 20 levels"),
        ("base: " + "{a: " * 5000, "1:80", "more than 20 levels"),
        ("#" * 1_000_001, "1:1", "larger than 1000000 bytes"),
        ("ingredients: []", "1:14", "the list is empty"),
        ("ingredients:\n- ../a", "2:3", "write checkpoint: …"),
        ("ingredients:\n- name: a", "2:3", "an ingredient without a checkpoint"),
        ("ingredients: [{checkpoint: a, checkpoints: [b]}]", "1:44", "both 'checkpoint' and 'checkpoints'"),
        ("ingredients: [{checkpoints: []}]", "1:29", "the list is empty"),
        (
            "ingredients: [{checkpoint: a, lambda: 1}]\nlambda: [1]",
            "2:9",
            "again with the ingredients, line 1",
        ),
        ("ingredients:\n- {checkpoint: a, lambda: 1}\n- checkpoint: b", "3:3", "'b' has no lambda"),
        ("ingredients: [" + "{checkpoint: a}, " * 1001 + "]", "1:14", "more than 1000 ingredients"),
        (AB + "per_tensor: [{lambda: uniform}]", "2:14", "either 'match' or 'layers'"),
        (AB + "per_tensor: [{match: a, layers: 1, lambda: uniform}]", "2:14", "either 'match' or 'layers'"),
        (AB + "per_tensor: [{match: a}]", "2:14", "a rule without λ"),
        (AB + "per_tensor: [{glob: a, lambda: uniform}]", "2:15", "unknown key 'glob'"),
    ],
)
@pytest.mark.fault("E1", "E3", "E6", "E7", "E8", "E9", "E10")
def test_what_is_refused_and_where(text: str, place: str, words: str) -> None:
    """Each mistake is a detail of E0220 with its line and column and with what to write instead."""
    error = refusal(text)

    assert error.code == "E0220"
    assert f"recipe.yaml:{place}" in {problem.where for problem in error.details}
    assert words in next(
        p.what for p in error.details if p.where == f"recipe.yaml:{place}" and words in p.what
    )
    assert str(error).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("text", "code", "place", "hint"),
    [
        (AB, "E0202", "1:14", "'lambda: [1/2, 1/2]'"),
        (AB + "lambda: [1]", "E0202", "2:9", ""),
        (AB + "lambda: [0.3, 0.8]", "E0203", "2:9", "'normalize: true'"),
        ("ingredients: [{checkpoint: a, lambda: 2}]", "E0203", "1:39", "'affine: true'"),
        (AB + "lambda: [2, -1]", "E0204", "2:9", "'affine: true'"),
        (AB + "normalize: true\nlambda: [0, 0]", "E0205", "3:9", ""),
        (AB + "lambda: uniform\naffine: true\nnormalize: true", "E0206", "3:9", ""),
        (AB + "lambda: uniform\nmethod: linear\nscale: 0.5", "E0207", "4:8", "'base: BASE'"),
        (AB + "lambda: uniform\nmethod: slerp", "E0207", "3:9", ""),
        (AB + "lambda: uniform\nfiles_from: A", "E0210", "3:13", "one of a, b"),
        (AB + "lambda: uniform\nbuffers_from: base", "E0210", "3:15", ""),
        (AB + "lambda: uniform\nmax_distance: 0", "E0210", "3:15", ""),
        ("ingredients: [{checkpoint: a}]\nbase: b\nmethod: slerp", "E0211", "3:9", "'method: linear'"),
        ("ingredients: [{checkpoint: a}, {checkpoint: b, name: a}]", "E0202", "1:32", ""),
        ("ingredients: [{checkpoint: b, name: base}]", "E0202", "1:15", "'name: NAME'"),
        (
            AB
            + "lambda: uniform\nper_tensor:\n- {match: a, lambda: [1, 0]}\n- {layers: 5-3, lambda: [1, 0]}",
            *("E0209", "5:3", "write 0-15"),
        ),
        (
            AB + "lambda: uniform\nper_tensor:\n- {match: a, lambda: [1, 0]}\n- {layers: 5, lambda: [1, 1]}",
            *("E0203", "5:3", ""),
        ),
    ],
)
@pytest.mark.fault("E1", "E2", "E4", "E5", "E8")
def test_what_cannot_be_meant_has_a_place(text: str, code: str, place: str, hint: str) -> None:
    """A well-written recipe that `make` refuses keeps the code, gets a place, and a hint in a recipe's words."""
    error = refusal(text)

    assert (error.code, error.where) == (code, f"recipe.yaml:{place}")
    assert hint in str(error.hint)
    assert "--" not in str(error)


@pytest.mark.fault("E8")
def test_all_problems_at_once() -> None:
    """Six mistakes are one error with six details, in the order of the file."""
    error = refusal(
        "bse: x\nmethod: lineer\ningredients:\n- {checkpoint: a, lambda: 0,5}\n- b\nscale: 1:30\nlicense: &x y\n"
    )

    assert error.message.endswith("problems in recipe.yaml")
    assert [p.where for p in error.details] == sorted(p.where for p in error.details)
    assert {1, 2, 4, 5, 6, 7} == {int(p.where.split(":")[1]) for p in error.details}


@pytest.mark.fault("E9")
def test_a_flood_of_problems_is_cut() -> None:
    """However many problems there are, about a hundred are shown, and soon."""
    before = time.monotonic()
    error = refusal("".join(f"k{i}: \n" for i in range(20000)))

    assert len(error.details) == 101
    assert time.monotonic() - before < 10


@pytest.mark.fault("E9", "E10")
def test_names_are_shown_without_their_control_characters() -> None:
    """What a recipe says reaches a message escaped: no escape sequence, no bidirectional override."""
    error = refusal(AB + '"\\e[31m\u202e": 1\n')

    assert "\\u{1b}[31m\\u{202e}" in str(error)
    assert "\x1b" not in str(error)


@pytest.mark.fault("E6", "E7", "E8", "E9")
def test_only_our_own_errors_escape() -> None:
    """Whatever is done to a valid recipe, it is read or refused as RsoupError, never as anything else."""
    dice = random.Random(20240607)
    seeds = [AB + "lambda: [0.5, 1/2]\n", PER_REWARD, PER_TENSOR]
    pieces = [
        *"\t\n\r :-?[]{},&*!|>'\"%@`#~<=\\\0\x85\u2028\ufeff\udc80é0",
        "<<: ",
        "&a ",
        "*a",
        "!!int ",
        "---\n",
    ]
    pieces += [
        "\n  ",
        "null",
        "\\x",
        "%TAG ! x\n",
        "...",
        "lambda: ",
        "1e-3",
        "-1",
        "inf",
        "normalize: true\n",
        "- ",
    ]
    end = time.monotonic() + 2.5
    for _ in range(4000):
        text = dice.choice(seeds)
        for _ in range(dice.randint(1, 4)):
            start = dice.randrange(len(text) + 1)
            stop = min(len(text), start + dice.choice((0, 0, 1, 2, 8)))
            text = text[:start] + dice.choice((dice.choice(pieces), text[stop : stop + 9])) + text[stop:]
        try:
            loads(text)
        except RsoupError as error:
            str(error)
        if time.monotonic() > end:
            break
