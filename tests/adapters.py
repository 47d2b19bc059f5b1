"""Tiny adapters of every kind PEFT writes, really written by PEFT, and the dense float64 soups they must equal.

`make(name, folder)` makes a base and its adapters on disk, `KINDS` says what there is and what to filter on, and
`adapted_weights` and `soup_weights` are the truth: each adapter is merged by PEFT alone, in float64, never together.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import torch
import transformers
from peft.utils import set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers.core_model_loading import revert_weight_conversion

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()

Tensors = dict[str, torch.Tensor]

# --- Bases ------------------------------------------------------------------------------------------------------

_TEXT: Mapping[str, object] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 64, "max_position_embeddings": 64, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip

ARCHES: Mapping[str, tuple[str, str, Mapping[str, object]]] = {
    # name → (class, model type, configuration)
    "llama": ("LlamaForCausalLM", "llama", _TEXT),
    "llama-biases": ("LlamaForCausalLM", "llama", {**_TEXT, "attention_bias": True, "mlp_bias": True}),
    "llama-tied": ("LlamaForCausalLM", "llama", {**_TEXT, "tie_word_embeddings": True}),
    "llama-score": ("LlamaForSequenceClassification", "llama", {**_TEXT, "num_labels": 3}),
    "bert-score": ("BertForSequenceClassification", "bert", {**_TEXT, "num_labels": 3}),
    "gpt2": (
        "GPT2LMHeadModel", "gpt2",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2},
    ),
    "mixtral": ("MixtralForCausalLM", "mixtral", {**_TEXT, "num_local_experts": 4}),
    "qwen3_moe": (
        "Qwen3MoeForCausalLM", "qwen3_moe",
        {**_TEXT, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8},
    ),
    "gpt_oss": (
        "GptOssForCausalLM", "gpt_oss",
        {**_TEXT, "num_local_experts": 4, "head_dim": 8, "num_experts_per_tok": 2,
         "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}},
    ),
}  # fmt: skip
"""What `make_base` can make; besides these `conv`, a module of plain torch that has no config.json."""

DEFAULT = "default"
"""PEFT's name for the adapter in a model; on disk it disappears."""


class Plain(torch.nn.Module):
    """Convolutions and a linear layer without transformers: what LoRA for images adapts."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.second = torch.nn.Conv2d(8, 12, 1)
        self.grouped = torch.nn.Conv2d(12, 12, 3, padding=1, groups=2)
        self.last = torch.nn.Linear(12, 5)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Five numbers for each image of three channels."""
        seen = torch.tanh(self.grouped(torch.tanh(self.second(torch.tanh(self.first(pixels))))))
        return self.last(seen.mean(dim=(2, 3)))


def make_base(
    folder: Path, arch: str = "llama", *, dtype: torch.dtype = torch.float32, seed: int = 0, **config: object
) -> Path:
    """A tiny base with random weights, saved as its library saves it; `config` overrides the architecture's."""
    torch.manual_seed(seed)
    if arch == "conv":
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: value.to(dtype).contiguous() for name, value in Plain().state_dict().items()}
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        return folder
    name, kind, settings = ARCHES[arch]
    built = transformers.AutoConfig.for_model(kind, **{**settings, **config})
    model = getattr(transformers, name)(built)
    with torch.no_grad():
        for label, weight in model.named_parameters():
            if weight.dim() == 1:  # norms start as ones and biases as zeros: no fixture should rest on that
                weight.add_(torch.randn(weight.shape) * 0.1)
            elif "embed" not in label:
                weight.mul_(5.0)  # far enough from zero that a change of the weights shows in the logits
    if getattr(model, "can_generate", bool)():
        model.generation_config = transformers.GenerationConfig(
            bos_token_id=1, eos_token_id=2, pad_token_id=0
        )
    model.to(dtype).save_pretrained(folder)
    return folder


# --- Kinds ------------------------------------------------------------------------------------------------------

