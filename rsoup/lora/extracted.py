"""An adapter that is extracted: its figures, its tensors under their keys, its configuration. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rsoup.compat.tied import EMBEDDING
from rsoup.lora.changes import Change, Parts
from rsoup.lora.keys import PREFIX
from rsoup.lora.portable import pattern
from rsoup.lora.ranks import Ranks
from rsoup.lora.reducing import Place
from rsoup.lora.tuned import Tuned
from rsoup.tensors import DType, Header, TensorSpec

_EXPERT: Final = re.compile(r"\.experts\.[0-9]+\.")
_CACHED: Final = re.compile(r"models--([^/]+?)--([^/]+)/snapshots/([0-9a-f]{40})/?$")
_HEADS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "ForSequenceClassification": ("SEQ_CLS", ("score", "classifier")),
    "ForTokenClassification": ("TOKEN_CLS", ("score", "classifier")),
    "ForQuestionAnswering": ("QUESTION_ANS", ("qa_outputs",)),
}


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of an extracted adapter.

    `ranks.error` is ‖Δ − B·A‖/‖Δ‖ over all modules, of the factors as they are stored; `norms` are ‖Δ‖ by module.
    `left_out` are changed tensors that are not in it, with their ‖Δ‖ where they have one, and `left_out_share` what
    that is of the norm of the whole change; `distance` is ‖θ − θ₀‖/‖θ₀‖.
    """

    ranks: Ranks
    norms: Mapping[str, float]
    errors: Mapping[str, float]
    saved: tuple[str, ...]
    biases: tuple[str, ...]
    left_out: tuple[tuple[str, float | None], ...]
    left_out_share: float
    distance: float | None


def places(parts: Parts, ranks: Mapping[str, int], *, inverted: bool) -> dict[str, Place]:
    """Module → where its factors go; `inverted`: its matrices are stored inputs first."""
    found = {}
    for change in parts.factors:
        stem = f"{PREFIX}{change.module}."
        embedding = change.kind == "embedding"
        a, b = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A.weight", "lora_B.weight")
        found[change.module] = Place(stem + a, stem + b, inverted or embedding, ranks[change.module])
    return found


def header_of(parts: Parts, where: Mapping[str, Place], dtype: DType, tuned: Header) -> Header:
    """Every tensor of the file: factors in `dtype`, what is kept whole as the fine-tune has it."""
    found: dict[str, TensorSpec] = {}
    for change in parts.factors:
        place = where[change.module]
        rows, columns = reversed(change.spec.shape) if place.transposed else change.spec.shape
        found[place.a] = TensorSpec(dtype, (place.rank, columns))
        found[place.b] = TensorSpec(dtype, (rows, place.rank))
    for key, name in whole_keys(parts).items():
        found[key] = TensorSpec(tuned[name].stored, tuned[name].shape)
    return dict(sorted(found.items()))


def whole_keys(parts: Parts) -> dict[str, str]:
    """Key → the tensor that is stored whole under it. A bias beside factors lies in the layer below them."""
    adapted = {change.module for change in parts.factors}
    found = {}
    for name in parts.wholes:
        module, _, leaf = name.rpartition(".")
        found[PREFIX + (f"{module}.base_layer.{leaf}" if module in adapted else name)] = name
        if parts.tied and EMBEDDING.search(name):
            found[f"{PREFIX}lm_head.weight"] = name
    return found


