"""A LoRA of diffusers, `pytorch_lora_weights.safetensors`: which factors are of which component, and how each is scaled.

Its configuration lies in the header of the file (`lora_adapter_metadata`), one per component. Where there is none,
diffusers applies B·A as it is. Source: diffusers 0.42, `_fetch_state_dict`, `get_peft_kwargs`, `load_lora_adapter`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rsoup.errors import RefusedFileError, listing, show
from rsoup.lora.config import FROM_BASE, AdapterConfig, parse_config
from rsoup.lora.keys import FactorKeys, factors
from rsoup.storage.checkpoint_source import CheckpointSource
from rsoup.storage.files import parse_json
from rsoup.storage.lora_file import COMPONENT, conversion
from rsoup.tensors import Header

WEIGHTS: Final = "pytorch_lora_weights.safetensors"
"""The name of the file; diffusers looks for it first."""
METADATA: Final = "lora_adapter_metadata"
_KEY: Final = re.compile(
    r"^(?P<module>.+?)\.(?P<part>lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_magnitude_vector(?:\.weight)?|"
    r"lora\.down\.weight|lora\.up\.weight|lora_linear_layer\.down\.weight|lora_linear_layer\.up\.weight)$"
)
_PARTS: Final = {"lora_A.weight": "a", "lora.down.weight": "a", "lora_linear_layer.down.weight": "a",
                 "lora_B.weight": "b", "lora.up.weight": "b", "lora_linear_layer.up.weight": "b",
                 "lora_B.bias": "bias", "lora_magnitude_vector": "magnitude",
                 "lora_magnitude_vector.weight": "magnitude"}  # fmt: skip
_OF_LANGUAGE_MODELS: Final = re.compile(r"^transformer\.(?:h|wte|blocks)\.")


@dataclass(frozen=True, slots=True)
class Part:
    """What a file holds of one component ('' where the file is of one model): its factors by module, its configuration."""

    component: str
    config: AdapterConfig
    modules: Mapping[str, FactorKeys]

    def stem(self, module: str) -> str:
        """What the keys of a module begin with."""
        return f"{self.component}.{module}." if self.component else f"{module}."

    def name(self, module: str) -> str:
        """The module's name in a pipeline: `unet/down_blocks.0…`. transformers before 5 had `text_model.` in it."""
        if not self.component:
            return module
        bare = module.removeprefix("text_model.") if self.component.startswith("text_encoder") else module
        return f"{self.component}/{bare}"


def parts_of(header: Header, metadata: Mapping[str, str], where: str, path: str) -> list[Part]:
    """The components of a file, its every key accounted for.

    Raises RefusedFileError E0821, E0822 for keys without a place, E0827 where the scaling is not certain, and as
    `parse_config`.
    """
    keys = _sorted(header, where, path)
    said = _said(metadata, where)
    found = []
    for component, modules in keys.items():
        if said is None:
            ranks = {module: header[own.b].shape[1:2] for module, own in modules.items()}
            config = _unscaled({module: rank[0] for module, rank in ranks.items() if rank}, where)
        else:
            config = _config(said, component, where, path)
        found.append(Part(component, config, modules))
    if said is None and (not all(keys) or any(_OF_LANGUAGE_MODELS.match(key) for key in header)):
        raise _uncertain("its header does not say how the factors are scaled", where, header, path)
    twice = [
        name for name, count in Counter(p.name(m) for p in found for m in p.modules).items() if count > 1
    ]
    if twice:
        raise _uncertain(f"{listing(twice, 2)} is in it under two names", where, header, path)
    return found