_QV = ["q_proj", "v_proj"]
_MLP = ["gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Kind:
    """A way to make adapters: what they are trained on, how each is configured, and what a test must know of it."""

    configs: tuple[Callable[[], peft.PeftConfig], ...]
    """One maker of a configuration for each adapter."""
    arch: str = "llama"
    base_dtype: torch.dtype = torch.float32
    factor_dtype: torch.dtype | None = None
    """The dtype the factors are stored in, where it is not PEFT's own choice."""
    vocabulary: int | None = None
    """The size the embeddings are resized to before training."""
    needs_base: bool = False
    """Whether a weight's change depends on the base's weight: DoRA, PiSSA, OLoRA. (Heads, tokens and biases hold
    whole values, and need the base wherever an adapter lacks them or Σ λ is not 1.)"""
    fold_only: bool = False
    """Whether the soup is no LoRA adapter at all, so only full weights can hold it."""
    dora: bool = False
    rslora: bool = False
    heads: bool = False
    """Whether `modules_to_save` or a resized vocabulary brings whole tensors."""
    tokens: bool = False
    biases: bool = False
    embeddings: bool = False
    tied: bool = False
    moe: bool = False
    conv: bool = False
    by_hand: bool = False
    """Whether this PEFT only reads such files, an earlier one wrote them: the fixture writes them itself."""
    init_mutates_base: bool = False
    """PiSSA, OLoRA: the factors stand on a residual of the base, made when the adapter is attached."""
    warns: tuple[str, ...] = ()
    """Beginnings of the warnings PEFT gives whenever such an adapter is attached, saved or merged."""


def _lora(**more: object) -> Callable[[], peft.PeftConfig]:
    settings = {"r": 4, "lora_alpha": 8, "target_modules": _QV, "task_type": "CAUSAL_LM"}

    def config() -> peft.PeftConfig:
        return peft.LoraConfig(**{**settings, **more})

    return config


def _other(name: str, **more: object) -> Callable[[], peft.PeftConfig]:
    settings = {"target_modules": _QV, "task_type": "CAUSAL_LM"}

    def config() -> peft.PeftConfig:
        return getattr(peft, name)(**{**settings, **more})  # type: ignore[no-any-return]

    return config


def _both(config: Callable[[], peft.PeftConfig], **more: object) -> Kind:
    return Kind((config, config), **more)


def _two(one: Callable[[], peft.PeftConfig], two: Callable[[], peft.PeftConfig], **more: object) -> Kind:
    return Kind((one, two), **more)


_TIED = "Model has `tie_word_embeddings=True` and a tied layer is part of the adapter"
_EMBEDDINGS = "Setting `save_embedding_layers` to `True` as embedding layers found in `target_modules`."
_RESIZED = (
    "Setting `save_embedding_layers` to `True` as the embedding layer has been resized during finetuning."
)
_SHARDS = "Adapter 'default': "  # PEFT takes the vector of `lora_bias` for a shard of a factor
_ALPHAS = "The following alpha_pattern keys did not match any targeted module"
_RANKS = "The following rank_pattern keys did not match any targeted module"  # said of every AdaLoRA that dropped ranks
_FOREIGN = (
    "`is_gradient_checkpointing` is deprecated",  # PEFT 0.21 with transformers 5.23
    "Failed to load the CUDA extension",  # BOFT on a machine without CUDA
)
_GROUPS = "LoRA adapter added to ConvNd layer with groups > 1. Merging is not supported."
_NOWHERE = "`lora_bias=True` was passed but the targeted layer of type Linear has no bias."
_SWITCH = "fan_in_fan_out is set to "
_SEQ = {"task_type": "SEQ_CLS"}
_EXPERTS = {"target_modules": [], "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}

KINDS: Mapping[str, Kind] = {
    # Linear layers
    "plain": _both(_lora(lora_dropout=0.1)),
    "alpha-r": _both(_lora(lora_alpha=4)),
    "rslora": _both(_lora(use_rslora=True), rslora=True),
    "mixed-rslora": _two(_lora(), _lora(use_rslora=True), rslora=True),
    "patterns": _two(
        _lora(target_modules=[*_QV, "up_proj"], rank_pattern={"q_proj": 2, "layers.1.mlp.up_proj": 6}, alpha_pattern={"v_proj": 3}),
        _lora(target_modules=[*_QV, "up_proj"], rank_pattern={r"layers\.\d+\.self_attn\.v_proj": 3}, alpha_pattern={"^model.layers.1.mlp.up_proj": 5}),
    ),
    "patterns-rslora": _both(_lora(rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 3}, use_rslora=True), rslora=True),
    "ranks": _two(_lora(r=8), _lora()),
    "targets": _two(_lora(), _lora(target_modules=["q_proj", "up_proj"])),
    "regex": _two(_lora(target_modules=r".*layers\.[0-9]+\.(self_attn\.[qk]_proj|mlp\.down_proj)"), _lora()),
    "all-linear": _both(_lora(target_modules="all-linear")),
    "exclude": _two(_lora(exclude_modules=["layers.0.self_attn.q_proj"]), _lora()),
    "layers": _two(_lora(layers_to_transform=[1], layers_pattern="layers"), _lora()),
    "gaussian": _two(_lora(init_lora_weights="gaussian"), _lora(init_lora_weights="orthogonal")),
    "gpt2": _both(_lora(target_modules=["c_attn", "c_fc", "c_proj"], fan_in_fan_out=True), arch="gpt2"),
    "gpt2-head": _both(  # PEFT writes fan_in_fan_out false, that of the head, which it wraps last
        _lora(target_modules=["c_proj", "lm_head"], fan_in_fan_out=True), arch="gpt2", embeddings=True, tied=True, warns=(_EMBEDDINGS, _TIED, _SWITCH),
    ),
    # What the files hold in another dtype
    "bf16": _both(_lora(target_modules="all-linear"), base_dtype=torch.bfloat16, factor_dtype=torch.bfloat16),
    "bf16-base": _both(_lora(), base_dtype=torch.bfloat16),
    "bf16-factors": _both(_lora(), factor_dtype=torch.bfloat16),
    "fp16-factors": _two(_lora(), _lora(), factor_dtype=torch.float16),
    # Embeddings and heads
    "embed": _both(_lora(target_modules=[*_QV, "embed_tokens"]), embeddings=True, warns=(_EMBEDDINGS,)),
    "embed-tied": _both(
        _lora(target_modules=[*_QV, "embed_tokens"]), arch="llama-tied", embeddings=True, tied=True, warns=(_EMBEDDINGS, _TIED),
    ),
    "embed-tied-ensured": _both(
        _lora(target_modules=[*_QV, "embed_tokens"], ensure_weight_tying=True), arch="llama-tied", embeddings=True, tied=True,
        warns=(_EMBEDDINGS,),
    ),
    "lm-head": _both(_lora(target_modules=[*_QV, "lm_head"]), embeddings=True, warns=(_EMBEDDINGS,)),
    "lm-head-tied": _both(
        _lora(target_modules=[*_QV, "lm_head"]), arch="llama-tied", embeddings=True, tied=True, warns=(_EMBEDDINGS, _TIED),
    ),
    "embed-gpt2": _both(
        _lora(target_modules=["wte", "c_attn"], fan_in_fan_out=True), arch="gpt2", embeddings=True, tied=True
    ),
    "head-one": _two(_lora(modules_to_save=["lm_head"]), _lora(), heads=True),
    "head-both": _both(_lora(modules_to_save=["lm_head"]), heads=True),
    "head-bf16": _both(_lora(modules_to_save=["lm_head"]), base_dtype=torch.bfloat16, heads=True),
    "head-norm": _both(_lora(modules_to_save=["lm_head", "norm", "embed_tokens"]), heads=True),
    "head-tied": _both(_lora(modules_to_save=["lm_head"]), arch="llama-tied", heads=True, tied=True, warns=(_TIED,)),
    "embed-head-tied-ensured": _both(
        _lora(modules_to_save=["embed_tokens"], ensure_weight_tying=True), arch="llama-tied", heads=True, tied=True,
    ),
    "score": _both(_lora(modules_to_save=["score"], **_SEQ), arch="llama-score", heads=True),
    "score-implied": _both(_lora(**_SEQ), arch="llama-score", heads=True),
    "bert-score": _both(_lora(target_modules=["query", "value"], **_SEQ), arch="bert-score", heads=True),
    "tokens-one": _two(_lora(trainable_token_indices=[3, 7, 60]), _lora(), tokens=True),
    "tokens-both": _two(_lora(trainable_token_indices=[3, 7, 60]), _lora(trainable_token_indices=[7, 5]), tokens=True),
    "tokens-tied": _two(
        _lora(trainable_token_indices=[3, 7, 60]), _lora(trainable_token_indices=[7, 5]), arch="llama-tied", tokens=True, tied=True,
    ),
    "tokens-two-modules": _both(_lora(trainable_token_indices={"embed_tokens": [3, 7], "lm_head": [4]}), tokens=True),
    "resized": _both(_lora(), vocabulary=70, heads=True, warns=(_RESIZED,)),
    "resized-embed": _both(
        _lora(target_modules=[*_QV, "embed_tokens", "lm_head"]), vocabulary=70, heads=True, embeddings=True, warns=(_EMBEDDINGS,),
    ),
    "head-lora": _two(_lora(modules_to_save=["lm_head"]), _lora(target_modules=[*_QV, "lm_head"]), heads=True, embeddings=True, warns=(_EMBEDDINGS,)),
    "resized-one": _two(
        _lora(), _lora(target_modules=[*_QV, "embed_tokens", "lm_head"]), vocabulary=70, heads=True, embeddings=True,
        warns=(_EMBEDDINGS, _RESIZED),
    ),
    "bias-targets": _two(_lora(bias="all", target_modules=["k_proj"]), _lora(bias="all"), arch="llama-biases", biases=True),
    # Biases
    "bias-all": _both(_lora(bias="all"), arch="llama-biases", biases=True),
    "bias-lora-only": _both(_lora(bias="lora_only"), arch="llama-biases", biases=True),
    "bias-gpt2": _both(_lora(target_modules=["c_attn"], fan_in_fan_out=True, bias="all"), arch="gpt2", biases=True),
    "lora-bias": _both(_lora(lora_bias=True), arch="llama-biases", biases=True, warns=(_SHARDS,)),
    "lora-bias-one": _two(_lora(lora_bias=True), _lora(), arch="llama-biases", biases=True, warns=(_SHARDS,)),
    # DoRA
    "dora": _both(_lora(use_dora=True), dora=True, needs_base=True),
    "dora-lora": _two(_lora(use_dora=True), _lora(target_modules=["q_proj", "up_proj"]), dora=True, needs_base=True),
    "dora-rslora": _two(_lora(use_dora=True, use_rslora=True), _lora(use_dora=True, r=8), dora=True, rslora=True, needs_base=True),
    "dora-embed": _both(
        _lora(use_dora=True, target_modules=[*_QV, "embed_tokens"]), dora=True, needs_base=True, embeddings=True, warns=(_EMBEDDINGS,),
    ),
    "dora-gpt2": _both(_lora(use_dora=True, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True), arch="gpt2", dora=True, needs_base=True),
    "dora-conv": _both(_lora(use_dora=True, target_modules=["first", "second", "last"], task_type=None), arch="conv", dora=True, conv=True, needs_base=True),
    # Inits that change the base
    "pissa": _both(_lora(init_lora_weights="pissa"), needs_base=True, init_mutates_base=True),
    "pissa-lora": _two(_lora(init_lora_weights="pissa"), _lora(), needs_base=True, init_mutates_base=True),
    "pissa-bf16": _both(_lora(init_lora_weights="pissa"), base_dtype=torch.bfloat16, needs_base=True, init_mutates_base=True),
    "pissa-gpt2": _both(
        _lora(init_lora_weights="pissa", target_modules=["c_attn"], fan_in_fan_out=True), arch="gpt2", needs_base=True, init_mutates_base=True,
    ),
    "pissa-head": _both(  # whose file holds the residual of the head
        _lora(init_lora_weights="pissa", target_modules=[*_QV, "lm_head"]), needs_base=True, init_mutates_base=True, embeddings=True,
        warns=(_EMBEDDINGS,),
    ),
    "olora": _both(_lora(init_lora_weights="olora"), needs_base=True, init_mutates_base=True),
    "olora-bf16": _both(_lora(init_lora_weights="olora"), base_dtype=torch.bfloat16, needs_base=True, init_mutates_base=True),
    # Convolutions and experts
    "conv": _both(_lora(target_modules=["first", "second", "last"], task_type=None), arch="conv", conv=True),
    "conv-bias": _both(_lora(target_modules=["first", "second"], lora_bias=True, task_type=None), arch="conv", conv=True, biases=True, warns=(_SHARDS,)),
    "moe-mixtral": _both(_lora(**_EXPERTS), arch="mixtral", moe=True),
    "moe-qwen3": _two(_lora(**_EXPERTS), _lora(**{**_EXPERTS, "target_modules": _QV, "r": 3}), arch="qwen3_moe", moe=True),
    "moe-gpt-oss": _both(_lora(**_EXPERTS), arch="gpt_oss", moe=True),
    "moe-list": _both(  # names of transformers 4, which PEFT turns into parameters of twice the rank where two are fused
        _lora(target_modules=["q_proj", *_MLP]), arch="qwen3_moe", moe=True, warns=(_RANKS, _ALPHAS)
    ),
    "moe-all-linear": _both(_lora(target_modules="all-linear"), arch="mixtral", moe=True, warns=(_RANKS, _ALPHAS)),
    "moe-rank-pattern": _both(
        _lora(**_EXPERTS, rank_pattern={"experts.down_proj": 2}), arch="qwen3_moe", moe=True, warns=(_RANKS,)
    ),
    "moe-one-parameter": _both(_lora(**{**_EXPERTS, "target_parameters": ["experts.down_proj"]}), arch="mixtral", moe=True),
    "moe-transformers-4": _both(
        _lora(target_modules=["q_proj", "w1", "w2", "w3"]), arch="mixtral", moe=True, by_hand=True, warns=(_RANKS, _ALPHAS)
    ),
    "moe-attention": _both(_lora(), arch="mixtral", moe=True),
    # Other methods of PEFT
    "adalora": _both(_other("AdaLoraConfig", init_r=6, target_r=3, lora_alpha=8, total_step=12, tinit=1, tfinal=4), warns=(_RANKS,)),
    "adalora-untrained": _both(_other("AdaLoraConfig", init_r=6, target_r=3, lora_alpha=8, total_step=12)),
    "trainable-tokens": _both(_other("TrainableTokensConfig", target_modules=["embed_tokens"], token_indices=[3, 9]), fold_only=True, tokens=True),
    "loha": _both(_other("LoHaConfig", r=4, alpha=8), fold_only=True),
    "lokr": _both(_other("LoKrConfig", r=4, alpha=8), fold_only=True),
    "ia3": _both(_other("IA3Config", target_modules=[*_QV, "down_proj"], feedforward_modules=["down_proj"]), fold_only=True),
    "oft": _both(_other("OFTConfig", oft_block_size=8), fold_only=True),
    "boft": _both(_other("BOFTConfig", boft_block_size=4), fold_only=True, warns=("Setting boft_n_butterfly_factor to 1",)),
    "vera": _both(_other("VeraConfig", target_modules=["q_proj", "o_proj"], r=8), fold_only=True),
    "hra": _both(_other("HRAConfig", r=4), fold_only=True),
}  # fmt: skip


REFUSED: Mapping[str, Kind] = {
    # Adapters that PEFT writes and no soup can be made of: by chance, by tokens, by routes, by missing places
    "pissa-niter": _both(_lora(init_lora_weights="pissa_niter_4"), init_mutates_base=True),
    "layer-replication": _both(_lora(layer_replication=[(0, 2), (1, 2)])),
    "alora": _both(_lora(alora_invocation_tokens=[5, 6])),
    "kasa": _both(_lora(kasa_config=peft.KasaConfig())),
    "bdlora": _both(_lora(use_bdlora=peft.tuners.lora.config.BdLoraConfig(target_modules_bd_b=_QV, nblocks=2))),
    "lora-bias-nowhere": _both(_lora(lora_bias=True), warns=(_SHARDS, _NOWHERE)),
    "conv-groups": _both(_lora(target_modules=["grouped"], task_type=None), arch="conv", warns=(_GROUPS,)),
    "resized-half": _both(_lora(target_modules=[*_QV, "embed_tokens"]), vocabulary=70, warns=(_EMBEDDINGS,)),
    "prompt-tuning": _both(lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)),
}  # fmt: skip
"""Adapters to be refused by name; only `lora-bias-nowhere` and `conv-groups` can be told from others by their base."""


