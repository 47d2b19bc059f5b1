"""Where an adapter's updates lie in the tensors of its base: which tensor, and which way round. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rsoup.errors import IncompatibleError, Problem, show
from rsoup.lora.adapter import Adapter, LowRank
from rsoup.tensors import Header, TensorSpec

_SHOWN = 5
_PARTS = 4


@dataclass(frozen=True, slots=True)
class Placed:
    """An update in the tensor it changes, seen as `experts` matrices of `rows` × `columns` one below the other.

    `transposed`: the stored matrix is (B·A)ᵀ: an embedding, a Conv1D of GPT-2, experts stored inputs first.
    """

    update: LowRank
    tensor: str
    rows: int
    columns: int
    transposed: bool


def placed(adapter: Adapter, base: Header, names: Mapping[str, str]) -> dict[str, Placed]:
    """Base tensor → the update that changes it, for every update; `names` maps the adapter's names to the base's.

    Raises IncompatibleError E0342 with every update that fits no tensor of the base, E0343 where it is not certain
    which way round the update is.
    """
    found: dict[str, Placed] = {}
    wrong: list[Problem] = []
    for update in adapter.updates.values():
        tensor = parameter(update, adapter, base, names)
        spec = base.get(tensor) if tensor is not None else None
        if tensor is None or spec is None:
            wrong.append(Problem(show(update.module), "the base has no such tensor"))
            continue
        shape = _matrix(update, spec)
        ways = [way for way in (False, True) if _fits(update, shape, transposed=way)]
        if not ways:
            wrong.append(
                Problem(show(tensor), f"the base has {spec}, the update is {update.rows} × {update.columns}")
            )
            continue
        way = ways[0] if len(ways) == 1 else _which(update, adapter, spec)
        found[tensor] = Placed(update, tensor, shape[1], shape[2], way)
    if wrong:
        raise does_not_fit(adapter.name, wrong, len(adapter.updates))
    return found


def _matrix(update: LowRank, spec: TensorSpec) -> tuple[int, int, int]:
    """(experts, rows, columns) as which a tensor is seen."""
    if update.experts > 1 and len(spec.shape) == 3:
        experts, rows, columns = spec.shape
        return experts, rows, columns
    if not spec.shape:
        return 1, 0, 0
    return 1, spec.shape[0], math.prod(spec.shape[1:])


def _fits(update: LowRank, shape: tuple[int, int, int], *, transposed: bool) -> bool:
    wanted = (update.columns, update.rows) if transposed else (update.rows, update.columns)
    return shape == (update.experts, *wanted)


def _which(update: LowRank, adapter: Adapter, spec: TensorSpec) -> bool:
    """Which way round a square update is: what its kind and its configuration say."""
    if update.experts > 1:
        raise IncompatibleError(
            "E0343",
            f"the experts of '{show(update.module)}' are square ({spec}): the file does not say which way round",
            where=show(adapter.name),
            hint="merge this adapter into its base with the version of PEFT that wrote it",
        )
    return update.keys.embedding or adapter.config.fan_in_fan_out


def parameter(update: LowRank, adapter: Adapter, base: Header, names: Mapping[str, str]) -> str | None:
    """The base's tensor an update changes: its module's weight, or for `target_parameters` the one that fits.

    Two wrapped parameters of one module are `M` and `M.base_layer` in the file, which says no more.
    """
    if not adapter.config.raw.get("target_parameters") or (t := names.get(update.tensor)) in base:
        return names.get(update.tensor, update.tensor if update.tensor in base else None)
    module = update.module
    while module.endswith(".base_layer"):
        module = module.removesuffix(".base_layer")
    mapped = names.get(f"{module}.", f"{module}.")
    targets = adapter.config.raw["target_parameters"]
    leaves = {str(target).rpartition(".")[2] for target in targets} if isinstance(targets, list) else set()
    fitting = [
        name
        for name in (f"{mapped}{leaf}" for leaf in sorted(leaves))
        if name in base
        and any(_fits(update, _matrix(update, base[name]), transposed=way) for way in (False, True))
    ]
    return fitting[0] if len(fitting) == 1 else t


def names_in(base: Header, wanted: Iterable[str]) -> dict[str, str]:
    """Adapter's tensor name → base's: as they are, or by the one prefix that all of them lack or have too many.

    Names for which there is none are left out. A module is asked for as `M.` and found where `M.…` is.
    """
    asked = list(wanted)
    modules = {name.rpartition(".")[0] + "." for name in base}
    known = {*base, *modules}
    ways = [("", "")]
    parts = asked[0].split(".")[:-1] if asked else []
    heads = ["".join(f"{part}." for part in parts[:count]) for count in range(min(len(parts), _PARTS) + 1)]
    first = sorted({name.split(".")[0] + "." for name in base if "." in name})
    second = sorted({".".join(name.split(".")[:2]) + "." for name in base if name.count(".") > 1})
    ways += [(old, new) for old in heads for new in ("", *first, *second) if (old, new) != ("", "")]
    best: dict[str, str] = {}
    for old, new in ways:
        found = {name: new + name[len(old) :] for name in asked if name.startswith(old)}
        found = {name: seen for name, seen in found.items() if seen in known}
        if len(found) > len(best):
            best = found
    return best


def does_not_fit(name: str, wrong: Sequence[Problem], of: int) -> IncompatibleError:
    """The error of an adapter whose updates do not all fit the base."""
    more = f" (the first {_SHOWN} shown)" if len(wrong) > _SHOWN else ""
    return IncompatibleError(
        "E0342",
        f"'{show(name)}' does not fit this base: {len(wrong)} of its {of} updates have no place in it{more}",
        details=tuple(wrong[:_SHOWN]),
        hint="is it the model the adapter was trained on, in the same size and layout?",
    )