def config_of(found: Tuned, parts: Parts, ranks: Mapping[str, int], *, inverted: bool) -> dict[str, object]:
    """The smallest adapter_config.json that says all of it: α = r everywhere, targets by their shortest names."""
    r = _most_common({m: rank for m, rank in ranks.items() if _EXPERT.search(m)} or ranks)
    base, revision = named(found.recipe.base or "")
    config: dict[str, object] = {
        "peft_type": "LORA",
        "task_type": _task(found.config, parts),
        "auto_mapping": None,
        "base_model_name_or_path": base,
        "revision": revision,
        "inference_mode": True,
        "r": r,
        "lora_alpha": r,
        "lora_dropout": 0.0,
        "target_modules": targets(list(ranks), found.header),
        "fan_in_fan_out": inverted,
        "bias": _bias(parts),
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
    }
    patterns = {pattern(module, ranks): rank for module, rank in sorted(ranks.items()) if rank != r}
    if patterns:
        config |= {"rank_pattern": patterns, "alpha_pattern": dict(patterns)}
    if parts.saved:
        heads = ["lm_head"] if parts.tied else []
        config["modules_to_save"] = sorted({*parts.saved, *heads})
    if parts.tied:
        config["ensure_weight_tying"] = True
    return config


def levelled(ranks: Mapping[str, int]) -> dict[str, int]:
    """The same ranks, but all experts at the highest of theirs: transformers stacks them as it loads them."""
    highest = max((rank for module, rank in ranks.items() if _EXPERT.search(module)), default=0)
    return {module: highest if _EXPERT.search(module) else rank for module, rank in ranks.items()}


def _most_common(ranks: Mapping[str, int]) -> int:
    counts = Counter(ranks.values())
    return max(counts, key=lambda rank: (counts[rank], rank))


def named(base: str) -> tuple[str, str | None]:
    """(what the configuration calls the base, its revision): the Hub's name for a folder of its cache, else the path."""
    found = _CACHED.search(base)
    return (f"{found[1]}/{found[2]}", found[3]) if found else (base, None)


def targets(modules: Sequence[str], header: Header) -> list[str]:
    """The modules' last names where those mean them and no others of the model, else their whole names."""
    leaves = {module.rpartition(".")[2] for module in modules}
    meant = {
        name.removesuffix(".weight")
        for name, spec in header.items()
        if name.endswith(".weight") and len(spec.shape) > 1
    }
    alike = {module for module in meant if module.rpartition(".")[2] in leaves}
    return sorted(leaves) if alike == set(modules) else sorted(modules)


def _bias(parts: Parts) -> str:
    adapted = {change.module for change in parts.factors}
    if not parts.biases:
        return "none"
    return "lora_only" if all(name.rpartition(".")[0] in adapted for name in parts.biases) else "all"


def _task(config: Mapping[str, object], parts: Parts) -> str | None:
    """PEFT's name for the model's task; only where a head that PEFT then expects in the file is there."""
    architectures = config.get("architectures")
    name = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        return "CAUSAL_LM"
    if name.endswith("ForConditionalGeneration") and config.get("is_encoder_decoder"):
        return "SEQ_2_SEQ_LM"
    saved = {module.rpartition(".")[2] for module in parts.saved}
    return next((task for end, (task, heads) in _HEADS.items() if name.endswith(end) and saved & {*heads}), None)  # fmt: skip


def figures_json(found: Figures) -> dict[str, object]:
    """The figures as JSON's types."""
    ranks = found.ranks
    return {
        "modules": len(ranks.chosen),
        "rank": [min(ranks.chosen.values()), max(ranks.chosen.values())],
        "norm": ranks.norm,
        "error": ranks.error,
        "worst": [{"module": name, "error": error} for name, error in ranks.worst],
        "error_by_rank": [{"rank": rank, "error": error} for rank, error in ranks.table],
        "ranks": dict(sorted(ranks.chosen.items())),
        "norms": dict(sorted(found.norms.items())),
        "errors": dict(sorted(found.errors.items())),
        "saved": list(found.saved),
        "biases": list(found.biases),
        "left_out": [{"tensor": name, "norm": norm} for name, norm in found.left_out],
        "left_out_share": found.left_out_share,
        "distance": found.distance,
    }


def left_out(changes: Iterable[Change]) -> tuple[tuple[str, float | None], ...]:
    """(name, ‖Δ‖ or None) of what is left out."""
    return tuple((change.name, change.norm) for change in changes)
