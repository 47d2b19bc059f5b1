"""Soups of checkpoints that transformers really wrote, opened again by transformers: nothing missing, right answers."""

from __future__ import annotations

import copy
import json
import os
import stat
from pathlib import Path

import pytest
import torch
from checkpoints import read_tensors
from warm import rsoup

transformers = pytest.importorskip("transformers")
from zoo import ZOO, asked, born, nudged, reopened  # noqa: E402 - not without transformers

import rsoup as library  # noqa: E402
from rsoup.compat.config import compare_configs, flat_config  # noqa: E402
from rsoup.compat.quantised import bare_fp8, quantised  # noqa: E402
from rsoup.errors import IncompatibleError  # noqa: E402

ANSWERING = (
    "llama", "llama, biases", "llama, tied", "qwen2", "gemma2", "gpt2", "mixtral", "gpt_oss", "bert", "roberta, labels",
    "t5", "bart", "vit", "whisper", "mamba",
)  # fmt: skip
MIX = ["0.3", "0.7"]


def saved(folder: Path, name: str, dtype: torch.dtype = torch.float32, **options: object) -> list[Path]:
    """Two fine-tunes of one random model, as transformers saves them."""
    paths = []
    for seed in (1, 2):
        paths.append(folder / f"tuned-{seed}")
        nudged(born(name), seed, dtype).save_pretrained(paths[-1], **options)
    return paths


def by_hand(paths: list[Path], name: str) -> transformers.PreTrainedModel:
    """0.3·θ₁ + 0.7·θ₂ in float64, cast to float32 and then to the models' dtype, without rsoup."""
    one, two = (reopened(path, name) for path in paths)
    with torch.no_grad():
        for a, b in zip(one.parameters(), two.parameters(), strict=True):
            a.copy_((a.double() * 0.3 + b.double() * 0.7).float().to(a.dtype))
    return one


@pytest.mark.parametrize("name", ANSWERING)
def test_the_soup_answers_as_the_average_by_hand(tmp_path: Path, name: str) -> None:
    """transformers opens the soup without a missing or unexpected key, and f(θ(λ)) is that of Σλᵢθᵢ by hand."""
    paths = saved(tmp_path, name)

    result = library.merge(library.make_recipe(paths, mix=MIX), tmp_path / "soup")

    soup = reopened(tmp_path / "soup", name)
    assert torch.equal(asked(by_hand(paths, name)), asked(soup))
    assert not torch.equal(asked(reopened(paths[0], name)), asked(soup))
    assert not result.notes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama, biases", "gpt2"])
