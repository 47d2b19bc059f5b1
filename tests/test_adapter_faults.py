"""Adapters that cannot be mixed, or are not what they say: refused before anything is written, with what to do."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path

import adapters as zoo
import peft
import pytest
import torch
from checkpoints import raw_safetensors, read_tensors, tree, write_folder
from faults import interrupted, stray
from safetensors.torch import load_file, save_file
from warm import rsoup

import rsoup as library
from rsoup.errors import IncompatibleError, RefusedFileError, RsoupError, TargetError, UsageError
from rsoup.merging import MergeResult
from rsoup.storage.files import OpenFile

Tensors = dict[str, torch.Tensor]
Edit = Callable[[Tensors], object]
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
MODULE = "base_model.model.model.layers.0.self_attn.q_proj"
EXIT = {UsageError: 2, IncompatibleError: 3, TargetError: 6, RefusedFileError: 8}


@pytest.fixture
def pair(zoo_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two sound adapters of a test's own: tmp_path/one and two."""
    made = zoo.make("plain", zoo_folder)
    return tuple(  # type: ignore[return-value]
        shutil.copytree(adapter, tmp_path / name)
        for adapter, name in zip(made.adapters, ("one", "two"), strict=True)
    )


@pytest.fixture
def base(zoo_folder: Path) -> Path:
    """The base of `pair`."""
    return zoo.make("plain", zoo_folder).base


def soup(folder: Path, *sides: object, **options: object) -> MergeResult:
    """An even soup of `sides` at `folder`/soup."""
    settings = {"uniform": True, **options}
    return library.merge(library.make_recipe(list(sides), **settings), folder / "soup")  # type: ignore[arg-type]


def refusal(folder: Path, code: str, *sides: object, **options: object) -> RsoupError:
    """The refusal of a soup of `sides`: of this code, with a hint, and nothing in `folder` changed."""
    before = tree(folder)

    with pytest.raises(RsoupError) as error:
        soup(folder, *sides, **options)

    found = error.value
    assert found.code == code, found
    assert found.exit_code == EXIT[type(found)]
    assert found.hint
    assert tree(folder) == before
    return found


# --- what its configuration says


CANNOT: Mapping[str, tuple[dict[str, object], str, str]] = {
    # name → (settings, what is said, what to do)
    "pissa-niter": ({"init_lora_weights": "pissa_niter_4"}, "cannot be repeated (pissa_niter_4)", "path_initial_model"),
    "corda": ({"init_lora_weights": "corda"}, "cannot be repeated (corda)", "path_initial_model"),
    "lora-ga": ({"init_lora_weights": "lora_ga"}, "cannot be repeated (lora_ga)", "path_initial_model"),
    "loftq": ({"init_lora_weights": "loftq"}, "cannot be repeated (loftq)", "path_initial_model"),
    "new-init": ({"init_lora_weights": "of_next_year"}, "cannot be repeated (of_next_year)", "path_initial_model"),
    "kasa": ({"kasa_config": {"beta": 1e-4}}, "KaSA", "path_initial_model"),
    "qalora": ({"use_qalora": True}, "QALoRA", "merge it into its base with PEFT"),
    "monteclora": ({"monteclora_config": {"samples": 2}}, "MonteCLoRA", "no one update"),
    "arrow": ({"arrow_config": {"top_k": 3}}, "Arrow", "mix the adapters it chooses from"),
    "layer-replication": ({"layer_replication": [[0, 2], [1, 2]]}, "replicated", "merge it into that model"),
    "bdlora": ({"use_bdlora": {"nblocks": 2}}, "BD-LoRA", "merge it into its base with PEFT"),
    "megatron": ({"megatron_config": {"hidden_size": 32}}, "Megatron", "export it as a PEFT adapter"),
    "dora-bias": ({"use_dora": True, "lora_bias": True}, "no defined meaning", "PEFT refuses it"),
}  # fmt: skip


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("name", CANNOT)
def test_kinds_that_have_no_average(
    name: str, fold: bool, pair: tuple[Path, Path], base: Path, tmp_path: Path
) -> None:
    """E0340: no soup of weights is what these mean, as an adapter or folded; each says what would help."""
    settings, what, hint = CANNOT[name]
    known = {field.name for field in fields(peft.LoraConfig)}
    assert set(settings) <= known, "PEFT calls it something else"
    odd = zoo.edited(pair[1], tmp_path / "odd", settings)

    found = refusal(tmp_path, "E0340", pair[0], odd, base=base, fold=fold)

    assert what in str(found)
    assert hint in str(found.hint)
    assert found.where == f"odd/{CONFIG}"


