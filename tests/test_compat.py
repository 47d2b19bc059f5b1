"""Checkpoints that do not belong together are refused before a byte is written, with every reason at once."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from checkpoints import CONFIG, Family, read_tensors, related, tree, write_file, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st

import rsoup as library
from rsoup.compat import compare_headers
from rsoup.compat_config import compare_configs
from rsoup.compat_quantised import quantised
from rsoup.compat_tokenizer import compare_tokenizers, tokenizer_vocabulary
from rsoup.errors import IncompatibleError, RefusedFileError
from rsoup.tensors import DTYPES, Header, TensorSpec

if TYPE_CHECKING:
    from conftest import Folders

Tensors = dict[str, torch.Tensor]


def refused(folder: Path, *sides: Path, base: Path | None = None, **options: object) -> IncompatibleError:
    """The refusal of an even soup of `sides`; fails if there is none, or if anything in `folder` changed."""
    before = tree(folder)
    recipe = library.make_recipe(list(sides), uniform=True, base=base, **options)  # type: ignore[arg-type]

    with pytest.raises(IncompatibleError) as error:
        library.merge(recipe, folder / "soup")

    assert before == tree(folder)
    return error.value


def changed(tensors: Tensors, **more: torch.Tensor | None) -> Tensors:
    """A copy of `tensors` with some replaced, added, or (None) taken out; `__` in a name is a point."""
    found = dict(tensors)
    for key, value in more.items():
        name = key.replace("__", ".")
        if value is None:
            del found[name]
        else:
            found[name] = value
    return found


def two(folder: Path, one: Tensors, other: Tensors, **more: object) -> tuple[Path, Path]:
    """Two checkpoint folders, `one` and `other`."""
    return write_folder(folder / "one", one, **more), write_folder(folder / "other", other, **more)  # type: ignore[arg-type]


def header(**tensors: str) -> Header:
    """A header from `name="BF16 2 3"`; `__` in a name is a point."""
    found = {}
    for key, text in tensors.items():
        dtype, *shape = text.split()
        found[key.replace("__", ".")] = TensorSpec(DTYPES[dtype], tuple(map(int, shape)))
    return found


def whats(error: IncompatibleError) -> str:
    """All findings of an error as one text."""
    return "\n".join(f"{problem.where}: {problem.what}" for problem in error.details)


# --- F: do they belong together? ------------------------------------------------------------------------


@pytest.mark.fault("F1", "F2", "F3")
def test_every_difference_at_once(tmp_path: Path, family: Family) -> None:
    """A tensor too few, one too many, another shape and another kind are one refusal that names them all."""
    one, other = family.tuned
    sides = two(
        tmp_path,
        one,
        changed(other, scale=None, extra=torch.zeros(3), layers__0__bias=torch.zeros(1, 48), norm__empty=torch.zeros(0, 16).long()),
    )  # fmt: skip

    error = refused(tmp_path, *sides)

    assert error.code == "E0301"
    assert error.exit_code == 3
    assert [problem.where for problem in error.details] == ["missing", "missing", "shape", "dtype"]
    said = whats(error)
    assert "1 tensor of 'one' not in 'other': 'scale'" in said
    assert "1 tensor of 'other' not in 'one': 'extra'" in said
    assert "'layers.0.bias' is [48] and [1, 48]" in said
    assert "'norm.empty'" in said


@pytest.mark.fault("F1")
def test_what_is_missing_is_counted_and_named_by_who_lacks_it(tmp_path: Path) -> None:
    """Tensors with the same fault are one finding: how many, in whom, and a few of their names."""
    family = related(3)
    paths = []
    for i, tensors in enumerate(family.tuned):
        more = {f"new.{k}.weight": torch.zeros(2) for k in range(9)} if i == 0 else {}
        paths.append(write_folder(tmp_path / f"m{i}", tensors | more))

    error = refused(tmp_path, *paths)

    assert "9 tensors of 'm0' not in 'm1' and 'm2': 'new.0.weight', 'new.1.weight'" in whats(error)
    assert "and 6 more" in whats(error)
    assert error.hint is not None
    assert "--drop" in error.hint


@pytest.mark.fault("F2")
def test_what_is_too_much_can_be_left_out(tmp_path: Path, family: Family) -> None:
    """A value head that only training needs is refused with the words that leave it out, and those work."""
    head = {"v_head.summary.weight": torch.zeros(1, 48), "v_head.summary.bias": torch.zeros(1)}
    sides = two(tmp_path, family.tuned[0] | head, family.tuned[1])

    assert "--drop 'v_head.*'" in whats(refused(tmp_path, *sides))
    recipe = library.make_recipe(list(sides), uniform=True, drop=["v_head.*"])
    result = library.merge(recipe, tmp_path / "soup")

    assert result.dropped == tuple(sorted(head))
    assert set(read_tensors(tmp_path / "soup")) == set(family.base)


def test_the_words_that_leave_a_head_out_leave_nothing_else_out() -> None:
    """A nested head's glob begins with the whole path to the head, never with the model's first part."""
    one = header(model__layers__0="F32 2", model__score__weight="F32 1 2")

    (mismatch,) = compare_headers({"a": one, "b": header(model__layers__0="F32 2")})

    assert mismatch.guess is not None
    assert "--drop 'model.score.*'" in mismatch.guess


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 4), max_size=3), st.lists(st.integers(1, 4), max_size=3))
@pytest.mark.fault("F3")
def test_shapes_are_equal_or_refused(one: list[int], other: list[int]) -> None:
    """shape(θ₁) ≠ shape(θ₂) is a mismatch, be they broadcastable or of equally many elements."""
    a, b = ({"w": TensorSpec(DTYPES["F32"], tuple(shape))} for shape in (one, other))

    kinds = [mismatch.kind for mismatch in compare_headers({"a": a, "b": b})]

    assert kinds == ([] if one == other else ["shape"])


@pytest.mark.fault("F4")
def test_a_padded_vocabulary_is_told(tmp_path: Path, family: Family) -> None:
    """Embeddings of other lengths: which rows, in whom, and the function that makes them alike."""
    rows = {
        name: torch.zeros(n, 8) for name, n in (("model.embed_tokens.weight", 152), ("lm_head.weight", 152))
    }
    more = {name: torch.cat([tensor, torch.zeros(8, 8)]) for name, tensor in rows.items()}
    sides = two(tmp_path, family.tuned[0] | rows, family.tuned[1] | more)

    said = whats(refused(tmp_path, *sides))

    assert "2 tensors of another shape" in said
    assert "rows 152 to 159 exist only in 'other'" in said
    assert "resize_token_embeddings" in said


def test_guesses_at_shapes() -> None:
    """Transposed weights, other sizes and other label heads are told apart."""
    for one, other, guess in (
        (header(w="F32 2 3"), header(w="F32 3 2"), "transposed"),
        (header(w="F32 2 3"), header(w="F32 4 3"), "different sizes"),
        (header(score__weight="F32 2 3"), header(score__weight="F32 5 3"), "--drop"),
    ):
        (mismatch,) = compare_headers({"a": one, "b": other})
        assert mismatch.guess is not None
        assert guess in mismatch.guess


def tokenizer(tokens: list[str], **more: object) -> dict[str, object]:
    """A tokenizer.json with these tokens."""
    model = {
        "type": "BPE",
        "vocab": {token: i for i, token in enumerate(tokens)},
        "merges": more.pop("merges", []),
    }
    return {"model": model, "added_tokens": [], **more}


def with_tokenizer(folder: Path, tensors: Tensors, value: Mapping[str, object]) -> Path:
    """A checkpoint with a tokenizer.json."""
    return write_folder(folder, tensors, side_files={"tokenizer.json": json.dumps(value)})


@pytest.mark.fault("F5")
def test_permuted_tokens_are_refused(tmp_path: Path, family: Family) -> None:
    """Two ids that changed places: refused with their number and both their tokens."""
    a = with_tokenizer(tmp_path / "a", family.tuned[0], tokenizer(["x", "y", "z"]))
    b = with_tokenizer(tmp_path / "b", family.tuned[1], tokenizer(["x", "z", "y"]))

    error = refused(tmp_path, a, b)

    assert "2 token ids mean other tokens in 'a' and 'b': 1: 'y' / 'z', 2: 'z' / 'y'" in whats(error)
    assert error.hint == "if you know that this does not matter: --allow tokenizer"


@pytest.mark.fault("F5")
def test_added_tokens_are_refused_between_ingredients(tmp_path: Path, family: Family) -> None:
    """A token only one fine-tune knows has a trained row in one and noise in the other."""
    added = [{"id": 3, "content": "<|im_start|>"}]
    a = with_tokenizer(tmp_path / "a", family.tuned[0], tokenizer(["x", "y", "z"]))
    b = with_tokenizer(tmp_path / "b", family.tuned[1], tokenizer(["x", "y", "z"], added_tokens=added))

    assert "1 token id known to only one of 'a' and 'b': 3: '<|im_start|>'" in whats(refused(tmp_path, a, b))

    recipe = library.make_recipe([a, b], uniform=True, allow=["tokenizer"])
    assert any("allowed: 1 token id" in note for note in library.merge(recipe, tmp_path / "soup").notes)


@pytest.mark.fault("F5")
def test_tokens_added_to_the_base_are_a_note(tmp_path: Path) -> None:
    """Fine-tunes that all know the same new tokens belong together, though their base does not know them."""
    family = related(3)
    added = [{"id": 3, "content": "<|im_start|>"}]
    base = with_tokenizer(tmp_path / "base", family.base, tokenizer(["x", "y", "z"]))
    a, b = (
        with_tokenizer(tmp_path / name, tensors, tokenizer(["x", "y", "z"], added_tokens=added))
        for name, tensors in zip("ab", family.tuned, strict=False)
    )
    c = with_tokenizer(tmp_path / "c", family.tuned[2], tokenizer(["x", "y", "z"]))

    result = library.merge(library.make_recipe([a, b], uniform=True, base=base), tmp_path / "out" / "soup")

    assert any("1 token id of 'a' new to 'base': 3: '<|im_start|>'" in note for note in result.notes)
    assert "known to only one of 'a' and 'c'" in whats(refused(tmp_path, a, c, base=base))


@pytest.mark.fault("F5")
@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (tokenizer(["x", "y"], merges=["x y", "y x"]), tokenizer(["x", "y"], merges=["y x", "x y"]), "merges"),
        (tokenizer(["x", "y"], merges=["x y"]), tokenizer(["x", "y"], merges=[["x", "y"]]), None),
        ({"model": {"vocab": [["x", -1.0], ["y", -2.0]]}}, {"model": {"vocab": [["x", -1.0], ["y", -3.0]]}}, "scores"),
        ({"model": {"vocab": [["x", -1.0], ["y", -2.0]]}}, {"model": {"vocab": [["y", -1.0], ["x", -2.0]]}}, "other tokens"),
        (tokenizer(["x"]), {"model": {}}, None),
        (tokenizer(["x"]), "nonsense", None),
    ],
)  # fmt: skip
def test_what_else_a_tokenizer_may_differ_in(one: object, other: object, expected: str | None) -> None:
    """Merges in another order and other unigram scores are refused; another spelling of merges is not."""
    mismatch, _ = compare_tokenizers("a", one, "b", other)

    assert (mismatch.what if mismatch else None) is None if expected is None else mismatch is not None
    if expected is not None and mismatch is not None:
        assert expected in mismatch.what


def test_steps_before_the_vocabulary_are_a_note() -> None:
    """Another normalizer, pre-tokenizer or post-processor leaves the rows what they are: said, not refused."""
    mismatch, notes = compare_tokenizers(
        "a", tokenizer(["x"], normalizer={"type": "NFC"}), "b", tokenizer(["x"], normalizer=None)
    )

    assert mismatch is None
    assert notes == ["tokenizer.json: 'normalizer' of 'a' and 'b' differ"]
    assert tokenizer_vocabulary(tokenizer(["x", "y"])) == {0: "x", 1: "y"}


@pytest.mark.fault("F5")
def test_slow_tokenizers_are_compared_by_their_files(tmp_path: Path, family: Family) -> None:
    """Without a tokenizer.json the vocabularies' files are compared byte for byte."""
    a = write_folder(tmp_path / "a", family.tuned[0], side_files={"tokenizer.model": b"one"})
    b = write_folder(tmp_path / "b", family.tuned[1], side_files={"tokenizer.model": b"two"})

    assert "tokenizer.model differs between 'a' and 'b'" in whats(refused(tmp_path, a, b))


