"""Tiny models of many architectures, made from their configuration: random weights, no downloads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()

TEXT: Mapping[str, object] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 64, "max_position_embeddings": 64, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
VISION: Mapping[str, object] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 16,
    "patch_size": 8,
}  # fmt: skip
SEQ2SEQ: Mapping[str, object] = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 3,
}  # fmt: skip

ZOO: Mapping[str, tuple[str, str, Mapping[str, object]]] = {
    # name → (class, model type, configuration)
    **{
        kind: ("AutoModelForCausalLM", kind, TEXT)
        for kind in ("llama", "mistral", "qwen2", "gemma", "gemma2", "phi", "phi3", "olmo2", "granite", "starcoder2",
                     "stablelm", "cohere", "gpt_neox")
    },
    "llama, biases": ("AutoModelForCausalLM", "llama", {**TEXT, "attention_bias": True, "mlp_bias": True}),
    "llama, tied": ("AutoModelForCausalLM", "llama", {**TEXT, "tie_word_embeddings": True}),
    "qwen3": ("AutoModelForCausalLM", "qwen3", {**TEXT, "head_dim": 8}),
    "gemma3": ("AutoModelForCausalLM", "gemma3_text", {**TEXT, "head_dim": 8}),
    "mixtral": ("AutoModelForCausalLM", "mixtral", {**TEXT, "num_local_experts": 4}),
    "qwen3_moe": (
        "AutoModelForCausalLM", "qwen3_moe",
        {**TEXT, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8},
    ),
    "gpt_oss": (
        "AutoModelForCausalLM", "gpt_oss",
        {**TEXT, "num_local_experts": 4, "head_dim": 8, "num_experts_per_tok": 2, "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}},
    ),
    "deepseek_v3": (
        "AutoModelForCausalLM", "deepseek_v3",
        {**TEXT, "num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 2,
         "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8,
         "v_head_dim": 8, "qk_nope_head_dim": 8},
    ),
    "gpt2": (
        "AutoModelForCausalLM", "gpt2",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2},
    ),
    "opt": (
        "AutoModelForCausalLM", "opt",
        {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64,
         "max_position_embeddings": 64, "word_embed_proj_dim": 32},
    ),
    "bloom": ("AutoModelForCausalLM", "bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64}),
    "mamba": ("AutoModelForCausalLM", "mamba", {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 64, "state_size": 4}),
    "mamba2": (
        "AutoModelForCausalLM", "mamba2",
        {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 64, "state_size": 4, "num_heads": 8, "head_dim": 8, "n_groups": 2},
    ),
    "rwkv": ("AutoModelForCausalLM", "rwkv", {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 64, "attention_hidden_size": 32}),
    "bert": ("AutoModelForMaskedLM", "bert", TEXT),
    "roberta, labels": ("AutoModelForSequenceClassification", "roberta", {**TEXT, "num_labels": 3}),
    "t5": (
        "AutoModelForSeq2SeqLM", "t5",
        {"d_model": 32, "d_ff": 48, "num_layers": 2, "num_heads": 4, "d_kv": 8, "vocab_size": 64, "decoder_start_token_id": 0},
    ),
    "bart": ("AutoModelForSeq2SeqLM", "bart", {**SEQ2SEQ, "max_position_embeddings": 64}),
    "vit": ("AutoModelForImageClassification", "vit", VISION),
    "swinv2": ("AutoModel", "swinv2", {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}),
    "resnet": ("AutoModel", "resnet", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}),
    "clip": (
        "AutoModel", "clip",
        {"text_config": {**TEXT, "projection_dim": 16}, "vision_config": {**VISION, "projection_dim": 16}, "projection_dim": 16},
    ),
    "whisper": (
        "AutoModelForSpeechSeq2Seq", "whisper",
        {**SEQ2SEQ, "max_source_positions": 32, "max_target_positions": 32, "num_mel_bins": 8, "suppress_tokens": None, "begin_suppress_tokens": None},
    ),
    "llava": (
        "AutoModelForImageTextToText", "llava",
        {"text_config": {**TEXT, "model_type": "llama"}, "vision_config": {**VISION, "model_type": "clip_vision_model"},
         "image_token_index": 5},
    ),
}  # fmt: skip


def born(name: str, seed: int = 0, **more: object) -> transformers.PreTrainedModel:
    """A model of the zoo with random weights in float32, ready to be asked."""
    loader, kind, settings = ZOO[name]
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(kind, **{**settings, **more})
    return getattr(transformers, loader).from_config(config).eval()  # type: ignore[no-any-return]


def nudged(
    model: transformers.PreTrainedModel, seed: int, dtype: torch.dtype = torch.float32
) -> transformers.PreTrainedModel:
    """The model with every weight moved a little, as fine-tuning would, stored as `dtype`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.01)
    return model.to(dtype)


def reopened(folder: Path, name: str) -> transformers.PreTrainedModel:
    """The model in `folder` as transformers opens it; nothing may be missing, unexpected or of another shape."""
    model, info = getattr(transformers, ZOO[name][0]).from_pretrained(
        folder, output_loading_info=True, dtype="auto"
    )
    assert not any(info.values()), info
    return model.eval()  # type: ignore[no-any-return]


def asked(model: transformers.PreTrainedModel) -> torch.Tensor:
    """The model's answer to one fixed input of its kind."""
    ids = {"input_ids": torch.tensor([[1, 7, 42, 13, 3]])}
    noise = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    kind = model.config.model_type
    inputs: dict[str, torch.Tensor] = ids
    if kind in ("t5", "bart"):
        inputs = ids | {"decoder_input_ids": torch.tensor([[0, 9, 5]])}
    elif kind == "vit":
        inputs = {"pixel_values": noise.to(model.dtype)}
    elif kind == "whisper":
        sound = torch.randn(1, 8, 64, generator=torch.Generator().manual_seed(0))
        inputs = {"input_features": sound.to(model.dtype), "decoder_input_ids": torch.tensor([[3, 9, 5]])}
    with torch.no_grad():
        return model(**inputs).logits  # type: ignore[no-any-return]
