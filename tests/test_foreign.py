"""An adapter that is not LoRA, folded module by module, is bit for bit what PEFT makes of the whole model."""

from __future__ import annotations

import copy
import json
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING as FORMS
from safetensors.torch import load_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from rsoup.errors import IncompatibleError, RefusedFileError, RsoupError
from rsoup.lora.foreign import FOLDABLE, ForeignKeys, Kind, adapted_module, modules_of

TOLERANCE = 1e-12
KINDS: dict[str, Kind] = {
    "Linear": "linear",
    "Conv1D": "conv1d",
    "Conv2d": "conv2d",
    "Embedding": "embedding",
}
LLAMA = {
    "vocab_size": 20, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT2 = {
    "vocab_size": 20, "n_positions": 8, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
Q_K_DOWN = ["q_proj", "k_proj", "down_proj"]


class Mixed(nn.Module):
    """Two convolutions, an embedding, and a linear layer with the name of PEFT's adapter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, 8, 3)
        self.conv2 = nn.Conv2d(8, 8, 1)
        self.emb = nn.Embedding(12, 8)
        self.default = nn.Linear(8, 16)


def llama() -> nn.Module:
    """With biases in every linear layer."""
    return LlamaForCausalLM(LlamaConfig(**LLAMA, attention_bias=True, mlp_bias=True))


def plain() -> nn.Module:
    """Without any bias."""
    return LlamaForCausalLM(LlamaConfig(**LLAMA))


def gpt2() -> nn.Module:
    """Its linear layers are transformers' Conv1D, its head is tied to the embedding."""
    return GPT2LMHeadModel(GPT2Config(**GPT2))


@dataclass(frozen=True)
class Folder:
    """A trained adapter on disk, its base, and what PEFT merges them to."""

    base: nn.Module
    merged: nn.Module
    config: dict[str, object]
    tensors: dict[str, torch.Tensor]

    def keys(self) -> ForeignKeys:
        """The keys of the file, sorted."""
        return modules_of(self.config, self.tensors)

    def state(self, module: str) -> dict[str, torch.Tensor]:
        """What `adapted_module` takes for a module."""
        keys = self.keys()
        own = {name: self.tensors[key] for name, key in keys.modules[module].items()}
        return own | {key: self.tensors[key] for key in keys.shared}

    def fold(self, module: str, **other: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """`adapted_module` of a module, with some of what it is given replaced."""
        layer: Any = self.base.get_submodule(module)
        bias = getattr(layer, "bias", None)
        given = {
            "config": self.config, "module": module, "state": self.state(module), "weight": layer.weight.data,
            "bias": None if bias is None else bias.data, "kind": KINDS.get(type(layer).__name__, "norm"),
        }  # fmt: skip
        return adapted_module(**(given | other))

    def refusal(self, module: str, **other: Any) -> RsoupError:
        """The error that `fold` ends in."""
        with pytest.raises(RsoupError) as error:
            self.fold(module, **other)
        return error.value


def trained(
    folder: Path, peft_type: str, make: Callable[[], nn.Module], targets: object, **settings: Any
) -> Folder:
    """An adapter with random parameters, as save_pretrained writes it."""
    torch.manual_seed(0)
    base = make().double()
    for parameter in base.parameters():
        parameter.data.normal_(std=0.3)
    untouched = copy.deepcopy(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(base, FORMS[peft_type](target_modules=targets, **settings))  # type: ignore[index]
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.normal_(std=0.3)
        model.save_pretrained(folder)
        merged = model.merge_and_unload()
    config = json.loads((folder / "adapter_config.json").read_text())
    return Folder(untouched, merged, config, load_file(folder / "adapter_model.safetensors"))


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert found.dtype == torch.float64
    assert found.shape == expected.shape
    return ((found - expected).abs().max() / expected.abs().max()).item()


OFT: dict[str, Any] = {"oft_block_size": 8, "r": 0}
VB: dict[str, Any] = {"vector_length": 16, "num_vectors": 8}
FF: dict[str, Any] = {"feedforward_modules": ["down_proj"]}
CASES: dict[str, tuple[str, Callable[[], nn.Module], object, dict[str, Any]]] = {
    "beft": ("BEFT", llama, Q_K_DOWN, {}),
    "boft": ("BOFT", plain, Q_K_DOWN, {"boft_block_size": 4}),
    "boft blocks, bias": ("BOFT", llama, Q_K_DOWN, {"boft_block_num": 4, "boft_block_size": 0, "bias": "boft_only"}),
    "boft conv": ("BOFT", Mixed, ["conv1", "conv2"], {"boft_block_size": 4}),
    "c3a pattern": ("C3A", plain, Q_K_DOWN, {"block_size": 8, "block_size_pattern": {"q_proj": 4}}),
    "deft": ("DEFT", llama, Q_K_DOWN, {}),
    "deft para gpt2": ("DEFT", gpt2, ["c_attn", "c_proj"], {"para": True}),
    "delora": ("DELORA", plain, Q_K_DOWN, {"rank_pattern": {"q_proj": 4}, "lambda_pattern": {"k_proj": 3.0}}),
    "fourierft": ("FOURIERFT", plain, Q_K_DOWN, {"n_frequency": 50, "n_frequency_pattern": {"q_proj": 20}, "random_loc_seed": 3}),
    "fourierft gpt2": ("FOURIERFT", gpt2, ["c_attn", "c_proj"], {"n_frequency": 50}),
    "glora": ("GLORA", llama, Q_K_DOWN, {"config_A_B": "vector", "config_C": "vector", "config_D_E": "vector"}),
    "glora plain": ("GLORA", plain, Q_K_DOWN, {}),
    "gralora hybrid": ("GRALORA", plain, Q_K_DOWN, {"hybrid_r": 4}),
    "gralora gpt2": ("GRALORA", gpt2, ["c_attn", "c_proj"], {}),
    "hira": ("HIRA", plain, ["q_proj", "embed_tokens"], {"r": 4, "rank_pattern": {"q_proj": 2}}),
    "hira mixed": ("HIRA", Mixed, ["conv1", "conv2", "emb", "default"], {"r": 4}),
    "hra": ("HRA", llama, Q_K_DOWN, {"r": 4, "apply_GS": True, "bias": "hra_only"}),
    "hra conv": ("HRA", Mixed, ["conv1", "conv2", "default"], {"r": 4}),
    "ia3": ("IA3", llama, Q_K_DOWN, FF),
    "ia3 expression": ("IA3", llama, r".*\.(q_proj|down_proj)", {"feedforward_modules": r".*down_proj"}),
    "ia3 gpt2": ("IA3", gpt2, ["c_attn", "c_proj"], {"feedforward_modules": ["c_proj"]}),
    "ia3 conv": ("IA3", Mixed, ["conv1", "conv2"], {"feedforward_modules": ["conv2"]}),
    "ln_tuning rms": ("LN_TUNING", plain, ["input_layernorm", "norm"], {}),
    "ln_tuning layer": ("LN_TUNING", gpt2, ["ln_1"], {}),
    "loha": ("LOHA", plain, Q_K_DOWN, {"r": 4}),
    "loha patterns": ("LOHA", llama, Q_K_DOWN, {"r": 4, "rank_pattern": {"layers.0.self_attn.q_proj": 2, "down_proj": 6}, "alpha_pattern": {"k_proj": 32, "^model.layers.1.mlp.down_proj": 3}}),
    "loha mixed": ("LOHA", Mixed, ["conv1", "conv2", "default"], {"r": 2}),
    "loha conv": ("LOHA", Mixed, ["conv1"], {"r": 2, "use_effective_conv2d": True}),
    "loha whole": ("LOHA", plain, Q_K_DOWN, {"r": 2, "modules_to_save": ["lm_head", "input_layernorm"]}),
    "lokr": ("LOKR", plain, Q_K_DOWN, {"r": 4}),
    "lokr patterns": ("LOKR", llama, Q_K_DOWN, {"r": 1, "decompose_both": True, "decompose_factor": 4, "rank_pattern": {"^model.layers.1.self_attn.q_proj": 2, "down_proj": 3}, "alpha_pattern": {"k_proj": 32}}),
    "lokr conv": ("LOKR", Mixed, ["conv1", "conv2"], {"r": 2, "use_effective_conv2d": True, "decompose_both": True}),
    "miss": ("MISS", plain, Q_K_DOWN, {"r": 8}),
    "miss bat": ("MISS", plain, Q_K_DOWN, {"r": 8, "init_weights": "bat"}),
    "miss mini": ("MISS", plain, Q_K_DOWN, {"r": 8, "init_weights": "mini", "mini_r": 4}),
    "oft": ("OFT", plain, Q_K_DOWN, OFT),
    "oft by blocks": ("OFT", plain, Q_K_DOWN, {"oft_block_size": 0, "r": 4}),
    "oft constrained": ("OFT", plain, Q_K_DOWN, OFT | {"block_share": True, "coft": True, "eps": 0.1}),
    "oft own bias": ("OFT", llama, Q_K_DOWN, OFT | {"bias": "oft_only"}),
    "oft every bias": ("OFT", llama, Q_K_DOWN, OFT | {"bias": "all"}),
    "oft mixed": ("OFT", Mixed, ["conv1", "conv2", "emb", "default"], {"oft_block_size": 4, "r": 0}),
    "peanut": ("PEANUT", plain, Q_K_DOWN, {"depth": 4}),
    "pvera": ("PVERA", plain, Q_K_DOWN, {"r": 8}),
    "road": ("ROAD", llama, Q_K_DOWN, {"group_size": 16}),
    "road 4": ("ROAD", plain, Q_K_DOWN, {"group_size": 16, "variant": "road_4"}),
    "shira": ("SHIRA", plain, Q_K_DOWN, {"r": 4, "random_seed": 3}),
    "supertuning": ("SUPERTUNING", plain, Q_K_DOWN, {"r": 4}),
    "tokens": ("TRAINABLE_TOKENS", plain, ["embed_tokens"], {"token_indices": [3, 1]}),
    "tokens tied": ("TRAINABLE_TOKENS", gpt2, ["wte"], {"token_indices": [3, 1]}),
    "vblora": ("VBLORA", plain, Q_K_DOWN, VB),
    "vblora gpt2": ("VBLORA", gpt2, ["c_attn", "c_proj"], VB),
    "vera": ("VERA", plain, Q_K_DOWN, {"r": 8}),
    "vera gpt2": ("VERA", gpt2, ["c_attn", "c_proj"], {"r": 8}),
    "waveft": ("WAVEFT", plain, Q_K_DOWN, {"n_frequency": 50}),
    "waveft direct": ("WAVEFT", gpt2, ["c_attn", "c_proj"], {"n_frequency": 50, "use_idwt": False}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_module_is_what_peft_merges(case: str, tmp_path: Path) -> None:
    """Every module folded alone equals the whole model's, and all that the merge changed is accounted for."""
    peft_type, make, targets, settings = CASES[case]
    adapter = trained(tmp_path, peft_type, make, targets, **settings)
    keys, before, after = adapter.keys(), adapter.base.state_dict(), adapter.merged.state_dict()

    covered = set(keys.replaced)
    for module in keys.modules:
        weight, bias = adapter.fold(module)
        assert distance(weight, after[f"{module}.weight"]) <= TOLERANCE
        assert (bias is None) == (f"{module}.bias" not in before)
        assert bias is None or distance(bias, after[f"{module}.bias"]) <= TOLERANCE
        covered |= {f"{module}.weight", f"{module}.bias"}

    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert keys.modules
    assert changed
    assert changed <= covered
    assert all(torch.equal(adapter.tensors[key], after[name]) for name, key in keys.replaced.items())


def test_every_foldable_type_has_a_case() -> None:
    """No type is called foldable without a whole model to compare with, and every other one has its reason."""
    assert {case[0] for case in CASES.values()} == FOLDABLE
    for form in FORMS:
        if form.value not in FOLDABLE:
            with pytest.raises(IncompatibleError, match=r"cannot be folded .*: it|what") as error:
                modules_of({"peft_type": form.value}, [])
            assert error.value.code == "E0840"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_short_float_is_taken_as_it_is(dtype: torch.dtype, tmp_path: Path) -> None:
    """Weights and adapter of any dtype are what they are in float64, and the computation is float64's."""
    adapter = trained(tmp_path, "LOHA", llama, ["q_proj"], r=4)
    module = "model.layers.0.self_attn.q_proj"
    state = {name: tensor.to(dtype) for name, tensor in adapter.state(module).items()}
    weight = adapter.base.get_submodule(module).weight.data.to(dtype)

    found, _ = adapter.fold(module, state=state, weight=weight)
    exact, _ = adapter.fold(module, state={n: t.double() for n, t in state.items()}, weight=weight.double())

    assert torch.equal(found, exact)


def test_weights_kept_as_top_k(tmp_path: Path) -> None:
    """VB-LoRA's short form is folded to the precision PEFT reads it in, float32."""
    adapter = trained(tmp_path, "VBLORA", plain, Q_K_DOWN, save_only_topk_weights=True, **VB)

    for module in adapter.keys().modules:
        weight, _ = adapter.fold(module)
        assert distance(weight, adapter.merged.get_submodule(module).weight) <= 1e-6


def world() -> list[object]:
    """All that PEFT, torch and warnings could leave behind."""
    boft: Any = peft.tuners.boft.layer
    return [
        torch.random.get_rng_state().tolist(), random.getstate(), str(np.random.get_state()),
        torch.get_default_dtype(), torch.is_grad_enabled(), list(warnings.filters), boft._FBD_CUDA,
    ]  # fmt: skip


@pytest.mark.parametrize("case", ["ia3 gpt2", "boft", "loha", "vera", "shira", "waveft"])
def test_nothing_is_left_behind(case: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Neither a warning nor another random state, and what was given is unchanged, whether it works or not."""
    peft_type, make, targets, settings = CASES[case]
    adapter = trained(tmp_path, peft_type, make, targets, **settings)
    module = next(iter(adapter.keys().modules))
    layer: Any = adapter.base.get_submodule(module)
    given = copy.deepcopy((adapter.config, adapter.state(module), layer.weight.data))
    before = world()

    weight, _ = adapter.fold(module)
    adapter.refusal(module, state={})

    assert world() == before
    assert not recwarn.list
    assert adapter.config == given[0]
    assert all(torch.equal(tensor, given[1][name]) for name, tensor in adapter.state(module).items())
    assert torch.equal(layer.weight.data, given[2])
    assert weight.data_ptr() != layer.weight.data_ptr()
    assert not weight.requires_grad


def test_keys_are_sorted_by_what_they_are_for() -> None:
    """Modules, shared tensors, and whole tensors: modules_to_save, every bias, a grown vocabulary."""
    prefix = "base_model.model."
    config = {"peft_type": "VERA", "bias": "all", "modules_to_save": ["score"]}
    own = ("a.q.vera_lambda_b", "a.q.vera_lambda_d", "a.q.base_layer.bias")
    whole = (
        "score.weight",
        "score.dense.weight",
        "a.norm.bias",
        "model.embed_tokens.weight",
        "lm_head.weight",
    )
    shared = ("base_model.vera_A", "base_model.vera_B")

    found = modules_of(config, [*shared, *(prefix + name for name in (*own, *whole))])

    assert found.modules == {"a.q": {name.removeprefix("a.q."): prefix + name for name in own}}
    assert found.shared == shared
    assert found.replaced == {name: prefix + name for name in whole}


@pytest.mark.parametrize(
    "key",
    [
        "base_model.model.a.q.lora_A.weight", "base_model.model.a.q.weight", "base_model.model.a.norm.bias",
        "base_model.model.a.k.base_layer.bias", "base_model.model.hada_w1_a", "a.q.hada_w1_a", "base_model.vera_A",
        "base_model.model.a.q.hard_w1_a", "",
    ],
)  # fmt: skip
def test_a_key_without_a_place_is_refused(key: str) -> None:
    """It is named, and so is no key that has a place."""
    with pytest.raises(RefusedFileError) as error:
        modules_of({"peft_type": "LOHA", "bias": "none"}, ["base_model.model.a.q.hada_w1_a", key])

    assert error.value.code == "E0841"
    assert f": '{key}'." in error.value.message


def test_types_that_cannot_be_folded() -> None:
    """Prompts, LoRA, an invention, and no type at all."""
    for config in ({"peft_type": "PROMPT_TUNING"}, {"peft_type": "LORA"}, {"peft_type": "\x1b[2J"}, {}):
        with pytest.raises(IncompatibleError) as error:
            adapted_module(config, "a", {}, torch.ones(2, 2), None, "linear")
        assert error.value.code == "E0840"
        assert "\x1b" not in str(error.value)


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    """Missing, unexpected and misshapen ones, each with its name."""
    adapter = trained(tmp_path, "LOHA", llama, Q_K_DOWN, r=4, rank_pattern={"k_proj": 2})
    module = "model.layers.0.self_attn.q_proj"
    state = adapter.state(module)
    short = {name: tensor for name, tensor in state.items() if name != "hada_w1_a"}
    other = adapter.state("model.layers.0.self_attn.k_proj")

    told = {
        "missing": adapter.refusal(module, state=short),
        "not expected": adapter.refusal(module, state=state | {"hada_t1": torch.ones(1)}),
        "not taken by PEFT": adapter.refusal(module, state=state | {"base_layer.extra": torch.ones(1)}),
        "of the shape [32, 2], not [32, 4]": adapter.refusal(module, state=state | {"hada_w2_a": other["hada_w2_a"][:, :2].repeat(2, 1)}),
    }  # fmt: skip

    assert {error.code for error in told.values()} == {"E0842"}
    for what, error in told.items():
        (problem,) = error.details
        assert problem.what == what
    assert [error.details[0].where for error in told.values()] == [
        "hada_w1_a", "hada_t1", "base_model.model.model.layers.0.self_attn.q_proj.base_layer.extra", "hada_w2_a"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("peft_type", "settings", "missing"),
    [
        ("VERA", {"r": 8, "save_projection": False}, "base_model.vera_A"),
        ("SUPERTUNING", {"save_precomputed_indices": False}, "supertuning_indices"),
    ],
)
def test_what_peft_would_make_up_is_missed(
    peft_type: str, settings: dict[str, Any], missing: str, tmp_path: Path
) -> None:
    """A projection that the file leaves to the whole model cannot be had from one module."""
    adapter = trained(tmp_path, peft_type, plain, Q_K_DOWN, **settings)
    error = adapter.refusal("model.layers.0.self_attn.q_proj")

    assert error.code == "E0842"
    assert missing in [problem.where for problem in error.details]


@pytest.mark.parametrize(
    "settings", [{"new_idea": "loud"}, {"oft_block_size": 8, "r": 8}, {"use_cayley_neumann": True, "peft_version": "0.17.0"}]
)  # fmt: skip
def test_settings_peft_does_not_take(settings: dict[str, object], tmp_path: Path) -> None:
    """One it does not know, ones it refuses, and a version whose meaning has changed."""
    adapter = trained(tmp_path, "OFT", plain, ["q_proj"], **OFT)
    module = "model.layers.0.self_attn.q_proj"

    assert adapter.refusal(module, config=adapter.config | settings).code == "E0843"
    adapter.fold(module, config=adapter.config | {"switched_off": None, "task_type": "CAUSAL_LM"})


def test_modules_peft_does_not_fold(tmp_path: Path) -> None:
    """A layer of another kind, a weight that is none of that kind, a bias the layer has not."""
    adapter = trained(tmp_path / "loha", "LOHA", llama, ["q_proj"], r=4)
    beft = trained(tmp_path / "beft", "BEFT", llama, ["q_proj"])
    module = "model.layers.0.self_attn.q_proj"
    told = [
        adapter.refusal(module, kind="conv1d"),
        adapter.refusal(module, kind="conv2d"),
        adapter.refusal(module, kind="embedding"),
        adapter.refusal(module, state=adapter.state(module) | {"base_layer.weight": torch.ones(2, 2)}),
        beft.refusal(module, bias=None),
    ]

    assert {error.code for error in told} == {"E0844"}
    assert all(module in error.message for error in told)


def test_a_peft_without_the_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older PEFT than the adapter's."""
    adapter = trained(tmp_path, "LOHA", plain, ["q_proj"], r=4)
    monkeypatch.delitem(FORMS, peft.PeftType.LOHA)

    error = adapter.refusal("model.layers.0.self_attn.q_proj")

    assert error.code == "E0845"
    assert error.hint == "pip install --upgrade peft"