@pytest.mark.fault("F6")
@pytest.mark.parametrize("equal", [True, False])
def test_a_head_stored_by_one_and_tied_by_the_other(tmp_path: Path, family: Family, equal: bool) -> None:
    """A head stored beside the embeddings it equals may be left out; one that differs would be lost, and is said."""
    rows = torch.randn(16, 8)
    embedded = {"model.embed_tokens.weight": rows}
    head = {"lm_head.weight": rows.clone() if equal else rows + 1}
    sides = two(tmp_path, family.tuned[0] | embedded | head, family.tuned[1] | embedded)

    said = whats(refused(tmp_path, *sides))

    if equal:
        assert (
            "a tied head: it equals the embeddings wherever it is stored, so --drop 'lm_head.weight'" in said
        )
        recipe = library.make_recipe(list(sides), uniform=True, drop=["lm_head.weight"])
        assert library.merge(recipe, tmp_path / "soup").dropped == ("lm_head.weight",)
    else:
        assert "in 'one' it is a head of its own" in said
        assert "would lose it" in said


@pytest.mark.fault("F7")
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("", "module.", "called 'module.…': saved from a wrapped model?"),
        ("", "_orig_mod.", "called '_orig_mod.…'"),
        ("", "_orig_mod.module.", "called '_orig_mod.module.…'"),
        ("", "base_model.model.", "called 'base_model.model.…'"),
        ("model.", "", "lack the prefix 'model.'"),
        ("model.language_model.", "language_model.model.", "called 'language_model.model.…' instead of 'model.language_model.…'"),
    ],
)  # fmt: skip
def test_prefixes_are_found(tmp_path: Path, family: Family, old: str, new: str, said: str) -> None:
    """Names that differ by one consistent prefix are recognised, whichever wrapper wrote it."""
    sides = two(
        tmp_path,
        {old + name: tensor for name, tensor in family.tuned[0].items()},
        {new + name: tensor for name, tensor in family.tuned[1].items()},
    )

    error = refused(tmp_path, *sides)

    assert said in whats(error)
    assert len(error.details) == 2
    assert error.hint is None  # leaving tensors out would not help here


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "model", "0"]), max_size=3), st.booleans())
@pytest.mark.fault("F7")
def test_a_prefix_is_only_named_if_it_explains_everything(parts: list[str], broken: bool) -> None:
    """For every prefix p: names p·n are explained by p; with one name that is not, nothing is claimed."""
    names = [f"layers.{i}.{leaf}.weight" for i in range(3) for leaf in ("up", "down")]
    prefix = "wrap." + "".join(f"{part}." for part in parts)
    spec = TensorSpec(DTYPES["F32"], (2,))
    theirs = {prefix + name: spec for name in names}
    if broken:
        theirs[f"{prefix}other"] = theirs.pop(prefix + names[3])

    found = compare_headers({"a": dict.fromkeys(names, spec), "b": theirs})

    assert all((mismatch.guess is None) == broken for mismatch in found)
    assert broken or f"'{prefix}…'" in str(found[0].guess)