# --- Making them ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """A base and the adapters that were trained on it, on disk."""

    kind: Kind
    base: Path
    adapters: tuple[Path, ...]


@contextlib.contextmanager
def expected_warnings(*beginnings: str) -> Iterator[None]:
    """Let only the warnings pass in silence whose texts begin so; any other becomes an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for beginning in (*_FOREIGN, *beginnings):
            warnings.filterwarnings("ignore", message=re.escape(beginning))
        yield


def opened(base: Path, dtype: torch.dtype | None = torch.float64) -> torch.nn.Module:
    """The base as its library opens it, ready to be asked; None keeps the dtype it is stored in."""
    config = base / "config.json"
    if not config.exists():
        weights = load_file(base / "model.safetensors")
        stored = next(iter(weights.values())).dtype
        plain = Plain().to(dtype or stored)
        plain.load_state_dict(weights)
        return plain.eval()
    cls = getattr(transformers, json.loads(config.read_text())["architectures"][0])
    model, info = cls.from_pretrained(
        base, dtype=dtype or "auto", output_loading_info=True, experts_implementation="eager"
    )  # the other ways to run experts know no float64
    assert not any(info.values()), info
    return model.eval()  # type: ignore[no-any-return]


def _mutates(config: peft.PeftConfig) -> bool:
    """Whether attaching such an adapter changes the base."""
    return str(getattr(config, "init_lora_weights", "")).lower().startswith(("pissa", "olora"))


def _linear_part(layer: torch.nn.Module) -> torch.Tensor | None:
    """The trained part of a layer's adapter that its change of the weight is proportional to."""
    for name in (
        "lora_E",
        "lora_embedding_B",
        "lora_B",
        "hada_w2_b",
        "lokr_w2_b",
        "lokr_w2",
        "vera_lambda_b",
    ):
        parts = getattr(layer, name, {})
        if DEFAULT in parts:
            part = parts[DEFAULT]
            return part.weight if isinstance(part, torch.nn.Module) else part  # type: ignore[no-any-return]
    return None