@pytest.mark.parametrize("name", ["pissa-niter", "layer-replication", "kasa", "bdlora", "conv-groups"])
def test_what_peft_itself_writes_of_them(name: str, zoo_folder: Path, tmp_path: Path) -> None:
    """E0340 for the files as PEFT saves them."""
    refusal(tmp_path, "E0340", *zoo.make(name, zoo_folder).adapters)


@pytest.mark.parametrize("init", [True, False, "gaussian", "orthogonal", "eva", "True", None], ids=repr)
def test_beginnings_that_change_nothing(
    init: object, pair: tuple[Path, Path], base: Path, tmp_path: Path
) -> None:
    """Inits that leave the base as it is do not stand in the way."""
    other = zoo.edited(pair[1], tmp_path / "other", {"init_lora_weights": init})

    soup(tmp_path, pair[0], other)

    assert (tmp_path / "soup" / WEIGHTS).exists()


@pytest.mark.parametrize(
    ("kind", "hint"), [("LOHA", "--fold"), ("IA3", "--fold"), ("PROMPT_TUNING", "only a soup of weights")]
)
def test_other_kinds_of_adapters(kind: str, hint: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """E0341, with --fold as the way out only where there is that way."""
    other = zoo.edited(pair[1], tmp_path / "other", {"peft_type": kind})

    found = refusal(tmp_path, "E0341", pair[0], other)

    assert kind in str(found)
    assert hint in str(found.hint)


WRONG: Mapping[str, dict[str, object]] = {
    "alpha-0": {"lora_alpha": 0},
    "alpha-text": {"lora_alpha": "8"},
    "alpha-true": {"lora_alpha": True},
    "pattern-alpha-0": {"alpha_pattern": {"q_proj": 0}},
    "r-0": {"r": 0},
    "r-negative": {"r": -4},
    "r-broken": {"r": 2.5},
    "r-list": {"r": [4]},
    "r-huge": {"r": float("inf")},
    "rank-pattern-list": {"rank_pattern": ["q_proj"]},
    "rank-pattern-text": {"rank_pattern": {"q_proj": "2"}},
    "rank-pattern-regex": {"rank_pattern": {"(q_proj": 2}},
    "alpha-pattern-regex": {"alpha_pattern": {"*q_proj": 2}},
    "rslora-text": {"use_rslora": "yes"},
    "dora-number": {"use_dora": 1},
    "bias-null": {"bias": None},
    "bias-number": {"bias": 3},
    "no-type": {"peft_type": ...},
    "type-number": {"peft_type": 7},
    "base-list": {"base_model_name_or_path": ["a", "b"]},
    "revision-number": {"revision": 1},
    "task-object": {"task_type": {}},
}


@pytest.mark.parametrize("name", WRONG)
def test_settings_of_another_form(name: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """E0820 names the key that cannot be meant."""
    wrong = zoo.edited(pair[1], tmp_path / "wrong", WRONG[name])

    found = refusal(tmp_path, "E0820", pair[0], wrong)

    assert next(iter(WRONG[name])) in str(found)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", "E0808"),
        (b"{", "E0808"),
        (b"\xff\xfe\x00", "E0808"),
        (b"[" * 100_000, "E0808"),
        (b'{"a":' * 100_000, "E0808"),
        (b"[]", "E0820"),
        (b"null", "E0820"),
        (b'"LORA"', "E0820"),
        (b"{}", "E0820"),
        (b'{"peft_type": "LORA", "r": 1e999}', "E0820"),
        (b'{"peft_type": "LORA", "r": NaN}', "E0808"),
        (b'{"peft_type": "LORA", "r": ' + b"9" * 5000 + b"}", "E08"),
    ],
    ids=["empty", "half", "no-text", "deep-list", "deep-object", "list", "null", "text", "nothing", "inf", "nan", "digits"],
)  # fmt: skip
def test_configurations_that_are_none(
    text: bytes, code: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """Not JSON, or not of an adapter: no traceback, no recursion."""
    (pair[1] / CONFIG).write_bytes(text)
    before = tree(tmp_path)

    with pytest.raises(RsoupError) as error:
        soup(tmp_path, *pair)

    assert error.value.code.startswith(code)
    assert error.value.exit_code == 8
    assert error.value.where == f"two/{CONFIG}"
    assert tree(tmp_path) == before


def test_a_configuration_of_200_megabytes(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """It is not read into memory."""
    with (pair[1] / CONFIG).open("r+b") as file:
        file.truncate(200_000_000)  # a hole: it takes no place on the disk

    with pytest.raises(RsoupError) as error:
        soup(tmp_path, *pair)

    assert error.value.exit_code == 8
    assert not (tmp_path / "soup").exists()


# --- what its file holds


def _stray(tensors: Tensors) -> None:
    tensors[f"{MODULE}.lora_C.weight"] = torch.ones(4, 4)


def _unprefixed(tensors: Tensors) -> None:
    tensors["model.layers.0.self_attn.q_proj.weight"] = torch.ones(4, 4)


def _named(tensors: Tensors) -> None:
    for key in list(tensors):
        tensors[key.replace(".weight", ".default.weight")] = tensors.pop(key)


def _wrapped(tensors: Tensors) -> None:
    tensors["base_model.model.lm_head.modules_to_save.weight"] = torch.ones(4, 4)


def _twice(tensors: Tensors) -> None:
    tensors[f"{MODULE}.weight"] = torch.ones(32, 32)


@pytest.mark.parametrize("edit", [_stray, _unprefixed, _named, _wrapped, _twice])
def test_tensors_without_a_place(edit: Edit, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """E0821 names them: nothing is left out in silence."""
    found = refusal(tmp_path, "E0821", pair[0], zoo.edited(pair[1], tmp_path / "odd", None, edit))

    added = load_file(tmp_path / "odd" / WEIGHTS).keys() - load_file(pair[1] / WEIGHTS).keys()
    assert any(key in str(found) for key in added)


@pytest.mark.parametrize("side", ["A", "B"])
def test_half_an_update(side: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """E0822: one factor without the other."""

    def half(tensors: Tensors) -> None:
        del tensors[f"{MODULE}.lora_{side}.weight"]

    found = refusal(tmp_path, "E0822", pair[0], zoo.edited(pair[1], tmp_path / "odd", None, half))

    assert "layers.0.self_attn.q_proj" in str(found)


def test_a_magnitude_alone(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """E0822: DoRA's magnitude without factors."""

    def alone(tensors: Tensors) -> None:
        tensors["base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector"] = torch.ones(48)

    refusal(tmp_path, "E0822", pair[0], zoo.edited(pair[1], tmp_path / "odd", None, alone))


def test_a_file_without_an_update(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """E0822 or an empty file's own refusal: never a soup of nothing."""
    save_file({}, pair[1] / WEIGHTS, {"format": "pt"})

    refusal(tmp_path, "E0822", *pair)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.bool])
def test_factors_that_are_no_floats(dtype: torch.dtype, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """E0823: codes of a quantised adapter."""

    def cast(tensors: Tensors) -> None:
        tensors[f"{MODULE}.lora_A.weight"] = tensors[f"{MODULE}.lora_A.weight"].to(dtype)

    found = refusal(tmp_path, "E0823", pair[0], zoo.edited(pair[1], tmp_path / "odd", None, cast))

    assert "q_proj.lora_A" in str(found)


SHAPES: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    # name → shapes of A and B, where rank 4, 32 inputs and 32 outputs are meant
    "flat": ((128,), (128,)),
    "empty": ((0,), (0,)),
    "no-rank": ((0, 32), (32, 0)),
    "no-inputs": ((4, 0), (32, 4)),
    "scalar": ((), ()),
    "other-rank": ((8, 32), (32, 8)),
    "two-ranks": ((4, 32), (32, 8)),
    "turned": ((32, 4), (4, 32)),
    "wide-kernel": ((4, 8, 2, 2), (32, 4, 2, 2)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_factors_of_wrong_shapes(name: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """E0824: shards that were not gathered, ranks that are not those of the configuration."""

    def shaped(tensors: Tensors) -> None:
        for side, shape in zip("AB", SHAPES[name], strict=True):
            tensors[f"{MODULE}.lora_{side}.weight"] = torch.ones(shape)

    found = refusal(tmp_path, "E0824", pair[0], zoo.edited(pair[1], tmp_path / "odd", None, shaped))

    assert "layers.0.self_attn.q_proj" in str(found.where)


@pytest.mark.parametrize(
    ("name", "key", "shape"),
    [
        ("dora", "lora_magnitude_vector", (31,)),
        ("lora-bias", "lora_B.bias", (33,)),
        ("adalora", "lora_E", (9, 1)),
    ],
)
def test_vectors_of_wrong_lengths(
    name: str, key: str, shape: tuple[int, ...], zoo_folder: Path, tmp_path: Path
) -> None:
    """E0824: magnitudes, biases and singular values belong to their factors."""
    made = zoo.make(name, zoo_folder)

    def cut(tensors: Tensors) -> None:
        found = next(k for k in tensors if k.endswith((key, f"{key}.weight")))
        tensors[found] = torch.ones(shape)

    refusal(tmp_path, "E0824", made.adapters[0], zoo.edited(made.adapters[1], tmp_path / "odd", None, cut))


@pytest.mark.parametrize(
    "indices",
    [[3, 7], [3, 7, 60, 61], [3, 3, 7], [3, 7, -1], [3, 7, "60"], [3, 7, True], None, {"lm_head": [3, 7, 60]}, 3],
    ids=str,
)  # fmt: skip
def test_token_indices_that_do_not_fit(indices: object, zoo_folder: Path, tmp_path: Path) -> None:
    """E0824: rows without a token, tokens without a row, one token twice."""
    made = zoo.make("tokens-one", zoo_folder)
    odd = zoo.edited(made.adapters[0], tmp_path / "odd", {"trainable_token_indices": indices})

    refusal(tmp_path, "E0824", odd, made.adapters[1])


def test_a_token_beyond_the_vocabulary(zoo_folder: Path, tmp_path: Path) -> None:
    """E0342 where the base has fewer rows, as an adapter and folded."""
    made = zoo.make("tokens-one", zoo_folder)
    odd = zoo.edited(made.adapters[0], tmp_path / "odd", {"trainable_token_indices": [3, 7, 64]})

    for fold in (False, True):
        refusal(tmp_path, "E0342", odd, made.adapters[1], base=made.base, fold=fold)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("options", [{}, {"rank": 2}, {"method": "factors"}], ids=["exact", "rank", "factors"])  # fmt: skip
def test_a_factor_that_is_not_finite(
    value: float, options: dict[str, object], pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """E0304 names the adapter whose training broke."""

    def broken(tensors: Tensors) -> None:
        tensors[f"{MODULE}.lora_B.weight"][3, 1] = value

    found = refusal(
        tmp_path, "E0304", pair[0], zoo.edited(pair[1], tmp_path / "odd", None, broken), **options
    )

    assert "'odd'" in str(found)
    assert "q_proj.lora_B" in str(found)


def test_a_head_that_is_not_finite(zoo_folder: Path, tmp_path: Path) -> None:
    """A whole tensor is no exception."""
    made = zoo.make("head-both", zoo_folder)

    def broken(tensors: Tensors) -> None:
        tensors["base_model.model.lm_head.weight"][0, 0] = float("nan")

    before = made.adapters[0], zoo.edited(made.adapters[1], tmp_path / "odd", None, broken)
    with pytest.raises(RsoupError) as error:
        soup(tmp_path, *before)

    assert error.value.code in ("E0304", "E0305")
    assert not (tmp_path / "soup").exists()


def test_too_large_for_float16(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """E0305, rather than infinity in the file."""
    refusal(tmp_path, "E0305", *pair, uniform=False, mix=["1e7", "1"], affine=True, dtype="float16")


# --- adapters that do not belong together


@pytest.mark.parametrize(
    ("name", "options"), [("plain", {}), ("plain", {"fold": True}), ("loha", {"fold": True})]
)
def test_other_bases(name: str, options: dict[str, object], zoo_folder: Path, tmp_path: Path) -> None:
    """E0346 with both names; --allow base goes on, and notes it."""
    made = zoo.make(name, zoo_folder)
    pair, base = made.adapters, made.base
    options = {"base": base, **({"max_distance": float("inf")} if "fold" in options else {}), **options}
    other = zoo.edited(pair[1], tmp_path / "other", {"base_model_name_or_path": "org/model"})

    found = refusal(tmp_path, "E0346", pair[0], other, **options)

    assert "org/model" in str(found)
    assert str(base) in str(found)
    assert "--allow base" in str(found.hint)
    assert any(
        "org/model" in note for note in soup(tmp_path, pair[0], other, allow=["base"], **options).notes
    )


def test_other_revisions(pair: tuple[Path, Path], base: Path, tmp_path: Path) -> None:
    """E0346: the same name is another model at another revision; None is not known, and no difference."""
    sides = [zoo.edited(p, tmp_path / f"r{i}", {"revision": f"v{i}"}) for i, p in enumerate(pair)]

    for fold in (False, True):
        found = refusal(tmp_path, "E0346", *sides, base=base, fold=fold)
        assert "different revisions" in str(found)

    soup(tmp_path, sides[0], pair[1])


def test_other_tasks(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """E0346, --allow config."""
    other = zoo.edited(pair[1], tmp_path / "other", {"task_type": "SEQ_CLS"})

    found = refusal(tmp_path, "E0346", pair[0], other)

    assert "--allow config" in str(found.hint)
    soup(tmp_path, pair[0], other, allow=["config"])


def test_other_shapes(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """E0346 names module and shapes, and no flag makes it go on."""

    def wider(tensors: Tensors) -> None:
        tensors[f"{MODULE}.lora_A.weight"] = torch.ones(4, 40)

    other = zoo.edited(pair[1], tmp_path / "other", None, wider)
    before = tree(tmp_path)
    with pytest.raises(IncompatibleError) as error:
        soup(tmp_path, pair[0], other, allow=["base", "config", "tokenizer", "distance"])

    assert error.value.code == "E0346"
    assert "32 × 32" in str(error.value)
    assert "32 × 40" in str(error.value)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "more", [{"target_modules": ["q_proj", "embed_tokens"]}, {"modules_to_save": ["embed_tokens"]}]
)
def test_rows_beside_other_updates(more: dict[str, object], zoo_folder: Path, tmp_path: Path) -> None:
    """E0348: PEFT trains rows of an embedding, or all of it; --fold makes the weights."""
    made = zoo.make("tokens-one", zoo_folder)
    kind = zoo.Kind((zoo._lora(**more),), warns=(zoo._EMBEDDINGS,))
    other = zoo.train(tmp_path / "other", kind, 0, made.base)

    found = refusal(tmp_path, "E0348", made.adapters[0], other, base=made.base)

    assert "embed_tokens" in str(found)
    assert "--fold" in str(found.hint)
    soup(tmp_path, made.adapters[0], other, base=made.base, fold=True, max_distance=99.0)


def test_a_head_beside_magnitudes_of_it(zoo_folder: Path, tmp_path: Path) -> None:
    """E0348: a whole head and a DoRA of the head are no DoRA."""
    made = zoo.make("head-one", zoo_folder)
    kind = zoo.Kind((zoo._lora(use_dora=True, target_modules=["lm_head"]),), warns=(zoo._EMBEDDINGS,))
    other = zoo.train(tmp_path / "other", kind, 0, made.base)

    refusal(tmp_path, "E0348", made.adapters[0], other, base=made.base)


def test_magnitudes_beside_biases_of_factors(zoo_folder: Path, tmp_path: Path) -> None:
    """E0348: PEFT opens no adapter with both; --fold makes the weights."""
    made = zoo.make("lora-bias", zoo_folder)
    dora = zoo.train(tmp_path / "dora", zoo.Kind((zoo._lora(use_dora=True),)), 0, made.base)

    found = refusal(tmp_path, "E0348", dora, made.adapters[0], base=made.base)

    assert "--fold" in str(found.hint)
    soup(tmp_path, dora, made.adapters[0], base=made.base, fold=True)


@pytest.mark.parametrize(
    "settings", [{"fan_in_fan_out": True}, {"alora_invocation_tokens": [5]}, {"target_parameters": ["experts.w"]}]
)  # fmt: skip
def test_other_settings_of_one_switch(
    settings: dict[str, object], pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """E0346: one file has one of each."""
    other = zoo.edited(pair[1], tmp_path / "other", settings)

    with pytest.raises(IncompatibleError) as error:
        soup(tmp_path, pair[0], other)

    assert error.value.code == "E0346"
    assert next(iter(settings)) in str(error.value)


def test_other_tokenizers(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """E0346, --allow tokenizer."""
    for number, path in enumerate(pair):
        vocab = {"[UNK]": 0, f"word{number}": 1}
        model = {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"}
        (path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": model}))

    found = refusal(tmp_path, "E0346", *pair)

    assert "--allow tokenizer" in str(found.hint)
    soup(tmp_path, *pair, allow=["tokenizer"])


def test_several_differences_at_once(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Every difference in one error, every flag in one hint."""
    other = zoo.edited(
        pair[1], tmp_path / "other", {"task_type": "SEQ_CLS", "base_model_name_or_path": "org/model"}
    )

    found = refusal(tmp_path, "E0346", pair[0], other, allow=["tokenizer"])

    assert {problem.where for problem in found.details} == {"base", "task_type"}


# --- soups that are not defined


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dora", {}),
        ("pissa", {}),
        ("head-one", {}),
        ("head-both", {"uniform": False, "mix": ["0.5", "0.6"], "affine": True}),
        ("tokens-both", {}),
    ],
)
def test_without_the_base(name: str, options: dict[str, object], zoo_folder: Path, tmp_path: Path) -> None:
    """E0347: what depends on the base's own weights asks for them."""
    found = refusal(tmp_path, "E0347", *zoo.make(name, zoo_folder).adapters, **options)

    assert "--base" in str(found.hint)


def test_a_magnitude_that_vanishes(zoo_folder: Path, tmp_path: Path) -> None:
    """E0348: λ₁ + λ₂ = 0 … of two copies leave a DoRA soup without a direction; --fold makes it."""
    made = zoo.make("dora", zoo_folder)

    def shrunk(tensors: Tensors) -> None:
        for key in tensors:
            if "magnitude" in key:
                tensors[key] = tensors[key] * 0.0

    gone = zoo.edited(made.adapters[0], tmp_path / "gone", None, shrunk)
    settings = {"uniform": False, "mix": ["1"], "base": made.base, "scale": "1"}

    found = refusal(tmp_path, "E0348", gone, **settings, rank=2)

    assert "--fold" in str(found.hint)
    soup(tmp_path, gone, **settings, fold=True, max_distance=float("inf"))


@pytest.mark.parametrize(("mix", "drop"), [(["0", "0"], []), (["0.5", "0.5"], ["*"])])
def test_a_soup_of_nothing(mix: list[str], drop: list[str], pair: tuple[Path, Path], tmp_path: Path) -> None:
    """E0206: every λ zero, or every module dropped."""
    found = refusal(tmp_path, "E0206", *pair, uniform=False, mix=mix, drop=drop, affine=True)

    assert "nothing is left" in str(found)


# --- options


@pytest.mark.parametrize("name", ["soup.safetensors", "soup.bin", "soup.pt"])
def test_an_adapter_is_a_folder(name: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """E0214: without its configuration its tensors mean nothing."""
    with pytest.raises(UsageError) as error:
        library.merge(library.make_recipe(list(pair), uniform=True), tmp_path / name)

    assert error.value.code == "E0214"
    assert "--fold" in str(error.value.hint)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    "options",
    [
        {"max_shard_size": "1GB"},
        {"buffers_from": "one"},
        {"optimizer_from": "one"},
        {"key": "model"},
        {"missing": "base"},
        {"vocab": "pad"},
        {"file_format": "torch"},
        {"variant": "fp16"},
    ],
    ids=str,
)
def test_options_that_mean_nothing(
    options: dict[str, object], pair: tuple[Path, Path], base: Path, tmp_path: Path
) -> None:
    """E0206 names the flag, rather than leaving it unheard."""
    found = refusal(tmp_path, "E0206", *pair, base=base, **options)

    assert f"--{next(iter(options)).replace('_', '-')}" in str(found)


def test_no_slerp_of_adapters(pair: tuple[Path, Path], base: Path, tmp_path: Path) -> None:
    """E0211, and --fold makes it."""
    found = refusal(tmp_path, "E0211", *pair, base=base, method="slerp")

    assert "--fold" in str(found.hint)
    soup(tmp_path, *pair, base=base, method="slerp", fold=True)


# --- folders and files


@pytest.mark.parametrize("gone", [CONFIG, WEIGHTS])
def test_half_an_adapter(gone: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """E0812 names the file that lacks."""
    (pair[1] / gone).unlink()

    found = refusal(tmp_path, "E0812", *pair)

    assert gone in str(found)


def test_an_adapter_and_a_model_in_one_folder(pair: tuple[Path, Path], base: Path, tmp_path: Path) -> None:
    """E0809: two models, of which each tool would load another."""
    shutil.copy(base / "model.safetensors", pair[1] / "model.safetensors")

    refusal(tmp_path, "E0809", *pair)


@pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ["plain", "dora", "head-both", "tokens-both"])
def test_pickled_adapters_read_as_safetensors_do(
    name: str, old: bool, zoo_folder: Path, tmp_path: Path
) -> None:
    """adapter_model.bin, which torch.save wrote: the same soup, byte for byte, and no code is run."""
    made = zoo.make(name, zoo_folder)
    sides = []
    for number, adapter in enumerate(made.adapters):
        folder = zoo.edited(adapter, tmp_path / f"bin{number}" / adapter.name)
        tensors = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        torch.save(tensors, folder / "adapter_model.bin", _use_new_zipfile_serialization=not old)
        sides.append(folder)

    soup(tmp_path, *sides, base=made.base, rank=3)
    library.merge(
        library.make_recipe(list(made.adapters), uniform=True, base=made.base, rank=3), tmp_path / "wanted"
    )

    ours, theirs = (read_tensors(tmp_path / side) for side in ("soup", "wanted"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("where", [CONFIG, WEIGHTS])
def test_pipes_are_not_read(where: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """A FIFO in an adapter's folder is refused at once; nothing waits for it."""
    (pair[1] / where).unlink()
    os.mkfifo(pair[1] / where)

    done = rsoup("merge", *pair, "--uniform", "-o", tmp_path / "soup", timeout=60)

    assert done.returncode == 8, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "soup").exists()


@pytest.mark.parametrize("where", [CONFIG, WEIGHTS])
def test_links_to_nowhere(where: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """A dangling link is no file."""
    (pair[1] / where).unlink()
    (pair[1] / where).symlink_to(tmp_path / "gone")

    done = rsoup("merge", *pair, "--uniform", "-o", tmp_path / "soup")

    assert done.returncode in (7, 8), done.stderr
    assert "Traceback" not in done.stderr
    assert "hint" in done.stderr
    assert not (tmp_path / "soup").exists()


def test_a_link_out_of_the_folder(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """E0813, --allow symlinks."""
    shutil.move(pair[1] / WEIGHTS, tmp_path / "elsewhere")
    (pair[1] / WEIGHTS).symlink_to(tmp_path / "elsewhere")

    refusal(tmp_path, "E0813", *pair)

    soup(tmp_path, *pair, allow=["symlinks"])


def test_the_cache_of_the_hub(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """models--org--name/snapshots/REVISION with links into ../../blobs, as hf download makes it."""
    snapshots = []
    for path in pair:
        repo = tmp_path / "hub" / f"models--org--{path.name}"
        snapshot = repo / "snapshots" / ("ab" * 20)
        snapshot.mkdir(parents=True)
        (repo / "blobs").mkdir()
        for file in path.iterdir():
            blob = repo / "blobs" / f"{abs(hash(file.name)):040x}"
            shutil.copy(file, blob)
            (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
        snapshots.append(snapshot)

    soup(tmp_path, *snapshots)

    library.merge(library.make_recipe(list(pair), uniform=True), tmp_path / "wanted")
    assert (tmp_path / "soup" / WEIGHTS).stat().st_size == (tmp_path / "wanted" / WEIGHTS).stat().st_size
    ours, theirs = (read_tensors(tmp_path / side) for side in ("soup", "wanted"))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize(
    "name", ["schön λ", "名前", "a=b", "a+b", "a,b", " spaced ", "-dash", "🍜", "new\nline", "[red]x"]
)
def test_names_of_any_kind(name: str, pair: tuple[Path, Path], base: Path, tmp_path: Path) -> None:
    """Folders of any name, as ingredients and as output, as an adapter and folded."""
    odd = pair[1].rename(tmp_path / name)

    for fold, out in ((False, "adapter"), (True, "full")):
        options = ["--fold", "--base", base] if fold else []
        target = tmp_path / f"{name}-{out}"
        done = rsoup("merge", pair[0], odd, "--uniform", "-o", target, *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert target.is_dir()


def test_relative_paths(pair: tuple[Path, Path], base: Path, tmp_path: Path) -> None:
    """Names as a shell gives them: one, ./two/, NAME=../x, CHECKPOINT+ADAPTER."""
    shutil.copytree(base, tmp_path / "base")
    (tmp_path / "sub").mkdir()

    for number, sides in enumerate((("../one", "./../two/"), ("a=../one", "b=../two"), ("../base+../one", "../two"))):  # fmt: skip
        done = rsoup(
            "merge", *sides, "--uniform", "--base", "../base", "-o", f"out{number}", cwd=tmp_path / "sub"
        )
        assert done.returncode == 0, done.stderr


# --- while it is made


def test_an_adapter_that_changes_while_it_is_read(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E0804, and no soup of two halves."""
    real, count = OpenFile.read, 0

    def read(self: OpenFile, start: int, buffer: memoryview) -> None:
        nonlocal count
        count += 1
        if count == 40:
            os.utime(pair[1] / WEIGHTS, ns=(1, 1))
            with (pair[1] / WEIGHTS).open("r+b") as file:
                file.seek(-4, os.SEEK_END)
                file.write(b"\0\0\0\0")
        real(self, start, buffer)

    monkeypatch.setattr(OpenFile, "read", read)
    with pytest.raises(RefusedFileError) as error:
        soup(tmp_path, *pair)

    assert error.value.code == "E0804"
    assert not (tmp_path / "soup").exists()
    assert stray(tmp_path) == []


@pytest.mark.parametrize("header", [b"", b"{", b"\x00" * 40])
def test_files_that_are_no_safetensors(header: bytes, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """A broken file is refused with its name."""
    (pair[1] / WEIGHTS).write_bytes(header)

    with pytest.raises(RefusedFileError) as error:
        soup(tmp_path, *pair)

    assert error.value.exit_code == 8
    assert WEIGHTS in str(error.value.where)
    assert not (tmp_path / "soup").exists()


def test_names_of_tensors_from_a_stranger(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Control characters in a key do not reach the terminal."""
    key = f"{MODULE}\x1b[31m.lora_A.weight"
    header = {key: {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}}
    (pair[1] / WEIGHTS).write_bytes(raw_safetensors(header, b"\0" * 4))

    done = rsoup("merge", *pair, "--uniform", "-o", tmp_path / "soup")

    assert done.returncode == 8
    assert "\x1b" not in done.stderr + done.stdout


# --- outputs


@pytest.mark.parametrize("side", ["one", "one/inside", "."])
def test_no_output_in_an_input(side: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """E0213, with --overwrite as well."""
    before = tree(tmp_path)

    for overwrite in (False, True):
        with pytest.raises(UsageError) as error:
            library.merge(library.make_recipe(list(pair), uniform=True), tmp_path / side, overwrite=overwrite)
        assert error.value.code == "E0213"

    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("out", "code"), [("one", "E0213"), ("one/inside", "E0213"), ("soup.safetensors", "E0214")]
)
def test_a_dry_run_refuses_what_a_run_would(
    out: str, code: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """An output that is an input, or one file."""
    done = rsoup("merge", *pair, "--uniform", "-o", tmp_path / out, "--dry-run", "--overwrite")

    assert done.returncode == 2
    assert code in done.stderr


def test_an_output_that_exists(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """E0601; --overwrite replaces a soup, and nothing that is none (E0607)."""
    soup(tmp_path, *pair)
    first = tree(tmp_path / "soup")
    recipe = library.make_recipe(list(pair), mix=["0.9", "0.1"])

    refusal(tmp_path, "E0601", *pair)
    library.merge(recipe, tmp_path / "soup", overwrite=True)

    assert tree(tmp_path / "soup")[WEIGHTS] != first[WEIGHTS]
    (tmp_path / "soup" / "thesis.tex").write_text("mine")
    with pytest.raises(TargetError) as error:
        library.merge(recipe, tmp_path / "soup", overwrite=True)
    assert error.value.code == "E0607"
    assert (tmp_path / "soup" / "thesis.tex").read_text() == "mine"


def test_an_adapter_that_peft_saved_may_be_replaced(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """--overwrite of an adapter's folder, which rsoup did not make."""
    shutil.copytree(pair[0], tmp_path / "soup")

    library.merge(library.make_recipe(list(pair), uniform=True), tmp_path / "soup", overwrite=True)

    assert (tmp_path / "soup" / "rsoup.json").exists()


@pytest.mark.parametrize("nth", [5, 20, 30, 45])
def test_stopped_in_the_middle(nth: int, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Ctrl-C leaves no output, no traceback; the same command again makes the soup and clears what was left."""
    before = tree(tmp_path)
    arguments = ("merge", *pair, "--uniform", "--rank", "3", "-o", "soup")

    ended = interrupted(nth, *arguments, cwd=tmp_path)

    assert ended.returncode in (130, -signal.SIGINT), ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "soup").exists()
    assert {name: data for name, data in tree(tmp_path).items() if ".rsoup-" not in name} == before
    assert rsoup(*arguments, cwd=tmp_path).returncode == 0
    assert stray(tmp_path) == []


def test_a_model_without_adapters_is_no_adapter(pair: tuple[Path, Path], base: Path, tmp_path: Path) -> None:
    """--fold beside full checkpoints alone means nothing."""
    full = write_folder(tmp_path / "full", load_file(base / "model.safetensors"))

    found = refusal(tmp_path, "E0206", full, full, fold=True)

    assert "--fold" in str(found)


# --- whole tensors that nobody asked PEFT to store


STRAY = "base_model.model.model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("twice", [False, True], ids=["with another", "with itself"])
def test_a_tensor_that_nothing_explains_is_named(
    fold: bool, twice: bool, pair: tuple[Path, Path], base: Path, tmp_path: Path
) -> None:
    """E0821 with the key: no module to save, no trained bias, no embedding; λ and --base change nothing of it."""
    stray = tmp_path / "stray"
    shutil.copytree(pair[0], stray)
    tensors = load_file(stray / "adapter_model.safetensors")
    save_file({**tensors, STRAY: torch.zeros(48, 32)}, stray / "adapter_model.safetensors", {"format": "pt"})

    found = refusal(tmp_path, "E0821", stray, stray if twice else pair[1], base=base, fold=fold)

    assert STRAY in str(found)
    assert "load it with PEFT and save it again" in str(found.hint)


def test_half_a_resized_vocabulary_is_refused_with_its_base(zoo_folder: Path, tmp_path: Path) -> None:
    """E0342 for the adapter as for full weights: no model holds embeddings and a head of different lengths."""
    made = zoo.make("resized-half", zoo_folder)

    for fold in (False, True):
        refusal(tmp_path, "E0342", *made.adapters, base=made.base, fold=fold)