@pytest.mark.fault("F8")
def test_fused_experts_are_named() -> None:
    """Experts stored one by one and as one tensor are the same model saved in two ways, and it is said how."""
    one = header(**{f"m__experts__{i}__{w}__weight": "F32 2 2" for i in range(2) for w in ("w1", "w2", "w3")})
    fused = header(m__experts__gate_up_proj="F32 2 4 2", m__experts__down_proj="F32 2 2 2")

    found = compare_headers({"a": one, "b": fused})

    assert len(found) == 2
    assert all("save_original_format=False" in str(mismatch.guess) for mismatch in found)


@pytest.mark.fault("F9")
def test_mixed_float_types_are_mixed_and_said(tmp_path: Path, family: Family) -> None:
    """bf16 and fp32 are mixed in float64; the soup gets the type that holds both, and a note says so."""
    sides = two(tmp_path, family.tuned[0], related(2, dtype=torch.float32).tuned[1])

    result = library.merge(library.make_recipe(list(sides), uniform=True), tmp_path / "soup")

    assert "5 tensors are stored as BF16 and F32: the soup gets F32" in result.notes
    assert read_tensors(tmp_path / "soup")["scale"].dtype == torch.float32


@pytest.mark.fault("F10")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_overflow_is_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    """A sum beyond the largest value of the stored type is refused with tensor, count and a wider type."""
    largest = torch.finfo(dtype).max
    rows = [{"w": torch.tensor([1.0, factor * largest, 0.5]).to(dtype)} for factor in (0.9, 0.1)]
    base, one = (
        write_file(tmp_path / f"{name}.safetensors", row) for name, row in zip("bo", rows, strict=True)
    )
    recipe = library.make_recipe([base], mix=["3"], affine=True, base=one, allow=["distance"])

    with pytest.raises(IncompatibleError) as error:
        library.merge(recipe, tmp_path / "soup.safetensors")

    assert error.value.code == "E0305"
    assert "1 elements of the soup's 'w' are too large for" in error.value.message
    assert "first at element 1" in error.value.message
    assert "--dtype" in str(error.value.hint)