def _move(model: peft.PeftModel, generator: torch.Generator) -> None:
    """Give every trained parameter a value as training might: no factor stays zero."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                size = weight.double().square().mean().sqrt().item()
                noise = torch.randn(weight.shape, generator=generator).to(weight.dtype)
                weight.add_(noise * (0.1 * size if size else 0.01))


def _size(model: peft.PeftModel, generator: torch.Generator) -> None:
    """Scale the change of every adapted weight to between 5 and 20 % of it."""
    with torch.no_grad():
        for layer in model.modules():
            part = _linear_part(layer)
            if part is not None and getattr(layer.get_base_layer(), "groups", 1) == 1:
                get = getattr(layer, "get_param", None)
                weight = get() if get else layer.get_base_layer().weight
                share = layer.get_delta_weight(DEFAULT).double().norm() / weight.double().norm()
                wanted = 0.05 + 0.15 * torch.rand((), generator=generator).item()
                part.mul_(wanted / share.item())


def _allocate(model: peft.PeftModel, generator: torch.Generator) -> None:
    """Steps of training with AdaLoRA's own allocator, until it has dropped ranks."""
    config = model.peft_config[DEFAULT]
    for step in range(config.total_step):
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                weight.grad = torch.randn(weight.shape, generator=generator)
                if "lora_E" in name and not step:
                    weight.data.copy_(torch.randn(weight.shape, generator=generator))
        model.base_model.update_and_allocate(step)
    model.zero_grad()


