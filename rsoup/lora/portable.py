"""The smallest adapter_config.json that says all of a soup's file and nothing else, for PEFT and for servers. Pure."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rsoup.lora.adapter import Adapter, LowRank
from rsoup.lora.design import Design
from rsoup.lora.outline import Outline
from rsoup.tensors import Header


def config_of(outline: Outline, base: Header | None) -> dict[str, object]:
    """The configuration: α = r in every module, so that all scaling is in the factors; targets by their shortest names.

    `base` are the base's tensors, if they are known. Integers stay integers: servers read them as such.
    """
    design = outline.design
    adapters = [design.adapters[i] for i in design.used]
    ranks = outline.ranks
    r = _most_common(ranks)
    first = adapters[0].config
    found: dict[str, object] = {
        "peft_type": "LORA",
        "task_type": next((a.config.task_type for a in adapters if a.config.task_type), None),
        "auto_mapping": first.raw.get("auto_mapping"),
        "base_model_name_or_path": next((a.config.base for a in adapters if a.config.base), None),
        "revision": next((a.config.revision for a in adapters if a.config.revision), None),
        "inference_mode": True,
        "r": r,
        "lora_alpha": r,
        "lora_dropout": 0.0,
        "target_modules": targets(design, base),
        "fan_in_fan_out": first.fan_in_fan_out,
        "bias": _bias(design, adapters),
        "use_rslora": False,
        "use_dora": any(out.dora for out in outline.modules.values()),
        "init_lora_weights": True,
    }
    keys = {name: _known_as(design, name) for name in ranks}
    patterns = {
        pattern(key, [k for ks in keys.values() for k in ks]): rank
        for name, rank in sorted(ranks.items())
        if rank != r
        for key in keys[name]
    }
    if patterns:
        found |= {"rank_pattern": patterns, "alpha_pattern": dict(patterns)}
    if any(out.biased for out in outline.modules.values()):
        found["lora_bias"] = True
    if saved := _modules_to_save(design):
        found["modules_to_save"] = saved
    if outline.rows:
        found["trainable_token_indices"] = {
            rows.name.removesuffix(".weight"): list(rows.indices) for rows in outline.rows.values()
        }
    if any(adapter.config.raw.get("ensure_weight_tying") for adapter in adapters):
        found["ensure_weight_tying"] = True
    for key in ("target_parameters", "alora_invocation_tokens"):
        if first.raw.get(key):
            found[key] = first.raw[key]
    if "target_parameters" in found:
        found["peft_version"] = first.raw.get("peft_version")  # which says how experts are laid out
    return found


def encode(config: Mapping[str, object]) -> bytes:
    """The configuration as PEFT writes it: sorted keys, two spaces."""
    return json.dumps(config, indent=2, sort_keys=True).encode("ascii")


def _most_common(ranks: Mapping[str, int]) -> int:
    """The rank most modules have, the largest of several; PEFT asks for one even where no module has any."""
    counts = Counter(ranks.values())
    return max(counts, key=lambda rank: (counts[rank], rank)) if counts else 1


def pattern(module: str, modules: Iterable[str]) -> str:
    """The key of a pattern that fits this module and no other: PEFT lets a pattern begin at any dot."""
    others = any(other.endswith(f".{module}") for other in modules)
    return ("^" if others else "") + re.escape(module)


def targets(design: Design, base: Header | None) -> list[str]:
    """The modules that are adapted: by the last part of their names where that means them and no others.

    That is known of a base, or of adapters that all targeted by plain lists of such names; else the whole names.
    """
    names = sorted(module.name for module in design.modules if not _is_parameter(design, module.name))
    leaves = sorted({name.rpartition(".")[2] for name in names})
    if base is not None:
        matching = {
            name.rpartition(".")[0]
            for name, spec in base.items()
            if len(spec.shape) > 1 and name.endswith(".weight")
        }
        same = {name for name in matching if name.rpartition(".")[2] in leaves}
        return leaves if {_tail(name) for name in same} == {_tail(name) for name in names} else names
    plain = all(_targets_plainly(adapter) for adapter in design.adapters)
    return leaves if plain and not design.recipe.drop else names


def _tail(name: str) -> str:
    """A module's name without the wrappers that a base and an adapter may differ in."""
    found = re.search(r"(?:layers|h|blocks?|layer)\.[0-9]+\..*$", name)
    return found[0] if found else name.rpartition(".")[2]


def _targets_plainly(adapter: Adapter) -> bool:
    """Whether an adapter targeted every module of some last names: its configuration is a list of just these."""
    raw = adapter.config.raw
    listed = raw.get("target_modules")
    if (
        not isinstance(listed, list)
        or raw.get("exclude_modules")
        or raw.get("layers_to_transform") is not None
    ):
        return False
    leaves = {name.rpartition(".")[2] for name in adapter.updates}
    return bool(leaves) and leaves == {str(name) for name in listed}


def _is_parameter(design: Design, module: str) -> bool:
    """Whether an update is of a parameter, not of a module."""
    return bool(_like(design, module).parameters)


def _known_as(design: Design, module: str) -> tuple[str, ...]:
    """What patterns know an update as: its module, or the parameter of it that is wrapped."""
    return _like(design, module).parameters or (module,)


def _like(design: Design, module: str) -> LowRank:
    return next(m for m in design.modules if m.name == module).like


def _bias(design: Design, adapters: Sequence[Adapter]) -> str:
    if not any(whole.name.endswith(".bias") for whole in design.wholes):
        return "none"
    kinds = {adapter.config.bias for adapter in adapters} - {"none"}
    return "all" if "all" in kinds or len(kinds) != 1 else kinds.pop()


def _modules_to_save(design: Design) -> list[str]:
    """The modules whose tensors are stored whole, as the adapters called them."""
    asked: list[str] = []
    for i in design.used:
        named = design.adapters[i].config.raw.get("modules_to_save")
        asked += [str(name) for name in named] if isinstance(named, list) else []
    modules = {whole.name.rpartition(".")[0] for whole in design.wholes} - {m.name for m in design.modules}
    used = [
        name
        for name in dict.fromkeys(asked)
        if any(re.match(rf"(^|.*\.){re.escape(name)}($|\..*)", module) for module in modules)
    ]
    return sorted(used)