@pytest.mark.fault("F10")
def test_overflow_of_a_narrower_output_is_refused(tmp_path: Path) -> None:
    """A bf16 weight of 70,000 does not fit into fp16: refused, although its ingredients are finite."""
    paths = [
        write_file(tmp_path / f"{i}.safetensors", {"w": torch.tensor([7e4]).bfloat16()}) for i in range(2)
    ]
    recipe = library.make_recipe(paths, uniform=True, dtype="float16")

    with pytest.raises(IncompatibleError) as error:
        library.merge(recipe, tmp_path / "soup.safetensors")

    assert error.value.code == "E0305"


@pytest.mark.fault("F11")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_weights_are_refused(tmp_path: Path, family: Family, value: float) -> None:
    """NaN or infinity in one ingredient: refused with its name, the tensor, how many and where the first is."""
    bad = family.tuned[1]["layers.0.weight"].clone()
    bad[1, 2] = bad[3, 4] = value
    sides = two(tmp_path, family.tuned[0], changed(family.tuned[1], layers__0__weight=bad))

    error = refused(tmp_path, *sides)

    assert error.code == "E0304"
    assert "tensor 'layers.0.weight' of 'other' holds 2 NaN or infinite values (first at element 66)" in str(
        error
    )
    assert "leave 'other' out" in str(error.hint)


@pytest.mark.fault("F11")
def test_the_guilty_one_is_named(tmp_path: Path, family: Family) -> None:
    """Where all share an infinity and one has a NaN besides, that one is named, and its NaN counted alone."""
    rows = [tensors["layers.0.weight"].clone() for tensors in family.tuned]
    for row in rows:
        row[0, :7] = -math.inf
    rows[1][5, 0] = math.nan
    sides = two(
        tmp_path, *(changed(t, layers__0__weight=r) for t, r in zip(family.tuned, rows, strict=True))
    )  # fmt: skip

    assert "of 'other' holds 1 NaN or infinite values (first at element 320)" in str(
        refused(tmp_path, *sides)
    )


@pytest.mark.fault("F11")
def test_what_all_share_is_kept(tmp_path: Path, family: Family) -> None:
    """A causal mask of −∞ that is the same everywhere is carried over, said, and leaves the distances alone."""
    mask = torch.full((6, 6), -math.inf).triu(1)
    paths = [
        write_folder(tmp_path / str(i), tensors | {"mask": mask})
        for i, tensors in enumerate((family.base, *family.tuned))
    ]

    result = library.merge(library.make_recipe(paths[1:], uniform=True, base=paths[0]), tmp_path / "soup")

    assert torch.equal(mask, read_tensors(tmp_path / "soup")["mask"])
    assert any("'mask' keeps 15 NaN or infinite values" in note for note in result.notes)
    assert result.distances is not None
    assert all(value is not None and 0 < value < 0.1 for value in result.distances.relative)


SEMANTIC = {
    "rope_theta": (10000.0, 500000.0),
    "hidden_act": ("silu", "gelu"),
    "rms_norm_eps": (1e-5, 1e-6),
    "num_attention_heads": (4, 8),
    "num_key_value_heads": (4, 8),
    "final_logit_softcapping": (None, 30.0),
    "sliding_window": (None, 4096),
    "tie_word_embeddings": (False, True),
    "rope_scaling": (None, {"rope_type": "yarn", "factor": 4.0}),
    "rope_parameters": (
        {"rope_theta": 1e4, "rope_type": "default"},
        {"rope_theta": 1e4, "rope_type": "llama3", "factor": 8.0},
    ),
    "layer_types": (["full_attention"], ["sliding_attention"]),
    "norm_topk_prob": (True, False),
    "model_type": ("llama", "mistral"),
    "architectures": (["A"], ["B"]),
    "id2label": ({"0": "neg", "1": "pos"}, {"0": "pos", "1": "neg"}),
    "hidden_size": (64, 128),
}