def trained(kind: Kind, number: int, base: Path, seed: int = 0) -> peft.PeftModel:
    """A model with adapter `number` of a kind, trained in name only, as it stands when training ends."""
    torch.manual_seed(1000 * seed + number)
    generator = torch.Generator().manual_seed(1000 * seed + number)
    with expected_warnings(*kind.warns):
        model = opened(base, None)
        if kind.vocabulary:
            model.resize_token_embeddings(kind.vocabulary, mean_resizing=False)
        adapted = peft.get_peft_model(model, kind.configs[number]())
        config = adapted.peft_config[DEFAULT]
        _move(adapted, generator)
        if isinstance(config, peft.AdaLoraConfig) and config.tfinal:
            _allocate(adapted, generator)
        if not _mutates(config) and not getattr(config, "use_bdlora", None):
            _size(adapted, generator)
        if kind.factor_dtype:
            for weight in adapted.parameters():
                if weight.requires_grad:
                    weight.data = weight.data.to(kind.factor_dtype)
        return adapted.eval()


def train(folder: Path, kind: Kind, number: int, base: Path, seed: int = 0) -> Path:
    """Adapter `number` of a kind as PEFT saves it."""
    if kind.by_hand:
        return _as_transformers_4(folder, kind, number, base, seed)
    with expected_warnings(*kind.warns):
        trained(kind, number, base, seed).save_pretrained(str(folder))
    return folder


