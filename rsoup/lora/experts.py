"""Where the updates of stacked experts lie: in one tensor that holds them all, or in one or two for each. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from rsoup.errors import Problem, listing, show
from rsoup.lora.adapter import Adapter, LowRank
from rsoup.lora.parameters import stem
from rsoup.lora.placed import Placed, does_not_fit, parameter_in, uncertain
from rsoup.tensors import Header, TensorSpec

# Parameter of transformers 5 → the tensors of each expert that it stacks, one below the other.
# Source: transformers 5, `conversion_mapping`, "qwen2_moe" and "mixtral".
_STACKED: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")),
    "down_proj": (("down_proj",), ("w2",)),
}
_OLDEST: Final = (0, 19)  # before, PEFT took outputs for inputs where a model stores the outputs first

Places = list[Placed]


def placed_experts(adapter: Adapter, base: Header, names: Mapping[str, str]) -> dict[str, Placed]:
    """Base tensor → the update that changes it or its expert, for every update of several experts.

    Raises IncompatibleError E0342 with every update that has no place in the base, E0343 where it is not certain
    which place it is, or which way round.
    """
    updates = [update for update in adapter.updates.values() if update.experts > 1]
    if not updates:
        return {}
    _check_version(adapter)
    ways = {update.module: _ways(update, base, names) for update in updates}
    wrong = [Problem(show(u.module), _has_no_place(u, base, names)) for u in updates if not ways[u.module]]
    if wrong:
        raise does_not_fit(adapter.name, wrong, len(adapter.updates))
    known: dict[str, set[bool]] = {}
    for update in updates:
        if len(found := ways[update.module]) == 1:
            known.setdefault(stem(update.module), set()).add(found[0][0].transposed)
    placed: dict[str, Placed] = {}
    for update in updates:
        for place in _chosen(update, ways[update.module], known.get(stem(update.module), set()), adapter):
            if place.tensor in placed:
                raise uncertain(adapter.name, f"two updates may be of '{show(place.tensor)}'")
            placed[place.tensor] = place
    return placed


def _check_version(adapter: Adapter) -> None:
    version = adapter.config.raw.get("peft_version")
    found = re.match(r"(\d+)\.(\d+)", version) if isinstance(version, str) else None
    if found is None or (int(found[1]), int(found[2])) < _OLDEST:
        shown = f"PEFT {show(version)}" if isinstance(version, str) else "a PEFT that does not say which"
        raise uncertain(
            adapter.name,
            f"{shown} wrote its updates of stacked experts, and before 0.19 inputs and outputs lay otherwise",
        )


def _chosen(update: LowRank, ways: list[Places], known: set[bool], adapter: Adapter) -> Places:
    """The one way; of the two of a square tensor the one of the other parameter of its module."""
    if len(ways) == 1:
        return ways[0]
    tensors = list(dict.fromkeys(way[0].tensor for way in ways))
    if len(tensors) > 1:
        raise uncertain(
            adapter.name, f"'{show(update.module)}' fits {listing(tensors, 3)}: its file does not say which"
        )
    fitting = [way for way in ways if {way[0].transposed} == known]
    if not fitting:
        raise uncertain(
            adapter.name,
            f"the experts of '{show(tensors[0])}' are square: the file does not say which way round",
        )
    return fitting[0]


def _ways(update: LowRank, base: Header, names: Mapping[str, str]) -> list[Places]:
    """Every way an update may lie in the base."""
    found: list[Places] = []
    for parameter in update.parameters:
        tensor = parameter_in(parameter, names)
        if tensor in base:
            found += _in_one(update, tensor, base[tensor])
        else:
            found += _in_many(update, tensor, base)
    return found


def _in_one(update: LowRank, tensor: str, spec: TensorSpec) -> list[Places]:
    found: list[Places] = []
    for transposed in (False, True):
        rows, columns = (update.columns, update.rows) if transposed else (update.rows, update.columns)
        if spec.shape == (update.experts, rows, columns):
            found.append([Placed(update, tensor, rows, columns, transposed)])
    return found


def _in_many(update: LowRank, tensor: str, base: Header) -> list[Places]:
    """The tensors of every expert, stored outputs first: as many experts as the update has, neither more nor fewer."""
    module, _, leaf = tensor.rpartition(".")
    found: list[Places] = []
    for parts in _STACKED.get(leaf, ()):
        rows, left = divmod(update.rows, len(parts))
        places = [
            Placed(update, f"{module}.{e}.{part}.weight", rows, update.columns, False, e, at * rows)
            for e in range(update.experts)
            for at, part in enumerate(parts)
        ]
        fits = all(p.tensor in base and base[p.tensor].shape == (rows, update.columns) for p in places)
        if fits and not left and f"{module}.{update.experts}.{parts[0]}.weight" not in base:
            found.append(places)
    return found


def _has_no_place(update: LowRank, base: Header, names: Mapping[str, str]) -> str:
    tensors = [parameter_in(parameter, names) for parameter in update.parameters]
    stored = next((f"{base[t]}" for t in tensors if t in base), None)
    has = f"the base has {stored}" if stored else "the base has no such experts of that number and shape"
    return f"{has}, the update is {update.experts} × {update.rows} × {update.columns}"
