"""The metadata of a soup's `pytorch_lora_weights.safetensors`: α = r in every module, component by component. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

from rsoup.lora.outline import Outline
from rsoup.lora.portable import pattern


def metadata_of(outline: Outline) -> bytes:
    """What `lora_adapter_metadata` says, as diffusers writes it: each component's keys under its name."""
    found: dict[str, object] = {}
    components: dict[str, dict[str, int]] = {}
    for name, rank in outline.ranks.items():
        component, slash, module = name.rpartition("/")
        components.setdefault(component + slash, {})[module] = rank
    dora = any(out.dora for out in outline.modules.values())
    biased = any(out.biased for out in outline.modules.values())
    for component, ranks in components.items():
        prefix = component.replace("/", ".")
        config = {**_component(ranks), "use_dora": dora, "lora_bias": biased}
        found |= {f"{prefix}{key}": value for key, value in config.items()}
    return json.dumps(found, indent=2, sort_keys=True).encode("ascii")


def _component(ranks: Mapping[str, int]) -> dict[str, object]:
    counts = Counter(ranks.values())
    r = max(counts, key=lambda rank: (counts[rank], rank))
    patterns = {pattern(module, ranks): rank for module, rank in sorted(ranks.items()) if rank != r}
    return {
        "peft_type": "LORA",
        "r": r,
        "lora_alpha": r,
        "rank_pattern": patterns,
        "alpha_pattern": dict(patterns),
        "target_modules": sorted(ranks),
        "lora_dropout": 0.0,
        "use_rslora": False,
        "init_lora_weights": True,
        "bias": "none",
        "inference_mode": True,
    }