def _as_transformers_4(folder: Path, kind: Kind, number: int, base: Path, seed: int) -> Path:
    """An adapter of a mixture of experts as it was written when every expert was a module of its own."""
    generator = torch.Generator().manual_seed(1000 * seed + number)
    config = kind.configs[number]()
    tensors: Tensors = {}
    for name, weight in load_file(base / "model.safetensors").items():
        module = name.removesuffix(".weight")
        if module.rpartition(".")[2] in config.target_modules:
            first = torch.randn(config.r, weight.shape[1], generator=generator)
            second = torch.randn(weight.shape[0], config.r, generator=generator)
            share = (second @ first).norm() * config.lora_alpha / config.r / weight.norm()
            tensors[f"base_model.model.{module}.lora_A.weight"] = first
            tensors[f"base_model.model.{module}.lora_B.weight"] = second * (0.1 / share)
    config.base_model_name_or_path, config.inference_mode = str(base), True
    config.save_pretrained(str(folder))
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "README.md").write_text("An adapter as it was written for transformers 4.\n")
    return folder


def make(name: str, folder: Path, seed: int = 0) -> Made:
    """A kind's base and adapters below `folder`; what an earlier call made there is used again."""
    kind = {**KINDS, **REFUSED}[name]
    short = str(kind.base_dtype).removeprefix("torch.")
    base = folder / "bases" / f"{kind.arch}-{short}"
    if not base.exists():
        make_base(base, kind.arch, dtype=kind.base_dtype)
    adapters = []
    for number in range(len(kind.configs)):
        adapter = folder / f"{name}-{seed}" / ("one", "two", "three", "four")[number]
        if not adapter.exists():
            train(adapter, kind, number, base, seed)
        adapters.append(adapter)
    return Made(kind, base, tuple(adapters))