def test_half_precision(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    """Models in bf16 and fp16 come back in bf16 and fp16, and answer like the average by hand to the last bit."""
    paths = saved(tmp_path, name, dtype)

    library.merge(library.make_recipe(paths, mix=MIX), tmp_path / "soup")

    soup = reopened(tmp_path / "soup", name)
    assert soup.dtype == dtype
    assert torch.equal(asked(by_hand(paths, name)), asked(soup))


def test_shards_and_their_index(tmp_path: Path) -> None:
    """The soup of a sharded model has the same shards, and an index.json equal to transformers' byte for byte."""
    paths = saved(tmp_path, "llama, biases", max_shard_size="20KB")

    library.merge(library.make_recipe(paths, mix=MIX), tmp_path / "soup")

    names = {path.name for path in paths[0].glob("*.safetensors*")}
    assert len(names) > 3
    assert {path.name for path in (tmp_path / "soup").glob("*.safetensors*")} == names
    index = "model.safetensors.index.json"
    assert (paths[0] / index).read_bytes() == (tmp_path / "soup" / index).read_bytes()
    reopened(tmp_path / "soup", "llama, biases")


def test_new_shards(tmp_path: Path) -> None:
    """--max-shard-size gives shards of at most that size, named and indexed as transformers would; `1GB` joins them."""
    paths = saved(tmp_path, "llama, biases", max_shard_size="1GB")

    library.merge(library.make_recipe(paths, mix=MIX, max_shard_size="20KB"), tmp_path / "many")
    sharded = [tmp_path / "many", tmp_path / "many"]
    library.merge(
        library.make_recipe({"a": sharded[0], "b": sharded[1]}, mix=MIX, max_shard_size="1GB"),
        tmp_path / "one",
    )

    shards = sorted(path.name for path in (tmp_path / "many").glob("*.safetensors"))
    count = len(shards)
    assert count > 2
    assert shards == [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    theirs = json.loads(
        (
            saved(tmp_path / "x", "llama, biases", max_shard_size="20KB")[0] / "model.safetensors.index.json"
        ).read_text()
    )
    assert index.keys() == theirs.keys()
    assert index["metadata"] == theirs["metadata"]
    assert index["weight_map"].keys() == theirs["weight_map"].keys()
    for shard in shards:
        tensors = read_tensors(tmp_path / "many" / shard)
        assert len(tensors) == 1 or sum(t.nbytes for t in tensors.values()) <= 20_000
    assert not (tmp_path / "one" / "model.safetensors.index.json").exists()
    expected = asked(reopened(tmp_path / "many", "llama, biases"))
    assert torch.equal(expected, asked(reopened(tmp_path / "one", "llama, biases")))


def test_dtype_is_written_into_the_config(tmp_path: Path) -> None:
    """--dtype float32 on bf16 models: the weights, config.json and what transformers opens all say float32."""
    paths = saved(tmp_path, "llava", torch.bfloat16)

    library.merge(library.make_recipe(paths, mix=MIX, dtype="float32"), tmp_path / "soup")

    before, after = (json.loads((path / "config.json").read_text()) for path in (paths[0], tmp_path / "soup"))
    assert "bfloat16" in json.dumps(before)
    assert json.loads(json.dumps(before).replace("bfloat16", "float32")) == after
    assert reopened(tmp_path / "soup", "llava").dtype == torch.float32


def small_tokenizer(folder: Path) -> None:
    """A byte-level BPE with special tokens and a chat template, as a user would have it beside the model."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=["<pad>", "<s>", "</s>"], show_progress=False)
    inner.train_from_iterator(["soup of the day", "the weights of the soup"], trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    tokenizer.save_pretrained(folder)


def test_everything_beside_the_weights(tmp_path: Path) -> None:
    """Tokenizer, chat template and generation config come along and work; file modes follow the umask."""
    paths = saved(tmp_path, "llama, tied")
    for path in paths:
        small_tokenizer(path)
        transformers.GenerationConfig(temperature=0.7, do_sample=True, eos_token_id=2).save_pretrained(path)
    before = os.umask(0o027)
    try:
        library.merge(library.make_recipe(paths, mix=MIX), tmp_path / "soup")
    finally:
        os.umask(before)

    theirs, ours = (
        transformers.AutoTokenizer.from_pretrained(path) for path in (paths[0], tmp_path / "soup")
    )
    text = "the soup of the day"
    assert theirs(text)["input_ids"] == ours(text)["input_ids"]
    assert ours.decode(ours(text)["input_ids"]) == text
    chat = [{"role": "user", "content": "soup?"}]
    assert ours.apply_chat_template(chat, tokenize=False) == "user: soup?\n"
    assert reopened(tmp_path / "soup", "llama, tied").generation_config.temperature == 0.7
    copied = {path.name for path in paths[0].iterdir()}
    assert copied | {"README.md", "rsoup.json"} == {path.name for path in (tmp_path / "soup").iterdir()}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "soup").iterdir()} == {0o640}
    assert stat.S_IMODE((tmp_path / "soup").stat().st_mode) == 0o750


def test_the_command_line(tmp_path: Path) -> None:
    """`rsoup merge` on transformers' folders writes a folder that transformers opens, like the library does."""
    paths = saved(tmp_path, "qwen2", torch.bfloat16)

    run = rsoup("merge", *paths, "--lambda", ",".join(MIX), "-o", tmp_path / "soup")

    assert run.returncode == 0, run.stderr
    assert torch.equal(asked(by_hand(paths, "qwen2")), asked(reopened(tmp_path / "soup", "qwen2")))


@pytest.mark.fault("G4", "G5", "G6", "G8", "G10")
@pytest.mark.parametrize("name", ZOO)
def test_no_ordinary_model_is_mistaken(tmp_path: Path, name: str) -> None:
    """No model of transformers looks quantised, or like a training run; saved twice, it belongs to itself."""
    model = born(name)
    for which in ("one", "two"):
        model.save_pretrained(tmp_path / which)
    config = json.loads((tmp_path / "one" / "config.json").read_text())
    source = library.open_checkpoint(str(tmp_path / "one"))

    assert quantised(name, source.header, config) is None
    assert not bare_fp8(source.header)
    result = library.merge(
        library.make_recipe([tmp_path / "one", tmp_path / "two"], uniform=True), tmp_path / "soup"
    )
    assert [note for note in result.notes if "BatchNorm" not in note] == []
    one, soup = (read_tensors(tmp_path / which) for which in ("one", "soup"))
    assert all(
        torch.equal(one[key].view(torch.uint8), soup[key].view(torch.uint8)) for key in one if one[key].dim()
    )
    source.close()


CHANGES = {
    "llama": {"rms_norm_eps": 1e-3, "hidden_act": "gelu", "num_attention_heads": 8, "num_key_value_heads": 4, "rope_theta": 5e5,
              "rope_scaling": {"rope_type": "linear", "factor": 2.0}, "head_dim": 4, "tie_word_embeddings": True},
    "gemma2": {"final_logit_softcapping": 20.0, "attn_logit_softcapping": None, "query_pre_attn_scalar": 128,
               "sliding_window": 32, "hidden_activation": "silu", "layer_types": ["full_attention", "full_attention"]},
    "gemma3": {"rope_theta": 1e5, "rope_local_base_freq": 1e5, "sliding_window": 32},
    "qwen3_moe": {"num_experts_per_tok": 1, "norm_topk_prob": True, "decoder_sparse_step": 2},
    "gpt_oss": {"swiglu_limit": 3.0, "sliding_window": 64},
    "deepseek_v3": {"routed_scaling_factor": 1.0, "topk_group": 2, "n_group": 1, "norm_topk_prob": False},
    "gpt2": {"activation_function": "relu", "layer_norm_epsilon": 1e-3, "n_head": 2, "scale_attn_by_inverse_layer_idx": True},
    "bert": {"hidden_act": "relu", "layer_norm_eps": 1e-3, "is_decoder": True},
    "t5": {"feed_forward_proj": "gated-gelu", "relative_attention_num_buckets": 16, "layer_norm_epsilon": 1e-3},
    "mamba2": {"n_groups": 1, "num_heads": 4, "hidden_act": "relu"},
    "llava": {"text_config.rope_theta": 5e5, "vision_config.hidden_act": "relu", "vision_feature_layer": -1},
    "whisper": {"encoder_attention_heads": 2, "activation_function": "relu"},
}  # fmt: skip


def with_key(config: dict[str, object], key: str, value: object) -> dict[str, object]:
    """A copy of a config.json with one (dotted) key changed, wherever this version of transformers keeps it."""
    found = copy.deepcopy(config)
    inside, _, leaf = key.rpartition(".")
    part = found[inside] if inside else found
    assert isinstance(part, dict)
    rope = part.get("rope_parameters")
    if leaf.startswith("rope_") and isinstance(rope, dict):
        if leaf == "rope_theta":
            (rope.get("full_attention") or rope)["rope_theta"] = value
        elif leaf == "rope_local_base_freq":
            rope["sliding_attention"]["rope_theta"] = value
        else:
            assert isinstance(value, dict)
            rope.update(value)
    else:
        part[leaf] = value
    return found


@pytest.mark.fault("F13")
@pytest.mark.parametrize(("name", "key"), [(name, key) for name, keys in CHANGES.items() for key in keys])
def test_real_configs_that_differ_are_refused(tmp_path: Path, name: str, key: str) -> None:
    """What a real config.json says of the meaning of the weights is compared, wherever and however it is written."""
    loader, kind, settings = ZOO[name]
    transformers.AutoConfig.for_model(kind, **settings).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    other = with_key(config, key, CHANGES[name][key])
    assert other != config, loader

    found, _ = compare_configs({"a": config, "b": other})

    assert [mismatch.kind for mismatch in found] == ["config"]
    assert f"{key} is " in found[0].what
    assert compare_configs({"a": config, "b": copy.deepcopy(config)}) == ([], [])
    assert flat_config(config)


@pytest.mark.fault("F8")
@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_fused_experts_of_transformers_are_named(tmp_path: Path, name: str) -> None:
    """A mixture of experts saved with save_original_format=False is refused, and the refusal says what it is."""
    if int(transformers.__version__.partition(".")[0]) < 5:
        pytest.skip("transformers 4 has one format")
    one, two = tmp_path / "one", tmp_path / "two"
    born(name).save_pretrained(one)
    born(name).save_pretrained(two, save_original_format=False)

    with pytest.raises(IncompatibleError) as error:
        library.merge(library.make_recipe([one, two], uniform=True), tmp_path / "soup")

    assert "save_original_format=False" in str(error.value)
    assert not (tmp_path / "soup").exists()


@pytest.mark.fault("F4", "F6")
def test_resized_embeddings_of_transformers(tmp_path: Path) -> None:
    """A model whose vocabulary was resized: the refusal names the rows, and both the tensors and the config."""
    one, two = born("llama"), born("llama")
    two.resize_token_embeddings(72)
    for model, path in ((one, tmp_path / "one"), (two, tmp_path / "two")):
        model.save_pretrained(path)

    with pytest.raises(IncompatibleError) as error:
        library.merge(
            library.make_recipe([tmp_path / "one", tmp_path / "two"], uniform=True), tmp_path / "soup"
        )

    assert "rows 64 to 71 exist only in 'two'" in str(error.value)
    assert "vocab_size is 64 in 'one' and 72 in 'two'" in str(error.value)


@pytest.mark.fault("G4", "G5", "G6")
@pytest.mark.parametrize(
    ("module", "name", "arguments"),
    [
        ("eetq", "EetqLinear", (16, 16)),
        ("finegrained_fp8", "FP8Linear", (256, 256)),
        ("fbgemm_fp8", "FbgemmFp8Linear", (16, 16, False)),
        ("bitnet", "BitLinear", (16, 16, False)),
        ("higgs", "HiggsLinear", (1024, 64, 4, False)),
    ],
)
def test_quantised_layers_of_transformers_are_recognised(
    module: str, name: str, arguments: tuple[object, ...]
) -> None:
    """What transformers' own quantised layers would store is recognised by its names and types alone."""
    import importlib

    from checkpoints import from_torch

    layer_type = getattr(pytest.importorskip(f"transformers.integrations.{module}"), name, None)
    if layer_type is None:
        pytest.skip(f"{importlib.import_module('transformers').__version__} has no {name}")
    layer = layer_type(*arguments)
    source = from_torch(
        "m", {f"model.layers.0.mlp.up_proj.{key}": value for key, value in layer.state_dict().items()}
    )

    assert quantised("m", source.header, None) is not None
