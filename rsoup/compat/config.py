"""config.json → mismatches: do these checkpoints mean the same thing by their weights? Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from rsoup.compat.headers import Mismatch
from rsoup.errors import show

_COSMETIC = frozenset(
    {
        "_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "_commit_hash", "finetuning_task",
        "task_specific_params", "auto_map", "_attn_implementation", "_attn_implementation_internal", "attn_implementation",
        "_experts_implementation", "_experts_implementation_internal", "problem_type", "unsloth_version", "unsloth_fixed",
        "output_attentions", "output_hidden_states", "return_dict", "gradient_checkpointing", "attention_dropout",
        "hidden_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob", "resid_pdrop", "embd_pdrop", "attn_pdrop",
        "dropout", "dropout_rate", "classifier_dropout", "summary_first_dropout", "activation_dropout", "layerdrop",
        "encoder_layerdrop", "decoder_layerdrop", "initializer_range", "initializer_factor", "init_std",
        "router_aux_loss_coef", "router_z_loss_coef", "router_jitter_noise", "output_router_logits", "aux_loss_alpha",
        "_diffusers_version", "generation_config", "pretraining_tp", "tokenizer_class", "processor_class",
        "model_max_length", "chunk_size_feed_forward", "transformers.js_config",
    }
)  # fmt: skip
_SEMANTIC = re.compile(
    r"^(?:model_type|architectures|is_decoder|is_encoder_decoder|add_cross_attention|tie_word_embeddings|tie_encoder_decoder|"
    r"vocab_size|type_vocab_size|rope_.*|partial_rotary_factor|rotary_.*|max_position_embeddings|n_positions|n_ctx|"
    r"position_embedding_type|relative_attention_.*|rel_pos.*|hidden_size|hidden_dim|d_model|d_ff|d_kv|n_embd|n_inner|embedding_size|"
    r"(?:.*_)?intermediate_size|ffn_dim|(?:encoder|decoder)_ffn_dim|head_dim|num_.*heads|n_heads?|(?:encoder|decoder)_attention_heads|"
    r"num_(?:hidden_|encoder_|decoder_)?layers|n_layers?|(?:encoder|decoder)_layers|.*num_experts.*|num_local_experts|"
    r"n_(?:routed|shared)_experts|moe_.*|decoder_sparse_step|mlp_only_layers|norm_topk_prob|scoring_func|topk_.*|n_group|"
    r"routed_scaling_factor|swiglu_limit|hidden_act|hidden_activation|activation_function|feed_forward_proj|dense_act_fn|"
    r"activation|.*norm_eps(?:ilon)?|layer_?norm_.*|rms_norm_.*|norm_.*|do_layer_norm_before|.*softcap(?:ping)?|"
    r"query_pre_attn_scalar|attention_multiplier|.*_multiplier|logit_scale.*|logits_scaling|scale_.*|embedding_multiplier|"
    r"_?sliding_window.*|use_sliding_window|max_window_layers|attention_window|layer_types|no_rope_layers?.*|attention_bias|mlp_bias|"
    r"(?:qkv|qk|attention|add_qkv)_.*|use_qk_norm|use_bias|use_conv_bias|bias|alibi|parallel_attn|new_decoder_architecture|"
    r"use_parallel_residual|state_size|conv_kernel|time_step_.*|image_size|patch_size|num_channels|sampling_rate|num_mel_bins|"
    r"swiglu_.*|window_size|pooler_act|.*_hidden_act|feat_extract_.*|mamba_.*|ssm_.*|use_bidirectional_attention|vision_feature_.*|"
    r"image_token_.*|original_max_position_embeddings|mlp_ratios?|is_gated_act|do_stable_layer_norm|enable_bias|layer_type|"
    r"apply_residual_connection_post_layernorm|_remove_final_layer_norm|use_absolute_embeddings|expand|n_groups|"
    r".*conv_.*|in_channels|out_channels|sample_size|block_out_channels|cross_attention_dim|norm_num_groups|_class_name|pooling.*|"
    r"policy_class|policy_kwargs|observation_space|action_space|use_sde|"
    r"prediction_type|beta_.*|num_train_timesteps|rescale_betas_zero_snr|trained_betas)$"
)
_TRAINING = re.compile(r".*(?:dropout|_loss.*|_init.*|initializer.*)$")
_NULL_IS_OFF = re.compile(
    r"^(?:rope_scaling|sliding_window|attention_chunk_size|.*softcap(?:ping)?|logit_scale)$"
)
_LENGTHS = frozenset({"max_position_embeddings", "n_positions", "n_ctx"})
_SUBCONFIG_LIMIT = 4
_OFF = "none"


def flat_config(config: Mapping[str, object]) -> dict[str, object]:
    """Dotted key → value, with what has two spellings written one way.

    transformers 5 stores `rope_parameters`, 4 stored `rope_theta` and `rope_scaling`; a sliding window that
    `use_sliding_window` switches off is off, whatever its size; nothing is as good as off.
    """
    flat: dict[str, object] = {}
    _flatten(config, "", flat, 0)
    return flat


def _flatten(config: Mapping[str, object], prefix: str, flat: dict[str, object], depth: int) -> None:
    unused = ("sliding_window", "max_window_layers") if config.get("use_sliding_window") is False else ()
    for key, value in config.items():
        if key == "rope_parameters" and isinstance(value, dict) and "rope_theta" in value:
            flat[f"{prefix}rope_theta"] = value["rope_theta"]
            flat[f"{prefix}rope_scaling"] = _rope({k: v for k, v in value.items() if k != "rope_theta"})
        elif (
            key == "rope_parameters"
            and isinstance(value, dict)
            and isinstance(value.get("full_attention"), dict)
        ):
            full, local = value["full_attention"], value.get("sliding_attention")
            flat[f"{prefix}rope_theta"] = full.get("rope_theta")
            flat[f"{prefix}rope_scaling"] = _rope({k: v for k, v in full.items() if k != "rope_theta"})
            flat[f"{prefix}rope_local_base_freq"] = (
                local.get("rope_theta") if isinstance(local, dict) else _OFF
            )
        elif key == "rope_scaling":
            flat[f"{prefix}rope_scaling"] = _rope(value if isinstance(value, dict) else {})
        elif key in unused:
            flat[f"{prefix}{key}"] = _OFF
        elif isinstance(value, dict) and key.endswith("_config") and depth < _SUBCONFIG_LIMIT:
            _flatten(value, f"{prefix}{key}.", flat, depth + 1)
        elif value is not None:
            flat[f"{prefix}{key}"] = value
        elif _NULL_IS_OFF.match(key):
            flat[f"{prefix}{key}"] = _OFF


def _rope(value: Mapping[str, object]) -> object:
    kind = value.get("rope_type", value.get("type", "default"))
    rest = {key: item for key, item in value.items() if key not in ("rope_type", "type") and item is not None}
    return _OFF if kind == "default" and not rest else {"rope_type": kind, **rest}


def compare_configs(
    configs: Mapping[str, Mapping[str, object] | None], ignored: frozenset[str] = frozenset()
) -> tuple[list[Mismatch], list[str]]:
    """(mismatches, notes) between the config.json of checkpoints (name → parsed, None where there is none).

    Keys that change what the weights mean are mismatches, the others notes; cosmetic keys are neither. A
    meaningful key that only one side writes is a note: configs leave out what equals their class's default.
    """
    present = {name: flat_config(config) for name, config in configs.items() if config is not None}
    notes = []
    if present and (absent := [name for name in configs if name not in present]):
        notes.append(
            f"no config.json in {', '.join(repr(show(name)) for name in absent)}: only tensors were compared"
        )
    found: list[Mismatch] = []
    if len(present) < 2:
        return found, notes
    first, *rest = present
    for name in rest:
        one, other = present[first], present[name]
        for key in dict.fromkeys([*one, *other]):
            leaf = key.rpartition(".")[2]
            if leaf in _COSMETIC | ignored or _TRAINING.match(leaf) or _same(one.get(key), other.get(key)):
                continue
            if key in one and key in other:
                says = f"{show(key)} is {show(one[key])} in '{show(first)}' and {show(other[key])} in '{show(name)}'"
                if _means(leaf, one[key], other[key], key, one, other):
                    found.append(Mismatch("config", says))
                    continue
            else:
                has, lacks = (first, name) if key in one else (name, first)
                says = f"{show(key)} is {show(present[has][key])} in '{show(has)}' and not given in '{show(lacks)}'"
            notes.append(f"config.json: {says}")
    return found, notes


def _means(
    leaf: str, a: object, b: object, key: str, one: Mapping[str, object], other: Mapping[str, object]
) -> bool:
    """Whether weights trained under a and under b are different things."""
    if leaf in ("id2label", "label2id"):
        return _permuted(a, b)
    if leaf in _LENGTHS:
        scaling = f"{key.rpartition('.')[0]}.rope_scaling".lstrip(".")
        return any(config.get(scaling, _OFF) != _OFF for config in (one, other))
    return _SEMANTIC.match(leaf) is not None


def _permuted(a: object, b: object) -> bool:
    """The same labels under other numbers: rows of the head would be mixed across labels."""
    if not isinstance(a, Mapping) or not isinstance(b, Mapping):
        return False
    pairs_a, pairs_b = ({(str(k), str(v)) for k, v in mapping.items()} for mapping in (a, b))
    return bool(
        pairs_a != pairs_b and all({p[i] for p in pairs_a} == {p[i] for p in pairs_b} for i in (0, 1))
    )


def _same(one: object, other: object) -> bool:
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    return one == other