def edited(
    adapter: Path,
    folder: Path,
    config: Mapping[str, object] | None = None,
    tensors: Callable[[Tensors], object] | None = None,
) -> Path:
    """A copy of an adapter with other settings (`...` takes one out), and with `tensors` applied to its tensors."""
    shutil.copytree(adapter, folder)
    found = {**json.loads((folder / "adapter_config.json").read_text()), **(config or {})}
    kept = {key: value for key, value in found.items() if value is not ...}
    (folder / "adapter_config.json").write_text(json.dumps(kept))
    if tensors is not None:
        stored = load_file(folder / "adapter_model.safetensors")
        tensors(stored)
        save_file(stored, folder / "adapter_model.safetensors", {"format": "pt"})
    return folder


# --- The oracle: dense, float64, by PEFT's own merge of one adapter ---------------------------------------------


def load_adapter_strictly(base: Path, adapter: Path, *allowed: str) -> peft.PeftModel:
    """The base with an adapter attached by PEFT, in float64; any key left over, any key missing, any warning fails.

    `allowed` are the beginnings of the warnings that may pass. A base whose embeddings are tied is untied first, so
    that what the adapter does to one side stays on that side when it is merged, as in the live model.
    """
    with expected_warnings(*allowed):
        config = peft.PeftConfig.from_pretrained(str(adapter))
        mutates = _mutates(config)
        model = opened(base, None if mutates else torch.float64)  # PiSSA and OLoRA refuse float64
        _untie(model)
        _resize(model, load_file(adapter / "adapter_model.safetensors"))
        results = []

        def watched(*arguments: object, **more: object) -> object:
            results.append(set_peft_model_state_dict(*arguments, **more))
            return results[-1]

        with mock.patch("peft.peft_model.set_peft_model_state_dict", watched):
            adapted = peft.PeftModel.from_pretrained(model, str(adapter), autocast_adapter_dtype=mutates)
        (result,) = results
        missing = [key for key in result.missing_keys if DEFAULT in key.split(".") and "ranknum" not in key]
        assert not result.unexpected_keys, f"keys nobody asked for: {result.unexpected_keys}"
        assert not missing, f"keys not in the file: {missing}"
        return adapted.double().eval()


def _untie(model: torch.nn.Module) -> None:
    """Give the output embeddings a tensor of their own."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is not None and head.weight is model.get_input_embeddings().weight:
        head.weight = torch.nn.Parameter(head.weight.detach().clone())


def _resize(model: torch.nn.Module, stored: Tensors) -> None:
    """Give the embeddings the size of those that the adapter brings whole."""
    for name, value in stored.items():
        if re.search(r"embed_tokens(\.base_layer)?\.weight$", name) and len(value) != model.config.vocab_size:
            model.resize_token_embeddings(len(value), mean_resizing=False)
            return


_UNTIED = (  # what PEFT says of a merge into a model whose configuration still ties what `_untie` has parted
    "Input and output embeddings are no longer tied after merging.",
    "Model with `tie_word_embeddings=True` and the tied_target_modules=",
)


def base_weights(base: Path) -> Tensors:
    """The base's tensors under the names of its file, in float64."""
    return {name: value.double() for name, value in load_file(base / "model.safetensors").items()}


def _as_stored(model: torch.nn.Module, base: Path) -> Tensors:
    """The model's weights under the names a file has; an output embedding is there only if it differs."""
    weights = {name: value.detach() for name, value in model.state_dict().items()}
    if isinstance(model, transformers.PreTrainedModel):
        weights = revert_weight_conversion(model, weights)
    known = load_file(base / "model.safetensors")
    extra = set(weights) - set(known)
    assert extra <= {"lm_head.weight"}, extra
    assert set(known) <= set(weights), set(known) - set(weights)
    if extra and any(torch.equal(weights["lm_head.weight"], weights[name]) for name in known):
        del weights["lm_head.weight"]
    return {name: value.double().clone() for name, value in weights.items()}


def adapted_weights(base: Path, adapter: Path, *allowed: str) -> Tensors:
    """The base's weights after PEFT has merged one adapter into them: float64, the base's own names."""
    with expected_warnings(*allowed, *_UNTIED):
        return _as_stored(load_adapter_strictly(base, adapter, *allowed).merge_and_unload(), base)