@pytest.mark.fault("F13")
@pytest.mark.parametrize("key", SEMANTIC)
@pytest.mark.parametrize("inside", ["", "text_config"])
def test_what_changes_the_meaning_of_weights_is_refused(key: str, inside: str) -> None:
    """A meaningful key of config.json with two values is a mismatch that names key and both values."""
    one, other = ({inside: {key: value}} if inside else {key: value} for value in SEMANTIC[key])

    found, notes = compare_configs({"a": one, "b": other})

    assert [mismatch.kind for mismatch in found] == ["config"]
    assert "in 'a' and " in found[0].what
    assert not notes


@pytest.mark.fault("F13")
def test_config_differences_are_refused_or_allowed(tmp_path: Path, family: Family) -> None:
    """Every meaningful difference is listed at once; --allow config turns them into notes."""
    a = write_folder(
        tmp_path / "a", family.tuned[0], config={**CONFIG, "rope_theta": 1e4, "hidden_act": "silu"}
    )
    b = write_folder(
        tmp_path / "b", family.tuned[1], config={**CONFIG, "rope_theta": 1e6, "hidden_act": "relu"}
    )

    error = refused(tmp_path, a, b)

    assert [problem.where for problem in error.details] == ["config", "config"]
    assert "rope_theta is 10000.0 in 'a' and 1000000.0 in 'b'" in whats(error)
    assert error.hint == "if you know that this does not matter: --allow config"
    recipe = library.make_recipe([a, b], uniform=True, allow=["config"])
    assert sum(note.startswith("allowed: ") for note in library.merge(recipe, tmp_path / "soup").notes) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"use_cache": True, "transformers_version": "4.50", "torch_dtype": "bfloat16"}, {"use_cache": False, "transformers_version": "5.23", "dtype": "float32"}),
        ({"rope_theta": 1e4, "rope_scaling": None}, {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}}),
        (
            {"rope_theta": 5e5, "rope_scaling": {"type": "llama3", "factor": 8.0}},
            {"rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0}},
        ),
        (
            {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": None},
            {"rope_parameters": {"full_attention": {"rope_theta": 1e6, "rope_type": "default"}, "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"}}},
        ),
        (
            {"use_sliding_window": False, "sliding_window": 131072, "max_window_layers": 28},
            {"use_sliding_window": False, "sliding_window": None, "max_window_layers": 21},
        ),
        ({"attention_dropout": 0.0, "router_aux_loss_coef": 0.1}, {"attention_dropout": 0.1, "router_aux_loss_coef": 0.2}),
        ({"head_dim": None}, {}),
    ],
)  # fmt: skip
def test_what_means_the_same_is_not_a_word(one: dict[str, object], other: dict[str, object]) -> None:
    """Cosmetic keys, the spellings of transformers 4 and 5 and switched-off settings are neither refused nor noted."""
    assert compare_configs({"a": one, "b": other}) == ([], [])


def test_unknown_and_one_sided_keys_are_notes() -> None:
    """A key rsoup does not know, or that only one side writes, refuses nothing; the reader is told."""
    found, notes = compare_configs(
        {"a": {"foo": 1, "hidden_act": "silu"}, "b": {"foo": 2, "max_position_embeddings": 5}, "c": None}
    )

    assert not found
    assert "no config.json in 'c': only tensors were compared" in notes
    assert "config.json: foo is 1 in 'a' and 2 in 'b'" in notes
    assert "config.json: hidden_act is silu in 'a' and not given in 'b'" in notes


def test_a_context_length_matters_where_rope_is_scaled() -> None:
    """max_position_embeddings is a limit with plain RoPE (a note) and a part of the formula with scaled RoPE."""
    scaling = {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}

    plain = compare_configs({"a": {"max_position_embeddings": 4096}, "b": {"max_position_embeddings": 8192}})
    scaled = compare_configs(
        {"a": {"max_position_embeddings": 4096, **scaling}, "b": {"max_position_embeddings": 8192, **scaling}}
    )

    assert (len(plain[0]), len(plain[1])) == (0, 1)
    assert (len(scaled[0]), len(scaled[1])) == (1, 0)


@pytest.mark.fault("F14", "F17", "F22")
@pytest.mark.parametrize("how", ["unrelated", "permuted neurons", "experts in another order"])
def test_strangers_are_refused(tmp_path: Path, how: str) -> None:
    """Independent runs, permuted neurons, shuffled experts: all are far from the base, and refused as strangers."""
    generator = torch.Generator().manual_seed(0)
    base = {f"experts.{i}.weight": torch.randn(32, 16, generator=generator) for i in range(4)}
    near = {name: tensor + 0.01 * torch.randn(32, 16, generator=generator) for name, tensor in base.items()}
    names = list(base)
    if how == "unrelated":
        far = {name: torch.randn(32, 16, generator=generator) for name in names}
    elif how == "permuted neurons":
        far = {name: tensor[torch.randperm(32, generator=generator)] for name, tensor in near.items()}
    else:
        far = {name: near[names[i - 1]] for i, name in enumerate(names)}
    paths = [write_folder(tmp_path / n, t) for n, t in (("base", base), ("near", near), ("far", far))]

    error = refused(tmp_path, *paths[1:], base=paths[0])

    assert error.code == "E0306"
    assert error.exit_code == 3
    assert "'far': relative distance 1." in whats(error)
    assert "'near'" not in whats(error)
    assert "--allow distance" in str(error.hint)
    recipe = library.make_recipe(paths[1:], uniform=True, base=paths[0], allow=["distance"])
    assert any("'far' moved far" in note for note in library.merge(recipe, tmp_path / "soup").notes)


