"""Which parameters `target_parameters` adapts: the name behind each update in the file. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from rsoup.lora.config import AdapterConfig

_BASE_LAYER: Final = ".base_layer"
_REGISTERED: Final = ("gate_up_proj", "down_proj")  # in this order by every model of transformers


def stem(module: str) -> str:
    """The module whose parameters are wrapped: several wrapped ones are nested, `M`, `M.base_layer` and so on."""
    while module.endswith(_BASE_LAYER):
        module = module.removesuffix(_BASE_LAYER)
    return module


def parameters(modules: Iterable[str], config: AdapterConfig) -> dict[str, tuple[str, ...]]:
    """Module as the file names it → the parameter its update changes; all it may be where that is not certain.

    Modules adapted as a whole are left out. The parameter registered first is the innermost.
    Source: PEFT 0.21, `BaseTuner._inject_parameters`.
    """
    listed = config.raw.get("target_parameters")
    targets = [str(target) for target in listed] if isinstance(listed, list) else []
    nested: dict[str, list[str]] = {}
    for module in modules:
        nested.setdefault(stem(module), []).append(module)
    found: dict[str, tuple[str, ...]] = {}
    for owner, wrappers in nested.items():
        leaves = _leaves(owner, targets, len(wrappers))
        if not leaves or (len(wrappers) == 1 and _is_target(owner, config)):
            continue
        names = [f"{owner}.{leaf}" for leaf in leaves]
        certain = len(names) == len(wrappers) and (len(names) == 1 or set(leaves) <= set(_REGISTERED))
        for at, module in enumerate(sorted(wrappers, key=len, reverse=True)):
            found[module] = (names[at],) if certain else tuple(names)
    return found


def _leaves(owner: str, targets: Sequence[str], count: int) -> list[str]:
    """The parameters of a module that are targets; those that name it, where they suffice."""
    fitting = [t for t in targets if f".{owner}.{t.rpartition('.')[2]}".endswith(f".{t}")]
    exact = [target for target in fitting if "." in target]
    leaves = {target.rpartition(".")[2] for target in (exact if len(exact) >= count else fitting)}
    return sorted(leaves, key=lambda leaf: (_REGISTERED.index(leaf) if leaf in _REGISTERED else 2, leaf))


def _is_target(module: str, config: AdapterConfig) -> bool:
    """Whether `target_modules` names a module: PEFT wraps it then, and none of its parameters."""
    targets = config.raw.get("target_modules")
    if isinstance(targets, str):
        try:
            return re.fullmatch(targets, module) is not None
        except re.error:
            return False
    return isinstance(targets, list) and any(f".{module}".endswith(f".{target}") for target in targets)
