"""config.json and tokenizers → mismatches: do these checkpoints mean the same thing? Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from rsoup.compat import Mismatch
from rsoup.errors import show

_COSMETIC = frozenset(
    {
        "_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "_commit_hash", "finetuning_task",
        "task_specific_params", "auto_map", "_attn_implementation", "_attn_implementation_internal", "attn_implementation",
        "id2label", "label2id", "problem_type", "unsloth_version", "unsloth_fixed", "output_attentions", "output_hidden_states",
        "return_dict", "gradient_checkpointing", "attention_dropout", "hidden_dropout", "hidden_dropout_prob",
        "attention_probs_dropout_prob", "resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout", "classifier_dropout",
        "activation_dropout", "layerdrop", "initializer_range", "initializer_factor", "router_aux_loss_coef", "output_router_logits",
        "_diffusers_version", "architectures_note", "generation_config",
        "tokenizer_class", "processor_class", "model_max_length", "chunk_size_feed_forward", "transformers.js_config",
    }
)  # fmt: skip
_SEMANTIC = re.compile(
    r"^(model_type|architectures|is_decoder|is_encoder_decoder|add_cross_attention|tie_word_embeddings|vocab_size|type_vocab_size|"
    r"rope_.*|partial_rotary_factor|rotary_.*|max_position_embeddings|n_positions|n_ctx|position_embedding_type|relative_attention_.*|"
    r"hidden_size|hidden_dim|d_model|d_ff|d_kv|n_embd|n_inner|intermediate_size|head_dim|num_.*heads|n_head|num_hidden_layers|num_layers|n_layer|"
    r".*num_experts.*|num_local_experts|n_routed_experts|moe_.*|norm_topk_prob|scoring_func|topk_.*|routed_scaling_factor|"
    r"hidden_act|hidden_activation|activation_function|feed_forward_proj|activation|.*norm_eps|layer_norm_.*|rms_norm_.*|norm_.*|"
    r".*softcap.*|.*softcapping|query_pre_attn_scalar|attention_multiplier|.*_multiplier|logit_scale|logits_scaling|scale_.*|"
    r"sliding_window.*|use_sliding_window|max_window_layers|layer_types|no_rope_layers|attention_bias|mlp_bias|qkv_bias|use_qk_norm|qk_.*|alibi|"
    r"parallel_attn|use_parallel_residual|image_size|patch_size|num_channels|sampling_rate|num_mel_bins|.*conv_.*|"
    r"in_channels|out_channels|sample_size|block_out_channels|cross_attention_dim|attention_head_dim|norm_num_groups|_class_name|pooling.*)$"
)
_SUBCONFIG_LIMIT = 4


def flat_config(config: Mapping[str, object]) -> dict[str, object]:
    """Dotted key → value, with rope written the one way: `rope_theta` and the rest of the scaling.

    transformers 5 stores `rope_parameters`, 4 stored `rope_theta` and `rope_scaling`; they mean the same.
    """
    flat: dict[str, object] = {}
    _flatten(config, "", flat, 0)
    return flat


def _flatten(config: Mapping[str, object], prefix: str, flat: dict[str, object], depth: int) -> None:
    for key, value in config.items():
        if key == "rope_parameters" and isinstance(value, dict) and "rope_theta" in value:
            rest = {
                k: v
                for k, v in value.items()
                if k not in ("rope_theta",) and not (k in ("rope_type", "type") and v == "default")
            }
            flat[f"{prefix}rope_theta"] = value["rope_theta"]
            if rest:
                flat[f"{prefix}rope_scaling"] = _rope(rest)
        elif key == "rope_scaling":
            if isinstance(value, dict) and value.get("rope_type", value.get("type")) != "default":
                flat[f"{prefix}rope_scaling"] = _rope(value)
        elif isinstance(value, dict) and key.endswith("_config") and depth < _SUBCONFIG_LIMIT:
            _flatten(value, f"{prefix}{key}.", flat, depth + 1)
        else:
            flat[f"{prefix}{key}"] = value


def _rope(value: Mapping[str, object]) -> dict[str, object]:
    return {
        ("rope_type" if key == "type" else key): item
        for key, item in value.items()
        if not (key == "type" and "rope_type" in value)
    }


def compare_configs(configs: Mapping[str, Mapping[str, object] | None]) -> tuple[list[Mismatch], list[str]]:
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
    if len(present) < 2:
        return [], notes
    first, *rest = present
    found: list[Mismatch] = []
    for name in rest:
        for key in dict.fromkeys([*present[first], *present[name]]):
            leaf = key.rpartition(".")[2]
            if leaf in _COSMETIC:
                continue
            one, other = present[first].get(key), present[name].get(key)
            if _same(one, other):
                continue
            says = f"{show(key)} is {show(one)} in '{show(first)}' and {show(other)} in '{show(name)}'"
            if _SEMANTIC.match(leaf) and one is not None and other is not None:
                found.append(Mismatch("config", says))
            else:
                notes.append(f"config.json: {says}")
    return found, notes


def _same(one: object, other: object) -> bool:
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    return one == other


def tokenizer_vocabulary(tokenizer: object) -> dict[int, str] | None:
    """id → token of a parsed tokenizer.json, its added tokens included; None where it has no vocabulary."""
    if not isinstance(tokenizer, dict):
        return None
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    tokens: dict[int, str] = {}
    if isinstance(vocabulary, dict):
        tokens = {number: str(token) for token, number in vocabulary.items() if isinstance(number, int)}
    elif isinstance(vocabulary, list):
        tokens = {
            number: str(row[0]) for number, row in enumerate(vocabulary) if isinstance(row, list) and row
        }
    else:
        return None
    added = tokenizer.get("added_tokens")
    for row in added if isinstance(added, list) else []:
        if isinstance(row, dict) and isinstance(row.get("id"), int):
            tokens[row["id"]] = str(row.get("content"))
    return tokens


def tokenizer_merges(tokenizer: object) -> list[str]:
    """The BPE merges of a parsed tokenizer.json, one text each, however they are written there."""
    model = tokenizer.get("model") if isinstance(tokenizer, dict) else None
    merges = model.get("merges") if isinstance(model, dict) else None
    return [" ".join(map(str, row)) if isinstance(row, list) else str(row) for row in merges or []]


def compare_tokenizers(one_name: str, one: object, other_name: str, other: object) -> Mismatch | None:
    """The mismatch between two parsed tokenizer.json: ids that mean other tokens, other merges; None if none.

    An id that only one of them knows is a mismatch too: the soup's row for it would be a mixture with noise.
    """
    a, b = tokenizer_vocabulary(one), tokenizer_vocabulary(other)
    if a is None or b is None:
        return None
    changed = sorted(number for number in a.keys() & b.keys() if a[number] != b[number])
    only = sorted(a.keys() ^ b.keys())
    pair = f"'{show(one_name)}' and '{show(other_name)}'"
    if changed:
        examples = ", ".join(
            f"{number}: '{show(a[number], 30)}' / '{show(b[number], 30)}'" for number in changed[:5]
        )
        return Mismatch(
            "tokenizer",
            f"{len(changed)} token ids mean other tokens in {pair}: {examples}",
            (),
            "the embeddings' rows would be mixed across tokens",
        )
    if only:
        known = a | b
        examples = ", ".join(f"{number}: '{show(known[number], 30)}'" for number in only[:5])
        return Mismatch(
            "tokenizer",
            f"{len(only)} token ids exist in only one of {pair}: {examples}",
            (),
            "tokens were added in one fine-tuning",
        )
    if tokenizer_merges(one) != tokenizer_merges(other):
        return Mismatch("tokenizer", f"the merges of {pair} differ: the same text becomes other tokens")
    return None