@pytest.mark.fault("F16")
def test_another_architecture_of_the_same_shapes_is_refused(tmp_path: Path, family: Family) -> None:
    """Equal names and shapes are not enough: model_type and architectures are compared."""
    a = write_folder(
        tmp_path / "a", family.tuned[0], config={"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    )
    b = write_folder(
        tmp_path / "b",
        family.tuned[1],
        config={"architectures": ["MistralForCausalLM"], "model_type": "mistral"},
    )

    said = whats(refused(tmp_path, a, b))

    assert "model_type is llama in 'a' and mistral in 'b'" in said
    assert "architectures is" in said


def test_empty_checkpoints_are_refused(tmp_path: Path, family: Family) -> None:
    """A checkpoint without a single tensor is no ingredient."""
    sides = two(tmp_path, family.tuned[0], {})

    assert "empty: 'other' holds no tensors" in whats(refused(tmp_path, *sides))


# --- G: integers, buffers, quantised models -------------------------------------------------------------


@pytest.mark.fault("G1")
def test_equal_buffers_are_copied(tmp_path: Path, family: Family) -> None:
    """Integers and booleans that are equal everywhere are copied, not averaged: the old causal mask of GPT-2."""
    mask = torch.ones(1, 1, 8, 8, dtype=torch.uint8).tril()
    more = {
        "h.0.attn.bias": mask,
        "h.0.attn.masked_bias": torch.tensor(-1e4),
        "flags": torch.tensor([True, False]),
    }
    sides = two(tmp_path, family.tuned[0] | more, family.tuned[1] | more)

    result = library.merge(library.make_recipe(list(sides), mix=["0.3", "0.7"]), tmp_path / "soup")

    soup = read_tensors(tmp_path / "soup")
    assert all(torch.equal(tensor, soup[name]) for name, tensor in more.items())
    assert result.copied == 3


@pytest.mark.fault("G2")
@pytest.mark.parametrize("value", [torch.arange(33) + 1, torch.zeros(33, dtype=torch.int64)])
def test_different_buffers_are_refused_or_taken_from_one(
    tmp_path: Path, family: Family, value: torch.Tensor
) -> None:
    """Integers have no mean: refused with the first element that differs; --buffers-from decides."""
    sides = two(tmp_path, family.tuned[0], changed(family.tuned[1], position_ids=value))

    error = refused(tmp_path, *sides)

    assert error.code == "E0303"
    assert f"element {0 if value[0] else 1} differs between 'one' and 'other'" in whats(error)
    assert "--buffers-from" in str(error.hint)
    recipe = library.make_recipe(list(sides), uniform=True, buffers_from="other")
    result = library.merge(recipe, tmp_path / "soup")
    assert torch.equal(value, read_tensors(tmp_path / "soup")["position_ids"])
    assert any("'position_ids' differs and is taken from 'other'" in note for note in result.notes)


@pytest.mark.fault("G3")
def test_batch_norm_is_averaged_with_a_warning(tmp_path: Path, family: Family) -> None:
    """Running statistics are averaged with a loud note; the counter comes from the largest λ."""
    rows = [
        {
            "bn.running_mean": torch.randn(4),
            "bn.running_var": torch.rand(4),
            "bn.num_batches_tracked": torch.tensor(n),
        }
        for n in (100, 200)
    ]
    sides = two(tmp_path, family.tuned[0] | rows[0], family.tuned[1] | rows[1])

    result = library.merge(library.make_recipe(list(sides), mix=["0.4", "0.6"]), tmp_path / "soup")

    soup = read_tensors(tmp_path / "soup")
    assert soup["bn.num_batches_tracked"].item() == 200
    assert torch.allclose(
        0.4 * rows[0]["bn.running_var"] + 0.6 * rows[1]["bn.running_var"], soup["bn.running_var"]
    )
    assert any("2 BatchNorm statistics" in note and "train mode" in note for note in result.notes)


LAYER = "model.layers.0.mlp.up_proj"
QUANTISED = {
    "bnb int8": ("bitsandbytes", header(weight="I8 8 8", SCB="F32 8", weight_format="U8")),
    "bnb nf4": (
        "bitsandbytes",
        header(
            weight="U8 32 1", weight__absmax="U8 1", weight__nested_absmax="F32 1", weight__nested_quant_map="F32 256",
            weight__quant_map="F32 16", weight__quant_state__bitsandbytes__nf4="U8 90",
        ),
    ),
    "GPTQ": ("GPTQ or AWQ", header(qweight="I32 1 8", qzeros="I32 1 1", scales="F16 1 8", g_idx="I32 8")),
    "AWQ": ("GPTQ or AWQ", header(qweight="I32 8 1", qzeros="I32 1 1", scales="F16 1 8")),
    "compressed-tensors int4": ("compressed-tensors", header(weight_packed="I32 8 1", weight_scale="BF16 8 1", weight_shape="I64 2")),
    "compressed-tensors int8": ("I8 with scales", header(weight="I8 8 8", weight_scale="BF16 8 1")),
    "compressed-tensors fp8": ("fp8 with scales", header(weight="F8_E4M3 8 8", weight_scale="BF16 8 1")),
    "NVFP4": ("compressed-tensors", header(weight_packed="U8 8 4", weight_scale="F8_E4M3 8 1", weight_global_scale="F32 1", input_global_scale="F32 1")),
    "NVFP4 of modelopt": ("NVFP4", header(weight="U8 8 4", weight_scale="F8_E4M3 8 1", weight_scale_2="F32", input_scale="F32")),
    "block fp8": ("fp8 with scales", header(weight="F8_E4M3 8 8", weight_scale_inv="F32 1 1")),
    "block fp8, ue8m0": ("fp8 with scales", header(weight="F8_E4M3 8 8", weight_scale_inv="F8_E8M0 1 1")),
    "DeepSeek's own": ("fp8 with scales", header(weight="F8_E4M3 8 8", scale="F32 1 1")),
    "fbgemm fp8": ("fp8 with scales", header(weight="F8_E4M3 8 8", weight_scale="F32 8 1", input_scale_ub="F32 1")),
    "torchao": ("torchao", header(_weight_qdata="I8 8 8", _weight_scale="BF16 8")),
    "EETQ": ("EETQ", header(weight="I8 8 8", weight_scales="F16 8")),
    "HQQ": ("HQQ or SINQ", header(W_q="U8 4 8", scale="F16 8 1", zero="F16 8 1", nbits="I64", axis="I64")),
    "AQLM": ("AQLM", header(codes="I8 8 1 1", codebooks="F16 1 256 1 8", scales="F16 8 1 1 1")),
    "VPTQ": ("VPTQ", header(indices="I32 1 8 8", centroids__weight="F16 1 64")),
    "quanto": ("quanto", header(weight___data="I8 8 8", weight___scale="F32 8 1", input_scale="F32", output_scale="F32")),
    "HIGGS": ("HIGGS", header(weight="I16 2 8", scales="F16 8 1", tables="F16 16", tables2="F16 16 16 2")),
    "BitNet": ("U8 with scales", header(weight="U8 2 8", weight_scale="BF16 1")),
    "MLX": ("MLX", header(weight="U32 8 1", scales="BF16 8 1", biases="BF16 8 1")),
    "F4": ("F4", header(weight="F4 8 8")),
}  # fmt: skip


@pytest.mark.fault("G4", "G5", "G6", "G8")
@pytest.mark.parametrize("name", QUANTISED)
def test_quantised_checkpoints_are_recognised(name: str) -> None:
    """Codes and their scales are recognised by what each method writes, without a word in config.json."""
    method, tensors = QUANTISED[name]
    layer = {f"{LAYER}.{key}": spec for key, spec in tensors.items()}

    found = quantised("m", {**layer, "model.norm.weight": TensorSpec(DTYPES["BF16"], (8,))}, None)

    assert found is not None
    assert f"'m' is quantised ({method})" in found.what
    assert found.guess == "mix the original checkpoints, then quantise the soup"


@pytest.mark.fault("G8")
def test_mxfp4_experts_are_recognised() -> None:
    """gpt-oss as published: blocks of codes and exponents in bytes, called `_blocks` and `_scales`."""
    tensors = header(
        mlp__experts__gate_up_proj_blocks="U8 2 8 1 16", mlp__experts__gate_up_proj_scales="U8 2 8 1",
        mlp__experts__gate_up_proj_bias="BF16 2 8",
    )  # fmt: skip

    found = quantised("m", tensors, {"quantization_config": {"quant_method": "mxfp4"}})

    assert found is not None
    assert "'m' is quantised (MXFP4; config.json says mxfp4)" in found.what


@pytest.mark.fault("G4", "G5")
def test_a_quantised_ingredient_is_refused(tmp_path: Path, family: Family) -> None:
    """One quantised ingredient refuses the soup with its method, its tensors and the right order of work."""
    packed = {
        f"{LAYER}.qweight": torch.zeros(1, 8, dtype=torch.int32),
        f"{LAYER}.qzeros": torch.zeros(1, 1, dtype=torch.int32),
        f"{LAYER}.scales": torch.zeros(1, 8).half(),
    }
    sides = two(tmp_path, family.tuned[0], family.tuned[1] | packed)

    error = refused(tmp_path, *sides)

    assert error.code == "E0302"
    assert error.exit_code == 3
    assert "1 of 2 checkpoints is quantised" in error.message
    assert "'other' is quantised (GPTQ or AWQ)" in whats(error)
    assert error.hint == "mix the original checkpoints, then quantise the soup"


@pytest.mark.fault("G4")
def test_a_config_that_says_quantised_over_plain_weights(tmp_path: Path, family: Family) -> None:
    """A quantization_config left behind by a dequantised model is refused with what to take out of which file."""
    config = {**CONFIG, "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    sides = two(tmp_path, *family.tuned, config=config)

    error = refused(tmp_path, *sides)

    assert error.code == "E0302"
    assert "says it is quantised (bitsandbytes), and its tensors are plain numbers" in whats(error)
    assert "take quantization_config out of its config.json" in whats(error)


@pytest.mark.fault("G6")
def test_fp8_codes_beside_scales_are_refused(tmp_path: Path) -> None:
    """fp8 weights with scales are codes: their average is wrong wherever the scales differ."""
    rows = [
        {"w.weight": torch.randn(8, 8).to(torch.float8_e4m3fn), "w.weight_scale_inv": torch.tensor([[s]])}
        for s in (1.0, 1.7)
    ]

    error = refused(tmp_path, *two(tmp_path, *rows))

    assert error.code == "E0302"
    assert "fp8 with scales" in whats(error)


@pytest.mark.fault("G7")
def test_bare_fp8_is_mixed_with_a_note(tmp_path: Path) -> None:
    """fp8 without scales is an ordinary, very coarse number: mixed in float64, with a note about its few bits."""
    rows = [{"w.weight": torch.randn(8, 8).to(torch.float8_e4m3fn)} for _ in range(2)]
    sides = two(tmp_path, *rows)

    result = library.merge(library.make_recipe(list(sides), uniform=True), tmp_path / "soup")

    assert any("1 tensors are stored in fp8 without scales" in note for note in result.notes)
    expected = (rows[0]["w.weight"].double() + rows[1]["w.weight"].double()) / 2
    soup = read_tensors(tmp_path / "soup")["w.weight"]
    assert torch.equal(expected.to(torch.float8_e4m3fn).view(torch.uint8), soup.view(torch.uint8))


@pytest.mark.parametrize(
    "tensors",
    [
        header(quantizer__codebooks="F32 4 8 8", quantizer__scale="F32 1"),
        header(attn__scale="F32 1", attn__relative_position_index="I64 8 8", attn__weight="F32 8 8"),
        header(norm__scale="F32 8", norm__bias="F32 8", embed__position_ids="I64 1 8"),
        header(
            h__0__attn__bias="U8 1 1 8 8",
            h__0__attn__c_attn__weight="F32 8 24",
            h__0__attn__masked_bias="F32",
        ),
        header(blocks__0__weight="F32 8 8", layer_scales="F32 8", num_blocks="F32 8"),
    ],
)
def test_ordinary_names_are_not_mistaken(tensors: Header) -> None:
    """Tensors called scale, codebooks or blocks are weights as long as no codes lie beside them."""
    assert quantised("m", tensors, {"quantization_config": None}) is None


@pytest.mark.fault("G9")
@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("model.safetensors", b"GGUF\x03\0\0\0" + bytes(64), "GGUF"),
        ("model.onnx", b"\x08\x07\x12\x07pytorch", "in a format rsoup does not mix: 'model.onnx'"),
        ("tf_model.h5", b"\x89HDF\r\n\x1a\n" + bytes(64), "in a format rsoup does not mix: 'tf_model.h5'"),
        ("flax_model.msgpack", b"\x81\xa6params", "in a format rsoup does not mix: 'flax_model.msgpack'"),
        ("model.gguf", b"GGUF\x03\0\0\0" + bytes(64), "in a format rsoup does not mix: 'model.gguf'"),
    ],
)
def test_other_formats_are_refused_by_name(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    """GGUF, ONNX, TensorFlow and Flax weights are refused as files, with what to do instead."""
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / name).write_bytes(data)

    with pytest.raises(RefusedFileError) as error:
        library.merge(library.make_recipe([folder]), tmp_path / "soup")

    assert error.value.exit_code == 8
    assert said in error.value.message
    assert error.value.hint


@pytest.mark.fault("G10")
@pytest.mark.parametrize(
    ("names", "glob"),
    [
        (["optimizer.state.0.exp_avg", "optimizer.state.0.exp_avg_sq"], "optimizer.*"),
        (["optimizer_state_dict.step"], "optimizer_state_dict.*"),
        (["rng_state"], "rng_state"),
        (["states.embed.exp_avg"], "*exp_avg*"),
        (["trainer.lr_scheduler.last_epoch"], "trainer.lr_scheduler.*"),
    ],
)
def test_optimizer_state_is_refused(tmp_path: Path, family: Family, names: list[str], glob: str) -> None:
    """Moments and generators are no weights: refused, though all have them, with the words that leave them out."""
    state = {name: torch.rand(4) for name in names}
    sides = two(tmp_path, family.tuned[0] | state, family.tuned[1] | state)

    error = refused(tmp_path, *sides)

    assert [problem.where for problem in error.details] == ["state"]
    assert f"--drop '{glob}'" in whats(error)
    recipe = library.make_recipe(list(sides), uniform=True, drop=[glob])
    library.merge(recipe, tmp_path / "soup")
    assert set(read_tensors(tmp_path / "soup")) == set(family.base)


@pytest.mark.fault("G10")
def test_a_running_average_is_mixed_and_said(tmp_path: Path, family: Family) -> None:
    """An EMA copy is a set of weights like the weights: mixed, with a note that says how to leave it out."""
    copies = [
        {f"model_ema.{n}": t.clone() for n, t in tensors.items() if t.is_floating_point()}
        for tensors in family.tuned
    ]
    sides = two(tmp_path, *(t | c for t, c in zip(family.tuned, copies, strict=True)))

    result = library.merge(library.make_recipe(list(sides), uniform=True), tmp_path / "soup")

    assert any(
        "5 tensors under 'model_ema'" in note and "--drop 'model_ema.*'" in note for note in result.notes
    )


def test_a_refusal_is_readable(base_and_two: Folders) -> None:
    """The text of a refusal says what, where and what to type next, in whole sentences without a traceback."""
    write_folder(base_and_two.two, changed(base_and_two.family.tuned[1], scale=None))

    said = str(refused(base_and_two.root, base_and_two.one, base_and_two.two, base=base_and_two.base))

    assert said == (
        "the checkpoints do not belong together\n"
        "  missing: 1 tensor of 'base' and 'one' not in 'two': 'scale'\n"
        "hint: a soup needs every tensor in every checkpoint; leave tensors out of the soup with --drop 'GLOB'"
    )


def test_names_of_others_are_made_safe(tmp_path: Path, family: Family) -> None:
    """What a stranger's file calls its tensors cannot write to the terminal: escapes are shown as text."""
    evil = {"\x1b[31mevil\u202e": torch.zeros(2)}

    said = str(refused(tmp_path, *two(tmp_path, family.tuned[0] | evil, family.tuned[1])))

    assert "\x1b" not in said
    assert "\u202e" not in said
    assert "\\u{1b}[31mevil\\u{202e}" in said