def soup_weights(base: Path, adapters: Sequence[Path], lambdas: Sequence[float], *allowed: str) -> Tensors:
    """W0 + Σ λ (W − W0), dense in float64; rows that a resized vocabulary adds are Σ λ W, and need Σ λ = 1."""
    start = base_weights(base)
    merged = [adapted_weights(base, adapter, *allowed) for adapter in adapters]
    for name in {name for weights in merged for name in weights} - set(start):
        start[name] = start[tied_to(name, start)]
    soup: Tensors = {}
    for name, origin in start.items():
        values = [weights[name] if name in weights else weights[tied_to(name, weights)] for weights in merged]
        grown = len(values[0]) - len(origin) if origin.dim() else 0
        if grown:
            assert math.isclose(math.fsum(lambdas), 1.0), "new rows have no base to start from"
        zero = torch.zeros(grown, *origin.shape[1:], dtype=origin.dtype)
        full = torch.cat([origin, zero]) if grown else origin
        moves = (factor * (value - full) for factor, value in zip(lambdas, values, strict=True))
        soup[name] = full + sum(moves)
    return soup


def tied_to(name: str, weights: Tensors) -> str:
    """The input embedding that an output embedding without a tensor of its own shares."""
    assert name == "lm_head.weight", name
    (embedding,) = (known for known in weights if known.endswith(("embed_tokens.weight", "wte.weight")))
    return embedding


def rebuilt(base: Path, weights: Tensors) -> torch.nn.Module:
    """The base's architecture with other weights under its file's names, in float64."""
    if not (base / "config.json").exists():
        plain = Plain().double()
        plain.load_state_dict(weights)
        return plain.eval()
    config = transformers.AutoConfig.from_pretrained(base)
    embedding = next(
        value
        for name, value in weights.items()
        if re.search(r"(embed_tokens|wte|word_embeddings)\.weight$", name)
    )
    config.vocab_size = len(embedding)
    if "lm_head.weight" in weights:
        config.tie_word_embeddings = False
    cls = getattr(transformers, config.architectures[0])
    model, info = cls.from_pretrained(
        None, config=config, state_dict=dict(weights), dtype=torch.float64, output_loading_info=True,
        experts_implementation="eager",
    )  # fmt: skip
    assert not any(info.values()), info
    return model.eval()  # type: ignore[no-any-return]


def logits(model: torch.nn.Module, vocabulary: int = 64) -> torch.Tensor:
    """The model's answer, in float64, to one fixed batch; a causal model is shown every token of the vocabulary.

    Of a resized vocabulary only the tokens that the base knows are asked about.
    """
    generator = torch.Generator().manual_seed(7)
    core = model.get_base_model() if isinstance(model, peft.PeftModel) else model
    with torch.no_grad():
        if isinstance(core, Plain):
            pixels = torch.randn(4, 3, 8, 8, generator=generator, dtype=torch.float64)
            return model(pixels.to(core.last.weight.dtype)).double()  # type: ignore[no-any-return]
        tokens = torch.randperm(vocabulary, generator=generator).reshape(4, -1)
        return model(input_ids=tokens).logits[..., :vocabulary].double()  # type: ignore[no-any-return]


def logit_error(model: torch.nn.Module, reference: Tensors, base: Path) -> float:
    """How far a model's logits are from the reference weights' logits, as a share of how far those moved."""
    wanted = logits(rebuilt(base, reference))
    return ((logits(model) - wanted).norm() / (wanted - logits(opened(base))).norm()).item()


# --- An adapter that TRL has trained ----------------------------------------------------------------------------

_WORDS = ("[PAD]", "[BOS]", "[EOS]", "[UNK]", *(f"w{number}" for number in range(60)))


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A tokenizer of 64 words that needs no download: three of them special, in the places the bases expect."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(_WORDS)}, unk_token="[UNK]")
    )
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", bos_token="[BOS]", eos_token="[EOS]", unk_token="[UNK]"
    )


def train_with_trl(folder: Path, base: Path, seed: int = 0, **config: object) -> Path:
    """A LoRA adapter that TRL's SFTTrainer has trained for a few steps, saved as the trainer saves it."""
    import datasets
    import trl

    datasets.disable_progress_bars()
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(0, 60, (8, 12), generator=generator).tolist()
    rows = datasets.Dataset.from_dict({"text": [" ".join(f"w{number}" for number in row) for row in numbers]})
    arguments = trl.SFTConfig(
        output_dir=str(folder), max_steps=3, per_device_train_batch_size=4, learning_rate=0.01, report_to=[], seed=seed,
        save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=True, bf16=False, gradient_checkpointing=None, activation_checkpointing=False,
    )  # fmt: skip
    settings = {"r": 4, "lora_alpha": 8, "target_modules": [*_QV, "up_proj"], "lora_dropout": 0.05}
    with expected_warnings():
        trainer = trl.SFTTrainer(
            model=opened(base, None), args=arguments, train_dataset=rows, processing_class=tokenizer(),
            peft_config=peft.LoraConfig(**{**settings, **config}, task_type="CAUSAL_LM"),
        )  # fmt: skip
        trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
        trainer.train()
        trainer.save_model()
    return folder
