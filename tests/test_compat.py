"""Checkpoints that do not belong together are refused before a byte is written, with every reason at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from checkpoints import Family, from_torch, read_tensors, related, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import changed, header, refused, two, whats

import rsoup as library
from rsoup.compat.headers import compare_headers
from rsoup.errors import RefusedFileError
from rsoup.tensors import DTYPES, TensorSpec

if TYPE_CHECKING:
    from conftest import Folders


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
def test_prefixes_are_found(family: Family, old: str, new: str, said: str) -> None:
    """Names that differ by one consistent prefix are recognised, whichever wrapper wrote it."""
    sides = {
        "one": from_torch("one", {old + name: tensor for name, tensor in family.tuned[0].items()}).header,
        "other": from_torch("other", {new + name: tensor for name, tensor in family.tuned[1].items()}).header,
    }

    found = compare_headers(sides)

    assert said in "".join(mismatch.guess or "" for mismatch in found)
    assert len(found) == 2


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
    dense = header(m__up_proj__weight="F32 2 2")
    assert all(mismatch.guess is None for mismatch in compare_headers({"a": one, "b": dense}))


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


@pytest.mark.fault("G9")
@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("model.safetensors", b"GGUF\x03\0\0\0" + bytes(64), "GGUF"),
        ("model.onnx", b"\x08\x07\x12\x07pytorch", "a program of ONNX, not a checkpoint: 'model.onnx'"),
        ("tf_model.h5", b"\x89HDF\r\n\x1a\n" + bytes(64), "stored for TensorFlow or Flax: 'tf_model.h5'"),
        ("flax_model.msgpack", b"\x81\xa6params", "stored for TensorFlow or Flax: 'flax_model.msgpack'"),
        ("model.gguf", b"GGUF\x03\0\0\0" + bytes(64), "packed for llama.cpp: 'model.gguf'"),
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
        "hint: a soup needs every tensor in every checkpoint: --missing base (with --base) completes a partial "
        "fine-tune, --drop 'GLOB' leaves tensors out of the soup"
    )


def test_names_of_others_are_made_safe(tmp_path: Path, family: Family) -> None:
    """What a stranger's file calls its tensors cannot write to the terminal: escapes are shown as text."""
    evil = {"\x1b[31mevil\u202e": torch.zeros(2)}

    said = str(refused(tmp_path, *two(tmp_path, family.tuned[0] | evil, family.tuned[1])))

    assert "\x1b" not in said
    assert "\u202e" not in said
    assert "\\u{1b}[31mevil\\u{202e}" in said


def test_heads_made_anew_are_never_averaged_in_silence(tmp_path: Path) -> None:
    """A value head in all checkpoints is mixed with a note; a task head too, unless the base has it."""
    body = {"a.weight": torch.ones(2, 2), "score.weight": torch.ones(1, 2)}
    value = body | {"v_head.summary.weight": torch.ones(1, 2)}
    sides = two(tmp_path, value, value)
    base = write_folder(tmp_path / "base", value)

    alone = library.merge(library.make_recipe(list(sides), uniform=True), tmp_path / "soup").notes
    based = library.merge(
        library.make_recipe(list(sides), uniform=True, base=base), tmp_path / "soup-2"
    ).notes

    (note,) = [note for note in alone if "made anew" in note or "makes anew" in note]
    assert "'score.weight' and 'v_head.summary.weight'" in note
    assert "--drop 'score.*' --drop 'v_head.*'" in note
    (note,) = [note for note in based if "makes anew" in note]
    assert "score" not in note