def _sorted(header: Header, where: str, path: str) -> dict[str, dict[str, FactorKeys]]:
    """Component → module → its keys."""
    if alphas := [key for key in header if key.endswith(".alpha")]:
        what = f"whether {listing(alphas, 1)} and its like scale the factors depends on the pipeline"
        raise _uncertain(what, where, header, path)
    parts: dict[str, dict[str, dict[str, str]]] = {}
    strange = []
    for key in header:
        component = found["component"] if (found := COMPONENT.match(key)) else ""
        match = _KEY.match(key[len(component) + 1 :] if component else key)
        if match is None:
            strange.append(key)
            continue
        own = parts.setdefault(component, {}).setdefault(match["module"], {})
        kind = _PARTS[match["part"]]
        if kind in own:
            strange.append(key)
        own[kind] = key
    if strange:
        raise RefusedFileError(
            "E0821",
            f"{len(strange)} of its tensors have no place in a LoRA of diffusers: {listing(strange, 3)}",
            where=where,
            hint=conversion(header, path),
        )
    if "" in parts and len(parts) > 1:
        raise _uncertain(
            f"it is not said of what component {listing(list(parts['']), 1)} is", where, header, path
        )
    return {
        component: {m: factors(m, own, where) for m, own in of.items()} for component, of in parts.items()
    }


def _said(metadata: Mapping[str, str], where: str) -> Mapping[str, object] | None:
    raw = metadata.get(METADATA)
    if not raw:
        return None
    found = parse_json(raw.encode("utf-8", "surrogatepass"), f"{where}: {METADATA}")
    if not isinstance(found, dict):
        raise RefusedFileError(
            "E0827",
            f"{METADATA} in its header is no table",
            where=where,
            hint="save the LoRA again with diffusers",
        )
    return found


def unlike_metadata(one: CheckpointSource, other: CheckpointSource) -> tuple[tuple[str, object, object], ...]:
    """(key, in one, in the other) of what two LoRAs say of themselves and differ in. Raises RefusedFileError E0827."""
    ours, theirs = (_said(source.metadata, show(source.name)) or {} for source in (one, other))
    keys = sorted({*ours, *theirs})
    return tuple((k, ours.get(k), theirs.get(k)) for k in keys if ours.get(k) != theirs.get(k))


def _config(said: Mapping[str, object], component: str, where: str, path: str) -> AdapterConfig:
    """A component's configuration; one that the metadata passes over gets PEFT's defaults, as it does in diffusers."""
    prefix = f"{component}." if component else ""
    own = {key.removeprefix(prefix): value for key, value in said.items() if key.startswith(prefix)}
    if not component and "r" not in own:
        raise _uncertain("its header does not say how the factors are scaled", where, (), path)
    found = parse_config(json.dumps({"peft_type": "LORA", **own}).encode(), f"{where}: {METADATA}")
    if found.peft_type != "LORA" or found.init in FROM_BASE or found.fan_in_fan_out:
        what = f"peft_type {found.peft_type}, init_lora_weights {found.init}, fan_in_fan_out {found.fan_in_fan_out}"
        raise _uncertain(f"what diffusers makes of it depends on how it is loaded ({what})", where, (), path)
    return found


def _unscaled(ranks: Mapping[str, int], where: str) -> AdapterConfig:
    """The configuration under which s = 1 in every module."""
    own = {f"^{re.escape(module)}": rank for module, rank in ranks.items()}
    first = next(iter(ranks.values()), 1)
    raw = {"peft_type": "LORA", "r": first, "lora_alpha": first, "rank_pattern": own, "alpha_pattern": own}
    return parse_config(json.dumps(raw).encode(), where)


def joined(parts: list[Part], where: str) -> AdapterConfig:
    """What the parts have in common, for everything that asks for one configuration; scalings are the parts' own."""
    ranks = Counter(part.config.r for part in parts)
    r = max(ranks, key=lambda rank: (ranks[rank], rank))
    rs = all(part.config.use_rslora for part in parts)
    raw = {"peft_type": "LORA", "r": r, "lora_alpha": r, "use_rslora": rs}
    return parse_config(json.dumps(raw).encode(), where)


def _uncertain(what: str, where: str, names: Header | tuple[str, ...], path: str) -> RefusedFileError:
    way_out = "load it with diffusers as it was trained, and save it again with save_lora_weights or save_lora_adapter"
    return RefusedFileError("E0827", what, where=where, hint=conversion(names, path) if names else way_out)
